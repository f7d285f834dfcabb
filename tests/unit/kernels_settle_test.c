/* The searches for grid points on a GPU: what whole numbers settle is what the sums in
 * floats, in order, give; where two sums are as near as floats come, values or weights equal, and numbers far
 * from each other or very large or small; and where every rounding of p and q goes against the point that
 * the floats choose. And what both ends of a run of trials settle is so in all of it. */
#include "grid_emulator.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct settle {
    float x[8], w[8], inv, scale, shift; /* shift: not 0 with iq1's levels */
    const struct sl_grid *grid;
    int values;
    uint16_t code;
    uint64_t seed;
    int settled, unsure;
};

static uint32_t below(struct settle *s, uint32_t n)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return (uint32_t)(s->seed >> 32) % n;
}

/* Evenly from low to high. */
static float from(struct settle *s, float low, float high) { return low + (high - low) * (float)below(s, 1 << 24) * 0x1p-24f; }

enum { USUAL, EQUAL, FEW, UNLIKE, FAR, ZEROS, ANY_SIZE, EDGE, NO_NUMBERS, KINDS };

static void fill(struct settle *s, int kind)
{
    float size = kind == ANY_SIZE ? ldexpf(1.f, (int)below(s, 120) - 60) : 1.f, by = kind == ANY_SIZE ? ldexpf(1.f, (int)below(s, 120) - 60) : 1.f;
    bool beyond = kind == EDGE && below(s, 2); /* as far as a code's values may be: where all is large too, sums are beyond F32 */

    if (kind == EDGE) { /* of what the owner or the search takes */
        static const int edges[] = {-40, 0, 38, 40};

        size = ldexpf(from(s, 0.9f, 1.1f), edges[below(s, 4)]);
        by = ldexpf(from(s, 0.9f, 1.1f), (int)below(s, 3) * 40 - 40);
    }
    s->scale = from(s, 0.5f, 2.f) * size;
    s->inv = 1.f / s->scale;
    if (below(s, 2)) /* either is made of the other */
        s->scale = 1.f / s->inv;
    for (int i = 0; i < s->values; i++) {
        s->x[i] = s->scale * from(s, 0, s->values == 4 ? 18 : 7);
        s->w[i] = from(s, 0.01f, 1) * by;
        if (beyond) {
            s->x[i] = s->scale * from(s, s->values == 4 ? 22.5f : 12.5f, s->values == 4 ? 22.98f : 12.98f);
            s->w[i] = from(s, 0.9f, 1) * by;
        } else if (kind == FEW) {
            s->x[i] = s->scale * (float)below(s, s->values == 4 ? 33 : 13) * 0.5f;
            s->w[i] = (float)(1 + below(s, 2));
        } else if (kind == UNLIKE) {
            s->w[i] = ldexpf(s->w[i], -(int)below(s, 30));
        } else if (kind == FAR) {
            s->x[i] = s->scale * from(s, below(s, 2) ? -30 : -9, below(s, 2) ? 60 : 24);
        } else if (kind == ZEROS) {
            s->x[i] = below(s, 2) ? s->x[i] : 0;
            s->w[i] = below(s, 3) ? s->w[i] : below(s, 2) ? 0.f : -0.f;
        } else if (kind == NO_NUMBERS && below(s, 3) == 0) {
            s->w[i] = below(s, 3) ? sl_float(below(s, 2) ? 0x7fffffff : 0xffc00000) : sl_float(below(s, 8));
        }
        if (kind == EQUAL && i && below(s, 3)) {
            uint32_t other = below(s, (uint32_t)i);

            s->x[i] = s->x[other];
            s->w[i] = below(s, 2) ? s->w[other] : s->w[other] * (1 + (float)below(s, 3) * 0x1p-23f);
        }
    }
}

/* As the owner of the group does it. */
static bool set_code(struct settle *s)
{
    s->code = (uint16_t)grid_code(s->grid->bits, s->values == 4 ? 7 : 2, s->x, s->inv);
    if (s->shift != 0) { /* from a split, which may have other levels than the nearest */
        uint32_t levels = below(s, 6561);

        for (int i = s->code = 0; i < 8; i++, levels /= 3)
            s->code = (uint16_t)(s->code | (below(s, 3) ? levels % 3 : s->x[i] > 0 ? 2 : 0) << 2 * i);
    }
    return s->grid->map[s->code] < 0;
}

