/* The durable queue: what is committed survives SIGKILL, only the current epoch
 * counts, failures quarantine, a retry does what is missing, and a file that
 * is no queue of this release is refused. */
#include "daemon/queue.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#define TASKS 10

static const uint64_t src[TASKS] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, out[TASKS] = {1};
static const uint32_t shard[TASKS] = {0, 0, 0, 1, 1, 1, 2, 2, 2, 2};
static const struct sl_queue_plan plan = {
    .fingerprint = "00112233445566778899aabbccddeeff", .source = "model (1)", .recipe = "q4_k (2)",
    .options = "mla (3)", .version = "1", .file_bytes = 77, .n_tasks = TASKS, .src_bytes = src,
    .out_bytes = out, .shard = shard};

struct fixture {
    char dir[64], path[80];
    struct sl_queue *q;
};

static struct sl_error e;

static void reopen(struct fixture *f)
{
    sl_queue_close(f->q);
    if (sl_queue_open(f->path, &f->q, &e) != 0)
        fail_msg("%s", e.text);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    strcpy(f->dir, "/tmp/sluice-queue-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->path, sizeof f->path, "%s/queue", f->dir);
    *state = f;
    return sl_queue_open(f->path, &f->q, &e);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    sl_queue_close(f->q);
    sl_queue_remove(f->path);
    rmdir(f->dir);
    free(f);
    return 0;
}

static uint64_t submit(struct fixture *f, const struct sl_new_job *more)
{
    struct sl_new_job j = more ? *more : (struct sl_new_job){0};
    uint64_t id;

    j.user = "uid:1";
    j.spec = "{\"a\":1}";
    j.priority = 50;
    j.attempts = 5;
    assert_int_equal(sl_queue_submit(f->q, &j, 1000, &id, &e), 0);
    return id;
}

static uint64_t planned(struct fixture *f)
{
    uint64_t id = submit(f, NULL);

    assert_int_equal(sl_queue_set_plan(f->q, id, &plan, &e), 0);
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    return id;
}

struct seen {
    struct sl_job_row job;
    struct sl_task_row task[TASKS + 5];
    char text[10][64];
    int n;
};

static int see_job(void *user, const struct sl_job_row *r)
{
    struct seen *s = user;

    s->job = *r;
    snprintf(s->text[s->n % 10], sizeof s->text[0], "%.20s|%.20s|%.20s", r->user, r->spec,
             r->n_labels ? r->labels[0] : "");
    s->n++;
    return 0;
}

static int see_task(void *user, const struct sl_task_row *r)
{
    struct seen *s = user;

    s->task[s->n++] = *r;
    return 0;
}

static struct sl_job_row job_row(struct fixture *f, uint64_t id, struct seen *s)
{
    const struct sl_job_filter one = {.id = id};

    memset(s, 0, sizeof *s);
    assert_int_equal(sl_queue_each_job(f->q, &one, see_job, s, &e), 0);
    assert_int_equal(s->n, 1);
    return s->job;
}

static void tasks_of(struct fixture *f, uint64_t id, struct seen *s)
{
    memset(s, 0, sizeof *s);
    assert_int_equal(sl_queue_each_task(f->q, id, see_task, s, &e), 0);
}

static void jobs_survive(void **state)
{
    struct fixture *f = *state;
    const struct sl_new_job first = {.labels = (const char *[]){"team=a"}, .n_labels = 1,
                                     .group = UINT64_MAX, .verify = true};
    uint64_t a = submit(f, &first), b;
    const struct sl_new_job second = {.after = &a, .n_after = 1, .group = a, .state = SL_JOB_HELD};
    struct sl_job_row r;
    struct seen s;

    b = submit(f, &second);
    assert_int_equal(sl_queue_set_plan(f->q, a, &plan, &e), 0);
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    submit(f, NULL); /* never committed */
    reopen(f);
    r = job_row(f, a, &s);
    assert_string_equal(s.text[0], "uid:1|{\"a\":1}|team=a");
    assert_true(r.group == a && r.verify && r.n_tasks == TASKS && r.src_bytes == 55 && r.file_bytes == 77);
    tasks_of(f, a, &s);
    assert_int_equal(s.n, TASKS + 4);
    assert_true(s.task[9].src_bytes == 10 && s.task[9].shard == 2);
    assert_int_equal(s.task[TASKS].task, SL_TASK_PREPARE);
    r = job_row(f, b, &s);
    assert_true(r.group == a && r.state == SL_JOB_HELD && r.n_after == 1 && r.after[0] == a);
    memset(&s, 0, sizeof s);
    assert_int_equal(sl_queue_each_job(f->q, &(struct sl_job_filter){0}, see_job, &s, &e), 0);
    assert_int_equal(s.n, 2);
    memset(&s, 0, sizeof s);
    assert_int_equal(sl_queue_each_job(f->q, &(struct sl_job_filter){.labels = first.labels, .n_labels = 1},
                                       see_job, &s, &e), 0);
    assert_int_equal(s.n, 1);
    /* Ids are not used again. */
    assert_int_equal(sl_queue_forget(f->q, b, &e), 0);
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    assert_true(submit(f, NULL) > b);
}

static int lease(struct sl_queue *q, uint64_t job, uint32_t task, const char *worker, uint64_t *epoch)
{
    const struct sl_new_lease l = {.job = job, .task = task, .epoch = sl_queue_take_epoch(q),
                                   .worker = worker, .owner = "uid:7"};

    *epoch = l.epoch;
    return sl_queue_lease(q, &l, &e);
}

static void run_raw(const char *path, const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* An output may carry epochs of a queue that is gone: those of the next one are higher, be it a new
 * one or an older copy, which adopts no lease beyond its own. */
static void a_new_queue_begins_behind_an_old_one(void **state)
{
    struct fixture *f = *state;
    uint64_t first = sl_queue_last_epoch(f->q), last = first;
    char copy[96], sql[120];

    snprintf(copy, sizeof copy, "%s/copy", f->dir);
    snprintf(sql, sizeof sql, "VACUUM INTO '%s'", copy);
    sl_queue_close(f->q);
    run_raw(f->path, sql);
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), 0);
    assert_true(first >= (uint64_t)time(NULL) * 100000 - 60 * 100000);
    for (unsigned i = 0; i < 10; i++) {
        reopen(f); /* a restart leaves what was reserved behind */
        assert_true(sl_queue_last_epoch(f->q) > last);
        last = sl_queue_last_epoch(f->q);
    }
    sl_queue_close(f->q);
    sl_queue_remove(f->path);
    nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 1000000}, NULL);
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), 0);
    assert_true(sl_queue_last_epoch(f->q) > last && sl_queue_last_epoch(f->q) < UINT64_C(999999999999999));
    sl_queue_close(f->q);
    assert_int_equal(rename(copy, f->path), 0);
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), 0);
    assert_true(sl_queue_last_epoch(f->q) <= last);
    assert_true(sl_queue_take_epoch(f->q) > last && sl_queue_epochs_synced(f->q) > sl_queue_last_epoch(f->q));
}

