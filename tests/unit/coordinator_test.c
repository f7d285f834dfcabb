/* The coordinator under a clock of the test's own: whole jobs, lost leases, late
 * results, quarantine, draining, restarts. */
#include "coord_world.h"

#include <signal.h>
#include <sys/resource.h>

static void a_job_runs_to_its_end(void **state)
{
    struct world *w = *state;
    struct sl_coord_stats st;
    uint64_t id;
    cJSON *t;

    client(w, C);
    id = submit(w, C, "one", ",\"verify\":true,\"labels\":[\"a\"]");
    assert_string_equal(state_of(w, C, id), "queued: no worker is connected");
    for (unsigned i = 0; i < 2; i++) /* the second in place of the first */
        say(w, C, "{\"v\":3,\"m\":\"wait\",\"id\":\"w%u\",\"jobs\":[%llu]}", i, (unsigned long long)id);
    worker(w, 1);
    run_all(w, 1);
    t = expect(w, C, SL_M_ENDED);
    assert_string_equal(sl_get_str(t, "re"), "w1");
    t = sl_get(t, "job");
    assert_string_equal(sl_get_str(t, "state"), "succeeded");
    assert_null(heard(w, C, SL_M_ENDED));
    assert_int_equal(sl_get_uint(t, "done", 0), 6);
    assert_int_equal(sl_get_uint(t, "done_bytes", 0), 6 * 1000 + 15);
    assert_string_equal(sl_get(t, "files")->child->valuestring, "/out/a.gguf");
    sl_coord_stats(w->c, &st);
    assert_int_equal(st.jobs[SL_JOB_SUCCEEDED], 0); /* on disk alone */
    assert_string_equal(state_of(w, C, id), "succeeded");
    /* The same submit again is the same job. */
    assert_true(submit(w, C, "one", "") == id);
    say(w, C, "{\"v\":3,\"m\":\"logs\",\"job\":%llu}", (unsigned long long)id);
    t = sl_get(expect(w, C, SL_M_LOG), "events");
    assert_string_equal(sl_get_str(t->child, "kind"), "submitted");
    assert_true(cJSON_GetArraySize(t) >= 6);
    say(w, C, "{\"v\":3,\"m\":\"stitch\",\"job\":%llu}", (unsigned long long)id);
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "has succeeded"));
    changes(w, C, "forget", id);
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    assert_int_equal(sl_get_uint(expect(w, C, SL_M_ERROR), "code", 0), 5);
}

static void a_late_result_is_refused_and_harmless(void **state)
{
    struct world *w = *state;
    const unsigned both[] = {1, 2, C};
    struct got late = {0}, again = {0};

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    ready_job(w, C, 1, "a", 1, 1);
    takes(w, 1, 1, &late, 1);
    /* Stopped: it talks (or not), but nothing moves. */
    later(w, 9000, both, 3);
    assert_null(heard(w, 1, SL_M_REVOKE));
    later(w, 2000, both, 3);
    expect(w, 1, SL_M_REVOKE);
    takes(w, 2, 1, &again, 1);
    assert_true(again.task == late.task && again.epoch > late.epoch);
    result(w, 1, late);
    expect(w, 1, SL_M_NACK);
    failed(w, 2, again, 1, "");
    result(w, 2, again);
    expect(w, 2, SL_M_NACK); /* failed by itself: the lease is over */
    result(w, 1, (struct got){again.job, again.task, again.epoch + 1});
    expect(w, 1, SL_M_NACK); /* a forged epoch */
}

static void progress_keeps_a_lease(void **state)
{
    struct world *w = *state;
    const unsigned alive[] = {1, C};
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 1, 1);
    takes(w, 1, 1, &g, 1);
    for (unsigned i = 1; i < 8; i++) {
        later(w, 8000, alive, 2);
        say(w, 1, "{\"v\":3,\"m\":\"progress\",\"bytes\":%u,\"tasks\":[]}", i);
    }
    assert_null(heard(w, 1, SL_M_REVOKE));
    for (unsigned i = 0; i < 3; i++) {
        later(w, 4000, alive, 2);
        say(w, 1, "{\"v\":3,\"m\":\"progress\",\"bytes\":7,\"tasks\":[]}"); /* from a timer: no work */
    }
    expect(w, 1, SL_M_REVOKE);
}

