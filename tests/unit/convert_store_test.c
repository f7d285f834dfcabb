/* What convert keeps to go on: what is committed survives, what differs is named,
 * a second process is kept out, a process killed inside a commit loses nothing old. */
#include "client/convert_store.h"

#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TASKS 10

/* As much of a plan as the store looks at. */
struct fake {
    struct sl_plan plan;
    struct sl_plan_segment segment;
    struct sl_plan_task task[TASKS];
    char options[64];
};

static const struct sl_plan *plan_with(struct fake *f, const char *source, const char *recipe,
                                       const char *options, const char *version)
{
    memset(f, 0, sizeof *f);
    f->plan.segments = &f->segment;
    f->plan.n_segments = 1;
    f->plan.tasks = f->task;
    f->plan.n_tasks = TASKS;
    snprintf(f->plan.parts.source, sizeof f->plan.parts.source, "%s", source);
    snprintf(f->plan.parts.recipe, sizeof f->plan.parts.recipe, "%s", recipe);
    snprintf(f->options, sizeof f->options, "%s", options);
    f->plan.options = f->options;
    snprintf(f->plan.parts.version, sizeof f->plan.parts.version, "%s", version);
    snprintf(f->plan.fingerprint, sizeof f->plan.fingerprint, "%.6s%.6s%.12s%.6s", source, recipe,
             options, version);
    return &f->plan;
}

struct fixture {
    char dir[64], path[80];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    strcpy(f->dir, "/tmp/sluice-store-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->path, sizeof f->path, "%s/job", f->dir);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    convert_store_remove(f->path);
    rmdir(f->dir);
    free(f);
    return 0;
}

/* The journal of one plan, which is recorded there first or held against it. */
static struct convert_store *begun(const struct fixture *f)
{
    struct convert_store *s;
    struct fake fake;
    struct sl_error e;

    assert_int_equal(convert_store_open(f->path, &s, &e), 0);
    assert_int_equal(convert_store_begin(s, plan_with(&fake, "s1", "r1", "o1", "1"), "dir", "{}", &e), 0);
    return s;
}

/* What the coordinator does for a worker. */
static int do_task(struct convert_store *s, uint32_t task, uint64_t checksum, struct sl_error *e)
{
    struct sl_queue *q = convert_store_queue(s);
    const struct sl_new_lease l = {.job = convert_store_job(s), .task = task,
                                   .epoch = sl_queue_take_epoch(q), .worker = "w", .owner = "w"};

    if (sl_queue_lease(q, &l, e) != 1 || sl_queue_finish(q, l.job, task, l.epoch, checksum, e) != 1)
        return SL_EFAIL;
    return sl_queue_commit(q, e);
}

struct seen {
    uint64_t sum[16];
    int n;
};

static void see(void *user, uint32_t task, uint64_t checksum)
{
    struct seen *s = user;

    s->sum[task] = checksum;
    s->n++;
}

static void commits_survive(void **state)
{
    struct fixture *f = *state;
    struct convert_store *s;
    struct fake fake;
    struct sl_error e;
    struct seen seen = {{0}, 0};
    const uint32_t lost[] = {3};

    assert_int_equal(convert_store_open(f->path, &s, &e), 0);
    assert_int_equal(convert_store_state(s, &e), CONVERT_NEW);
    assert_int_equal(convert_store_begin(s, plan_with(&fake, "s1", "r1", "o1", "1"), "dir", "{}", &e), 0);
    assert_int_equal(do_task(s, 3, UINT64_MAX, &e), 0);
    assert_int_equal(do_task(s, 7, 42, &e), 0);
    convert_store_close(s);

    assert_int_equal(convert_store_open(f->path, &s, &e), 0);
    assert_int_equal(convert_store_state(s, &e), CONVERT_CONVERTING);
    assert_int_equal(convert_store_begin(s, plan_with(&fake, "s1", "r1", "o1", "1"), "dir", "{}", &e), 0);
    assert_int_equal(convert_store_each(s, see, &seen, &e), 0);
    assert_int_equal(seen.n, 2);
    assert_true(seen.sum[3] == UINT64_MAX && seen.sum[7] == 42);
    assert_int_equal(convert_store_revoke(s, lost, 1, &e), 0);
    seen.n = 0;
    assert_int_equal(convert_store_each(s, see, &seen, &e), 0);
    assert_int_equal(seen.n, 1);
    convert_store_close(s);
}

static int see_job(void *user, const struct sl_job_row *row)
{
    *(enum sl_job_state *)user = row->state;
    return 0;
}

/* Whatever ended a job before its files were there, it goes on from that place. */
static void a_job_goes_on(void **state)
{
    const struct sl_job_filter any = {.limit = 1};
    enum sl_job_state js = SL_JOB_QUEUED;
    struct fixture *f = *state;
    struct convert_store *s;
    struct sl_error e;

    s = begun(f);
    assert_int_equal(sl_queue_set_state(convert_store_queue(s), convert_store_job(s), SL_JOB_FAILED, 9,
                                        "no room", 0, &e), 0);
    assert_int_equal(convert_store_go_on(s, &e), 0);
    assert_int_equal(sl_queue_each_job(convert_store_queue(s), &any, see_job, &js, &e), 0);
    assert_int_equal(js, SL_JOB_RUNNING);
    for (uint32_t i = 0; i < TASKS; i++)
        assert_int_equal(do_task(s, i, i, &e), 0);
    assert_int_equal(convert_store_state(s, &e), CONVERT_CONVERTING);
    assert_int_equal(do_task(s, SL_TASK_STITCH, 0, &e), 0);
    assert_int_equal(convert_store_state(s, &e), CONVERT_PUBLISHING);
    assert_int_equal(convert_store_go_on(s, &e), 0);
    assert_int_equal(convert_store_state(s, &e), CONVERT_PUBLISHING); /* stitch stays done */
    assert_int_equal(sl_queue_each_job(convert_store_queue(s), &any, see_job, &js, &e), 0);
    assert_int_equal(js, SL_JOB_STITCHING);
    assert_int_equal(do_task(s, SL_TASK_PUBLISH, 0, &e), 0);
    assert_int_equal(convert_store_state(s, &e), CONVERT_PUBLISHED);
    convert_store_close(s);
}

static void differences_are_named(void **state)
{
    static const struct {
        const char *source, *recipe, *options, *version, *says;
    } other[] = {
        {"s2", "r1", "o1", "1", "another source (then dir (s1), now dir (s2))"},
        {"s1", "r2", "o1", "1", "another recipe"},
        {"s1", "r1", "o2", "1", "another set of options"},
        {"s2", "r1", "o2", "1", "another source (then dir (s1), now dir (s2))"},
        {"s1", "r1", "o1", "2", "another version of sluice"},
    };
    struct fixture *f = *state;
    struct convert_store *s;
    struct sl_error e;
    struct fake fake;

    s = begun(f);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        const struct sl_plan *p = plan_with(&fake, other[i].source, other[i].recipe,
                                            other[i].options, other[i].version);

        assert_int_equal(convert_store_begin(s, p, "dir", "{}", &e), SL_EEXISTS);
        assert_non_null(strstr(e.text, other[i].says));
        assert_non_null(strstr(e.text, "--force"));
    }
    assert_int_equal(convert_store_begin(s, plan_with(&fake, "s1", "r1", "o1", "1"), "dir", "{}", &e), 0);
    convert_store_close(s);
}

