/* The grids behind iq1, iq2 and iq3: lists against a search of all points, and
 * many threads that ask for a grid at once. */
#include "kernels/grids.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct { int bits, points, distances; } facts[SL_GRID_COUNT] = {
    [SL_GRID_IQ1] = {2, 2048, 3},   [SL_GRID_IQ2_XXS] = {2, 256, 2}, [SL_GRID_IQ2_XS] = {2, 512, 2},
    [SL_GRID_IQ2_S] = {2, 1024, 1}, [SL_GRID_IQ3_XXS] = {3, 256, 2}, [SL_GRID_IQ3_S] = {3, 512, 3},
};

static void *ask(void *arg)
{
    const struct sl_grid **g = arg;

    for (int i = 0; i < SL_GRID_COUNT; i++)
        g[i] = sl_grid_for_writing((enum sl_grid_id)i);
    return NULL;
}

/* First of all tests: nobody has asked yet. */
static void asked_by_many(void **state)
{
    const struct sl_grid *seen[4][SL_GRID_COUNT];
    pthread_t t[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, ask, seen[i]), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    for (int i = 1; i < 4; i++)
        for (int k = 0; k < SL_GRID_COUNT; k++) {
            assert_ptr_equal(seen[i][k], seen[0][k]);
            assert_ptr_equal(seen[i][k], sl_grid_for_reading((enum sl_grid_id)k));
        }
}

static void rooms_are_exact(void **state)
{
    (void)state;
    for (int i = 0; i < SL_GRID_COUNT; i++) {
        int used, room;

        sl_grid_room((enum sl_grid_id)i, &used, &room);
        assert_int_equal(used, room);
    }
}

static void points_are_the_map(void **state)
{
    (void)state;
    for (int i = 0; i < SL_GRID_COUNT; i++) {
        const struct sl_grid *g = sl_grid_for_writing((enum sl_grid_id)i);

        assert_int_equal(g->bits, facts[i].bits);
        assert_int_equal(g->points, facts[i].points);
        assert_int_equal(g->code[0], 0);
        for (int k = 0; k < g->points; k++) {
            assert_int_equal(g->map[g->code[k]], k);
            assert_true(k == 0 || g->code[k] > g->code[k - 1]);
        }
    }
}

static int squared_distance(int bits, uint32_t a, uint32_t b)
{
    int sum = 0;

    for (int i = 0; i < (bits == 2 ? 8 : 4); i++, a >>= bits, b >>= bits) {
        int d = (int)(a & ((1u << bits) - 1)) - (int)(b & ((1u << bits) - 1));

        sum += d * d;
    }
    return sum;
}

/* The whole list of a code, distance by distance, index by index. */
static void check_list(const struct sl_grid *g, int distances, uint32_t code)
{
    const uint16_t *list = sl_grid_list(g, g->map[code]);
    int n = sl_grid_list_length(g->map[code]), at = 0;

    for (int d = 0, have = 0; have < distances && d < 200; d++) {
        int before = at;

        for (int k = 0; k < g->points; k++)
            if (squared_distance(g->bits, code, g->code[k]) == d) {
                assert_true(at < n);
                assert_int_equal(list[at++], g->code[k]);
            }
        have += at > before;
    }
    assert_int_equal(at, n);
    for (; at % SL_GRID_UNIT; at++)
        assert_int_equal(list[at], list[0]);
}

static void lists_are_the_nearest(void **state)
{
    (void)state;
    for (int i = 0; i < SL_GRID_COUNT; i++) {
        const struct sl_grid *g = sl_grid_for_writing((enum sl_grid_id)i);
        uint32_t codes = g->bits == 2 ? 65536 : 4096;
        int checked = 0;

        for (uint32_t c = (uint32_t)i; c < codes; c++)
            if (g->map[c] < 0 && ++checked % 97 == 1)
                check_list(g, facts[i].distances, c);
        assert_true(checked > 3000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(asked_by_many), cmocka_unit_test(rooms_are_exact),
                                       cmocka_unit_test(points_are_the_map), cmocka_unit_test(lists_are_the_nearest)};

    return cmocka_run_group_tests_name("grids", tests, NULL, NULL);
}