static float level_of(const struct settle *s, uint32_t point, int i)
{
    float odd = v_odd(s->grid->bits, (vi)point, i);

    return s->shift != 0 ? 0.5f * (odd + s->shift) : odd;
}

static float float_sum(const struct settle *s, uint16_t point)
{
    float sum = 0;

    for (int i = 0; i < s->values; i++) {
        float d = s->scale * level_of(s, point, i) - s->x[i], term = s->w[i] * d * d;

        sum = i ? sum + term : term;
    }
    return sum;
}

/* The point of the least sum in floats. */
static uint16_t least_by_floats(const struct settle *s)
{
    int32_t entry = s->grid->map[s->code];
    const uint16_t *list = sl_grid_list(s->grid, entry);
    float best = FLT_MAX;
    int want = 0;

    for (int j = 0; j < sl_grid_list_length(entry); j++)
        if (float_sum(s, list[j]) < best)
            best = float_sum(s, list[want = j]);
    return list[want];
}

/* reach: how far |e| may go, iq3's 0 as the values ask for. */
static int settle(const struct settle *s, int ends, int reach, const float *inv, uint16_t *code)
{
    const struct sl_grid *g = s->grid;
    int32_t entry = g->map[s->code];
    int length = sl_grid_list_length(entry), settled;
    float part, wu[4], level[4], e[4];

    code[0] = s->code;
    if (g->bits == 2)
        return queue_settle(ends, reach, s->shift != 0, g, (uint32_t)(entry & 0xfffff) * SL_GRID_UNIT, length, s->x, s->w, s->scale, inv,
                            s->shift, code);
    for (int i = 0; i < 4; i++)
        level[i] = v_odd(3, s->code, i);
    if (inv[0] != inv[0] || !(reach ? queue_units(3, (float)reach, s->w, wu) && queue_errors(3, level, s->x, inv[0], e) < (float)reach - 0x1p-6f
                                    : runs_units(true, s->x, s->w, inv[ends - 1], wu)))
        return 0;
    settled = runs_settle(g, entry, level, s->x, wu, inv[0], inv[ends - 1], code, &part);
    assert_true(settled != 3 || code[0] == code[1] || (part > 0 && part < 1));
    return ends == 2 ? settled : settled & 1;
}

static bool same_point(struct settle *s, int reach)
{
    struct device_queue q = {.inv = (float[1]){0}};
    uint16_t code[2];

    queue_invert(&q, 0, 0, queue_usual(s->scale, s->scale), s->shift != 0 ? 2.f / s->scale : s->inv);
    if (!settle(s, 1, reach, q.inv, code)) {
        s->unsure++;
        return code[0] == s->code;
    }
    s->settled++;
    return code[0] == least_by_floats(s);
}

static double cost(const struct settle *s, uint32_t point)
{
    double sum = 0;

    for (int i = 0; i < s->values; i++) {
        double d = (double)s->scale * (double)level_of(s, point, i) - (double)s->x[i];

        sum += (double)s->w[i] * d * d;
    }
    return sum;
}

/* Moves one number until two points' sums are next to each other. */
static void make_a_tie(struct settle *s, uint32_t one, uint32_t other)
{
    float *number = below(s, 2) ? &s->w[below(s, (uint32_t)s->values)] : &s->x[below(s, (uint32_t)s->values)], near = *number, to = near * (below(s, 2) ? 0.8f : 1.3f);
    bool before = cost(s, one) < cost(s, other);

    for (int step = 0; step < 40 && near + (to - near) * 0.5f != near && near + (to - near) * 0.5f != to; step++) {
        *number = near + (to - near) * 0.5f;
        if ((cost(s, one) < cost(s, other)) == before)
            near = *number;
        else
            to = *number;
    }
    *number = below(s, 2) ? near : nextafterf(to, to + (float)below(s, 3) - 1);
}

