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
};

/* Takes a candidate where it is better. */
V_FN void iq1_take(struct iq1_best *b, vm better, vf sum_qx, vf sum_q2, int i1, int i2, int kind)
{
    vf scale = v_div(sum_qx, sum_q2);

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
#ifdef V_COLUMNS
    vf up = v_sub(v_mul(v_set(0.5f), v_odd(2, code, i)), v_set(1.375f)); /* exact */
#else
    vf up = grid_value(2, iq1_levels, code, i);
#endif

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

/* What a sub-block of iq1_s or iq1_m comes to: codes, later of points, their indices
 * (0 where the sub-block is dead), the scale >= 0, and the move of each group. */
struct iq1_sub {
    vi code[4], index[4], down[4], kind;
    vf scale;
    vm dead;
};

/* From the best split to codes. n: values, 32 or 16. */
V_FN void iq1_codes(int n, const vi *rank, const struct iq1_best *b, vm turned, struct iq1_sub *s)
{
    s->scale = v_sel(turned, v_neg(b->scale), b->scale);
    for (int k = 0; k < n / 8; k++)
        s->code[k] = iq1_code(b, rank + 8 * k, turned);
}

/* From points to indices; moved: the lanes in which a code was no point. */
V_FN void iq1_points_end(const struct sl_grid *g, int n, const vf *x, const vf *w, vm moved, struct iq1_sub *s)
{
    vf zero = v_set(0.f), sum_qx = zero, sum_q2 = zero;

    if (v_any(moved)) {
        for (int k = 0; k < n / 8; k++)
            iq1_sums(x + 8 * k, w + 8 * k, s->code[k], s->down[k], &sum_qx, &sum_q2);
        moved = v_and(moved, v_and(v_lt(zero, sum_qx), v_lt(zero, sum_q2)));
        s->scale = v_sel(moved, v_div(sum_qx, sum_q2), s->scale);
    }
    s->scale = v_sel(s->dead, zero, s->scale);
    for (int k = 0; k < n / 8; k++) {
        s->code[k] = v_seli(s->dead, v_seti(0), s->code[k]);
        s->index[k] = point_index(g, s->code[k]);
    }
}

#ifndef V_COLUMNS
/* Moves codes to points; text_queue.h has the way of a GPU's threads. */
V_FN void iq1_to_points(const struct sl_grid *g, int n, const vf *x, const vf *w, struct iq1_sub *s)
{
    struct grid_rows r;
    vi away = v_seti(0), off;

    to_rows(x, n, r.x);
    to_rows(w, n, r.w);
    for (int k = 0; k < n / 8; k++) {
        s->code[k] = to_points(g, 2, &r, 8 * k, s->code[k], s->scale, iq1_levels, s->down[k], &off);
        away = v_ior(away, off);
    }
    iq1_points_end(g, n, x, w, v_ine(away, v_seti(0)), s);
}
#endif

V_FN vm iq1_too_small(const vf *x, int n, float least)
{
    vf max = v_abs(x[0]);

    for (int i = 1; i < n; i++) {
        vf a = v_abs(x[i]);

        max = v_sel(v_lt(a, max), max, a);
    }
    return v_lt(max, v_set(least));
}

#ifdef V_COLUMNS
#include "kernels/text_iq1_device.h"
#else
#include "kernels/text_iq1_lanes.h"
#endif

/* Takes a candidate where its score is higher; b's was `least` when nothing was taken. *unsure: where the first one is so near to
 * `least` that one below might have kept it out. */
V_FN void iq1_try_above(struct iq1_best *b, vf least, vm *unsure, vf sum_qx, vf sum_q2, int i1, int i2, int kind)
{
    vf zero = v_set(0.f), square = sqr(sum_qx);
    vm better = v_and(v_lt(zero, sum_q2), v_lt(v_mul(b->score, sum_q2), square)), first, clear;

    if (!v_any(better))
        return;
    first = v_and(v_and(better, v_lt(zero, least)), v_not(v_ine(b->kind, v_seti(-1))));
    clear = v_and(v_lt(v_mul(v_mul(least, v_set(1 + 0x1p-18f)), sum_q2), square),
                  v_and(v_lt(v_set(0x1p-100f), square), v_lt(square, v_set(0x1p80f))));
    *unsure = v_or(*unsure, v_and(first, v_not(clear)));
    iq1_take(b, better, sum_qx, sum_q2, i1, i2, kind);
}

/* The last split that is taken when places are tried in order, each moved up (kind 0) and down (kind 1), from a score of `least` on. */
V_SEARCH struct iq1_best iq1s_scan(const struct iq1s_prefix *f, const struct iq1_places *places, vf least, vm *unsure)
{
    struct iq1_best b = iq1_start();

    b.score = least;
    *unsure = v_none();
    for (int i1 = 0; i1 <= 32; i1++) {
        struct iq1s_low l = iq1s_low_part(f, i1);

        for (int i2 = iq1_from(places, i1, i1); i2 <= 32; i2 = iq1_from(places, i1, i2 + 1)) {
            struct iq1s_sums s = iq1s_split(f, l, i1, i2);

#ifdef V_COLUMNS /* one branch for both */
            if ((int)!(v_mul(b.score, s.wp) < sqr(s.xp)) & (int)!(v_mul(b.score, s.wm) < sqr(s.xm)))
                continue;
#endif
            iq1_try_above(&b, least, unsure, s.xp, s.wp, i1, i2, 0);
            iq1_try_above(&b, least, unsure, s.xm, s.wm, i1, i2, 1);
        }
    }
    return b;
}

/* The same of 16 values in all four kinds. Each sum is one chain over the values
 * in order; what the low and the middle part have in common with the split before
 * is kept. */
V_SEARCH struct iq1_best iq1m_scan(const struct iq1m_terms *f, const struct iq1_places *places, vf least, vm *unsure)
{
    struct iq1_best b = iq1_start();
    vf low_x[4], low_w[4], high_x[4], high_w[4];

    b.score = least;
    *unsure = v_none();
    for (int k = 0; k < 4; k++)
        low_x[k] = low_w[k] = v_set(0.f);
    for (int i1 = 0; i1 <= 16; i1++) {
        vf mid_x[4], mid_w[4];

        for (int k = 0; k < 4; k++) {
            mid_x[k] = low_x[k];
            mid_w[k] = low_w[k];
        }
        for (int i2 = iq1_from(places, i1, i1), at = i1; i2 <= 16; i2 = iq1_from(places, i1, i2 + 1)) {
            vf sum_x[4], sum_w[4];

            for (; at < i2; at++)
                for (int k = 0; k < 4; k++) {
                    vf m = iq1m_mid(f, at, k == 1 || k == 2);

                    mid_x[k] = k < 2 ? v_add(mid_x[k], m) : v_sub(mid_x[k], m);
                    mid_w[k] = v_add(mid_w[k], iq1m_mid_w(f, at));
                }
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
                iq1_try_above(&b, least, unsure, sum_x[k], sum_w[k], i1, i2, k);
        }
        if (i1 < 16)
            iq1m_high(f, i1, high_x, high_w);
        for (int k = 0; k < 4 && i1 < 16; k++) {
            low_x[k] = v_sub(low_x[k], high_x[3 - k]);
            low_w[k] = v_add(low_w[k], high_w[3 - k]);
        }
    }
    return b;
}

/* All places in order. */
V_CALL void iq1s_search(const struct iq1s_prefix *f, struct iq1_best *out)
{
    vm unsure;

    *out = iq1s_scan(f, iq1_all, v_set(-FLT_MAX), &unsure);
}

V_CALL void iq1m_search(const struct iq1m_terms *f, struct iq1_best *out)
{
    vm unsure;

    *out = iq1m_scan(f, iq1_all, v_set(-FLT_MAX), &unsure);
}

#ifndef V_COLUMNS
/* The last split that is taken of all in order. Each is held against the score of the last one taken, which is rounded, so the
 * order matters; but whatever was taken below `least` gives way to the first split clearly above it. So the scan begins
 * there, and passes over places that have no such score: taking a split costs more than looking at one. Where it is not
 * clear (a margin of 2^-18, when four roundings move a comparison by less than 2^-21; a product of a score and a sum of q^2 that
 * becomes subnormal is far below the square) or nothing is known, the scan is of all places. */
V_FN struct iq1_best iq1s_best(const struct iq1s_prefix *f, vm small)
{
    struct iq1_near n = iq1s_near(f);
    struct iq1_places places;
    vf least = iq1_look(32, &n, small, &places);
    vm unsure;
    struct iq1_best b = iq1s_scan(f, &places, least, &unsure);

    if (v_any(iq1_untold(&b, least, unsure, small)))
        iq1s_search(f, &b);
    return b;
}

V_FN struct iq1_best iq1m_best(const struct iq1m_terms *f, vm small)
{
    struct iq1_places places;
    vf least = iq1_look(16, &f->near, small, &places);
    vm unsure;
    struct iq1_best b = iq1m_scan(f, &places, least, &unsure);

    if (v_any(iq1_untold(&b, least, unsure, small)))
        iq1m_search(f, &b);
    return b;
}
#endif

V_FN vf iq1_sigma2(vf squares) { return k_sigma2(2.f, squares); }

/* Sub-blocks as in text_kquant.h; e->lm: the move of each. From begin on: wt, its weights. */
V_FN void iq1_s_begin(int j, const vf *x, const vf *w, struct exchange *e, vf *wt, struct iq1_sub *s)
{
    IQ1S_PREFIX(f);
    struct iq1_best b;
    vi rank[32];
    vm small = iq1_too_small(x, 32, 1e-12f), turned;

    spread_weights(32, x, w, e->sigma2, wt);
    rank_values(x, 32, rank);
    iq1s_prefix(x, wt, rank, &f);
    b = iq1s_best(&f, small);
    s->dead = v_or(small, v_not(v_ine(b.kind, v_seti(-1))));
    turned = v_lt(b.scale, v_set(0.f));
    e->lm[j] = v_seli(s->dead, v_seti(0), v_seli(turned, v_isub(v_seti(1), b.kind), b.kind));
    for (int k = 0; k < 4; k++)
        s->down[k] = e->lm[j];
    iq1_codes(32, rank, &b, turned, s);
}

V_FN void iq1_s_end(int j, const struct iq1_sub *s, struct exchange *e, vi *out)
{
    vi high = v_seti(0);

    e->scale[j] = s->scale;
    for (int k = 0; k < 4; k++) {
        put(out, (int)offsetof(struct blk_iq1_s, qs) + 4 * j + k, low8(s->index[k]));
        high = v_ior(high, v_shl(v_shr(s->index[k], 8), 3 * k));
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

#ifndef V_COLUMNS
V_FN void iq1_s_block(const vf *x, const vf *w, vi *out)
{
    const struct sl_grid *g = sl_grid_for_writing(SL_GRID_IQ1);
    struct iq1_sub s;
    struct exchange e;
    vf wt[32];

    e.sigma2 = iq1_sigma2(sum_of_squares(x, 256));
    for (int j = 0; j < 8; j++) {
        iq1_s_begin(j, x + 32 * j, w + 32 * j, &e, wt, &s);
        iq1_to_points(g, 32, x + 32 * j, wt, &s);
        iq1_s_end(j, &s, &e, out);
    }
    iq1_s_top(&e, out);
}
#endif

V_FN void iq1m_weights(const vf *x, const vf *w, vf sigma2, vf *out)
{
    if (w)
        spread_weights(16, x, w, sigma2, out);
    else
        for (int i = 0; i < 16; i++)
            out[i] = sqr(x[i]);
}

/* Sets e->lm[j]: the two moves. From begin on: wt, the weights. */
V_FN void iq1_m_begin(int j, const vf *x, const vf *w, struct exchange *e, vf *wt, struct iq1_sub *s)
{
    IQ1M_TERMS(f);
    struct iq1_best b;
    vm small = iq1_too_small(x, 16, 1e-7f), turned;
    vi rank[16];

    iq1m_weights(x, w, e->sigma2, wt);
    rank_values(x, 16, rank);
    iq1m_terms(x, wt, rank, &f);
    b = iq1m_best(&f, small);
    s->dead = v_or(small, v_not(v_ine(b.kind, v_seti(-1))));
    turned = v_lt(b.scale, v_set(0.f));
    b.kind = v_seli(turned, v_isub(v_seti(3), b.kind), b.kind);
    b.kind = v_seli(s->dead, v_seti(0), b.kind);
    s->down[0] = v_shr(b.kind, 1);
    s->down[1] = v_iand(b.kind, v_seti(1));
    e->lm[j] = b.kind;
    iq1_codes(16, rank, &b, turned, s);
}

/* Sets e->ls[j]: the two codes. */
V_FN void iq1_m_end(int j, const struct iq1_sub *s, struct exchange *e, vi *out)
{
    e->scale[j] = s->scale;
    e->ls[j] = v_ior(s->code[0], v_shl(s->code[1], 16));
    for (int k = 0; k < 2; k++) {
        put(out, (int)offsetof(struct blk_iq1_m, qs) + 2 * j + k, low8(s->index[k]));
        put(out, (int)offsetof(struct blk_iq1_m, qh) + j, v_shl(v_shr(s->index[k], 8), 4 * k));
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

#ifndef V_COLUMNS
V_FN void iq1_m_block(const vf *x, const vf *w, vi *out)
{
    const struct sl_grid *g = sl_grid_for_writing(SL_GRID_IQ1);
    struct iq1_sub s;
    vf wt[16], qx[16], q2[16], sum_qx = v_set(0.f), sum_q2 = sum_qx;
    struct exchange e;

    e.sigma2 = iq1_sigma2(sum_of_squares(x, 256));
    for (int j = 0; j < 16; j++) {
        iq1_m_begin(j, x + 16 * j, w ? w + 16 * j : NULL, &e, wt, &s);
        iq1_to_points(g, 16, x + 16 * j, wt, &s);
        iq1_m_end(j, &s, &e, out);
    }
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
