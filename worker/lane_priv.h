/* Between lane.c (the thread, and the other threads' side of it), lane_flights.c (tasks in
 * engines) and lane_begin.c (tasks that go into an engine, a sweep's together). */
#ifndef SLUICE_WORKER_LANE_PRIV_H
#define SLUICE_WORKER_LANE_PRIV_H

#include "proto/clock.h"
#include "worker/lane.h"

#include <pthread.h>
#include <stdatomic.h>

#define LANE_POLL_MS 20

/* A task in an engine, or finished there and not yet synced. */
struct flight {
    struct sl_work *w;
    struct sl_cached_job *j;
    uint64_t src_bytes, checksum;
    bool finished;
    bool dropped;                     /* its lease is over */
    struct flight *next;
};

/* What is over: a lease, or (epoch 0) all of a job. */
struct over {
    uint64_t job, epoch;
    uint32_t task;
    struct over *next;
};

struct sl_lane {
    struct sl_job_cache *cache;
    int eventfd;
    pthread_t thread;
    bool started;
    uint32_t sync_ms;

    pthread_mutex_t lock;
    pthread_cond_t more;
    bool stop;
    bool stop_special;                /* the one under way ends soon */
    struct sl_work *waiting;
    struct over *over;
    struct sl_work *special;          /* under way */
    struct sl_outcome *outcomes, **outcomes_end;
    struct sl_lane_state state;       /* as last told by the thread; unfinished apart */

    /* the thread's own */
    struct flight *flights;           /* in the order of their coming */
    unsigned n_unsynced;
    uint64_t first_unsynced_ms;
    _Atomic uint64_t special_bytes;
    uint64_t engine_bytes, stages[SL_STAGES];
};

/* Takes w. Without memory the task is forgotten, and the worker ends. */
void lane_conclude(struct sl_lane *l, struct sl_work *w, enum sl_outcome_kind kind,
                   const struct sl_error *why, uint64_t bytes, uint64_t checksum);

/* ---- lane_flights.c */

/* Whether an engine has room for one more task of j. */
bool lane_room(const struct sl_lane *l, const struct sl_cached_job *j);
/* The same task twice in one engine cannot be told apart. */
bool lane_in_flight(const struct sl_lane *l, const struct sl_cached_job *j, uint32_t task);
/* Effect: closes j's engine, which takes no tasks, unless some are in flight there: lane_reap does it then. */
void lane_engine_refused(struct sl_lane *l, struct sl_cached_job *j);
/* Effect: forgets f; its task stays the caller's. */
void lane_remove(struct sl_lane *l, struct flight *f);
/* Effect: gives up what was said to be over. */
void lane_give_up(struct sl_lane *l);
/* Effect: waits a moment for results of engines that have work; takes all there are. */
void lane_reap(struct sl_lane *l);
/* Effect: tells results in groups, one sync for each: after a second, or when the engines
 * have run dry. */
void lane_sync_due(struct sl_lane *l);
/* Converted bytes of f: what its engine has done beyond its finished tasks belongs
 * to the oldest unfinished ones. */
uint64_t lane_share(const struct sl_lane *l, const struct flight *f);

/* ---- lane_begin.c */

/* Effect: begins w and what came with it, or puts what must wait at *held, the end of a
 * list; or they are concluded. */
void lane_begin(struct sl_lane *l, struct sl_work *w, struct sl_work ***held);

#endif
