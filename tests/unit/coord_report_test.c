/* What clients are shown of jobs and workers. */
#include "coord_world.h"

static uint64_t shown(struct world *w, const char *field)
{
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":1}");
    return sl_get_uint(sl_get(expect(w, C, SL_M_JOB), "job"), field, 0);
}

/* A verification of the next day does not count as work of this one; one that fails ends the job then. */
static void a_later_verification_changes_no_end(void **state)
{
    struct world *w = *state;
    struct got g = {0};
    uint64_t ended;

    client(w, C);
    worker(w, 1);
    submit(w, C, "a", "");
    run_all(w, 1);
    ended = shown(w, "ended");
    assert_true(ended != 0);
    for (unsigned i = 0; i < 3; i++) {
        w->now.wall_ms += 86400000;
        say(w, C, "{\"v\":3,\"m\":\"verify\",\"job\":1}");
        expect(w, C, SL_M_DONE);
        if (i == 1) { /* from the disk, too */
            world_stop(w);
            world_start(w);
            client(w, C);
            worker(w, 1);
        }
        assert_int_equal(strncmp(state_of(w, C, 1), "verifying", 9), 0);
        assert_true(shown(w, "ended") == ended);
        takes(w, 1, 1, &g, 1);
        assert_int_equal(g.task, SL_TASK_VERIFY);
        if (i < 2) {
            result(w, 1, g);
            assert_string_equal(state_of(w, C, 1), "succeeded");
            assert_true(shown(w, "ended") == ended);
        } else {
            failed(w, 1, g, 8, "");
            assert_string_equal(state_of(w, C, 1), "failed");
            assert_true(shown(w, "ended") == w->now.wall_ms);
        }
    }
}

/* When it was submitted, begun and ended; and by whom each step. */
static void a_job_tells_its_times_and_workers(void **state)
{
    struct world *w = *state;
    uint64_t t0 = w->now.wall_ms;
    struct got g = {0};
    unsigned steps = 0;
    const cJSON *events, *x;

    client(w, C);
    worker(w, 1);
    submit(w, C, "a", "");
    w->now.wall_ms += 1000;
    takes(w, 1, 1, &g, 1);
    w->now.wall_ms += 1000;
    prepared(w, 1, g, 1, 1);
    run_all(w, 1);
    assert_true(shown(w, "submitted") == t0 && shown(w, "ended") == t0 + 2000);
    assert_true(shown(w, "started") > t0 && shown(w, "started") <= t0 + 2000);
    say(w, C, "{\"v\":3,\"m\":\"logs\",\"job\":1}");
    events = sl_get(expect(w, C, SL_M_LOG), "events");
    cJSON_ArrayForEach(x, events)
        if (sl_get_str(x, "worker"))
            steps += strcmp(sl_get_str(x, "worker"), "n1") == 0;
    assert_true(steps > 0);
}

static const cJSON *shown_worker(struct world *w)
{
    say(w, C, "{\"v\":3,\"m\":\"workers\"}");
    return cJSON_GetArrayItem(sl_get(expect(w, C, SL_M_WORKER_LIST), "workers"), 0);
}

/* Not what it told of before. */
static void a_worker_is_at_what_it_holds(void **state)
{
    struct world *w = *state;
    struct got g = {0}, next = {0};

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 1, 1);
    takes(w, 1, 1, &g, 1);
    say(w, 1, "{\"v\":3,\"m\":\"progress\",\"bytes\":1,\"rate\":5,\"tensor\":\"old\",\"tasks\":[{\"job\":1,\"task\":0,\"epoch\":%llu,"
        "\"bytes\":1}]}", (unsigned long long)g.epoch);
    assert_string_equal(sl_get_str(shown_worker(w), "tensor"), "old");
    assert_int_equal(shown(w, "rate"), 5);
    submit(w, C, "b", ",\"priority\":51");
    takes(w, 1, 1, &next, 1);
    assert_int_equal(sl_get_uint(shown_worker(w), "job", 0), 1);
    result(w, 1, g);
    pull(w, 1, 0);
    assert_int_equal(sl_get_uint(shown_worker(w), "job", 0), 2);
    assert_int_equal(sl_get_uint(shown_worker(w), "task", 0), SL_TASK_PREPARE);
    assert_null(sl_get_str(shown_worker(w), "tensor"));
}

/* Jobs whose names fill more than a message are listed in several, and do not keep those who watch from seeing others. */
static void long_names_hide_no_queue(void **state)
{
    struct world *w = *state;
    char path[7000] = "/", label[140] = "";
    unsigned n = 0;
    bool more = true;

    for (unsigned i = 0; i < 3400; i++)
        strcat(path, "\\\"");
    for (unsigned i = 0; i < 60; i++)
        strcat(label, "\\\"");
    client(w, C);
    for (unsigned k = 0; k < SL_JOBS_MAX; k++) {
        char *labels = calloc(32, 150), *end = labels;

        for (unsigned i = 0; i < 32; i++)
            end += sprintf(end, "%s\"%02u%s\"", i ? "," : "", i, label);
        say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"%u\",\"labels\":[%s],\"specs\":[{\"source\":\"%s\",\"output\":\"%s\","
            "\"prefix\":\"p%u\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}]}", k, labels, path, path, k);
        expect(w, C, SL_M_SUBMITTED);
        free(labels);
    }
    for (uint64_t before = SL_JOBS_MAX + 1; more;) {
        const cJSON *t, *j;

        say(w, C, "{\"v\":3,\"m\":\"list\",\"limit\":500,\"before\":%llu}", (unsigned long long)before);
        t = expect(w, C, SL_M_JOBS);
        more = sl_get_bool(t, "more");
        cJSON_ArrayForEach(j, sl_get(t, "jobs")) {
            assert_true(sl_get_uint(j, "id", 0) == before - 1);
            before--;
            n++;
        }
    }
    assert_int_equal(n, SL_JOBS_MAX);
    say(w, C, "{\"v\":3,\"m\":\"watch\"}");
    later(w, 1000, (const unsigned[]){C}, 1);
    assert_true(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_STATUS), "jobs")) > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_later_verification_changes_no_end),
        TEST(a_job_tells_its_times_and_workers),
        TEST(a_worker_is_at_what_it_holds),
        TEST(long_names_hide_no_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
