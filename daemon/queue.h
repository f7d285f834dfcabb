/* The durable queue: jobs, their tasks, leases and history. SQLite (WAL,
 * synchronous=FULL, STRICT tables) on a local disk, held exclusively.
 *
 * Writes gather in one transaction, opened by the first of them; nothing of it
 * is durable, and nothing may be acknowledged, before sl_queue_commit has
 * returned 0. One thread at a time. The daemon keeps one queue for all its jobs; convert
 * keeps one of its own with a single job beside its output.
 *
 * Times of day are milliseconds since 1970 and only for people. Lease deadlines
 * are not kept here: they run on CLOCK_MONOTONIC, which means nothing after a
 * reboot, so whoever opens a queue gives every lease its full time again. */
#ifndef SLUICE_DAEMON_QUEUE_H
#define SLUICE_DAEMON_QUEUE_H

#include "proto/wire.h"

enum sl_job_state {
    SL_JOB_QUEUED = 0,
    SL_JOB_HELD,
    SL_JOB_RUNNING,
    SL_JOB_STITCHING,
    SL_JOB_VERIFYING,
    SL_JOB_SUCCEEDED,
    SL_JOB_FAILED,
    SL_JOB_CANCELLED,
    SL_JOB_INTERRUPTED,
    SL_JOB_STATES
};
/* "queued", "running" ...: the names of PROTOCOL.md. */
const char *sl_job_state_name(enum sl_job_state s);
/* Returns the state, or -1. */
int sl_job_state_by_name(const char *name);
bool sl_job_ended(enum sl_job_state s); /* succeeded, failed, cancelled */
/* Those, as in sl_job_filter.states. */
#define SL_JOBS_ENDED (1u << SL_JOB_SUCCEEDED | 1u << SL_JOB_FAILED | 1u << SL_JOB_CANCELLED)

enum sl_task_state { SL_TASK_READY = 0, SL_TASK_LEASED, SL_TASK_DONE, SL_TASK_QUARANTINED };

/* A plan as the queue keeps it: what must be the same for finished tasks to
 * count. The texts say what they mean to a reader; a difference is named by them. */
struct sl_queue_plan {
    const char *fingerprint;                       /* 32 hex digits */
    const char *source, *recipe, *options, *version;
    uint64_t file_bytes;
    uint32_t n_tasks;
    const uint64_t *src_bytes, *out_bytes;         /* of each task */
    const uint32_t *shard;
};

struct sl_new_job {
    const char *user;
    const char *spec;          /* canonical JSON of record `spec` */
    enum sl_job_state state;   /* SL_JOB_QUEUED or SL_JOB_HELD */
    uint32_t priority, attempts;
    uint64_t group;            /* 0: none; UINT64_MAX: its own id (first of a sweep) */
    const uint64_t *after;
    uint32_t n_after;
    const char *const *labels;
    uint32_t n_labels;
    bool manual_stitch, verify;
};

/* A job as read; pointers live until the callback returns. */
struct sl_job_row {
    uint64_t id, group;
    enum sl_job_state state;
    uint32_t priority, attempts;
    bool manual_stitch, verify;
    bool discard;              /* its discard task is not done */
    const char *user, *spec;
    uint64_t submitted_ms, started_ms, ended_ms; /* 0: not yet */
    int code;                  /* exit code of an ended job */
    const char *error;         /* "" when none */
    const char *files;         /* JSON array of final names; "" before */
    const char *fingerprint;   /* "" before the plan is known */
    uint32_t n_tasks, n_done, n_quarantined;
    uint64_t src_bytes, done_bytes, file_bytes;
    uint64_t after[SL_AFTER_MAX];
    uint32_t n_after;
    const char *labels[SL_LABELS_MAX];
    uint32_t n_labels;
};

struct sl_task_row {
    uint32_t task, shard, attempts;
    enum sl_task_state state;
    uint64_t epoch, checksum, src_bytes, out_bytes;
    const char *worker;        /* instance that holds or made it; "" before */
    const char *owner;         /* of the last lease */
};

struct sl_event {
    uint64_t id, time_ms, job; /* job 0: none */
    int64_t task;              /* -1: none */
    const char *worker;        /* "" when none */
    const char *kind, *text;
};

struct sl_failure_row {
    uint32_t task;
    uint64_t epoch, time_ms;
    const char *worker, *text;
    int code;                  /* exit code, positive */
};

struct sl_queue;

/* Effect: opens or creates the queue at path and brings its tables up to date.
 * Errors: SL_EUSAGE when the path is too long for it; SL_EEXISTS when another process holds it,
 * a newer release wrote it or it is another program's; SL_EFAIL, SL_ENOSPACE when it is damaged or the disk fails. */
int sl_queue_open(const char *path, struct sl_queue **out, struct sl_error *e) SL_MUST_USE;
/* What was not committed is dropped. */
void sl_queue_close(struct sl_queue *q);
/* The path that it was opened with, for messages. */
const char *sl_queue_path(const struct sl_queue *q);
/* Effect: removes the queue's files (after close). */
void sl_queue_remove(const char *path);

