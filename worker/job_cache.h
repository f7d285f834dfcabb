/* What a worker keeps of the jobs that it works for: plan, output paths and
 * engine, each made once. One thread owns a cache. Everything is opened below
 * the configured roots, by pinned folders (proto/roots.h). */
#ifndef SLUICE_WORKER_JOB_CACHE_H
#define SLUICE_WORKER_JOB_CACHE_H

#include "proto/job_spec.h"
#include "proto/roots.h"
#include "worker/engine.h"
#include "worker/output.h"
#include "worker/synthetic.h"

#include <pthread.h>
#include <sys/types.h>

/* The one job of `sluice convert`, which opens it itself: no path is resolved
 * again, nothing is read twice. Shared by all caches, not changed by any. */
struct sl_given_job {
    const struct sl_job_plan *j;
    const struct output *out;
    /* Told by the threads that work; may be NULL. */
    void (*converted)(void *user, const struct sl_engine_stats *st);
    void (*checked)(void *user, uint64_t bytes); /* since the last call */
    void *user;
};

struct sl_job_cache_opts {
    const struct sl_roots *roots;        /* not used with `given` */
    const struct sl_given_job *given;    /* NULL: jobs come by their specification */
    unsigned threads;        /* of each engine; as in struct sl_engine_opts */
    uint64_t mem_bytes;      /* of all engines together, and what this cache and another keep */
    enum sl_io_mode io;
    enum sl_direct direct;
    enum sl_backend backend;
    const struct sl_devices *devices; /* as in struct sl_engine_opts; NULL: the cores */
    uint64_t vram_bytes;     /* of all engines together, on each device; 0: see there */
    pthread_mutex_t *planning; /* held while a plan is made, whose memory is twice that of one which is kept:
                                one at a time in a process. NULL: this cache is the only one */
    uint32_t sync_ms;        /* finished work waits at most so long for its sync; 0: 1 s */
};

/* A file as it was when its engine was opened. */
struct sl_file_id {
    dev_t dev;
    ino_t ino;
};

struct sl_cached_job {
    uint64_t id;
    struct sl_job_plan j;
    struct output out;       /* paths by the pinned folder: /proc/self/fd/N/NAME */
    char *source, *output;   /* as the specification has them */
    char *source_path;       /* by the pinned folder; it can be opened again */
    char source_pin[32], output_pin[32];
    int source_fd, output_fd;
    char *like;              /* jobs of the same text and folder have the same model; NULL: alone */
    ino_t source_ino;
    dev_t source_dev;
    struct sl_engine *engine; /* NULL: none now */
    struct job_weights weights; /* of the engine */
    uint32_t member;         /* of its engine, which jobs of a sweep share */
    struct sl_file_id *files; /* of the partial files, for the engine's life */
    bool lost;               /* sl_job_cache_lost was said of it: it goes soon, its folders with it */
    bool over;               /* so it does: nobody needs it now */
    bool given;              /* j and out are the caller's of sl_job_cache_open */
    uint32_t busy;           /* tasks in the engine or not synced: it stays */
    uint64_t used_ms;
    uint64_t seen_stages[SL_STAGES]; /* ms, of its engine, when last asked */
    uint64_t seen_bytes;     /* source bytes that its engine had converted when last asked */
    uint64_t finished_bytes; /* of tasks that this engine has finished */
    struct sl_cached_job *next;
};

struct sl_job_cache;

/* Returns about how many bytes the plans that are kept take. */
uint64_t sl_job_cache_bytes(const struct sl_job_cache *c);

/* Effect: an empty cache; *o is copied, what it points to must outlive it. Errors: SL_EFAIL. */
int sl_job_cache_open(const struct sl_job_cache_opts *o, struct sl_job_cache **out,
                      struct sl_error *e) SL_MUST_USE;
/* Effect: while plans are built, w is told of each header that was read, and may end that (see sl_job_cache_get);
 * NULL: nobody. Borrowed until the next call. */
void sl_job_cache_watch(struct sl_job_cache *c, const struct sl_header_watch *w);
/* Closes all engines and jobs. NULL is allowed. */
void sl_job_cache_close(struct sl_job_cache *c);

