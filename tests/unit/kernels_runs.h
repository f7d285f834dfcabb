/* A group's points for all scales that are tried: those that sums in floats, in order, give for each scale; where two
 * points' sums are as near as floats come, values or weights equal, zero, very large, very small, or no numbers, values far
 * from the scales or below zero, scales below zero. For the lanes whose header was included before. */
#include "kernels/kernels.h"
#include "kernels/text_iquant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint32_t below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % n;
}

/* Evenly from low to high. */
static float from(float low, float high) { return low + (high - low) * (float)below(1 << 24) * 0x1p-24f; }

struct group {
    struct grid_kind kind;
    const struct sl_grid *grid;
    struct grid_rows rows;
    float range[LANES];
    int values;
};

enum { USUAL, EQUAL, FEW, UNLIKE, FAR, OPPOSITE, ZEROS, TINY, ANY_SIZE, NO_NUMBERS, KINDS };

/* The value that is as far below zero as the highest level of the largest scale is above it. */
static float opposite(const struct grid_kind *t, float range)
{
    float highest = (float)(2 * grid_top(t) + 1);

    return -range * highest / (highest - (float)t->steps * t->step);
}

static void fill(struct group *g, int lane, int kind)
{
    float *x = g->rows.x[lane], *w = g->rows.w[lane];
    float size = kind == ANY_SIZE ? ldexpf(1.f, (int)below(240) - 120) : kind == TINY ? ldexpf(1.f, (int)below(8) - 79) : 1;
    float by = kind == ANY_SIZE ? ldexpf(1.f, (int)below(240) - 120) : kind == TINY ? 0x1p63f : 1;

    for (int i = 0; i < g->values; i++) {
        x[i] = kind == FEW ? (float)(1 + below(15)) / 15 : from(0, 1) * size;
        w[i] = kind == FEW ? (float)(1 + below(2)) : from(0.01f, 1) * by;
        if (kind == EQUAL && i && below(3)) {
            uint32_t other = below((uint32_t)i);

            x[i] = x[other];
            w[i] = below(2) ? w[other] : w[other] * (1 + (float)below(3) * 0x1p-23f);
        } else if (kind == UNLIKE || kind == TINY) {
            w[i] = ldexpf(w[i], -(int)below(kind == TINY ? 60 : 140));
        } else if (kind == FAR) {
            x[i] *= below(2) ? -2 : 3;
        } else if (kind == ZEROS) {
            x[i] = below(2) ? x[i] : 0;
            w[i] = below(3) ? w[i] : 0;
        } else if (kind == NO_NUMBERS && below(3) == 0) {
            *(below(2) ? &x[i] : &w[i]) = sl_float(below(2) ? 0x7fffffff : below(2) ? 0x7f800000 : below(8));
        }
    }
    g->range[lane] = size * from(0.9f, 1.1f);
    if (kind == NO_NUMBERS && below(4) == 0)
        g->range[lane] = 0;
    if (kind == FAR)
        g->range[lane] *= ldexpf(below(4) ? 1.f : -1.f, -(int)below(24));
    if (kind == OPPOSITE) {
        x[0] = opposite(&g->kind, g->range[lane]);
        w[0] = ldexpf(w[0], (int)below(30));
    }
}

static double cost(const struct group *g, int lane, uint32_t point, double scale)
{
    double sum = 0;

    for (int i = 0; i < g->values; i++) {
        double d = scale * (double)(2 * (point >> g->kind.bits * i & (g->kind.bits == 2 ? 3u : 7u)) + 1) - (double)g->rows.x[lane][i];

        sum += (double)g->rows.w[lane][i] * d * d;
    }
    return sum;
}

/* Moves one number until the sums of the two lowest neighbours are next to each other at that scale. */
static void make_a_tie(struct group *g, int lane, int32_t entry, double scale)
{
    const uint16_t *list = sl_grid_list(g->grid, entry);
    uint32_t at = below((uint32_t)g->values), one = list[0], other = list[0];
    float *number = below(2) ? &g->rows.w[lane][at] : &g->rows.x[lane][at], near = *number, to = near * (below(2) ? 0.8f : 1.3f);
    double least = INFINITY, second = INFINITY;
    bool before;

    for (int j = 0; j < sl_grid_list_length(entry); j++) {
        double c = cost(g, lane, list[j], scale);

        if (c < second) {
            second = c < least ? least : c;
            other = c < least ? one : list[j];
            one = c < least ? list[j] : one;
            least = c < least ? c : least;
        }
    }
    before = cost(g, lane, one, scale) < cost(g, lane, other, scale);
    for (int step = 0; step < 40 && near + (to - near) * 0.5f != near && near + (to - near) * 0.5f != to; step++) {
        *number = near + (to - near) * 0.5f;
        if ((cost(g, lane, one, scale) < cost(g, lane, other, scale)) == before)
            near = *number;
        else
            to = *number;
    }
    *number = below(2) ? near : nextafterf(to, to + (float)below(3) - 1);
}