static void what_is_settled_is_the_least(void **state)
{
    struct settle s = {.seed = 0x9e3779b97f4a7c15};

    (void)state;
    for (int t = 0; t < 16000 * KINDS; t++) {
        static const enum sl_grid_id ids[] = {SL_GRID_IQ2_XXS, SL_GRID_IQ3_XXS, SL_GRID_IQ2_XS, SL_GRID_IQ3_S, SL_GRID_IQ2_S, SL_GRID_IQ1};

        s.grid = sl_grid_for_writing(ids[t % 7 % 6]);
        s.values = s.grid->bits == 2 ? 8 : 4;
        s.shift = t % 7 % 6 < 5 ? 0 : queue_shift(SL_TYPE_IQ1_S, (int)below(&s, 2) << 10);
        fill(&s, t % KINDS);
        for (int i = 0; i < 8 && s.shift != 0; i++)
            s.x[i] = below(&s, 2) ? s.x[i] * 0.5f : s.x[i] * -0.5f;
        for (int turn = 0; turn < 3 && set_code(&s); turn++) {
            int32_t entry = s.grid->map[s.code];
            const uint16_t *list = sl_grid_list(s.grid, entry);

            if (!same_point(&s, s.values == 4 ? 0 : below(&s, 2) ? 4 : 8))
                fail_msg("kind %d, group %d, turn %d: another point than by sums in order", t % KINDS, t, turn);
            make_a_tie(&s, list[below(&s, (uint32_t)sl_grid_list_length(entry))], list[below(&s, (uint32_t)sl_grid_list_length(entry))]);
        }
    }
    assert_true(s.settled > 50000 && s.unsure > 50000); /* both ways are taken */
}

/* A run of trials of one code, iq2's of four: what is settled at both ends, where the same point is, is what floats give in all of it. The
 * sub-block's range is such that `middle` has the scale. Returns the trial that has another point, or -1. */
static int another_between(struct settle *s, int type, int first, int middle, int last)
{
    const struct grid_kind kind = grid_kind_of(type);
    float range = s->scale * grid_spacing(&kind, middle - kind.steps, 1.f), scale[2];
    struct device_queue q = {.inv = (float[2]){0}};
    uint16_t code[2];
    int settled;

    for (int i = 0; i < 2; i++) {
        s->inv = grid_spacing(&kind, (i ? last : first) - kind.steps, range);
        scale[i] = 1.f / s->inv;
        if (!set_code(s) || (i && s->code != code[0]))
            return -1;
        code[0] = s->code;
    }
    queue_invert(&q, 0, 0, queue_usual(scale[1], scale[0]), 1.f / scale[0]);
    queue_invert(&q, 0, 1, queue_usual(scale[1], scale[0]), 1.f / scale[1]);
    settled = settle(s, 2, kind.bits == 3 ? 0 : queue_reach(type), q.inv, code);
    s->settled += settled == 3 && code[0] == code[1];
    s->unsure += settled != 3;
    for (int t = first; t <= last; t++) {
        s->scale = 1.f / grid_spacing(&kind, t - kind.steps, range);
        if (t == first ? settled & 1 : t == last ? settled & 2 : settled == 3 && code[0] == code[1])
            if (least_by_floats(s) != code[t == last])
                return t;
    }
    return -1;
}

/* Two points whose sums are next to each other at an end of a run, or inside it. */
static void what_both_ends_settle_holds_between(void **state)
{
    static const int types[] = {SL_TYPE_IQ3_XXS, SL_TYPE_IQ3_S, SL_TYPE_IQ2_XXS, SL_TYPE_IQ2_XS, SL_TYPE_IQ2_S};
    struct settle s = {.seed = 0x9e3779b97f4a7c15};

    (void)state;
    for (int t = 0; t < 16000 * KINDS; t++) {
        int type = types[t % 7 % 5], first, middle, last;
        const struct grid_kind kind = grid_kind_of(type);

        s.grid = sl_grid_for_writing(kind.grid);
        s.values = s.grid->bits == 2 ? 8 : 4;
        fill(&s, t % KINDS);
        for (int turn = 0; turn < 3 && set_code(&s); turn++) {
            const uint16_t *list = sl_grid_list(s.grid, s.grid->map[s.code]);
            uint32_t n = (uint32_t)sl_grid_list_length(s.grid->map[s.code]);
            float scale = s.scale;
            int wrong;

            first = (int)below(&s, (uint32_t)(2 * kind.steps - 2));
            last = kind.bits == 2 ? first + 3 : first + 1 + (int)below(&s, (uint32_t)(2 * kind.steps - first));
            middle = first + (int)below(&s, (uint32_t)(last - first + 1));
            wrong = another_between(&s, type, first, middle, last);
            if (wrong >= 0)
                fail_msg("kind %d, group %d, turn %d: another point than by sums in order in trial %d of %d to %d", t % KINDS, t, turn, wrong, first, last);
            s.scale = scale;
            s.inv = 1.f / scale;
            if (!set_code(&s))
                break;
            make_a_tie(&s, list[below(&s, n)], list[below(&s, n)]);
        }
    }
    assert_true(s.settled > 20000 && s.unsure > 20000);
}

