/* iq1_m's splits on a GPU: what the running sums leave has the best split of all, as every
 * split in order gives it, where the scores of two are as near as floats come, where most
 * of the weight is in the middle (there the sums' errors are largest beside the sums), and
 * where numbers are too small for the bound. */
#include "grid_emulator.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct splits {
    float x[16], w[16], columns[V_SPOT(IQ1M_COLUMNS)];
    struct iq1m_terms terms;
    uint64_t seed;
    int listed, in_order; /* sub-blocks that ended with the list, and that took all splits in order */
};

static uint32_t below(struct splits *s, uint32_t n)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return (uint32_t)(s->seed >> 32) % n;
}

/* 1 to 2, times 2^low to 2^high. */
static float positive(struct splits *s, int low, int high)
{
    return ldexpf(1.f + (float)below(s, 1 << 23) * 0x1p-23f, low + (int)below(s, (uint32_t)(high - low + 1)));
}

static float either(struct splits *s, float a) { return below(s, 2) ? a : -a; }

enum { USUAL, ANY_SIZE, FEW, EQUAL_PRODUCTS, NEAR_EQUAL, LIGHT_ENDS, LIGHT_ZEROS, NEGATIVE, SUBNORMAL, ONE_VALUE, KINDS };

static void one_value(struct splits *s, int kind, int i)
{
    float *x = &s->x[i], *w = &s->w[i];

    *x = either(s, positive(s, -4, 0));
    *w = positive(s, -4, 0);
    if (kind == ANY_SIZE) {
        *x = either(s, positive(s, -40, 40));
        *w = positive(s, -100, 100);
    } else if (kind == FEW) {
        *x = (float)below(s, 7) - 3.f;
        *w = (float)below(s, 3);
    } else if (kind == EQUAL_PRODUCTS) {
        *x = either(s, positive(s, -20, 20));
        *w = 1.f / fabsf(*x);
    } else if (kind == NEAR_EQUAL) {
        *x = either(s, 1.f + (float)below(s, 3000) * 0x1p-23f);
        *w = 1.f + (float)below(s, 3000) * 0x1p-23f;
    } else if (kind == LIGHT_ENDS) {
        *x = either(s, positive(s, i > 2 ? -30 : 0, i > 2 ? -20 : 0));
        *w = positive(s, i > 2 ? 0 : -20, i > 2 ? 0 : -4);
    } else if (kind == LIGHT_ZEROS) {
        *x = i > 5 ? (float)below(s, 2) * -0x1p-20f : either(s, positive(s, 0, 0));
        *w = positive(s, i > 5 ? 0 : -10, i > 5 ? 2 : -10);
    } else if (kind == NEGATIVE) {
        *w = below(s, 2) ? 0.f : below(s, 4) ? *w : -*w;
    } else if (kind == SUBNORMAL) { /* which a product with a level rounds by up to a half */
        *x = either(s, positive(s, 100, 110));
        *w = sl_float(below(s, 6));
    } else if (kind == ONE_VALUE) { /* all low, all middle and all high are as good */
        *x = i ? s->x[0] : *x;
    }
}

static void set_terms(struct splits *s)
{
    vi rank[16];

    s->terms.x = s->columns;
    s->terms.w = s->columns + V_SPOT(16);
    rank_values(s->x, 16, rank);
    iq1m_terms(s->x, s->w, rank, &s->terms);
}

/* Whether the split of the sums is all splits' best, to the bit. */
static bool same_best(struct splits *s, struct iq1_best *all)
{
    struct iq1_best b;
    struct iq1m_near near;
    struct iq1m_list l;
    bool listed;

    iq1m_search(&s->terms, all);
    listed = iq1m_near(&s->terms, &near) && iq1m_look(&near, &l) && iq1m_take(&s->terms, &l, &b);
    s->listed += listed;
    s->in_order += !listed;
    b = iq1m_best(&s->terms, false);
    return b.i1 == all->i1 && b.i2 == all->i2 && b.kind == all->kind && sl_bits(b.scale) == sl_bits(all->scale) &&
           sl_bits(b.score) == sl_bits(all->score);
}

/* A split whose score in order is not below a bound, by a rounding, is found by that bound; and what is said to be below the
 * best split's score is. */
static bool bounds_hold(const struct splits *s, const struct iq1_best *all)
{
    uint32_t id = (uint32_t)(all->i1 | all->i2 << 5 | all->kind << 10);
    struct iq1m_near near;
    struct iq1m_places p;
    struct iq1m_list l;
    float x, w;
    double score;
    bool found = false;

    iq1m_split(&s->terms, id, &x, &w);
    if (all->kind < 0 || !iq1m_near(&s->terms, &near))
        return true;
    score = (double)x * x / w;
    if (iq1m_look(&near, &l) && l.least > score)
        return false;
    l = (struct iq1m_list){.least = nextafterf((float)score, 0.f)};
    p = iq1m_scan(&near, l.least);
    if (p.n > IQ1M_PLACES)
        return true;
    for (int i = 0; i < p.n; i++)
        found |= iq1m_place(&p, i) == (id & 0x3ff);
    if (!found)
        return false;
    iq1m_note(&near, &p, &l);
    for (int i = 0; i < l.n && i < IQ1M_LIST; i++)
        found &= iq1m_id(&l, i) != id;
    return !found || l.n > IQ1M_LIST;
}

/* Moves one number until the scores of two splits are next to each other. */
static void make_a_tie(struct splits *s, uint32_t one, uint32_t other)
{
    float *number = below(s, 2) ? &s->w[below(s, 16)] : &s->x[below(s, 16)], from = *number;
    float to = from * (below(s, 2) ? 0.6f : 1.7f);

    for (int step = 0; step < 40 && from + (to - from) * 0.5f != from && from + (to - from) * 0.5f != to; step++) {
        float x1, w1, x2, w2;

        *number = from + (to - from) * 0.5f;
        set_terms(s);
        iq1m_split(&s->terms, one, &x1, &w1);
        iq1m_split(&s->terms, other, &x2, &w2);
        if (x1 * x1 * w2 > x2 * x2 * w1)
            from = *number;
        else
            to = *number;
    }
    set_terms(s);
}

static void the_best_is_kept(void **state)
{
    struct splits s = {.seed = 0x2545f4914f6cdd1d};

    (void)state;
    for (int t = 0; t < 900 * KINDS; t++) {
        for (int i = 0; i < 16; i++)
            one_value(&s, t % KINDS, i);
        set_terms(&s);
        for (int turn = 0; turn < 4; turn++) {
            uint32_t i1 = below(&s, 17), i2 = i1 + below(&s, 17 - i1);
            struct iq1_best all;

            if (!same_best(&s, &all))
                fail_msg("kind %d, sub-block %d, turn %d: another split is taken than by sums in order", t % KINDS, t, turn);
            if (!bounds_hold(&s, &all))
                fail_msg("kind %d, sub-block %d, turn %d: a bound does not hold", t % KINDS, t, turn);
            if (all.kind < 0)
                break;
            make_a_tie(&s, (uint32_t)(all.i1 | all.i2 << 5 | all.kind << 10), i1 | i2 << 5 | below(&s, 4) << 10);
        }
    }
    assert_true(s.listed > 10000 && s.in_order > 1000); /* both ways are taken */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_best_is_kept)};

    return cmocka_run_group_tests_name("splits", tests, NULL, NULL);
}
