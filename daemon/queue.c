#include "daemon/queue_priv.h"

#include <errno.h>
#include <fcntl.h>
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
#define EPOCH_OF_NOW \
    "(SELECT iif(file = '', 0, max(0, min(unixepoch(), 5000000000)) * 100000)" \
    "  FROM pragma_database_list WHERE name = 'main')"
#define EVENTS_KEPT 200000        /* of all jobs; older ones go */

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
    "INSERT INTO counters SELECT 'epochs', coalesce(max(epoch), " EPOCH_OF_NOW ") FROM tasks;"
    "ALTER TABLE tasks ADD COLUMN owner TEXT NOT NULL DEFAULT '';"
    "UPDATE tasks SET state = 0, worker = '' WHERE state = 1;",
};

struct sl_queue {
    sqlite3 *db;
    char *path;
    bool open;                   /* a transaction is */
    uint64_t epoch;              /* last one taken */
    uint64_t behind;             /* the next one is higher than this, too */
    uint64_t reserved, reserved_synced; /* epochs up to here: written, and on disk */
    struct {
        const char *sql;         /* by address */
        sqlite3_stmt *st;
    } cache[STATEMENTS];
};

/* ---- statements */

#define DAMAGED " (it is damaged: restore a copy of it, or move it away and begin anew)"

/* The errno behind an I/O error, or 0: sqlite3_system_errno does not have it of a commit. */
static int system_errno(struct sl_queue *q)
{
    const int which[] = {SQLITE_FCNTL_JOURNAL_POINTER, SQLITE_FCNTL_FILE_POINTER};
    int err = 0;

    for (unsigned i = 0; i < 2 && !err; i++) {
        sqlite3_file *f = NULL;

        if (sqlite3_file_control(q->db, "main", which[i], &f) == SQLITE_OK && f && f->pMethods)
            f->pMethods->xFileControl(f, SQLITE_FCNTL_LAST_ERRNO, &err);
    }
    return err;
}

