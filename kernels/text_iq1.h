/* iq1_s and iq1_m: levels -1, 0, 1, all moved by +1/8 or by -1/8. Values in
 * ascending order are split in three, every split and move is tried, and the
 * groups of eight are then moved to grid points. Equal values keep their order.
 * Formulas: llama.cpp pull requests 5453, 5971, 6302 and their successors. */
#ifndef SLUICE_KERNELS_TEXT_IQ1_H
#define SLUICE_KERNELS_TEXT_IQ1_H

#include "kernels/text_iquant.h"

#define IQ1_LEVELS(d) -1 + d, d, 1 + d, 0, -1 + d, d, 1 + d, 0, -1 + d, d, 1 + d, 0, -1 + d, d, 1 + d, 0
/* The levels moved up, then moved down. */
V_TABLE float iq1_levels[32] = {IQ1_LEVELS(0.125f), IQ1_LEVELS(-0.125f)};

/* The best split so far: the values before i1 in order are low, those from i2 on
 * high; kind: which way the halves are moved, see the two types. */
struct iq1_best {
    vf score, scale;
    vi i1, i2, kind;
#ifdef V_LAZY_SCORE
    vf sum_qx, sum_q2, square; /* of the best; score is not made from them where it is stale */
    vi split;
    bool stale, sized;
#endif
};

/* Places in ascending order: a value comes after those that are smaller, and after
 * equal ones before it. */
V_FN void rank_values(const vf *x, int n, vi *rank)
{
    for (int i = 0; i < n; i++)
        rank[i] = v_seti(i);
    V_UNROLL
    for (int i = 1; i < n; i++)
        V_UNROLL
        for (int j = 0; j < i; j++) {
            vi one = v_seli(v_lt(x[i], x[j]), v_seti(1), v_seti(0));

            rank[i] = v_isub(rank[i], one);
            rank[j] = v_iadd(rank[j], one);
        }
}

/* out[rank[i]] = v[i], lane by lane. */
#ifdef V_COLUMNS
V_FN void in_order(const vf *v, int n, const vi *rank, vf *out)
{
    V_SPOTS(to, 32);

    for (int i = 0; i < n; i++)
        to[V_SPOT(rank[i])] = v[i];
    for (int i = 0; i < n; i++)
        out[i] = to[V_SPOT(i)];
}
#else
V_FN void in_order(const vf *v, int n, const vi *rank, vf *out)
{
    float from[32][LANES], to[32][LANES];
    int32_t r[32][LANES];

    for (int i = 0; i < n; i++) {
        v_store(from[i], v[i]);
        v_storei(r[i], rank[i]);
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < LANES; k++)
            to[r[i][k]][k] = from[i][k];
    for (int i = 0; i < n; i++)
        out[i] = v_load(to[i]);
}
#endif

#ifdef V_LAZY_SCORE
/* A candidate's score against the best one's, which is rounded twice: decided by products where
 * they are further apart than all roundings together (nine of 2^-24 at most, if every number is
 * far from the ends of the range), else by the scores themselves. Threads of a warp go one way
 * then, nearly always, and no division is made but for the last best. */
V_FN bool iq1_sized(vf square, vf q2) /* 2^-80 to 2^80, 2^-40 to 2^40 */
{
    return sl_bits(square) - 0x17800000u < 0x50000000u && sl_bits(q2) - 0x2b800000u < 0x28000000u;
}

V_FN void iq1_try(struct iq1_best *b, vf sum_qx, vf sum_q2, int i1, int i2, int kind)
{
    vf square = sqr(sum_qx), mine = v_mul(square, b->sum_q2), best = v_mul(b->square, sum_q2);
    bool sized = iq1_sized(square, sum_q2), better = best < v_mul(mine, 0.999998f);

    if (!(sized && b->sized && (better || best > v_mul(mine, 1.000002f)))) {
        if (b->stale)
            b->score = v_mul(v_div(b->sum_qx, b->sum_q2), b->sum_qx);
        b->stale = false;
        better = sum_q2 > 0.f && v_mul(b->score, sum_q2) < square;
    }
    b->stale = b->stale || better;
    b->sized = better ? sized : b->sized;
    b->sum_qx = better ? sum_qx : b->sum_qx;
    b->sum_q2 = better ? sum_q2 : b->sum_q2;
    b->square = better ? square : b->square;
    b->split = better ? i1 | i2 << 8 | kind << 16 : b->split;
}