/* A rollback takes a reservation back; and without a counter there is none. */
static void epochs_are_reserved_on_disk(void **state)
{
    struct fixture *f = *state;
    uint64_t id = planned(f), epoch, synced;

    for (unsigned i = 0; i < 4000; i++)
        (void)sl_queue_take_epoch(f->q);
    assert_int_equal(lease(f->q, id, 3, "w", &epoch), 1);
    sl_queue_rollback(f->q);
    assert_int_equal(lease(f->q, id, 3, "w", &epoch), 1);
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    synced = sl_queue_epochs_synced(f->q);
    reopen(f);
    assert_true(synced > epoch && sl_queue_last_epoch(f->q) >= synced);
    sl_queue_close(f->q);
    run_raw(f->path, "DELETE FROM counters WHERE name = 'epochs'");
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), SL_EFAIL);
    assert_non_null(strstr(e.text, "the counter of epochs is missing"));
    sl_queue_remove(f->path);
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), 0);
}

static void only_the_current_epoch_counts(void **state)
{
    struct fixture *f = *state;
    uint64_t id = planned(f), one, two;
    struct seen s;

    assert_int_equal(lease(f->q, id, 3, "w1", &one), 1);
    assert_int_equal(lease(f->q, id, 3, "w2", &two), 0); /* held already */
    assert_int_equal(sl_queue_return(f->q, id, 3, one, &e), 1);       /* the lease expired */
    assert_int_equal(lease(f->q, id, 3, "w2", &two), 1);
    assert_true(two > one);
    assert_int_equal(sl_queue_finish(f->q, id, 3, one, 666, &e), 0);
    assert_int_equal(sl_queue_finish(f->q, id, 3, two + 1, 666, &e), 0);
    assert_int_equal(sl_queue_return(f->q, id, 3, one, &e), 0);
    assert_int_equal(sl_queue_finish(f->q, id, 3, two, UINT64_MAX - 5, &e), 1);
    assert_int_equal(sl_queue_finish(f->q, id, 3, two, 7, &e), 0);    /* done is done */
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    reopen(f);
    tasks_of(f, id, &s);
    assert_true(s.task[3].state == SL_TASK_DONE && s.task[3].checksum == UINT64_MAX - 5);
    assert_int_equal(job_row(f, id, &s).done_bytes, 4);
    /* Bytes that turned out bad: the task is there again, with a new epoch. */
    assert_int_equal(sl_queue_revoke(f->q, id, (uint32_t[]){3}, 1, &e), 0);
    assert_int_equal(lease(f->q, id, 3, "w1", &one), 1);
    assert_true(one > two);
}