static int db_fail(struct sl_queue *q, struct sl_error *e, const char *what)
{
    int sql = sqlite3_errcode(q->db), err = sql == SQLITE_IOERR ? system_errno(q) : 0;
    int code = sql == SQLITE_FULL ? SL_ENOSPACE : sl_write_code(err);

    sl_fail(e, code, "%s: %s: %s%s%s%s", q->path, what, sqlite3_errmsg(q->db), err ? ": " : "", err ? strerror(err) : "",
            code == SL_ENOSPACE                             ? " (free some room there)"
            : sql == SQLITE_CORRUPT || sql == SQLITE_NOTADB ? DAMAGED : "");
    return code;
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

int db_query(struct sl_queue *q, sqlite3_stmt **st, struct sl_error *e, const char *sql,
             const char *kinds, ...)
{
    va_list ap;
    int rc;

    va_start(ap, kinds);
    rc = bind_all(q, st, sql, kinds, ap, e);
    va_end(ap);
    return rc;
}

int db_next(struct sl_queue *q, sqlite3_stmt *st, struct sl_error *e)
{
    int step = sqlite3_step(st), rc;

    if (step == SQLITE_ROW)
        return 1;
    if (step == SQLITE_DONE) {
        sqlite3_reset(st);
        return 0;
    }
    rc = db_fail(q, e, "cannot be read");
    sqlite3_reset(st);
    return rc;
}

int db_change(struct sl_queue *q, struct sl_error *e, const char *sql, const char *kinds, ...)
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

uint64_t db_number(sqlite3_stmt *st, int i)
{
    return (uint64_t)sqlite3_column_int64(st, i);
}

const char *db_text(sqlite3_stmt *st, int i)
{
    const char *s = (const char *)sqlite3_column_text(st, i);

    return s ? s : "";
}

void db_reset(sqlite3_stmt *st)
{
    sqlite3_reset(st);
}

uint64_t db_last_id(const struct sl_queue *q)
{
    return (uint64_t)sqlite3_last_insert_rowid(q->db);
}

/* ---- epochs */

uint64_t sl_queue_take_epoch(struct sl_queue *q)
{
    if (q->epoch < q->behind)
        q->epoch = q->behind;
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

static int reserve_up_to(struct sl_queue *q, uint64_t last, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE counters SET value = ? WHERE name = 'epochs'", "i", last);
    q->reserved = last;
    return 0;
}

int db_reserve_epochs(struct sl_queue *q, struct sl_error *e)
{
    uint64_t last = q->epoch > q->behind ? q->epoch : q->behind;

    return last + EPOCH_BLOCK / 2 < q->reserved ? 0 : reserve_up_to(q, last + EPOCH_BLOCK, e);
}

/* What an earlier process reserved may have been used: begin behind it. And behind the time, as a
 * new queue does: this one can be a copy from which a later queue was restored. */
static int start_epochs(struct sl_queue *q, struct sl_error *e)
{
    sqlite3_stmt *st;
    int rc;

    SL_TRY(db_query(q, &st, e, "SELECT value, " EPOCH_OF_NOW " FROM counters WHERE name = 'epochs'", ""));
    SL_TRY(rc = db_next(q, st, e));
    if (rc == 0)
        return sl_fail(e, SL_EFAIL, "%s: the counter of epochs is missing" DAMAGED, q->path);
    q->epoch = q->reserved = q->reserved_synced = db_number(st, 0);
    q->behind = db_number(st, 1);
    sqlite3_reset(st);
    if (q->epoch > SL_WIRE_UINT_MAX - EPOCH_BLOCK)
        return sl_fail(e, SL_EFAIL, "%s: the counter of epochs is out of its range" DAMAGED, q->path);
    return db_reserve_epochs(q, e);
}

/* ---- opening, committing */

static int pragma_value(struct sl_queue *q, const char *sql, int *v, struct sl_error *e)
{
    sqlite3_stmt *st = NULL;
    int rc = 0;

    if (sqlite3_prepare_v2(q->db, sql, -1, &st, NULL) != SQLITE_OK)
        return db_fail(q, e, "queue");
    if (sqlite3_step(st) == SQLITE_ROW)
        *v = sqlite3_column_int(st, 0);
    else
        rc = db_fail(q, e, "cannot be read");
    sqlite3_finalize(st);
    return rc;
}

static int migrate(struct sl_queue *q, struct sl_error *e)
{
    int version, id, tables;
    char sql[80];

    SL_TRY(pragma_value(q, "PRAGMA user_version", &version, e));
    SL_TRY(pragma_value(q, "PRAGMA application_id", &id, e));
    SL_TRY(pragma_value(q, "SELECT count(*) FROM sqlite_schema", &tables, e));
    if (version < 0 || (version == 0 ? tables != 0 : id != APPLICATION_ID))
        return sl_fail(e, SL_EEXISTS, "%s: is no queue of this program; choose another place",
                       q->path);
    if (version > QUEUE_VERSION)
        return sl_fail(e, SL_EEXISTS, "%s: written by a newer release (version %d, this one knows "
                                      "%d); use that release", q->path, version, QUEUE_VERSION);
    for (; version < QUEUE_VERSION; version++) {
        int rc;

        SL_TRY(run_sql(q, "BEGIN IMMEDIATE", e));
        snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%d;",
                 APPLICATION_ID, version + 1);
        if ((rc = run_sql(q, migrations[version], e)) < 0 || (rc = run_sql(q, sql, e)) < 0 ||
            (rc = run_sql(q, "COMMIT", e)) < 0) {
            sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
            return rc;
        }
    }
    return 0;
}

/* Pages and rows are what they must be; some milliseconds for a hundred thousand tasks. */
static int check_whole(struct sl_queue *q, struct sl_error *e)
{
    sqlite3_stmt *st = NULL;
    int odd = 0, rc = 0;

    if (sqlite3_prepare_v2(q->db, "PRAGMA quick_check(1)", -1, &st, NULL) != SQLITE_OK)
        return db_fail(q, e, "queue");
    if (sqlite3_step(st) != SQLITE_ROW) {
        rc = db_fail(q, e, "cannot be read");
    } else {
        const char *told = (const char *)sqlite3_column_text(st, 0), *line = told ? strchr(told, '\n') : NULL;

        if (!told)
            rc = sl_no_memory(e);
        else if (strcmp(told, "ok") != 0)
            rc = sl_fail(e, SL_EFAIL, "%s: %.200s%s", q->path, line ? line + 1 : told, DAMAGED);
    }
    sqlite3_finalize(st);
    SL_TRY(rc);
    SL_TRY(pragma_value(q, "SELECT count(*) FROM jobs WHERE state NOT BETWEEN 0 AND 8", &odd, e));
    return odd ? sl_fail(e, SL_EFAIL, "%s: a job is in no state that there is%s", q->path, DAMAGED) : 0;
}

int db_trim(struct sl_queue *q, struct sl_error *e)
{
    CHANGE(q, e, "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", "i",
           (uint64_t)EVENTS_KEPT);
    CHANGE(q, e, "DELETE FROM requests WHERE time < (unixepoch() - ?) * 1000", "i",
           (uint64_t)REQUESTS_KEPT_S);
    return 0;
}

/* Returns the errno of a filesystem without file locks, or 0. SQLite takes ENOLCK for a lock of somebody else's.
 * Closing a file lets go of the process's own locks on it: q, which could not be locked, has none. */
static int lock_refusal(const struct sl_queue *q)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(q->path, O_RDWR | O_CLOEXEC), err = 0;

    if (fd < 0)
        return 0;
    if (fcntl(fd, F_GETLK, &whole) != 0)
        err = errno;
    close(fd);
    return err == ENOLCK || err == ENOSYS || err == EOPNOTSUPP ? err : 0;
}