V_FN struct iq1_best iq1_start(void)
{
    struct iq1_best b = {.score = -FLT_MAX, .kind = -1, .split = -1};

    return b;
}

V_FN void iq1_end(struct iq1_best *b)
{
    if (b->split < 0)
        return;
    b->scale = v_div(b->sum_qx, b->sum_q2);
    b->i1 = b->split & 255;
    b->i2 = b->split >> 8 & 255;
    b->kind = b->split >> 16;
}
#else
/* Takes a candidate where its score is higher. */
V_FN void iq1_try(struct iq1_best *b, vf sum_qx, vf sum_q2, int i1, int i2, int kind)
{
    vm better = v_and(v_lt(v_set(0.f), sum_q2), v_lt(v_mul(b->score, sum_q2), sqr(sum_qx)));
    vf scale;

    if (!v_any(better))
        return;
    scale = v_div(sum_qx, sum_q2);
    b->scale = v_sel(better, scale, b->scale);
    b->score = v_sel(better, v_mul(scale, sum_qx), b->score);
    b->i1 = v_seli(better, v_seti(i1), b->i1);
    b->i2 = v_seli(better, v_seti(i2), b->i2);
    b->kind = v_seli(better, v_seti(kind), b->kind);
}

V_FN struct iq1_best iq1_start(void)
{
    struct iq1_best b = {v_set(-FLT_MAX), v_set(0.f), v_seti(0), v_seti(0), v_seti(-1)};

    return b;
}

V_FN void iq1_end(struct iq1_best *b) { (void)b; }
#endif

/* a >= b, for ranks. */
V_FN vm reached(vi a, vi b) { return v_not(v_ine(v_imax(a, b), a)); }

/* The levels 0..2 of group k under the split, turned round where the scale is
 * negative. */
V_FN vi iq1_code(const struct iq1_best *b, const vi *rank, vm turned)
{
    vi code = v_seti(0), one = v_seti(1), none = v_seti(0);

    for (int i = 7; i >= 0; i--) {
        vi l = v_iadd(v_seli(reached(rank[i], b->i1), one, none), v_seli(reached(rank[i], b->i2), one, none));

        code = v_ior(v_shl(code, 2), v_seli(turned, v_isub(v_seti(2), l), l));
    }
    return code;
}

/* Level i of a code, moved; down: 0 or 1. */
V_FN vf iq1_value(vi code, int i, vi down)
{
    vf up = grid_value(2, iq1_levels, code, i);

    return v_sel(v_ine(down, v_seti(0)), v_sub(up, v_set(0.25f)), up);
}

/* Adds a group of eight to the sums of w * q * x and w * q^2. */
V_FN void iq1_sums(const vf *x, const vf *w, vi code, vi down, vf *sum_qx, vf *sum_q2)
{
    for (int i = 0; i < 8; i++) {
        vf q = iq1_value(code, i, down);

        *sum_qx = v_add(*sum_qx, v_mul(v_mul(w[i], q), x[i]));
        *sum_q2 = v_add(*sum_q2, v_mul(v_mul(w[i], q), q));
    }
}

/* What a sub-block of iq1_s or iq1_m comes to: codes of points, their indices
 * (0 where the sub-block is dead), the scale >= 0, and the move of each group. */
struct iq1_sub {
    vi code[4], index[4], down[4], kind;
    vf scale;
};

