/* The solver against every assignment there is, on small instances; its bounds and
 * promises on large ones. */
#include "proto/size_solver.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define MOST_GROUPS 800
#define MOST_CHOICES 14

struct instance {
    struct sl_choice c[MOST_GROUPS][MOST_CHOICES];
    struct sl_choice_group g[MOST_GROUPS];
    uint32_t n;
};

static uint64_t random_bits(uint64_t *s)
{
    *s += 0x9e3779b97f4a7c15u;
    uint64_t z = (*s ^ (*s >> 30)) * 0xbf58476d1ce4e5b9u;

    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Errors fall with size as those of types do, with noise; some choices are beaten by
 * others, some cannot be chosen. */
static void make(struct instance *t, uint64_t seed, uint32_t n, uint32_t choices, uint64_t unit)
{
    t->n = n;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t weights = unit * (1 + random_bits(&seed) % 40);
        double scale = 0.01 + (double)(random_bits(&seed) % 1000) / 1000;

        t->g[i] = (struct sl_choice_group){t->c[i], choices};
        for (uint32_t k = 0; k < choices; k++) {
            uint64_t bits = 3 + random_bits(&seed) % 30;
            double noise = 0.7 + (double)(random_bits(&seed) % 1000) / 1500;

            t->c[i][k].bytes = weights * bits;
            t->c[i][k].error = k && random_bits(&seed) % 12 == 0 ? (double)NAN : scale * exp2(-0.4 * (double)bits) * noise;
        }
    }
}

static uint64_t extreme(const struct instance *t, int largest)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        uint64_t at = t->c[i][0].bytes;

        for (uint32_t k = 1; k < t->g[i].n; k++)
            if (!isnan(t->c[i][k].error) && (largest ? t->c[i][k].bytes > at : t->c[i][k].bytes < at))
                at = t->c[i][k].bytes;
        sum += at;
    }
    return sum;
}

static double brute(const struct instance *t, uint32_t at, uint64_t bytes, uint64_t budget)
{
    double best = INFINITY;

    if (bytes > budget)
        return INFINITY;
    if (at == t->n)
        return 0;
    for (uint32_t k = 0; k < t->g[at].n; k++)
        if (!isnan(t->c[at][k].error))
            best = fmin(best, t->c[at][k].error + brute(t, at + 1, bytes + t->c[at][k].bytes, budget));
    return best;
}

static void holds(const struct instance *t, const struct sl_solution *s, uint64_t budget)
{
    uint64_t bytes = 0;
    double error = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        assert_true(s->pick[i] < t->g[i].n);
        bytes += t->c[i][s->pick[i]].bytes;
        error += t->c[i][s->pick[i]].error;
    }
    assert_true(bytes == s->bytes && bytes <= budget);
    assert_true(fabs(error - s->error) <= 1e-9 * error);
    assert_true(s->bound <= s->error);
}

static void equals_every_assignment_tried(void **state)
{
    struct instance *t = *state;
    unsigned tight = 0;

    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct sl_error e;

        make(t, seed, 2 + (uint32_t)(seed % 6), 2 + (uint32_t)(seed % 4), seed % 3 ? 1 : 1000);
        uint64_t low = extreme(t, 0), high = extreme(t, 1);

        for (uint64_t part = 0; part <= 10; part++) {
            uint64_t budget = low + (high - low) * part / 10;
            struct sl_solution s;
            double want = brute(t, 0, 0, budget);

            assert_int_equal(sl_size_solve(t->g, t->n, budget, NULL, &s, &e), 0);
            holds(t, &s, budget);
            assert_true(s.exact);
            assert_true(fabs(s.error - want) <= 2e-9 * want);
            tight += part > 0 && part < 10 && budget - s.bytes > 0;
            sl_solution_free(&s);
        }
    }
    assert_true(tight > 100); /* budgets between assignments, not only at them */
}

