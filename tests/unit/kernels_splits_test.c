/* iq1_m's and iq1_s's splits on a GPU: what the running sums leave has the best split of all, as every
 * split in order gives it, where the scores of two are as near as floats come, where most
 * of the weight is in the middle (there the sums' errors are largest beside the sums), and
 * where numbers are too small for the bound. */
#include "grid_emulator.h"
#include "split_values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct splits {
    struct split_values v;
    float columns[V_SPOT(IQ1M_COLUMNS)];
    struct iq1m_terms terms;
    struct iq1s_prefix prefix;
    int listed, in_order; /* sub-blocks that ended with the list, and that took all splits in order */
};

static void set_terms(struct splits *s)
{
    vi rank[32];

    rank_values(s->v.x, s->v.n, rank);
    s->terms.x = s->prefix.x = s->columns;
    s->terms.w = s->columns + V_SPOT(16);
    s->prefix.w = s->columns + V_SPOT(33);
    if (s->v.n == 16)
        iq1m_terms(s->v.x, s->v.w, rank, &s->terms);
    else
        iq1s_prefix(s->v.x, s->v.w, rank, &s->prefix);
}

static struct iq1_near near_of(const struct splits *s) { return s->v.n == 16 ? iq1m_near(&s->terms) : iq1s_near(&s->prefix); }

static void sums_of(const struct splits *s, uint32_t id, float *x, float *w)
{
    if (s->v.n == 16)
        iq1m_split(&s->terms, id, x, w);
    else
        iq1s_sums_of(&s->prefix, id, x, w);
}

static struct iq1_best best_of_all(const struct splits *s)
{
    struct iq1_best b = iq1_start();

    if (s->v.n == 16) {
        iq1m_search(&s->terms, &b);
        return b;
    }
    for (int i1 = 0; i1 <= 32; i1++)
        for (int i2 = i1; i2 <= 32; i2++)
            for (uint32_t k = 0; k < 2; k++) {
                float x, w;

                sums_of(s, iq1_place(i1, i2) | k << 12, &x, &w);
                iq1_try(&b, x, w, i1, i2, (int)k);
            }
    return b;
}

static uint32_t id_of(const struct iq1_best *b) { return iq1_place(b->i1, b->i2) | (uint32_t)b->kind << 12; }

/* Whether the split of the sums is all splits' best, to the bit. */
static bool same_best(struct splits *s, const struct iq1_best *all)
{
    struct iq1_near near = near_of(s);
    struct iq1_best b;
    float least;
    bool listed = false;

    if (iq1_usual(&near)) {
        struct iq1_list l = iq1_look(s->v.n, &near, &least);

        listed = s->v.n == 16 ? iq1m_take(&s->terms, &l, least, &b) : iq1s_take(&s->prefix, &l, least, &b);
    }
    s->listed += listed;
    s->in_order += !listed;
    b = s->v.n == 16 ? iq1m_best(&s->terms, false) : iq1s_best(&s->prefix, false);
    return b.i1 == all->i1 && b.i2 == all->i2 && b.kind == all->kind && sl_bits(b.scale) == sl_bits(all->scale) &&
           sl_bits(b.score) == sl_bits(all->score);
}

static bool in_list(const struct iq1_list *l, uint32_t id)
{
    bool found = l->n > IQ1_LIST;

    for (int i = 0; i < l->n && i < IQ1_LIST; i++)
        found |= iq1_get(l, i) == id;
    return found;
}

/* What is said to be below a split's score is, and the split can be taken. */
static bool below_holds(const struct splits *s, uint32_t id)
{
    struct iq1_near near = near_of(s);
    float x[4], w[4], sum_x, sum_w, below;
    struct iq1_guess g;

    iq1_near_sums(s->v.n, &near, id & 0xfff, x, w);
    g = (struct iq1_guess){x[id >> 12] * x[id >> 12], w[id >> 12], id & 0xfff};
    below = iq1_usual(&near) ? iq1_below(&near, &g) : 0.f;
    sums_of(s, id, &sum_x, &sum_w);
    return below == 0.f || (sum_w > 0.f && below < (double)sum_x * sum_x / sum_w);
}

