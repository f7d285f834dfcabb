/* What the coordinator hands out next: shards in sequence, shares by priority, sweeps,
 * jobs that wait for others or for workers. */
#include "coord_world.h"

#include <signal.h>
#include <sys/resource.h>
#include <time.h>

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
            takes(w, v, 1, g, 1);
            assert_int_equal(g[0].task, (v - 1) * 10 + step); /* each its own shard, in sequence */
            result(w, v, g[0]);
            expect(w, v, SL_M_ACK);
        }
    /* At the end the largest goes first (task numbers are sizes here). */
    for (unsigned step = 0; step < 16; step++) {
        takes(w, 1, 1, g, 1);
        result(w, 1, g[0]);
    }
    takes(w, 1, 1, g, 1);
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
    takes(w, 1, 1, &g, 1);
    while (g.task != SL_TASK_PREPARE) {
        result(w, 1, g);
        takes(w, 1, 1, &g, 1);
    }
    prepared(w, 1, g, 60, 10);
    for (unsigned i = 0; i < 30; i++) {
        takes(w, 1, 1, &g, 1);
        n[g.job == a ? 0 : g.job == b ? 1 : 2]++;
        result(w, 1, g);
    }
    assert_true(n[0] >= 9 && n[0] <= 11 && n[1] >= 19 && n[1] <= 21);
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
    assert_string_equal(state_of(w, C, a), "held: held by u since 2023-11-14 22:13:20 UTC");
    assert_string_equal(state_of(w, C, b), "queued: waits for job 1");
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    say(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[1]}");
    assert_int_equal(granted(w, 1, &g, 1), 1); /* work comes by itself */
    assert_true(g.job == a);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
    assert_string_equal(state_of(w, C, b), "queued: waits for job 1, which did not succeed");
    /* Prepare is at work on the files that are to go: they go after it. */
    pull(w, 1, 1);
    snprintf(spec, sizeof spec, world_spec, "m", "a");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"c\",\"specs\":[%s]}", spec);
    c = (uint64_t)cJSON_GetArrayItem(sl_get(expect(w, C, SL_M_SUBMITTED), "jobs"), 0)->valuedouble;
    assert_int_equal(granted(w, 1, &h, 1), 0);
    assert_string_equal(state_of(w, C, c), "queued: waits until the files of job 1 are removed");
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[%llu]}", (unsigned long long)c);
    say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[1]}");
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "still to remove its files"));
    failed(w, 1, g, 1, "");
    takes(w, 1, 1, &g, 1);
    assert_true(g.job == a && g.task == SL_TASK_DISCARD);
    result(w, 1, g);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[%llu]}", (unsigned long long)c);
    changes(w, C, "retry", 1);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, a), "succeeded");
    assert_string_equal(state_of(w, C, b), "succeeded");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"q\",\"specs\":[],\"after\":[44]}");
    expect(w, C, SL_M_ERROR);
}

static void a_job_waits_for_busy_workers(void **state)
{
    struct world *w = *state;
    struct got g[4] = {{0}};
    uint64_t a, b;

    client(w, C);
    worker(w, 1);
    a = submit(w, C, "a", "");
    takes(w, 1, 1, g, 1);
    b = submit(w, C, "b", "");
    assert_string_equal(state_of(w, C, b), "queued: waits for its turn behind job 1");
    say(w, C, "{\"v\":3,\"m\":\"set\",\"jobs\":[%llu],\"priority\":51}", (unsigned long long)b);
    assert_string_equal(state_of(w, C, b), "queued: workers are busy with other jobs");
    failed(w, 1, g[0], 6, "");
    assert_string_equal(state_of(w, C, a), "failed");
    assert_string_equal(state_of(w, C, b), "queued: waits until a worker asks for work");
}

/* Does n tasks of job `of` at worker 1; what it gets in their place it must get from there too. */
static void does(struct world *w, uint64_t of, unsigned n)
{
    struct got g;

    while (n--) {
        takes(w, 1, 1, &g, 1);
        assert_true(g.job == of && g.task < SL_TASKS_MAX);
        result(w, 1, g);
        expect(w, 1, SL_M_ACK);
    }
}

