/* iq1_s and iq1_m for lanes: values in order, the places that may hold the best split, running sums, terms. Included by text_iq1.h. */
#ifndef SLUICE_KERNELS_TEXT_IQ1_LANES_H
#define SLUICE_KERNELS_TEXT_IQ1_LANES_H

#include "kernels/text_iq1_bound.h"

#include <math.h>

#define V_SEARCH V_CALL

/* Values whose places are counted in registers. */
#define RANKED (LANES == 16 ? 8 : 4)
#define RANK_UNROLL _Pragma("GCC unroll 8")

V_FN void rank_pair(vf a, vf b, vi *rank_a, vi *rank_b)
{
    vm before = v_lt(a, b);

    *rank_a = v_less_one(before, *rank_a);
    *rank_b = v_more_one(before, *rank_b);
}

/* Places in ascending order: a value comes after those that are smaller, and after
 * equal ones before it. */
V_FN void rank_values(const vf *x, int n, vi *rank)
{
    for (int i = 0; i < n; i++)
        rank[i] = v_seti(i);
    for (int at = 0; at < n; at += RANKED) {
        vi few[RANKED];

        RANK_UNROLL
        for (int j = 0; j < RANKED; j++)
            few[j] = rank[at + j];
        RANK_UNROLL
        for (int i = 1; i < RANKED; i++)
            RANK_UNROLL
            for (int j = 0; j < i; j++)
                rank_pair(x[at + i], x[at + j], &few[i], &few[j]);
        for (int i = at + RANKED; i < n; i++)
            RANK_UNROLL
            for (int j = 0; j < RANKED; j++)
                rank_pair(x[i], x[at + j], &rank[i], &few[j]);
        RANK_UNROLL
        for (int j = 0; j < RANKED; j++)
            rank[at + j] = few[j];
    }
}

/* to_x[rank[i]] = x[i] and to_w[rank[i]] = w[i], lane by lane: both at once, as a pair of 64 bits. */
V_FN void in_order(int n, const vi *rank, const vf *x, const vf *w, vf *to_x, vf *to_w)
{
    uint64_t pair[32][LANES], moved[32 * LANES];
    int32_t to[32][LANES];

    for (int i = 0; i < n; i++) {
        v_storei(to[i], v_iadd(v_shl(rank[i], __builtin_ctz(LANES)), v_index()));
        v_store_pairs(pair[i], x[i], w[i]);
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < LANES; k++)
            moved[to[i][k]] = pair[i][k];
    for (int i = 0; i < n; i++)
        v_load_pairs(moved + i * LANES, &to_x[i], &to_w[i]);
}

/* ---- which places may hold the best split */

/* Bit i2 of row[i1]: some lane's best split may be there. */
struct iq1_places {
    uint64_t row[33];
};
V_TABLE struct iq1_places iq1_all[1] = {{{[0 ... 32] = UINT64_MAX}}};

/* The first of a row's places from i2 on, or a number above all. */
V_FN int iq1_from(const struct iq1_places *p, int i1, int i2)
{
    uint64_t left = p->row[i1] >> i2;

    return left ? i2 + __builtin_ctzll(left) : 64;
}

/* The sums of some split, whose score is the highest of those that were held against it. */
struct iq1_guess {
    vf x, w;
};

V_FN void iq1_guess_of(struct iq1_guess *g, vf x, vf w)
{
    vm better = v_lt(v_mul(sqr(g->x), w), v_mul(sqr(x), g->w));

    g->x = v_sel(better, x, g->x);
    g->w = v_sel(better, w, g->w);
}

/* Of some places, in the first kind and the last. */
V_FN struct iq1_guess iq1_first_guess(int n, const struct iq1_near *f)
{
    struct iq1_guess g = {v_set(0.f), v_set(1.f)};

    for (int i1 = n / 16 + 1; i1 < n / 2; i1 += 4)
        for (int i2 = 9 * n / 16 + 1; i2 < n; i2 += 4) {
            vf u = v_sub(v_sub(f->x[n], f->x[i1]), f->x[i2]);
            vf m = v_add(v_mul(f->w[n], v_set(1.015625f)), v_sub(f->w[i1], f->w[i2]));
            vf e = v_mul(v_sub(v_sub(f->w[n], f->w[i1]), f->w[i2]), v_set(0.25f));

            iq1_guess_of(&g, v_add(u, f->eighth[0]), v_add(m, e));
            iq1_guess_of(&g, v_sub(u, f->eighth[0]), v_sub(m, e));
        }
    return g;
}

