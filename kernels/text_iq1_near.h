/* Which splits of iq1_s and iq1_m are left to be summed as the processor sums them, for a GPU's thread. Included by text_iq1_device.h. */
#ifndef SLUICE_KERNELS_TEXT_IQ1_NEAR_H
#define SLUICE_KERNELS_TEXT_IQ1_NEAR_H

#include "kernels/text_iq1_bound.h"

/* A place is i1 | i2 << 6, a split that and its kind << 12. */
V_FN int iq1_i1(uint32_t place) { return (int)(place & 63); }
V_FN int iq1_i2(uint32_t place) { return (int)(place >> 6 & 63); }
V_FN uint32_t iq1_place(int i1, int i2) { return (uint32_t)(i1 | i2 << 6); }

/* The sums at a place, in all kinds. */
V_FN void iq1_near_sums(int n, const struct iq1_near *f, uint32_t place, vf *x, vf *w)
{
    int i1 = iq1_i1(place), i2 = iq1_i2(place), last = 2 * iq1_pairs(n) - 1;
    vf w1 = f->w[V_SPOT(i1)], w2 = f->w[V_SPOT(i2)], all_w = f->w[V_SPOT(n)];
    vf common = v_sub(v_sub(f->x[V_SPOT(n)], f->x[V_SPOT(i1)]), f->x[V_SPOT(i2)]);
    vf common_w = v_sub(v_add(v_mul(all_w, 1.015625f), w1), w2);

    V_UNROLL
    for (int k = 0; k < iq1_pairs(n); k++) {
        vf by = k ? v_sub(v_sub(f->v[V_SPOT(n)], f->v[V_SPOT(i1)]), f->v[V_SPOT(i2)]) : v_sub(v_sub(all_w, w1), w2);

        by = v_mul(by, 0.25f);
        x[k] = v_add(common, f->eighth[k]);
        x[last - k] = v_sub(common, f->eighth[k]);
        w[k] = v_add(common_w, by);
        w[last - k] = v_sub(common_w, by);
    }
}

/* The best split that was looked at: its score is square / of. */
struct iq1_guess {
    vf square, of;
    uint32_t place;
};

V_FN void iq1_look_at(int n, const struct iq1_near *f, uint32_t place, struct iq1_guess *g)
{
    vf x[4], w[4];

    iq1_near_sums(n, f, place, x, w);
    V_UNROLL
    for (int k = 0; k < 2 * iq1_pairs(n); k++) {
        vf square = sqr(x[k]);
        bool better = v_mul(g->square, w[k]) < v_mul(square, g->of);

        g->square = better ? square : g->square;
        g->of = better ? w[k] : g->of;
        g->place = better ? place : g->place;
    }
}

/* Some places, and from the best of them up the hill: on normally distributed values mostly the best, or within 1 %. */
V_FN struct iq1_guess iq1_guess(int n, const struct iq1_near *f)
{
    struct iq1_guess g = {v_set(0.f), v_set(1.f), 0};

    V_ROLLED
    for (int i1 = n / 16; i1 < n / 2; i1 += 3)
        V_ROLLED
        for (int i2 = 9 * n / 16; i2 < n; i2 += 3)
            iq1_look_at(n, f, iq1_place(i1, i2), &g);
    V_ROLLED
    for (int step = 0; step < 8; step++) { /* two on or back, then one */
        int by = (step & 1 ? 1 : -1) * (step < 4 ? 2 : 1), i1 = iq1_i1(g.place), i2 = iq1_i2(g.place);

        i1 += step & 2 ? 0 : by;
        i2 += step & 2 ? by : 0;
        iq1_look_at(n, f, iq1_place(v_imax(v_imin(i1, i2), 0), v_imin(i2, n)), &g);
    }
    return g;
}

/* What that split's score is above, by little, as a real number; 0: nothing is known. */
V_FN vf iq1_below(const struct iq1_near *f, const struct iq1_guess *g)
{
    vf slack_w = v_mul(f->all_w, IQ1_SLACK), down = v_sub(g->square, v_mul(sqr(f->all), 4 * IQ1_SLACK));
    vf below = v_mul(v_div(down, v_add(g->of, slack_w)), 1 - 0x1p-15f);

    return down > 0.f && g->of > slack_w && below > 0x1p-100f && below < 0x1p60f ? below : v_set(0.f);
}

/* Places or splits in order, the last one lowest: four in at, of 16 bits each, then those before. */
#define IQ1_LIST 12
struct iq1_list {
    uint64_t at, before, first;
    int n; /* more than IQ1_LIST: some were lost */
};

V_FN void iq1_put(struct iq1_list *l, uint32_t id)
{
    l->first = l->first << 16 | l->before >> 48;
    l->before = l->before << 16 | l->at >> 48;
    l->at = l->at << 16 | id;
    l->n++;
}

V_FN uint32_t iq1_get(const struct iq1_list *l, int i)
{
    return (uint32_t)((i < 4 ? l->at : i < 8 ? l->before : l->first) >> 16 * (i & 3)) & 0xffff;
}