/* b made nothing: the epoch of what it had is none again. */
static int fail_once(struct fixture *f, uint64_t id, const char *worker, uint32_t *attempts)
{
    const struct sl_task_failure failure = {.worker = worker, .code = 7, .text = "bad disk", .counts = true,
                                            .max_attempts = 5, .max_workers = 3, .untouched = worker[0] == 'b'};
    enum sl_task_state state = SL_TASK_DONE;
    struct seen s;
    uint64_t epoch;

    assert_int_equal(lease(f->q, id, 2, worker, &epoch), 1);
    assert_int_equal(sl_queue_fail(f->q, id, 2, epoch, &failure, &state, attempts, &e), 1);
    assert_int_equal(sl_queue_fail(f->q, id, 2, epoch, &failure, &state, attempts, &e), 0);
    tasks_of(f, id, &s);
    assert_true(s.task[2].epoch == (failure.untouched ? 0 : epoch));
    return (int)state;
}

static int count_failure(void *user, const struct sl_failure_row *r)
{
    assert_true(strcmp(r->text, "bad disk") == 0 && r->task == 2 && r->epoch > 0);
    ++*(int *)user;
    return 0;
}

static void failures_quarantine(void **state)
{
    struct fixture *f = *state;
    uint64_t id = planned(f), epoch;
    uint32_t attempts = 0;
    int n = 0;
    struct seen s;

    assert_int_equal(fail_once(f, id, "a", &attempts), SL_TASK_READY);
    assert_int_equal(fail_once(f, id, "a", &attempts), SL_TASK_READY);
    assert_int_equal(fail_once(f, id, "b", &attempts), SL_TASK_READY);
    assert_int_equal(fail_once(f, id, "c", &attempts), SL_TASK_QUARANTINED); /* the third worker */
    assert_int_equal(attempts, 4);
    assert_int_equal(lease(f->q, id, 2, "d", &epoch), 0);
    assert_int_equal(sl_queue_each_failure(f->q, id, 100, count_failure, &n, &e), 0);
    assert_int_equal(n, 4);
    assert_int_equal(job_row(f, id, &s).n_quarantined, 1);
    /* A retry begins to count anew, and keeps what was done and what was said. */
    assert_int_equal(lease(f->q, id, 1, "a", &epoch), 1);
    assert_int_equal(sl_queue_finish(f->q, id, 1, epoch, 9, &e), 1);
    assert_int_equal(sl_queue_retry(f->q, id, &e), 0);
    assert_int_equal(job_row(f, id, &s).n_quarantined, 0);
    assert_int_equal(job_row(f, id, &s).n_done, 1);
    for (uint32_t i = 1; i < 5; i++) {
        assert_int_equal(fail_once(f, id, "a", &attempts), SL_TASK_READY);
        assert_int_equal(attempts, i);
    }
    assert_int_equal(fail_once(f, id, "a", &attempts), SL_TASK_QUARANTINED); /* the fifth time */
}

