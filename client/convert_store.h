/* What convert keeps to go on after a stop: a queue (daemon/queue.h) of its own
 * with one job, beside the output. Committed means synced. A second process on
 * the same output is refused. */
#ifndef SLUICE_CLIENT_CONVERT_STORE_H
#define SLUICE_CLIENT_CONVERT_STORE_H

#include "daemon/queue.h"
#include "proto/plan.h"

enum convert_state {
    CONVERT_NEW = 0,    /* nothing recorded yet */
    CONVERT_CONVERTING, /* tasks are being made */
    CONVERT_PUBLISHING, /* every byte is checked and synced; renames may have begun */
    CONVERT_PUBLISHED,  /* all is done; the store is still there */
};

struct convert_store;

/* Effect: opens or creates the store and takes it exclusively. Errors:
 * SL_EEXISTS when another process holds it, SL_EFAIL, SL_ENOSPACE. *out is the
 * caller's (convert_store_close). */
int convert_store_open(const char *path, struct convert_store **out, struct sl_error *e)
    SL_MUST_USE;
void convert_store_close(struct convert_store *s);
/* Effect: removes the files at path (after close). */
void convert_store_remove(const char *path);

/* Returns an enum convert_state. */
int convert_store_state(struct convert_store *s, struct sl_error *e) SL_MUST_USE;

/* Effect: records the plan, or holds the recorded one against it. source: what
 * to call the source in messages; spec: the job's specification (record `spec`
 * of PROTOCOL.md). Errors: SL_EEXISTS naming what differs (source, recipe,
 * options, version), or where what is recorded is not what was written. */
int convert_store_begin(struct convert_store *s, const struct sl_plan *p, const char *source,
                        const char *spec, struct sl_error *e) SL_MUST_USE;

/* What unfinished work was begun with; strings are the caller's (free). */
struct convert_begun {
    char *recipe, *recipe_text, *fingerprint;
};
/* Effect: fills *b; all NULL when nothing is recorded, or nothing is left to do but removing the store. */
int convert_store_begun(struct convert_store *s, struct convert_begun *b, struct sl_error *e) SL_MUST_USE;
void convert_begun_free(struct convert_begun *b);

/* Effect: calls fn for each finished task. */
int convert_store_each(struct convert_store *s,
                       void (*fn)(void *user, uint32_t task, uint64_t checksum), void *user,
                       struct sl_error *e) SL_MUST_USE;
/* Effect: takes finished tasks back, so that they are made again. */
int convert_store_revoke(struct convert_store *s, const uint32_t *tasks, uint32_t n,
                         struct sl_error *e) SL_MUST_USE;

/* Effect: whatever kept the job from its end is forgotten: a coordinator that opens
 * the queue goes on with it. Not for CONVERT_NEW and CONVERT_PUBLISHED. */
int convert_store_go_on(struct convert_store *s, struct sl_error *e) SL_MUST_USE;

/* Effect: the job's state says that it was stopped in order. */
int convert_store_interrupted(struct convert_store *s, struct sl_error *e) SL_MUST_USE;

/* The queue, and the job in it. */
struct sl_queue *convert_store_queue(struct convert_store *s);
uint64_t convert_store_job(const struct convert_store *s);

#endif
