/* iq1_s and iq1_m for a GPU's thread: what data indexes is in columns of shared memory, and
 * iq1_m's splits are judged by running sums before any is summed in order. Included by text_iq1.h. */
#ifndef SLUICE_KERNELS_TEXT_IQ1_DEVICE_H
#define SLUICE_KERNELS_TEXT_IQ1_DEVICE_H

V_FN void in_order(const vf *v, int n, const vi *rank, float *to)
{
    for (int i = 0; i < n; i++)
        to[V_SPOT(rank[i])] = v[i];
}

#define V_SEARCH V_FN

/* ---- iq1_s: running sums over the values in order */

struct iq1s_prefix {
    float *x, *w; /* columns of 33; the high parts are made where they are needed */
};
#define IQ1S_PREFIX(name) V_SPOTS(name##_spots, 66); struct iq1s_prefix name = {name##_spots, name##_spots + V_SPOT(33)}

V_FN void iq1s_prefix(const vf *x, const vf *w, const vi *rank, struct iq1s_prefix *f)
{
    vf wx[32], sum_x = v_set(0.f), sum_w = sum_x;

    for (int i = 0; i < 32; i++)
        wx[i] = v_mul(w[i], x[i]);
    in_order(wx, 32, rank, f->x + V_SPOT(1));
    in_order(w, 32, rank, f->w + V_SPOT(1));
    f->x[0] = f->w[0] = v_set(0.f);
    for (int i = 1; i <= 32; i++) {
        f->x[V_SPOT(i)] = sum_x = v_add(sum_x, f->x[V_SPOT(i)]);
        f->w[V_SPOT(i)] = sum_w = v_add(sum_w, f->w[V_SPOT(i)]);
    }
}

/* A candidate's sums for a split of 32 values, moved up (p) and moved down (m). The levels of the two are
 * each other's negatives in reverse, so products are shared. */
struct iq1s_low { vf x1, w1, xp, xm, wp, wm, all_x, all_w; };
struct iq1s_sums { vf xp, xm, wp, wm; };

V_FN struct iq1s_low iq1s_low_part(const struct iq1s_prefix *f, int i1)
{
    vf low = v_set(0.875f), high = v_set(1.125f), x1 = f->x[V_SPOT(i1)], w1 = f->w[V_SPOT(i1)];
    struct iq1s_low l = {x1, w1, v_neg(v_mul(x1, low)), v_neg(v_mul(x1, high)), v_mul(v_mul(w1, low), low),
                         v_mul(v_mul(w1, high), high), f->x[V_SPOT(32)], f->w[V_SPOT(32)]};

    return l;
}

V_FN struct iq1s_sums iq1s_split(const struct iq1s_prefix *f, struct iq1s_low l, int i1, int i2)
{
    vf low = v_set(0.875f), high = v_set(1.125f), mid = v_set(0.125f);
    vf x2 = f->x[V_SPOT(i2)], w2 = f->w[V_SPOT(i2)], rest_x = v_sub(l.all_x, x2), rest_w = v_sub(l.all_w, w2);
    vf mid_x = v_mul(v_sub(x2, l.x1), mid), mid_w = v_mul(v_mul(v_sub(w2, l.w1), mid), mid);
    struct iq1s_sums s = {v_add(v_add(l.xp, mid_x), v_mul(rest_x, high)), v_add(v_sub(l.xm, mid_x), v_mul(rest_x, low)),
                          v_add(v_add(l.wp, mid_w), v_mul(v_mul(rest_w, high), high)),
                          v_add(v_add(l.wm, mid_w), v_mul(v_mul(rest_w, low), low))};

    (void)i1;
    return s;
}

/* ---- iq1_m: values and weights in order, and where the second half's are */

