#include "worker/job_cache_priv.h"

#include "worker/claim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENGINES 2u             /* two jobs, or sweeps, in turn */
#define ENGINE_LEAST (256 * SL_MIB)
#define PROGRAM_BYTES (18 * SL_MIB) /* with the 4 MiB through which stitching reads (tensor_hash.c) */
#define SERVICE_BYTES (4 * SL_MIB) /* of a service's worker, beyond that: two lanes, its messages */

unsigned job_engines_most(const struct sl_job_cache *c)
{
    return !c->o.given && c->o.mem_bytes / ENGINES >= ENGINE_LEAST ? ENGINES : 1;
}

bool job_engine_idle(struct sl_job_cache *c, const struct sl_engine *en, uint64_t *used_ms)
{
    *used_ms = 0;
    for (const struct sl_cached_job *j = c->jobs; j; j = j->next) {
        if (j->engine != en)
            continue;
        if (j->busy)
            return false;
        *used_ms = j->used_ms > *used_ms ? j->used_ms : *used_ms;
    }
    return true;
}

static bool is_claimed(const struct sl_cached_job *j)
{
    return claim_is_of(&j->out, j->j.plan->fingerprint, j->id);
}

/* Without its claim it is not this job's folder: nothing is touched there. Partial files
 * that somebody removed are made anew while the claim says whose they are:
 * what was in them is found missing by stitch, and done again. Who publishes or discards
 * them ends the claim first: when it has meanwhile, what was made here goes. */
static int restore_files(struct sl_cached_job *j, struct sl_error *e)
{
    const struct sl_plan *p = j->j.plan;
    bool missing = false, *kept;
    struct stat st;
    int rc;

    if (j->given)
        return 0;
    for (uint32_t i = 0; i < p->n_segments; i++)
        missing |= lstat(j->out.partial[i], &st) != 0 && errno == ENOENT;
    if (!is_claimed(j)) /* after the files: of those that went with it none is missed */
        return sl_job_cache_lost(j, e);
    if (!missing)
        return 0;
    kept = malloc(p->n_segments * sizeof *kept);
    if (!kept)
        return sl_no_memory(e);
    memset(kept, true, p->n_segments * sizeof *kept); /* so are those that it does not get to */
    rc = output_reserve(&j->out, false, kept, NULL, e);
    for (uint32_t i = 0; i < p->n_segments && !is_claimed(j); i++)
        if (!kept[i])
            unlink(j->out.partial[i]);
    free(kept);
    return rc;
}

static int take_file_ids(struct sl_cached_job *j, struct sl_error *e)
{
    const struct sl_plan *p = j->j.plan;

    SL_TRY(restore_files(j, e));
    free(j->files);
    j->files = calloc(p->n_segments, sizeof *j->files);
    if (!j->files)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < p->n_segments; i++) {
        struct stat st;

        if (lstat(j->out.partial[i], &st) != 0)
            return sl_fail(e, SL_EFAIL, "%s: %s", j->out.partial[i], strerror(errno));
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != p->segments[i].file_bytes)
            return sl_fail(e, SL_EFAIL, "%s: is not the file that was prepared; remove it, and it is "
                           "made again", j->out.partial[i]);
        j->files[i] = (struct sl_file_id){st.st_dev, st.st_ino};
    }
    return 0;
}

int sl_job_cache_same_files(struct sl_cached_job *j, struct sl_error *e)
{
    SL_TRY(sl_job_cache_same_folder(j, e));
    for (uint32_t i = 0; i < j->j.plan->n_segments; i++) {
        struct stat st;
        int there = lstat(j->out.partial[i], &st);

        if (there != 0 && errno == ENOENT) /* published meanwhile: the same file under its final name */
            there = lstat(j->out.final[i], &st);
        if (there == 0 && st.st_dev == j->files[i].dev && st.st_ino == j->files[i].ino)
            continue;
        if (there != 0 && errno != ENOENT)
            return sl_fail(e, SL_EFAIL, "%s: %s", j->out.partial[i], strerror(errno));
        return sl_fail(e, SL_EFAIL, "%s: was removed or replaced while it was written to",
                       j->out.partial[i]);
    }
    return 0;
}

/* What j keeps for an engine's life. */
static void forget_engine(struct sl_cached_job *j)
{
    j->engine = NULL;
    j->member = 0;
    j->seen_bytes = j->finished_bytes = 0;
    memset(j->seen_stages, 0, sizeof j->seen_stages);
    job_weights_close(&j->weights);
    free(j->files);
    j->files = NULL;
}

