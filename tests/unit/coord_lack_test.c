/* Workers whose machine has not a job's folder: they keep nobody from doing it, and a discard is not
 * done because one of them finds nothing. */
#include "coord_world.h"

#define LACKS (-SL_ELACKS)

static unsigned pulled(struct world *w, unsigned v, struct got *g, unsigned max)
{
    pull(w, v, 1);
    return granted(w, v, g, max);
}

/* It is not its any more. */
static void failed_late(struct world *w, unsigned v, struct got g)
{
    say(w, v, "{\"v\":3,\"m\":\"fail\",\"job\":%llu,\"task\":%llu,\"epoch\":%llu,\"code\":11,\"text\":\"x\"}",
        (unsigned long long)g.job, (unsigned long long)g.task, (unsigned long long)g.epoch);
    expect(w, v, SL_M_NACK);
}

static void passes(struct world *w, unsigned seconds)
{
    static const unsigned all[] = {1, 2, 3, 4, C};

    while (seconds--) {
        later(w, 1000, all, 5);
        for (unsigned i = 0; i < 5; i++)
            heard(w, all[i], SL_M_BYE); /* what they heard is forgotten */
    }
}

/* Three that lack the folder fail one task each, however few attempts a task has and though three workers are enough
 * for quarantine; then they get nothing of the job until they say hello again, or for ten minutes. */
static void others_go_on_without_them(void **state)
{
    struct world *w = *state;
    struct got g, two[2], b;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    for (unsigned v = 2; v <= 4; v++)
        worker(w, v);
    submit(w, C, "b", ",\"priority\":40");
    assert_int_equal(pulled(w, 4, &b, 1), 1); /* keeps it busy */
    id = submit(w, C, "a", ",\"attempts\":1");
    assert_int_equal(pulled(w, 4, &g, 1), 1);
    prepared(w, 4, g, 6, 3);
    takes(w, 1, 2, two, 2);
    failed(w, 1, two[0], LACKS, "");
    failed_late(w, 1, two[1]);
    for (unsigned v = 2; v <= 3; v++) {
        assert_int_equal(pulled(w, v, &g, 1), 1); /* at once */
        failed(w, v, g, LACKS, "");
    }
    for (unsigned v = 1; v <= 3; v++)
        assert_int_equal(pulled(w, v, &g, 1), 0);
    assert_string_equal(state_of(w, C, id), "running: workers are busy with other jobs");
    for (unsigned v = 1; v <= 3; v++)
        pull(w, v, 0);
    hello(w, 1, "worker", "[]");
    expect(w, 1, SL_M_WELCOME);
    assert_int_equal(pulled(w, 1, &g, 1), 1);
    result(w, 1, g);
    failed(w, 4, b, 6, "");
    passes(w, 599);
    assert_int_equal(pulled(w, 2, &g, 1), 0);
    passes(w, 1);
    assert_int_equal(granted(w, 2, &g, 1), 1);
    failed(w, 2, g, LACKS, "");
    run_all(w, 4);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

/* Where no other worker is left, it is an attempt as any other; what is failed by is no exit code of its own.
 * retry asks all of them again. */
static void fails_without_others(struct world *w, int code, unsigned exit)
{
    struct got g;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    id = submit(w, C, "a", ",\"attempts\":1");
    assert_int_equal(pulled(w, 1, &g, 1), 1);
    failed(w, 1, g, code, "");
    assert_int_equal(pulled(w, 1, &g, 1), 0);
    say(w, 2, "{\"v\":3,\"m\":\"bye\"}");
    assert_int_equal(granted(w, 1, &g, 1), 1);
    failed(w, 1, g, code, "");
    assert_string_equal(state_of(w, C, id), "failed");
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    assert_int_equal(sl_get_uint(sl_get(expect(w, C, SL_M_JOB), "job"), "code", 0), exit);
    worker(w, 2);
    say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[%llu]}", (unsigned long long)id);
    assert_int_equal(pulled(w, 1, &g, 1), 1);
}

static void without_the_folder_the_job_fails(void **state)
{
    fails_without_others(*state, LACKS, 1);
}

static void without_the_source_the_job_fails(void **state)
{
    fails_without_others(*state, -SL_ENOSOURCE, 7);
}

/* One that may take too little memory for a prepared job, too; the last such one ends it, with what it says. */
static void too_little_memory_is_another_workers_task(void **state)
{
    struct world *w = *state;
    struct got g, two[2];
    uint64_t id;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    id = ready_job(w, C, 2, "a", 6, 3);
    takes(w, 1, 2, two, 2);
    failed(w, 1, two[0], 2, "");
    failed_late(w, 1, two[1]);
    assert_int_equal(pulled(w, 1, &g, 1), 0);
    assert_int_equal(pulled(w, 2, &g, 1), 1);
    result(w, 2, g);
    say(w, 2, "{\"v\":3,\"m\":\"bye\"}");
    assert_string_equal(state_of(w, C, id), "running: waits for a worker that has memory for it (--mem): one that had left");
    passes(w, 10);
    assert_int_equal(granted(w, 1, &g, 1), 1);
    assert_int_equal(strncmp(state_of(w, C, id), "running", 7), 0);
    failed(w, 1, g, 2, "");
    assert_string_equal(state_of(w, C, id), "failed");
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    assert_int_equal(sl_get_uint(sl_get(expect(w, C, SL_M_JOB), "job"), "code", 0), 2);
}