struct iq1m_terms {
    float *x, *w; /* columns of 16; running sums stand behind them */
    uint32_t second;
};
#define IQ1M_COLUMNS 83
#define IQ1M_TERMS(name)                                                                                              \
    V_SPOTS(name##_spots, IQ1M_COLUMNS);                                                                              \
    struct iq1m_terms name = {.x = name##_spots, .w = name##_spots + V_SPOT(16)}

V_FN void iq1m_terms(const vf *x, const vf *w, const vi *rank, struct iq1m_terms *f)
{
    in_order(x, 16, rank, f->x);
    in_order(w, 16, rank, f->w);
    f->second = 0;
    for (int i = 8; i < 16; i++)
        f->second |= 1u << rank[i];
}

/* What place j adds as a high value, in each kind: 0 both halves up, 1 the second down, 2 the first
 * down, 3 both down. As a low one it adds the negative (q2: the same) of the opposite kind's. */
V_FN void iq1m_high(const struct iq1m_terms *f, int j, vf *x, vf *w)
{
    bool second = f->second >> j & 1;
    vf value = f->x[V_SPOT(j)], less = v_mul(f->w[V_SPOT(j)], 0.875f), more = v_mul(f->w[V_SPOT(j)], 1.125f);

    x[0] = v_mul(more, value);
    x[3] = v_mul(less, value);
    w[0] = v_mul(more, 1.125f);
    w[3] = v_mul(less, 0.875f);
    x[1] = second ? x[3] : x[0];
    x[2] = second ? x[0] : x[3];
    w[1] = second ? w[3] : w[0];
    w[2] = second ? w[0] : w[3];
}

/* As a middle one, in kind 0 or 1 (2 and 3: the negatives of 1 and 0). */
V_FN vf iq1m_mid(const struct iq1m_terms *f, int j, int kind)
{
    vf m = v_mul(v_mul(f->w[V_SPOT(j)], 0.125f), f->x[V_SPOT(j)]);

    return kind && f->second >> j & 1 ? v_neg(m) : m;
}

V_FN vf iq1m_mid_w(const struct iq1m_terms *f, int j) { return v_mul(v_mul(f->w[V_SPOT(j)], 0.125f), 0.125f); }

/* Sums of one split in one kind, in order. id: i1 | i2 << 5 | kind << 10; without the kind it is a place. */
V_FN void iq1m_split(const struct iq1m_terms *f, uint32_t id, vf *sum_x, vf *sum_w)
{
    uint32_t low = (1u << (id & 31)) - 1, mid = low ^ ((1u << (id >> 5 & 31)) - 1);
    uint32_t down = (id >> 10 & 1 ? f->second : 0) | (id >> 11 & 1 ? ~f->second : 0);
    uint32_t more = ~(low ^ down), negative = low | (mid & down);
    vf x = v_set(0.f), w = x;

    V_ROLLED
    for (int from = 0; from < 16; from += 8, mid >>= 8, more >>= 8, negative >>= 8) /* all at once would take registers */
        V_UNROLL
        for (int j = 0; j < 8; j++) {
            vf by = mid >> j & 1 ? 0.125f : more >> j & 1 ? 1.125f : 0.875f;
            vf weighted = v_mul(f->w[V_SPOT(from + j)], by), product = v_mul(weighted, f->x[V_SPOT(from + j)]);

            x = v_add(x, sl_float(sl_bits(product) ^ (negative << (31 - j) & 0x80000000)));
            w = v_add(w, v_mul(weighted, by));
        }
    *sum_x = x;
    *sum_w = w;
}

/* Running sums over the values in order, up to each place: of w * x, of w, and of w where
 * those of the second half count as negative. A value's level falls by 1 where it leaves the high part,
 * and again where it leaves the middle, so a split's sums follow from those at i1 and at i2. They and the sums in
 * order differ by less than 128 roundings, each of at most 2^-24 of what all terms' magnitudes add up to;
 * slack is 2^-16 of that. */
#define IQ1M_SLACK 0x1p-16f
struct iq1m_near {
    float *x, *w, *v; /* columns of 17 */
    vf eighth[2];     /* of all w * x, and of the first half's less the second's: what up adds to a split's sum */
    vf all, all_w;    /* what magnitudes add up to */
};

/* Returns whether no number is so large or small that roundings are not what they usually are. */
V_FN bool iq1m_near(const struct iq1m_terms *f, struct iq1m_near *n)
{
    vf zero = v_set(0.f), sum_x = zero, sum_w = zero, sum_v = zero, halves = zero;

    n->x = f->x + V_SPOT(32);
    n->w = f->x + V_SPOT(49);
    n->v = f->x + V_SPOT(66);
    n->x[0] = n->w[0] = n->v[0] = n->all = n->all_w = zero;
    V_UNROLL
    for (int j = 0; j < 16; j++) {
        vf w = f->w[V_SPOT(j)], p = v_mul(w, f->x[V_SPOT(j)]);
        uint32_t second = f->second << (31 - j) & 0x80000000;

        n->x[V_SPOT(j + 1)] = sum_x = v_add(sum_x, p);
        n->w[V_SPOT(j + 1)] = sum_w = v_add(sum_w, w);
        n->v[V_SPOT(j + 1)] = sum_v = v_add(sum_v, sl_float(sl_bits(w) ^ second));
        halves = v_add(halves, sl_float(sl_bits(p) ^ second));
        n->all = v_add(n->all, fabsf(p));
        n->all_w = v_add(n->all_w, fabsf(w));
    }
    n->eighth[0] = v_mul(sum_x, 0.125f);
    n->eighth[1] = v_mul(halves, 0.125f);
    return n->all > 0x1p-45f && n->all < 0x1p45f && n->all_w > 0x1p-36f && n->all_w < 0x1p36f;
}

/* The sums at a place, in all kinds. */
V_FN void iq1m_near_sums(const struct iq1m_near *n, uint32_t place, vf *x, vf *w)
{
    int i1 = (int)(place & 31), i2 = (int)(place >> 5);
    vf w1 = n->w[V_SPOT(i1)], w2 = n->w[V_SPOT(i2)], all_w = n->w[V_SPOT(16)];
    vf common = v_sub(v_sub(n->x[V_SPOT(16)], n->x[V_SPOT(i1)]), n->x[V_SPOT(i2)]);
    vf common_w = v_sub(v_add(v_mul(all_w, 1.015625f), w1), w2);
    vf by[2] = {v_sub(v_sub(all_w, w1), w2), v_sub(v_sub(n->v[V_SPOT(16)], n->v[V_SPOT(i1)]), n->v[V_SPOT(i2)])};

    V_UNROLL
    for (int k = 0; k < 2; k++) {
        vf fourth = v_mul(by[k], 0.25f);

        x[k] = v_add(common, n->eighth[k]);
        x[3 - k] = v_sub(common, n->eighth[k]);
        w[k] = v_add(common_w, fourth);
        w[3 - k] = v_sub(common_w, fourth);
    }
}

/* The best split that was looked at: its score is square / of. */
struct iq1m_guess {
    vf square, of;
    uint32_t place;
};

V_FN void iq1m_try(const struct iq1m_near *n, uint32_t place, struct iq1m_guess *g)
{
    vf x[4], w[4];

    iq1m_near_sums(n, place, x, w);
    V_UNROLL
    for (int k = 0; k < 4; k++) {
        vf square = sqr(x[k]);
        bool better = v_mul(g->square, w[k]) < v_mul(square, g->of);

        g->square = better ? square : g->square;
        g->of = better ? w[k] : g->of;
        g->place = better ? place : g->place;
    }
}

/* Nine places, and from the best of them up the hill: on normally distributed values mostly the best, or within 1 %. */
V_FN struct iq1m_guess iq1m_guess(const struct iq1m_near *n)
{
    struct iq1m_guess g = {v_set(0.f), v_set(1.f), 0};

    V_ROLLED
    for (uint32_t i1 = 1; i1 < 8; i1 += 3)
        V_ROLLED
        for (uint32_t i2 = 9; i2 < 16; i2 += 3)
            iq1m_try(n, i1 | i2 << 5, &g);
    V_ROLLED
    for (int step = 0; step < 8; step++) {
        int by = step & 1 ? 1 : -1, i1 = (int)(g.place & 31) + (step & 2 ? 0 : by), i2 = (int)(g.place >> 5) + (step & 2 ? by : 0);

        iq1m_try(n, (uint32_t)(v_imax(v_imin(i1, i2), 0) | v_imin(i2, 16) << 5), &g);
    }
    return g;
}

/* What that split's score is above, by little, as a real number; 0: nothing is known. */
V_FN vf iq1m_below(const struct iq1m_near *n, const struct iq1m_guess *g)
{
    vf down = v_sub(g->square, v_mul(sqr(n->all), 4 * IQ1M_SLACK)), over = v_add(g->of, v_mul(n->all_w, IQ1M_SLACK));
    vf below = v_mul(v_div(down, over), 1 - 0x1p-15f);

    return down > 0.f && over > 0.f && below > 0x1p-100f && below < 0x1p60f ? below : v_set(0.f);
}

/* Places in order, the last one lowest: six in at, of 10 bits each, those before them in before. */
#define IQ1M_PLACES 12
struct iq1m_places {
    uint64_t at, before;
    int n; /* more than IQ1M_PLACES: some were lost */
};

V_FN void iq1m_put(struct iq1m_places *p, int i1, int i2)
{
    p->before = p->before << 10 | p->at >> 50;
    p->at = (p->at << 10 & ((1ull << 60) - 1)) | (uint32_t)(i1 | i2 << 5);
    p->n++;
}

V_FN uint32_t iq1m_place(const struct iq1m_places *p, int i)
{
    return (uint32_t)(i < 6 ? p->at >> 10 * i : p->before >> 10 * (i - 6)) & 0x3ff;
}

/* A split's score is (u + a)^2 / (m + e) in kind 0 and (u - a)^2 / (m - e) in kind 3, and so, with others in place of
 * a and e, in 1 and 2. So one of two is L or more where u^2 - L m + a^2 + |2 a u - L e| is 0 or more. u, m and e are
 * a number less (m: less and more) one of i1's and one of i2's, and so is 2 a u - L e; u^2 has the product of two such besides. What
 * is rounded here, and slack, moves that by less than 2^-13 of all^2 + L all_w, which is added to it. */
struct iq1m_row {
    vf twice, rest[2], turn[2]; /* rest: what i1 has in it, turn: in 2 a u - L e */
};

V_FN void iq1m_turn(const struct iq1m_near *n, vf fourth, int i, vf *turn)
{
    turn[0] = v_sub(v_mul(v_mul(n->eighth[0], 2.f), n->x[V_SPOT(i)]), v_mul(fourth, n->w[V_SPOT(i)]));
    turn[1] = v_sub(v_mul(v_mul(n->eighth[1], 2.f), n->x[V_SPOT(i)]), v_mul(fourth, n->v[V_SPOT(i)]));
}

V_FN struct iq1m_row iq1m_row_of(const struct iq1m_near *n, vf least, vf added, int i1)
{
    vf u = v_sub(n->x[V_SPOT(16)], n->x[V_SPOT(i1)]), m = v_add(v_mul(n->w[V_SPOT(16)], 1.015625f), n->w[V_SPOT(i1)]);
    vf rest = v_add(v_sub(sqr(u), v_mul(least, m)), added), all[2], turn[2];
    struct iq1m_row r = {.twice = v_add(u, u)};

    iq1m_turn(n, v_mul(least, 0.25f), 16, all);
    iq1m_turn(n, v_mul(least, 0.25f), i1, turn);
    V_UNROLL
    for (int k = 0; k < 2; k++) {
        r.rest[k] = v_add(rest, sqr(n->eighth[k]));
        r.turn[k] = v_sub(all[k], turn[k]);
    }
    return r;
}

/* The places in four rows of i1 that may have a score of `least` or more. Returns whether (0, 0) is one. */
V_FN bool iq1m_scan_rows(const struct iq1m_near *n, vf least, const struct iq1m_row *r, int i1, struct iq1m_places *p)
{
    uint32_t below[4] = {0, 0, 0, 0};

    V_ROLLED
    for (int i2 = i1; i2 <= 16; i2++) {
        vf x2 = n->x[V_SPOT(i2)], rest = v_add(sqr(x2), v_mul(least, n->w[V_SPOT(i2)])), turn[2];

        iq1m_turn(n, v_mul(least, 0.25f), i2, turn);
        V_UNROLL
        for (int q = 0; q < 4; q++) {
            vf one = v_add(r[q].rest[0], fabsf(v_sub(r[q].turn[0], turn[0])));
            vf two = v_add(r[q].rest[1], fabsf(v_sub(r[q].turn[1], turn[1])));
            vf over = v_add(v_sub(rest, v_mul(r[q].twice, x2)), fmaxf(one, two));

            below[q] = below[q] << 1 | sl_bits(over) >> 31;
        }
    }
    V_UNROLL
    for (int q = 0; q < 4; q++) {
        uint32_t left = ~below[q] & 0x1ffffu >> (i1 + q); /* i2 = 16 is the lowest */

        V_ROLLED
        while (left) {
            int top = v_top(left);

            iq1m_put(p, i1 + q, 16 - top);
            left ^= 1u << top;
        }
    }
    return i1 == 0 && !(below[0] >> 16 & 1);
}

V_FN struct iq1m_places iq1m_scan(const struct iq1m_near *n, vf least)
{
    vf added = v_mul(v_add(sqr(n->all), v_mul(least, n->all_w)), 8 * IQ1M_SLACK);
    struct iq1m_places p = {0, 0, 0};
    bool high = false;

    V_ROLLED
    for (int i1 = 0; i1 < 16; i1 += 4) {
        struct iq1m_row r[4];

        V_UNROLL
        for (int q = 0; q < 4; q++)
            r[q] = iq1m_row_of(n, least, added, i1 + q);
        high = iq1m_scan_rows(n, least, r, i1, &p) || high;
    }
    if (high) /* all values low have the scores of all high */
        iq1m_put(&p, 16, 16);
    return p;
}

/* Splits that may be the best, in order, the last one lowest: five in id, of 12 bits each, those before them
 * in places of 16. Of all others the score, as a real number, is below `least`. */
#define IQ1M_LIST 9
struct iq1m_list {
    uint64_t id, before;
    int n; /* more than IQ1M_LIST: some were lost */
    vf least;
};

V_FN uint32_t iq1m_id(const struct iq1m_list *l, int i)
{
    return (uint32_t)(i < 5 ? l->id >> 12 * i : l->before >> 16 * (i - 5)) & 0xfff;
}

/* Lists the splits of the places. */
V_FN void iq1m_note(const struct iq1m_near *n, const struct iq1m_places *p, struct iq1m_list *l)
{
    vf slack_x = v_mul(n->all, IQ1M_SLACK), slack_w = v_mul(n->all_w, IQ1M_SLACK);

    V_ROLLED
    for (int i = p->n - 1; i >= 0; i--) {
        uint32_t place = iq1m_place(p, i), which = 0;
        vf x[4], w[4];

        iq1m_near_sums(n, place, x, w);
        V_UNROLL
        for (int k = 0; k < 4; k++)
            which |= sqr(v_add(fabsf(x[k]), slack_x)) < v_mul(l->least, v_sub(w[k], slack_w)) ? 0 : 1u << k;
        V_ROLLED
        for (uint32_t k = 0; which; which >>= 1, k++) {
            if (!(which & 1))
                continue;
            l->before = l->before << 16 | l->id >> 48;
            l->id = l->id << 12 | place | k << 10;
            l->n++;
        }
    }
}

/* Looks at all splits. Returns whether the list is whole. What is found says how high scores are, and the list stands on that; where
 * too much was found, the next look finds less. */
V_FN bool iq1m_look(const struct iq1m_near *n, struct iq1m_list *l)
{
    struct iq1m_guess g = iq1m_guess(n);
    struct iq1m_places p;
    vf before, now;

    *l = (struct iq1m_list){0, 0, 0, iq1m_below(n, &g)};
    V_ROLLED
    do {
        before = l->least;
        p = iq1m_scan(n, before);
        V_ROLLED
        for (int i = v_imin(p.n, IQ1M_PLACES) - 1; i >= 0; i--)
            iq1m_try(n, iq1m_place(&p, i), &g);
        now = iq1m_below(n, &g);
        l->least = now > before ? now : before;
    } while (p.n > IQ1M_PLACES && l->least > v_mul(before, 1 + 0x1p-10f));
    if (p.n > IQ1M_PLACES)
        return false;
    iq1m_note(n, &p, l);
    return l->n <= IQ1M_LIST;
}

/* Of the splits in the list the last that is taken, as iq1m_search takes them. What it took before the
 * first one that is clearly above `least` does not matter, since its score was not; one that is too near to
 * tell (a margin of 2^-18 against three roundings) may have been taken or not, and the next has to be above
 * it as well. Returns false where no split is clearly above. */
V_FN bool iq1m_take(const struct iq1m_terms *f, const struct iq1m_list *l, struct iq1_best *b)
{
    bool known = false;
    vf bound = l->least;

    *b = iq1_start();
    if (!(l->n <= IQ1M_LIST && bound > 0x1p-100f && bound < 0x1p100f))
        return false;
    V_ROLLED
    for (int i = l->n - 1; i >= 0; i--) {
        uint32_t id = iq1m_id(l, i);
        vf x, w;

        iq1m_split(f, id, &x, &w);
        known = known || (w > 0.f && v_mul(v_mul(bound, 1 + 0x1p-18f), w) < sqr(x));
        if (known)
            iq1_try(b, x, w, (int)(id & 31), (int)(id >> 5 & 31), (int)(id >> 10));
        else if (!(v_mul(v_mul(bound, 1 - 0x1p-18f), w) > sqr(x)))
            bound = v_mul(bound, 1 + 0x1p-16f);
    }
    return known;
}

V_CALL void iq1m_search(const struct iq1m_terms *f, struct iq1_best *b);

V_FN struct iq1_best iq1m_best(const struct iq1m_terms *f, vm small)
{
    struct iq1_best b = iq1_start();
    struct iq1m_list l;
    struct iq1m_near n;

    if (small || (iq1m_near(f, &n) && iq1m_look(&n, &l) && iq1m_take(f, &l, &b)))
        return b;
    iq1m_search(f, &b);
    return b;
}

#endif
