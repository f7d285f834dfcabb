/* What a disk, or somebody, changed in a queue is not believed. */
#include <sqlite3.h>

#include "tests/unit/coord_world.h"

static void alter(struct world *w, const char *sql)
{
    sqlite3 *db;

    world_stop(w);
    assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    w->c = NULL;
    w->q = NULL;
}

/* What a client asks of job 1 is answered with what is wrong with it, and how it is taken out. */
static void is_told_damaged(struct world *w, const char *ask)
{
    cJSON *m;

    say(w, C, "{\"v\":3,\"m\":%s}", ask);
    m = expect(w, C, SL_M_ERROR);
    assert_int_equal(sl_get_uint(m, "code", 0), -SL_EFAIL);
    if (!strstr(sl_get_str(m, "text"), "job 1 cannot be read, it is damaged: ") ||
        !strstr(sl_get_str(m, "text"), "; 'sluice forget 1' takes it out"))
        fail_msg("%s", sl_get_str(m, "text"));
}

static void a_damaged_queue_is_refused(void **state)
{
    static const char *const damage[][2] = {
        {"UPDATE tasks SET state = 9 WHERE task = 1", "UPDATE tasks SET state = 0 WHERE task = 1"},
        {"UPDATE tasks SET state = 4294967296 WHERE task = 1", "UPDATE tasks SET state = 0 WHERE task = 1"},
        {"UPDATE tasks SET epoch = 1 << 60 WHERE task = 1", "UPDATE tasks SET epoch = 0 WHERE task = 1"},
        {"UPDATE jobs SET spec = replace(spec, 'output', 'outpux')",
         "UPDATE jobs SET spec = replace(spec, 'outpux', 'output')"},
        {"UPDATE jobs SET spec = substr(spec, 2)", "UPDATE jobs SET spec = '{' || spec"},
        {"UPDATE jobs SET n_tasks = 99999", "UPDATE jobs SET n_tasks = 3"},
        {"UPDATE jobs SET n_tasks = 4", "UPDATE jobs SET n_tasks = 3"},
        {"UPDATE tasks SET job = 7 WHERE task = 65537", "UPDATE tasks SET job = 1 WHERE task = 65537"},
    };
    const struct sl_coord_opts o = {.version = "t", .daemon_id = "000102030405060708090a0b0c0d0e0f"};
    struct world *w = *state;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 3, 3);
    for (unsigned i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        alter(w, damage[i][0]);
        assert_int_equal(sl_queue_open(w->path, &w->q, &w->e), 0);
        assert_int_equal(sl_coord_open(w->q, &o, w->now, &w->c, &w->e), SL_EFAIL);
        assert_non_null(strstr(w->e.text, "is damaged"));
        alter(w, damage[i][1]);
        world_start(w);
    }
}

/* A job that has ended is read when somebody asks for it: that somebody hears of it, and the rest goes on. */
static void a_damaged_ended_job_is_told(void **state)
{
    static const char *const damage[] = {"UPDATE jobs SET spec = 'x' || spec WHERE id = 1",
                                         "UPDATE jobs SET spec = substr(spec, 3) WHERE id = 1",
                                         "UPDATE jobs SET spec = '{' || spec, files = '[' WHERE id = 1"};
    static const char *const asks[] = {"\"show\",\"job\":1", "\"wait\",\"jobs\":[1]",
                                       "\"cancel\",\"jobs\":[1],\"discard\":true", "\"retry\",\"jobs\":[1]"};
    struct world *w = *state;

    client(w, C);
    assert_int_equal(submit(w, C, "a", ""), 1);
    changes(w, C, "cancel", 1);
    for (unsigned i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        alter(w, damage[i]);
        world_start(w);
        client(w, C);
        for (unsigned k = 0; k < sizeof asks / sizeof asks[0]; k++)
            is_told_damaged(w, asks[k]);
    }
    changes(w, C, "forget", 1);
    say(w, C, "{\"v\":3,\"m\":\"history\"}");
    expect(w, C, SL_M_JOBS);
}