static int set_up(struct sl_queue *q, struct sl_error *e)
{
    if (sqlite3_exec(q->db, "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; COMMIT;", NULL, NULL,
                     NULL) != SQLITE_OK) {
        int err = lock_refusal(q);

        if (err)
            return sl_fail(e, SL_EFAIL, "%s: files cannot be locked on this filesystem: %s; have it mounted so that they can "
                           "(Lustre: with flock), or choose a folder on another", q->path, strerror(err));
        if (sqlite3_errcode(q->db) == SQLITE_BUSY)
            return sl_fail(e, SL_EEXISTS, "%s: another process is at work with it; wait for that, or "
                                          "choose another place", q->path);
        return db_fail(q, e, "cannot be opened");
    }
    SL_TRY(run_sql(q, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF;", e));
    SL_TRY(migrate(q, e));
    SL_TRY(check_whole(q, e));
    SL_TRY(db_trim(q, e));
    SL_TRY(start_epochs(q, e));
    return sl_queue_commit(q, e);
}

/* SQLite has a limit of its own, without links, and does not say so. */
static int cannot_open(struct sl_queue *q, struct sl_error *e)
{
    const char *slash = strrchr(q->path, '/');
    char *folder = slash ? strndup(q->path, (size_t)(slash - q->path) + 1) : strdup(".");
    char *real = folder ? realpath(folder, NULL) : NULL;
    int n = real ? (int)(strlen(real) + 1 + strlen(slash ? slash + 1 : q->path)) : 0;
    int most = sqlite3_vfs_find(NULL)->mxPathname - 8; /* it adds "-journal" */

    free(folder);
    free(real);
    if (n > most)
        return sl_fail(e, SL_EUSAGE, "%s: the path has %d bytes, and a database's may have %d; choose a folder "
                                     "with a shorter path", q->path, n, most);
    return db_fail(q, e, "cannot be opened");
}

int sl_queue_open(const char *path, struct sl_queue **out, struct sl_error *e)
{
    struct sl_queue *q = calloc(1, sizeof *q);
    int rc;

    *out = NULL;
    if (!q || !(q->path = strdup(path))) {
        free(q);
        return sl_no_memory(e);
    }
    if (sqlite3_open_v2(path, &q->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
        rc = cannot_open(q, e);
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

const char *sl_queue_path(const struct sl_queue *q)
{
    return q->path;
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

/* The same value once more is not written. */
int sl_queue_try(struct sl_queue *q, struct sl_error *e)
{
    int rc = reserve_up_to(q, q->reserved + 1, e);

    if (rc == 0)
        return sl_queue_commit(q, e);
    sl_queue_rollback(q);
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