static struct got prepares(struct world *w, unsigned v, uint64_t of)
{
    struct got g[2] = {{0}};

    takes(w, v, 1, g, 1);
    assert_true(g[0].job == of && g[0].task == SL_TASK_PREPARE);
    return g[0];
}

static void jobs_of_a_line_begin_one_after_another(void **state)
{
    struct world *w = *state;
    struct got g[8] = {{0}}, p;
    uint64_t a, b, c, d;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    a = submit(w, C, "a", "");
    b = submit(w, C, "b", "");
    c = submit(w, C, "c", "");
    p = prepares(w, 1, a);
    pull(w, 2, 4);
    assert_int_equal(granted(w, 2, g, 8), 0); /* nothing else is prepared meanwhile */
    assert_string_equal(state_of(w, C, c), "queued: waits for its turn behind job 1");
    pull(w, 2, 0);
    prepared(w, 1, p, 10, 10);
    does(w, a, 6);
    /* Four are ready, two for each worker: the next is prepared in time. */
    p = prepares(w, 1, b);
    takes(w, 2, 8, g, 4);
    assert_true(g[3].job == a && g[3].task < SL_TASKS_MAX);
    pull(w, 2, 0);
    prepared(w, 1, p, 10, 10);
    /* While it has enough the third waits, whatever the first has still to do. */
    for (unsigned i = 0; i < 4; i++)
        result(w, 2, g[i]);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[%llu]}", (unsigned long long)a);
    does(w, b, 5);
    /* Who has another priority, or is another user, waits for nobody. */
    d = submit(w, C, "d", ",\"priority\":51");
    failed(w, 1, prepares(w, 1, d), 6, "");
    w->user[8] = "v";
    client(w, 8);
    d = submit(w, 8, "e", "");
    failed(w, 1, prepares(w, 1, d), 6, "");
    assert_string_equal(state_of(w, C, c), "queued: waits for its turn behind job 2");
}

/* Numbers decide, not who came to memory first; and a job that is being prepared waits for nobody. */
static void a_line_stands_by_number(void **state)
{
    struct world *w = *state;
    struct got p;
    uint64_t a, b, c;

    client(w, C);
    worker(w, 1);
    a = submit(w, C, "a", "");
    b = submit(w, C, "b", "");
    c = submit(w, C, "c", "");
    changes(w, C, "cancel", a);
    changes(w, C, "retry", a);
    assert_string_equal(state_of(w, C, c), "queued: waits for its turn behind job 1");
    changes(w, C, "hold", a);
    p = prepares(w, 1, b);
    assert_string_equal(state_of(w, C, c), "queued: waits for its turn behind job 2");
    changes(w, C, "release", a);
    assert_string_equal(state_of(w, C, b), "running");
    assert_string_equal(state_of(w, C, a), "queued: waits for its turn behind job 2");
    failed(w, 1, p, 6, "");
    assert_string_equal(state_of(w, C, c), "queued: waits for its turn behind job 1");
    (void)prepares(w, 1, a);
}

/* A job that waits for another one's end, for its files' removal or for its next try holds up nobody. */
static void who_cannot_begin_holds_up_nobody(void **state)
{
    static const char *const now = "queued: waits until a worker asks for work";
    struct world *w = *state;
    uint64_t a, b, c, d;

    client(w, C);
    worker(w, 1);
    a = submit(w, C, "a", ",\"hold\":true");
    submit(w, C, "b", ",\"after\":[1]");
    c = submit(w, C, "c", "");
    assert_string_equal(state_of(w, C, c), now);
    failed(w, 1, prepares(w, 1, c), 1, "");
    d = submit(w, C, "d", "");
    assert_string_equal(state_of(w, C, d), now);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[%llu,%llu],\"discard\":true}", (unsigned long long)a,
        (unsigned long long)c);
    expect(w, C, SL_M_DONE);
    changes(w, C, "hold", d);
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"id\":\"s\",\"key\":\"A\",\"specs\":[{\"source\":\"/src/m\",\"output\":"
        "\"/out\",\"prefix\":\"a\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}]}");
    b = (uint64_t)cJSON_GetArrayItem(sl_get(expect(w, C, SL_M_SUBMITTED), "jobs"), 0)->valuedouble;
    assert_string_equal(state_of(w, C, b), "queued: waits until the files of job 1 are removed");
    d = submit(w, C, "e", "");
    assert_string_equal(state_of(w, C, d), now);
}

