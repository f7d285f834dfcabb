/* iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s: magnitudes on a grid of odd levels,
 * signs beside them. A sub-block tries a range of scales, each with its groups
 * moved to grid points, and keeps the one of the least weighted error.
 * Formulas: llama.cpp pull requests 4773, 4856, 5676 and their successors. */
#ifndef SLUICE_KERNELS_TEXT_IQUANT_H
#define SLUICE_KERNELS_TEXT_IQUANT_H

#include "kernels/text_grid.h"
#ifndef V_COLUMNS
#include "kernels/text_grid_runs.h"
#endif
#include "proto/types.h"

/* Which groups are moved again with the scale that was found: all of them;
 * those that were no points; all of them once one was no point. */
enum grid_again { AGAIN_ALL, AGAIN_OFF, AGAIN_IF_OFF };

struct grid_kind {
    enum sl_grid_id grid;
    int bits, n;         /* of a code's levels; values in a sub-block */
    bool parity;         /* the eighth sign follows from the other seven */
    int steps;           /* scales tried to either side */
    float step;
    float least;         /* a sub-block whose largest magnitude is below counts as zero */
    bool fit_first;      /* the range is around a fit, not around the largest value */
    enum grid_again again;
    float sigma, fudge;  /* of the mean square; of the superblock's scale */
};

V_FN int grid_groups(const struct grid_kind *t) { return t->bits == 2 ? t->n / 8 : t->n / 4; }
V_FN int grid_top(const struct grid_kind *t) { return t->bits == 2 ? 2 : 7; }

/* One sub-block of each lane. */
struct grid_sub {
    vf x[32], w[32], wx[32];
    vi code[8], signs[4];
    vf scale;
    vm dead;
};

V_TABLE float grid_odd[2][16] = {{1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7, 1, 3, 5, 7},
                                      {1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15}};

/* Magnitudes and signs of eight values. With parity an odd number of signs is
 * made even: the value that matters least (the first such) takes the other one. */
V_FN vi grid_signs(bool parity, const vf *x, const vf *w, vf *mag)
{
    vi signs = v_seti(0), count = v_seti(0), none = v_seti(0), turn = v_seti(1);
    vf zero = v_set(0.f), least = v_mul(v_mul(w[0], x[0]), x[0]);

    for (int i = 0; i < 8; i++) {
        vm neg = v_lt(x[i], zero);

        mag[i] = v_sel(neg, v_neg(x[i]), x[i]);
        signs = v_ior(signs, v_seli(neg, v_seti(1 << i), none));
        count = v_iadd(count, v_seli(neg, v_seti(1), none));
    }
    if (!parity)
        return signs;
    for (int i = 1; i < 8; i++) {
        vf weight = v_mul(v_mul(w[i], x[i]), x[i]);
        vm less = v_lt(weight, least);

        least = v_sel(less, weight, least);
        turn = v_seli(less, v_seti(1 << i), turn);
    }
    turn = v_seli(v_ine(v_iand(count, v_seti(1)), none), turn, none);
    for (int i = 0; i < 8; i++)
        mag[i] = v_sel(v_ine(v_iand(turn, v_seti(1 << i)), none), v_neg(mag[i]), mag[i]);
    signs = v_isub(v_ior(signs, turn), v_iand(signs, turn)); /* exclusive or */
    return v_iand(signs, v_seti(127));
}

/* The odd level in a code's place i. */
#ifdef V_COLUMNS
V_FN vf grid_odd_value(int bits, vi code, int i) { return v_odd(bits, code, i); }
#else
V_FN vf grid_odd_value(int bits, vi code, int i) { return grid_value(bits, grid_odd[bits - 2], code, i); }
#endif