static void requests_are_remembered(void **state)
{
    struct fixture *f = *state;
    const uint64_t ids[] = {4, 5, 900};
    uint64_t got[64];

    assert_int_equal(sl_queue_seen(f->q, "u", "k", 11, 11, got, &e), 0);
    assert_int_equal(sl_queue_remember(f->q, "u", "k", 11, ids, 3, (uint64_t)4e12, &e), 0);
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    reopen(f);
    assert_int_equal(sl_queue_seen(f->q, "u", "k", 11, 11, got, &e), 3);
    assert_memory_equal(got, ids, sizeof ids);
    assert_int_equal(sl_queue_seen(f->q, "u", "k", 12, 13, got, &e), SL_EUSAGE);
    assert_int_equal(sl_queue_seen(f->q, "u", "k", 12, 11, got, &e), 3);
    assert_int_equal(sl_queue_seen(f->q, "v", "k", 11, 11, got, &e), 0);
}

static void another_plan_is_named(void **state)
{
    struct fixture *f = *state;
    uint64_t id = planned(f);
    struct sl_queue_plan other = plan;

    assert_int_equal(sl_queue_same_plan(f->q, id, &plan, &e), 0);
    other.recipe = "q6_k (9)";
    assert_int_equal(sl_queue_same_plan(f->q, id, &other, &e), 0); /* other words, the same work */
    other.fingerprint = "00112233445566778899aabbccddeef0";
    assert_int_equal(sl_queue_same_plan(f->q, id, &other, &e), SL_EEXISTS);
    assert_non_null(strstr(e.text, "another recipe (then q4_k (2), now q6_k (9))"));
    other = plan;
    other.n_tasks = 3;
    assert_int_equal(sl_queue_same_plan(f->q, id, &other, &e), SL_EEXISTS);
    assert_int_equal(sl_queue_same_plan(f->q, id + 1, &plan, &e), SL_ENOJOB);
}

static int count_event(void *user, const struct sl_event *ev)
{
    (void)ev;
    ++*(int *)user;
    return 0;
}

struct told {
    uint64_t id[4];
    unsigned n, most;
};

/* Ends it with 7 at the most that is wanted. */
static int note_event(void *user, const struct sl_event *ev)
{
    struct told *t = user;

    assert_true(t->n < t->most && ev->time_ms == 5 && ev->task == (ev->job == 3 ? -1 : 2));
    assert_string_equal(ev->worker, ev->job == 3 ? "" : "w");
    assert_string_equal(ev->kind, "state");
    assert_string_equal(ev->text, ev->job == 3 ? "running" : "failed");
    t->id[t->n++] = ev->id;
    return t->n == t->most ? 7 : 0;
}

