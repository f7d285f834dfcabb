/* The service in one process: coordinator and worker as threads over in-process
 * sockets, and this thread as their client. What `sluice convert` runs.
 *
 *   this thread --wait, watch--> coordinator (daemon/serve.h) --grants--> worker (worker/worker_run.h)
 */
#ifndef SLUICE_CLIENT_CONVERT_THREADS_H
#define SLUICE_CLIENT_CONVERT_THREADS_H

#include "worker/job_cache.h"

struct convert_threads {
    struct sl_queue *queue;          /* the coordinator's until the call returns */
    uint64_t job;                    /* its one job that has not ended */
    struct sl_job_cache_opts worker; /* with the job as given */
    /* Called by this thread several times a second, to show progress. */
    void (*tick)(void *user);
    /* Bytes of a task turned out to be lost; it is made again. */
    void (*again)(void *user, const char *why);
    void *user;
};

/* Effect: does what is left of the job, to its published files. Stops at the
 * first task that fails, and when interrupt_asked: what is under way then gets
 * some seconds. Whatever was finished is committed. Returns 0 when the job has
 * succeeded; otherwise SL_EINTERRUPTED, the failed task's error, or what kept
 * coordinator or worker from going on. */
int convert_threads_run(const struct convert_threads *t, struct sl_error *e) SL_MUST_USE;

#endif
