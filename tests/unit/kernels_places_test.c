/* iq1_m's and iq1_s's splits on a processor's lanes: what the marked places leave has the best split of all, as every
 * split in order gives it, in each lane; where the scores of two are as near as floats come, where numbers are
 * too small for the bound, and where a lane is dead. kernels_splits_test has the same for a GPU's threads. */
#include "kernels/lanes_portable.h"
#include "kernels/text_iq1.h"
#include "split_values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct lanes {
    struct split_values v[LANES];
    vf x[32], w[32];
    struct iq1m_terms terms;
    struct iq1s_prefix prefix;
    struct iq1_near near;
    vm dead;
    int told, untold, all; /* groups that ended with the marked places, that took all in order then, and at once */
};

static void set_lane(struct lanes *l, int k)
{
    for (int i = 0; i < l->v[k].n; i++) {
        l->x[i][k] = l->v[k].x[i];
        l->w[i][k] = l->v[k].w[i];
    }
}

static void set_terms(struct lanes *l, int n)
{
    vi rank[32];

    rank_values(l->x, n, rank);
    if (n == 16)
        iq1m_terms(l->x, l->w, rank, &l->terms);
    else
        iq1s_prefix(l->x, l->w, rank, &l->prefix);
    l->near = n == 16 ? l->terms.near : iq1s_near(&l->prefix);
}

static struct iq1_best all_in_order(const struct lanes *l, int n)
{
    struct iq1_best b;

    if (n == 16)
        iq1m_search(&l->terms, &b);
    else
        iq1s_search(&l->prefix, &b);
    return b;
}

static struct iq1_best scan(const struct lanes *l, int n, const struct iq1_places *p, vf least, vm *unsure)
{
    return n == 16 ? iq1m_scan(&l->terms, p, least, unsure) : iq1s_scan(&l->prefix, p, least, unsure);
}

static bool same(const struct iq1_best *a, const struct iq1_best *b, int k)
{
    return a->i1[k] == b->i1[k] && a->i2[k] == b->i2[k] && a->kind[k] == b->kind[k] &&
           ((vi)a->scale)[k] == ((vi)b->scale)[k] && ((vi)a->score)[k] == ((vi)b->score)[k];
}

/* Whether a score that no split has is known to tell nothing. */
static bool tells_nothing(const struct lanes *l, int n, const struct iq1_best *all)
{
    vf above = v_add(all->score, all->score);
    vm unsure, scored = v_and(iq1_between(0x1p-60f, all->score, 0x1p60f), v_not(l->dead));
    struct iq1_best none = scan(l, n, iq1_all, above, &unsure);

    return !v_any(v_and(scored, v_not(iq1_untold(&none, above, unsure, l->dead))));
}

/* Whether a score so near to the best that roundings decide is not told to be any lane's, or leads to the same split. */
static bool near_tells_no_other(const struct lanes *l, int n, const struct iq1_best *all)
{
    bool good = true;

    for (int ulps = -4; ulps <= 4; ulps++) {
        vm unsure, scored = v_and(iq1_between(0x1p-60f, all->score, 0x1p60f), iq1_usual(&l->near));
        vf least = v_sel(scored, v_frombits(v_iadd(v_bits(all->score), v_seti(ulps))), v_set(-FLT_MAX));
        struct iq1_best b = scan(l, n, iq1_all, least, &unsure);
        vm untold = iq1_untold(&b, least, unsure, l->dead);

        for (int k = 0; k < LANES; k++)
            good &= l->dead[k] || untold[k] || same(&b, all, k);
    }
    return good;
}

/* Whether each lane's split is all splits' best, to the bit, as the text says and lane by lane where it is told. */
static bool same_best(struct lanes *l, int n, const struct iq1_best *all)
{
    struct iq1_places places;
    vm unsure;
    vf least = iq1_look(n, &l->near, l->dead, &places);
    struct iq1_best some = scan(l, n, &places, least, &unsure);
    struct iq1_best b = n == 16 ? iq1m_best(&l->terms, l->dead) : iq1s_best(&l->prefix, l->dead);
    vm untold = iq1_untold(&some, least, unsure, l->dead);
    bool good = tells_nothing(l, n, all) && near_tells_no_other(l, n, all) && !v_any(v_and(untold, l->dead));

    l->all += places.row[0] == UINT64_MAX;
    l->untold += places.row[0] != UINT64_MAX && v_any(untold);
    l->told += places.row[0] != UINT64_MAX && !v_any(untold);
    for (int k = 0; k < LANES; k++)
        good &= l->dead[k] || (same(&b, all, k) && (untold[k] || same(&some, all, k)));
    return good;
}