/* One that had tasks of the job and leaves, in order, silently or drained, may be the only one that has the folder: for a
 * lease it is waited for, and nobody fails in its place; then those who are there are asked. */
static void who_leaves_is_waited_for(void **state)
{
    static const char *const waits = "running: waits for a worker that has its folder and files: one that had left";
    static const unsigned alive[] = {2, C};
    struct world *w = *state;
    struct got g = {0};
    uint64_t id;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    id = ready_job(w, C, 1, "a", 6, 3);
    for (unsigned how = 0; how < 3; how++) {
        if (how == 0)
            say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
        else if (how == 1)
            say(w, C, "{\"v\":3,\"m\":\"drain_worker\",\"worker\":\"n1\"}");
        else
            later(w, 4000, alive, 2);
        if (pulled(w, 2, &g, 1)) /* once, as anybody may */
            failed(w, 2, g, LACKS, "");
        if (how == 1) /* and has not gone yet */
            assert_string_equal(state_of(w, C, id), waits);
        assert_true(how > 0 || g.epoch > 0);
        later(w, 5000, alive, 2);
        assert_string_equal(state_of(w, C, id), waits);
        assert_int_equal(granted(w, 2, &g, 1), 0);
        worker(w, 1);
        assert_int_equal(pulled(w, 1, &g, 1), 1);
        result(w, 1, g);
        pull(w, 1, 0);
    }
    say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    later(w, 9500, alive, 2);
    assert_int_equal(granted(w, 2, &g, 1), 0);
    later(w, 1000, alive, 2);
    for (unsigned n = 0; n < 4000 && strcmp(state_of(w, C, id), "failed") != 0; n++) {
        if (pulled(w, 2, &g, 1))
            failed(w, 2, g, LACKS, "");
        later(w, 500, alive, 2);
    }
    assert_string_equal(state_of(w, C, id), "failed");
}

/* Two that lack it do not wait for each other: each fails once before it counts, then as often as a task may. The
 * daemon's restart forgets who lacked it. */
static void all_that_lack_it_end_the_job(void **state)
{
    struct world *w = *state;
    unsigned n = 0;
    struct got g;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    id = submit(w, C, "a", ",\"attempts\":2");
    assert_int_equal(pulled(w, 1, &g, 1), 1);
    failed(w, 1, g, LACKS, "");
    world_stop(w);
    world_start(w);
    client(w, C);
    worker(w, 1);
    worker(w, 2);
    for (unsigned s = 0; s < 30; s++, passes(w, 1))
        for (unsigned v = 1; v <= 2; v++)
            if (pulled(w, v, &g, 1)) {
                failed(w, v, g, LACKS, "");
                n++;
            }
    assert_int_equal(n, 3);
    assert_string_equal(state_of(w, C, id), "failed");
}

/* Of a sweep with two folders a worker that lacks one does what goes to the other, and is told of no other job. */
static void a_sweep_goes_on_by_folders(void **state)
{
    struct world *w = *state;
    struct got g[2];
    char spec[2][400];
    uint64_t id[2];
    cJSON *t;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    for (unsigned i = 0; i < 2; i++)
        snprintf(spec[i], sizeof spec[i], world_spec, "m", i ? "b" : "a");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"s\",\"specs\":[%s,%s],\"attempts\":1}", spec[0], spec[1]);
    t = sl_get(expect(w, C, SL_M_SUBMITTED), "jobs");
    for (unsigned i = 0; i < 2; i++)
        id[i] = (uint64_t)cJSON_GetArrayItem(t, (int)i)->valuedouble;
    takes(w, 2, 2, g, 2);
    for (unsigned i = 0; i < 2; i++)
        prepared(w, 2, g[i], 6, 3);
    assert_int_equal(pulled(w, 1, g, 2), 2); /* one place of the source for both */
    failed(w, 1, g[1], LACKS, "");
    result(w, 1, g[0]);
    for (unsigned i = 0; i < 5; i++) {
        struct got one;

        assert_int_equal(pulled(w, 1, &one, 1), 1);
        assert_int_equal(one.job, g[0].job);
        result(w, 1, one);
    }
    run_all(w, 2);
    for (unsigned i = 0; i < 2; i++)
        assert_string_equal(state_of(w, C, id[i]), "succeeded");
}

static void cancelled(struct world *w, uint64_t id)
{
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[%llu],\"discard\":true}", (unsigned long long)id);
    expect(w, C, SL_M_DONE);
}

static bool is_forgotten(struct world *w, uint64_t id)
{
    say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[%llu]}", (unsigned long long)id);
    return heard(w, C, SL_M_DONE) != NULL;
}

