/* Tasks whose workers go away: counted in a row, granted last and alone, set aside in the end. */
#include "lost_world.h"

static void at_work(struct world *w, unsigned p, struct got g, const char *tensor)
{
    say(w, p, "{\"v\":3,\"m\":\"progress\",\"bytes\":1,\"tensor\":\"%s\",\"tasks\":[{\"job\":%llu,\"task\":%llu,\"epoch\":%llu,"
        "\"bytes\":1}]}", tensor, (unsigned long long)g.job, (unsigned long long)g.task, (unsigned long long)g.epoch);
}

/* A job of 8 tasks, all done but 0 to 3, with which worker 1 has gone. Returns the job. */
static uint64_t four_lost(struct world *w)
{
    struct got g[8];
    uint64_t id;

    again(w);
    worker(w, 1);
    worker(w, 2);
    id = ready_job(w, C, 1, "a", 8, 8);
    pull(w, 1, 4); /* in sequence */
    pull(w, 2, 4);
    assert_int_equal(granted(w, 1, g, 8), 4);
    assert_int_equal(granted(w, 2, g, 8), 4);
    for (unsigned i = 0; i < 4; i++)
        result(w, 2, g[i]);
    say(w, 2, "{\"v\":3,\"m\":\"bye\"}");
    pass_lease(w);
    return id;
}

/* Until the task, the others of it done; at most `most` grants, each of one task alone. */
static struct got take_until(struct world *w, unsigned p, uint64_t task, unsigned most)
{
    struct got g[8];

    while (most--) {
        takes(w, p, 4, g, 1);
        if (g[0].task == task)
            return g[0];
        result(w, p, g[0]);
    }
    fail_msg("task %u was not granted", (unsigned)task);
    return g[0];
}

static void what_ends_its_workers_fails_its_job(void **state)
{
    struct world *w = *state;
    uint64_t id = four_lost(w);
    struct got g;

    for (unsigned n = 2; n <= LOSSES; n++) {
        worker(w, n);
        g = take_until(w, n, 2, 4); /* those that were held beside it are done */
        at_work(w, n, g, "blk.2.ffn_up.weight");
        assert_string_equal(state_of(w, C, id), "running");
        pass_lease(w);
    }
    assert_string_equal(state_of(w, C, id), "failed");
    assert_string_equal(error_of(w, id), "blk.2.ffn_up.weight (task 2): 3 workers in a row went away while they had it, n3 the "
                        "last; see its log and whether its memory was enough, then 'sluice retry 1' goes on (1 of 8 tasks "
                        "failed, 'sluice show 1' lists why)");
    say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[1]}");
    expect(w, C, SL_M_DONE);
    worker(w, 4);
    run_all(w, 4);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

static void a_worker_that_lives_begins_the_count_anew(void **state)
{
    struct world *w = *state;
    uint64_t id = four_lost(w);
    struct got g = {0};
    char held[100];

    for (unsigned n = 0; n < 4; n++)
        for (unsigned k = 0; k < LOSSES - 1; k++) {
            unsigned p = 2 + k;

            worker(w, p);
            g = take_until(w, p, 3, 4);
            if (k == 0 && n == 0) { /* it failed on this one, which told it */
                failed(w, p, g, 1, "");
                w->now.run_ms += 1000;
                g = take_until(w, p, 3, 1);
            }
            pass_lease(w);
            if (k == 0) { /* it comes back with what is not its own any more */
                snprintf(held, sizeof held, "[{\"job\":%llu,\"task\":3,\"epoch\":%llu}]", (unsigned long long)g.job,
                         (unsigned long long)g.epoch);
                hello(w, p, "worker", held);
                assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, p, SL_M_WELCOME), "dropped")), 1);
                say(w, p, "{\"v\":3,\"m\":\"bye\"}");
            }
        }
    assert_string_equal(state_of(w, C, id), "running: no worker is connected");
    /* Who hands it back says nothing of it. */
    worker(w, 8);
    g = take_until(w, 8, 3, 1);
    say(w, 8, "{\"v\":3,\"m\":\"giveback\",\"job\":1,\"task\":3,\"epoch\":%llu}", (unsigned long long)g.epoch);
    say(w, 8, "{\"v\":3,\"m\":\"bye\"}");
    for (unsigned p = 2; p <= 3; p++) {
        assert_string_equal(state_of(w, C, id), "running: no worker is connected");
        worker(w, p);
        g = take_until(w, p, 3, 1);
        pass_lease(w);
    }
    assert_string_equal(state_of(w, C, id), "failed");
    assert_non_null(strstr(error_of(w, id), "task 3: 3 workers in a row"));
}

/* A disk hangs: its workers talk, and do nothing. */
static void who_stands_still_is_not_gone(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;

    again(w);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 1, 1);
    for (unsigned n = 0; n < 3 * LOSSES; n++) {
        takes(w, 1, 1, g, 1);
        later(w, 11000, (const unsigned[]){C, 1}, 2);
        assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, 1, SL_M_REVOKE), "tasks")), 1);
    }
    takes(w, 1, 1, g, 1);
    assert_string_equal(state_of(w, C, id), "running");
}

