/* The search for a group's nearest grid point, and what turns values into
 * codes. Here a lane is a neighbour: the squared differences of each value to
 * each level are tabulated, and LANES neighbours add up theirs in the values'
 * order, so that every sum is the one that scalar code would make. */
#ifndef SLUICE_KERNELS_TEXT_GRID_H
#define SLUICE_KERNELS_TEXT_GRID_H

#include "kernels/grids.h"
#include "kernels/text_kquant.h"

#include <float.h>

/* The level of each value in a code's place i. */
V_FN vf grid_value(int bits, const float *levels, vi code, int i)
{
    return bits == 2 ? v_lookup4(levels, v_shr(code, 2 * i)) : v_lookup8(levels, v_shr(code, 3 * i));
}

/* The index of each lane's code, which is a point. */
V_FN vi point_index(const struct sl_grid *g, vi code)
{
    int32_t c[LANES];

    v_storei(c, code);
    for (int k = 0; k < LANES; k++)
        c[k] = g->map[c[k]] < 0 ? 0 : g->map[c[k]];
    return v_loadi(c);
}

/* The code of the odd levels 2 * l + 1 nearest to inv * x, l in 0..top. */
V_FN vi grid_code(int bits, int top, const vf *x, vf inv)
{
    int values = bits == 2 ? 8 : 4;
    vi code = v_seti(0);
    vf none = v_set(0.f);

    no_nan(&inv, &none); /* -0.5 rounds to 0 */
    for (int i = values - 1; i >= 0; i--) {
        vf half = v_mul(v_set(0.5f), v_sub(v_mul(inv, x[i]), v_set(1.f)));

        code = v_ior(v_shl(code, bits), number_level_int(half, 0, top));
    }
    return code;
}

#ifndef V_COLUMNS /* text_queue.h has the search of a GPU's threads */
/* A run of up to 32 values of each lane's superblock, block by block. */
struct grid_rows {
    float x[LANES][32], w[LANES][32];
};

/* rows[k][i] = lane k of v[i]. n: 16 or 32. */
V_FN void to_rows(const vf *v, int n, float (*rows)[32])
{
    float t[32 * LANES];
    vf r[LANES];

    for (int i = 0; i < n; i++)
        v_store(t + i * LANES, v[i]);
    for (int i = 0; i < n; i += LANES) {
        v_gather(r, t + i * LANES, LANES, LANES, LANES);
        for (int k = 0; k < LANES; k++)
            v_store(rows[k] + i, r[k]);
    }
}

/* The first point of the list at `entry` with the least sum of
 * w * (scale * level - x)^2; its code. levels: the values of the levels, in 16
 * places, again and again. Where no sum is a number below FLT_MAX: the first. */
V_FN uint32_t nearest_point(const struct sl_grid *g, int bits, int32_t entry, const float *x, const float *w, float scale,
                            const float *levels)
{
    const uint16_t *list = sl_grid_list(g, entry);
    int n = sl_grid_list_length(entry), values = bits == 2 ? 8 : 4, each = bits == 2 ? 4 : 8;
    vf best = v_set(FLT_MAX), s = v_set(scale);
    vi best_at = v_seti(0), at = v_index();
    float t[32];

    for (int i = 0; i < 32; i += LANES) {
        vf diff;

        if (LANES == 1 && bits == 2 && (i & 3) == 3)
            continue; /* there is no such level */
        diff = v_sub(v_mul(s, v_load(levels + i % 16)), v_spread(x + i / each, bits));

        v_store(t + i, v_mul(v_mul(v_spread(w + i / each, bits), diff), diff));
    }
    for (int j = 0; j < n; j += LANES) {
        vi code = v_load_u16(list + j);
        vf sum = grid_value(bits, t, code, 0);
        vm less;

        for (int i = 1; i < values; i++)
            sum = v_add(sum, grid_value(bits, t + i * each, code, i));
        less = v_lt(sum, best);
        best = v_sel(less, sum, best);
        best_at = v_seli(less, at, best_at);
        at = v_iadd(at, v_seti(LANES));
    }
#ifdef V_LEAST_LANE
    if (n <= LANES) /* lanes are places */
        return list[V_LEAST_LANE(best)];
#endif
    return list[v_first_least(best, best_at)];
}

V_CALL uint32_t nearest_of_8(const struct sl_grid *g, int32_t entry, const float *x, const float *w, float scale,
                             const float *levels)
{
    return nearest_point(g, 2, entry, x, w, scale, levels);
}

V_CALL uint32_t nearest_of_4(const struct sl_grid *g, int32_t entry, const float *x, const float *w, float scale,
                             const float *levels)
{
    return nearest_point(g, 3, entry, x, w, scale, levels);
}

/* Each lane's code, or the nearest point where it is none. at: the group's first
 * value in the rows; pick: which of the two sets of levels. *off: not 0 in the
 * lanes whose code was no point. */
V_FN vi to_points(const struct sl_grid *g, int bits, const struct grid_rows *r, int at, vi code, vf scale,
                  const float *levels, vi pick, vi *off)
{
    int32_t c[LANES], entry[LANES], away[LANES], set[LANES], todo[LANES];
    float s[LANES];
    int n = 0;

    v_storei(c, code);
    v_storei(set, pick);
    v_store(s, scale);
    for (int k = 0; k < LANES; k++) {
        entry[k] = g->map[c[k]];
        away[k] = entry[k] >> 31;
        todo[n] = k;
        n += entry[k] < 0;
    }
    *off = v_loadi(away);
    for (int i = 0; i < n; i++) {
        int k = todo[i];
        const float *lv = levels + 16 * set[k];

        c[k] = bits == 2 ? (int32_t)nearest_of_8(g, entry[k], r->x[k] + at, r->w[k] + at, s[k], lv)
                         : (int32_t)nearest_of_4(g, entry[k], r->x[k] + at, r->w[k] + at, s[k], lv);
    }
    return v_loadi(c);
}
#endif

#endif