static void nobody_is_idle_for_a_line(void **state)
{
    static const unsigned both[] = {C, 1};
    struct world *w = *state;
    struct got g[16] = {{0}}, p;
    uint64_t a, b, c;

    client(w, C);
    worker(w, 1);
    a = submit(w, C, "a", "");
    b = submit(w, C, "b", "");
    c = submit(w, C, "c", "");
    /* A prepare that lasts, with signs of life: after the time of a lease the next begins. */
    p = prepares(w, 1, a);
    later(w, 6000, both, 2);
    say(w, 1, "{\"v\":3,\"m\":\"progress\",\"bytes\":1,\"tasks\":[]}");
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, g, 8), 0);
    later(w, 5000, both, 2);
    assert_int_equal(granted(w, 1, g, 8), 1);
    assert_true(g[0].job == b && g[0].task == SL_TASK_PREPARE);
    failed(w, 1, g[0], 6, "");
    /* Ten tasks that failed wait to be tried again: so the next is prepared. */
    prepared(w, 1, p, 10, 10);
    for (unsigned i = 0; i < 10; i++) {
        takes(w, 1, 1, g, 1);
        assert_true(g[0].job == a && g[0].task < SL_TASKS_MAX);
        failed(w, 1, g[0], 1, "");
    }
    p = prepares(w, 1, c);
    prepared(w, 1, p, 3, 3);
    does(w, c, 3);
}

static void a_sweep_stands_in_its_line_once(void **state)
{
    struct world *w = *state;
    char one[400], two[400];
    struct got g[4] = {{0}};
    uint64_t next;

    client(w, C);
    worker(w, 1);
    snprintf(one, sizeof one, world_spec, "m", "x");
    snprintf(two, sizeof two, world_spec, "m", "y");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[%s,%s]}", one, two);
    expect(w, C, SL_M_SUBMITTED);
    next = submit(w, C, "z", "");
    takes(w, 1, 4, g, 2);
    assert_true(g[0].job != next && g[1].job != next);
    prepared(w, 1, g[0], 8, 4);
    assert_int_equal(granted(w, 1, g + 2, 2), 0);
    prepared(w, 1, g[1], 8, 4);
    assert_string_equal(state_of(w, C, next), "queued: waits for its turn behind job 1");
}

static void a_held_job_says_by_whom(void **state)
{
    struct world *w = *state;
    uint64_t a;

    client(w, C);
    w->user[8] = "uid:1000";
    client(w, 8);
    a = submit(w, C, "a", "");
    say(w, 8, "{\"v\":3,\"m\":\"hold\",\"jobs\":[%llu]}", (unsigned long long)a);
    w->now.wall_ms += 5000;
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[%llu]}", (unsigned long long)a);
    world_stop(w); /* it is on the disk; who holds it once more is not */
    world_start(w);
    client(w, C);
    assert_string_equal(state_of(w, C, a), "held: held by uid:1000 since 2023-11-14 22:13:20 UTC");
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)a);
    assert_null(sl_get_str(sl_get(expect(w, C, SL_M_JOB), "job"), "error"));
    say(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[%llu]}", (unsigned long long)a);
    assert_string_equal(state_of(w, C, a), "queued: no worker is connected");
}

/* n sweeps of 50 jobs, the first half of them held. */
static void queue_up(struct world *w, unsigned n)
{
    static unsigned made;

    for (unsigned i = 0; i < n; i++) {
        char *text = malloc(20000), *s = text;

        made++;
        s += sprintf(s, "{\"v\":3,\"m\":\"submit\",\"key\":\"many%u\",\"specs\":[", made);
        for (unsigned k = 0; k < 50; k++)
            s += sprintf(s, "%s{\"source\":\"/src/m\",\"output\":\"/out\",\"prefix\":\"m%u.%u\",\"recipe\":\"r\","
                         "\"recipe_text\":\"default q4_k\\n\"}", k ? "," : "", made, k);
        sprintf(s, "]%s}", i < n / 2 ? ",\"hold\":true" : "");
        say(w, C, "%s", text);
        free(text);
        expect(w, C, SL_M_SUBMITTED);
    }
}