/* How many levels a point is from the code. */
static int levels_by(const struct settle *s, uint32_t point, int i)
{
    int bits = s->grid->bits, mask = (1 << bits) - 1;

    return (int)(point >> bits * i & (uint32_t)mask) - (s->code >> bits * i & mask);
}

/* Sets value i to have that product of its weight, in the search's units, and e. */
static void set_product(struct settle *s, int i, double product)
{
    double level = (double)v_odd(s->grid->bits, s->code, i) + (double)s->shift, e = product / (double)s->w[i];

    s->x[i] = (float)((level - e) * (double)s->scale * (s->shift != 0 ? 0.5 : 1));
}

/* Light values, anywhere or so that a far point is near, and heavy ones from which no point moves away: with them the
 * sums are large. */
static void fill_for_roundings(struct settle *s, int reach)
{
    int32_t entry = s->grid->map[s->code];
    uint32_t far = sl_grid_list(s->grid, entry)[below(s, (uint32_t)sl_grid_list_length(entry))], light = 1 + 6 * below(s, 2);
    bool any = below(s, 2);

    s->scale = from(s, 0.5f, 2.f);
    s->inv = 1.f / s->scale;
    for (int i = 0; i < s->values; i++) {
        float level = v_odd(s->grid->bits, s->code, i), out = (float)reach - from(s, 0.1f, 1);
        float e = any ? from(s, -1, 1) * (float)(reach - 1) : from(s, -2, 0) * (float)levels_by(s, far, i);

        s->w[i] = floorf(from(s, 40, 400));
        if (i == 0 || below(s, light + 1) == 0) {
            s->w[i] = floorf(16384.f / (float)reach * from(s, 1, 1.96f));
            e = level < 2 ? out : level > (s->values == 4 ? 14 : 4) ? -out : from(s, -1, 1);
        }
        set_product(s, i, (double)(s->w[i] * e));
    }
}

/* Between the two points of least sums: each rounding of p and q that lowers one's bound or raises the other's, and
 * equal sums as far as floats come. */
static bool round_against_one(struct settle *s)
{
    int32_t entry = s->grid->map[s->code];
    const uint16_t *list = sl_grid_list(s->grid, entry);
    uint32_t one = list[0], other = list[0];
    double least = INFINITY, second = INFINITY;
    int last = -1;

    for (int j = 0; j < sl_grid_list_length(entry); j++) {
        double c = cost(s, list[j]);

        if (c < second) {
            second = c < least ? least : c;
            other = c < least ? one : list[j];
            one = c < least ? list[j] : one;
            least = c < least ? c : least;
        }
    }
    for (int i = 0; i < s->values; i++) {
        int a = levels_by(s, one, i), b = levels_by(s, other, i);
        double e = ((double)v_odd(s->grid->bits, s->code, i) + (double)s->shift) - (double)s->x[i] / (double)s->scale * (s->shift != 0 ? 2 : 1);

        if (a == b)
            continue;
        s->w[i] += b * b > a * a ? 0.5f + 0x1p-11f : 0.5f - 0x1p-11f;
        set_product(s, i, floor((double)s->w[i] * e) + (b > a ? 0.5 + 0x1p-10 : 0.5 - 0x1p-10));
        last = i;
    }
    for (int turn = 0; turn < 3 && last >= 0; turn++) /* the difference is linear in x */
        s->x[last] += (float)((cost(s, other) - cost(s, one)) /
                              (2 * (double)s->w[last] * (double)s->scale * ((double)level_of(s, other, last) - (double)level_of(s, one, last))));
    return last >= 0;
}