/* A split whose score is above a bound by no more than a rounding is found by that bound; and what is said to be below
 * the best score is. */
static bool bounds_hold(const struct splits *s, const struct iq1_best *all)
{
    struct iq1_near near = near_of(s);
    struct iq1_list l;
    float x, w, least;
    double score;

    if (all->kind < 0 || !iq1_usual(&near))
        return true;
    sums_of(s, id_of(all), &x, &w);
    score = (double)x * x / w;
    l = iq1_look(s->v.n, &near, &least);
    if (l.n <= IQ1_LIST && least > score)
        return false;
    least = nextafterf((float)score, 0.f);
    l = iq1_scan(s->v.n, &near, least);
    if (!in_list(&l, iq1_place(all->i1, all->i2)) || l.n > IQ1_LIST)
        return l.n > IQ1_LIST;
    l = iq1_splits(s->v.n, &near, &l, least);
    return in_list(&l, id_of(all));
}

/* Moves one number until the scores of two splits are next to each other. */
static void make_a_tie(struct splits *s, uint32_t one, uint32_t other)
{
    uint32_t i = below(&s->v, (uint32_t)s->v.n);
    float *number = below(&s->v, 2) ? &s->v.w[i] : &s->v.x[i], from = *number;
    float to = from * (below(&s->v, 2) ? 0.6f : 1.7f);

    for (int step = 0; step < 40 && from + (to - from) * 0.5f != from && from + (to - from) * 0.5f != to; step++) {
        float x1, w1, x2, w2;

        *number = from + (to - from) * 0.5f;
        set_terms(s);
        sums_of(s, one, &x1, &w1);
        sums_of(s, other, &x2, &w2);
        if (x1 * x1 * w2 > x2 * x2 * w1)
            from = *number;
        else
            to = *number;
    }
    set_terms(s);
}

static void the_best_is_kept(int n, int times)
{
    struct splits s = {.v = {.n = n, .seed = 0x2545f4914f6cdd1d}};

    for (int t = 0; t < times * KINDS; t++) {
        for (int i = 0; i < n; i++)
            one_value(&s.v, t % KINDS, i);
        set_terms(&s);
        for (int turn = 0; turn < 4; turn++) {
            int i1 = (int)below(&s.v, (uint32_t)n + 1), i2 = i1 + (int)below(&s.v, (uint32_t)(n + 1 - i1));
            uint32_t kind = below(&s.v, n == 16 ? 4 : 2);
            struct iq1_best all = best_of_all(&s);

            if (!same_best(&s, &all))
                fail_msg("kind %d, sub-block %d, turn %d: another split is taken than by sums in order", t % KINDS, t, turn);
            if (!bounds_hold(&s, &all) || !below_holds(&s, iq1_place(i1, i2) | kind << 12) ||
                !below_holds(&s, iq1_place(n / 16, n - n / 16)))
                fail_msg("kind %d, sub-block %d, turn %d: a bound does not hold", t % KINDS, t, turn);
            if (all.kind < 0)
                break;
            make_a_tie(&s, id_of(&all), iq1_place(i1, i2) | kind << 12);
        }
    }
    assert_true(s.listed > 16 * times && s.in_order > times); /* both ways are taken */
}

static void the_best_of_iq1_m(void **state)
{
    (void)state;
    the_best_is_kept(16, 900);
}

static void the_best_of_iq1_s(void **state)
{
    (void)state;
    the_best_is_kept(32, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_best_of_iq1_m), cmocka_unit_test(the_best_of_iq1_s)};

    return cmocka_run_group_tests_name("splits", tests, NULL, NULL);
}
