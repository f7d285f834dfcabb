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

static void a_damaged_queue_is_refused(void **state)
{
    static const char *const damage[][2] = {
        {"UPDATE tasks SET state = 9 WHERE task = 1", "UPDATE tasks SET state = 0 WHERE task = 1"},
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
    static const char *const asks[] = {"\"history\"", "\"show\",\"job\":1", "\"wait\",\"jobs\":[1]",
                                       "\"cancel\",\"jobs\":[1],\"discard\":true", "\"retry\",\"jobs\":[1]"};
    struct world *w = *state;

    client(w, C);
    assert_int_equal(submit(w, C, "a", ""), 1);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1]}");
    expect(w, C, SL_M_DONE);
    for (unsigned i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        alter(w, damage[i]);
        world_start(w);
        client(w, C);
        for (unsigned k = 0; k < sizeof asks / sizeof asks[0]; k++) {
            cJSON *m;

            say(w, C, "{\"v\":3,\"m\":%s}", asks[k]);
            m = expect(w, C, SL_M_ERROR);
            assert_int_equal(sl_get_uint(m, "code", 0), -SL_EFAIL);
            if (!strstr(sl_get_str(m, "text"), "job 1 cannot be read, the queue is damaged") ||
                !strstr(sl_get_str(m, "text"), "; 'sluice forget 1' takes it out"))
                fail_msg("%s", sl_get_str(m, "text"));
        }
    }
    say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[1]}");
    expect(w, C, SL_M_DONE);
    say(w, C, "{\"v\":3,\"m\":\"history\"}");
    expect(w, C, SL_M_JOBS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_damaged_queue_is_refused),
        TEST(a_damaged_ended_job_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