/* An end of the middle part: its running sum, what it has in the sum of q^2, and what is to be least. */
struct iq1_end {
    vf x, w, cost;
};

/* At place i in kind k, as i1 or as i2 (high). */
V_FN struct iq1_end iq1_end_at(int n, const struct iq1_near *f, vf by, int i, int k, bool high)
{
    int last = 2 * iq1_pairs(n) - 1;
    vf w = high ? v_neg(f->w[i]) : f->w[i], quarter = v_mul(k && k < last ? f->v[i] : f->w[i], v_set(0.25f));
    struct iq1_end e = {f->x[i], 2 * k < last ? v_sub(w, quarter) : v_add(w, quarter), v_mul(by, f->x[i])};

    e.cost = v_add(e.cost, e.w);
    return e;
}

/* At a scale s the squared error falls by s^2 (2 x / s - w), of a split's sums x and w. Both are a number and one of i1's and one
 * of i2's, so each end of the middle part has its best place, by itself. From s = from->x / from->w on, of all kinds the best. */
V_FN struct iq1_guess iq1_better_guess(int n, const struct iq1_near *f, const struct iq1_guess *from)
{
    int pairs = iq1_pairs(n);
    struct iq1_guess g = {v_set(0.f), v_set(1.f)};
    struct iq1_end end[2][4];
    vf by = v_div(v_add(from->w, from->w), from->x);

    for (int high = 0; high < 2; high++) { /* i1 up to the middle, i2 from there on */
        for (int k = 0; k < 2 * pairs; k++)
            end[high][k] = iq1_end_at(n, f, by, high * n / 2, k, high);
        for (int i = high * n / 2 + 1; i <= (1 + high) * n / 2; i++)
            for (int k = 0; k < 2 * pairs; k++) {
                struct iq1_end *e = &end[high][k], other = iq1_end_at(n, f, by, i, k, high);
                vm less = v_lt(other.cost, e->cost);

                e->x = v_sel(less, other.x, e->x);
                e->w = v_sel(less, other.w, e->w);
                e->cost = v_sel(less, other.cost, e->cost);
            }
    }
    for (int k = 0; k < 2 * pairs; k++) {
        int pair = k < pairs ? k : 2 * pairs - 1 - k;
        vf u = v_sub(v_sub(f->x[n], end[0][k].x), end[1][k].x), a = f->eighth[pair];
        vf m = v_mul(f->w[n], v_set(1.015625f)), e = v_mul(pair ? f->v[n] : f->w[n], v_set(0.25f));

        m = v_add(k < pairs ? v_add(m, e) : v_sub(m, e), v_add(end[0][k].w, end[1][k].w));
        iq1_guess_of(&g, k < pairs ? v_add(u, a) : v_sub(u, a), m);
    }
    return g;
}

/* The places at which some lane may have a score of `least` or more; a lane in `none` has none. */
V_CALL void iq1_mark(int n, const struct iq1_near *f, vf least, vm none, struct iq1_places *places)
{
    vf rest[33], turn[33][2];

    for (int i2 = 0; i2 <= n; i2++) {
        rest[i2] = iq1_rest(f, least, i2);
        for (int k = 0; k < iq1_pairs(n); k++)
            turn[i2][k] = iq1_turn(f, least, i2, k);
    }
    for (int i1 = 0; i1 <= n; i1++) {
        struct iq1_row r = iq1_row_of(n, f, least, i1);
        vf below = v_sel(none, v_set(INFINITY), v_neg(r.rest));
        uint64_t row = 0;

        for (int i2 = i1; i2 <= n; i2++)
            row |= (uint64_t)v_any(v_lt(below, iq1_over(n, f, &r, f->x[i2], rest[i2], turn[i2]))) << i2;
        places->row[i1] = row;
    }
}

/* Returns a score to begin from, just below what running sums say that some split has (none need have it: iq1_untold), and the
 * places whose splits may have as much; where nothing is known of a lane, -FLT_MAX, and all places. Dead lanes have none. */
