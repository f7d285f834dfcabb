#include "worker/lane_priv.h"

#include <stdlib.h>
#include <string.h>

#define TWINS_MS 2000u        /* tasks of a sweep wait so long for those granted with them */

/* Tasks that are begun together. */
struct set {
    struct sl_work *w[SL_ENGINE_MEMBERS];
    struct sl_cached_job *j[SL_ENGINE_MEMBERS];
    unsigned n;
};

static void drop(struct set *s, unsigned i)
{
    s->n--;
    memmove(&s->w[i], &s->w[i + 1], (s->n - i) * sizeof s->w[0]);
    memmove(&s->j[i], &s->j[i + 1], (s->n - i) * sizeof s->j[0]);
}

/* w waits: at *end of a list. */
static void hold_one(struct sl_work *w, struct sl_work ***end)
{
    **end = w;
    *end = &w->next;
}

static void hold(const struct set *s, struct sl_work ***end)
{
    for (unsigned i = 0; i < s->n; i++)
        hold_one(s->w[i], end);
}

static void conclude_one(struct sl_lane *l, struct set *s, unsigned i, struct sl_error *e, int rc)
{
    if (s->j[i])
        sl_job_cache_told(s->j[i], e);
    e->code = rc;
    lane_conclude(l, s->w[i], SL_OUTCOME_FAIL, e, 0, 0);
    drop(s, i);
}

/* Finds each task's job; those that have none are concluded, those for whose plan there is no
 * room now wait. */
static void find_jobs(struct sl_lane *l, struct set *s, struct sl_work ***held)
{
    for (unsigned i = 0; i < s->n;) {
        const struct sl_work *w = s->w[i];
        struct sl_error e;
        int rc;

        s->j[i] = NULL;
        rc = !sl_job_cache_ready(l->cache, w->job) ? 1
             : sl_job_cache_get(l->cache, w->job, w->spec, w->fingerprint, sl_boot_ms(), &s->j[i], &e);
        if (rc == 0 && w->task >= s->j[i]->j.plan->n_tasks)
            rc = sl_fail(&e, SL_EUSAGE, "task %u: the plan has %u", w->task, s->j[i]->j.plan->n_tasks);
        if (rc > 0) {
            hold_one(s->w[i], held);
            drop(s, i);
        } else if (rc == 0) {
            /* Stays while the others' plans are built. */
            s->j[i]->busy++;
            i++;
        } else {
            conclude_one(l, s, i, &e, rc);
        }
    }
    for (unsigned i = 0; i < s->n; i++)
        s->j[i]->busy--;
}

/* Begins the tasks of s, which have one number and whose jobs' plans are cut alike; one whose files are not
 * right fails alone. Returns 1 when they were begun (or concluded), 0 when they must wait. */
static int begin_set(struct sl_lane *l, struct set *s)
{
    uint64_t members = 0;
    struct flight *f[SL_ENGINE_MEMBERS] = {0};
    struct sl_error e;
    unsigned whose;
    int rc = 1;

    for (unsigned i = 0; i < s->n; i++)
        if (!lane_room(l, s->j[i]) || lane_in_flight(l, s->j[i], s->w[i]->task))
            return 0;
    while (s->n && (rc = sl_job_cache_engine(l->cache, s->j, s->n, &whose, &e)) < 0 && whose < s->n)
        conclude_one(l, s, whose, &e, rc);
    if (s->n == 0)
        return 1;
    if (rc == 0)
        return 0;
    for (unsigned i = 0; rc > 0 && i < s->n; i++) {
        members |= UINT64_C(1) << s->j[i]->member;
        f[i] = calloc(1, sizeof *f[i]);
        if (!f[i])
            rc = sl_no_memory(&e);
    }
    if (rc > 0) {
        rc = sl_engine_submit(s->j[0]->engine, s->w[0]->task, members, &e);
        if (rc < 0)
            lane_engine_refused(l, s->j[0]);
    }
    if (rc < 0) {
        for (unsigned i = 0; i < SL_ENGINE_MEMBERS; i++)
            free(f[i]);
        while (s->n)
            conclude_one(l, s, 0, &e, rc);
        return 1;
    }
    for (unsigned i = 0; i < s->n; i++) {
        struct flight **at = &l->flights;

        *f[i] = (struct flight){.w = s->w[i], .j = s->j[i],
                                .src_bytes = s->j[i]->j.plan->tasks[s->w[i]->task].src_bytes};
        s->j[i]->busy++;
        while (*at)
            at = &(*at)->next;
        *at = f[i];
    }
    return 1;
}

/* Whether i can read with the first of s. Plans are compared when their jobs do not
 * share an engine yet. */
static bool fits(const struct set *s, unsigned i)
{
    return (s->j[0]->engine && s->j[i]->engine == s->j[0]->engine) ||
           sl_engine_same_cuts(s->j[0]->j.plan, s->j[i]->j.plan);
}

/* Takes from the waiting tasks those that came with w. Returns how many are there. */
static unsigned take_twins(struct sl_lane *l, struct sl_work *w, struct set *s)
{
    *s = (struct set){.w = {w}, .n = 1};
    pthread_mutex_lock(&l->lock);
    for (struct sl_work **at = &l->waiting; *at && s->n < SL_ENGINE_MEMBERS && w->with;) {
        struct sl_work *x = *at;

        if (x->group == w->group && x->task == w->task && x->job != w->job) {
            *at = x->next;
            x->next = NULL;
            s->w[s->n++] = x;
        } else {
            at = &x->next;
        }
    }
    pthread_mutex_unlock(&l->lock);
    return s->n;
}

void lane_begin(struct sl_lane *l, struct sl_work *w, struct sl_work ***held)
{
    struct set s;

    if (take_twins(l, w, &s) < w->with + 1u && sl_boot_ms() - w->came_ms < TWINS_MS) {
        hold(&s, held);
        return;
    }
    find_jobs(l, &s, held);
    while (s.n) {
        struct set rest = {.n = 0};

        for (unsigned i = 1; i < s.n;) {
            if (fits(&s, i)) {
                i++;
                continue;
            }
            rest.w[rest.n] = s.w[i];
            rest.j[rest.n++] = s.j[i];
            drop(&s, i);
        }
        if (!begin_set(l, &s))
            hold(&s, held);
        s = rest;
    }
}
