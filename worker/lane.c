#include "worker/lane_priv.h"

#include "proto/wire.h"
#include "worker/deadline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYNC_MS 1000u

/* ---- outcomes */

static void tell(struct sl_lane *l, struct sl_outcome *o)
{
    uint64_t one = 1;

    pthread_mutex_lock(&l->lock);
    o->next = NULL;
    *l->outcomes_end = o;
    l->outcomes_end = &o->next;
    l->state.finished++;
    pthread_mutex_unlock(&l->lock);
    while (write(l->eventfd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void lose(struct sl_lane *l, const struct sl_error *why)
{
    pthread_mutex_lock(&l->lock);
    l->state.lost = l->state.lost.code < 0 ? l->state.lost : *why;
    pthread_mutex_unlock(&l->lock);
}

/* Without memory nobody hears of the task: the process ends, and with it the lease. */
static struct sl_outcome *new_outcome(struct sl_lane *l)
{
    static const struct sl_error why = {SL_EFAIL, "out of memory"};
    struct sl_outcome *o = calloc(1, sizeof *o);

    if (!o)
        lose(l, &why);
    return o;
}

void lane_conclude(struct sl_lane *l, struct sl_work *w, enum sl_outcome_kind kind,
                     const struct sl_error *why, uint64_t bytes, uint64_t checksum)
{
    struct sl_outcome *o = new_outcome(l);

    if (kind == SL_OUTCOME_FAIL && why->code == SL_EDEVICE)
        lose(l, why);
    if (o) {
        *o = (struct sl_outcome){.job = w->job, .task = w->task, .epoch = w->epoch, .kind = kind,
                                 .bytes = bytes, .checksum = checksum,
                                 .has_checksum = kind == SL_OUTCOME_RESULT};
        if (why)
            o->error = *why;
        tell(l, o);
    }
    sl_work_free(w);
}

struct sl_outcome *sl_lane_collect(struct sl_lane *l)
{
    struct sl_outcome *o;

    pthread_mutex_lock(&l->lock);
    o = l->outcomes;
    if (o) {
        l->outcomes = o->next;
        if (!l->outcomes)
            l->outcomes_end = &l->outcomes;
    }
    pthread_mutex_unlock(&l->lock);
    return o;
}

/* ---- the thread */

static int on_special(void *user, uint64_t n)
{
    struct sl_lane *l = user;
    bool stop;

    atomic_fetch_add(&l->special_bytes, n);
    sl_job_cache_checked(l->cache, n);
    pthread_mutex_lock(&l->lock);
    stop = l->stop || l->stop_special;
    pthread_mutex_unlock(&l->lock);
    return stop ? SL_EINTERRUPTED : 0;
}

static void run_special(struct sl_lane *l, struct sl_work *w)
{
    const struct sl_special_hooks hooks = {on_special, l};
    struct sl_outcome *o = new_outcome(l);

    if (o)
        sl_special_run(l->cache, w, &hooks, o);
    pthread_mutex_lock(&l->lock);
    l->special = NULL;
    l->stop_special = false;
    pthread_mutex_unlock(&l->lock);
    if (o)
        tell(l, o);
    sl_work_free(w);
}

/* Begins what can be begun, in order; a task whose engine is full holds up only
 * those of its own job. */
static void feed(struct sl_lane *l)
{
    struct sl_work *held = NULL, **end = &held;

    for (;;) {
        struct sl_work *w;

        pthread_mutex_lock(&l->lock);
        w = l->stop ? NULL : l->waiting;
        if (w) {
            l->waiting = w->next;
            w->next = NULL;
            if (w->task >= SL_TASKS_MAX) {
                l->special = w;
                l->stop_special = false;
            }
        } else {
            /* Back to the front, in their old order. */
            *end = l->waiting;
            l->waiting = held;
        }
        pthread_mutex_unlock(&l->lock);
        if (!w)
            return;
        if (w->task >= SL_TASKS_MAX) {
            run_special(l, w);
        } else {
            lane_begin(l, w, &end);
        }
    }
}

static void add_task(const struct sl_lane *l, const struct flight *f, struct sl_lane_state *s)
{
    if (s->n_tasks < SL_LANE_TASKS)
        s->tasks[s->n_tasks++] = (struct sl_lane_task){f->w->job, f->w->epoch, lane_share(l, f), f->w->task};
}

static void tell_state(struct sl_lane *l)
{
    struct sl_lane_state s = {0};
    const struct flight *first = l->flights;

    while (first && first->finished)
        first = first->next;
    if (first) {
        const struct sl_plan *p = first->j->j.plan;

        add_task(l, first, &s);
        snprintf(s.tensor, sizeof s.tensor, "%s",
                 p->tensors[p->items[p->tasks[first->w->task].first_item].tensor].t->name);
    }
    for (const struct flight *f = l->flights; f; f = f->next)
        if (f != first)
            add_task(l, f, &s);
    s.bytes = l->engine_bytes;
    memcpy(s.stages, l->stages, sizeof s.stages);
    pthread_mutex_lock(&l->lock);
    s.finished = l->state.finished;
    s.lost = l->state.lost;
    l->state = s;
    pthread_mutex_unlock(&l->lock);
}

static void sleep_for_more(struct sl_lane *l)
{
    const struct timespec t = sl_deadline(1000);

    pthread_mutex_lock(&l->lock);
    if (l->waiting) { /* for others of its sweep */
        pthread_mutex_unlock(&l->lock);
        nanosleep(&(struct timespec){.tv_nsec = LANE_POLL_MS * 1000000}, NULL);
        return;
    }
    while (!l->stop && !l->waiting && !l->over)
        if (pthread_cond_timedwait(&l->more, &l->lock, &t) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&l->lock);
}

static void *lane_main(void *user)
{
    struct sl_lane *l = user;
    bool stop = false;

    while (!stop) {
        lane_give_up(l);
        sl_job_cache_idle(l->cache, sl_boot_ms());
        feed(l);
        tell_state(l);
        if (l->flights) {
            lane_reap(l);
            lane_sync_due(l);
            tell_state(l);
        } else {
            sleep_for_more(l);
        }
        pthread_mutex_lock(&l->lock);
        stop = l->stop;
        pthread_mutex_unlock(&l->lock);
    }
    return NULL;
}

/* ---- the other threads' side */

int sl_lane_open(const struct sl_job_cache_opts *o, int eventfd, struct sl_lane **out,
                 struct sl_error *e)
{
    struct sl_lane *l = calloc(1, sizeof *l);
    int rc;

    *out = NULL;
    if (!l)
        return sl_no_memory(e);
    l->eventfd = eventfd;
    l->sync_ms = o->sync_ms ? o->sync_ms : SYNC_MS;
    l->outcomes_end = &l->outcomes;
    pthread_mutex_init(&l->lock, NULL);
    sl_cond_init(&l->more);
    rc = sl_job_cache_open(o, &l->cache, e);
    if (rc == 0) {
        int err = pthread_create(&l->thread, NULL, lane_main, l);

        l->started = err == 0;
        if (err)
            rc = sl_fail_thread(e, err);
    }
    if (rc < 0)
        sl_lane_close(l);
    else
        *out = l;
    return rc;
}

void sl_lane_close(struct sl_lane *l)
{
    struct sl_outcome *o;

    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
    if (l->started)
        pthread_join(l->thread, NULL);
    while (l->flights) {
        struct sl_work *w = l->flights->w;

        lane_remove(l, l->flights);
        sl_work_free(w);
    }
    sl_job_cache_close(l->cache);
    for (struct sl_work *w = l->waiting, *next; w; w = next) {
        next = w->next;
        sl_work_free(w);
    }
    for (struct over *v = l->over, *next; v; v = next) {
        next = v->next;
        free(v);
    }
    while ((o = sl_lane_collect(l)) != NULL)
        sl_outcome_free(o);
    pthread_cond_destroy(&l->more);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void sl_lane_push(struct sl_lane *l, struct sl_work *w)
{
    struct sl_work **at;

    pthread_mutex_lock(&l->lock);
    w->next = NULL;
    w->came_ms = sl_boot_ms();
    for (at = &l->waiting; *at; at = &(*at)->next)
        ;
    *at = w;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
}

/* Under the lock. Without memory it ends of itself, later. */
static void add_over(struct sl_lane *l, uint64_t job, uint32_t task, uint64_t epoch)
{
    struct over *o = malloc(sizeof *o);

    if (!o)
        return;
    *o = (struct over){.job = job, .epoch = epoch, .task = task, .next = l->over};
    l->over = o;
    pthread_cond_signal(&l->more);
}

void sl_lane_let_go(struct sl_lane *l, uint64_t job)
{
    pthread_mutex_lock(&l->lock);
    add_over(l, job, 0, 0);
    pthread_mutex_unlock(&l->lock);
}

void sl_lane_drop(struct sl_lane *l, uint64_t job, uint32_t task, uint64_t epoch)
{
    struct sl_work *w = NULL;

    pthread_mutex_lock(&l->lock);
    for (struct sl_work **at = &l->waiting; *at; at = &(*at)->next)
        if ((*at)->job == job && (*at)->task == task && (*at)->epoch == epoch) {
            w = *at;
            *at = w->next;
            break;
        }
    if (l->special && l->special->job == job && l->special->task == task &&
        l->special->epoch == epoch)
        l->stop_special = true;
    else if (!w)
        add_over(l, job, task, epoch);
    pthread_mutex_unlock(&l->lock);
    sl_work_free(w);
}

void sl_lane_hand_back(struct sl_lane *l)
{
    struct sl_work *w, *next;

    pthread_mutex_lock(&l->lock);
    w = l->waiting;
    l->waiting = NULL;
    if (l->special)
        l->stop_special = true;
    pthread_mutex_unlock(&l->lock);
    for (; w; w = next) {
        next = w->next;
        lane_conclude(l, w, SL_OUTCOME_GIVEBACK, NULL, 0, 0);
    }
}

void sl_lane_state(struct sl_lane *l, struct sl_lane_state *s)
{
    pthread_mutex_lock(&l->lock);
    *s = l->state;
    s->bytes += atomic_load(&l->special_bytes);
    if (l->special && s->n_tasks < SL_LANE_TASKS)
        s->tasks[s->n_tasks++] = (struct sl_lane_task){l->special->job, l->special->epoch, 0,
                                                       l->special->task};
    s->unfinished = s->n_tasks;
    for (const struct sl_work *w = l->waiting; w; w = w->next)
        s->unfinished++;
    pthread_mutex_unlock(&l->lock);
}