V_FN vf iq1_look(int n, const struct iq1_near *f, vm dead, struct iq1_places *places)
{
    struct iq1_guess g = iq1_first_guess(n, f);
    vm known;
    vf least;

    g = iq1_better_guess(n, f, &g);
    least = v_mul(v_div(sqr(g.x), g.w), v_set(1 - 0x1p-14f));
    known = v_and(iq1_usual(f), iq1_between(0x1p-60f, least, 0x1p60f));
    if (v_any(v_not(v_or(known, dead))))
        *places = iq1_all[0];
    else
        iq1_mark(n, f, least, dead, places);
    return v_sel(dead, v_set(FLT_MAX), v_sel(known, least, v_set(-FLT_MAX)));
}

/* Where splits from `least` on do not tell which is the last one taken of all. */
V_FN vm iq1_untold(const struct iq1_best *b, vf least, vm unsure, vm dead)
{
    return v_and(v_not(dead), v_or(unsure, v_and(v_lt(v_set(0.f), least), v_not(v_ine(b->kind, v_seti(-1))))));
}

/* ---- sums */

/* Running sums over the values in order, and what the high part adds to the sums
 * of q * x and q^2 when it starts at i2; p: moved up, m: moved down. */
#define IQ1S_PREFIX(name) struct iq1s_prefix name
struct iq1s_prefix {
    vf x[33], w[33], high_xp[33], high_xm[33], high_wp[33], high_wm[33], all, all_w;
};

V_FN void iq1s_prefix(const vf *x, const vf *w, const vi *rank, struct iq1s_prefix *f)
{
    vf low = v_set(0.875f), high = v_set(1.125f), wx[32], sorted_wx[32], sorted_w[32];

    for (int i = 0; i < 32; i++)
        wx[i] = v_mul(w[i], x[i]);
    in_order(32, rank, wx, w, sorted_wx, sorted_w);
    f->x[0] = f->w[0] = f->all = f->all_w = v_set(0.f);
    for (int i = 0; i < 32; i++) {
        f->all = v_add(f->all, v_abs(sorted_wx[i]));
        f->all_w = v_add(f->all_w, v_abs(sorted_w[i]));
        f->x[i + 1] = v_add(f->x[i], sorted_wx[i]);
        f->w[i + 1] = v_add(f->w[i], sorted_w[i]);
    }
    for (int i = 0; i <= 32; i++) {
        vf rest_x = v_sub(f->x[32], f->x[i]), rest_w = v_sub(f->w[32], f->w[i]);

        f->high_xp[i] = v_mul(rest_x, high);
        f->high_xm[i] = v_mul(rest_x, low);
        f->high_wp[i] = v_mul(v_mul(rest_w, high), high);
        f->high_wm[i] = v_mul(v_mul(rest_w, low), low);
    }
}

V_FN struct iq1_near iq1s_near(const struct iq1s_prefix *f)
{
    struct iq1_near n = {.x = f->x, .w = f->w, .eighth = {v_mul(f->x[32], v_set(0.125f))}, .all = f->all, .all_w = f->all_w};

    return n;
}

/* A candidate's sums for a split of 32 values, moved up and moved down. The levels of the two are each
 * other's negatives in reverse, so products are shared. */
struct iq1s_low { vf xp, xm, wp, wm; };
struct iq1s_sums { vf xp, xm, wp, wm; };

V_FN struct iq1s_low iq1s_low_part(const struct iq1s_prefix *f, int i1)
{
    vf low = v_set(0.875f), high = v_set(1.125f);
    struct iq1s_low l = {v_neg(v_mul(f->x[i1], low)), v_neg(v_mul(f->x[i1], high)), v_mul(v_mul(f->w[i1], low), low),
                         v_mul(v_mul(f->w[i1], high), high)};

    return l;
}

V_FN struct iq1s_sums iq1s_split(const struct iq1s_prefix *f, struct iq1s_low l, int i1, int i2)
{
    vf mid = v_set(0.125f);
    vf mid_x = v_mul(v_sub(f->x[i2], f->x[i1]), mid), mid_w = v_mul(v_mul(v_sub(f->w[i2], f->w[i1]), mid), mid);
    struct iq1s_sums s = {v_add(v_add(l.xp, mid_x), f->high_xp[i2]), v_add(v_sub(l.xm, mid_x), f->high_xm[i2]),
                          v_add(v_add(l.wp, mid_w), f->high_wp[i2]), v_add(v_add(l.wm, mid_w), f->high_wm[i2])};

    return s;
}

