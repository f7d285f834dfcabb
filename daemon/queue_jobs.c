#include "daemon/queue_priv.h"
#include "proto/plan.h"
#include "proto/tensor_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the statements name by number. */
_Static_assert(SL_TASKS_MAX == 65536 && SL_TASK_VERIFY == 65539 && SL_TASK_DISCARD == 65540 &&
               SL_TASK_READY == 0 && SL_TASK_LEASED == 1 && SL_TASK_DONE == 2 && SL_TASK_QUARANTINED == 3 &&
               SL_JOB_RUNNING == 2 && SL_JOB_VERIFYING == 4 && SL_JOB_SUCCEEDED == 5 && SL_JOB_FAILED == 6 && SL_JOB_CANCELLED == 7 &&
               SL_JOB_STATES == 9 && SL_AFTER_MAX == 64 && SL_LABELS_MAX == 32, "change the statements too");

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
    return 1u << s & SL_JOBS_ENDED;
}

int sl_queue_submit(struct sl_queue *q, const struct sl_new_job *j, uint64_t now_ms, uint64_t *id,
                    struct sl_error *e)
{
    CHANGE(q, e, "INSERT INTO jobs(grp, state, priority, attempts, manual, verify, user, spec, submitted)"
                 " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
           "iiiiiissi", j->group == UINT64_MAX ? (uint64_t)0 : j->group, (uint64_t)j->state,
           (uint64_t)j->priority, (uint64_t)j->attempts, (uint64_t)j->manual_stitch,
           (uint64_t)j->verify, j->user, j->spec, now_ms);
    *id = db_last_id(q);
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

/* Whether the jobs from the first to the last have these specifications, together and in their order. Errors: as db_next. */
static int have_specs(struct sl_queue *q, uint64_t first, uint64_t last, uint64_t whole, struct sl_error *e)
{
    struct sqlite3_stmt *st;
    const char *text;
    int rc;

    SL_TRY(db_query(q, &st, e, "SELECT '[' || group_concat(spec) || ']' FROM"
                               " (SELECT spec FROM jobs WHERE id BETWEEN ? AND ? ORDER BY id)", "ii", first, last));
    SL_TRY(rc = db_next(q, st, e));
    text = rc == 1 ? db_text(st, 0) : NULL;
    rc = text && sl_xxh64(text, strlen(text)) == whole;
    db_reset(st);
    return rc;
}

int sl_queue_seen(struct sl_queue *q, const char *user, const char *key, uint64_t digest,
                  uint64_t whole, uint64_t ids[SL_SWEEP_MAX], struct sl_error *e)
{
    struct sqlite3_stmt *st;
    char *end;
    int n = 0, rc, same = 0;

    SL_TRY(db_query(q, &st, e, "SELECT digest, jobs FROM requests WHERE user = ? AND key = ?", "ss",
                    user, key));
    SL_TRY(rc = db_next(q, st, e));
    if (rc == 1) {
        same = db_number(st, 0) == digest || db_number(st, 0) == whole;
        for (const char *s = db_text(st, 1); *s && n < (int)SL_SWEEP_MAX; s = end) {
            ids[n++] = strtoull(s, &end, 10);
            end += *end == ',';
        }
    }
    db_reset(st);
    if (n > 0 && !same)
        SL_TRY(same = have_specs(q, ids[0], ids[n - 1], whole, e));
    return same || n == 0 ? n : sl_fail(e, SL_EUSAGE, "the key '%s' was used for another request, which made job %llu; take "
                                        "another (--once) for this one", key, (unsigned long long)ids[0]);
}

int sl_queue_remember(struct sl_queue *q, const char *user, const char *key, uint64_t digest,
                      const uint64_t *ids, uint32_t n, uint64_t now_ms, struct sl_error *e)
{
    char list[SL_SWEEP_MAX * 21 + 1] = "";

    for (uint32_t i = 0; i < n && i < SL_SWEEP_MAX; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%llu,",
                 (unsigned long long)ids[i]);
    CHANGE(q, e, "INSERT INTO requests VALUES(?, ?, ?, ?, ?)", "ssisi", user, key, digest, list,
           now_ms);
    return 0;
}

/* Fills what stands in other tables. Labels are copied into *labels (freed by the caller). */
static int fill_job(struct sl_queue *q, struct sl_job_row *r, char **labels, struct sl_error *e)
{
    struct sqlite3_stmt *st;
    int rc;

    SL_TRY(db_query(q, &st, e, "SELECT needs FROM after WHERE job = ? LIMIT 64", "i", r->id));
    while ((rc = db_next(q, st, e)) == 1)
        r->after[r->n_after++] = db_number(st, 0);
    SL_TRY(rc);
    SL_TRY(db_query(q, &st, e, "SELECT label FROM labels WHERE job = ? ORDER BY label LIMIT 32", "i", r->id));
    while ((rc = db_next(q, st, e)) == 1) {
        if (!(labels[r->n_labels] = strdup(db_text(st, 0)))) {
            db_reset(st);
            return sl_no_memory(e);
        }
        r->labels[r->n_labels] = labels[r->n_labels];
        r->n_labels++;
    }
    SL_TRY(rc);
    SL_TRY(db_query(q, &st, e, "SELECT sum(state = 2 AND task < 65536), sum(state = 3),"
                               " sum(iif(state = 2 AND task < 65536, src, 0)),"
                               " sum(task = 65540 AND state < 2) FROM tasks WHERE job = ?", "i", r->id));
    if ((rc = db_next(q, st, e)) == 1) {
        r->n_done = (uint32_t)db_number(st, 0);
        r->n_quarantined = (uint32_t)db_number(st, 1);
        r->done_bytes = db_number(st, 2);
        r->discard = db_number(st, 3) > 0;
    }
    db_reset(st);
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

static int one_job(struct sl_queue *q, struct sqlite3_stmt *st, const struct sl_job_filter *f,
                   int (*fn)(void *user, const struct sl_job_row *row), void *user, uint32_t *n,
                   struct sl_error *e)
{
    char *labels[SL_LABELS_MAX] = {0};
    struct sl_job_row r = {
        .id = db_number(st, 0), .group = db_number(st, 1),
        .state = (enum sl_job_state)db_number(st, 2),
        .priority = (uint32_t)db_number(st, 3), .attempts = (uint32_t)db_number(st, 4),
        .manual_stitch = db_number(st, 5) != 0, .verify = db_number(st, 6) != 0,
        .user = db_text(st, 7), .spec = db_text(st, 8), .submitted_ms = db_number(st, 9),
        .started_ms = db_number(st, 10), .ended_ms = db_number(st, 11),
        .code = (int)db_number(st, 12), .error = db_text(st, 13), .files = db_text(st, 14),
        .fingerprint = db_text(st, 15), .n_tasks = (uint32_t)db_number(st, 16),
        .src_bytes = db_number(st, 17), .file_bytes = db_number(st, 18),
    };
    int rc = fill_job(q, &r, labels, e);

    if (rc == 0 && has_labels(&r, f)) {
        rc = fn(user, &r);
        (*n)++;
    }
    for (unsigned i = 0; i < SL_LABELS_MAX; i++)
        free(labels[i]);
    return rc;
}

int sl_queue_each_job(struct sl_queue *q, const struct sl_job_filter *f,
                      int (*fn)(void *user, const struct sl_job_row *row), void *user,
                      struct sl_error *e)
{
    uint64_t low = f->id ? f->id - 1 : 0, high = f->id ? f->id + 1 : f->before;
    const char *sql = f->newest_first ? JOB_COLUMNS "ORDER BY id DESC" : JOB_COLUMNS "ORDER BY id";
    struct sqlite3_stmt *st;
    uint32_t n = 0;
    int rc;

    SL_TRY(db_query(q, &st, e, sql, "iii", low, high ? high : (uint64_t)INT64_MAX,
                    (uint64_t)(f->states ? f->states : UINT32_MAX)));
    while ((rc = db_next(q, st, e)) == 1) {
        rc = one_job(q, st, f, fn, user, &n, e);
        if (rc != 0 || (f->limit && n == f->limit))
            break;
    }
    db_reset(st);
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
    static const char *const label[] = {"version of sluice", "recipe", "source", "set of options",
                                        "config.json, tokenizer, model card or release of sluice"};
    const char *const now[] = {p->version, p->recipe, p->source, p->options, p->fingerprint};
    char option[200];
    struct sqlite3_stmt *st;
    int rc;

    SL_TRY(db_query(q, &st, e, "SELECT p_version, p_recipe, p_source, p_options, fingerprint, n_tasks"
                               " FROM jobs WHERE id = ?", "i", job));
    SL_TRY(rc = db_next(q, st, e));
    if (rc == 0)
        return sl_fail(e, SL_ENOJOB, "%s: no job %llu", sl_queue_path(q), (unsigned long long)job);
    rc = 0;
    /* The same fingerprint is the same work, however its options were spelled. */
    for (int i = 0; i < 5 && rc == 0 && db_text(st, 4)[0] && strcmp(db_text(st, 4), now[4]) != 0; i++)
        if (i == 3 && sl_plan_option_difference(db_text(st, i), now[i], option, sizeof option))
            rc = sl_fail(e, SL_EEXISTS, "%s: unfinished work with another %s", sl_queue_path(q), option);
        else if (strcmp(db_text(st, i), now[i]) != 0)
            rc = sl_fail(e, SL_EEXISTS, "%s: unfinished work with another %s (then %s, now %s)",
                         sl_queue_path(q), label[i], db_text(st, i), now[i]);
    if (rc == 0 && db_text(st, 4)[0] && db_number(st, 5) != p->n_tasks)
        rc = sl_fail(e, SL_EEXISTS, "%s: unfinished work with another number of tasks (then %llu, "
                                    "now %u)",
                     sl_queue_path(q), (unsigned long long)db_number(st, 5), p->n_tasks);
    db_reset(st);
    return rc;
}

int sl_queue_set_state(struct sl_queue *q, uint64_t job, enum sl_job_state s, int code,
                       const char *error, uint64_t now_ms, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE jobs SET state = ?1, code = ?2, error = ?3,"
                 " started = iif(started = 0 AND ?1 = 2, ?4, started),"
                 " ended = CASE WHEN ?1 = 4 OR (?1 = 5 AND state = 4 AND ended) THEN ended"
                 " WHEN ?1 IN (5, 6, 7) THEN ?4 ELSE 0 END WHERE id = ?5",
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
    int gone;

    CHANGE(q, e, "UPDATE failures SET counts = 0 WHERE job = ?", "i", job);
    CHANGE(q, e, "UPDATE tasks SET attempts = 0, state = iif(state = 3, 0, state) WHERE job = ?", "i", job);
    /* Discarded files are to be made from the beginning; when they are gone, by whatever plan comes out then. */
    SL_TRY(gone = db_change(q, e, "DELETE FROM tasks WHERE job = ?1 AND task < 65536 AND EXISTS"
                                  " (SELECT 1 FROM tasks WHERE job = ?1 AND task = 65540 AND state = 2)", "i", job));
    if (gone)
        CHANGE(q, e, "UPDATE jobs SET fingerprint = '', n_tasks = 0, src_bytes = 0, file_bytes = 0 WHERE id = ?", "i", job);
    CHANGE(q, e, "UPDATE tasks SET state = 0 WHERE job = ?1 AND EXISTS"
                 " (SELECT 1 FROM tasks WHERE job = ?1 AND task = 65540)", "i", job);
    CHANGE(q, e, "DELETE FROM tasks WHERE job = ? AND task = 65540", "i", job);
    return 0;
}

int sl_queue_stitch_asked(struct sl_queue *q, uint64_t job, struct sl_error *e)
{
    CHANGE(q, e, "UPDATE jobs SET manual = 0 WHERE id = ?", "i", job);
    return 0;
}

int sl_queue_add_task(struct sl_queue *q, uint64_t job, uint32_t task, struct sl_error *e)
{
    CHANGE(q, e, "INSERT INTO tasks(job, task, state) VALUES(?, ?, 0)"
                 " ON CONFLICT DO UPDATE SET state = 0, attempts = 0", "ii", job, (uint64_t)task);
    CHANGE(q, e, "UPDATE failures SET counts = 0 WHERE job = ? AND task = ?", "ii", job, (uint64_t)task);
    return 0;
}

int sl_queue_forget(struct sl_queue *q, uint64_t job, struct sl_error *e)
{
    CHANGE(q, e, "DELETE FROM tasks WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM failures WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM events WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM labels WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM after WHERE job = ?", "i", job);
    CHANGE(q, e, "DELETE FROM after WHERE needs = ?1 AND EXISTS"
                 " (SELECT 1 FROM jobs WHERE id = ?1 AND state = 5)", "i", job);
    CHANGE(q, e, "DELETE FROM jobs WHERE id = ?", "i", job);
    return 0;
}