/* The others of the history are shown, and it is named. */
static void a_damaged_job_hides_no_other(void **state)
{
    static const char *const damage[] = {"UPDATE jobs SET spec = 'x' || spec WHERE id = 2",
                                         "UPDATE jobs SET spec = substr(spec, 2), files = '[' WHERE id = 2",
                                         "UPDATE jobs SET files = '', user = hex(zeroblob(100)) WHERE id = 2",
                                         "UPDATE jobs SET user = 'u', src_bytes = 99999999999999999 WHERE id = 2"};
    struct world *w = *state;

    client(w, C);
    for (unsigned i = 0; i < 3; i++)
        submit(w, C, (const char *[]){"a", "b", "c"}[i], "");
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1,2,3]}");
    expect(w, C, SL_M_DONE);
    for (unsigned i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        const cJSON *list, *job;

        alter(w, damage[i]);
        world_start(w);
        client(w, C);
        say(w, C, "{\"v\":3,\"m\":\"history\"}");
        list = sl_get(expect(w, C, SL_M_JOBS), "jobs");
        assert_int_equal(cJSON_GetArraySize(list), 3);
        for (int k = 0; k < 3; k++) {
            job = cJSON_GetArrayItem(list, k);
            assert_int_equal(sl_get_uint(job, "id", 0), 3 - k);
            assert_string_equal(sl_get_str(job, "state"), "cancelled");
            if (!!strstr(sl_get_str(job, "error"), "job 2 cannot be read, it is damaged") != (k == 1))
                fail_msg("%u: %s", i, sl_get_str(job, "error"));
        }
        assert_string_equal(sl_get_str(cJSON_GetArrayItem(list, 1), "source"), "/");
    }
}

/* It cannot be read: its verbs say so, once, and the queue goes on. */
static void a_job_with_damaged_tasks_is_told(void **state)
{
    static const char *const damage[] = {"UPDATE tasks SET state = 9 WHERE job = 1 AND task = 1",
                                         ("UPDATE tasks SET state = 1, worker = 'w' WHERE job = 1 AND task = 0;"
                                          "UPDATE tasks SET state = 0, job = 7 WHERE job = 1 AND task = 1"),
                                         "UPDATE tasks SET job = 1, task = 70000 WHERE job = 7",
                                         "UPDATE tasks SET task = 1 WHERE task = 70000; UPDATE jobs SET n_tasks = 99999 WHERE id = 1"};
    static const char *const asks[] = {"\"cancel\",\"jobs\":[1],\"discard\":true", "\"retry\",\"jobs\":[2,1]",
                                       "\"set\",\"jobs\":[1],\"priority\":3"};
    struct world *w = *state;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 3, 3);
    submit(w, C, "b", "");
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1,2]}");
    expect(w, C, SL_M_DONE);
    for (unsigned i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        alter(w, damage[i]);
        world_start(w);
        client(w, C);
        for (unsigned k = 0; k < sizeof asks / sizeof asks[0]; k++)
            is_told_damaged(w, asks[k]);
    }
    changes(w, C, "forget", 1);
    changes(w, C, "retry", 2);
    worker(w, 1);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, 2), "succeeded");
}

/* Its files were to be removed: it is told, and stays in the history. */
static void a_damaged_discard_is_passed_over(void **state)
{
    static const char *const damage[] = {"UPDATE tasks SET state = 9 WHERE job = 1 AND task = 65536",
                                         "UPDATE jobs SET spec = 'x' || spec WHERE id = 1"};
    struct world *w = *state;

    client(w, C);
    submit(w, C, "a", "");
    submit(w, C, "b", "");
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1,2],\"discard\":true}");
    expect(w, C, SL_M_DONE);
    for (unsigned i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        const cJSON *events;

        alter(w, damage[i]);
        world_start(w);
        client(w, C);
        say(w, C, "{\"v\":3,\"m\":\"logs\",\"job\":1}");
        events = sl_get(expect(w, C, SL_M_LOG), "events");
        assert_non_null(strstr(sl_get_str(cJSON_GetArrayItem(events, cJSON_GetArraySize(events) - 1), "text"),
                               "job 1 cannot be read, it is damaged"));
    }
    worker(w, 1);
    run_all(w, 1); /* the other one's go */
    say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[1,2]}");
    expect(w, C, SL_M_DONE);
}

