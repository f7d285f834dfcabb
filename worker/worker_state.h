/* A worker's side of the protocol: messages in, messages out, tasks between. No
 * sockets, no threads, no clock of its own; whoever calls it owns them. */
#ifndef SLUICE_WORKER_WORKER_STATE_H
#define SLUICE_WORKER_WORKER_STATE_H

#include "proto/log_line.h"
#include "worker/gpu_health.h"
#include "worker/lane.h"

struct sl_worker_opts {
    const char *instance;    /* 32 hex digits, random */
    const char *name, *host, *device;
    uint64_t pid, threads, mem_bytes;
    unsigned ahead;          /* tasks held beside the one in hand; more where they are short */
    /* Takes w: a task to be done. */
    void (*work)(void *user, struct sl_work *w);
    /* The task is not this worker's any more. */
    void (*drop)(void *user, uint64_t job, uint32_t task, uint64_t epoch);
    /* Nothing of the job is to be done here now. */
    void (*over)(void *user, uint64_t job);
    void *user;
    const struct sl_log *log; /* NULL: nothing is logged */
};

struct sl_worker;

/* Effect: a worker that has no connection and no task. The texts of *o are copied; user and log must
 * outlive it. Errors: SL_EFAIL. Free with sl_worker_free. */
int sl_worker_new(const struct sl_worker_opts *o, uint64_t now_ms, struct sl_worker **out,
                  struct sl_error *e) SL_MUST_USE;
void sl_worker_free(struct sl_worker *w);

/* Effect: takes one message as received. One that cannot be read, or does not
 * fit the state, is logged and does nothing. */
void sl_worker_receive(struct sl_worker *w, const uint8_t *bytes, size_t n, uint64_t now_ms);

/* Effect: takes what came of a task (and frees it): an answer is kept, and
 * repeated after every `welcome`, until it is acknowledged. */
void sl_worker_outcome(struct sl_worker *w, struct sl_outcome *o, uint64_t now_ms);

/* What the lanes say, for `progress`. */
struct sl_worker_progress {
    uint64_t bytes;
    const struct sl_lane_task *tasks;
    unsigned n_tasks;
    const char *tensor;      /* "" when none */
    const uint64_t *stages;  /* SL_STAGES of them, in ms; NULL: not told */
    const struct sl_gpu_health *gpus;
    unsigned n_gpus;         /* 0: a worker on the processor */
    const char *nowhere;     /* why nobody answers: the daemon's name has no address, or it refuses this worker; NULL: not known */
};

/* Effect: says hello, asks for work, tells progress, repeats, notices silence.
 * Call it after every receive and outcome, and at least four times a second.
 * Returns 1 when the connection is to be made anew (drop it, and connect). */
int sl_worker_tick(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms);

/* Returns 1 with the message that is to be sent next (*bytes the worker's, until sl_worker_sent), 0 when
 * there is none. */
int sl_worker_next(const struct sl_worker *w, const uint8_t **bytes, size_t *n);
/* Effect: that message was handed over. */
void sl_worker_sent(struct sl_worker *w);

/* Effect: takes no more tasks; when the last one held is acknowledged, `bye` is said
 * and sl_worker_done becomes true. With `bye`, it is said now, whatever is held: the
 * leases go back at once. */
void sl_worker_drain(struct sl_worker *w, bool bye, uint64_t now_ms);
/* Nothing is left to do or to send. */
bool sl_worker_done(const struct sl_worker *w);
bool sl_worker_connected(const struct sl_worker *w);
/* The daemon refused the hello for good, or memory was out for what nobody repeats: SL_OK, or
 * the code to end with; *e gets why. */
int sl_worker_refused(const struct sl_worker *w, struct sl_error *e);
unsigned sl_worker_held(const struct sl_worker *w);
/* A `bye` that takes no memory, for a worker that ends with an error; its leases go back at once. Returns
 * its length, *bytes the worker's, or 0 when nobody would hear it. */
size_t sl_worker_last_words(const struct sl_worker *w, const uint8_t **bytes);

#endif