/* Processor time of the cheapest of some grants, in microseconds. */
static double grant_cost(struct world *w)
{
    double least = 1e9;
    struct got g = {0};

    for (unsigned i = 0; i < 12; i++) {
        struct timespec a, b;
        double us;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        pull(w, 1, 1);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        us = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
        least = us < least ? us : least;
        assert_int_equal(granted(w, 1, &g, 1), 1);
        result(w, 1, g);
        expect(w, 1, SL_M_ACK);
    }
    return least;
}

/* Eight times the jobs: eight times the walk, not 64 times. */
/* A task that failed is another worker's first, while there is one; after a lease's time it is
 * anybody's again. */
static void another_worker_first(void **state)
{
    static const unsigned alone[] = {C, 1}, both[] = {C, 1, 2};
    struct world *w = *state;
    struct got g;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 1, 1);
    takes(w, 1, 1, &g, 1);
    failed(w, 1, g, 1, "");
    pull(w, 1, 1);
    later(w, 500, alone, 2);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    later(w, 500, alone, 2);
    assert_int_equal(granted(w, 1, &g, 1), 1); /* there is no other */
    worker(w, 2);
    failed(w, 1, g, 1, "");
    pull(w, 1, 1);
    later(w, 11500, both, 3);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    later(w, 1000, both, 3);
    assert_int_equal(granted(w, 1, &g, 1), 1); /* the other does not ask */
    failed(w, 1, g, 1, "");
    pull(w, 1, 1);
    later(w, 4000, both, 3);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    takes(w, 2, 1, &g, 1);
}

static void a_grant_costs_no_more_than_a_walk(void **state)
{
    struct world *w = *state;
    double few, many;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 60, 60);
    queue_up(w, 8);
    few = grant_cost(w);
    queue_up(w, 56);
    many = grant_cost(w);
    if (many > 24 * few)
        fail_msg("a grant takes %.0f us with 400 jobs and %.0f us with 3200", few, many);
}

/* What a grant rests on is on disk before it leaves, also when nothing was written before that. */
static void a_grant_waits_for_what_it_rests_on(void **state)
{
    struct world *w = *state;
    struct rlimit old, none;
    struct sl_outgoing out;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 3, 3);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[1]}");
    pull(w, 1, 1);
    deliver(w);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    none = old;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &none);
    say_quietly(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[1]}");
    assert_true(sl_coord_flush(w->c, w->now, &w->e) < 0);
    setrlimit(RLIMIT_FSIZE, &old);
    while (sl_coord_next(w->c, &out)) {
        assert_null(memmem(out.bytes, out.n, "\"grant\"", 7));
        free(out.bytes);
    }
    w->now.run_ms += 1000;
    worker(w, 1);
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 0);
}

/* What workers tell adds up to more than the fields hold, in days of a fast disk. */
static void sums_stay_within_their_fields(void **state)
{
    struct world *w = *state;
    struct got g[2] = {0};
    cJSON *t;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    for (unsigned i = 0; i < 2; i++) {
        submit(w, C, i ? "b" : "a", "");
        takes(w, 1, 1, g, 1);
        say(w, 1, "{\"v\":3,\"m\":\"result\",\"job\":%llu,\"task\":65536,\"epoch\":%llu,\"bytes\":0,\"plan\":"
            "{\"fingerprint\":\"000102030405060708090a0b0c0d0e0f\",\"source\":\"s\",\"recipe\":\"r\",\"options\":\"o\","
            "\"version\":\"1\",\"file_bytes\":7,\"src_bytes\":[499999999999999,499999999999999],"
            "\"out_bytes\":[100,100],\"shard\":[0,1]}}", (unsigned long long)g->job, (unsigned long long)g->epoch);
        expect(w, 1, SL_M_ACK);
        for (unsigned p = 1; p <= 2; p++) {
            takes(w, i ? 1 : p, 1, &g[p - 1], 1);
            say(w, i ? 1 : p, "{\"v\":3,\"m\":\"progress\",\"bytes\":1,\"rate\":999999999999999,\"tasks\":"
                "[{\"job\":%llu,\"task\":%llu,\"epoch\":%llu,\"bytes\":1}]}", (unsigned long long)g[p - 1].job,
                (unsigned long long)g[p - 1].task, (unsigned long long)g[p - 1].epoch);
        }
        say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)g->job);
        t = sl_get(expect(w, C, SL_M_JOB), "job");
        assert_true(sl_get_uint(t, "rate", 0) == SL_WIRE_UINT_MAX);
        for (unsigned p = 1; p <= 2; p++) {
            result(w, i ? 1 : p, g[p - 1]);
            expect(w, i ? 1 : p, SL_M_ACK);
        }
        run_all(w, 1);
        pull(w, 1, 0);
    }
    say(w, C, "{\"v\":3,\"m\":\"workers\"}");
    t = sl_get(expect(w, C, SL_M_WORKER_LIST), "workers")->child;
    assert_true(sl_get_uint(t, "bytes", 0) == SL_WIRE_UINT_MAX);
    assert_true(sl_get_uint(t->next, "bytes", 0) == 499999999999999);
}