#define STAGES "\"stages\":{\"kernels\":%u,\"waiting\":%u,\"no_slab\":0,\"sync\":0,\"reading\":0,\"ready\":0,\"writing\":9}"

static void stages_are_added_up_from_the_first_one_told(void **state)
{
    struct world *w = *state;
    struct sl_coord_stats st;

    worker(w, 1);
    worker(w, 2);
    say(w, 1, "{\"v\":3,\"m\":\"progress\",\"bytes\":1,\"tasks\":[]," STAGES "}", 700, 50);
    say(w, 2, "{\"v\":3,\"m\":\"progress\",\"bytes\":1,\"tasks\":[]," STAGES "}", 10, 0);
    say(w, 1, "{\"v\":3,\"m\":\"progress\",\"bytes\":2,\"tasks\":[]," STAGES "}", 1000, 60);
    say(w, 1, "{\"v\":3,\"m\":\"progress\",\"bytes\":2,\"tasks\":[]}");
    say(w, 2, "{\"v\":3,\"m\":\"progress\",\"bytes\":2,\"tasks\":[]," STAGES "}", 14, 0);
    sl_coord_stats(w->c, &st);
    assert_int_equal(st.stages[0], 304); /* kernels */
    assert_int_equal(st.stages[1], 10);
    assert_int_equal(st.stages[SL_STAGES - 1], 0);
}

static void gpus_are_those_of_connected_workers(void **state)
{
    struct world *w = *state;
    const unsigned alive[] = {C};
    struct sl_coord_stats st;
    const cJSON *list;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    say(w, 1, "{\"v\":3,\"m\":\"gpus\",\"gpus\":[{\"device\":\"cuda:0\",\"name\":\"A\",\"celsius\":50,\"watts\":300,"
              "\"memory\":9,\"memory_used\":4},{\"device\":\"cuda:1\",\"name\":\"B\",\"memory\":9}]}");
    say(w, 1, "{\"v\":3,\"m\":\"gpus\",\"gpus\":[{\"device\":\"cuda:0\",\"name\":\"A\",\"celsius\":51,\"watts\":301,"
              "\"memory\":9,\"memory_used\":5},{\"device\":\"cuda:1\",\"name\":\"B\",\"memory\":9}]}");
    sl_coord_stats(w->c, &st);
    assert_int_equal(st.n_gpus, 1); /* the other one told no temperature */
    assert_string_equal(st.gpus[0].device, "cuda:0");
    assert_int_equal(st.gpus[0].celsius, 51);
    assert_int_equal(st.gpus[0].memory_used, 5);
    say(w, C, "{\"v\":3,\"m\":\"workers\"}");
    list = sl_get(expect(w, C, SL_M_WORKER_LIST), "workers");
    assert_int_equal(cJSON_GetArraySize(list), 2);
    assert_int_equal(cJSON_GetArraySize(sl_get(list->child, "gpus")), 2);
    assert_null(sl_get(list->child->next, "gpus"));
    for (unsigned i = 0; i < 10; i++)
        later(w, 8000, alive, 1);
    sl_coord_stats(w->c, &st);
    assert_int_equal(st.n_gpus, 0); /* silent */
}

static void a_sleep_keeps_leases(void **state)
{
    struct world *w = *state;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 4, 2);
    takes(w, 1, 1, &g, 1);
    w->now.run_ms += 60000;
    sl_coord_woke(w->c, w->now);
    assert_int_equal(sl_coord_tick(w->c, w->now, &w->e), 0);
    result(w, 1, g);
    expect(w, 1, SL_M_ACK);
}

static void a_restart_keeps_leases(void **state)
{
    struct world *w = *state;
    struct got g[2] = {{0}};
    char held[300];
    cJSON *t;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 4, 2);
    takes(w, 1, 2, g, 2);
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
    world_stop(w);
    w->now.run_ms = 5; /* a reboot */
    world_start(w);
    result(w, 1, g[0]);
    expect(w, 1, SL_M_REHELLO);
    /* It holds one of the two, and one that never was. */
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu},{\"job\":1,\"task\":3,\"epoch\":777777777777777}]",
             (unsigned)g[0].task, (unsigned long long)g[0].epoch);
    hello(w, 1, "worker", held);
    t = sl_get(expect(w, 1, SL_M_WELCOME), "dropped");
    assert_int_equal(cJSON_GetArraySize(t), 1);
    assert_int_equal(sl_get_uint(t->child, "epoch", 0), 777777777777777);
    result(w, 1, g[0]);
    expect(w, 1, SL_M_ACK);
    result(w, 1, g[0]); /* the acknowledgement was lost */
    expect(w, 1, SL_M_ACK);
    result(w, 1, g[1]); /* given up by not naming it */
    expect(w, 1, SL_M_NACK);
    run_all(w, 1);
    client(w, C);
    assert_string_equal(state_of(w, C, 1), "succeeded");
}

