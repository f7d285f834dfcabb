#include "worker/lane_priv.h"

#include <stdlib.h>
#include <string.h>

/* Source bytes in an engine beyond those of the task in hand: enough that its
 * disk never waits, little enough that what is handed back is much. */
#define AHEAD_BYTES (384ull << 20)
#define SYNC_TASKS 64u

bool lane_room(const struct sl_lane *l, const struct sl_cached_job *j)
{
    uint64_t ahead = 0;
    unsigned n = 0;

    for (const struct flight *f = l->flights; f; f = f->next)
        if (f->j == j && !f->finished) {
            ahead += f->src_bytes;
            n++;
        }
    return n < SL_LANE_TASKS / 4 && (n < 2 || ahead < AHEAD_BYTES);
}

bool lane_in_flight(const struct sl_lane *l, const struct sl_cached_job *j, uint32_t task)
{
    for (const struct flight *f = l->flights; f; f = f->next)
        if (f->j == j && f->w->task == task)
            return true;
    return false;
}

void lane_remove(struct sl_lane *l, struct flight *f)
{
    struct flight **at = &l->flights;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    if (f->finished)
        l->n_unsynced--;
    f->j->busy--;
    f->j->used_ms = sl_boot_ms();
    free(f);
}

/* What an engine has converted since it was last asked. A failing task takes its
 * share back there; here nothing shrinks. */
static void count_bytes(struct sl_lane *l, struct sl_cached_job *j)
{
    uint64_t stages[SL_STAGES] = {0};
    struct sl_engine_stats st;
    uint64_t bytes;

    if (!sl_job_cache_stats(l->cache, j, &st))
        return;
    bytes = sl_engine_member_bytes(j->engine, j->member);
    if (bytes > j->seen_bytes)
        l->engine_bytes += bytes - j->seen_bytes;
    j->seen_bytes = bytes;
    if (j->member) /* an engine of several jobs is counted once */
        return;
    sl_engine_add_stages(&st, stages);
    for (unsigned i = 0; i < SL_STAGES; i++)
        l->stages[i] += stages[i] - j->seen_stages[i];
    memcpy(j->seen_stages, stages, sizeof stages);
}

/* Closes an engine: j's files failed, or (all) its threads did. What had not been synced is lost: j's
 * finished tasks have failed, or all tasks of the engine; the rest is done again by a new one. */
static void engine_failed(struct sl_lane *l, struct sl_cached_job *j, bool all,
                          const struct sl_error *why)
{
    struct sl_work *again = NULL, **end = &again;

    for (struct flight *f = l->flights, *next; f; f = next) {
        struct sl_work *w = f->w;
        bool failed = all || (f->finished && f->j == j);

        next = f->next;
        if (f->j->engine != j->engine)
            continue;
        lane_remove(l, f);
        if (failed) {
            lane_conclude(l, w, SL_OUTCOME_FAIL, why, 0, 0);
        } else {
            w->next = NULL;
            *end = w;
            end = &w->next;
        }
    }
    sl_job_cache_close_engine(l->cache, j);
    pthread_mutex_lock(&l->lock);
    *end = l->waiting;
    l->waiting = again;
    pthread_mutex_unlock(&l->lock);
}

static bool all_dropped(const struct sl_lane *l, const struct sl_engine *en)
{
    for (const struct flight *f = l->flights; f; f = f->next)
        if (f->j->engine == en && !f->dropped)
            return false;
    return true;
}

/* Nobody wants what is in j's engine. */
static void abandon(struct sl_lane *l, struct sl_cached_job *j)
{
    for (struct flight *f = l->flights, *next; f; f = next) {
        struct sl_work *w = f->w;

        next = f->next;
        if (f->j->engine != j->engine)
            continue;
        lane_remove(l, f);
        sl_work_free(w);
    }
    sl_job_cache_close_engine(l->cache, j);
}

/* Under the lock: the task was being looked at when it was said. */
static void drop_waiting(struct sl_lane *l, const struct over *o)
{
    for (struct sl_work **at = &l->waiting, *w; (w = *at) != NULL;) {
        if (w->job == o->job && w->task == o->task && w->epoch == o->epoch) {
            *at = w->next;
            sl_work_free(w);
        } else {
            at = &w->next;
        }
    }
}