/* Effect: the job's plan, built when it is not there, has another fingerprint or goes elsewhere.
 * fingerprint: 32 hex digits that it must have; NULL: whatever it is now, built
 * anew. Jobs of one source and the same options share checkpoint and model, as long as the
 * fingerprint comes out. Plans that are not in use go, the one unused for longest first, when
 * there are more than 64 or they take more than a sixteenth of mem_bytes; one may always be kept.
 * Returns 1 when those in use leave no room for another, or another cache is making one: ask again.
 * *out is the cache's; valid until sl_job_cache_drop, _idle or the next _get. Errors: SL_ELACKS (a path
 * outside the roots, no folder for the output), SL_ENOSOURCE, SL_ESOURCE (another fingerprint), SL_EFAIL (it is busy
 * with another plan), those of sl_job_cache_lost (with a fingerprint), of sl_job_plan_open and of the watch. */
int sl_job_cache_get(struct sl_job_cache *c, uint64_t id, const struct cJSON *spec,
                     const char *fingerprint, uint64_t now_ms, struct sl_cached_job **out,
                     struct sl_error *e) SL_MUST_USE;

/* Returns whether the job's tasks could begin: its plan is there, or an engine is free. Else the
 * plan would only push out another's that waits as well. */
bool sl_job_cache_ready(struct sl_job_cache *c, uint64_t id);

/* Effect: makes one engine for all n jobs, whose plans must be cut alike when there are
 * several (sl_engine_same_cuts), closing an idle one where too many are open. One that
 * all of them share already stays, whoever else does. Partial files that are gone are made
 * anew while the claim says whose they are. Returns 1, or 0 when engines are busy. Errors:
 * SL_EFAIL when a partial file is not the one that was prepared; those of sl_job_cache_lost,
 * output_reserve and sl_engine_open. *whose is then the job that it is of; n: of all. */
int sl_job_cache_engine(struct sl_job_cache *c, struct sl_cached_job *const *j, unsigned n, unsigned *whose,
                        struct sl_error *e) SL_MUST_USE;
/* Effect: closes the job's engine; all that share it have none then. */
void sl_job_cache_close_engine(struct sl_job_cache *c, struct sl_cached_job *j);

/* Returns 0 when the partial files are still those that the engine writes to.
 * Errors: SL_EFAIL: they were removed or replaced, and what it wrote is gone; those of
 * sl_job_cache_same_folder. */
int sl_job_cache_same_files(struct sl_cached_job *j, struct sl_error *e) SL_MUST_USE;

/* Returns 0 while the output's folder still has its name. Files that are open are written
 * to wherever it went; what is told afterwards is told of its name. Errors: those of
 * sl_job_cache_lost. */
int sl_job_cache_same_folder(struct sl_cached_job *j, struct sl_error *e) SL_MUST_USE;
/* Returns SL_ELACKS, of a given job SL_EFAIL: the output's folder or files are not there as the job
 * left them, and what to do. */
int sl_job_cache_lost(struct sl_cached_job *j, struct sl_error *e);

/* Effect: forgets the job and frees it; its engine is closed for all that share it. */
void sl_job_cache_drop(struct sl_job_cache *c, struct sl_cached_job *j);
/* Effect: the job goes with the next sl_job_cache_idle that finds it idle, unless it is asked for before. */
void sl_job_cache_let_go(struct sl_job_cache *c, uint64_t id);
/* Effect: closes engines and jobs that have not been used for a while, at once those that are lost or let go. */
void sl_job_cache_idle(struct sl_job_cache *c, uint64_t now_ms);
/* The first job, or NULL; then ->next. */
struct sl_cached_job *sl_job_cache_first(struct sl_job_cache *c);

/* Effect: *st is what j's engine has done; whoever gave the job hears of it.
 * Returns 0 when j has no engine. */
int sl_job_cache_stats(struct sl_job_cache *c, struct sl_cached_job *j, struct sl_engine_stats *st);
/* Effect: whoever gave the job hears that n more bytes of its files were checked. */
void sl_job_cache_checked(struct sl_job_cache *c, uint64_t n);

/* Effect: the specification's paths in place of the pinned ones. Returns e->code. */
int sl_job_cache_told(const struct sl_cached_job *j, struct sl_error *e);

/* Effect: an output by folder and base name alone, for a job whose plan cannot be
 * built any more. *fd: the folder's pin, or -1. Both are the caller's in every case. Errors:
 * SL_EFAIL (the specification has no base name), SL_ESOURCE (there is no such folder), SL_ELACKS. */
int sl_job_cache_output(struct sl_job_cache *c, const struct cJSON *spec, struct output *out,
                        int *fd, struct sl_error *e) SL_MUST_USE;

#endif