/* The daemon dies before a lease is on disk, after its grant has left. */
static void a_grant_ahead_of_the_disk(void **state)
{
    struct world *w = *state;
    struct got g[3] = {{0}}, again[4] = {{0}};
    char held[300];
    cJSON *t;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    ready_job(w, C, 1, "a", 12, 6);
    takes(w, 1, 3, g, 3);
    assert_true(sl_queue_uncommitted(w->q)); /* the grants have left, the leases are not on disk */
    world_stop(w);
    world_start(w);
    /* Another one gets the first of them before the holder is back. */
    worker(w, 2);
    takes(w, 2, 1, again, 1);
    assert_true(again[0].task == g[0].task && again[0].epoch > g[0].epoch + 1000);
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu},{\"job\":1,\"task\":%u,\"epoch\":%llu}]",
             (unsigned)g[0].task, (unsigned long long)g[0].epoch, (unsigned)g[1].task, (unsigned long long)g[1].epoch);
    hello(w, 1, "worker", held);
    t = sl_get(expect(w, 1, SL_M_WELCOME), "dropped");
    assert_int_equal(cJSON_GetArraySize(t), 1);
    assert_int_equal(sl_get_uint(t->child, "task", 9), g[0].task);
    result(w, 1, g[0]);
    expect(w, 1, SL_M_NACK);
    result(w, 1, g[2]); /* not named: nobody holds it */
    expect(w, 1, SL_M_NACK);
    result(w, 2, again[0]);
    expect(w, 2, SL_M_ACK);
    /* The second is the worker's own again, and on disk before the next restart. */
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
    world_stop(w);
    world_start(w);
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu}]", (unsigned)g[1].task,
             (unsigned long long)g[1].epoch);
    hello(w, 2, "worker", held); /* claims what another holds */
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, 2, SL_M_WELCOME), "dropped")), 1);
    hello(w, 1, "worker", held);
    assert_null(sl_get(expect(w, 1, SL_M_WELCOME), "dropped"));
    result(w, 1, g[1]);
    expect(w, 1, SL_M_ACK);
    run_all(w, 1);
    client(w, C);
    assert_string_equal(state_of(w, C, 1), "succeeded");
}

/* Nobody takes over another's lease by saying its instance after a restart. */
static void an_instance_belongs_to_its_user(void **state)
{
    struct world *w = *state;
    struct got g = {0};
    char held[160];

    client(w, C);
    w->user[1] = "uid:7";
    worker(w, 1);
    ready_job(w, C, 1, "a", 2, 2);
    takes(w, 1, 1, &g, 1);
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
    world_stop(w);
    world_start(w);
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu}]", (unsigned)g.task, (unsigned long long)g.epoch);
    w->user[1] = "uid:8";
    hello(w, 1, "worker", held);
    assert_non_null(strstr(sl_get_str(expect(w, 1, SL_M_ERROR), "text"), "another user"));
    w->user[1] = "uid:7";
    hello(w, 1, "worker", held);
    assert_null(sl_get(expect(w, 1, SL_M_WELCOME), "dropped"));
    /* Nor by the number of its connection. */
    w->user[1] = "uid:8";
    result(w, 1, g);
    expect(w, 1, SL_M_REHELLO);
    w->user[1] = "uid:7";
    hello(w, 1, "worker", held);
    assert_null(sl_get(expect(w, 1, SL_M_WELCOME), "dropped"));
    result(w, 1, g);
    expect(w, 1, SL_M_ACK);
}