static void history_is_in_order(void **state)
{
    struct fixture *f = *state;
    struct sl_event ev[4];
    struct told t = {.most = 4};
    uint64_t last;

    for (unsigned i = 0; i < 4; i++) {
        ev[i] = i % 2 ? (struct sl_event){.time_ms = 5, .job = 4, .task = 2, .worker = "w", .kind = "state", .text = "failed"}
                      : (struct sl_event){.time_ms = 5, .job = 3, .task = -1, .worker = "", .kind = "state", .text = "running"};
        assert_int_equal(sl_queue_add_event(f->q, &ev[i], &e), 0);
        assert_true(i == 0 || ev[i].id > ev[i - 1].id);
    }
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    assert_int_equal(sl_queue_last_event(f->q, &last, &e), 0);
    assert_true(last == ev[3].id);
    /* Those behind a number, of all jobs or one; as many as are wanted, and no more after the callback's end. */
    assert_int_equal(sl_queue_each_event(f->q, 0, ev[0].id, 2, note_event, &t, &e), 0);
    assert_true(t.n == 2 && t.id[0] == ev[1].id && t.id[1] == ev[2].id);
    t.n = 0;
    assert_int_equal(sl_queue_each_event(f->q, 4, 0, 10, note_event, &t, &e), 0);
    assert_true(t.n == 2 && t.id[0] == ev[1].id && t.id[1] == ev[3].id);
    t.n = 0;
    assert_int_equal(sl_queue_each_event(f->q, 4, ev[1].id, 10, note_event, &t, &e), 0);
    assert_true(t.n == 1 && t.id[0] == ev[3].id);
    t = (struct told){.most = 1};
    assert_int_equal(sl_queue_each_event(f->q, 3, 0, 10, note_event, &t, &e), 7);
    assert_true(t.n == 1 && t.id[0] == ev[0].id);
}

static void a_second_process_is_refused(void **state)
{
    struct fixture *f = *state;
    struct sl_queue *second;

    planned(f);
    assert_int_equal(sl_queue_open(f->path, &second, &e), SL_EEXISTS);
    assert_non_null(strstr(e.text, "another process is at work with it"));
}

/* A queue that stays open for months keeps 200,000 events, whenever it was opened. */
static void old_events_go_while_it_is_open(void **state)
{
    struct fixture *f = *state;
    struct sl_event ev = {.job = 4, .task = -1, .worker = "", .kind = "state", .text = "running"};
    int n = 0;

    sl_queue_close(f->q);
    run_raw(f->path, "INSERT INTO events VALUES(1, 0, 3, -1, '', 'state', 'queued'), (199990, 0, 3, -1, '', 'state', 'queued')");
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), 0);
    assert_int_equal(sl_queue_each_event(f->q, 3, 0, 10, count_event, &n, &e), 0);
    assert_int_equal(n, 2);
    for (int i = 0; i < 1100; i++)
        assert_int_equal(sl_queue_add_event(f->q, &ev, &e), 0);
    n = 0;
    assert_int_equal(sl_queue_each_event(f->q, 3, 0, 10, count_event, &n, &e), 0);
    assert_int_equal(n, 1);
}

static void other_files_are_refused(void **state)
{
    struct fixture *f = *state;
    struct sl_queue *q;
    char path[100];
    FILE *file;

    sl_queue_close(f->q);
    run_raw(f->path, "PRAGMA user_version=99");
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), SL_EEXISTS);
    assert_non_null(strstr(e.text, "newer release (version 99"));
    run_raw(f->path, "PRAGMA user_version=-1000");
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), SL_EEXISTS);
    assert_non_null(strstr(e.text, "no queue of this program"));
    snprintf(path, sizeof path, "%s/other", f->dir);
    run_raw(path, "CREATE TABLE t(a)");
    assert_int_equal(sl_queue_open(path, &q, &e), SL_EEXISTS);
    assert_non_null(strstr(e.text, "no queue of this program"));
    sl_queue_remove(path);
    /* Version 0: an empty file becomes a queue. */
    file = fopen(path, "w");
    fclose(file);
    assert_int_equal(sl_queue_open(path, &q, &e), 0);
    sl_queue_close(q);
    sl_queue_remove(path);
    file = fopen(path, "w");
    for (int i = 0; i < 300; i++)
        fputs("no database at all, certainly not. ", file);
    fclose(file);
    assert_int_equal(sl_queue_open(path, &q, &e), SL_EFAIL);
    unlink(path);
}