V_FN void grid_sums(const struct grid_kind *t, const struct grid_sub *s, const vi *code, vf *sum_qx, vf *sum_q2)
{
    int values = t->bits == 2 ? 8 : 4;

    *sum_qx = *sum_q2 = v_set(0.f);
    for (int i = 0; i < t->n; i++) {
        vf q = grid_odd_value(t->bits, code[i / values], i % values);

        *sum_qx = v_add(*sum_qx, v_mul(s->wx[i], q));
        *sum_q2 = v_add(*sum_q2, v_mul(v_mul(s->w[i], q), q));
    }
}

/* What trials leave to the next: the best one's score, and its groups that were no points (not 0). */
struct grid_best {
    vf score;
    vi off[8];
};

V_FN void grid_start(const struct grid_kind *t, struct grid_sub *s, struct grid_best *b)
{
    b->score = v_set(0.f);
    for (int k = 0; k < grid_groups(t); k++) {
        s->code[k] = v_seti(0);
        b->off[k] = v_seti(t->again == AGAIN_IF_OFF);
    }
}

/* The inverse of trial is's scale, is in -steps..steps. */
V_FN vf grid_spacing(const struct grid_kind *t, int is, vf range)
{
    return v_div(v_set((float)(2 * grid_top(t) + 1) + (float)is * t->step), range);
}

/* Takes a trial's scale where its score is higher; returns where. */
V_FN vm grid_judge(vf sum_qx, vf sum_q2, struct grid_sub *s, struct grid_best *b)
{
    vm better = v_and(v_lt(v_set(0.f), sum_q2), v_lt(v_mul(b->score, sum_q2), sqr(sum_qx)));
    vf scale = v_div(sum_qx, sum_q2);

    s->scale = v_sel(better, scale, s->scale);
    b->score = v_sel(better, v_mul(scale, sum_qx), b->score);
    return better;
}

/* The same, and its points. */
V_FN vm grid_better(const struct grid_kind *t, struct grid_sub *s, const vi *code, struct grid_best *b)
{
    vf sum_qx, sum_q2;
    vm better;

    grid_sums(t, s, code, &sum_qx, &sum_q2);
    better = grid_judge(sum_qx, sum_q2, s, b);
    for (int k = 0; k < grid_groups(t); k++)
        s->code[k] = v_seli(better, code[k], s->code[k]);
    return better;
}

/* The same, and which groups were no points. */
V_FN void grid_take(const struct grid_kind *t, struct grid_sub *s, const vi *code, const vi *off, struct grid_best *b)
{
    vm better = grid_better(t, s, code, b);

    for (int k = 0; k < grid_groups(t); k++)
        b->off[k] = v_seli(better, off[k], b->off[k]);
}

/* The second move, with the scale found: in which lanes, in which of them group k, and the scale then. */
V_FN vm grid_again_lanes(const struct grid_kind *t, const struct grid_sub *s, const struct grid_best *b)
{
    vm lanes = v_lt(v_set(0.f), s->scale);
    vi any = v_seti(0);

    for (int k = 0; k < grid_groups(t); k++)
        any = v_ior(any, b->off[k]);
    return t->again == AGAIN_ALL ? lanes : v_and(lanes, v_ine(any, v_seti(0)));
}

V_FN vm grid_again_here(const struct grid_kind *t, const struct grid_best *b, vm lanes, int k)
{
    return t->again == AGAIN_OFF ? v_and(lanes, v_ine(b->off[k], v_seti(0))) : lanes;
}

V_FN void grid_again_scale(const struct grid_kind *t, struct grid_sub *s, vm lanes)
{
    vf zero = v_set(0.f), sum_qx, sum_q2;

    grid_sums(t, s, s->code, &sum_qx, &sum_q2);
    s->scale = v_sel(v_and(lanes, v_lt(zero, sum_q2)), v_div(sum_qx, sum_q2), s->scale);
}