/* Effect: makes everything since the last commit durable; 0 when there was
 * nothing. After an error nothing of it happened: what was built on it in
 * memory must be read again. Errors: SL_ENOSPACE, SL_EFAIL. */
int sl_queue_commit(struct sl_queue *q, struct sl_error *e) SL_MUST_USE;
/* Effect: writes something of no consequence (epochs are reserved) and commits it with what is uncommitted, to see
 * whether that can be done. After an error nothing of it happened. Errors: SL_ENOSPACE, SL_EFAIL. */
int sl_queue_try(struct sl_queue *q, struct sl_error *e) SL_MUST_USE;
/* Returns whether something was written since the last commit. */
bool sl_queue_uncommitted(const struct sl_queue *q);
/* Effect: drops what was written since the last commit. */
void sl_queue_rollback(struct sl_queue *q);

/* ---- jobs. Errors here and below: SL_ENOSPACE, SL_EFAIL, and what is said beside them. */

/* Effect: a new job with its prepare, stitch, publish (and verify) tasks; what j points to is
 * copied. *id is never used again, not even after forget. */
int sl_queue_submit(struct sl_queue *q, const struct sl_new_job *j, uint64_t now_ms, uint64_t *id,
                    struct sl_error *e) SL_MUST_USE;

/* Effect: ids = the jobs that the request with this key of this user made. digest: XXH64 of the request's
 * specifications without the texts of stock recipes; whole: with them, which earlier releases remembered. Returns how
 * many jobs (0: the key is not known). Errors: SL_EUSAGE when the key was another request's: what was remembered is
 * neither digest nor whole, and whole is not that of the jobs' specifications. */
int sl_queue_seen(struct sl_queue *q, const char *user, const char *key, uint64_t digest,
                  uint64_t whole, uint64_t ids[SL_SWEEP_MAX], struct sl_error *e) SL_MUST_USE;
/* Effect: remembers a request and its jobs for sl_queue_seen. */
int sl_queue_remember(struct sl_queue *q, const char *user, const char *key, uint64_t digest,
                      const uint64_t *ids, uint32_t n, uint64_t now_ms, struct sl_error *e)
    SL_MUST_USE;

struct sl_job_filter {
    uint64_t id;               /* 0: any */
    uint32_t states;           /* bits 1 << enum sl_job_state; 0: any */
    uint64_t before;           /* smaller ids only; 0: any */
    const char *const *labels; /* all of them */
    uint32_t n_labels;
    uint32_t limit;            /* 0: none */
    bool newest_first;
};
/* One job; of id 0, which none has, none. */
static inline struct sl_job_filter sl_job_only(uint64_t id)
{
    return (struct sl_job_filter){.id = id ? id : (uint64_t)INT64_MAX};
}
/* Effect: calls fn for each job; stops when it returns other than 0 and returns that. */
int sl_queue_each_job(struct sl_queue *q, const struct sl_job_filter *f,
                      int (*fn)(void *user, const struct sl_job_row *row), void *user,
                      struct sl_error *e) SL_MUST_USE;

/* Effect: records the plan and one ready row for each task, in place of an
 * earlier plan's. */
int sl_queue_set_plan(struct sl_queue *q, uint64_t job, const struct sl_queue_plan *p,
                      struct sl_error *e) SL_MUST_USE;
/* Returns 0 when the job has this plan or none yet. Errors: SL_EEXISTS naming
 * what differs (source, recipe, options, version, number of tasks). */
int sl_queue_same_plan(struct sl_queue *q, uint64_t job, const struct sl_queue_plan *p,
                       struct sl_error *e) SL_MUST_USE;

/* Effect: sets state, times, exit code and error (NULL: none). A job that had ended and is verified, and is what it
 * must be, keeps the time of its end. */
int sl_queue_set_state(struct sl_queue *q, uint64_t job, enum sl_job_state s, int code,
                       const char *error, uint64_t now_ms, struct sl_error *e) SL_MUST_USE;
/* Effect: each sets what its name says. files: a JSON array of final names; present: whether the job is to have the
 * label. */
int sl_queue_set_priority(struct sl_queue *q, uint64_t job, uint32_t priority, struct sl_error *e)
    SL_MUST_USE;
int sl_queue_set_attempts(struct sl_queue *q, uint64_t job, uint32_t attempts, struct sl_error *e)
    SL_MUST_USE;
int sl_queue_set_files(struct sl_queue *q, uint64_t job, const char *files, struct sl_error *e)
    SL_MUST_USE;
int sl_queue_set_label(struct sl_queue *q, uint64_t job, const char *label, bool present,
                       struct sl_error *e) SL_MUST_USE;
/* Effect: clears quarantine and attempts of all its tasks; what is done stays done, unless a discard was asked
 * for: then nothing is, and once that was done there is no plan. */