/* Lane k's sums for a split, in order. */
static void sums_of(const struct lanes *l, int n, int k, int i1, int i2, int kind, float *x, float *w)
{
    struct iq1s_sums s;
    vf sums[2];

    if (n == 32) {
        s = iq1s_split(&l->prefix, iq1s_low_part(&l->prefix, i1), i1, i2);
        *x = kind ? s.xm[k] : s.xp[k];
        *w = kind ? s.wm[k] : s.wp[k];
        return;
    }
    sums[0] = sums[1] = v_set(0.f);
    for (int j = 0; j < 16; j++) {
        vf high_x[4], high_w[4], m = iq1m_mid(&l->terms, j, kind == 1 || kind == 2);

        iq1m_high(&l->terms, j, high_x, high_w);
        sums[0] = j < i1 ? v_sub(sums[0], high_x[3 - kind]) : j >= i2 ? v_add(sums[0], high_x[kind]) : kind < 2 ? v_add(sums[0], m) : v_sub(sums[0], m);
        sums[1] = v_add(sums[1], j < i1 ? high_w[3 - kind] : j >= i2 ? high_w[kind] : iq1m_mid_w(&l->terms, j));
    }
    *x = sums[0][k];
    *w = sums[1][k];
}

/* The best split is among the places marked by a bound that its score is above by no more than a rounding. */
static bool bound_holds(const struct lanes *l, int n, const struct iq1_best *all)
{
    struct iq1_places places;
    vf least = v_set(1.f);
    vm none = v_not(iq1_usual(&l->near));
    bool good = true;

    for (int k = 0; k < LANES; k++) {
        float x, w;

        if (all->kind[k] < 0)
            none[k] = -1;
        if (none[k])
            continue;
        sums_of(l, n, k, all->i1[k], all->i2[k], all->kind[k], &x, &w);
        least[k] = nextafterf((float)((double)x * x / w), 0.f);
    }
    for (int only = 0; only < LANES; only++) { /* not by another lane's leave */
        vm others = v_ine(v_index(), v_seti(only));

        iq1_mark(n, &l->near, least, v_or(none, others), &places);
        good &= none[only] || (places.row[all->i1[only]] >> all->i2[only] & 1);
    }
    iq1_mark(n, &l->near, least, v_not(v_none()), &places);
    for (int i1 = 0; i1 <= n; i1++)
        good &= places.row[i1] == 0;
    return good;
}

/* Moves one number of a lane until the scores of two splits are next to each other. */
static void make_a_tie(struct lanes *l, int n, int k, const struct iq1_best *all, int i1, int i2, int kind)
{
    struct split_values *v = &l->v[k];
    uint32_t i = below(v, (uint32_t)n);
    float *number = below(v, 2) ? &v->w[i] : &v->x[i], from = *number;
    float to = from * (below(v, 2) ? 0.6f : 1.7f);

    for (int step = 0; step < 40 && from + (to - from) * 0.5f != from && from + (to - from) * 0.5f != to; step++) {
        float x1, w1, x2, w2;

        *number = from + (to - from) * 0.5f;
        set_lane(l, k);
        set_terms(l, n);
        sums_of(l, n, k, all->i1[k], all->i2[k], all->kind[k], &x1, &w1);
        sums_of(l, n, k, i1, i2, kind, &x2, &w2);
        if (x1 * x1 * w2 > x2 * x2 * w1)
            from = *number;
        else
            to = *number;
    }
}

static void the_best_is_kept(int n, int times)
{
    struct lanes l = {.told = 0};

    for (int k = 0; k < LANES; k++)
        l.v[k] = (struct split_values){.n = n, .seed = 0x2545f4914f6cdd1d + (uint64_t)k};
    for (int t = 0; t < times * KINDS; t++) {
        l.dead = v_none();
        for (int k = 0; k < LANES; k++) {
            int kind = t % 3 ? t % KINDS : (int)below(&l.v[k], KINDS); /* alike, and beside others */

            for (int i = 0; i < n; i++)
                one_value(&l.v[k], kind, i);
            if (t % 8 == 0 && below(&l.v[k], 3) == 0) {
                l.dead[k] = -1;
                memset(l.v[k].x, 0, sizeof l.v[k].x);
            }
            set_lane(&l, k);
        }
        for (int turn = 0; turn < 3; turn++) {
            struct iq1_best all;

            set_terms(&l, n);
            all = all_in_order(&l, n);
            if (!same_best(&l, n, &all))
                fail_msg("sub-block %d, turn %d: another split is taken than by all in order", t, turn);
            if (!bound_holds(&l, n, &all))
                fail_msg("sub-block %d, turn %d: the bound does not hold", t, turn);
            for (int k = 0; k < LANES; k++) {
                int i1 = (int)below(&l.v[k], (uint32_t)n + 1), i2 = i1 + (int)below(&l.v[k], (uint32_t)(n + 1 - i1));
                int kind = (int)below(&l.v[k], n == 16 ? 4 : 2);

                if (!l.dead[k] && all.kind[k] >= 0)
                    make_a_tie(&l, n, k, &all, i1, i2, kind);
            }
        }
    }
    assert_true(l.told > 8 * times && l.untold > 0 && l.all > times); /* every way is taken */
}

static void the_best_of_iq1_m(void **state)
{
    (void)state;
    the_best_is_kept(16, 120);
}

static void the_best_of_iq1_s(void **state)
{
    (void)state;
    the_best_is_kept(32, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_best_of_iq1_m), cmocka_unit_test(the_best_of_iq1_s)};

    return cmocka_run_group_tests_name("places", tests, NULL, NULL);
}