#ifndef V_COLUMNS /* text_queue.h has the searches of a GPU's threads */
V_FN void grid_again(const struct grid_kind *t, const struct sl_grid *g, struct grid_sub *s, const struct grid_rows *r,
                     const struct grid_best *b)
{
    int values = t->bits == 2 ? 8 : 4;
    vf inv = v_div(v_set(1.f), s->scale);
    vm lanes = grid_again_lanes(t, s, b);
    vi unused;

    if (!v_any(lanes))
        return;
    for (int k = 0; k < grid_groups(t); k++) {
        vm here = grid_again_here(t, b, lanes, k);
        vi code;

        if (!v_any(here))
            continue;
        code = v_seli(here, grid_code(t->bits, grid_top(t), s->x + k * values, inv), s->code[k]);
        s->code[k] = to_points(g, t->bits, r, k * values, code, s->scale, grid_odd[t->bits - 2], v_seti(0), &unused);
    }
    grid_again_scale(t, s, lanes);
}

/* Scale and codes of one sub-block: x, w, wx and dead are set; range: the value
 * that the highest level is for; scale: what stays when no trial is better. */
V_FN void grid_fit(const struct grid_kind *t, const struct sl_grid *g, struct grid_sub *s, vf range)
{
    int values = t->bits == 2 ? 8 : 4, groups = grid_groups(t);
    vi points[8][GRID_TRIALS], off[8];
    struct grid_scales scales;
    struct grid_best best;
    struct grid_rows r;
    vf roots[32];

    for (int i = 0; i < t->n; i++)
        roots[i] = v_sqrt(s->w[i]);
    to_rows(s->x, t->n, r.x);
    to_rows(roots, t->n, r.w);
    scales.n = 2 * t->steps + 1;
    for (int i = 0; i < scales.n; i++)
        scales.over[i] = grid_spacing(t, i - t->steps, range);
    scales_end(&scales);
    for (int k = 0; k < groups; k++)
        group_points(g, t->bits, grid_top(t), s->x + k * values, roots + k * values, &r, k * values, &scales, grid_odd[t->bits - 2],
                     points[k], &off[k]);
    grid_start(t, s, &best);
    for (int i = 0; i < scales.n; i++) {
        vi code[8], away[8];

        for (int k = 0; k < groups; k++) {
            code[k] = points[k][i];
            away[k] = v_iand(v_shr(off[k], i), v_seti(1));
        }
        grid_take(t, s, code, away, &best);
    }
    grid_again(t, g, s, &r, &best);
}
#endif

/* Importance weights of a sub-block; without an imatrix iq2_s and the iq3 types
 * have each a formula of their own. */
V_FN void grid_weights(const struct grid_kind *t, const vf *x, const vf *w, vf sigma2, vf *out)
{
    if (w)
        spread_weights(t->n, x, w, sigma2, out);
    else
        for (int i = 0; i < t->n; i++)
            out[i] = t->grid == SL_GRID_IQ2_S ? v_add(v_mul(v_set(0.25f), sigma2), sqr(x[i])) : sqr(x[i]);
}

/* Weights, magnitudes and signs of a sub-block; returns the largest magnitude. */
V_FN vf grid_values(const struct grid_kind *t, const vf *x, const vf *w, vf sigma2, struct grid_sub *s)
{
    vf range;

    grid_weights(t, x, w, sigma2, s->w);
    for (int k = 0; k < t->n / 8; k++)
        s->signs[k] = grid_signs(t->parity, x + 8 * k, s->w + 8 * k, s->x + 8 * k);
    range = s->x[0];
    for (int i = 0; i < t->n; i++) {
        range = v_sel(v_lt(s->x[i], range), range, s->x[i]);
        s->wx[i] = v_mul(s->w[i], s->x[i]);
    }
    s->dead = t->least > 0 ? v_lt(range, v_set(t->least)) : v_not(v_ne(range, v_set(0.f)));
    return range;
}