int sl_queue_retry(struct sl_queue *q, uint64_t job, struct sl_error *e) SL_MUST_USE;
/* Effect: a ready task of that number, whatever it was before, without attempts (verify, discard). */
int sl_queue_add_task(struct sl_queue *q, uint64_t job, uint32_t task, struct sl_error *e)
    SL_MUST_USE;
/* Effect: the job is no more one that waits for its stitch to be asked for. */
int sl_queue_stitch_asked(struct sl_queue *q, uint64_t job, struct sl_error *e) SL_MUST_USE;
/* Effect: removes the job; jobs that are to come after it have no such job to wait for
 * when it succeeded, and wait on for one that did not. */
int sl_queue_forget(struct sl_queue *q, uint64_t job, struct sl_error *e) SL_MUST_USE;

/* ---- tasks. Those that return 1 did it; 0 says that the lease is stale, and
 * that nothing was changed. */

/* Effect: calls fn for each task of the job, in order of number; the row is valid during the call. fn
 * ends it with a result other than 0. Returns that, or 0. Errors: SL_EFAIL. */
int sl_queue_each_task(struct sl_queue *q, uint64_t job,
                       int (*fn)(void *user, const struct sl_task_row *row), void *user,
                       struct sl_error *e) SL_MUST_USE;

/* ---- epochs. One counter for all tasks; a number is taken once and never again.
 * Of each the disk says in advance, by blocks, that it may have been taken, so that a
 * grant needs no sync of its own (proto/PROTOCOL.md, "Leases"): after a restart
 * the counter begins behind every block that was reserved. And behind the time, 100000 a
 * second since 1970, when the queue is opened: so the epochs of a new one, and of one that
 * is an older copy, are higher than those of the queue that was there before, which outputs
 * may still carry (worker/claim.h). */

/* Returns the next epoch. Touches memory alone: may be called during a commit. */
uint64_t sl_queue_take_epoch(struct sl_queue *q);
/* Returns the last epoch taken; right after opening, the last that may have been. */
uint64_t sl_queue_last_epoch(const struct sl_queue *q);
/* Epochs up to this one are reserved on disk. Not during a commit. */
uint64_t sl_queue_epochs_synced(const struct sl_queue *q);

struct sl_new_lease {
    uint64_t job, epoch;       /* epoch: taken; higher than any of the task before */
    uint32_t task;
    const char *worker;        /* instance */
    const char *owner;         /* user or key as the transport proved it */
};
/* Effect: leases a ready task, and reserves the next block of epochs in time.
 * Returns 1, or 0 when it is not ready or had that epoch or a later one. */
int sl_queue_lease(struct sl_queue *q, const struct sl_new_lease *l, struct sl_error *e)
    SL_MUST_USE;
/* Effect: the leased task is done; checksum as in struct sl_task_row. */
int sl_queue_finish(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                    uint64_t checksum, struct sl_error *e) SL_MUST_USE;
/* Effect: back to ready (given back, expired): no attempt is counted. */
int sl_queue_return(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                    struct sl_error *e) SL_MUST_USE;

struct sl_task_failure {
    const char *worker;        /* name: tells one worker's failures from another's */
    int code;                  /* exit code, positive */
    const char *text;
    bool counts;               /* as an attempt, for the quarantine */
    bool untouched;            /* nothing was made: its epoch is 0 again, as of a task that was never leased */
    uint32_t max_attempts, max_workers;
    uint64_t now_ms;
};
/* Effect: records the failure; the task is ready again, or quarantined when it counts and the task
 * has failed so max_attempts times or on max_workers workers since the last
 * retry. *state and *attempts are then set. */
int sl_queue_fail(struct sl_queue *q, uint64_t job, uint32_t task, uint64_t epoch,
                  const struct sl_task_failure *f, enum sl_task_state *state, uint32_t *attempts,
                  struct sl_error *e) SL_MUST_USE;
/* Effect: done tasks whose bytes turned out to be lost are ready again. Returns 0. */
int sl_queue_revoke(struct sl_queue *q, uint64_t job, const uint32_t *tasks, uint32_t n,
                    struct sl_error *e) SL_MUST_USE;

/* ---- history */

/* Effect: adds a line; ev->id is set. */
int sl_queue_add_event(struct sl_queue *q, struct sl_event *ev, struct sl_error *e) SL_MUST_USE;
/* Effect: events with ids over since, of one job (0: all), oldest first. */
int sl_queue_each_event(struct sl_queue *q, uint64_t job, uint64_t since, uint32_t limit,
                        int (*fn)(void *user, const struct sl_event *ev), void *user,
                        struct sl_error *e) SL_MUST_USE;
/* Returns the last event's id in *id; 0 when there is none. */
int sl_queue_last_event(struct sl_queue *q, uint64_t *id, struct sl_error *e) SL_MUST_USE;
/* Effect: a job's failures, newest first. */
int sl_queue_each_failure(struct sl_queue *q, uint64_t job, uint32_t limit,
                          int (*fn)(void *user, const struct sl_failure_row *row), void *user,
                          struct sl_error *e) SL_MUST_USE;

#endif