static void discards(struct world *w, unsigned v, uint64_t id, const char *how)
{
    struct got g;

    assert_int_equal(pulled(w, v, &g, 1), 1);
    assert_true(g.job == id && g.task == SL_TASK_DISCARD);
    say(w, v, "{\"v\":3,\"m\":\"%s,\"job\":%llu,\"task\":%llu,\"epoch\":%llu}", how, (unsigned long long)g.job,
        (unsigned long long)g.task, (unsigned long long)g.epoch);
    expect(w, v, SL_M_ACK);
}
#define FOUND "result\",\"bytes\":1"
#define NOTHING "result\",\"bytes\":0"
#define NO_FOLDER "fail\",\"code\":11,\"text\":\"x\""

/* Prepared by worker `by`. */
static uint64_t cancelled_job(struct world *w, unsigned by, const char *name)
{
    uint64_t id = ready_job(w, C, by, name, 6, 3);

    cancelled(w, id);
    return id;
}

/* An empty folder may be one that is not mounted. */
static void who_finds_nothing_asks_another(void **state)
{
    struct world *w = *state;
    struct got g;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    id = cancelled_job(w, 1, "a");
    discards(w, 1, id, NOTHING);
    assert_false(is_forgotten(w, id));
    assert_int_equal(pulled(w, 1, &g, 1), 0);
    discards(w, 2, id, FOUND);
    assert_true(is_forgotten(w, id));
    pull(w, 1, 0);
    id = cancelled_job(w, 1, "b");
    discards(w, 1, id, NOTHING);
    discards(w, 2, id, NOTHING); /* nobody has them */
    assert_true(is_forgotten(w, id));
    id = ready_job(w, C, 1, "c", 6, 3);
    assert_int_equal(pulled(w, 1, &g, 1), 1);
    failed(w, 1, g, LACKS, "");
    cancelled(w, id);
    discards(w, 2, id, NOTHING);
    discards(w, 1, id, FOUND); /* they are mounted there again */
    assert_true(is_forgotten(w, id));
    id = cancelled_job(w, 1, "d");
    discards(w, 1, id, NOTHING);
    discards(w, 2, id, NO_FOLDER);
    assert_true(is_forgotten(w, id));
}

/* One that died while it removed them is not waited for; three that failed are asked once more when a client asks. */
static void a_discard_ends(void **state)
{
    static const unsigned alive[] = {1, C};
    struct world *w = *state;
    struct got g;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    id = cancelled_job(w, 2, "a");
    discards(w, 1, id, NOTHING);
    assert_int_equal(pulled(w, 2, &g, 1), 1);
    later(w, 15000, alive, 2);
    discards(w, 1, id, NOTHING);
    assert_true(is_forgotten(w, id));
    worker(w, 2);
    worker(w, 3);
    id = cancelled_job(w, 1, "b");
    for (unsigned v = 1; v <= 3; v++) {
        discards(w, v, id, "fail\",\"code\":1,\"text\":\"x\"");
        passes(w, 4);
        assert_true(v == 3 || !is_forgotten(w, id));
    }
    cancelled(w, id);
    discards(w, 1, id, "fail\",\"code\":1,\"text\":\"x\"");
    assert_false(is_forgotten(w, id));
}

/* Of a job whose prepare was never begun, or failed for want of the folder, there is nothing to remove by hand. */
static void a_job_that_never_began_leaves_nothing(void **state)
{
    struct world *w = *state;
    struct got g;
    uint64_t id;

    client(w, C);
    id = submit(w, C, "a", "");
    cancelled(w, id);
    worker(w, 1);
    discards(w, 1, id, NO_FOLDER);
    assert_true(is_forgotten(w, id));
    id = submit(w, C, "b", ",\"attempts\":1");
    for (int again = 0; again < 2; again++) {
        assert_int_equal(pulled(w, 1, &g, 1), 1);
        failed(w, 1, g, LACKS, "");
        assert_string_equal(state_of(w, C, id), "failed");
        if (!again)
            say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[%llu]}", (unsigned long long)id);
    }
    cancelled(w, id);
    discards(w, 1, id, NO_FOLDER);
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_JOB), "failures")), 2); /* this is none */
    assert_true(is_forgotten(w, id));
    id = submit(w, C, "c", "");
    assert_int_equal(pulled(w, 1, &g, 1), 1);
    hello(w, 1, "worker", "[]"); /* it began that, and knows no more of it */
    cancelled(w, id);
    discards(w, 1, id, NO_FOLDER);
    assert_false(is_forgotten(w, id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(others_go_on_without_them),
        TEST(without_the_folder_the_job_fails),
        TEST(without_the_source_the_job_fails),
        TEST(too_little_memory_is_another_workers_task),
        TEST(who_leaves_is_waited_for),
        TEST(all_that_lack_it_end_the_job),
        TEST(a_sweep_goes_on_by_folders),
        TEST(who_finds_nothing_asks_another),
        TEST(a_discard_ends),
        TEST(a_job_that_never_began_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
