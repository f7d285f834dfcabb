/* Losses of several tasks, workers and jobs: what counts for a job, what goes beside what, and GPUs that fail. */
#include "lost_world.h"

/* Takes what is granted until it holds tasks of the job; then nothing is heard of it. */
static void dies_with(struct world *w, unsigned p, uint64_t job)
{
    struct got g[8];

    worker(w, p);
    pull(w, p, 3);
    assert_true(granted(w, p, g, 8) > 0);
    assert_int_equal(g[0].job, job);
}

/* A job of 60 tasks that are ready; the worker that prepared it has left. */
static uint64_t job_without_workers(struct world *w)
{
    uint64_t id;

    again(w);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 60, 60);
    say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    return id;
}

/* Each of its tasks ends its worker: the job ends after as many workers as one task would, not each of them. */
static void many_tasks_that_end_workers_fail_their_job(void **state)
{
    struct world *w = *state;
    uint64_t id = job_without_workers(w);

    for (unsigned p = 1; p <= LOSSES; p++) {
        assert_string_equal(state_of(w, C, id), "running: no worker is connected");
        dies_with(w, p, id);
        pass_lease(w);
    }
    assert_string_equal(state_of(w, C, id), "failed");
    assert_string_equal(error_of(w, id), "task 6: 3 workers in a row went away while they had it or others of the job's, none "
                        "of which was done, n3 the last; see its log and whether its memory was enough, then 'sluice retry 1' "
                        "goes on");
    say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[1]}");
    expect(w, C, SL_M_DONE);
    worker(w, 4);
    run_all(w, 4);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

/* A switch that begins anew: they had their tasks at the same time. Told of each time in another order. */
static void workers_that_vanish_together_are_one(void **state)
{
    static const unsigned all[] = {1, 2, 3, 4, 5, 6, 7};
    struct world *w = *state;
    uint64_t id = job_without_workers(w);
    struct got g[8];

    for (unsigned n = 1; n < LOSSES; n++) {
        for (unsigned p = 1; p <= 7; p++) {
            worker(w, p);
            pull(w, p, 3);
            assert_true(granted(w, p, g, 8) > 0);
            later(w, 500, all, n == 1 ? 7 : p);
        }
        pass_lease(w);
        pass_lease(w);
        assert_string_equal(state_of(w, C, id), "running: no worker is connected");
    }
    dies_with(w, 1, id);
    pass_lease(w);
    assert_string_equal(state_of(w, C, id), "failed");
}

/* Each was granted its task when the one before had been heard for the last time, and all went away within a heartbeat. */
static void a_grant_just_before_they_vanish_is_no_other_loss(void **state)
{
    struct world *w = *state;
    uint64_t id = job_without_workers(w);
    struct got g[8];

    for (unsigned p = 1; p <= LOSSES; p++) {
        worker(w, p);
        pull(w, p, 3);
        assert_true(granted(w, p, g, 8) > 0);
        if (p < LOSSES)
            later(w, 500, NULL, 0);
    }
    pass_lease(w);
    assert_string_equal(state_of(w, C, id), "running: no worker is connected");
}

/* Its tasks came one after the other, and it said nothing any more. */
static void a_worker_is_lost_once(void **state)
{
    struct world *w = *state;
    struct got g[8], own[1];
    uint64_t id;

    again(w);
    worker(w, 1);
    worker(w, 2);
    id = ready_job(w, C, 1, "a", LOSSES, LOSSES);
    takes(w, 2, LOSSES - 1, g, LOSSES - 1);
    takes(w, 1, LOSSES, own, 1);
    for (unsigned i = 0; i < LOSSES - 1; i++) {
        later(w, 1000, (const unsigned[]){C, 2}, 2);
        say(w, 2, "{\"v\":3,\"m\":\"giveback\",\"job\":1,\"task\":%llu,\"epoch\":%llu}", (unsigned long long)g[i].task,
            (unsigned long long)g[i].epoch);
        assert_int_equal(granted(w, 1, own, 1), 1);
    }
    say(w, 2, "{\"v\":3,\"m\":\"bye\"}");
    pass_lease(w);
    pass_lease(w);
    assert_string_equal(state_of(w, C, id), "running: no worker is connected");
}

