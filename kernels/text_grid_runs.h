/* A group's points for a range of scales. Its code, which its values round to, stays the same over a run of
 * trials of successive scales, and with it the list of neighbours. A neighbour with levels b has
 *
 *     sum w (s b - x)^2 = sum w x^2 + s (s P - Q),   P = sum w b^2,   Q = 2 sum w x b,
 *
 * at scale s: P and Q are made once for a run, where a lane is a neighbour, s P - Q for each of its trials, where it is one of
 * these.
 *
 * What is lowest by more than roundings come to is the point that the sums in floats have, in their order. Roundings: let u be
 * 2^-24, T = s * highest level + |x|, M the sum of w T^2 at the largest scale. A sum in floats of eight is off by 13 u M at most (d =
 * s b - x by 2 u T, a term by 6 u w T^2, adding by 7 u M), s (s P - Q) by 11 u M; two of each make 48, so 64 u M over the smallest
 * scale is asked for. Where a number is so large or small that terms may be infinite or rounded to nothing, and where it is not
 * clear, the sums are made in floats. What is above another by as much at both ends of a run is so in between, a difference being
 * a line: of the 11, what an end's own product and difference are off by is 2 at any scale of the run too. */
#ifndef SLUICE_KERNELS_TEXT_GRID_RUNS_H
#define SLUICE_KERNELS_TEXT_GRID_RUNS_H

#include "kernels/text_grid.h"

#include <math.h>

#define GRID_TRIALS 31

/* Scales that are tried, falling: over[i] = 1 / scale[i]. */
struct grid_scales {
    int n;
    vf over[GRID_TRIALS], scale[32];
    float row[LANES + 1][32]; /* the scales of each lane */
};

/* What follows from n and over; behind the last scale it is repeated. */
V_FN void scales_end(struct grid_scales *s)
{
    for (int i = 0; i < 32; i++)
        s->scale[i] = i < s->n ? v_div(v_set(1.f), s->over[i]) : s->scale[s->n - 1];
    to_rows(s->scale, 32, s->row);
    v_store(s->row[LANES], v_set(0.f)); /* loaded behind the last row, not looked at */
}

/* By how much the lowest s P - Q is to be below the others; infinite where that would prove nothing. The last scale's inverse
 * has to have a finite square: then scales are above 2^-64, and no T^2 is rounded to nothing. */
V_FN vf lines_margin(int bits, const vf *x, const vf *w, const struct grid_scales *s)
{
    vf top = v_mul(s->scale[0], v_set(bits == 2 ? 5.f : 15.f)), last = s->over[s->n - 1], most = v_set(0x1p100f);
    vf sum = v_set(0.f), squares = v_set(1.f);
    vm usual;

    for (int i = 0; i < (bits == 2 ? 8 : 4); i++) {
        vf reach = sqr(v_add(top, v_abs(x[i])));

        squares = v_add(squares, reach);
        sum = v_add(sum, v_mul(w[i], reach));
    }
    usual = v_and(v_lt(v_mul(v_set(0x1p-110f), squares), sum), v_lt(v_mul(sum, sqr(last)), most));
    usual = v_and(usual, v_and(v_lt(squares, most), v_lt(sum, most)));
    usual = v_and(usual, v_lt(v_set(0.f), s->scale[s->n - 1]));
    return v_sel(usual, v_mul(v_mul(sum, last), v_set(0x1p-18f)), v_set(INFINITY));
}

/* One lane's group. p, q: what each value adds to P and Q at each level. */
struct grid_lines {
    const struct sl_grid *grid;
    const float *x, *w, *levels, *scale; /* scale: by trial */
    float margin;
    float p[32], q[32];
};

V_FN void lines_begin(int bits, struct grid_lines *l)
{
    int each = bits == 2 ? 4 : 8;

    for (int i = 0; i < 32; i += LANES) {
        vf level = v_load(l->levels + i % 16), w = v_mul(v_spread(l->w + i / each, bits), level);

        v_store(l->p + i, v_mul(w, level));
        v_store(l->q + i, v_mul(v_mul(w, v_set(2.f)), v_spread(l->x + i / each, bits)));
    }
}