static void second_process_is_refused(void **state)
{
    struct fixture *f = *state;
    struct convert_store *s;
    int status;
    pid_t pid;

    s = begun(f);
    pid = fork();
    if (pid == 0) {

        execl("/proc/self/exe", "convert_store_test", "--hold-check", f->path, (char *)NULL);
        _exit(99);
    }
    assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), -SL_EEXISTS);
    convert_store_close(s);
}

/* A child commits tasks 0, 1, 2 ... and tells each on a pipe after the commit
 * returned; it is killed at some point. Everything told must be there. */
static void killed_writer_loses_nothing_told(void **state)
{
    struct fixture *f = *state;
    int fd[2], told = 0, status;
    struct seen seen = {{0}, 0};
    struct convert_store *s;
    struct sl_error e;
    char c;
    pid_t pid;

    assert_int_equal(pipe(fd), 0);
    pid = fork();
    if (pid == 0) {
        char num[16];

        close(fd[0]);
        snprintf(num, sizeof num, "%d", fd[1]);
        execl("/proc/self/exe", "convert_store_test", "--commit-forever", f->path, num, (char *)NULL);
        _exit(99);
    }
    close(fd[1]);
    while (told < 5 && read(fd[0], &c, 1) == 1)
        told++;
    kill(pid, SIGKILL);
    while (read(fd[0], &c, 1) == 1)
        told++;
    close(fd[0]);
    assert_true(waitpid(pid, &status, 0) == pid);
    assert_true(told >= 5);
    assert_int_equal(convert_store_open(f->path, &s, &e), 0);
    assert_int_equal(convert_store_each(s, see, &seen, &e), 0);
    convert_store_close(s);
    assert_true(seen.n >= told);
}

static void garbage_is_refused(void **state)
{
    struct fixture *f = *state;
    struct convert_store *s;
    struct sl_error e;
    FILE *out = fopen(f->path, "w");

    for (int i = 0; i < 4096; i++)
        fputs("garbage", out);
    fclose(out);
    assert_true(convert_store_open(f->path, &s, &e) < 0);
    assert_non_null(strstr(e.text, f->path));
}