/* One that is done, or a worker that comes back with what it lost, begins the job's count anew. */
static void what_is_done_clears_its_job(void **state)
{
    struct world *w = *state;
    struct got g[8];
    char held[100];
    uint64_t id;

    again(w);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 60, 60);
    for (unsigned n = 0; n < 3 * LOSSES; n++) {
        worker(w, 1);
        pull(w, 1, 3);
        assert_true(granted(w, 1, g, 8) > 0);
        if (n % 2 == 0)
            result(w, 1, g[0]);
        pass_lease(w);
        if (n % 2)
            continue;
        snprintf(held, sizeof held, "[{\"job\":1,\"task\":%llu,\"epoch\":%llu}]", (unsigned long long)g[1].task,
                 (unsigned long long)g[1].epoch);
        hello(w, 1, "worker", held);
        assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, 1, SL_M_WELCOME), "dropped")), 1);
        say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    }
    assert_string_equal(state_of(w, C, id), "running: no worker is connected");
}

/* Two jobs, whose tasks go out in turn; those of the second end their workers. */
static void a_job_beside_it_is_not_taken_for_it(void **state)
{
    struct world *w = *state;
    uint64_t a, b;
    struct got g[8];
    unsigned n = 0, mixed = 0;

    again(w);
    worker(w, 1);
    a = ready_job(w, C, 1, "a", 60, 60);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[1]}");
    b = ready_job(w, C, 1, "b", 60, 60);
    say(w, C, "{\"v\":3,\"m\":\"set\",\"jobs\":[2],\"priority\":51}");
    say(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[1]}");
    say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    while (strncmp(state_of(w, C, b), "running", 7) == 0 && n++ < 10 * LOSSES) {
        unsigned had[2] = {0, 0}, k;

        worker(w, 1);
        pull(w, 1, 4);
        k = granted(w, 1, g, 8);
        assert_true(k > 0);
        for (unsigned i = 0; i < k; i++)
            had[g[i].job == b]++;
        mixed += had[0] && had[1];
        for (unsigned i = 0; i < k && !had[1]; i++)
            result(w, 1, g[i]);
        if (had[1])
            pass_lease(w);
        else
            say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    }
    assert_string_equal(state_of(w, C, b), "failed");
    assert_string_equal(state_of(w, C, a), "running: no worker is connected");
    assert_true(mixed >= 1 && mixed <= 3);
    assert_true(n <= 4 * LOSSES);
}

/* All tasks of the plan done at worker p, so that it is to be stitched. */
static uint64_t to_stitch(struct world *w, unsigned client, unsigned p, const char *key)
{
    uint64_t id = ready_job(w, client, p, key, 1, 1);
    struct got g[8];

    takes(w, p, 1, g, 1);
    result(w, p, g[0]);
    return id;
}

static unsigned count_of(const struct got *g, unsigned n, uint64_t job, bool special)
{
    unsigned found = 0;

    for (unsigned i = 0; i < n; i++)
        found += g[i].job == job && (g[i].task >= SL_TASKS_MAX) == special;
    return found;
}

/* A stitch or a verification takes long: lost once it keeps no worker from other jobs; lost again it goes alone, and
 * does not wait at a worker that has another such task, which gets others meanwhile. */
static void what_takes_long_stands_in_nobodys_way(void **state)
{
    struct world *w = *state;
    uint64_t a, b;
    struct got g[8];
    unsigned n;

    again(w);
    worker(w, 1);
    a = to_stitch(w, C, 1, "a");
    takes(w, 1, 1, g, 1);
    assert_int_equal(g[0].task, SL_TASK_STITCH);
    pass_lease(w);
    worker(w, 2);
    w->user[8] = "v";
    client(w, 8);
    pull(w, 2, 1); /* the stitch: lost once */
    assert_int_equal(granted(w, 2, g, 8), 1);
    assert_true(g[0].job == a && g[0].task == SL_TASK_STITCH);
    b = ready_job(w, 8, 2, "b", 20, 20);
    pull(w, 2, 3);
    n = granted(w, 2, g, 8);
    assert_int_equal(count_of(g, n, b, false), 3);
    pass_lease(w); /* lost twice, and three of b once */
    worker(w, 3);
    pull(w, 3, 4);
    n = granted(w, 3, g, 8);
    assert_true(n == 1 || count_of(g, n, a, true) == 0); /* alone */
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[2]}");
    for (unsigned i = 0; i < n; i++)
        if (g[i].job == b)
            result(w, 3, g[i]);
    say(w, 3, "{\"v\":3,\"m\":\"bye\"}");
    /* Another job's stitch is under way there. */
    worker(w, 4);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[1]}");
    to_stitch(w, C, 4, "c");
    takes(w, 4, 1, g, 1);
    assert_int_equal(g[0].task, SL_TASK_STITCH);
    say(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[1,2]}");
    pull(w, 4, 3);
    n = granted(w, 4, g, 8);
    assert_int_equal(count_of(g, n, b, false), 3);
    assert_int_equal(count_of(g, n, a, true), 0);
}