/* P, Q and code of each neighbour; returns how many. */
V_FN int run_neighbours(int bits, const struct grid_lines *l, int32_t entry, float *p, float *q, int32_t *code)
{
    const uint16_t *list = sl_grid_list(l->grid, entry);
    int n = sl_grid_list_length(entry), values = bits == 2 ? 8 : 4, each = bits == 2 ? 4 : 8;

    for (int j = 0; j < n; j += LANES) {
        vi c = v_load_u16(list + j);
        vf sum_p = grid_value(bits, l->p, c, 0), sum_q = grid_value(bits, l->q, c, 0);

        for (int i = 1; i < values; i++) {
            sum_p = v_add(sum_p, grid_value(bits, l->p + i * each, c, i));
            sum_q = v_add(sum_q, grid_value(bits, l->q + i * each, c, i));
        }
        v_store(p + j, sum_p);
        v_store(q + j, sum_q);
        v_storei(code + j, c);
    }
    return n;
}

/* The points of trials from..to, whose code has the list `entry`, by sums in floats: where gap, if any, is not above the margin. */
V_FN void run_in_floats(int bits, const struct grid_lines *l, int32_t entry, const float *gap, int from, int to, float *out)
{
    for (int t = from; t <= to; t++)
        if (!gap || !(l->margin < gap[t - from]))
            out[t] = sl_float(bits == 2 ? nearest_of_8(l->grid, entry, l->x, l->w, l->scale[t], l->levels)
                                        : nearest_of_4(l->grid, entry, l->x, l->w, l->scale[t], l->levels));
}

/* Returns the neighbour that is lowest at a scale. */
V_FN int run_lowest(int n, float scale, const float *p, const float *q)
{
    vf s = v_set(scale), best = v_sub(v_mul(s, v_load(p)), v_load(q));
    vi best_at = v_index(), at = best_at;

    for (int j = LANES; j < n; j += LANES) {
        vf value = v_sub(v_mul(s, v_load(p + j)), v_load(q + j));

        at = v_iadd(at, v_seti(LANES));
        best_at = v_seli(v_lt(value, best), at, best_at);
        best = v_min(best, value);
    }
    return v_first_least(best, best_at);
}

/* Which neighbours other than number one may be lowest at a trial from..to: those that are not above it by more than the margin at
 * both ends. Returns how many. one: any; the fewer are left, the lower it is. */
V_FN int run_others(const struct grid_lines *l, int n, int one, int from, int to, const float *p, const float *q, int *other)
{
    float first = l->scale[from], last = l->scale[to];
    vf at_first = v_set(first * p[one] - q[one] + l->margin), at_last = v_set(last * p[one] - q[one] + l->margin);
    int others = 0;

    for (int j = 0; j < n; j += LANES) {
        vf vp = v_load(p + j), vq = v_load(q + j);
        vm above = v_and(v_lt(at_first, v_sub(v_mul(v_set(first), vp), vq)), v_lt(at_last, v_sub(v_mul(v_set(last), vp), vq)));

        for (uint32_t left = v_lanes(v_not(above)); left; left &= left - 1) {
            int k = j + __builtin_ctz(left);

            other[others] = k;
            others += k != one && k < n;
        }
    }
    return others;
}

/* Longer lists are made shorter before their trials are looked at. */
#define GRID_LONG 32

