#include "daemon/queue_priv.h"

/* What no row of this program's holds is its greatest value, not what would be left of it. */
static uint32_t small_number(struct sqlite3_stmt *st, int i)
{
    uint64_t v = db_number(st, i);

    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

int sl_queue_each_task(struct sl_queue *q, uint64_t job,
                       int (*fn)(void *user, const struct sl_task_row *row), void *user,
                       struct sl_error *e)
{
    struct sqlite3_stmt *st;
    int rc;

    SL_TRY(db_query(q, &st, e, "SELECT task, state, epoch, attempts, checksum, src, out, shard, worker,"
                               " owner FROM tasks WHERE job = ? ORDER BY task", "i", job));
    while ((rc = db_next(q, st, e)) == 1) {
        const struct sl_task_row r = {
            .task = small_number(st, 0), .state = (enum sl_task_state)small_number(st, 1),
            .epoch = db_number(st, 2), .attempts = (uint32_t)db_number(st, 3),
            .checksum = db_number(st, 4), .src_bytes = db_number(st, 5),
            .out_bytes = db_number(st, 6), .shard = (uint32_t)db_number(st, 7),
            .worker = db_text(st, 8), .owner = db_text(st, 9),
        };

        if ((rc = fn(user, &r)) != 0)
            break;
    }
    db_reset(st);
    return rc;
}

int sl_queue_lease(struct sl_queue *q, const struct sl_new_lease *l, struct sl_error *e)
{
    SL_TRY(db_reserve_epochs(q, e));
    return db_change(q, e, "UPDATE tasks SET state = 1, epoch = ?1, worker = ?2, owner = ?3"
                           " WHERE job = ?4 AND task = ?5 AND state = 0 AND epoch < ?1",
                     "issii", l->epoch, l->worker, l->owner, l->job, (uint64_t)l->task);
}

int sl_queue_finish(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                    uint64_t checksum, struct sl_error *e)
{
    return db_change(q, e, "UPDATE tasks SET state = 2, checksum = ?"
                           " WHERE job = ? AND task = ? AND epoch = ? AND state = 1",
                     "iiii", checksum, job, (uint64_t)task, epoch);
}

int sl_queue_return(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                    struct sl_error *e)
{
    return db_change(q, e, "UPDATE tasks SET state = 0, worker = ''"
                           " WHERE job = ? AND task = ? AND epoch = ? AND state = 1",
                     "iii", job, (uint64_t)task, epoch);
}

int sl_queue_fail(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                  const struct sl_task_failure *f, enum sl_task_state *state, uint32_t *attempts,
                  struct sl_error *e)
{
    struct sqlite3_stmt *st;
    uint64_t workers;
    int rc = db_change(q, e, "UPDATE tasks SET state = 0, worker = '', attempts = attempts + ?, epoch = epoch * ?"
                             " WHERE job = ? AND task = ? AND epoch = ? AND state = 1",
                       "iiiii", (uint64_t)f->counts, (uint64_t)!f->untouched, job, (uint64_t)task, epoch);

    if (rc != 1)
        return rc;
    CHANGE(q, e, "INSERT INTO failures VALUES(?, ?, ?, ?, ?, ?, ?, ?)", "iiisisii", job,
           (uint64_t)task, epoch, f->worker, (uint64_t)f->code, f->text, f->now_ms, (uint64_t)f->counts);
    SL_TRY(db_query(q, &st, e, "SELECT (SELECT attempts FROM tasks WHERE job = ?1 AND task = ?2),"
                               " (SELECT count(DISTINCT worker) FROM failures"
                               "  WHERE job = ?1 AND task = ?2 AND counts = 1)", "ii", job, (uint64_t)task));
    SL_TRY(rc = db_next(q, st, e));
    *attempts = (uint32_t)db_number(st, 0);
    workers = db_number(st, 1);
    db_reset(st);
    *state = SL_TASK_READY;
    if (f->counts && (*attempts >= f->max_attempts || workers >= f->max_workers)) {
        *state = SL_TASK_QUARANTINED;
        CHANGE(q, e, "UPDATE tasks SET state = 3 WHERE job = ? AND task = ?", "ii", job, (uint64_t)task);
    }
    return 1;
}

int sl_queue_revoke(struct sl_queue *q, uint64_t job, const uint32_t *tasks, uint32_t n,
                    struct sl_error *e)
{
    for (uint32_t i = 0; i < n; i++)
        CHANGE(q, e, "UPDATE tasks SET state = 0, worker = '' WHERE job = ? AND task = ? AND state = 2",
               "ii", job, (uint64_t)tasks[i]);
    return 0;
}

/* ---- history */

#define TRIM_EVENTS 1024 /* a daemon runs for months: not only when it starts */

int sl_queue_add_event(struct sl_queue *q, struct sl_event *ev, struct sl_error *e)
{
    CHANGE(q, e, "INSERT INTO events(time, job, task, worker, kind, text) VALUES(?, ?, ?, ?, ?, ?)",
           "iiisss", ev->time_ms, ev->job, (uint64_t)ev->task, ev->worker, ev->kind, ev->text);
    ev->id = db_last_id(q);
    return ev->id % TRIM_EVENTS ? 0 : db_trim(q, e);
}

int sl_queue_each_event(struct sl_queue *q, uint64_t job, uint64_t since, uint32_t limit,
                        int (*fn)(void *user, const struct sl_event *ev), void *user,
                        struct sl_error *e)
{
    const char *sql = job ? "SELECT id, time, job, task, worker, kind, text FROM events"
                            " WHERE job = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
                          : "SELECT id, time, job, task, worker, kind, text FROM events"
                            " WHERE ?1 = 0 AND id > ?2 ORDER BY id LIMIT ?3";
    struct sqlite3_stmt *st;
    int rc;

    SL_TRY(db_query(q, &st, e, sql, "iii", job, since, (uint64_t)limit));
    while ((rc = db_next(q, st, e)) == 1) {
        const struct sl_event ev = {
            .id = db_number(st, 0), .time_ms = db_number(st, 1), .job = db_number(st, 2),
            .task = (int64_t)db_number(st, 3), .worker = db_text(st, 4), .kind = db_text(st, 5),
            .text = db_text(st, 6),
        };

        if ((rc = fn(user, &ev)) != 0)
            break;
    }
    db_reset(st);
    return rc;
}

int sl_queue_last_event(struct sl_queue *q, uint64_t *id, struct sl_error *e)
{
    struct sqlite3_stmt *st;
    int rc;

    SL_TRY(db_query(q, &st, e, "SELECT max(id) FROM events", ""));
    SL_TRY(rc = db_next(q, st, e));
    *id = rc ? db_number(st, 0) : 0;
    db_reset(st);
    return 0;
}

int sl_queue_each_failure(struct sl_queue *q, uint64_t job, uint32_t limit,
                          int (*fn)(void *user, const struct sl_failure_row *row), void *user,
                          struct sl_error *e)
{
    struct sqlite3_stmt *st;
    int rc;

    SL_TRY(db_query(q, &st, e, "SELECT task, epoch, time, worker, text, code FROM failures"
                               " WHERE job = ? ORDER BY rowid DESC LIMIT ?", "ii", job, (uint64_t)limit));
    while ((rc = db_next(q, st, e)) == 1) {
        const struct sl_failure_row r = {
            .task = (uint32_t)db_number(st, 0), .epoch = db_number(st, 1),
            .time_ms = db_number(st, 2), .worker = db_text(st, 3), .text = db_text(st, 4),
            .code = (int)db_number(st, 5),
        };

        if ((rc = fn(user, &r)) != 0)
            break;
    }
    db_reset(st);
    return rc;
}