/* From the best split to grid points. n: values, 32 or 16; down must be set. */
V_FN void iq1_to_points(const struct sl_grid *g, int n, const vf *x, const vf *w, const vi *rank, struct iq1_best b,
                        vm turned, vm dead, struct iq1_sub *s)
{
    vf zero = v_set(0.f), sum_qx = zero, sum_q2 = zero;
    struct grid_rows r;
    vi away = v_seti(0), off;
    vm any;

    to_rows(x, n, r.x);
    to_rows(w, n, r.w);
    s->scale = v_sel(turned, v_neg(b.scale), b.scale);
    for (int k = 0; k < n / 8; k++) {
        s->code[k] = to_points(g, 2, &r, 8 * k, iq1_code(&b, rank + 8 * k, turned), s->scale, iq1_levels, s->down[k], &off);
        away = v_ior(away, off);
    }
    any = v_ine(away, v_seti(0));
    if (v_any(any)) {
        for (int k = 0; k < n / 8; k++)
            iq1_sums(x + 8 * k, w + 8 * k, s->code[k], s->down[k], &sum_qx, &sum_q2);
        any = v_and(any, v_and(v_lt(zero, sum_qx), v_lt(zero, sum_q2)));
        s->scale = v_sel(any, v_div(sum_qx, sum_q2), s->scale);
    }
    s->scale = v_sel(dead, zero, s->scale);
    for (int k = 0; k < n / 8; k++) {
        s->code[k] = v_seli(dead, v_seti(0), s->code[k]);
        s->index[k] = point_index(g, s->code[k]);
    }
}

V_FN vm iq1_too_small(const vf *x, int n, float least)
{
    vf max = v_abs(x[0]);

    for (int i = 1; i < n; i++) {
        vf a = v_abs(x[i]);

        max = v_sel(v_lt(a, max), max, a);
    }
    return v_lt(max, v_set(least));
}

/* Running sums over the values in order, and what the high part adds to the sums
 * of q * x and q^2 when it starts at i2; p: moved up, m: moved down. */
#ifdef V_COLUMNS
struct iq1s_prefix {
    float *x, *w; /* columns; the high parts are made where they are needed */
};
#define V_SEARCH V_FN
#define IQ1S_PREFIX(name) V_SPOTS(name##_spots, 66); struct iq1s_prefix name = {name##_spots, name##_spots + V_SPOT(33)}

V_FN void iq1s_prefix(const vf *x, const vf *w, const vi *rank, struct iq1s_prefix *f)
{
    vf wx[32], sorted_wx[32], sorted_w[32], sum_x = v_set(0.f), sum_w = sum_x;

    for (int i = 0; i < 32; i++)
        wx[i] = v_mul(w[i], x[i]);
    in_order(wx, 32, rank, sorted_wx);
    in_order(w, 32, rank, sorted_w);
    f->x[0] = f->w[0] = v_set(0.f);
    for (int i = 0; i < 32; i++) {
        f->x[V_SPOT(i + 1)] = sum_x = v_add(sum_x, sorted_wx[i]);
        f->w[V_SPOT(i + 1)] = sum_w = v_add(sum_w, sorted_w[i]);
    }
}

/* All splits of 32 values, moved up (kind 0) and down (kind 1). The levels of the
 * two are each other's negatives in reverse, so products are shared. */
V_SEARCH struct iq1_best iq1s_search(const struct iq1s_prefix *f)
{
    vf low = v_set(0.875f), high = v_set(1.125f), mid = v_set(0.125f);
    vf all_x = f->x[V_SPOT(32)], all_w = f->w[V_SPOT(32)];
    struct iq1_best b = iq1_start();

    for (int i1 = 0; i1 <= 32; i1++) {
        vf x1 = f->x[V_SPOT(i1)], w1 = f->w[V_SPOT(i1)];
        vf low_xp = v_neg(v_mul(x1, low)), low_xm = v_neg(v_mul(x1, high));
        vf low_wp = v_mul(v_mul(w1, low), low), low_wm = v_mul(v_mul(w1, high), high);

        for (int i2 = i1; i2 <= 32; i2++) {
            vf x2 = f->x[V_SPOT(i2)], w2 = f->w[V_SPOT(i2)], rest_x = v_sub(all_x, x2), rest_w = v_sub(all_w, w2);
            vf mid_x = v_mul(v_sub(x2, x1), mid), mid_w = v_mul(v_mul(v_sub(w2, w1), mid), mid);

            iq1_try(&b, v_add(v_add(low_xp, mid_x), v_mul(rest_x, high)),
                    v_add(v_add(low_wp, mid_w), v_mul(v_mul(rest_w, high), high)), i1, i2, 0);
            iq1_try(&b, v_add(v_sub(low_xm, mid_x), v_mul(rest_x, low)),
                    v_add(v_add(low_wm, mid_w), v_mul(v_mul(rest_w, low), low)), i1, i2, 1);
        }
    }
    iq1_end(&b);
    return b;
}
#else
#define V_SEARCH V_CALL
#define IQ1S_PREFIX(name) struct iq1s_prefix name
struct iq1s_prefix {
    vf x[33], w[33], high_xp[33], high_xm[33], high_wp[33], high_wm[33];
};