/* The places in four rows of i1 that may have a score of `least` or more, without (0, 0). */
V_FN void iq1_scan_rows(int n, const struct iq1_near *f, vf least, int i1, struct iq1_list *l)
{
    uint32_t below[4] = {0, 0, 0, 0};
    struct iq1_row r[4];

    V_UNROLL
    for (int q = 0; q < 4; q++)
        r[q] = iq1_row_of(n, f, least, i1 + q);
    V_ROLLED
    for (int i2 = v_imax(i1, 1); i2 <= n; i2++) {
        vf x2 = f->x[V_SPOT(i2)], rest = iq1_rest(f, least, i2), turn[2];

        V_UNROLL
        for (int k = 0; k < iq1_pairs(n); k++)
            turn[k] = iq1_turn(f, least, i2, k);
        V_UNROLL
        for (int q = 0; q < 4; q++)
            below[q] = v_shift_in(below[q], sl_bits(v_add(iq1_over(n, f, &r[q], x2, rest, turn), r[q].rest)));
    }
    V_UNROLL
    for (int q = 0; q < 4; q++) {
        uint32_t left = ~below[q] & (n == 16 ? 0xffffu : ~0u) >> v_imax(i1 + q - 1, 0); /* i2 = n is the lowest */

        V_ROLLED
        while (left) {
            int top = v_last_bit(left);

            iq1_put(l, iq1_place(i1 + q, n - top));
            left ^= 1u << top;
        }
    }
}

V_FN struct iq1_list iq1_scan(int n, const struct iq1_near *f, vf least)
{
    const vf none[2] = {v_set(0.f), v_set(0.f)};
    struct iq1_row first = iq1_row_of(n, f, least, 0);
    bool high = !(v_add(iq1_over(n, f, &first, none[0], none[0], none), first.rest) < 0.f); /* all values high; all low have the same scores */
    struct iq1_list l = {0, 0, 0, 0};

    if (high)
        iq1_put(&l, iq1_place(0, 0));
    V_ROLLED
    for (int i1 = 0; i1 < n; i1 += 4)
        iq1_scan_rows(n, f, least, i1, &l);
    if (high)
        iq1_put(&l, iq1_place(n, n));
    return l;
}

/* Lists the splits of the places whose score may indeed. */
V_FN struct iq1_list iq1_splits(int n, const struct iq1_near *f, const struct iq1_list *places, vf least)
{
    vf slack_x = v_mul(f->all, IQ1_SLACK), slack_w = v_mul(f->all_w, IQ1_SLACK);
    struct iq1_list l = {0, 0, 0, 0};

    V_ROLLED
    for (int i = places->n - 1; i >= 0; i--) {
        uint32_t place = iq1_get(places, i), which = 0;
        vf x[4], w[4];

        iq1_near_sums(n, f, place, x, w);
        V_UNROLL
        for (int k = 0; k < 2 * iq1_pairs(n); k++)
            which |= sqr(v_add(fabsf(x[k]), slack_x)) < v_mul(least, v_sub(w[k], slack_w)) ? 0 : 1u << k;
        V_ROLLED
        for (uint32_t k = 0; which; which >>= 1, k++)
            if (which & 1)
                iq1_put(&l, place | k << 12);
    }
    return l;
}

/* Looks at all splits, and lists those whose score may be *least or more, as a real number; one's is. Where they are too many, or
 * nothing is known, the list has more than its room. What a look finds says how high scores are: the list stands on that, and
 * where too much was found the next look finds less. */
V_FN struct iq1_list iq1_look(int n, const struct iq1_near *f, vf *least)
{
    struct iq1_guess g = iq1_guess(n, f);
    struct iq1_list l;
    vf before, now = iq1_below(f, &g);

    V_ROLLED
    do {
        before = now;
        l = iq1_scan(n, f, before);
        V_ROLLED
        for (int i = v_imin(l.n, IQ1_LIST) - 1; i >= 0; i--)
            iq1_look_at(n, f, iq1_get(&l, i), &g);
        now = iq1_below(f, &g);
        now = now > before ? now : before;
    } while (l.n > IQ1_LIST && now > v_mul(before, 1 + 0x1p-10f));
    *least = now;
    return l.n <= IQ1_LIST ? iq1_splits(n, f, &l, now) : l;
}

/* Takes a candidate where its score is higher. */
V_FN void iq1_try(struct iq1_best *b, vf sum_qx, vf sum_q2, int i1, int i2, int kind)
{
    vm better = v_and(v_lt(v_set(0.f), sum_q2), v_lt(v_mul(b->score, sum_q2), sqr(sum_qx)));

    if (v_any(better))
        iq1_take(b, better, sum_qx, sum_q2, i1, i2, kind);
}

/* Of the listed splits the last that is taken, as all in turn are. What was taken before the
 * first one that is clearly above `least` does not matter, since its score was not; one that is too near to
 * tell (a margin of 2^-18 against three roundings) may have been taken or not, and the next has to be above
 * it as well. Where none is known to be above, nothing is said. */
struct iq1_taken {
    struct iq1_best b;
    vf bound;
    bool known;
};

V_FN struct iq1_taken iq1_untaken(vf least)
{
    struct iq1_taken t = {iq1_start(), least, false};

    return t;
}

/* The next split, and its sums as the processor makes them. */
V_FN void iq1_next(struct iq1_taken *t, uint32_t id, vf x, vf w)
{
    t->known = t->known || (w > 0.f && v_mul(v_mul(t->bound, 1 + 0x1p-18f), w) < sqr(x));
    if (t->known)
        iq1_try(&t->b, x, w, iq1_i1(id), iq1_i2(id), (int)(id >> 12));
    else if (!(v_mul(v_mul(t->bound, 1 - 0x1p-18f), w) > sqr(x)))
        t->bound = v_mul(t->bound, 1 + 0x1p-16f);
}

#endif