/* What version 1 left goes on: leases of which nobody knows whose they were go back. */
static void an_older_queue_is_brought_up_to_date(void **state)
{
    struct fixture *f = *state;
    uint64_t id = planned(f), epoch, last;
    struct seen s;

    assert_int_equal(lease(f->q, id, 1, "a", &epoch), 1);
    assert_int_equal(sl_queue_finish(f->q, id, 1, epoch, 9, &e), 1);
    assert_int_equal(lease(f->q, id, 2, "a", &last), 1);
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    sl_queue_close(f->q);
    run_raw(f->path, "DROP TABLE counters; ALTER TABLE tasks DROP COLUMN owner; PRAGMA user_version=1");
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), 0);
    assert_int_equal(job_row(f, id, &s).n_done, 1);
    assert_int_equal(sl_queue_last_epoch(f->q), last);
    assert_int_equal(lease(f->q, id, 2, "b", &epoch), 1);
    assert_true(epoch > last);
}

/* A damaged page or row is found when the queue is opened, in one line. */
static void damage_is_found(void **state)
{
    struct fixture *f = *state;
    uint64_t id = planned(f);
    char page[4096] = {0};
    int fd;

    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    sl_queue_close(f->q);
    run_raw(f->path, "UPDATE jobs SET state = 77");
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), SL_EFAIL);
    assert_non_null(strstr(e.text, "it is damaged"));
    run_raw(f->path, "UPDATE jobs SET state = 0");
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), 0);
    assert_int_equal(sl_queue_retry(f->q, id, &e), 0);
    assert_int_equal(sl_queue_commit(f->q, &e), 0);
    sl_queue_close(f->q);
    fd = open(f->path, O_WRONLY);
    assert_int_equal(pwrite(fd, page, sizeof page, 4096), sizeof page);
    close(fd);
    assert_int_equal(sl_queue_open(f->path, &f->q, &e), SL_EFAIL);
    assert_non_null(strstr(e.text, "it is damaged"));
    assert_null(strchr(e.text, '\n'));
}

/* A process that leases, finishes and commits, and says so only afterwards. */
static void write_until_killed(const char *path, int to)
{
    struct sl_queue *q;
    uint64_t epoch;

    if (sl_queue_open(path, &q, &e) != 0)
        _exit(9);
    for (uint32_t t = 0;; t = (t + 1) % TASKS) {
        if (sl_queue_revoke(q, 1, &t, 1, &e) < 0 || lease(q, 1, t, "w", &epoch) != 1 ||
            sl_queue_finish(q, 1, t, epoch, epoch * 1000 + t, &e) != 1 || sl_queue_commit(q, &e) < 0 ||
            write(to, &(uint64_t[]){t, epoch}, 16) != 16)
            _exit(8);
    }
}

static void sigkill_loses_nothing_acknowledged(void **state)
{
    struct fixture *f = *state;
    uint64_t said[TASKS] = {0}, pair[2], total = 0;
    struct seen s;

    assert_int_equal(planned(f), 1);
    sl_queue_close(f->q);
    f->q = NULL;
    for (int round = 0; round < 12; round++) {
        int p[2], status;
        pid_t child;

        assert_int_equal(pipe(p), 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
            write_until_killed(f->path, p[1]);
        close(p[1]);
        /* Kill after some acknowledgements, at no particular place. */
        for (int k = 0; k < 3 + round && read(p[0], pair, 16) == 16; k++, total++)
            said[pair[0]] = pair[1];
        usleep((useconds_t)(round * 137 % 1000));
        kill(child, SIGKILL);
        while (read(p[0], pair, 16) == 16)
            said[pair[0]] = pair[1];
        close(p[0]);
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        reopen(f);
        tasks_of(f, 1, &s);
        for (uint32_t t = 0; t < TASKS; t++) {
            assert_true(s.task[t].epoch >= said[t]);
            if (said[t]) {
                assert_int_equal(s.task[t].state, SL_TASK_DONE);
                assert_true(s.task[t].checksum == s.task[t].epoch * 1000 + t);
            }
        }
        sl_queue_close(f->q);
        f->q = NULL;
    }
    assert_true(total > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(jobs_survive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_new_queue_begins_behind_an_old_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(epochs_are_reserved_on_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_the_current_epoch_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failures_quarantine, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_are_remembered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_plan_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(history_is_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_process_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(old_events_go_while_it_is_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_files_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_older_queue_is_brought_up_to_date, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damage_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sigkill_loses_nothing_acknowledged, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
