/* The searches among points of eight levels on a GPU: what whole numbers settle is what the sums in
 * floats, in order, give; where two sums are as near as floats come, values or weights equal, and numbers far
 * from each other or very large or small. */
#include "grid_emulator.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

struct settle {
    float x[4], w[4], inv, scale;
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

    if (kind == EDGE) { /* of what the owner or the search takes */
        size = ldexpf(from(s, 0.9f, 1.1f), (int)below(s, 3) * 40 - 40);
        by = ldexpf(from(s, 0.9f, 1.1f), (int)below(s, 3) * 40 - 40);
    }
    s->scale = from(s, 0.5f, 2.f) * size;
    s->inv = 1.f / s->scale;
    if (below(s, 2)) /* either is made of the other */
        s->scale = 1.f / s->inv;
    for (int i = 0; i < 4; i++) {
        s->x[i] = s->scale * from(s, 0, 18);
        s->w[i] = from(s, 0.01f, 1) * by;
        if (kind == FEW) {
            s->x[i] = s->scale * (float)below(s, 33) * 0.5f;
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
static bool set_code(struct settle *s, const struct sl_grid *g)
{
    s->code = (uint16_t)grid_code(3, 7, s->x, s->inv);
    return g->map[s->code] < 0;
}

static bool same_point(struct settle *s, const struct sl_grid *g, int reach)
{
    int32_t entry = g->map[s->code];
    const uint16_t *list = sl_grid_list(g, entry);
    const struct sl_grid_moves *moves = g->moves + (entry & 0xfffff) * SL_GRID_UNIT;
    int n = sl_grid_list_length(entry);
    bool usual = s->scale > 0x1p-40f && s->scale < 0x1p40f;
    uint16_t code = s->code, want = list[queue_walk_4((const struct device_words *)(const void *)list, n, s->x, s->w, s->scale)];

    if (!queue_settle_4(reach, (const struct device_words *)(const void *)moves, n, s->x, s->w, usual ? s->inv : NAN, &code)) {
        s->unsure++;
        return code == s->code;
    }
    s->settled++;
    return code == want;
}

static double cost(const struct settle *s, uint32_t point)
{
    double sum = 0;

    for (int i = 0; i < 4; i++) {
        double d = (double)s->scale * (2 * (double)(point >> 3 * i & 7) + 1) - (double)s->x[i];

        sum += (double)s->w[i] * d * d;
    }
    return sum;
}

/* Moves one number until two points' sums are next to each other. */
static void make_a_tie(struct settle *s, uint32_t one, uint32_t other)
{
    float *number = below(s, 2) ? &s->w[below(s, 4)] : &s->x[below(s, 4)], near = *number, to = near * (below(s, 2) ? 0.8f : 1.3f);
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
    for (int t = 0; t < 12000 * KINDS; t++) {
        const struct sl_grid *g = sl_grid_for_writing(t & 1 ? SL_GRID_IQ3_S : SL_GRID_IQ3_XXS);

        fill(&s, t % KINDS);
        for (int turn = 0; turn < 3 && set_code(&s, g); turn++) {
            int32_t entry = g->map[s.code];
            const uint16_t *list = sl_grid_list(g, entry);

            if (!same_point(&s, g, t & 2 ? 4 : 8))
                fail_msg("kind %d, group %d, turn %d: another point than by sums in order", t % KINDS, t, turn);
            make_a_tie(&s, list[below(&s, (uint32_t)sl_grid_list_length(entry))], list[below(&s, (uint32_t)sl_grid_list_length(entry))]);
        }
    }
    assert_true(s.settled > 50000 && s.unsure > 50000); /* both ways are taken */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_settled_is_the_least)};

    return cmocka_run_group_tests_name("settle", tests, NULL, NULL);
}