void sl_job_cache_close_engine(struct sl_job_cache *c, struct sl_cached_job *j)
{
    struct sl_engine *en = j->engine;

    if (!en)
        return;
    sl_engine_close(en);
    for (struct sl_cached_job *k = c->jobs; k; k = k->next)
        if (k->engine == en)
            forget_engine(k);
    forget_engine(j); /* one that has left the list already */
}

/* Returns whether one more engine may be opened, when *idle, if there is one, is closed. */
static bool engine_free(struct sl_job_cache *c, struct sl_cached_job **idle)
{
    uint64_t oldest = UINT64_MAX, used;
    unsigned n = 0;

    *idle = NULL;
    for (struct sl_cached_job *j = c->jobs; j; j = j->next) {
        n += j->engine && j->member == 0;
        if (j->engine && job_engine_idle(c, j->engine, &used) && used < oldest) {
            *idle = j;
            oldest = used;
        }
    }
    if (n < c->max_engines)
        *idle = NULL;
    return n < c->max_engines || *idle;
}

bool sl_job_cache_ready(struct sl_job_cache *c, uint64_t id)
{
    struct sl_cached_job *j = c->jobs, *idle;

    while (j && j->id != id)
        j = j->next;
    return j || engine_free(c, &idle);
}

/* Returns 1 when all n share an engine already, 0 when they cannot yet have one, 2 when
 * it is to be made. */
static int shared(struct sl_job_cache *c, struct sl_cached_job *const *j, unsigned n)
{
    bool same = j[0]->engine != NULL;
    struct sl_cached_job *idle;
    uint64_t used;

    for (unsigned i = 1; i < n; i++)
        same &= j[i]->engine == j[0]->engine;
    if (same)
        return 1;
    for (unsigned i = 0; i < n; i++)
        if (j[i]->engine && !job_engine_idle(c, j[i]->engine, &used))
            return 0;
    for (unsigned i = 0; i < n; i++)
        sl_job_cache_close_engine(c, j[i]);
    if (!engine_free(c, &idle))
        return 0;
    if (idle)
        sl_job_cache_close_engine(c, idle);
    return 2;
}

/* The program and its plans; a service's worker has two caches, one of which may be making a plan. */
static uint64_t beside_engines(const struct sl_job_cache *c)
{
    uint64_t bytes = sl_job_cache_bytes(c), share = c->o.mem_bytes / JOB_PLANS_SHARE;

    return PROGRAM_BYTES + (c->o.given ? bytes : SERVICE_BYTES + 3 * (bytes > share ? bytes : share));
}

int sl_job_cache_engine(struct sl_job_cache *c, struct sl_cached_job *const *j, unsigned n, unsigned *whose,
                        struct sl_error *e)
{
    struct sl_engine_opts eo[SL_ENGINE_MEMBERS];
    const struct sl_plan *plans[SL_ENGINE_MEMBERS];
    struct sl_engine *en;
    int rc = shared(c, j, n);
    unsigned i;

    if (rc < 2)
        return rc;
    for (i = 0; i < n; i++) {
        plans[i] = j[i]->j.plan;
        eo[i] = (struct sl_engine_opts){
            .threads = c->o.threads,
            .mem_bytes = c->o.mem_bytes / c->max_engines,
            .beside_bytes = beside_engines(c) / c->max_engines,
            .io = c->o.io,
            .direct = c->o.direct,
            .backend = c->o.backend,
            .devices = c->o.devices,
            .vram_bytes = c->o.vram_bytes / c->max_engines,
            .round_bf16 = j[i]->j.round_bf16,
            .segment_paths = (const char *const *)j[i]->out.partial,
            .sparse = j[i]->out.sparse,
        };
        rc = take_file_ids(j[i], e);
        if (rc == 0)
            rc = job_weights_open(&j[i]->weights, &j[i]->j, &eo[i].weights, e);
        if (rc < 0)
            break;
    }
    *whose = i;
    if (rc >= 0)
        rc = sl_engine_open(j[0]->j.ck, plans, eo, n, &en, e);
    for (i = 0; rc < 0 && i < n; i++)
        forget_engine(j[i]);
    SL_TRY(rc);
    for (i = 0; i < n; i++) {
        j[i]->engine = en;
        j[i]->member = i;
    }
    return 1;
}

int sl_job_cache_stats(struct sl_job_cache *c, struct sl_cached_job *j, struct sl_engine_stats *st)
{
    const struct sl_given_job *g = c->o.given;

    if (!j->engine)
        return 0;
    sl_engine_stats(j->engine, st);
    if (g && g->converted)
        g->converted(g->user, st);
    return 1;
}