static void a_restart_counts_nobody(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;

    again(w);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 1, 1);
    for (unsigned n = 0; n < 3 * LOSSES; n++) {
        if (n)
            worker(w, 1);
        takes(w, 1, 1, g, 1);
        again(w); /* and the worker does not come back to this one */
        pass_lease(w);
    }
    assert_string_equal(state_of(w, C, id), "running: no worker is connected");
}

/* A worker with other tasks in hand runs dry for it, and gets nothing beside it. */
static void nothing_goes_beside_it(void **state)
{
    struct world *w = *state;
    struct got g[8], lost = {0};
    uint64_t a, b;

    again(w);
    worker(w, 1);
    a = ready_job(w, C, 1, "a", 1, 1);
    takes(w, 1, 1, g, 1);
    pass_lease(w);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[1]}");
    worker(w, 2);
    b = ready_job(w, C, 2, "b", 20, 20);
    takes(w, 2, 3, g, 3);
    say(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[1]}");
    for (unsigned i = 0; i < 3; i++) {
        pull(w, 2, 3);
        assert_int_equal(granted(w, 2, &lost, 1), 0);
        result(w, 2, g[i]);
    }
    assert_int_equal(granted(w, 2, g, 8), 1);
    assert_true(g[0].job == a);
    lost = g[0];
    pull(w, 2, 3);
    assert_int_equal(granted(w, 2, g, 8), 0);
    worker(w, 3);
    pull(w, 3, 3);
    assert_int_equal(granted(w, 3, g, 8), 3); /* others go on */
    assert_true(g[0].job == b);
    result(w, 2, lost);
    assert_int_equal(granted(w, 2, g, 8), 3);
}

static void a_jobs_own_tasks_count_too(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;

    again(w);
    id = submit(w, C, "a", "");
    for (unsigned p = 1; p <= LOSSES; p++) {
        worker(w, p);
        takes(w, p, 1, g, 1);
        assert_int_equal(g[0].task, SL_TASK_PREPARE);
        pass_lease(w);
    }
    assert_string_equal(state_of(w, C, id), "failed");
    assert_string_equal(error_of(w, id), "prepare: 3 workers in a row went away while they had it, n3 the last; see its log and "
                        "whether its memory was enough, then 'sluice retry 1' goes on");
}

static bool is_forgotten(struct world *w)
{
    say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[1]}");
    return heard(w, C, SL_M_DONE) != NULL;
}

/* So does the removal of a cancelled job's files; it is asked for again, for as many workers. */
static void a_removal_ends(void **state)
{
    struct world *w = *state;
    const cJSON *events;
    const char *text;
    struct got g[8];

    again(w);
    worker(w, 8);
    ready_job(w, C, 8, "a", 8, 8);
    say(w, 8, "{\"v\":3,\"m\":\"bye\"}");
    for (unsigned times = 0; times < 2; times++) {
        say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
        expect(w, C, SL_M_DONE);
        assert_string_equal(error_of(w, 1), "cancelled by u");
        for (unsigned p = 1; p <= LOSSES; p++) {
            worker(w, p);
            takes(w, p, 1, g, 1);
            assert_int_equal(g[0].task, SL_TASK_DISCARD);
            assert_false(is_forgotten(w));
            pass_lease(w);
        }
        say(w, C, "{\"v\":3,\"m\":\"logs\",\"job\":1}");
        events = sl_get(expect(w, C, SL_M_LOG), "events");
        text = sl_get_str(cJSON_GetArrayItem(events, cJSON_GetArraySize(events) - 1), "text");
        if (!strstr(text, "then 'sluice cancel --discard 1' goes on"))
            fail_msg("%s", text);
        text = error_of(w, 1);
        if (!strstr(text, "cancelled by u; its unfinished files are still there: discard: 3 workers in a row ") ||
            strstr(strstr(text, "cancel --discard") + 1, "cancel --discard"))
            fail_msg("%s", text);
    }
    assert_true(is_forgotten(w));
}

static void without_a_limit_it_goes_round(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 1, 1);
    for (unsigned n = 0; n < 30; n++) {
        takes(w, 1, 1, g, 1);
        pass_lease(w);
        worker(w, 1);
    }
    assert_string_equal(state_of(w, C, id), "running: waits until a worker asks for work");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_ends_its_workers_fails_its_job),
        TEST(a_worker_that_lives_begins_the_count_anew),
        TEST(who_stands_still_is_not_gone),
        TEST(a_restart_counts_nobody),
        TEST(nothing_goes_beside_it),
        TEST(a_jobs_own_tasks_count_too),
        TEST(a_removal_ends),
        TEST(without_a_limit_it_goes_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