static void failures_quarantine_and_retry_does_the_rest(void **state)
{
    struct world *w = *state;
    const unsigned alive[] = {1, 2, 3, C};
    struct got g[8] = {{0}};
    unsigned bad = 0, good = 0, n;
    uint64_t id;
    cJSON *t;

    client(w, C);
    for (unsigned v = 1; v <= 3; v++)
        worker(w, v);
    id = ready_job(w, C, 1, "a", 5, 5);
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned v = 1; v <= 3; v++) {
            pull(w, v, 1);
            n = granted(w, v, g, 8);
            for (unsigned i = 0; i < n; i++) {
                if (g[i].task == 2) {
                    failed(w, v, g[i], 7, "");
                    bad++;
                } else {
                    result(w, v, g[i]);
                    expect(w, v, SL_M_ACK);
                    good++;
                }
            }
        }
        later(w, 2000, alive, 4);
    }
    assert_int_equal(bad, 3); /* three workers */
    assert_int_equal(good, 4);
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    t = expect(w, C, SL_M_JOB);
    assert_string_equal(sl_get_str(sl_get(t, "job"), "state"), "failed");
    assert_int_equal(sl_get_uint(sl_get(t, "job"), "code", 0), 7);
    assert_int_equal(cJSON_GetArraySize(sl_get(t, "failures")), 3);
    assert_string_equal(sl_get_str(t, "map"), "ddqdd");
    changes(w, C, "retry", id);
    takes(w, 1, 8, g, 1);
    assert_true(g[0].task == 2);
    result(w, 1, g[0]);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

static void what_cannot_work_fails_at_once(void **state)
{
    struct world *w = *state;
    uint64_t id;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    id = submit(w, C, "a", "");
    takes(w, 1, 1, &g, 1);
    failed(w, 1, g, 6, "");
    assert_string_equal(state_of(w, C, id), "failed");
    /* Bytes that are wrong stay so; a disk that cannot be read may be back. */
    id = ready_job(w, C, 1, "b", 1, 1);
    run_all(w, 1);
    for (int code = 8; code; code = code == 8 ? 1 : 0) {
        say(w, C, "{\"v\":3,\"m\":\"verify\",\"job\":%llu}", (unsigned long long)id);
        takes(w, 1, 1, &g, 1);
        assert_true(g.job == id && g.task == SL_TASK_VERIFY);
        failed(w, 1, g, code, "");
        assert_memory_equal(state_of(w, C, id), code == 8 ? "failed" : "verifying", 6);
        if (code == 8) {
            say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[%llu]}", (unsigned long long)id);
            run_all(w, 1);
        }
    }
}

static void bad_bytes_are_made_again(void **state)
{
    struct world *w = *state;
    struct got g[8] = {{0}};
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 3, 3);
    takes(w, 1, 3, g, 3);
    /* The size is held against the plan. */
    say(w, 1, "{\"v\":3,\"m\":\"result\",\"job\":1,\"task\":%u,\"epoch\":%llu,\"bytes\":99,"
        "\"checksum\":\"0000000000000000\"}", (unsigned)g[0].task, (unsigned long long)g[0].epoch);
    assert_int_equal(sl_get_uint(expect(w, 1, SL_M_NACK), "code", 0), 8);
    later(w, 2000, (unsigned[]){1, C}, 2);
    for (int i = 1; i < 3; i++)
        result(w, 1, g[i]);
    takes(w, 1, 1, g, 1);
    result(w, 1, g[0]);
    takes(w, 1, 1, g, 1);
    assert_true(g[0].task == SL_TASK_STITCH);
    assert_string_equal(state_of(w, C, id), "stitching");
    /* A number that no task has (2^32, 0 in its low half) names none. */
    failed(w, 1, g[0], 8, ",\"bad\":[1,4294967296]");
    assert_string_equal(state_of(w, C, id), "running: waits until a worker asks for work");
    takes(w, 1, 4, g, 1);
    assert_true(g[0].task == 1);
    result(w, 1, g[0]);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