/* Larger ones: held against a dynamic program over every number of bytes. */
static void equals_a_table_over_bytes(void **state)
{
    struct instance *t = *state;

    for (uint64_t seed = 1000; seed < 1012; seed++) {
        struct sl_solution s;
        struct sl_error e;

        make(t, seed, 60, 6, 1);
        uint64_t low = extreme(t, 0), high = extreme(t, 1), budget = low + (high - low) * (seed % 10 + 1) / 12;
        double *now = malloc((budget + 1) * sizeof *now), *next = malloc((budget + 1) * sizeof *next);

        for (uint64_t b = 0; b <= budget; b++)
            now[b] = 0;
        for (uint32_t i = 0; i < t->n; i++) {
            for (uint64_t b = 0; b <= budget; b++) {
                next[b] = INFINITY;
                for (uint32_t k = 0; k < t->g[i].n; k++)
                    if (!isnan(t->c[i][k].error) && t->c[i][k].bytes <= b)
                        next[b] = fmin(next[b], now[b - t->c[i][k].bytes] + t->c[i][k].error);
            }
            double *swap = now;
            now = next;
            next = swap;
        }
        assert_int_equal(sl_size_solve(t->g, t->n, budget, NULL, &s, &e), 0);
        holds(t, &s, budget);
        assert_true(s.error >= now[budget] * (1 - 1e-9));
        assert_true(s.error <= now[budget] * (s.exact ? 1 + 2e-9 : 1 + 1e-4));
        assert_true(s.bound <= now[budget] * (1 + 1e-9));
        sl_solution_free(&s);
        free(now);
        free(next);
    }
}

/* As large as DeepSeek-R1: near the bound, quickly, the same twice; a start is never lost. */
static void large(void **state)
{
    struct instance *t = *state;

    for (uint64_t seed = 7; seed < 10; seed++) {
        struct sl_solution a, b;
        struct sl_error e;

        make(t, seed, MOST_GROUPS, MOST_CHOICES, 1000003);
        uint64_t low = extreme(t, 0), budget = low + (extreme(t, 1) - low) / 3;

        assert_int_equal(sl_size_solve(t->g, t->n, budget, NULL, &a, &e), 0);
        holds(t, &a, budget);
        assert_true(a.error <= a.bound * 1.0005);
        assert_true((double)(budget - a.bytes) < 0.001 * (double)budget);
        assert_int_equal(sl_size_solve(t->g, t->n, budget, a.pick, &b, &e), 0);
        assert_true(b.error <= a.error);
        sl_solution_free(&b);
        assert_int_equal(sl_size_solve(t->g, t->n, budget, NULL, &b, &e), 0);
        assert_memory_equal(a.pick, b.pick, t->n * sizeof *a.pick);
        sl_solution_free(&a);
        sl_solution_free(&b);
    }
}

/* Sums that are all possible and none of which fills the budget: not every one is kept, and the answer says so. */
static void says_what_it_left_out(void **state)
{
    struct instance *t = *state;
    uint64_t seed = 3, all = 0, budget;
    struct sl_solution s;
    struct sl_error e;

    t->n = 60;
    for (uint32_t i = 0; i < t->n; i++) {
        uint64_t bytes = 1000 * (1 + random_bits(&seed) % 100000);

        t->g[i] = (struct sl_choice_group){t->c[i], 2};
        t->c[i][0] = (struct sl_choice){.bytes = 0, .error = (double)bytes};
        t->c[i][1] = (struct sl_choice){.bytes = bytes, .error = 0};
        all += bytes;
    }
    budget = all / 2000 * 1000 + 500;
    assert_int_equal(sl_size_solve(t->g, t->n, budget, NULL, &s, &e), 0);
    holds(t, &s, budget);
    assert_false(s.exact);
    assert_true(fabs(s.bound - (double)(all - budget)) < 1);
    assert_true(s.error <= s.bound * 1.005);
    sl_solution_free(&s);
}

static void refuses(void **state)
{
    struct instance *t = *state;
    struct sl_solution s;
    struct sl_error e;

    make(t, 5, 4, 3, 10);
    assert_int_equal(sl_size_solve(t->g, t->n, extreme(t, 0), NULL, &s, &e), 0);
    assert_true(s.bytes == extreme(t, 0));
    sl_solution_free(&s);
    assert_int_equal(sl_size_solve(t->g, t->n, extreme(t, 0) - 1, NULL, &s, &e), SL_EUSAGE);
    sl_solution_free(&s);
    for (uint32_t k = 0; k < 3; k++)
        t->c[2][k].error = (double)NAN;
    assert_int_equal(sl_size_solve(t->g, t->n, UINT64_MAX, NULL, &s, &e), SL_EUSAGE);
    sl_solution_free(&s);
    assert_int_equal(sl_size_solve(t->g, 0, 0, NULL, &s, &e), 0);
    assert_true(s.bytes == 0 && s.error == 0 && s.exact);
    sl_solution_free(&s);
}

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct instance));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_every_assignment_tried),
        cmocka_unit_test(equals_a_table_over_bytes),
        cmocka_unit_test(large),
        cmocka_unit_test(says_what_it_left_out),
        cmocka_unit_test(refuses),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
