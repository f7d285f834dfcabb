/* What the coordinator hands out next: shards in sequence, shares by priority, sweeps,
 * jobs that wait for others. */
#include "coord_world.h"

static void shards_stay_together(void **state)
{
    struct world *w = *state;
    struct got g[8] = {{0}};

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    ready_job(w, C, 1, "a", 40, 10);
    for (unsigned step = 0; step < 10; step++)
        for (unsigned v = 1; v <= 2; v++) {
            pull(w, v, 1);
            assert_int_equal(granted(w, v, g, 8), 1);
            assert_int_equal(g[0].task, (v - 1) * 10 + step); /* each its own shard, in sequence */
            result(w, v, g[0]);
            expect(w, v, SL_M_ACK);
        }
    /* At the end the largest goes first (task numbers are sizes here). */
    for (unsigned step = 0; step < 16; step++) {
        pull(w, 1, 1);
        assert_int_equal(granted(w, 1, g, 8), 1);
        result(w, 1, g[0]);
    }
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, g, 8), 1);
    assert_int_equal(g[0].task, 39);
}

static void jobs_share_by_priority(void **state)
{
    struct world *w = *state;
    unsigned n[3] = {0};
    uint64_t a, b;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    a = ready_job(w, C, 1, "a", 60, 10);
    b = submit(w, C, "b", ",\"priority\":60");
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 1);
    while (g.task != SL_TASK_PREPARE) {
        result(w, 1, g);
        pull(w, 1, 1);
        assert_int_equal(granted(w, 1, &g, 1), 1);
    }
    prepared(w, 1, g, 60, 10);
    for (unsigned i = 0; i < 30; i++) {
        pull(w, 1, 1);
        assert_int_equal(granted(w, 1, &g, 1), 1);
        n[g.job == a ? 0 : g.job == b ? 1 : 2]++;
        result(w, 1, g);
    }
    assert_true(n[0] >= 9 && n[0] <= 11 && n[1] >= 19 && n[1] <= 21);
}

static void a_sweep_reads_its_source_once(void **state)
{
    struct world *w = *state;
    char one[400], two[400];
    struct got g[4] = {{0}};
    cJSON *t;

    client(w, C);
    worker(w, 1);
    snprintf(one, sizeof one, world_spec, "m", "x");
    snprintf(two, sizeof two, world_spec, "m", "y");
    say(w, C, "{\"v\":2,\"m\":\"submit\",\"key\":\"k\",\"specs\":[%s,%s]}", one, two);
    t = sl_get(expect(w, C, SL_M_SUBMITTED), "jobs");
    assert_int_equal(cJSON_GetArraySize(t), 2);
    pull(w, 1, 4);
    assert_int_equal(granted(w, 1, g, 4), 2);
    prepared(w, 1, g[0], 8, 4);
    pull(w, 1, 4); /* nothing before both are planned */
    assert_int_equal(granted(w, 1, g + 2, 2), 0);
    prepared(w, 1, g[1], 8, 4);
    for (unsigned i = 0; i < 2; i++) {
        struct got h[4];
        unsigned n = granted(w, 1, h, 4);

        if (n == 0) {
            pull(w, 1, 4);
            n = granted(w, 1, h, 4);
        }
        assert_int_equal(n, 4);
        /* Grouped by job on the way, so compare the sets. */
        assert_true(h[0].task + h[1].task + h[2].task + h[3].task == 2 * (h[0].task + h[0].task + 1) ||
                    (h[0].task == h[1].task && h[2].task == h[3].task));
        for (unsigned k = 0; k < 4; k++)
            result(w, 1, h[k]);
    }
    snprintf(two, sizeof two, world_spec, "other", "z");
    snprintf(one, sizeof one, world_spec, "m", "v");
    say(w, C, "{\"v\":2,\"m\":\"submit\",\"key\":\"k2\",\"specs\":[%s,%s]}", one, two);
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "one source"));
}

static void jobs_wait_for_others(void **state)
{
    struct world *w = *state;
    uint64_t a, b, c;
    char more[64], spec[400];
    struct got g = {0}, h;

    client(w, C);
    worker(w, 1);
    a = submit(w, C, "a", ",\"hold\":true");
    snprintf(more, sizeof more, ",\"after\":[%llu]", (unsigned long long)a);
    b = submit(w, C, "b", more);
    assert_string_equal(state_of(w, C, a), "held: held by a user");
    assert_string_equal(state_of(w, C, b), "queued: waits for job 1");
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    say(w, C, "{\"v\":2,\"m\":\"release\",\"jobs\":[1]}");
    assert_int_equal(granted(w, 1, &g, 1), 1); /* work comes by itself */
    assert_true(g.job == a);
    say(w, C, "{\"v\":2,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
    assert_string_equal(state_of(w, C, b), "queued: waits for job 1, which did not succeed");
    /* Prepare is at work on the files that are to go: they go after it. */
    pull(w, 1, 1);
    snprintf(spec, sizeof spec, world_spec, "m", "a");
    say(w, C, "{\"v\":2,\"m\":\"submit\",\"key\":\"c\",\"specs\":[%s]}", spec);
    c = (uint64_t)cJSON_GetArrayItem(sl_get(expect(w, C, SL_M_SUBMITTED), "jobs"), 0)->valuedouble;
    assert_int_equal(granted(w, 1, &h, 1), 0);
    assert_string_equal(state_of(w, C, c), "queued: waits until the files of job 1 are removed");
    say(w, C, "{\"v\":2,\"m\":\"hold\",\"jobs\":[%llu]}", (unsigned long long)c);
    say(w, C, "{\"v\":2,\"m\":\"forget\",\"jobs\":[1]}");
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "only what has ended"));
    failed(w, 1, g, 1, "");
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 1);
    assert_true(g.job == a && g.task == SL_TASK_DISCARD);
    result(w, 1, g);
    say(w, C, "{\"v\":2,\"m\":\"cancel\",\"jobs\":[%llu]}", (unsigned long long)c);
    say(w, C, "{\"v\":2,\"m\":\"retry\",\"jobs\":[1]}");
    expect(w, C, SL_M_DONE);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, a), "succeeded");
    assert_string_equal(state_of(w, C, b), "succeeded");
    say(w, C, "{\"v\":2,\"m\":\"submit\",\"key\":\"q\",\"specs\":[],\"after\":[44]}");
    expect(w, C, SL_M_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(shards_stay_together),
        TEST(jobs_share_by_priority),
        TEST(a_sweep_reads_its_source_once),
        TEST(jobs_wait_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
