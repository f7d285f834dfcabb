/* Between job_cache.c (which jobs are kept) and job_engine.c (their engines). */
#ifndef SLUICE_WORKER_JOB_CACHE_PRIV_H
#define SLUICE_WORKER_JOB_CACHE_PRIV_H

#include "worker/job_cache.h"
#include "worker/slab.h"

#define JOB_PLANS_SHARE 16u /* of the memory, for plans */

struct sl_job_cache {
    struct sl_job_cache_opts o;
    struct sl_cached_job *jobs;
    unsigned n_jobs, max_engines;
    const struct sl_header_watch *watch; /* NULL: none */
};

/* Returns how many engines the cache's memory is good for. */
unsigned job_engines_most(const struct sl_job_cache *c);
/* Returns whether no job has work in the engine; *used_ms: when one last had. */
bool job_engine_idle(struct sl_job_cache *c, const struct sl_engine *en, uint64_t *used_ms);

#endif