/* What the trials of n sub-blocks (<= 4) begin from; range: in, the largest magnitude, out, the range. */
V_FN void grid_ranges(const struct grid_kind *t, int n, struct grid_sub *s, vf *range)
{
    const vf *x[4], *w[4];
    vi unused[4][32], *levels[4];
    vf scale[4], zero = v_set(0.f);

    for (int c = 0; c < n; c++) {
        x[c] = s[c].x;
        w[c] = s[c].w;
        levels[c] = unused[c];
        scale[c] = v_div(range[c], v_set(t->bits == 2 ? 5.f : 15.f));
    }
    if (t->fit_first)
        fit_positives(n, 32, 4, x, w, levels, scale);
    for (int c = 0; c < n; c++) {
        s[c].scale = scale[c];
        if (t->fit_first) {
            range[c] = v_mul(scale[c], v_set(3.f));
            s[c].dead = v_or(s[c].dead, v_or(v_lt(range[c], zero), v_not(v_ne(range[c], zero)))); /* not a NaN */
        }
    }
}

/* What the trials of one begin from; returns the range. */
V_FN vf grid_begin(const struct grid_kind *t, const vf *x, const vf *w, vf sigma2, struct grid_sub *s)
{
    vf range = grid_values(t, x, w, sigma2, s);

    grid_ranges(t, 1, s, &range);
    return range;
}

/* From the last points: the scale >= 0, signs, and the points' indices in code. */
V_FN void grid_end(const struct grid_kind *t, const struct sl_grid *g, struct grid_sub *s)
{
    vf zero = v_set(0.f);
    vm negative = v_lt(s->scale, zero);

    s->scale = v_sel(s->dead, zero, v_sel(negative, v_neg(s->scale), s->scale));
    for (int k = 0; k < t->n / 8; k++) {
        vi other = v_isub(v_seti(t->parity ? 127 : 255), s->signs[k]);

        s->signs[k] = v_seli(s->dead, v_seti(0), v_seli(negative, other, s->signs[k]));
    }
    for (int k = 0; k < grid_groups(t); k++)
        s->code[k] = v_seli(s->dead, v_seti(0), point_index(g, s->code[k]));
}

/* The superblock's scale in out[0], and the sub-blocks' scales 0..top in e->ls. */
V_FN void grid_scales(int n, int top, float fudge, float levels, struct exchange *e, vi *out)
{
    vf max = v_set(0.f), d, inv;

    for (int i = 0; i < n; i++)
        max = v_sel(v_lt(e->scale[i], max), max, e->scale[i]);
    d = v_div(max, v_set(levels));
    inv = v_div(v_set(1.f), d);
    put(out, 0, v_f16(v_mul(d, v_set(fudge))));
    for (int i = 0; i < n; i++)
        e->ls[i] = level_int(v_mul(v_set(0.5f), v_sub(v_mul(inv, e->scale[i]), v_set(1.f))), 0, top);
    e->none = v_seli(v_ne(max, v_set(0.f)), v_seti(0), v_seti(1));
}

/* The five types, by their place in this table's order. */
V_SHAPE struct grid_kind grid_kind_of(int type)
{
    const struct grid_kind iq2_xxs = {SL_GRID_IQ2_XXS, 2, 32, true, 6, 0.1f, GROUP_EPS, true, AGAIN_ALL, 1.f, 1.f};
    const struct grid_kind iq2_xs = {SL_GRID_IQ2_XS, 2, 16, true, 9, 0.1f, GROUP_EPS, false, AGAIN_OFF, 1.f, 1.f};
    const struct grid_kind iq2_s = {SL_GRID_IQ2_S, 2, 16, false, 9, 0.1f, 1e-8f, false, AGAIN_OFF, 2.f, 0.9875f};
    const struct grid_kind iq3_xxs = {SL_GRID_IQ3_XXS, 3, 32, true, 15, 0.2f, 1e-8f, false, AGAIN_OFF, 2.f, 1.0125f};
    const struct grid_kind iq3_s = {SL_GRID_IQ3_S, 3, 32, false, 9, 0.2f, 0, false, AGAIN_IF_OFF, 2.f, 1.033f};

    return type == SL_TYPE_IQ2_XXS ? iq2_xxs : type == SL_TYPE_IQ2_XS ? iq2_xs : type == SL_TYPE_IQ2_S ? iq2_s
           : type == SL_TYPE_IQ3_XXS ? iq3_xxs : iq3_s;
}

