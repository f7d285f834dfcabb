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

/* Sums of one split in one kind, in order. */
V_FN void iq1m_split(const struct iq1m_terms *f, uint32_t id, vf *sum_x, vf *sum_w)
{
    int i1 = (int)(id & 31), i2 = (int)(id >> 5 & 31);
    uint32_t down = (id >> 10 & 1 ? f->second : 0) | (id >> 11 & 1 ? ~f->second : 0);
    vf x = v_set(0.f), w = x;

    for (int j = 0; j < 16; j++) {
        bool low = j < i1, mid = !low && j < i2, lower = down >> j & 1;
        vf by = mid ? 0.125f : low == lower ? 1.125f : 0.875f;
        vf weighted = v_mul(f->w[V_SPOT(j)], by), product = v_mul(weighted, f->x[V_SPOT(j)]);

        x = v_add(x, low || (mid && lower) ? v_neg(product) : product);
        w = v_add(w, v_mul(weighted, by));
    }
    *sum_x = x;
    *sum_w = w;
}

/* Running sums over the values in order, up to each place: of w * x, of w, and of w where
 * those of the second half count as negative. A value's level falls by 1 where it leaves the high part,
 * and again where it leaves the middle, so a split's sums follow from those at i1 and at i2. They and the sums in
 * order differ by less than 100 roundings, each of at most 2^-24 of what all terms' magnitudes add up to;
 * slack is 2^-16 of that. */
struct iq1m_near {
    float *x, *w, *v; /* columns of 17 */
    vf base_x[4], base_w[4]; /* all values high */
    vf slack_x, slack_w;
};

/* Returns whether no number is so large or small that roundings are not what they usually are. */
V_FN bool iq1m_near(const struct iq1m_terms *f, struct iq1m_near *n)
{
    vf zero = v_set(0.f), sum_x = zero, sum_w = zero, sum_v = zero, all = zero, all_w = zero;

    n->x = f->x + V_SPOT(32);
    n->w = f->x + V_SPOT(49);
    n->v = f->x + V_SPOT(66);
    n->x[0] = n->w[0] = n->v[0] = zero;
    for (int k = 0; k < 4; k++)
        n->base_x[k] = n->base_w[k] = zero;
    for (int j = 0; j < 16; j++) {
        vf w = f->w[V_SPOT(j)], p = v_mul(w, f->x[V_SPOT(j)]);
        bool second = f->second >> j & 1;

        n->x[V_SPOT(j + 1)] = sum_x = v_add(sum_x, p);
        n->w[V_SPOT(j + 1)] = sum_w = v_add(sum_w, w);
        n->v[V_SPOT(j + 1)] = sum_v = v_add(sum_v, second ? v_neg(w) : w);
        all = v_add(all, v_abs(p));
        all_w = v_add(all_w, v_abs(w));
        for (int k = 0; k < 4; k++) {
            vf q = (second ? k & 1 : k >> 1) ? 0.875f : 1.125f;

            n->base_x[k] = v_add(n->base_x[k], v_mul(p, q));
            n->base_w[k] = v_add(n->base_w[k], v_mul(v_mul(w, q), q));
        }
    }
    n->slack_x = v_mul(all, 0x1p-16f);
    n->slack_w = v_mul(all_w, 0x1p-16f);
    return all > 0x1p-45f && all < 0x1p45f && all_w > 0x1p-60f && all_w < 0x1p60f;
}

/* Rows: the sums of (i1, i2) are x[k] less n->x at i2, and w[k] less 1 +- 1/4 of those at i2. */
struct iq1m_row { vf x[4], w[4]; };

V_FN struct iq1m_row iq1m_row_of(const struct iq1m_near *n, int i1)
{
    vf x1 = n->x[V_SPOT(i1)], w1 = n->w[V_SPOT(i1)], v1 = n->v[V_SPOT(i1)];
    struct iq1m_row r;

    for (int k = 0; k < 4; k++) {
        vf fourth = v_mul(k == 0 || k == 3 ? w1 : v1, 0.25f);

        r.x[k] = v_sub(n->base_x[k], x1);
        r.w[k] = v_sub(v_add(n->base_w[k], w1), k < 2 ? fourth : v_neg(fourth));
    }
    return r;
}