void lane_give_up(struct sl_lane *l)
{
    struct over *o, *next;

    pthread_mutex_lock(&l->lock);
    o = l->over;
    l->over = NULL;
    for (next = o; next; next = next->next)
        drop_waiting(l, next);
    pthread_mutex_unlock(&l->lock);
    for (; o; o = next) {
        next = o->next;
        for (struct flight *f = l->flights; f; f = f->next)
            f->dropped |= f->w->job == o->job && f->w->task == o->task && f->w->epoch == o->epoch;
        if (!o->epoch)
            sl_job_cache_let_go(l->cache, o->job);
        free(o);
    }
    for (struct flight *f = l->flights; f;) {
        if (f->dropped && all_dropped(l, f->j->engine)) {
            abandon(l, f->j);
            f = l->flights; /* the list is another now */
        } else {
            f = f->next;
        }
    }
}

static void sync_job(struct sl_lane *l, struct sl_cached_job *j)
{
    struct sl_error e;
    int rc = sl_engine_sync(j->engine, j->member, &e);

    if (rc == 0)
        rc = sl_job_cache_same_files(j, &e);
    if (rc < 0) {
        sl_job_cache_told(j, &e);
        engine_failed(l, j, false, &e);
        return;
    }
    for (struct flight *f = l->flights, *next; f; f = next) {
        struct sl_work *w = f->w;
        uint64_t checksum = f->checksum;

        next = f->next;
        if (f->j != j || !f->finished)
            continue;
        lane_remove(l, f);
        lane_conclude(l, w, SL_OUTCOME_RESULT, NULL, j->j.plan->tasks[w->task].out_bytes, checksum);
    }
}

void lane_sync_due(struct sl_lane *l)
{
    bool dry = true;

    if (l->n_unsynced == 0)
        return;
    for (struct flight *f = l->flights; f; f = f->next)
        dry &= f->finished;
    if (!dry && l->n_unsynced < SYNC_TASKS && sl_boot_ms() - l->first_unsynced_ms < l->sync_ms)
        return;
    for (struct flight *f = l->flights; f;) {
        if (f->finished) {
            sync_job(l, f->j);
            f = l->flights; /* the list is another now */
        } else {
            f = f->next;
        }
    }
}

static void take_result(struct sl_lane *l, struct sl_cached_job *j, struct sl_task_result *r)
{
    struct flight *f = l->flights;

    while (f && (f->j != j || f->w->task != r->task || f->finished))
        f = f->next;
    if (!f)
        return;
    if (r->code < 0) {
        struct sl_work *w = f->w;

        r->error.code = r->code;
        sl_job_cache_told(j, &r->error);
        lane_remove(l, f);
        lane_conclude(l, w, SL_OUTCOME_FAIL, &r->error, 0, 0);
        return;
    }
    f->finished = true;
    f->checksum = r->checksum;
    j->finished_bytes += f->src_bytes;
    if (l->n_unsynced++ == 0)
        l->first_unsynced_ms = sl_boot_ms();
}

/* The job whose result it is. */
static struct sl_cached_job *owner(struct sl_lane *l, const struct sl_engine *en, uint32_t member)
{
    struct sl_cached_job *j = sl_job_cache_first(l->cache);

    while (j && (j->engine != en || j->member != member))
        j = j->next;
    return j;
}

static bool engine_busy(struct sl_lane *l, const struct sl_engine *en)
{
    for (const struct flight *f = l->flights; f; f = f->next)
        if (f->j->engine == en)
            return true;
    return false;
}

void lane_engine_refused(struct sl_lane *l, struct sl_cached_job *j)
{
    if (!engine_busy(l, j->engine))
        sl_job_cache_close_engine(l->cache, j);
}

void lane_reap(struct sl_lane *l)
{
    struct sl_cached_job *j = sl_job_cache_first(l->cache);

    for (; j; j = j->next) {
        struct sl_task_result r;
        struct sl_error e;
        bool waited = false;
        int rc;

        count_bytes(l, j);
        if (!j->engine || j->member != 0 || !engine_busy(l, j->engine))
            continue;
        while ((rc = sl_engine_wait(j->engine, &r, waited ? 0 : LANE_POLL_MS, &e)) == 1) {
            struct sl_cached_job *of = owner(l, j->engine, r.member);

            waited = true;
            if (of)
                take_result(l, of, &r);
        }
        count_bytes(l, j);
        if (rc < 0)
            engine_failed(l, j, true, &e);
    }
}

uint64_t lane_share(const struct sl_lane *l, const struct flight *f)
{
    uint64_t rest = f->j->seen_bytes > f->j->finished_bytes
                        ? f->j->seen_bytes - f->j->finished_bytes : 0;

    if (f->finished)
        return f->src_bytes;
    for (const struct flight *o = l->flights; o != f; o = o->next)
        if (o->j == f->j && !o->finished)
            rest -= rest < o->src_bytes ? rest : o->src_bytes;
    return rest < f->src_bytes ? rest : f->src_bytes;
}