/* The terms of 16 values in order. Halves (the first and the last eight values of
 * the sub-block) are moved apart: kind 0 both up, 1 the second down, 2 the first
 * down, 3 both down. high: what a value adds as a high one, in each kind; mid: the
 * same for kinds 0 and 1 of a middle one (2 and 3: the negatives of 1 and 0). As a
 * low one it adds the negative (q2: the same) of the opposite kind's high. */
struct iq1m_terms {
    vf high_x[4][16], high_w[4][16], mid_x[2][16], mid_w[16];
    vf x[17], w[17], v[17]; /* running sums */
    struct iq1_near near;
};
#define IQ1M_TERMS(name) struct iq1m_terms name

V_FN vm iq1_bit(vi bits, int i) { return v_ine(v_iand(bits, v_seti(1 << i)), v_seti(0)); }

/* Running sums of values and weights in order; second: the places of the second half's. */
V_FN void iq1m_near(const vf *x, const vf *w, vi second, struct iq1m_terms *f)
{
    vf zero = v_set(0.f), halves = zero, all = zero, all_w = zero;

    f->x[0] = f->w[0] = f->v[0] = zero;
    for (int i = 0; i < 16; i++) {
        vf p = v_mul(w[i], x[i]);

        f->x[i + 1] = v_add(f->x[i], p);
        f->w[i + 1] = v_add(f->w[i], w[i]);
        f->v[i + 1] = v_add(f->v[i], v_sel(iq1_bit(second, i), v_neg(w[i]), w[i]));
        halves = v_add(halves, v_sel(iq1_bit(second, i), v_neg(p), p));
        all = v_add(all, v_abs(p));
        all_w = v_add(all_w, v_abs(w[i]));
    }
    f->near = (struct iq1_near){f->x, f->w, f->v, {v_mul(f->x[16], v_set(0.125f)), v_mul(halves, v_set(0.125f))}, all, all_w};
}

V_FN void iq1m_terms(const vf *x, const vf *w, const vi *rank, struct iq1m_terms *f)
{
    vf less = v_set(0.875f), more = v_set(1.125f), eighth = v_set(0.125f), sx[16], sw[16];
    vi second = v_seti(0);

    in_order(16, rank, x, w, sx, sw);
    for (int i = 8; i < 16; i++)
        second = v_ior(second, v_bit(rank[i]));
    for (int i = 0; i < 16; i++) {
        vm is_second = iq1_bit(second, i);
        vf w_less = v_mul(sw[i], less), w_more = v_mul(sw[i], more), w_mid = v_mul(sw[i], eighth);
        vf x_less = v_mul(w_less, sx[i]), x_more = v_mul(w_more, sx[i]), x_mid = v_mul(w_mid, sx[i]);
        vf w2_less = v_mul(w_less, less), w2_more = v_mul(w_more, more);

        f->high_x[0][i] = x_more;
        f->high_x[1][i] = v_sel(is_second, x_less, x_more);
        f->high_x[2][i] = v_sel(is_second, x_more, x_less);
        f->high_x[3][i] = x_less;
        f->high_w[0][i] = w2_more;
        f->high_w[1][i] = v_sel(is_second, w2_less, w2_more);
        f->high_w[2][i] = v_sel(is_second, w2_more, w2_less);
        f->high_w[3][i] = w2_less;
        f->mid_x[0][i] = x_mid;
        f->mid_x[1][i] = v_sel(is_second, v_neg(x_mid), x_mid);
        f->mid_w[i] = v_mul(w_mid, eighth);
    }
    iq1m_near(sx, sw, second, f);
}

/* high[k] of place j. */
V_FN void iq1m_high(const struct iq1m_terms *f, int j, vf *x, vf *w)
{
    for (int k = 0; k < 4; k++) {
        x[k] = f->high_x[k][j];
        w[k] = f->high_w[k][j];
    }
}

V_FN vf iq1m_mid(const struct iq1m_terms *f, int j, int kind) { return f->mid_x[kind][j]; }
V_FN vf iq1m_mid_w(const struct iq1m_terms *f, int j) { return f->mid_w[j]; }

#endif