static void draining_and_leaving(void **state)
{
    struct world *w = *state;
    struct got g[4] = {{0}};
    struct sl_outgoing out;
    unsigned byes = 0;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    ready_job(w, C, 1, "a", 8, 4);
    takes(w, 1, 2, g, 2);
    say(w, C, "{\"v\":3,\"m\":\"drain_worker\",\"worker\":\"n1\"}");
    expect(w, 1, SL_M_DRAIN);
    pull(w, 1, 2);
    assert_int_equal(granted(w, 1, g + 2, 2), 0);
    result(w, 1, g[0]);
    expect(w, 1, SL_M_ACK);
    say(w, 1, "{\"v\":3,\"m\":\"bye\"}"); /* with a task in hand: it goes back at once */
    takes(w, 2, 1, g + 2, 1);
    say(w, C, "{\"v\":3,\"m\":\"workers\"}");
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_WORKER_LIST), "workers")), 1 + 1);
    later(w, 1000, (unsigned[]){2, C}, 2);
    say(w, C, "{\"v\":3,\"m\":\"workers\"}");
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_WORKER_LIST), "workers")), 1);
    say(w, C, "{\"v\":3,\"m\":\"drain_worker\",\"worker\":\"nobody\"}");
    assert_int_equal(sl_get_uint(expect(w, C, SL_M_ERROR), "code", 0), 5);
    /* The daemon leaves, too: everybody who is here hears of it. */
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
    deliver(w);
    for (sl_coord_say_bye(w->c, "restarting"); sl_coord_next(w->c, &out); free(out.bytes))
        byes += memmem(out.bytes, out.n, "\"bye\"", 5) != NULL && memmem(out.bytes, out.n, "restarting", 10) != NULL;
    assert_int_equal(byes, 2);
}

static void roles_are_kept(void **state)
{
    struct world *w = *state;

    w->role[3] = SL_ROLE_SUBMITTER;
    hello(w, 3, "worker", NULL);
    assert_non_null(strstr(sl_get_str(expect(w, 3, SL_M_ERROR), "text"), "submitter"));
    w->role[4] = SL_ROLE_WORKER;
    hello(w, 4, "client", NULL);
    expect(w, 4, SL_M_ERROR);
    client(w, 3);
    say(w, 3, "{\"v\":3,\"m\":\"drain_worker\",\"worker\":\"n1\"}");
    assert_non_null(strstr(sl_get_str(expect(w, 3, SL_M_ERROR), "text"), "admin"));
    worker(w, 4);
    say(w, 4, "{\"v\":3,\"m\":\"list\"}");
    assert_non_null(strstr(sl_get_str(expect(w, 4, SL_M_ERROR), "text"), "not a message for this side"));
    say(w, 5, "{\"v\":3,\"m\":\"pull\",\"want\":1}");
    expect(w, 5, SL_M_REHELLO);
    say(w, 5, "garbage");
    expect(w, 5, SL_M_ERROR);
    say(w, 5, "{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"t\",\"instance\":"
        "\"00000000000000000000000000000005\",\"name\":\"n\",\"host\":\"h\",\"bytes\":\"0\"}");
    assert_int_equal(sl_get_uint(expect(w, 5, SL_M_ERROR), "code", 0), 6);
}

/* Number 0 is nobody's job, not everybody's. */
static void job_0_is_none(void **state)
{
    static const char *const verbs[] = {"cancel", "hold", "release", "retry", "set", "forget", "wait"};
    static const char *const single[] = {"show", "stitch", "verify"};
    struct world *w = *state;
    uint64_t id;

    client(w, C);
    id = submit(w, C, "a", "");
    for (unsigned i = 0; i < 7; i++) {
        say(w, C, "{\"v\":3,\"m\":\"%s\",\"jobs\":[0]}", verbs[i]);
        assert_int_equal(sl_get_uint(expect(w, C, SL_M_ERROR), "code", 0), 5);
    }
    for (unsigned i = 0; i < 3; i++) {
        say(w, C, "{\"v\":3,\"m\":\"%s\",\"job\":0}", single[i]);
        assert_int_equal(sl_get_uint(expect(w, C, SL_M_ERROR), "code", 0), 5);
    }
    assert_string_equal(state_of(w, C, id), "queued: no worker is connected");
}

static void one_output_one_job(void **state)
{
    struct world *w = *state;
    char spec[400];

    client(w, C);
    submit(w, C, "a", "");
    snprintf(spec, sizeof spec, world_spec, "m", "a");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"other\",\"specs\":[%s]}", spec);
    assert_int_equal(sl_get_uint(expect(w, C, SL_M_ERROR), "code", 0), 13);
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"a\",\"specs\":[%s,%s]}", spec, spec);
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "another request"));
}