/* The points of trials from..to, whose code has the list `entry`. Writes LANES more. */
V_FN void run_points(int bits, const struct grid_lines *l, int32_t entry, int from, int to, float *out)
{
    float p[SL_GRID_LONGEST + LANES], q[SL_GRID_LONGEST + LANES];
    int32_t code[SL_GRID_LONGEST + LANES];
    int other[SL_GRID_LONGEST + LANES], n, one = 0;
    bool is_long;

    if (!(l->margin < INFINITY)) {
        run_in_floats(bits, l, entry, NULL, from, to, out);
        return;
    }
    n = run_neighbours(bits, l, entry, p, q, code);
    is_long = n > GRID_LONG;
    if (is_long) {
        one = run_lowest(n, l->scale[(from + to) / 2], p, q);
        n = 1 + run_others(l, n, one, from, to, p, q, other + 1);
    }
    for (int t = from; t <= to; t += LANES) {
        vf s = v_load(l->scale + t), best = v_sub(v_mul(s, v_set(p[one])), v_set(q[one])), second = v_set(INFINITY);
        vi point = v_seti(code[one]);
        float gap[LANES];

        for (int i = 1; i < n; i++) {
            int j = is_long ? other[i] : i;
            vf value = v_sub(v_mul(s, v_set(p[j])), v_set(q[j]));

            point = v_seli(v_lt(value, best), v_seti(code[j]), point);
            second = v_min(second, v_max(best, value));
            best = v_min(best, value);
        }
        v_store(out + t, v_frombits(point));
        v_store(gap, v_sub(second, best));
        if (v_any(v_not(v_lt(v_set(l->margin), v_sub(second, best)))))
            run_in_floats(bits, l, entry, gap, t, t + LANES <= to ? t + LANES - 1 : to, out);
    }
}

V_CALL void run_points_8(const struct grid_lines *l, int32_t entry, int from, int to, float *out)
{
    run_points(2, l, entry, from, to, out);
}
V_CALL void run_points_4(const struct grid_lines *l, int32_t entry, int from, int to, float *out)
{
    run_points(3, l, entry, from, to, out);
}

/* code: by trial, LANES apart. changes: a bit for each trial whose code is not the one before's. Returns the trials whose codes
 * are no points. */
V_FN uint32_t lane_points(int bits, struct grid_lines *l, const int32_t *code, uint32_t changes, int n, float *out)
{
    uint32_t off = 0;

    for (int from = 0, to; from < n; from = to + 1) {
        uint32_t later = changes >> from >> 1;
        int32_t c = code[from * LANES], entry = l->grid->map[c];

        to = later ? from + __builtin_ctz(later) : n - 1;
        if (entry >= 0 || sl_grid_list_length(entry) == 1) {
            vf point = v_frombits(v_seti(entry >= 0 ? c : *sl_grid_list(l->grid, entry)));

            for (int t = from; t <= to; t += LANES)
                v_store(out + t, point);
        } else if (bits == 2) {
            run_points_8(l, entry, from, to, out);
        } else {
            run_points_4(l, entry, from, to, out);
        }
        off |= entry < 0 ? (2u << to) - (1u << from) : 0;
    }
    return off;
}

/* Codes and points of the group at value `at` for all scales. x, w: its values, and the roots of their weights; rows: the same.
 * points: by trial; off: a bit for each trial whose code was no point. */
V_FN void group_points(const struct sl_grid *g, int bits, int top, const vf *x, const vf *w, const struct grid_rows *rows, int at,
                       const struct grid_scales *s, const float *levels, vi *points, vi *off)
{
    vi before = v_seti(0), changes = v_seti(0);
    int32_t code[GRID_TRIALS][LANES], changed[LANES], offs[LANES];
    float margin[LANES], out[LANES][32 + LANES];
    vf turned[32];

    for (int i = 0; i < s->n; i++) {
        vi c = grid_code(bits, top, x, s->over[i]);

        v_storei(code[i], c);
        changes = v_ior(changes, v_seli(v_ine(c, before), v_seti(1 << i), v_seti(0)));
        before = c;
    }
    v_storei(changed, changes);
    v_store(margin, lines_margin(bits, x, w, s));
    for (int k = 0; k < LANES; k++) {
        struct grid_lines l;

        l.grid = g;
        l.x = rows->x[k] + at;
        l.w = rows->w[k] + at;
        l.levels = levels;
        l.scale = s->row[0] + 32 * k;
        l.margin = margin[k];
        lines_begin(bits, &l);
        offs[k] = (int32_t)lane_points(bits, &l, code[0] + k, (uint32_t)changed[k], s->n, out[k]);
    }
    *off = v_loadi(offs);
    v_gather(turned, out[0], 32 + LANES, LANES, 32);
    for (int i = 0; i < s->n; i++)
        points[i] = v_bits(turned[i]);
}

#endif