static void gpu_worker(struct world *w, unsigned p, const char *device)
{
    say(w, p, "{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"t\",\"instance\":\"000000000000000000000000000000%02u\","
        "\"name\":\"n%u\",\"host\":\"h\",\"bytes\":\"1\",\"device\":\"%s\"}", p, p, device);
    expect(w, p, SL_M_WELCOME);
}

static void gpu_fails(struct world *w, unsigned p, struct got g)
{
    failed(w, p, g, 10, "");
    say(w, p, "{\"v\":3,\"m\":\"bye\"}");
}

/* A task at which GPUs fail is no attempt, rests as one that failed, and goes to a worker without one where there is one. */
static void a_gpu_that_fails_counts_too(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;

    again(w);
    gpu_worker(w, 1, "cuda:0");
    id = ready_job(w, C, 1, "a", 1, 1);
    for (unsigned n = 1; n <= LOSSES; n++) {
        takes(w, 1, 1, g, 1);
        assert_string_equal(state_of(w, C, id), "running");
        gpu_fails(w, 1, g[0]);
        gpu_worker(w, 1, "cuda:0");
        pull(w, 1, 1);
        assert_int_equal(granted(w, 1, g, 8), 0);
        later(w, (500u << n) + 500, (const unsigned[]){C, 1}, 2);
    }
    assert_string_equal(state_of(w, C, id), "failed");
    assert_string_equal(error_of(w, id), "task 0: 3 workers in a row went away or lost a GPU while they had it, n1 the last: no luck; "
                        "see its log, then 'sluice retry 1' goes on (1 of 1 tasks failed, 'sluice show 1' lists why)");
    say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[1]}");
    expect(w, C, SL_M_DONE);
    takes(w, 1, 1, g, 1);
    gpu_fails(w, 1, g[0]);
    gpu_worker(w, 2, "cpu");
    gpu_worker(w, 3, "cuda:0");
    later(w, 1500, (const unsigned[]){C, 2, 3}, 3);
    pull(w, 3, 1);
    assert_int_equal(granted(w, 3, g, 8), 1); /* the first may be that GPU's fault */
    gpu_fails(w, 3, g[0]);
    gpu_worker(w, 1, "cuda:0,cpu");
    gpu_worker(w, 3, "cuda:0");
    later(w, 13000, (const unsigned[]){C, 1, 2, 3}, 4); /* however long */
    pull(w, 1, 1);
    pull(w, 3, 1);
    assert_int_equal(granted(w, 1, g, 8) + granted(w, 3, g, 8), 0);
    assert_string_equal(state_of(w, C, id), "running: GPUs failed at what is left of it: waits for a worker without one");
    takes(w, 2, 1, g, 1);
    say(w, 2, "{\"v\":3,\"m\":\"bye\"}"); /* none is there any more */
    assert_int_equal(granted(w, 1, g, 8) + granted(w, 3, g, 8), 1);
}

/* The only worker without a GPU has what may take hours: it is not waited for. */
static void what_gpus_failed_at_waits_for_no_stitch(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;

    again(w);
    gpu_worker(w, 6, "cpu");
    to_stitch(w, C, 6, "a");
    takes(w, 6, 1, g, 1);
    assert_int_equal(g[0].task, SL_TASK_STITCH);
    gpu_worker(w, 3, "cuda:0");
    id = ready_job(w, C, 3, "b", 1, 1);
    for (unsigned p = 3; p < 5; p++) {
        gpu_worker(w, p, "cuda:0");
        later(w, p == 3 ? 0 : 1500, (const unsigned[]){C, 6, p}, 3);
        takes(w, p, 1, g, 1);
        assert_true(g[0].job == id);
        gpu_fails(w, p, g[0]);
    }
    gpu_worker(w, 5, "cuda:0");
    later(w, 2500, (const unsigned[]){C, 5, 6}, 3);
    pull(w, 6, 1);
    pull(w, 5, 1);
    assert_int_equal(granted(w, 6, g, 8), 0);
    assert_int_equal(granted(w, 5, g, 8), 1);
}

/* A GPU failed at it once, and a worker told of it since: what goes away with it then is no GPU's fault. */
static void a_gpu_that_failed_before_is_forgotten(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;

    again(w);
    gpu_worker(w, 1, "cuda:0");
    id = ready_job(w, C, 1, "a", 1, 1);
    takes(w, 1, 1, g, 1);
    gpu_fails(w, 1, g[0]);
    worker(w, 2);
    later(w, 1500, (const unsigned[]){C, 2}, 2);
    takes(w, 2, 1, g, 1);
    failed(w, 2, g[0], 1, "");
    say(w, 2, "{\"v\":3,\"m\":\"bye\"}");
    later(w, 1500, (const unsigned[]){C}, 1);
    for (unsigned p = 3; p < 3 + LOSSES - 1; p++) {
        dies_with(w, p, id);
        pass_lease(w);
    }
    gpu_worker(w, 5, "cpu");
    gpu_worker(w, 6, "cuda:0");
    takes(w, 6, 1, g, 1);
}