static void roundings_do_not_matter(void **state)
{
    struct settle s = {.seed = 0x2545f4914f6cdd1d};

    (void)state;
    for (int t = 0; t < 320000; t++) {
        static const enum sl_grid_id ids[] = {SL_GRID_IQ2_S, SL_GRID_IQ2_XS, SL_GRID_IQ2_XXS, SL_GRID_IQ1}; /* a tenth of the speed */
        enum sl_grid_id id = t % 16 ? t & 1 ? SL_GRID_IQ3_S : SL_GRID_IQ3_XXS : ids[t / 16 % 4];
        int reach = t % 16 == 2 || t % 16 == 3 ? t % 16 - 1 : id == SL_GRID_IQ2_S || id == SL_GRID_IQ3_S ? 4 : 8;

        s.grid = sl_grid_for_writing(id);
        s.values = s.grid->bits == 2 ? 8 : 4;
        s.shift = id == SL_GRID_IQ1 ? queue_shift(SL_TYPE_IQ1_S, (int)below(&s, 2) << 10) : 0;
        do
            for (int i = s.code = 0; i < s.values; i++)
                s.code = (uint16_t)(s.code | below(&s, s.values == 8 ? 3 : 8) << s.grid->bits * i);
        while (s.grid->map[s.code] >= 0);
        fill_for_roundings(&s, reach);
        if (!round_against_one(&s))
            continue;
        for (int turn = 0; turn < 12; turn++) {
            float *x = &s.x[below(&s, (uint32_t)s.values)];

            if (!same_point(&s, reach))
                fail_msg("group %d, turn %d: another point than by sums in order", t, turn);
            *x = nextafterf(*x, below(&s, 2) ? -FLT_MAX : FLT_MAX);
        }
    }
    assert_true(s.settled > 100000 && s.unsure > 3000000);
}

/* Each place of each list: the table's differences and squares, which are no larger than the bounds' roundings take
 * them for; and a point so near that what fills up a list is above it, wherever within reach the values are. */
static void moves_are_small(void **state)
{
    struct settle s = {0};

    (void)state;
    for (int id = 0; id < SL_GRID_COUNT; id++) {
        s.grid = sl_grid_for_writing((enum sl_grid_id)id);
        s.values = s.grid->bits == 2 ? 8 : 4;
        for (uint32_t c = 0; c < (s.grid->bits == 2 ? 65536u : 4096u); c++) {
            int32_t entry = s.grid->map[c];
            int n = entry < 0 ? (sl_grid_list_length(entry) + SL_GRID_UNIT - 1) / SL_GRID_UNIT * SL_GRID_UNIT : 0, nearest = 9;

            s.code = (uint16_t)c;
            for (int j = 0; j < n; j++) {
                uint32_t place = (uint32_t)(entry & 0xfffff) * SL_GRID_UNIT + (uint32_t)j, by[2], square[2];
                int all = 0, most = 0, filled = j >= sl_grid_list_length(entry);

                queue_move(s.grid->bits, s.grid->moves + place * (uint32_t)(s.grid->bits - 1), by, square);
                for (int i = 0; i < s.values; i++) {
                    int m = levels_by(&s, s.grid->lists[place], i), to = (int8_t)(by[i / 4] >> 8 * (i & 3));
                    int of = (int)(square[i / 4] >> 8 * (i & 3) & 255);

                    if (to != (filled ? 0 : 4 * m) || of != (filled ? 255 : 4 * m * m))
                        fail_msg("grid %d, code %x, place %d, value %d: moves by %d, square %d", id, c, j, i, to, of);
                    all += abs(m);
                    most = abs(m) > most ? abs(m) : most;
                }
                assert_true(filled || (all <= 10 && most <= 5));
                nearest = most < nearest && !filled ? most : nearest;
            }
            assert_true(n == 0 || 4 * nearest * nearest + 4 * nearest * 8 < 255);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(moves_are_small), cmocka_unit_test(what_is_settled_is_the_least), cmocka_unit_test(what_both_ends_settle_holds_between),
                                       cmocka_unit_test(roundings_do_not_matter)};

    return cmocka_run_group_tests_name("settle", tests, NULL, NULL);
}
