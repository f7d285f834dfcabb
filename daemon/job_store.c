#include "daemon/job_store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STORE_VERSION 1

struct sl_job_store {
    sqlite3 *db;
    char *path;
};

static int db_fail(struct sl_job_store *s, struct sl_error *e, const char *what)
{
    int code = sqlite3_errcode(s->db) == SQLITE_FULL ? SL_ENOSPACE : SL_EFAIL;

    return sl_fail(e, code, "%s: %s: %s", s->path, what, sqlite3_errmsg(s->db));
}

static int run_sql(struct sl_job_store *s, const char *sql, const char *what, struct sl_error *e)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_fail(s, e, what);
}

static int prepare(struct sl_job_store *s, const char *sql, sqlite3_stmt **st,
                   struct sl_error *e)
{
    return sqlite3_prepare_v2(s->db, sql, -1, st, NULL) == SQLITE_OK
               ? 0
               : db_fail(s, e, "job store");
}

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS done(task INTEGER PRIMARY KEY, checksum INTEGER NOT NULL) STRICT;";

static int user_version(struct sl_job_store *s, int *v, struct sl_error *e)
{
    sqlite3_stmt *st = NULL;

    SL_TRY(prepare(s, "PRAGMA user_version", &st, e));
    *v = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int(st, 0) : -1;
    sqlite3_finalize(st);
    return 0;
}