/* What a sub-block keeps for iquant_levels. */
struct grid_codes {
    vi code[8], signs[4];
};

/* One sub-block's end: what does not depend on the others is written at once. Sets
 * e->scale[j] and e->lm[j]: 0 where the sub-block is dead, else 1. */
V_FN void iquant_put(int type, int j, const struct grid_sub *sub, struct exchange *e, struct grid_codes *keep, vi *out)
{
    const struct grid_sub s = *sub;
    vi signs = v_seti(0);

    e->scale[j] = s.scale;
    e->lm[j] = v_seli(s.dead, v_seti(0), v_seti(1));
    if (type == SL_TYPE_IQ3_S) {
        for (int k = 0; k < 8; k++) {
            put(out, (int)offsetof(struct blk_iq3_s, qh) + j, v_shl(v_shr(s.code[k], 8), k));
            keep->code[k] = low8(s.code[k]);
        }
        for (int k = 0; k < 4; k++)
            keep->signs[k] = s.signs[k];
    } else if (type == SL_TYPE_IQ2_XS) {
        for (int k = 0; k < 2; k++)
            put(out, (int)offsetof(struct blk_iq2_xs, qs) + 4 * j + 2 * k, v_ior(s.code[k], v_shl(s.signs[k], 9)));
    } else if (type == SL_TYPE_IQ2_S) {
        for (int k = 0, i = 2 * j; k < 2; k++, i++) {
            put(out, (int)offsetof(struct blk_iq2_s, qs) + i, low8(s.code[k]));
            put(out, (int)offsetof(struct blk_iq2_s, qs) + 32 + i, s.signs[k]);
            put(out, (int)offsetof(struct blk_iq2_s, qh) + i / 4, v_shl(v_shr(s.code[k], 8), 2 * (i & 3)));
        }
    } else {
        bool two = type == SL_TYPE_IQ2_XXS;
        int at = two ? (int)offsetof(struct blk_iq2_xxs, qs) + 8 * j : (int)offsetof(struct blk_iq3_xxs, qs) + 8 * j;

        for (int k = 0; k < (two ? 4 : 8); k++)
            put(out, at + k, s.code[k]);
        for (int k = 0; k < 4; k++)
            signs = v_ior(signs, v_shl(s.signs[k], 7 * k));
        at = two ? at + 4 : (int)offsetof(struct blk_iq3_xxs, qs) + 64 + 4 * j;
        put(out, at, v_iand(signs, v_seti(0xffff)));
        put(out, at + 2, v_shr(signs, 16));
    }
}

/* Writes the sub-block scales too: fields of their own that nobody else waits for. */
V_FN void iquant_top(int type, struct exchange *e, vi *out)
{
    const struct grid_kind t = grid_kind_of(type);
    int n = 256 / t.n;

    grid_scales(n, 15, t.fudge, 31.f, e, out);
    for (int j = 0; j < n; j++)
        if (type == SL_TYPE_IQ2_XXS)
            put(out, (int)offsetof(struct blk_iq2_xxs, qs) + 8 * j + 7, v_shl(e->ls[j], 4));
        else if (type == SL_TYPE_IQ3_XXS)
            put(out, (int)offsetof(struct blk_iq3_xxs, qs) + 64 + 4 * j + 3, v_shl(e->ls[j], 4));
        else if (type == SL_TYPE_IQ2_XS)
            put(out, (int)offsetof(struct blk_iq2_xs, scales) + j / 2, v_shl(e->ls[j], 4 * (j & 1)));
        else if (type == SL_TYPE_IQ2_S)
            put(out, (int)offsetof(struct blk_iq2_s, scales) + j / 2, v_shl(e->ls[j], 4 * (j & 1)));
        else
            put(out, (int)offsetof(struct blk_iq3_s, scales) + j / 2, v_shl(e->ls[j], 4 * (j & 1)));
    if (type == SL_TYPE_IQ2_S || type == SL_TYPE_IQ3_S)
        e->none = v_seti(0);
}

