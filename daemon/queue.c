#include "daemon/queue.h"

#include "proto/plan.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_VERSION 2
#define APPLICATION_ID 0x534c5143 /* "SLQC" */
#define STATEMENTS 64
#define REQUESTS_KEPT_S 2592000   /* a submit is not repeated after a month */
#define EPOCH_BLOCK 4096u          /* epochs reserved at a time */
#define EVENTS_KEPT 200000        /* of all jobs; older ones go when the queue is opened */

/* Version 0 is an empty file. Each step brings version i to i + 1. */
static const char *const migrations[QUEUE_VERSION] = {
    "CREATE TABLE jobs("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT, grp INTEGER NOT NULL, state INTEGER NOT NULL,"
    "  priority INTEGER NOT NULL, attempts INTEGER NOT NULL, manual INTEGER NOT NULL,"
    "  verify INTEGER NOT NULL, user TEXT NOT NULL, spec TEXT NOT NULL,"
    "  submitted INTEGER NOT NULL, started INTEGER NOT NULL DEFAULT 0,"
    "  ended INTEGER NOT NULL DEFAULT 0, code INTEGER NOT NULL DEFAULT 0,"
    "  error TEXT NOT NULL DEFAULT '', files TEXT NOT NULL DEFAULT '',"
    "  fingerprint TEXT NOT NULL DEFAULT '', p_source TEXT NOT NULL DEFAULT '',"
    "  p_recipe TEXT NOT NULL DEFAULT '', p_options TEXT NOT NULL DEFAULT '',"
    "  p_version TEXT NOT NULL DEFAULT '', n_tasks INTEGER NOT NULL DEFAULT 0,"
    "  src_bytes INTEGER NOT NULL DEFAULT 0, file_bytes INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX jobs_state ON jobs(state);"
    "CREATE TABLE after(job INTEGER NOT NULL, needs INTEGER NOT NULL,"
    "  PRIMARY KEY(job, needs)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE labels(job INTEGER NOT NULL, label TEXT NOT NULL,"
    "  PRIMARY KEY(job, label)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE tasks(job INTEGER NOT NULL, task INTEGER NOT NULL, state INTEGER NOT NULL,"
    "  epoch INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,"
    "  checksum INTEGER NOT NULL DEFAULT 0, src INTEGER NOT NULL DEFAULT 0,"
    "  out INTEGER NOT NULL DEFAULT 0, shard INTEGER NOT NULL DEFAULT 0,"
    "  worker TEXT NOT NULL DEFAULT '', PRIMARY KEY(job, task)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE failures(job INTEGER NOT NULL, task INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    "  worker TEXT NOT NULL, code INTEGER NOT NULL, text TEXT NOT NULL, time INTEGER NOT NULL,"
    "  counts INTEGER NOT NULL) STRICT;"
    "CREATE INDEX failures_task ON failures(job, task);"
    "CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL,"
    "  job INTEGER NOT NULL, task INTEGER NOT NULL, worker TEXT NOT NULL, kind TEXT NOT NULL,"
    "  text TEXT NOT NULL) STRICT;"
    "CREATE INDEX events_job ON events(job, id);"
    "CREATE TABLE requests(user TEXT NOT NULL, key TEXT NOT NULL, digest INTEGER NOT NULL,"
    "  jobs TEXT NOT NULL, time INTEGER NOT NULL, PRIMARY KEY(user, key)) STRICT, WITHOUT ROWID;",
    /* Epochs are the queue's, no longer each task's; a lease says whose it is. Leases of
     * before, of which that is not known, go back. A new queue's begin at the time (one in
     * memory alone: at 0). */
    "CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "INSERT INTO counters SELECT 'epochs', coalesce(max(epoch), (SELECT iif(file = '', 0, unixepoch() * 100000)"
    "  FROM pragma_database_list WHERE name = 'main')) FROM tasks;"
    "ALTER TABLE tasks ADD COLUMN owner TEXT NOT NULL DEFAULT '';"
    "UPDATE tasks SET state = 0, worker = '' WHERE state = 1;",
};

struct sl_queue {
    sqlite3 *db;
    char *path;
    bool open;                   /* a transaction is */
    uint64_t epoch;              /* last one taken */
    uint64_t reserved, reserved_synced; /* epochs up to here: written, and on disk */
    struct {
        const char *sql;         /* by address: every statement stands once in this file */
        sqlite3_stmt *st;
    } cache[STATEMENTS];
};

const char *sl_job_state_name(enum sl_job_state s)
{
    static const char *const names[SL_JOB_STATES] = {
        "queued", "held", "running", "stitching", "verifying", "succeeded", "failed", "cancelled",
        "interrupted"};

    return s < SL_JOB_STATES ? names[s] : "unknown";
}

int sl_job_state_by_name(const char *name)
{
    for (int s = 0; s < SL_JOB_STATES; s++)
        if (strcmp(sl_job_state_name((enum sl_job_state)s), name) == 0)
            return s;
    return -1;
}

bool sl_job_ended(enum sl_job_state s)
{
    return s == SL_JOB_SUCCEEDED || s == SL_JOB_FAILED || s == SL_JOB_CANCELLED;
}

/* ---- statements */

static int db_fail(struct sl_queue *q, struct sl_error *e, const char *what)
{
    int code = sqlite3_errcode(q->db) == SQLITE_FULL ? SL_ENOSPACE : SL_EFAIL;

    return sl_fail(e, code, "%s: %s: %s", q->path, what, sqlite3_errmsg(q->db));
}

static int run_sql(struct sl_queue *q, const char *sql, struct sl_error *e)
{
    return sqlite3_exec(q->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0
                                                                   : db_fail(q, e, "queue");
}

/* A statement with its values bound: i uint64_t, s text. Reset, ready to step. */
static int bind_all(struct sl_queue *q, sqlite3_stmt **st, const char *sql, const char *kinds,
                    va_list ap, struct sl_error *e)
{
    unsigned i = 0;

    while (i < STATEMENTS && q->cache[i].sql && q->cache[i].sql != sql)
        i++;
    if (i == STATEMENTS)
        return sl_fail(e, SL_EFAIL, "%s: too many statements", q->path);
    if (!q->cache[i].sql) {
        if (sqlite3_prepare_v3(q->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q->cache[i].st, NULL) !=
            SQLITE_OK)
            return db_fail(q, e, "queue");
        q->cache[i].sql = sql;
    }
    *st = q->cache[i].st;
    sqlite3_reset(*st);
    for (int k = 0; kinds[k]; k++) {
        int rc = kinds[k] == 'i'
                     ? sqlite3_bind_int64(*st, k + 1, (sqlite3_int64)va_arg(ap, uint64_t))
                     : sqlite3_bind_text(*st, k + 1, va_arg(ap, const char *), -1, SQLITE_STATIC);

        if (rc != SQLITE_OK)
            return db_fail(q, e, "queue");
    }
    return 0;
}

static int query(struct sl_queue *q, sqlite3_stmt **st, struct sl_error *e, const char *sql,
                 const char *kinds, ...)
{
    va_list ap;
    int rc;

    va_start(ap, kinds);
    rc = bind_all(q, st, sql, kinds, ap, e);
    va_end(ap);
    return rc;
}

/* Returns 1 with a row, 0 at the end. */
static int next_row(struct sl_queue *q, sqlite3_stmt *st, struct sl_error *e)
{
    int step = sqlite3_step(st);

    if (step == SQLITE_ROW)
        return 1;
    if (step == SQLITE_DONE) {
        sqlite3_reset(st);
        return 0;
    }
    db_fail(q, e, "cannot be read");
    sqlite3_reset(st);
    return e ? e->code : SL_EFAIL;
}

/* Runs a writing statement inside the transaction; returns the rows changed. */
static int change(struct sl_queue *q, struct sl_error *e, const char *sql, const char *kinds, ...)
{
    sqlite3_stmt *st;
    va_list ap;
    int rc;

    if (!q->open) {
        SL_TRY(run_sql(q, "BEGIN IMMEDIATE", e));
        q->open = true;
    }
    va_start(ap, kinds);
    rc = bind_all(q, &st, sql, kinds, ap, e);
    va_end(ap);
    SL_TRY(rc);
    if (sqlite3_step(st) != SQLITE_DONE) {
        rc = db_fail(q, e, "cannot be written");
        sqlite3_reset(st);
        return rc;
    }
    sqlite3_reset(st);
    return sqlite3_changes(q->db);
}

/* The same where the number of rows does not matter. */
#define CHANGE(...) SL_TRY(change(__VA_ARGS__))

static uint64_t col(sqlite3_stmt *st, int i)
{
    return (uint64_t)sqlite3_column_int64(st, i);
}

static const char *text(sqlite3_stmt *st, int i)
{
    const char *s = (const char *)sqlite3_column_text(st, i);

    return s ? s : "";
}

/* ---- opening, committing */

static int pragma_value(struct sl_queue *q, const char *sql, int *v, struct sl_error *e)
{
    sqlite3_stmt *st = NULL;

    if (sqlite3_prepare_v2(q->db, sql, -1, &st, NULL) != SQLITE_OK)
        return db_fail(q, e, "queue");
    *v = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int(st, 0) : -1;
    sqlite3_finalize(st);
    return 0;
}

static int migrate(struct sl_queue *q, struct sl_error *e)
{
    int version, id, tables;
    char sql[80];

    SL_TRY(pragma_value(q, "PRAGMA user_version", &version, e));
    SL_TRY(pragma_value(q, "PRAGMA application_id", &id, e));
    SL_TRY(pragma_value(q, "SELECT count(*) FROM sqlite_schema", &tables, e));
    if (version == 0 ? tables != 0 : id != APPLICATION_ID)
        return sl_fail(e, SL_EEXISTS, "%s: is no queue of this program; choose another place",
                       q->path);
    if (version > QUEUE_VERSION)
        return sl_fail(e, SL_EEXISTS, "%s: written by a newer release (version %d, this one knows "
                                      "%d); use that release", q->path, version, QUEUE_VERSION);
    for (; version < QUEUE_VERSION; version++) {
        SL_TRY(run_sql(q, "BEGIN IMMEDIATE", e));
        snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%d;",
                 APPLICATION_ID, version + 1);
        if (run_sql(q, migrations[version], e) < 0 || run_sql(q, sql, e) < 0 ||
            run_sql(q, "COMMIT", e) < 0) {
            sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
            return SL_EFAIL;
        }
    }
    return 0;
}

/* Writes that a block of epochs beyond those in use is reserved, when the last one
 * is half used. */
static int reserve_epochs(struct sl_queue *q, struct sl_error *e)
{
    if (q->epoch + EPOCH_BLOCK / 2 < q->reserved)
        return 0;
    CHANGE(q, e, "UPDATE counters SET value = ? WHERE name = 'epochs'", "i", q->epoch + EPOCH_BLOCK);
    q->reserved = q->epoch + EPOCH_BLOCK;
    return 0;
}

/* What an earlier process reserved may have been used: begin behind it. */
static int start_epochs(struct sl_queue *q, struct sl_error *e)
{
    sqlite3_stmt *st;
    int rc;

    SL_TRY(query(q, &st, e, "SELECT value FROM counters WHERE name = 'epochs'", ""));
    SL_TRY(rc = next_row(q, st, e));
    if (rc == 0)
        return sl_fail(e, SL_EFAIL, "%s: the counter of epochs is missing: the queue is damaged", q->path);
    q->epoch = q->reserved = q->reserved_synced = col(st, 0);
    sqlite3_reset(st);
    return reserve_epochs(q, e);
}

static int set_up(struct sl_queue *q, struct sl_error *e)
{
    if (sqlite3_exec(q->db, "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; COMMIT;", NULL, NULL,
                     NULL) != SQLITE_OK) {
        if (sqlite3_errcode(q->db) == SQLITE_BUSY)
            return sl_fail(e, SL_EEXISTS, "%s: another process works on this queue; wait for it, or "
                                          "choose another place", q->path);
        return db_fail(q, e, "cannot be opened as a queue");
    }
    SL_TRY(run_sql(q, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF;", e));
    SL_TRY(migrate(q, e));
    CHANGE(q, e, "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", "i",
           (uint64_t)EVENTS_KEPT);
    CHANGE(q, e, "DELETE FROM requests WHERE time < (unixepoch() - ?) * 1000", "i",
           (uint64_t)REQUESTS_KEPT_S);
    SL_TRY(start_epochs(q, e));
    return sl_queue_commit(q, e);
}

int sl_queue_open(const char *path, struct sl_queue **out, struct sl_error *e)
{
    struct sl_queue *q = calloc(1, sizeof *q);
    int rc;

    *out = NULL;
    if (!q || !(q->path = strdup(path))) {
        free(q);
        return sl_fail(e, SL_EFAIL, "out of memory");
    }
    if (sqlite3_open_v2(path, &q->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
        rc = db_fail(q, e, "cannot be opened");
    else
        rc = set_up(q, e);
    if (rc < 0) {
        sl_queue_close(q);
        return rc;
    }
    *out = q;
    return 0;
}

void sl_queue_close(struct sl_queue *q)
{
    if (!q)
        return;
    sl_queue_rollback(q);
    for (unsigned i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(q->cache[i].st);
    sqlite3_close(q->db);
    free(q->path);
    free(q);
}

void sl_queue_remove(const char *path)
{
    static const char *const suffix[] = {"", "-wal", "-shm", "-journal"};
    char name[4200];

    for (size_t i = 0; i < sizeof suffix / sizeof suffix[0]; i++)
        if ((size_t)snprintf(name, sizeof name, "%s%s", path, suffix[i]) < sizeof name)
            unlink(name);
}

int sl_queue_commit(struct sl_queue *q, struct sl_error *e)
{
    int rc = q->open ? run_sql(q, "COMMIT", e) : 0;

    if (rc < 0)
        sl_queue_rollback(q);
    else
        q->reserved_synced = q->reserved;
    q->open = false;
    return rc;
}

bool sl_queue_uncommitted(const struct sl_queue *q)
{
    return q->open;
}

void sl_queue_rollback(struct sl_queue *q)
{
    if (q->open)
        sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
    q->reserved = q->reserved_synced;
    q->open = false;
}

/* ---- jobs */

int sl_queue_submit(struct sl_queue *q, const struct sl_new_job *j, uint64_t now_ms, uint64_t *id,
                    struct sl_error *e)
{
    CHANGE(q, e, "INSERT INTO jobs(grp, state, priority, attempts, manual, verify, user, spec, submitted)"
                 " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
           "iiiiiissi", j->group == UINT64_MAX ? (uint64_t)0 : j->group, (uint64_t)j->state,
           (uint64_t)j->priority, (uint64_t)j->attempts, (uint64_t)j->manual_stitch,
           (uint64_t)j->verify, j->user, j->spec, now_ms);
    *id = (uint64_t)sqlite3_last_insert_rowid(q->db);
    if (j->group == UINT64_MAX)
        CHANGE(q, e, "UPDATE jobs SET grp = id WHERE id = ?", "i", *id);
    for (uint32_t i = 0; i < j->n_after; i++)
        CHANGE(q, e, "INSERT OR IGNORE INTO after VALUES(?, ?)", "ii", *id, j->after[i]);
    for (uint32_t i = 0; i < j->n_labels; i++)
        SL_TRY(sl_queue_set_label(q, *id, j->labels[i], true, e));
    SL_TRY(sl_queue_add_task(q, *id, SL_TASK_PREPARE, e));
    SL_TRY(sl_queue_add_task(q, *id, SL_TASK_STITCH, e));
    SL_TRY(sl_queue_add_task(q, *id, SL_TASK_PUBLISH, e));
    return j->verify ? sl_queue_add_task(q, *id, SL_TASK_VERIFY, e) : 0;
}

int sl_queue_seen(struct sl_queue *q, const char *user, const char *key, uint64_t digest,
                  uint64_t ids[64], struct sl_error *e)
{
    sqlite3_stmt *st;
    char *end;
    int n = 0, rc;

    SL_TRY(query(q, &st, e, "SELECT digest, jobs FROM requests WHERE user = ? AND key = ?", "ss",
                 user, key));
    SL_TRY(rc = next_row(q, st, e));
    if (rc == 1 && col(st, 0) != digest)
        rc = sl_fail(e, SL_EUSAGE, "submit: the key '%s' was used for another request", key);
    if (rc == 1)
        for (const char *s = text(st, 1); *s && n < 64; s = end) {
            ids[n++] = strtoull(s, &end, 10);
            end += *end == ',';
        }
    sqlite3_reset(st);
    return rc < 0 ? rc : n;
}

int sl_queue_remember(struct sl_queue *q, const char *user, const char *key, uint64_t digest,
                      const uint64_t *ids, uint32_t n, uint64_t now_ms, struct sl_error *e)
{
    char list[64 * 21 + 1] = "";

    for (uint32_t i = 0; i < n && i < 64; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%llu,",
                 (unsigned long long)ids[i]);
    CHANGE(q, e, "INSERT INTO requests VALUES(?, ?, ?, ?, ?)", "ssisi", user, key, digest, list,
           now_ms);
    return 0;
}

/* Fills what stands in other tables. Labels are copied into *labels (freed by the caller). */
static int fill_job(struct sl_queue *q, struct sl_job_row *r, char **labels, struct sl_error *e)
{
    sqlite3_stmt *st;
    int rc;

    SL_TRY(query(q, &st, e, "SELECT needs FROM after WHERE job = ? LIMIT 64", "i", r->id));
    while ((rc = next_row(q, st, e)) == 1)
        r->after[r->n_after++] = col(st, 0);
    SL_TRY(rc);
    SL_TRY(query(q, &st, e, "SELECT label FROM labels WHERE job = ? ORDER BY label LIMIT 32", "i", r->id));
    while ((rc = next_row(q, st, e)) == 1)
        if ((labels[r->n_labels] = strdup(text(st, 0))) != NULL) {
            r->labels[r->n_labels] = labels[r->n_labels];
            r->n_labels++;
        }
    SL_TRY(rc);
    SL_TRY(query(q, &st, e, "SELECT sum(state = 2 AND task < 65536), sum(state = 3),"
                            " sum(iif(state = 2 AND task < 65536, src, 0)),"
                            " sum(task = 65540 AND state < 2) FROM tasks WHERE job = ?", "i", r->id));
    if ((rc = next_row(q, st, e)) == 1) {
        r->n_done = (uint32_t)col(st, 0);
        r->n_quarantined = (uint32_t)col(st, 1);
        r->done_bytes = col(st, 2);
        r->discard = col(st, 3) > 0;
    }
    sqlite3_reset(st);
    return rc < 0 ? rc : 0;
}

static bool has_labels(const struct sl_job_row *r, const struct sl_job_filter *f)
{
    for (uint32_t i = 0; i < f->n_labels; i++) {
        uint32_t k = 0;

        while (k < r->n_labels && strcmp(r->labels[k], f->labels[i]) != 0)
            k++;
        if (k == r->n_labels)
            return false;
    }
    return true;
}

#define JOB_COLUMNS "SELECT id, grp, state, priority, attempts, manual, verify, user, spec, submitted," \
                    " started, ended, code, error, files, fingerprint, n_tasks, src_bytes, file_bytes" \
                    " FROM jobs WHERE id > ? AND id < ? AND (? & (1 << state)) "

static int one_job(struct sl_queue *q, sqlite3_stmt *st, const struct sl_job_filter *f,
                   int (*fn)(void *user, const struct sl_job_row *row), void *user, uint32_t *n,
                   struct sl_error *e)
{
    char *labels[32] = {0};
    struct sl_job_row r = {
        .id = col(st, 0), .group = col(st, 1), .state = (enum sl_job_state)col(st, 2),
        .priority = (uint32_t)col(st, 3), .attempts = (uint32_t)col(st, 4),
        .manual_stitch = col(st, 5) != 0, .verify = col(st, 6) != 0, .user = text(st, 7),
        .spec = text(st, 8), .submitted_ms = col(st, 9), .started_ms = col(st, 10),
        .ended_ms = col(st, 11), .code = (int)col(st, 12), .error = text(st, 13),
        .files = text(st, 14), .fingerprint = text(st, 15), .n_tasks = (uint32_t)col(st, 16),
        .src_bytes = col(st, 17), .file_bytes = col(st, 18),
    };
    int rc = fill_job(q, &r, labels, e);

    if (rc == 0 && has_labels(&r, f)) {
        rc = fn(user, &r);
        (*n)++;
    }
    for (unsigned i = 0; i < 32; i++)
        free(labels[i]);
    return rc;
}

int sl_queue_each_job(struct sl_queue *q, const struct sl_job_filter *f,
                      int (*fn)(void *user, const struct sl_job_row *row), void *user,
                      struct sl_error *e)
{
    uint64_t low = f->id ? f->id - 1 : 0, high = f->id ? f->id + 1 : f->before;
    const char *sql = f->newest_first ? JOB_COLUMNS "ORDER BY id DESC" : JOB_COLUMNS "ORDER BY id";
    sqlite3_stmt *st;
    uint32_t n = 0;
    int rc;

    SL_TRY(query(q, &st, e, sql, "iii", low, high ? high : (uint64_t)INT64_MAX,
                 (uint64_t)(f->states ? f->states : UINT32_MAX)));
    while ((rc = next_row(q, st, e)) == 1) {
        rc = one_job(q, st, f, fn, user, &n, e);
        if (rc != 0 || (f->limit && n == f->limit))
            break;
    }
    sqlite3_reset(st);
    return rc;
}

int sl_queue_set_plan(struct sl_queue *q, uint64_t job, const struct sl_queue_plan *p,
                      struct sl_error *e)
{
    uint64_t src = 0;

    CHANGE(q, e, "DELETE FROM tasks WHERE job = ? AND task < 65536", "i", job);
    for (uint32_t t = 0; t < p->n_tasks; t++) {
        src += p->src_bytes[t];
        CHANGE(q, e, "INSERT INTO tasks(job, task, state, src, out, shard) VALUES(?, ?, 0, ?, ?, ?)",
               "iiiii", job, (uint64_t)t, p->src_bytes[t], p->out_bytes[t], (uint64_t)p->shard[t]);
    }
    CHANGE(q, e, "UPDATE jobs SET fingerprint = ?, p_source = ?, p_recipe = ?, p_options = ?,"
                 " p_version = ?, n_tasks = ?, src_bytes = ?, file_bytes = ? WHERE id = ?",
           "sssssiiii", p->fingerprint, p->source, p->recipe, p->options, p->version,
           (uint64_t)p->n_tasks, src, p->file_bytes, job);
    return 0;
}

int sl_queue_same_plan(struct sl_queue *q, uint64_t job, const struct sl_queue_plan *p,
                       struct sl_error *e)
{
    static const char *const label[] = {"version of sluice", "recipe", "set of options", "source",
                                        "config.json, tokenizer or model card"};
    const char *const now[] = {p->version, p->recipe, p->options, p->source, p->fingerprint};
    char option[200];
    sqlite3_stmt *st;
    int rc;

    SL_TRY(query(q, &st, e, "SELECT p_version, p_recipe, p_options, p_source, fingerprint, n_tasks"
                            " FROM jobs WHERE id = ?", "i", job));
    SL_TRY(rc = next_row(q, st, e));
    if (rc == 0)
        return sl_fail(e, SL_ENOJOB, "%s: no job %llu", q->path, (unsigned long long)job);
    rc = 0;
    /* The same fingerprint is the same work, however its options were spelled. */
    for (int i = 0; i < 5 && rc == 0 && text(st, 4)[0] && strcmp(text(st, 4), now[4]) != 0; i++)
        if (i == 2 && sl_plan_option_difference(text(st, i), now[i], option, sizeof option))
            rc = sl_fail(e, SL_EEXISTS, "%s: unfinished work with another %s", q->path, option);
        else if (strcmp(text(st, i), now[i]) != 0)
            rc = sl_fail(e, SL_EEXISTS, "%s: unfinished work with another %s (then %s, now %s)",
                         q->path, label[i], text(st, i), now[i]);
    if (rc == 0 && text(st, 4)[0] && col(st, 5) != p->n_tasks)
        rc = sl_fail(e, SL_EEXISTS, "%s: unfinished work with another number of tasks (then %llu, "
                                    "now %u)", q->path, (unsigned long long)col(st, 5), p->n_tasks);
    sqlite3_reset(st);
    return rc;
}

int sl_queue_set_state(struct sl_queue *q, uint64_t job, enum sl_job_state s, int code,
                       const char *error, uint64_t now_ms, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE jobs SET state = ?1, code = ?2, error = ?3,"
                 " started = iif(started = 0 AND ?1 = 2, ?4, started),"
                 " ended = iif(?1 IN (5, 6, 7), ?4, 0) WHERE id = ?5",
           "iisii", (uint64_t)s, (uint64_t)code, error ? error : "", now_ms, job);
    return 0;
}

int sl_queue_set_priority(struct sl_queue *q, uint64_t job, uint32_t priority, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE jobs SET priority = ? WHERE id = ?", "ii", (uint64_t)priority, job);
    return 0;
}

int sl_queue_set_attempts(struct sl_queue *q, uint64_t job, uint32_t attempts, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE jobs SET attempts = ? WHERE id = ?", "ii", (uint64_t)attempts, job);
    return 0;
}

int sl_queue_set_files(struct sl_queue *q, uint64_t job, const char *files, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE jobs SET files = ? WHERE id = ?", "si", files, job);
    return 0;
}

int sl_queue_set_label(struct sl_queue *q, uint64_t job, const char *label, bool present,
                       struct sl_error *e)
{
    if (present)
        CHANGE(q, e, "INSERT OR IGNORE INTO labels VALUES(?, ?)", "is", job, label);
    else
        CHANGE(q, e, "DELETE FROM labels WHERE job = ? AND label = ?", "is", job, label);
    return 0;
}

int sl_queue_retry(struct sl_queue *q, uint64_t job, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE failures SET counts = 0 WHERE job = ?", "i", job);
    CHANGE(q, e, "UPDATE tasks SET attempts = 0, state = iif(state = 3, 0, state) WHERE job = ?", "i", job);
    /* Discarded files are to be made from the beginning. */
    CHANGE(q, e, "UPDATE tasks SET state = 0 WHERE job = ?1 AND EXISTS"
                 " (SELECT 1 FROM tasks WHERE job = ?1 AND task = 65540)", "i", job);
    CHANGE(q, e, "DELETE FROM tasks WHERE job = ? AND task = 65540", "i", job);
    CHANGE(q, e, "UPDATE tasks SET state = 0 WHERE job = ? AND state = 2 AND task > 65536", "i", job);
    return 0;
}

int sl_queue_add_task(struct sl_queue *q, uint64_t job, uint32_t task, struct sl_error *e)
{
    CHANGE(q, e, "INSERT INTO tasks(job, task, state) VALUES(?, ?, 0)"
                 " ON CONFLICT DO UPDATE SET state = 0, attempts = 0", "ii", job, (uint64_t)task);
    return 0;
}

int sl_queue_forget(struct sl_queue *q, uint64_t job, struct sl_error *e)
{
    CHANGE(q, e, "DELETE FROM tasks WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM failures WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM events WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM labels WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM after WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM jobs WHERE id = ?", "i", job);
    return 0;
}

/* ---- tasks */

int sl_queue_each_task(struct sl_queue *q, uint64_t job,
                       int (*fn)(void *user, const struct sl_task_row *row), void *user,
                       struct sl_error *e)
{
    sqlite3_stmt *st;
    int rc;

    SL_TRY(query(q, &st, e, "SELECT task, state, epoch, attempts, checksum, src, out, shard, worker,"
                            " owner FROM tasks WHERE job = ? ORDER BY task", "i", job));
    while ((rc = next_row(q, st, e)) == 1) {
        const struct sl_task_row r = {
            .task = (uint32_t)col(st, 0), .state = (enum sl_task_state)col(st, 1),
            .epoch = col(st, 2), .attempts = (uint32_t)col(st, 3), .checksum = col(st, 4),
            .src_bytes = col(st, 5), .out_bytes = col(st, 6), .shard = (uint32_t)col(st, 7),
            .worker = text(st, 8), .owner = text(st, 9),
        };

        if ((rc = fn(user, &r)) != 0)
            break;
    }
    sqlite3_reset(st);
    return rc;
}

uint64_t sl_queue_take_epoch(struct sl_queue *q)
{
    return ++q->epoch;
}

uint64_t sl_queue_last_epoch(const struct sl_queue *q)
{
    return q->epoch;
}

uint64_t sl_queue_epochs_synced(const struct sl_queue *q)
{
    return q->reserved_synced;
}

int sl_queue_lease(struct sl_queue *q, const struct sl_new_lease *l, struct sl_error *e)
{
    SL_TRY(reserve_epochs(q, e));
    return change(q, e, "UPDATE tasks SET state = 1, epoch = ?1, worker = ?2, owner = ?3"
                        " WHERE job = ?4 AND task = ?5 AND state = 0 AND epoch < ?1",
                  "issii", l->epoch, l->worker, l->owner, l->job, (uint64_t)l->task);
}

int sl_queue_finish(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                    uint64_t checksum, struct sl_error *e)
{
    return change(q, e, "UPDATE tasks SET state = 2, checksum = ?"
                        " WHERE job = ? AND task = ? AND epoch = ? AND state = 1",
                  "iiii", checksum, job, (uint64_t)task, epoch);
}

int sl_queue_return(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                    struct sl_error *e)
{
    return change(q, e, "UPDATE tasks SET state = 0, worker = ''"
                        " WHERE job = ? AND task = ? AND epoch = ? AND state = 1",
                  "iii", job, (uint64_t)task, epoch);
}

int sl_queue_fail(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                  const struct sl_task_failure *f, enum sl_task_state *state, uint32_t *attempts,
                  struct sl_error *e)
{
    sqlite3_stmt *st;
    uint64_t workers;
    int rc = change(q, e, "UPDATE tasks SET state = 0, worker = '', attempts = attempts + 1"
                          " WHERE job = ? AND task = ? AND epoch = ? AND state = 1",
                    "iii", job, (uint64_t)task, epoch);

    if (rc != 1)
        return rc;
    CHANGE(q, e, "INSERT INTO failures VALUES(?, ?, ?, ?, ?, ?, ?, 1)", "iiisisi", job,
           (uint64_t)task, epoch, f->worker, (uint64_t)f->code, f->text, f->now_ms);
    SL_TRY(query(q, &st, e, "SELECT (SELECT attempts FROM tasks WHERE job = ?1 AND task = ?2),"
                            " (SELECT count(DISTINCT worker) FROM failures"
                            "  WHERE job = ?1 AND task = ?2 AND counts = 1)", "ii", job, (uint64_t)task));
    SL_TRY(rc = next_row(q, st, e));
    *attempts = (uint32_t)col(st, 0);
    workers = col(st, 1);
    sqlite3_reset(st);
    *state = SL_TASK_READY;
    if (*attempts >= f->max_attempts || workers >= f->max_workers) {
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

int sl_queue_add_event(struct sl_queue *q, struct sl_event *ev, struct sl_error *e)
{
    CHANGE(q, e, "INSERT INTO events(time, job, task, worker, kind, text) VALUES(?, ?, ?, ?, ?, ?)",
           "iiisss", ev->time_ms, ev->job, (uint64_t)ev->task, ev->worker, ev->kind, ev->text);
    ev->id = (uint64_t)sqlite3_last_insert_rowid(q->db);
    return 0;
}

int sl_queue_each_event(struct sl_queue *q, uint64_t job, uint64_t since, uint32_t limit,
                        int (*fn)(void *user, const struct sl_event *ev), void *user,
                        struct sl_error *e)
{
    const char *sql = job ? "SELECT id, time, job, task, worker, kind, text FROM events"
                            " WHERE job = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
                          : "SELECT id, time, job, task, worker, kind, text FROM events"
                            " WHERE ?1 = 0 AND id > ?2 ORDER BY id LIMIT ?3";
    sqlite3_stmt *st;
    int rc;

    SL_TRY(query(q, &st, e, sql, "iii", job, since, (uint64_t)limit));
    while ((rc = next_row(q, st, e)) == 1) {
        const struct sl_event ev = {
            .id = col(st, 0), .time_ms = col(st, 1), .job = col(st, 2),
            .task = sqlite3_column_int64(st, 3), .worker = text(st, 4), .kind = text(st, 5),
            .text = text(st, 6),
        };

        if ((rc = fn(user, &ev)) != 0)
            break;
    }
    sqlite3_reset(st);
    return rc;
}

int sl_queue_last_event(struct sl_queue *q, uint64_t *id, struct sl_error *e)
{
    sqlite3_stmt *st;
    int rc;

    SL_TRY(query(q, &st, e, "SELECT max(id) FROM events", ""));
    SL_TRY(rc = next_row(q, st, e));
    *id = rc ? col(st, 0) : 0;
    sqlite3_reset(st);
    return 0;
}

int sl_queue_each_failure(struct sl_queue *q, uint64_t job, uint32_t limit,
                          int (*fn)(void *user, const struct sl_failure_row *row), void *user,
                          struct sl_error *e)
{
    sqlite3_stmt *st;
    int rc;

    SL_TRY(query(q, &st, e, "SELECT task, epoch, time, worker, text, code FROM failures"
                            " WHERE job = ? ORDER BY rowid DESC LIMIT ?", "ii", job, (uint64_t)limit));
    while ((rc = next_row(q, st, e)) == 1) {
        const struct sl_failure_row r = {
            .task = (uint32_t)col(st, 0), .epoch = col(st, 1), .time_ms = col(st, 2),
            .worker = text(st, 3), .text = text(st, 4), .code = (int)col(st, 5),
        };

        if ((rc = fn(user, &r)) != 0)
            break;
    }
    sqlite3_reset(st);
    return rc;
}