static int set_up(struct sl_job_store *s, struct sl_error *e)
{
    char sql[64];
    int version;

    if (sqlite3_exec(s->db, "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; COMMIT;", NULL, NULL,
                     NULL) != SQLITE_OK) {
        if (sqlite3_errcode(s->db) == SQLITE_BUSY)
            return sl_fail(e, SL_EEXISTS, "%s: another sluice is working on this output; wait for "
                                          "it, or choose another output", s->path);
        return db_fail(s, e, "cannot be opened as a job store");
    }
    SL_TRY(run_sql(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;", "job store", e));
    SL_TRY(user_version(s, &version, e));
    if (version != 0 && version != STORE_VERSION)
        return sl_fail(e, SL_EEXISTS, "%s: written by another version of sluice (store version %d, "
                                      "expected %d); --force starts anew", s->path, version,
                       STORE_VERSION);
    SL_TRY(run_sql(s, schema, "job store", e));
    snprintf(sql, sizeof sql, "PRAGMA user_version=%d", STORE_VERSION);
    return run_sql(s, sql, "job store", e);
}

int sl_job_store_open(const char *path, struct sl_job_store **out, struct sl_error *e)
{
    struct sl_job_store *s = calloc(1, sizeof *s);
    int rc;

    *out = NULL;
    if (!s || !(s->path = strdup(path))) {
        free(s);
        return sl_fail(e, SL_EFAIL, "out of memory");
    }
    if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
        rc = db_fail(s, e, "cannot be opened");
    else
        rc = set_up(s, e);
    if (rc < 0) {
        sl_job_store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void sl_job_store_close(struct sl_job_store *s)
{
    if (!s)
        return;
    sqlite3_close(s->db);
    free(s->path);
    free(s);
}

/* Value of a meta key into buf; "" when absent. */
static int get_meta(struct sl_job_store *s, const char *key, char *buf, size_t cap,
                    struct sl_error *e)
{
    sqlite3_stmt *st = NULL;
    int step;

    SL_TRY(prepare(s, "SELECT value FROM meta WHERE key = ?", &st, e));
    sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
    step = sqlite3_step(st);
    snprintf(buf, cap, "%s", step == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : "");
    sqlite3_finalize(st);
    return step == SQLITE_ROW || step == SQLITE_DONE ? 0 : db_fail(s, e, "cannot be read");
}

static int put_meta(struct sl_job_store *s, const char *key, const char *value,
                    struct sl_error *e)
{
    sqlite3_stmt *st = NULL;
    int step;

    SL_TRY(prepare(s, "INSERT OR REPLACE INTO meta VALUES(?, ?)", &st, e));
    sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, value, -1, SQLITE_STATIC);
    step = sqlite3_step(st);
    sqlite3_finalize(st);
    return step == SQLITE_DONE ? 0 : db_fail(s, e, "cannot be written");
}

int sl_job_store_state(struct sl_job_store *s, struct sl_error *e)
{
    char state[32];

    SL_TRY(get_meta(s, "state", state, sizeof state, e));
    if (!state[0])
        return SL_JOB_NEW;
    return strcmp(state, "publishing") == 0 ? SL_JOB_PUBLISHING : SL_JOB_CONVERTING;
}

int sl_job_store_set_state(struct sl_job_store *s, enum sl_job_state state, struct sl_error *e)
{
    return put_meta(s, "state", state == SL_JOB_PUBLISHING ? "publishing" : "converting", e);
}

struct part {
    const char *key, *value, *label;
};

static int differs(struct sl_job_store *s, const struct part *p, struct sl_error *e)
{
    char old[512];

    SL_TRY(get_meta(s, p->key, old, sizeof old, e));
    if (strncmp(old, p->value, sizeof old - 1) == 0)
        return 0;
    return sl_fail(e, SL_EEXISTS, "%s: unfinished work with another %s (then %s, now %s); repeat "
                                  "the first command to finish it, or --force to start anew",
                   s->path, p->label, old, p->value);
}

static int record_new(struct sl_job_store *s, const struct part *parts, struct sl_error *e)
{
    SL_TRY(run_sql(s, "BEGIN IMMEDIATE", "cannot be written", e));
    for (const struct part *p = parts; p->key; p++)
        SL_TRY(put_meta(s, p->key, p->value, e));
    SL_TRY(put_meta(s, "state", "converting", e));
    return run_sql(s, "COMMIT", "cannot be written", e);
}

int sl_job_store_begin(struct sl_job_store *s, const struct sl_job_identity *id,
                       struct sl_error *e)
{
    char tasks[16];
    const struct part parts[] = {
        {"version", id->version, "version of sluice"}, {"source", id->source, "source"},
        {"recipe", id->recipe, "recipe"},              {"options", id->options, "set of options"},
        {"tasks", tasks, "number of tasks"},           {"fingerprint", id->fingerprint, "plan"},
        {NULL, NULL, NULL},
    };
    int state = sl_job_store_state(s, e);

    snprintf(tasks, sizeof tasks, "%u", id->n_tasks);
    SL_TRY(state);
    if (state == SL_JOB_NEW) {
        int rc = record_new(s, parts, e);

        if (rc < 0)
            sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        return rc;
    }
    for (const struct part *p = parts; p->key; p++)
        SL_TRY(differs(s, p, e));
    return 0;
}

int sl_job_store_each(struct sl_job_store *s,
                      int (*fn)(void *user, uint32_t task, uint64_t checksum), void *user,
                      struct sl_error *e)
{
    sqlite3_stmt *st = NULL;
    int step = SQLITE_DONE, rc = 0;

    SL_TRY(prepare(s, "SELECT task, checksum FROM done ORDER BY task", &st, e));
    while (rc == 0 && (step = sqlite3_step(st)) == SQLITE_ROW)
        rc = fn(user, (uint32_t)sqlite3_column_int64(st, 0), (uint64_t)sqlite3_column_int64(st, 1));
    sqlite3_finalize(st);
    if (rc == 0 && step != SQLITE_DONE)
        return db_fail(s, e, "cannot be read");
    return rc;
}

/* Runs a one-row statement for each of n rows inside one transaction. */
static int each_in_transaction(struct sl_job_store *s, const char *sql,
                               const struct sl_done_task *rows, uint32_t n, int columns,
                               struct sl_error *e)
{
    sqlite3_stmt *st = NULL;
    int rc;

    SL_TRY(run_sql(s, "BEGIN IMMEDIATE", "cannot be written", e));
    rc = prepare(s, sql, &st, e);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        sqlite3_reset(st);
        sqlite3_bind_int64(st, 1, rows[i].task);
        if (columns > 1)
            sqlite3_bind_int64(st, 2, (sqlite3_int64)rows[i].checksum);
        if (sqlite3_step(st) != SQLITE_DONE)
            rc = db_fail(s, e, "cannot be written");
    }
    sqlite3_finalize(st);
    if (rc == 0)
        rc = run_sql(s, "COMMIT", "cannot be written", e);
    if (rc < 0)
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

int sl_job_store_commit(struct sl_job_store *s, const struct sl_done_task *done, uint32_t n,
                        struct sl_error *e)
{
    return each_in_transaction(s, "INSERT OR REPLACE INTO done VALUES(?, ?)", done, n, 2, e);
}

int sl_job_store_revoke(struct sl_job_store *s, const uint32_t *tasks, uint32_t n,
                        struct sl_error *e)
{
    for (uint32_t i = 0; i < n; i++) {
        struct sl_done_task row = {.task = tasks[i]};

        SL_TRY(each_in_transaction(s, "DELETE FROM done WHERE task = ?", &row, 1, 1, e));
    }
    return 0;
}

void sl_job_store_remove(const char *path)
{
    static const char *const suffix[] = {"", "-wal", "-shm", "-journal"};
    char name[4200];

    for (size_t i = 0; i < sizeof suffix / sizeof suffix[0]; i++) {
        if ((size_t)snprintf(name, sizeof name, "%s%s", path, suffix[i]) < sizeof name)
            unlink(name);
    }
}