/* Low bits and signs of a sub-block in slot j, in some lanes. Slots follow each
 * other without a gap: in ggml's files a sub-block of zeros takes no slot, although
 * readers expect one (all later sub-blocks of that superblock are read wrongly). */
V_FN void iq3_s_put(const struct grid_codes *s, int j, vm lanes, vi *out)
{
    vi none = v_seti(0);

    if (!v_any(lanes))
        return;
    for (int k = 0; k < 8; k++)
        put(out, (int)offsetof(struct blk_iq3_s, qs) + 8 * j + k, v_seli(lanes, s->code[k], none));
    for (int k = 0; k < 4; k++)
        put(out, (int)offsetof(struct blk_iq3_s, signs) + 4 * j + k, v_seli(lanes, s->signs[k], none));
}

V_FN void iquant_levels(int type, int j, const struct grid_codes *s, const struct exchange *e, vi *out)
{
    vi slot = v_seti(0);

    if (type != SL_TYPE_IQ3_S)
        return;
    for (int b = 0; b < j; b++)
        slot = v_iadd(slot, e->lm[b]);
    for (int at = 0; at <= j; at++)
        iq3_s_put(s, at, v_not(v_ine(slot, v_seti(at))), out);
}

V_FN vf iquant_sigma2(int type, vf squares) { return k_sigma2(grid_kind_of(type).sigma, squares); }

#ifndef V_COLUMNS /* a thread there has a sub-block */
V_FN void iquant_block(int type, const vf *x, const vf *w, vi *out)
{
    const struct grid_kind t = grid_kind_of(type);
    const struct sl_grid *g = sl_grid_for_writing(t.grid);
    struct grid_codes keep;
    struct exchange e;
    int chains = t.fit_first ? CHAINS : 1;

    e.sigma2 = iquant_sigma2(type, sum_of_squares(x, 256));
    for (int j = 0; j < 256 / t.n; j += chains) {
        struct grid_sub s[CHAINS];
        vf range[CHAINS];

        for (int c = 0; c < chains; c++)
            range[c] = grid_values(&t, x + t.n * (j + c), w ? w + t.n * (j + c) : NULL, e.sigma2, &s[c]);
        grid_ranges(&t, chains, s, range);
        for (int c = 0; c < chains; c++) {
            grid_fit(&t, g, &s[c], range[c]);
            grid_end(&t, g, &s[c]);
            iquant_put(type, j + c, &s[c], &e, &keep, out);
            iquant_levels(type, j + c, &keep, &e, out);
        }
    }
    iquant_top(type, &e, out);
    clear_none(&e, out);
}

V_FN void iq2_xxs_block(const vf *x, const vf *w, vi *out) { iquant_block(SL_TYPE_IQ2_XXS, x, w, out); }
V_FN void iq2_xs_block(const vf *x, const vf *w, vi *out) { iquant_block(SL_TYPE_IQ2_XS, x, w, out); }
V_FN void iq2_s_block(const vf *x, const vf *w, vi *out) { iquant_block(SL_TYPE_IQ2_S, x, w, out); }
V_FN void iq3_xxs_block(const vf *x, const vf *w, vi *out) { iquant_block(SL_TYPE_IQ3_XXS, x, w, out); }
V_FN void iq3_s_block(const vf *x, const vf *w, vi *out) { iquant_block(SL_TYPE_IQ3_S, x, w, out); }
#endif

#endif
