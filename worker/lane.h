/* A thread that does granted tasks. A worker has two: one for the tasks of plans,
 * which feeds the engines, and one for the special tasks, so that a stitch of
 * minutes keeps no conversion waiting and neither keeps the socket waiting.
 *
 * Tasks of a sweep's jobs that have the same number are begun together, so that their
 * source is read once for all of them.
 *
 *   push --> waiting --> engine --> finished --sync, grouped--> outcomes --> collect
 */
#ifndef SLUICE_WORKER_LANE_H
#define SLUICE_WORKER_LANE_H

#include "worker/task_special.h"

struct sl_lane;

/* Effect: starts the thread. eventfd: is written to whenever there is something
 * to collect. Errors: SL_EFAIL. */
int sl_lane_open(const struct sl_job_cache_opts *o, int eventfd, struct sl_lane **out,
                 struct sl_error *e) SL_MUST_USE;
/* Effect: stops at the next safe point and frees everything; what was not
 * collected is lost. */
void sl_lane_close(struct sl_lane *l);

/* Takes w. Tasks are begun in the order of their coming. */
void sl_lane_push(struct sl_lane *l, struct sl_work *w);

/* Effect: forgets a task that has not begun. A special task under way is stopped; those
 * in an engine are given up when nothing else is in it. */
void sl_lane_drop(struct sl_lane *l, uint64_t job, uint32_t task, uint64_t epoch);
/* Effect: closes what is kept of the job, its files too, as soon as nothing of it is under way. */
void sl_lane_let_go(struct sl_lane *l, uint64_t job);

/* Effect: what has not begun comes back as outcomes "giveback", and a special task under way
 * as well. */
void sl_lane_hand_back(struct sl_lane *l);

/* Returns the next outcome (the caller's: sl_outcome_free), or NULL. */
struct sl_outcome *sl_lane_collect(struct sl_lane *l);

/* A task under way. */
struct sl_lane_task {
    uint64_t job, epoch, bytes; /* source bytes converted so far */
    uint32_t task;
};
#define SL_LANE_TASKS 64
struct sl_lane_state {
    uint64_t bytes;          /* since the lane was opened; only work makes it grow */
    struct sl_lane_task tasks[SL_LANE_TASKS];
    unsigned n_tasks;        /* under way; the first is what the tensor is of */
    unsigned unfinished;     /* under way or waiting */
    uint64_t finished;       /* since the lane was opened, failed ones included */
    uint64_t stages[SL_STAGES]; /* ms since the lane was opened */
    char tensor[129];        /* in hand; "" when nothing is */
    struct sl_error lost;    /* a device that failed, its tasks went back, or memory is out; code 0: none */
};
void sl_lane_state(struct sl_lane *l, struct sl_lane_state *s);

#endif