/* That it is told is not written while the disk is full: a daemon may stop all the same. */
static void a_full_disk_ends_nothing(void **state)
{
    struct world *w = *state;

    client(w, C);
    submit(w, C, "a", "");
    submit(w, C, "b", "");
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
    expect(w, C, SL_M_DONE);
    alter(w, "UPDATE tasks SET state = 9 WHERE job = 1 AND task = 65536");
    world_start(w);
    client(w, C);
    room_for_files(false);
    say_quietly(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[2]}");
    assert_true(sl_coord_flush(w->c, w->now, &w->e) < 0);
    alarm(20);
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
    alarm(0);
    room_for_files(true);
}

/* As an earlier release took it: it would be published, and that told, without an end. */
static void too_long_an_output_fails_once(void **state)
{
    struct world *w = *state;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 3, 3);
    submit(w, C, "b", ",\"hold\":true");
    alter(w, "UPDATE jobs SET spec = replace(spec, '\"/out\"', '\"/' || hex(zeroblob(2040)) || '\"')");
    world_start(w);
    client(w, C);
    assert_string_equal(state_of(w, C, 1), "failed");
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":1}");
    assert_string_equal(sl_get_str(sl_get(expect(w, C, SL_M_JOB), "job"), "error"), "the paths of a's files would have more than "
                        "4095 bytes; choose a folder with a shorter one");
    say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[1]}");
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "choose a folder with a shorter one"));
    say(w, C, "{\"v\":3,\"m\":\"release\",\"jobs\":[2]}");
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "choose a folder with a shorter one"));
}

/* Its grants would have no room in a message: every task in vain, for ever. */
static void too_long_a_specification_fails_once(void **state)
{
    struct world *w = *state;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 3, 3);
    alter(w, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4096), "
             "names AS (SELECT group_concat('\"' || hex(zeroblob(2047)) || '\"') AS list FROM n WHERE i <= 256) "
             "UPDATE jobs SET spec = replace(spec, '\"source\":', '\"options\":{\"tensor_types\":[' || "
             "(SELECT group_concat('{\"pattern\":\"' || hex(zeroblob(512)) || '\",\"type\":\"q8_0\"}') FROM n) || "
             "'],\"include_weights\":[' || (SELECT list FROM names) || '],\"exclude_weights\":[' || (SELECT list FROM names) || "
             "']},\"source\":')");
    world_start(w);
    client(w, C);
    assert_string_equal(state_of(w, C, 1), "failed");
    say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[1]}");
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "6291456 are possible: give fewer or shorter lists"));
    say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[1]}");
    expect(w, C, SL_M_DONE);
}

static void *small_alone(size_t n)
{
    return n > 2048 ? NULL : malloc(n);
}

/* A daemon that has no memory for a moment does not start, and takes nothing from anybody. */
static void no_memory_fails_no_job(void **state)
{
    cJSON_Hooks hooks = {small_alone, free};
    struct world *w = *state;
    struct sl_coord_opts o = {.version = "t", .daemon_id = "000102030405060708090a0b0c0d0e0f"};

    client(w, C);
    submit(w, C, "a", "");
    alter(w, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 256) "
             "UPDATE jobs SET spec = replace(spec, '\"source\":', '\"options\":{\"include_weights\":[' || "
             "(SELECT group_concat('\"' || hex(zeroblob(8)) || '\"') FROM n) || ']},\"source\":')");
    assert_int_equal(sl_queue_open(w->path, &w->q, &w->e), 0);
    cJSON_InitHooks(&hooks);
    assert_int_equal(sl_coord_open(w->q, &o, w->now, &w->c, &w->e), SL_EFAIL);
    cJSON_InitHooks(NULL);
    world_stop(w);
    world_start(w);
    client(w, C);
    assert_string_equal(state_of(w, C, 1), "queued: no worker is connected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_damaged_queue_is_refused),
        TEST(a_damaged_ended_job_is_told),
        TEST(a_damaged_job_hides_no_other),
        TEST(a_job_with_damaged_tasks_is_told),
        TEST(a_damaged_discard_is_passed_over),
        TEST(a_full_disk_ends_nothing),
        TEST(too_long_an_output_fails_once),
        TEST(too_long_a_specification_fails_once),
        TEST(no_memory_fails_no_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