V_FN void iq1m_near_sums(const struct iq1m_near *n, const struct iq1m_row *r, int i2, vf *x, vf *w)
{
    vf x2 = n->x[V_SPOT(i2)], w2 = n->w[V_SPOT(i2)], v2 = n->v[V_SPOT(i2)];

    for (int k = 0; k < 4; k++) {
        vf fourth = v_mul(k == 0 || k == 3 ? w2 : v2, 0.25f);

        x[k] = v_sub(r->x[k], x2);
        w[k] = v_sub(r->w[k], k < 2 ? v_add(w2, fourth) : v_sub(w2, fourth));
    }
}

/* Splits that may be the best, in order, the last one lowest: five in id, of 12 bits each, those before them
 * in places of 16. Of all others the score, as a real number, is below `least`. */
#define IQ1M_LIST 9 /* normally distributed values have more in one of 5,000 sub-blocks */
struct iq1m_list {
    uint64_t id, before;
    int n; /* more than IQ1M_LIST: some were lost */
    vf least, highest;
};

V_FN void iq1m_note(const struct iq1m_near *n, struct iq1m_list *l, vf x, vf w, uint32_t id)
{
    vf up = v_add(v_abs(x), n->slack_x), down = v_sub(v_abs(x), n->slack_x);
    vf over = v_add(w, n->slack_w), under = v_sub(w, n->slack_w), sure, most;

    sure = v_mul(v_div(sqr(down), over), 1 - 0x1p-15f); /* the best's score is above that, where down and under are */
    most = v_mul(sure, 1 + 0x1p-10f);
    if (!(v_mul(sqr(up), over) < v_mul(v_mul(sqr(down), under), 1 + 0x1p-11f)))
        most = under > 0.f ? v_mul(v_div(sqr(up), under), 1 + 0x1p-18f) : 0x1p120f;
    if (down > 0.f && under > 0.f && sure > l->least)
        l->least = sure;
    if (l->highest < l->least) { /* all that were noted are out */
        l->n = 0;
        l->highest = v_set(0.f);
    }
    l->highest = most > l->highest ? most : l->highest;
    l->before = l->before << 16 | l->id >> 48;
    l->id = l->id << 12 | id;
    l->n++;
}

/* Looks at all splits, or at some. */
V_FN void iq1m_look(const struct iq1m_near *n, bool all, struct iq1m_list *l)
{
    V_ROLLED
    for (int i1 = all ? 0 : 2; i1 <= 16; i1 += all ? 1 : 3) {
        struct iq1m_row r = iq1m_row_of(n, i1);

        V_ROLLED
        for (int i2 = all ? i1 : i1 + 2; i2 <= 16; i2 += all ? 1 : 3) {
            uint32_t which = 0;
            vf x[4], w[4];

            iq1m_near_sums(n, &r, i2, x, w);
            for (int k = 0; k < 4; k++)
                which |= sqr(v_add(v_abs(x[k]), n->slack_x)) < v_mul(l->least, v_sub(w[k], n->slack_w)) ? 0 : 1u << k;
            V_ROLLED
            for (int k = 0; which; which >>= 1, k++)
                if (which & 1)
                    iq1m_note(n, l, k == 0 ? x[0] : k == 1 ? x[1] : k == 2 ? x[2] : x[3],
                              k == 0 ? w[0] : k == 1 ? w[1] : k == 2 ? w[2] : w[3], (uint32_t)(i1 | i2 << 5 | k << 10));
        }
    }
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
        uint32_t id = (uint32_t)(i < 5 ? l->id >> 12 * i : l->before >> 16 * (i - 5)) & 0xfff;
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
    struct iq1m_list l = {0, 0, 0, v_set(0.f), v_set(0.f)};
    struct iq1_best b = iq1_start();
    struct iq1m_near n;

    if (small)
        return b;
    if (iq1m_near(f, &n)) {
        iq1m_look(&n, false, &l);
        l.n = 0;
        l.highest = v_set(0.f);
        iq1m_look(&n, true, &l);
        if (iq1m_take(f, &l, &b))
            return b;
    }
    iq1m_search(f, &b);
    return b;
}

#endif