/* The first of the list with the least sum; *close: counts where another's is next to it. */
static uint32_t by_sums(const struct group *g, int lane, int32_t entry, float scale, long *close)
{
    const uint16_t *list = sl_grid_list(g->grid, entry);
    float best = FLT_MAX, second = FLT_MAX;
    int want = 0;

    for (int j = 0; j < sl_grid_list_length(entry); j++) {
        float sum = 0;

        for (int i = 0; i < g->values; i++) {
            float level = (float)(2 * (list[j] >> g->kind.bits * i & (g->kind.bits == 2 ? 3 : 7)) + 1);
            float d = scale * level - g->rows.x[lane][i], term = g->rows.w[lane][i] * d * d;

            sum = i ? sum + term : term;
        }
        second = sum < best ? best : sum < second ? sum : second;
        want = sum < best ? j : want;
        best = sum < best ? sum : best;
    }
    *close += second - best <= 0x1p-20f * best;
    return list[want];
}

static void columns(const struct group *g, float (*rows)[32], vf *v)
{
    for (int i = 0; i < g->values; i++) {
        float column[LANES];

        for (int lane = 0; lane < LANES; lane++)
            column[lane] = rows[lane][i];
        v[i] = v_load(column);
    }
}

/* All points of LANES groups for all scales. */
static void check(struct group *g, int kind, int turn, long *close)
{
    vf x[8], w[8];
    vi points[GRID_TRIALS], off;
    struct grid_scales scales;
    int32_t tie = (int32_t)below((uint32_t)(2 * g->kind.steps + 1));

    scales.n = 2 * g->kind.steps + 1;
    for (int i = 0; i < scales.n; i++)
        scales.over[i] = grid_spacing(&g->kind, i - g->kind.steps, v_load(g->range));
    scales_end(&scales);
    for (int round = 0; round < 3; round++) {
        int32_t code[GRID_TRIALS][LANES], point[GRID_TRIALS][LANES], is_off[LANES];
        float scale[GRID_TRIALS][LANES];

        columns(g, g->rows.x, x);
        columns(g, g->rows.w, w);
        group_points(g->grid, g->kind.bits, grid_top(&g->kind), x, w, &g->rows, 0, &scales, grid_odd[g->kind.bits - 2], points, &off);
        for (int i = 0; i < scales.n; i++) {
            v_storei(code[i], grid_code(g->kind.bits, grid_top(&g->kind), x, scales.over[i]));
            v_storei(point[i], points[i]);
            v_store(scale[i], scales.scale[i]);
        }
        v_storei(is_off, off);
        for (int lane = 0; lane < LANES; lane++)
            for (int i = 0; i < scales.n; i++) {
                int32_t entry = g->grid->map[code[i][lane]];
                uint32_t want = entry < 0 ? by_sums(g, lane, entry, scale[i][lane], close) : (uint32_t)code[i][lane];

                if ((uint32_t)point[i][lane] != want)
                    fail_msg("kind %d, turn %d, round %d, lane %d, scale %d: point %x, by sums %x", kind, turn, round, lane, i,
                             (unsigned)point[i][lane], (unsigned)want);
                if ((is_off[lane] & 1 << i) != (entry < 0 ? 1 << i : 0))
                    fail_msg("kind %d, turn %d, round %d, lane %d, scale %d: a point or none?", kind, turn, round, lane, i);
            }
        for (int lane = 0; lane < LANES; lane++)
            if (g->grid->map[code[tie][lane]] < 0)
                make_a_tie(g, lane, g->grid->map[code[tie][lane]], (double)scale[tie][lane]);
    }
}

static void points_are_those_of_sums(void **state)
{
    static const int types[] = {SL_TYPE_IQ3_XXS, SL_TYPE_IQ3_S, SL_TYPE_IQ2_XXS, SL_TYPE_IQ2_XS, SL_TYPE_IQ2_S};
    long close[KINDS] = {0};

    (void)state;
    if (!sl_backend_usable(OF))
        skip();
    for (int turn = 0; turn < 4000 / LANES * KINDS; turn++) {
        struct group g;

        g.kind = grid_kind_of(types[turn / KINDS % 5]);
        g.grid = sl_grid_for_writing(g.kind.grid);
        g.values = g.kind.bits == 2 ? 8 : 4;
        for (int lane = 0; lane < LANES; lane++)
            fill(&g, lane, turn % KINDS);
        check(&g, turn % KINDS, turn, &close[turn % KINDS]);
    }
    for (int kind = 0; kind < NO_NUMBERS; kind++)
        if (close[kind] < 200)
            fail_msg("kind %d: %ld ties", kind, close[kind]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(points_are_those_of_sums)};

    return cmocka_run_group_tests_name("runs", tests, NULL, NULL);
}