/* While workers are upgraded one after the other, each under the name that it had. */
static void what_another_release_does_not_know_is_tried_again(void **state)
{
    const unsigned alive[] = {1, 2, 3, C};
    struct world *w = *state;
    struct got g = {0};
    const cJSON *failures;
    uint64_t id;

    client(w, C);
    for (unsigned p = 2; p <= 3; p++) {
        say(w, p, "{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"s\",\"instance\":"
            "\"0000000000000000000000000000000%u\",\"name\":\"n%u\",\"host\":\"h\",\"bytes\":\"1\"}", p, p - 1);
        expect(w, p, SL_M_WELCOME);
    }
    id = submit(w, C, "a", "");
    takes(w, 2, 1, &g, 1);
    failed(w, 2, g, 6, "");
    assert_string_equal(state_of(w, C, id), "running: a task failed; tried again in 1 s");
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    failures = sl_get(expect(w, C, SL_M_JOB), "failures");
    assert_non_null(strstr(sl_get_str(failures->child, "text"), "worker n1 is of release s, the daemon of t"));
    worker(w, 1);
    later(w, 2000, alive, 4);
    for (unsigned p = 3; p >= 1; p--) {
        takes(w, p, 1, &g, p == 1);
    }
    failed(w, 1, g, 6, ""); /* the daemon's own release knows */
    assert_string_equal(state_of(w, C, id), "failed");
}

/* As two that were started alike on one machine. */
static void workers_of_one_name_do_not_wait_for_each_other(void **state)
{
    const unsigned alive[] = {1, 2, 3, C};
    struct world *w = *state;
    struct got g = {0};

    client(w, C);
    for (unsigned p = 1; p <= 2; p++) {
        say(w, p, "{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"t\",\"instance\":"
            "\"0000000000000000000000000000000%u\",\"name\":\"n\",\"host\":\"h\",\"bytes\":\"1\"}", p);
        expect(w, p, SL_M_WELCOME);
    }
    submit(w, C, "a", "");
    takes(w, 1, 1, &g, 1);
    failed(w, 1, g, 7, "");
    later(w, 2000, alive, 4);
    takes(w, 1, 1, &g, 1);
    failed(w, 1, g, 7, "");
    worker(w, 3); /* another name: it comes first */
    later(w, 3000, alive, 4);
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    takes(w, 3, 1, &g, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(shards_stay_together),
        TEST(workers_of_one_name_do_not_wait_for_each_other),
        TEST(jobs_share_by_priority),
        TEST(jobs_wait_for_others),
        TEST(a_job_waits_for_busy_workers),
        TEST(jobs_of_a_line_begin_one_after_another),
        TEST(a_line_stands_by_number),
        TEST(who_cannot_begin_holds_up_nobody),
        TEST(nobody_is_idle_for_a_line),
        TEST(a_sweep_stands_in_its_line_once),
        TEST(a_held_job_says_by_whom),
        TEST(another_worker_first),
        TEST(a_grant_costs_no_more_than_a_walk),
        TEST(a_grant_waits_for_what_it_rests_on),
        TEST(sums_stay_within_their_fields),
        TEST(what_another_release_does_not_know_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