V_FN void iq1s_prefix(const vf *x, const vf *w, const vi *rank, struct iq1s_prefix *f)
{
    vf low = v_set(0.875f), high = v_set(1.125f), wx[32], sorted_wx[32], sorted_w[32];

    for (int i = 0; i < 32; i++)
        wx[i] = v_mul(w[i], x[i]);
    in_order(wx, 32, rank, sorted_wx);
    in_order(w, 32, rank, sorted_w);
    f->x[0] = f->w[0] = v_set(0.f);
    for (int i = 0; i < 32; i++) {
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

/* The larger of the quotients square / sum_q2, without a division. */
V_FN void iq1s_larger(vf sum_qx, vf sum_q2, vf *square, vf *of)
{
    vf s = sqr(sum_qx);
    vm larger = v_and(v_lt(v_set(0.f), sum_q2), v_lt(v_mul(*square, sum_q2), v_mul(s, *of)));

    *square = v_sel(larger, s, *square);
    *of = v_sel(larger, sum_q2, *of);
}

/* A score just below the best of some splits, or -FLT_MAX where they say nothing. */
V_FN vf iq1s_least(const struct iq1s_prefix *f)
{
    vf sp = v_set(0.f), sm = sp, op = v_set(1.f), om = op, best;

    for (int i1 = 2; i1 < 32; i1 += 3) { /* measured: a third of the places leaves 39 of 213 splits to be taken */
        struct iq1s_low l = iq1s_low_part(f, i1);

        for (int i2 = i1 + 3; i2 < 32; i2 += 3) {
            struct iq1s_sums s = iq1s_split(f, l, i1, i2);

            iq1s_larger(s.xp, s.wp, &sp, &op);
            iq1s_larger(s.xm, s.wm, &sm, &om);
        }
    }
    sp = v_div(sp, op);
    sm = v_div(sm, om);
    best = v_sel(v_lt(sp, sm), sm, sp);
    return v_sel(v_and(v_lt(v_set(0x1p-60f), best), v_lt(best, v_set(0x1p60f))), v_mul(best, v_set(1 - 0x1p-12f)), v_set(-FLT_MAX));
}

/* iq1_try, which also says in *unsure where the first candidate above `least` is so near to it that
 * one of those below might have kept it out. */
V_FN void iq1s_try(struct iq1_best *b, vf least, vm *unsure, vf sum_qx, vf sum_q2, int i1, int i2, int kind)
{
    vf zero = v_set(0.f), square = sqr(sum_qx), scale;
    vm better = v_and(v_lt(zero, sum_q2), v_lt(v_mul(b->score, sum_q2), square)), first, clear;

    if (!v_any(better))
        return;
    first = v_and(v_and(better, v_lt(zero, least)), v_not(v_ine(b->kind, v_seti(-1))));
    clear = v_and(v_lt(v_mul(v_mul(least, v_set(1 + 0x1p-18f)), sum_q2), square),
                  v_and(v_lt(v_set(0x1p-80f), square), v_lt(square, v_set(0x1p80f))));
    *unsure = v_or(*unsure, v_and(first, v_not(clear)));
    scale = v_div(sum_qx, sum_q2);
    b->scale = v_sel(better, scale, b->scale);
    b->score = v_sel(better, v_mul(scale, sum_qx), b->score);
    b->i1 = v_seli(better, v_seti(i1), b->i1);
    b->i2 = v_seli(better, v_seti(i2), b->i2);
    b->kind = v_seli(better, v_seti(kind), b->kind);
}

/* All splits whose score is above least, in order. */
V_CALL struct iq1_best iq1s_scan(const struct iq1s_prefix *f, vf least, vm *unsure)
{
    struct iq1_best b = iq1_start();

    b.score = least;
    *unsure = v_none();
    for (int i1 = 0; i1 <= 32; i1++) {
        struct iq1s_low l = iq1s_low_part(f, i1);

        for (int i2 = i1; i2 <= 32; i2++) {
            struct iq1s_sums s = iq1s_split(f, l, i1, i2);

            iq1s_try(&b, least, unsure, s.xp, s.wp, i1, i2, 0);
            iq1s_try(&b, least, unsure, s.xm, s.wm, i1, i2, 1);
        }
    }
    return b;
}

/* The last split that is taken, of all 561, moved up (kind 0) and down (kind 1). Each is held against the
 * score of the last one taken, which is rounded, so the order matters; but whatever was taken below
 * `least` gives way to the first split clearly above it, and there is one. So the scan begins there:
 * taking a split costs more than looking at one. Where it is not clear (a margin of 2^-18, when four
 * roundings move a comparison by less than 2^-21; the sums of q^2 of all splits are within a factor of
 * 100 of each other, so none underflows alone) the scan begins at nothing. */
V_FN struct iq1_best iq1s_search(const struct iq1s_prefix *f)
{
    vf least = iq1s_least(f);
    vm unsure;
    struct iq1_best b = iq1s_scan(f, least, &unsure);

    unsure = v_or(unsure, v_and(v_lt(v_set(0.f), least), v_not(v_ine(b.kind, v_seti(-1)))));
    return v_any(unsure) ? iq1s_scan(f, v_set(-FLT_MAX), &unsure) : b;
}
#endif

V_FN vf iq1_sigma2(vf squares) { return k_sigma2(2.f, squares); }

/* Sub-blocks as in text_kquant.h; e->lm: the move of each. */
V_FN void iq1_s_fit(const struct sl_grid *g, int j, const vf *x, const vf *w, struct exchange *e, vi *out)
{
    IQ1S_PREFIX(f);
    struct iq1_best b;
    struct iq1_sub s;
    vi rank[32], high = v_seti(0);
    vf wt[32];
    vm dead, turned;

    spread_weights(32, x, w, e->sigma2, wt);
    rank_values(x, 32, rank);
    iq1s_prefix(x, wt, rank, &f);
    b = iq1s_search(&f);
    dead = v_or(iq1_too_small(x, 32, 1e-12f), v_not(v_ine(b.kind, v_seti(-1))));
    turned = v_lt(b.scale, v_set(0.f));
    e->lm[j] = v_seli(dead, v_seti(0), v_seli(turned, v_isub(v_seti(1), b.kind), b.kind));
    for (int k = 0; k < 4; k++)
        s.down[k] = e->lm[j];
    iq1_to_points(g, 32, x, wt, rank, b, turned, dead, &s);
    e->scale[j] = s.scale;
    for (int k = 0; k < 4; k++) {
        put(out, (int)offsetof(struct blk_iq1_s, qs) + 4 * j + k, low8(s.index[k]));
        high = v_ior(high, v_shl(v_shr(s.index[k], 8), 3 * k));
    }
    put(out, (int)offsetof(struct blk_iq1_s, qh) + 2 * j, high);
}

V_FN void iq1_s_top(struct exchange *e, vi *out)
{
    vm none;

    grid_scales(8, 7, 1.125f, 15.f, e, out);
    none = v_ine(e->none, v_seti(0));
    for (int j = 0; j < 8; j++) {
        vi top = v_seli(none, v_seti(0), v_ior(e->ls[j], v_shl(e->lm[j], 3)));

        put(out, (int)offsetof(struct blk_iq1_s, qh) + 2 * j + 1, v_shl(top, 4));
    }
    e->none = v_seti(0);
}

#ifndef __CUDACC__
V_FN void iq1_s_block(const vf *x, const vf *w, vi *out)
{
    const struct sl_grid *g = sl_grid_for_writing(SL_GRID_IQ1);
    struct exchange e;

    e.sigma2 = iq1_sigma2(sum_of_squares(x, 256));
    for (int j = 0; j < 8; j++)
        iq1_s_fit(g, j, x + 32 * j, w + 32 * j, &e, out);
    iq1_s_top(&e, out);
}
#endif

/* The terms of 16 values in order. Halves (the first and the last eight values of
 * the sub-block) are moved apart: kind 0 both up, 1 the second down, 2 the first
 * down, 3 both down. high: what a value adds as a high one, in each kind; mid: the
 * same for kinds 0 and 1 of a middle one (2 and 3: the negatives of 1 and 0). As a
 * low one it adds the negative (q2: the same) of the opposite kind's high. */
#ifdef V_COLUMNS
struct iq1m_terms {
    float *x_more, *x_less, *w_more, *w_less; /* columns: kinds 0 and 3 */
    uint32_t second;                          /* places that are the second half's */
    vf mid_x[2][16], mid_w[16];
};
#define IQ1M_TERMS(name)                                                                                              \
    V_SPOTS(name##_spots, 64);                                                                                        \
    struct iq1m_terms name = {.x_more = name##_spots, .x_less = name##_spots + V_SPOT(16),                            \
                              .w_more = name##_spots + V_SPOT(32), .w_less = name##_spots + V_SPOT(48)}
#else
struct iq1m_terms {
    vf high_x[4][16], high_w[4][16], mid_x[2][16], mid_w[16];
};
#define IQ1M_TERMS(name) struct iq1m_terms name
#endif

V_FN void iq1m_terms(const vf *x, const vf *w, const vi *rank, struct iq1m_terms *f)
{
    vf less = v_set(0.875f), more = v_set(1.125f), eighth = v_set(0.125f), sx[16], sw[16], half[16], second[16];

    for (int i = 0; i < 16; i++)
        half[i] = v_set(i < 8 ? 0.f : 1.f);
    in_order(x, 16, rank, sx);
    in_order(w, 16, rank, sw);
    in_order(half, 16, rank, second);
#ifdef V_COLUMNS
    f->second = 0;
#endif
    for (int i = 0; i < 16; i++) {
        vm is_second = v_ne(second[i], v_set(0.f));
        vf w_less = v_mul(sw[i], less), w_more = v_mul(sw[i], more), w_mid = v_mul(sw[i], eighth);
        vf x_less = v_mul(w_less, sx[i]), x_more = v_mul(w_more, sx[i]), x_mid = v_mul(w_mid, sx[i]);
        vf w2_less = v_mul(w_less, less), w2_more = v_mul(w_more, more);

#ifdef V_COLUMNS
        f->x_more[V_SPOT(i)] = x_more;
        f->x_less[V_SPOT(i)] = x_less;
        f->w_more[V_SPOT(i)] = w2_more;
        f->w_less[V_SPOT(i)] = w2_less;
        f->second |= (uint32_t)is_second << i;
#else
        f->high_x[0][i] = x_more;
        f->high_x[1][i] = v_sel(is_second, x_less, x_more);
        f->high_x[2][i] = v_sel(is_second, x_more, x_less);
        f->high_x[3][i] = x_less;
        f->high_w[0][i] = w2_more;
        f->high_w[1][i] = v_sel(is_second, w2_less, w2_more);
        f->high_w[2][i] = v_sel(is_second, w2_more, w2_less);
        f->high_w[3][i] = w2_less;
#endif
        f->mid_x[0][i] = x_mid;
        f->mid_x[1][i] = v_sel(is_second, v_neg(x_mid), x_mid);
        f->mid_w[i] = v_mul(w_mid, eighth);
    }
}

/* high[k] of place j. */
V_FN void iq1m_high(const struct iq1m_terms *f, int j, vf *x, vf *w)
{
#ifdef V_COLUMNS
    bool second = f->second >> j & 1;

    x[0] = f->x_more[V_SPOT(j)];
    x[3] = f->x_less[V_SPOT(j)];
    w[0] = f->w_more[V_SPOT(j)];
    w[3] = f->w_less[V_SPOT(j)];
    x[1] = second ? x[3] : x[0];
    x[2] = second ? x[0] : x[3];
    w[1] = second ? w[3] : w[0];
    w[2] = second ? w[0] : w[3];
#else
    for (int k = 0; k < 4; k++) {
        x[k] = f->high_x[k][j];
        w[k] = f->high_w[k][j];
    }
#endif
}

/* All splits of 16 values in all four kinds. Each sum is one chain over the values
 * in order; what the low and the middle part have in common with the split before
 * is kept. */
V_SEARCH struct iq1_best iq1m_search(const struct iq1m_terms *f)
{
    struct iq1_best b = iq1_start();
    vf low_x[4], low_w[4], high_x[4], high_w[4];

    for (int k = 0; k < 4; k++)
        low_x[k] = low_w[k] = v_set(0.f);
    for (int i1 = 0; i1 <= 16; i1++) {
        vf mid_x[4], mid_w[4];

        for (int k = 0; k < 4; k++) {
            mid_x[k] = low_x[k];
            mid_w[k] = low_w[k];
        }
        for (int i2 = i1; i2 <= 16; i2++) {
            vf sum_x[4], sum_w[4];

            for (int k = 0; k < 4; k++) {
                sum_x[k] = mid_x[k];
                sum_w[k] = mid_w[k];
            }
            for (int j = i2; j < 16; j++) {
                iq1m_high(f, j, high_x, high_w);
                for (int k = 0; k < 4; k++) {
                    sum_x[k] = v_add(sum_x[k], high_x[k]);
                    sum_w[k] = v_add(sum_w[k], high_w[k]);
                }
            }
            for (int k = 0; k < 4; k++)
                iq1_try(&b, sum_x[k], sum_w[k], i1, i2, k);
            for (int k = 0; k < 4 && i2 < 16; k++) {
                vf m = f->mid_x[k == 1 || k == 2][i2];

                mid_x[k] = k < 2 ? v_add(mid_x[k], m) : v_sub(mid_x[k], m);
                mid_w[k] = v_add(mid_w[k], f->mid_w[i2]);
            }
        }
        if (i1 < 16)
            iq1m_high(f, i1, high_x, high_w);
        for (int k = 0; k < 4 && i1 < 16; k++) {
            low_x[k] = v_sub(low_x[k], high_x[3 - k]);
            low_w[k] = v_add(low_w[k], high_w[3 - k]);
        }
    }
    iq1_end(&b);
    return b;
}

V_FN void iq1m_weights(const vf *x, const vf *w, vf sigma2, vf *out)
{
    if (w)
        spread_weights(16, x, w, sigma2, out);
    else
        for (int i = 0; i < 16; i++)
            out[i] = sqr(x[i]);
}

/* Sets e->ls[j]: the two codes; e->lm[j]: the two moves. */
V_FN void iq1_m_fit(const struct sl_grid *g, int j, const vf *x, const vf *w, struct exchange *e, vi *out)
{
    IQ1M_TERMS(f);
    struct iq1_best b;
    struct iq1_sub s;
    vi rank[16];
    vf wt[16];
    vm dead, turned;

    iq1m_weights(x, w, e->sigma2, wt);
    rank_values(x, 16, rank);
    iq1m_terms(x, wt, rank, &f);
    b = iq1m_search(&f);
    dead = v_or(iq1_too_small(x, 16, 1e-7f), v_not(v_ine(b.kind, v_seti(-1))));
    turned = v_lt(b.scale, v_set(0.f));
    b.kind = v_seli(turned, v_isub(v_seti(3), b.kind), b.kind);
    b.kind = v_seli(dead, v_seti(0), b.kind);
    s.down[0] = v_shr(b.kind, 1);
    s.down[1] = v_iand(b.kind, v_seti(1));
    iq1_to_points(g, 16, x, wt, rank, b, turned, dead, &s);
    e->scale[j] = s.scale;
    e->ls[j] = v_ior(s.code[0], v_shl(s.code[1], 16));
    e->lm[j] = b.kind;
    for (int k = 0; k < 2; k++) {
        put(out, (int)offsetof(struct blk_iq1_m, qs) + 2 * j + k, low8(s.index[k]));
        put(out, (int)offsetof(struct blk_iq1_m, qh) + j, v_shl(v_shr(s.index[k], 8), 4 * k));
    }
}

/* The superblock's scale is fitted to all 256 values; it lies in the top bits of
 * the four words of scales. From begin on: e->d, and e->dm, what scales are measured by;
 * e->none: not 0 where all are 0. */
V_FN void iq1_m_top_begin(struct exchange *e)
{
    vf zero = v_set(0.f), max = zero;

    for (int j = 0; j < 16; j++)
        max = v_sel(v_lt(e->scale[j], max), max, e->scale[j]);
    e->none = v_seli(v_ne(max, zero), v_seti(0), v_seti(1));
    e->d = v_div(max, v_set(15.f));
    e->dm = v_div(v_set(1.f), e->d);
}

/* What a sub-block's values add to the sums of w * q * x and w * q^2, in turn; x and w: its own. */
V_FN void iq1_m_top_terms(int j, const vf *x, const vf *w, const struct exchange *e, vf *qx, vf *q2, vi *out)
{
    vi l = level_int(v_mul(v_set(0.5f), v_sub(v_mul(e->dm, e->scale[j]), v_set(1.f))), 0, 7), none = v_seti(0);
    vf wt[16], times = v_tofloat(v_iadd(v_iadd(l, l), v_seti(1)));
    vm any = v_not(v_ine(e->none, none));

    put(out, (int)offsetof(struct blk_iq1_m, scales) + 2 * (j / 4), v_seli(any, v_shl(l, 3 * (j & 3)), none));
    iq1m_weights(x, w, e->sigma2, wt);
    for (int k = 0; k < 2; k++) {
        vi down = k ? v_iand(e->lm[j], v_seti(1)) : v_shr(e->lm[j], 1), code = v_shr(e->ls[j], 16 * k);

        put(out, (int)offsetof(struct blk_iq1_m, qh) + j, v_seli(any, v_shl(down, 3 + 4 * k), none));
        for (int i = 0; i < 8; i++) {
            vf q = v_mul(iq1_value(v_iand(code, v_seti(0xffff)), i, down), times), wq = v_mul(wt[8 * k + i], q);

            qx[8 * k + i] = v_mul(wq, x[8 * k + i]);
            q2[8 * k + i] = v_mul(wq, q);
        }
    }
}

V_FN void iq1_m_top_end(struct exchange *e, vf sum_qx, vf sum_q2, vi *out)
{
    vf d = v_sel(v_lt(v_set(0.f), sum_q2), v_div(sum_qx, sum_q2), e->d);
    vi half = v_f16(v_mul(d, v_set(1.1125f))), none = v_seti(0);

    for (int k = 0; k < 4; k++)
        put(out, (int)offsetof(struct blk_iq1_m, scales) + 2 * k,
            v_seli(v_ine(e->none, none), none, v_shl(v_iand(v_shr(half, 4 * k), v_seti(15)), 12)));
    e->none = none;
}

#ifndef __CUDACC__
V_FN void iq1_m_block(const vf *x, const vf *w, vi *out)
{
    const struct sl_grid *g = sl_grid_for_writing(SL_GRID_IQ1);
    vf qx[16], q2[16], sum_qx = v_set(0.f), sum_q2 = sum_qx;
    struct exchange e;

    e.sigma2 = iq1_sigma2(sum_of_squares(x, 256));
    for (int j = 0; j < 16; j++)
        iq1_m_fit(g, j, x + 16 * j, w ? w + 16 * j : NULL, &e, out);
    iq1_m_top_begin(&e);
    for (int j = 0; j < 16; j++) {
        iq1_m_top_terms(j, x + 16 * j, w ? w + 16 * j : NULL, &e, qx, q2, out);
        for (int i = 0; i < 16; i++) {
            sum_qx = v_add(sum_qx, qx[i]);
            sum_q2 = v_add(sum_q2, q2[i]);
        }
    }
    iq1_m_top_end(&e, sum_qx, sum_q2, out);
}
#endif

#endif
