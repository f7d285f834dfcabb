#include "worker/lane.h"

#include "proto/wire.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Source bytes in an engine beyond those of the task in hand: enough that its
 * disk never waits, little enough that what is handed back is much. */
#define AHEAD_BYTES (384ull << 20)
#define SYNC_MS 1000u
#define SYNC_TASKS 64u
#define POLL_MS 20
#define TWINS_MS 2000u        /* tasks of a sweep wait so long for those granted with them */

/* A task in an engine, or finished there and not yet synced. */
struct flight {
    struct sl_work *w;
    struct sl_cached_job *j;
    uint64_t src_bytes, checksum;
    bool finished;
    struct flight *next;
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
    struct sl_work *special;          /* under way */
    struct sl_outcome *outcomes, **outcomes_end;
    struct sl_lane_state state;       /* as last told by the thread; n_waiting apart */

    /* the thread's own */
    struct flight *flights;           /* in the order of their coming */
    unsigned n_unsynced;
    uint64_t first_unsynced_ms;
    _Atomic uint64_t special_bytes;
    uint64_t engine_bytes, stages[SL_STAGES];
};

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

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

/* Takes w. Without memory the task is forgotten: its lease ends by itself. */
static void conclude(struct sl_lane *l, struct sl_work *w, enum sl_outcome_kind kind,
                     const struct sl_error *why, uint64_t bytes, uint64_t checksum)
{
    struct sl_outcome *o = calloc(1, sizeof *o);

    if (kind == SL_OUTCOME_FAIL && why->code == SL_EDEVICE) { /* no fault of the task's */
        pthread_mutex_lock(&l->lock);
        l->state.lost = l->state.lost.code < 0 ? l->state.lost : *why;
        pthread_mutex_unlock(&l->lock);
        kind = SL_OUTCOME_GIVEBACK;
    }
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

/* ---- flights */

static void remove_flight(struct sl_lane *l, struct flight *f)
{
    struct flight **at = &l->flights;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    if (f->finished)
        l->n_unsynced--;
    f->j->busy--;
    f->j->used_ms = now_ms();
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

/* Closes an engine whose files or threads failed. What had finished is lost: it has
 * failed. The rest is done again by a new engine, or has failed too. So it is with the
 * other jobs of the engine. */
static void engine_failed(struct sl_lane *l, struct sl_cached_job *j, bool again_rest,
                          const struct sl_error *why)
{
    struct sl_work *again = NULL, **end = &again;

    for (struct flight *f = l->flights, *next; f; f = next) {
        struct sl_work *w = f->w;
        bool failed = f->finished || !again_rest;

        next = f->next;
        if (f->j->engine != j->engine)
            continue;
        remove_flight(l, f);
        if (failed) {
            conclude(l, w, SL_OUTCOME_FAIL, why, 0, 0);
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

static void sync_job(struct sl_lane *l, struct sl_cached_job *j)
{
    struct sl_error e;
    int rc = sl_engine_sync_member(j->engine, j->member, &e);

    if (rc == 0)
        rc = sl_job_cache_same_files(j, &e);
    if (rc < 0) {
        sl_job_cache_told(j, &e);
        engine_failed(l, j, true, &e);
        return;
    }
    for (struct flight *f = l->flights, *next; f; f = next) {
        struct sl_work *w = f->w;
        uint64_t checksum = f->checksum, out = j->j.plan->tasks[w->task].out_bytes;

        next = f->next;
        if (f->j != j || !f->finished)
            continue;
        remove_flight(l, f);
        conclude(l, w, SL_OUTCOME_RESULT, NULL, out, checksum);
    }
}

/* Results are told in groups, one sync for each: after a second, or when the
 * engines have run dry. */
static void sync_due(struct sl_lane *l)
{
    bool dry = true;

    if (l->n_unsynced == 0)
        return;
    for (struct flight *f = l->flights; f; f = f->next)
        dry &= f->finished;
    if (!dry && l->n_unsynced < SYNC_TASKS && now_ms() - l->first_unsynced_ms < l->sync_ms)
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
        remove_flight(l, f);
        conclude(l, w, SL_OUTCOME_FAIL, &r->error, 0, 0);
        return;
    }
    f->finished = true;
    f->checksum = r->checksum;
    j->finished_bytes += f->src_bytes;
    if (l->n_unsynced++ == 0)
        l->first_unsynced_ms = now_ms();
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

/* Waits a moment for results of engines that have work; takes all there are. */
static void reap(struct sl_lane *l)
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
        while ((rc = sl_engine_wait(j->engine, &r, waited ? 0 : POLL_MS, &e)) == 1) {
            struct sl_cached_job *of = owner(l, j->engine, r.member);

            waited = true;
            if (of)
                take_result(l, of, &r);
        }
        count_bytes(l, j);
        if (rc < 0)
            engine_failed(l, j, false, &e);
    }
}

/* ---- feeding */

static bool room(const struct sl_lane *l, const struct sl_cached_job *j)
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

/* The same task twice in one engine cannot be told apart. */
static bool in_flight(const struct sl_lane *l, const struct sl_cached_job *j, uint32_t task)
{
    for (const struct flight *f = l->flights; f; f = f->next)
        if (f->j == j && f->w->task == task)
            return true;
    return false;
}

/* Tasks that are begun together. */
struct set {
    struct sl_work *w[SL_ENGINE_MEMBERS];
    struct sl_cached_job *j[SL_ENGINE_MEMBERS];
    unsigned n;
};

static void conclude_one(struct sl_lane *l, struct set *s, unsigned i, struct sl_error *e, int rc)
{
    if (s->j[i])
        sl_job_cache_told(s->j[i], e);
    e->code = rc;
    conclude(l, s->w[i], SL_OUTCOME_FAIL, e, 0, 0);
    s->n--;
    memmove(&s->w[i], &s->w[i + 1], (s->n - i) * sizeof s->w[0]);
    memmove(&s->j[i], &s->j[i + 1], (s->n - i) * sizeof s->j[0]);
}

/* Finds each task's job; those that have none are concluded. */
static void find_jobs(struct sl_lane *l, struct set *s)
{
    for (unsigned i = 0; i < s->n;) {
        const struct sl_work *w = s->w[i];
        struct sl_error e;
        int rc;

        s->j[i] = NULL;
        rc = sl_job_cache_get(l->cache, w->job, w->spec, w->fingerprint, now_ms(), &s->j[i], &e);
        if (rc == 0 && w->task >= s->j[i]->j.plan->n_tasks)
            rc = sl_fail(&e, SL_EUSAGE, "task %u: the plan has %u", w->task, s->j[i]->j.plan->n_tasks);
        if (rc == 0) {
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

/* Begins the tasks of s, which have one number and whose jobs' plans are cut alike. Returns
 * 1 when they were begun (or concluded), 0 when they must wait. */
static int begin_set(struct sl_lane *l, struct set *s)
{
    uint64_t members = 0;
    struct flight *f[SL_ENGINE_MEMBERS] = {0};
    struct sl_error e;
    int rc = 1;

    for (unsigned i = 0; i < s->n; i++)
        if (!room(l, s->j[i]) || in_flight(l, s->j[i], s->w[i]->task))
            return 0;
    if (s->n == 0)
        return 1;
    rc = sl_job_cache_engine(l->cache, s->j, s->n, &e);
    if (rc == 0)
        return 0;
    for (unsigned i = 0; rc > 0 && i < s->n; i++) {
        members |= UINT64_C(1) << s->j[i]->member;
        f[i] = calloc(1, sizeof *f[i]);
        if (!f[i])
            rc = sl_fail(&e, SL_EFAIL, "out of memory");
    }
    if (rc > 0)
        rc = sl_engine_submit_group(s->j[0]->engine, s->w[0]->task, members, &e);
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

/* Begins w and what came with it; *held gets the end of the list of those that wait. */
static void begin(struct sl_lane *l, struct sl_work *w, struct sl_work ***held)
{
    struct set s, rest;
    bool wait = take_twins(l, w, &s) < w->with + 1u && now_ms() - w->came_ms < TWINS_MS;

    if (!wait)
        find_jobs(l, &s);
    while (s.n && !wait) {
        rest = (struct set){.n = 0};
        for (unsigned i = 1; i < s.n;) {
            if (fits(&s, i)) {
                i++;
                continue;
            }
            rest.w[rest.n] = s.w[i];
            rest.j[rest.n++] = s.j[i];
            s.n--;
            memmove(&s.w[i], &s.w[i + 1], (s.n - i) * sizeof s.w[0]);
            memmove(&s.j[i], &s.j[i + 1], (s.n - i) * sizeof s.j[0]);
        }
        if (!begin_set(l, &s))
            for (unsigned i = 0; i < s.n; i++) {
                **held = s.w[i];
                *held = &s.w[i]->next;
            }
        s = rest;
    }
    for (unsigned i = 0; wait && i < s.n; i++) {
        **held = s.w[i];
        *held = &s.w[i]->next;
    }
}

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
    struct sl_outcome *o = calloc(1, sizeof *o);

    if (o)
        sl_special_run(l->cache, w, &hooks, now_ms(), o);
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
            begin(l, w, &end);
        }
    }
}

/* ---- the thread */

/* Converted bytes of f: what its engine has done beyond its finished tasks belongs
 * to the oldest unfinished ones. */
static uint64_t share(const struct sl_lane *l, const struct flight *f)
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

static void tell_state(struct sl_lane *l)
{
    struct sl_lane_state s = {0};
    const struct flight *first = NULL;

    for (const struct flight *f = l->flights; f; f = f->next) {
        if (s.n_tasks < SL_LANE_TASKS)
            s.tasks[s.n_tasks++] = (struct sl_lane_task){f->w->job, f->w->epoch, share(l, f),
                                                         f->w->task};
        if (!first && !f->finished)
            first = f;
    }
    if (first) {
        const struct sl_plan *p = first->j->j.plan;

        snprintf(s.tensor, sizeof s.tensor, "%s",
                 p->tensors[p->items[p->tasks[first->w->task].first_item].tensor].t->name);
    }
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
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec++;
    pthread_mutex_lock(&l->lock);
    if (l->waiting) { /* for others of its sweep */
        pthread_mutex_unlock(&l->lock);
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000}, NULL);
        return;
    }
    while (!l->stop && !l->waiting)
        if (pthread_cond_timedwait(&l->more, &l->lock, &t) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&l->lock);
}

static void *lane_main(void *user)
{
    struct sl_lane *l = user;
    bool stop = false;

    while (!stop) {
        feed(l);
        tell_state(l);
        if (l->flights) {
            reap(l);
            sync_due(l);
            tell_state(l);
        } else {
            sleep_for_more(l);
        }
        sl_job_cache_idle(l->cache, now_ms());
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
    pthread_condattr_t attr;
    int rc;

    *out = NULL;
    if (!l)
        return sl_fail(e, SL_EFAIL, "out of memory");
    l->eventfd = eventfd;
    l->sync_ms = o->sync_ms ? o->sync_ms : SYNC_MS;
    l->outcomes_end = &l->outcomes;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->more, &attr);
    pthread_condattr_destroy(&attr);
    rc = sl_job_cache_open(o, &l->cache, e);
    if (rc == 0) {
        int err = pthread_create(&l->thread, NULL, lane_main, l);

        l->started = err == 0;
        if (err)
            rc = sl_fail(e, SL_EFAIL, "cannot start a thread: %s", strerror(err));
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

        remove_flight(l, l->flights);
        sl_work_free(w);
    }
    sl_job_cache_close(l->cache);
    for (struct sl_work *w = l->waiting, *next; w; w = next) {
        next = w->next;
        sl_work_free(w);
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
    w->came_ms = now_ms();
    for (at = &l->waiting; *at; at = &(*at)->next)
        ;
    *at = w;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
}

int sl_lane_drop(struct sl_lane *l, uint64_t job, uint32_t task, uint64_t epoch)
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
    pthread_mutex_unlock(&l->lock);
    sl_work_free(w);
    return w != NULL;
}

void sl_lane_hand_back(struct sl_lane *l, bool stop)
{
    struct sl_work *w, *next;

    pthread_mutex_lock(&l->lock);
    w = l->waiting;
    l->waiting = NULL;
    if (stop && l->special)
        l->stop_special = true;
    pthread_mutex_unlock(&l->lock);
    for (; w; w = next) {
        next = w->next;
        conclude(l, w, SL_OUTCOME_GIVEBACK, NULL, 0, 0);
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