static void alter(struct fixture *f, const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* What a disk or somebody else changed ends with a word, instead of a conversion that waits for ever. */
static void damage_is_told(void **state)
{
    static const char *const damage[][2] = {
        {"UPDATE counters SET value = -1", "UPDATE counters SET value = 1"},
        {"UPDATE counters SET value = 9e18", "UPDATE counters SET value = 1"},
        {"UPDATE jobs SET manual = 1", "UPDATE jobs SET manual = 0"},
        {"UPDATE jobs SET verify = 1", "UPDATE jobs SET verify = 0"},
        {"UPDATE jobs SET grp = -1", "UPDATE jobs SET grp = 0"},
        {"UPDATE jobs SET user = 'x'", "UPDATE jobs SET user = ''"},
        {"UPDATE jobs SET src_bytes = 7", "UPDATE jobs SET src_bytes = 0"},
        {"UPDATE jobs SET fingerprint = ''", "UPDATE jobs SET fingerprint = 's1r1o11'"},
        {"INSERT INTO after VALUES(1, 1)", "DELETE FROM after"},
        {"INSERT INTO tasks(job, task, state) VALUES(1, 65540, 2)", "DELETE FROM tasks WHERE task = 65540"},
        {"INSERT INTO tasks(job, task, state) VALUES(1, 10, 0)", "DELETE FROM tasks WHERE task = 10"},
        {"UPDATE tasks SET src = 1 WHERE task = 4", "UPDATE tasks SET src = 0 WHERE task = 4"},
        {"UPDATE tasks SET out = 1 WHERE task = 4", "UPDATE tasks SET out = 0 WHERE task = 4"},
        {"UPDATE tasks SET state = 0 WHERE task = 65536", "UPDATE tasks SET state = 2 WHERE task = 65536"},
        {"UPDATE tasks SET state = 2 WHERE task = 65537", "UPDATE tasks SET state = 0 WHERE task = 65537"},
    };
    struct fixture *f = *state;
    struct convert_store *s;
    struct fake fake;
    struct sl_error e;

    s = begun(f);
    convert_store_close(s);
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        int rc;

        alter(f, damage[i][0]);
        rc = convert_store_open(f->path, &s, &e);
        if (rc == 0) {
            rc = convert_store_begin(s, plan_with(&fake, "s1", "r1", "o1", "1"), "dir", "{}", &e);
            convert_store_close(s);
        }
        if (rc >= 0 || !strstr(e.text, f->path) || !strstr(e.text, "damaged"))
            fail_msg("%s: %d %s", damage[i][0], rc, e.text);
        alter(f, damage[i][1]);
    }
    s = begun(f);
    convert_store_close(s);
}

/* The header names the release: it may have another length, and is in no fingerprint. */
static void another_releases_header_is_no_damage(void **state)
{
    struct fixture *f = *state;

    convert_store_close(begun(f));
    alter(f, "UPDATE jobs SET file_bytes = file_bytes + 32");
    convert_store_close(begun(f));
}

static int see_lease(void *user, const struct sl_task_row *row)
{
    *(bool *)user |= row->state == SL_TASK_LEASED;
    return 0;
}

/* Whoever had them: one process has the journal. */
static void leases_are_given_back(void **state)
{
    struct fixture *f = *state;
    struct convert_store *s;
    struct sl_error e;
    bool leased = false;

    s = begun(f);
    convert_store_close(s);
    alter(f, "UPDATE tasks SET state = 1 WHERE task = 2");
    s = begun(f);
    assert_int_equal(convert_store_go_on(s, &e), 0);
    assert_int_equal(sl_queue_each_task(convert_store_queue(s), convert_store_job(s), see_lease, &leased, &e), 0);
    assert_false(leased);
    convert_store_close(s);
}

static int child(int argc, char **argv)
{
    struct convert_store *s;
    struct fake fake;
    struct sl_error e;
    int rc = convert_store_open(argv[2], &s, &e);

    if (strcmp(argv[1], "--hold-check") == 0) {
        if (rc == 0)
            convert_store_close(s);
        return -rc;
    }
    if (rc < 0 || argc < 4 || convert_store_begin(s, plan_with(&fake, "s1", "r1", "o1", "1"), "dir", "{}", &e) < 0)
        return 99;
    for (uint32_t i = 0; i < TASKS; i++) {
        if (do_task(s, i, i, &e) < 0 || write(atoi(argv[3]), "x", 1) != 1)
            return 99;
    }
    pause();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(commits_survive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_job_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(differences_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(second_process_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(killed_writer_loses_nothing_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(garbage_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damage_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_releases_header_is_no_damage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leases_are_given_back, set_up, tear_down),
    };

    if (argc > 2)
        return child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
