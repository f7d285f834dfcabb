/* The durable record of one job: what is converted and which tasks are done.
 * The only user of SQLite. A commit that has returned survives SIGKILL and a
 * power cut (WAL, synchronous=FULL). The file is held exclusively: a second
 * process on the same job is refused. */
#ifndef SLUICE_DAEMON_JOB_STORE_H
#define SLUICE_DAEMON_JOB_STORE_H

#include "proto/error.h"

#include <stdbool.h>
#include <stdint.h>

enum sl_job_state {
    SL_JOB_NEW = 0,    /* nothing recorded yet */
    SL_JOB_CONVERTING, /* tasks are being made */
    SL_JOB_PUBLISHING, /* every byte is synced and checked; renames may have begun */
};

/* What must be the same for finished tasks to count. Values are texts that
 * mean something to their reader; part of why a resume is refused. */
struct sl_job_identity {
    const char *fingerprint;
    const char *source;
    const char *recipe;
    const char *options;
    const char *version;
    uint32_t n_tasks;
};

struct sl_job_store;

/* Effect: opens or creates the store at path and takes it exclusively.
 * Errors: SL_EEXISTS when another process holds it, SL_EFAIL when the file is
 * no store of this version or the disk fails. *out: sl_job_store_close. */
int sl_job_store_open(const char *path, struct sl_job_store **out, struct sl_error *e)
    SL_MUST_USE;
void sl_job_store_close(struct sl_job_store *s);

/* Returns the recorded state, or a negative code. */
int sl_job_store_state(struct sl_job_store *s, struct sl_error *e) SL_MUST_USE;

/* Effect: records a new job, or holds the recorded one against *id. Errors:
 * SL_EEXISTS naming what differs (source, recipe, options, version). */
int sl_job_store_begin(struct sl_job_store *s, const struct sl_job_identity *id,
                       struct sl_error *e) SL_MUST_USE;

/* Effect: calls fn for each finished task. */
int sl_job_store_each(struct sl_job_store *s,
                      int (*fn)(void *user, uint32_t task, uint64_t checksum), void *user,
                      struct sl_error *e) SL_MUST_USE;

struct sl_done_task {
    uint32_t task;
    uint64_t checksum;
};

/* Effect: records n finished tasks in one transaction; synced when it returns 0. */
int sl_job_store_commit(struct sl_job_store *s, const struct sl_done_task *done, uint32_t n,
                        struct sl_error *e) SL_MUST_USE;

/* Effect: forgets finished tasks (their bytes turned out to be lost), so that they
 * are made again. */
int sl_job_store_revoke(struct sl_job_store *s, const uint32_t *tasks, uint32_t n,
                        struct sl_error *e) SL_MUST_USE;

int sl_job_store_set_state(struct sl_job_store *s, enum sl_job_state state, struct sl_error *e)
    SL_MUST_USE;

/* Effect: removes the store's files at path (call after close). */
void sl_job_store_remove(const char *path);

#endif