/* A GPU that fails at whatever it gets: no sooner than lost workers would it end the job. */
static void a_gpu_that_always_fails_ends_the_job(void **state)
{
    struct world *w = *state;
    struct got g[8];
    uint64_t id;
    unsigned n = 0;

    again(w);
    gpu_worker(w, 1, "cuda:0");
    id = ready_job(w, C, 1, "a", 60, 60);
    for (; n < 40 && strncmp(state_of(w, C, id), "running", 7) == 0; n++) {
        pull(w, 1, 2);
        assert_true(granted(w, 1, g, 8) > 0);
        gpu_fails(w, 1, g[0]);
        gpu_worker(w, 1, "cuda:0");
        later(w, 5000, (const unsigned[]){C, 1}, 2);
    }
    assert_string_equal(state_of(w, C, id), "failed");
    assert_true(n > LOSSES && n <= 3 * LOSSES);
    assert_non_null(strstr(error_of(w, id), ": 3 workers in a row went away or lost a GPU while they had it or others of the job's, "
                           "none of which was done, n1 the last: no luck; "));
}

/* What was lost goes to no worker with such a task, which gets others instead of running dry for it. */
static void what_was_lost_waits_for_what_takes_long(void **state)
{
    struct world *w = *state;
    uint64_t a, b, c;
    struct got g[8];
    unsigned n;

    again(w);
    worker(w, 1);
    a = ready_job(w, C, 1, "a", 1, 1);
    takes(w, 1, 1, g, 1);
    pass_lease(w);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[1]}");
    worker(w, 2);
    c = to_stitch(w, C, 2, "c");
    takes(w, 2, 1, g, 1);
    assert_true(g[0].job == c && g[0].task == SL_TASK_STITCH);
    b = ready_job(w, C, 2, "b", 5, 5);
    say(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[1]}");
    pull(w, 2, 5);
    n = granted(w, 2, g + 1, 7);
    assert_int_equal(n, 5);
    assert_int_equal(count_of(g + 1, n, b, false), 5);
    for (unsigned i = 0; i <= n; i++)
        result(w, 2, g[i]);
    pull(w, 2, 5);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[2,3]}");
    for (unsigned round = 0; round < 2 && (n = granted(w, 2, g, 8)) > 0 && g[0].job != a; round++) {
        for (unsigned i = 0; i < n; i++)
            result(w, 2, g[i]);
        pull(w, 2, 5);
    }
    assert_true(n == 1 && g[0].job == a && g[0].task == 0);
}

/* Of a sweep's two tasks of one number one failed, which told of it, before its worker went away with the other. */
static void what_was_lost_goes_alone_in_a_sweep(void **state)
{
    struct world *w = *state;
    char spec[2][400];
    struct got g[8];

    again(w);
    worker(w, 1);
    for (unsigned i = 0; i < 2; i++)
        snprintf(spec[i], sizeof spec[i], world_spec, "m", i ? "b" : "a");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"s\",\"specs\":[%s,%s]}", spec[0], spec[1]);
    takes(w, 1, 2, g, 2);
    prepared(w, 1, g[0], 2, 2);
    prepared(w, 1, g[1], 2, 2);
    takes(w, 1, 1, g, 2);
    assert_true(g[0].task == g[1].task);
    failed(w, 1, g[0], 1, "");
    pass_lease(w);
    worker(w, 2);
    takes(w, 2, 4, g, 3);
    for (unsigned i = 0; i < 3; i++)
        result(w, 2, g[i]);
    pull(w, 2, 4);
    assert_int_equal(granted(w, 2, g, 8), 1); /* not beside the other's stitch */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(many_tasks_that_end_workers_fail_their_job),
        TEST(workers_that_vanish_together_are_one),
        TEST(a_grant_just_before_they_vanish_is_no_other_loss),
        TEST(a_worker_is_lost_once),
        TEST(what_is_done_clears_its_job),
        TEST(a_job_beside_it_is_not_taken_for_it),
        TEST(what_takes_long_stands_in_nobodys_way),
        TEST(what_was_lost_waits_for_what_takes_long),
        TEST(what_was_lost_goes_alone_in_a_sweep),
        TEST(a_gpu_that_fails_counts_too),
        TEST(what_gpus_failed_at_waits_for_no_stitch),
        TEST(a_gpu_that_failed_before_is_forgotten),
        TEST(a_gpu_that_always_fails_ends_the_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