static void watchers_hear_everything(void **state)
{
    struct world *w = *state;
    uint64_t id;
    cJSON *t;

    client(w, C);
    client(w, 8);
    say(w, 8, "{\"v\":3,\"m\":\"watch\",\"every_ms\":500}");
    expect(w, 8, SL_M_WATCHING);
    id = submit(w, C, "a", "");
    t = sl_get(expect(w, 8, SL_M_EVENT), "event");
    assert_string_equal(sl_get_str(t, "kind"), "submitted");
    later(w, 1000, (unsigned[]){8, C}, 2);
    t = expect(w, 8, SL_M_STATUS);
    assert_int_equal(sl_get_uint(sl_get(t, "jobs")->child, "id", 0), id);
    /* The past as the present: of the jobs that are watched. */
    submit(w, C, "b", "");
    submit(w, C, "c", "");
    for (unsigned i = 0; i < 2; i++) {
        unsigned n = 0;

        say(w, 8, "{\"v\":3,\"m\":\"watch\",\"since\":0,\"jobs\":[%s]}", i ? "" : "1,3");
        for (expect(w, 8, SL_M_WATCHING); (t = heard(w, 8, SL_M_EVENT)) != NULL; n++)
            assert_int_not_equal(sl_get_uint(sl_get(t, "event"), "job", 0), 2);
        assert_int_equal(n, i ? 0 : 2);
    }
    /* Silence: the daemon pings, then forgets. */
    later(w, 5000, (unsigned[]){C}, 1);
    expect(w, 8, SL_M_PING);
    say(w, 8, "{\"v\":3,\"m\":\"list\"}");
    expect(w, 8, SL_M_REHELLO);
}

/* The disk is full: nothing is acknowledged, nothing is half done, and it goes on
 * when there is room. */
static void a_full_disk_acknowledges_nothing(void **state)
{
    struct world *w = *state;
    struct rlimit old, none;
    struct sl_outgoing out;
    struct got g = {0};
    bool rehello = false;
    char held[160];

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 3, 3);
    takes(w, 1, 1, &g, 1);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    none = old;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &none);
    say_quietly(w, 1, "{\"v\":3,\"m\":\"result\",\"job\":1,\"task\":%u,\"epoch\":%llu,\"bytes\":100,"
                "\"checksum\":\"00000000000000aa\"}", (unsigned)g.task, (unsigned long long)g.epoch);
    assert_true(sl_coord_flush(w->c, w->now, &w->e) < 0);
    setrlimit(RLIMIT_FSIZE, &old);
    while (sl_coord_next(w->c, &out)) {
        assert_null(memmem(out.bytes, out.n, "\"ack\"", 5));
        rehello |= memmem(out.bytes, out.n, "\"rehello\"", 9) != NULL;
        free(out.bytes);
    }
    assert_true(rehello);
    client(w, C);
    assert_non_null(strstr(state_of(w, C, 1), "running: the daemon's queue failed: "));
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu}]", (unsigned)g.task, (unsigned long long)g.epoch);
    w->now.run_ms += 1000;
    hello(w, 1, "worker", held);
    assert_null(sl_get(expect(w, 1, SL_M_WELCOME), "dropped"));
    result(w, 1, g);
    expect(w, 1, SL_M_ACK);
    assert_string_equal(state_of(w, C, 1), "running: waits until a worker asks for work");
    run_all(w, 1);
    assert_string_equal(state_of(w, C, 1), "succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_runs_to_its_end),
        TEST(a_late_result_is_refused_and_harmless),
        TEST(progress_keeps_a_lease),
        TEST(gpus_are_those_of_connected_workers),
        TEST(stages_are_added_up_from_the_first_one_told),
        TEST(a_sleep_keeps_leases),
        TEST(a_restart_keeps_leases),
        TEST(a_grant_ahead_of_the_disk),
        TEST(an_instance_belongs_to_its_user),
        TEST(failures_quarantine_and_retry_does_the_rest),
        TEST(what_cannot_work_fails_at_once),
        TEST(bad_bytes_are_made_again),
        TEST(draining_and_leaving),
        TEST(roles_are_kept),
        TEST(job_0_is_none),
        TEST(one_output_one_job),
        TEST(a_full_disk_acknowledges_nothing),
        TEST(watchers_hear_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
