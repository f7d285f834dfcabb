/* Which task goes to which worker.
 *
 * Jobs (a sweep counts as one) share by weight: each has a pass, the source
 * bytes granted so far over its weight; the lowest goes first. In a job a
 * worker goes on in the shard where it is, else takes the first shard that
 * nobody works on (a sweep's jobs all at once: their tasks of one number go to one
 * worker together), else shares the one with the most left from its middle. When
 * fewer tasks are ready than two for each worker, the largest goes first; what was lost
 * with a worker goes after all that (coord_lost.c). When a job may begin is coord_turns.c's. */
#include "daemon/coord_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Tasks at one worker, a sweep's counted each: what it cannot take it gives back, and a set that was torn so is read
 * again for each job. The rest is for those whose answers are on the way. */
#define HELD_ENOUGH (SL_HELD_MAX / 2)

bool coord_same_stream(const struct job *a, const struct job *b)
{
    return a == b || (a->group && a->group == b->group);
}

/* The special task that is next, or 0. */
static uint32_t next_special(const struct sl_coord *c, struct job *j, const struct worker *w)
{
    uint32_t task = 0;

    if (c->committing) /* their grants wait for a commit in any case */
        return 0;
    switch (j->state) {
    case SL_JOB_QUEUED:
    case SL_JOB_RUNNING:
        task = SL_TASK_PREPARE;
        break;
    case SL_JOB_STITCHING:
        if (j->manual_stitch)
            return 0;
        task = coord_task(j, SL_TASK_STITCH)->state == SL_TASK_DONE ? SL_TASK_PUBLISH : SL_TASK_STITCH;
        break;
    case SL_JOB_VERIFYING:
        task = SL_TASK_VERIFY;
        break;
    case SL_JOB_CANCELLED:
        task = j->special[0].state == SL_TASK_LEASED ? 0 : SL_TASK_DISCARD;
        break;
    default:
        return 0;
    }
    if (!task || !coord_grantable(c, coord_task(j, task), w))
        return 0;
    return task == SL_TASK_PREPARE && (coord_cleared_by(c, j) || coord_turn_behind(c, j)) ? 0 : task;
}

bool coord_runnable(const struct sl_coord *c, const struct job *j)
{
    if (!coord_started(j))
        return false;
    if (next_special(c, (struct job *)(uintptr_t)j, NULL))
        return true;
    return coord_has_work(c, j) && coord_has_grantable(c, j);
}

static bool may_go(const struct sl_coord *c, const struct task *t, const struct worker *w)
{
    return t->losses == 0 && coord_grantable(c, t, w);
}

/* First task of a shard at or after `from` that may go to w, skipping `skip` of them; -1: none. */
static int64_t in_shard(const struct sl_coord *c, const struct job *j, uint32_t s, uint32_t from,
                        uint32_t skip, const struct worker *w)
{
    const struct shard *sh = &j->shards[s];

    if (sh->ready == 0)
        return -1;
    for (uint32_t i = from > sh->first ? from : sh->first; i < sh->first + sh->n; i++)
        if (may_go(c, &j->tasks[i], w) && skip-- == 0)
            return i;
    return -1;
}

static int64_t largest(const struct sl_coord *c, const struct job *j, const struct worker *w)
{
    int64_t best = -1;

    for (uint32_t s = 0; s < j->n_shards; s++)
        for (uint32_t i = 0; j->shards[s].ready && i < j->shards[s].n; i++) {
            uint32_t t = j->shards[s].first + i;

            if (may_go(c, &j->tasks[t], w) && (best < 0 || j->tasks[t].src > j->tasks[best].src))
                best = t;
        }
    return best;
}

/* Another worker is in this shard, between two tasks perhaps. */
static bool taken(const struct sl_coord *c, const struct job *j, uint32_t s, const struct worker *w)
{
    for (uint32_t i = 0; i < c->n_workers; i++) {
        const struct worker *o = c->workers[i];

        if (o != w && o->peer && o->last_job == j->id && o->last_task < j->n_tasks &&
            j->tasks[o->last_task].shard == s)
            return true;
    }
    return false;
}

/* A task of the plan that was not lost before. */
static int64_t pick_fresh(const struct sl_coord *c, const struct job *j, const struct worker *w, uint32_t workers)
{
    uint32_t most = 0;
    int64_t t = -1;

    if (j->n_ready <= COORD_ENOUGH_AHEAD * workers)
        return largest(c, j, w);
    if (w->last_job == j->id && w->last_task < j->n_tasks) {
        uint32_t s = j->tasks[w->last_task].shard;

        t = in_shard(c, j, s, w->last_task + 1, 0, w);
        if (t < 0)
            t = in_shard(c, j, s, 0, 0, w);
    }
    for (uint32_t s = 0; t < 0 && s < j->n_shards; s++)
        if (j->shards[s].ready > 0 && j->shards[s].leased == 0 && !taken(c, j, s, w))
            t = in_shard(c, j, s, 0, 0, w);
    if (t >= 0)
        return t;
    for (uint32_t s = 1; s < j->n_shards; s++)
        if (j->shards[s].ready > j->shards[most].ready)
            most = s;
    t = in_shard(c, j, most, 0, j->shards[most].ready / 2, w);
    return t >= 0 ? t : largest(c, j, w);
}

static int64_t pick_task(const struct sl_coord *c, struct job *j, const struct worker *w, uint32_t workers)
{
    uint32_t special = next_special(c, j, w);
    int64_t t;

    if (coord_lacks(c, w, j))
        return -1;
    if (special && !coord_waits_long(w, j, special))
        return special;
    if (!coord_has_work(c, j))
        return -1;
    t = pick_fresh(c, j, w, workers);
    if (t >= 0 || !j->any_lost)
        return t;
    t = coord_least_lost(c, j, w);
    return t < 0 || coord_waits_long(w, j, (uint32_t)t) ? -1 : t;
}

/* A job that could not run for a while does not catch up. */
static double share(const struct sl_coord *c, const struct job *j)
{
    return j->pass > c->vtime ? j->pass : c->vtime;
}

/* The job and task for a worker with room; NULL: nothing. */
static struct job *pick(const struct sl_coord *c, const struct worker *w, uint32_t workers,
                        uint32_t *task)
{
    struct job *best = NULL;
    int64_t t;

    for (uint32_t i = 0; i < c->n_jobs; i++) {
        struct job *j = c->jobs[i];

        if ((best && share(c, j) >= share(c, best)) || !coord_started(j))
            continue;
        t = pick_task(c, j, w, workers);
        if (t >= 0) {
            best = j;
            *task = (uint32_t)t;
        }
    }
    return best;
}

/* Twice the share for ten points of priority more. */
static void charge(struct sl_coord *c, struct job *j, uint32_t task)
{
    uint64_t bytes = task < SL_TASKS_MAX ? j->tasks[task].src : 0;
    double step = (double)bytes * exp2((50.0 - (double)j->priority) / 10.0);

    c->vtime = share(c, j);
    j->pass = c->vtime;
    for (uint32_t i = 0; i < c->n_jobs; i++)
        if (coord_same_stream(c->jobs[i], j))
            c->jobs[i]->pass = c->vtime + step;
}

/* The same place of the source for another recipe of the sweep; not what was lost beside what was not, which goes
 * beside others. */
static bool twin(const struct sl_coord *c, const struct worker *w, const struct job *j, const struct job *k,
                 uint32_t task)
{
    return k != j && k->group == j->group && k->state == SL_JOB_RUNNING && k->n_tasks == j->n_tasks &&
           k->tasks[task].src == j->tasks[task].src && (k->tasks[task].losses == 0 || j->tasks[task].losses > 0) &&
           coord_started(k) && coord_grantable(c, &k->tasks[task], w) &&
           !coord_lacks(c, w, k);
}

static int lease(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, uint32_t with,
                 struct sl_error *e)
{
    uint64_t epoch = sl_queue_take_epoch(c->q);
    /* All that the grant rests on is on disk, but for the lease itself. */
    bool early = task < SL_TASKS_MAX && epoch <= c->epochs_synced && j->tx <= c->synced &&
                 j->tasks[task].tx <= c->synced;

    SL_TRY(coord_lease(c, w, j, task, epoch, e));
    if (task < SL_TASKS_MAX) {
        w->last_job = j->id;
        w->last_task = task;
    }
    charge(c, j, task);
    c->stats.grants++;
    SL_TRY(coord_grow(&c->grants, c->n_grants, &c->cap_grants, sizeof *c->grants, e));
    c->grants[c->n_grants++] = (struct grant){w, j, task, epoch, early, with};
    if (task == SL_TASK_PREPARE && j->state == SL_JOB_QUEUED)
        return coord_set_state(c, j, SL_JOB_RUNNING, 0, NULL, e);
    return 0;
}

/* Leases a task, and with it those of the same number of its sweep's other jobs, so that
 * the worker reads their source once. They count as one of what it wants. */
static int lease_all(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task,
                     struct sl_error *e)
{
    struct job *twins[SL_SWEEP_MAX];
    uint32_t n = 0;

    for (uint32_t i = 0; j->group && task < SL_TASKS_MAX && i < c->n_jobs && n < SL_SWEEP_MAX; i++)
        if (twin(c, w, j, c->jobs[i], task))
            twins[n++] = c->jobs[i];
    w->want--;
    SL_TRY(lease(c, w, j, task, n, e));
    for (uint32_t i = 0; i < n; i++)
        SL_TRY(lease(c, w, twins[i], task, n, e));
    w->last_job = task < SL_TASKS_MAX ? j->id : w->last_job;
    return 0;
}

bool coord_has_spec(const struct worker *w, uint64_t job)
{
    for (uint32_t i = 0; i < w->n_specs; i++)
        if (w->specs[i] == job)
            return true;
    return false;
}

/* Whoever waits for the job hears of its end afterwards. */
int coord_tell_over(struct sl_coord *c, const struct job *j, struct sl_error *e)
{
    char text[64];

    snprintf(text, sizeof text, "the job is %s", sl_job_state_name(j->state));
    for (uint32_t i = 0; i < c->n_workers; i++)
        if (c->workers[i]->peer && coord_has_spec(c->workers[i], j->id))
            SL_TRY(coord_send_revoke(c, c->workers[i], j->id, NULL, 0, text, e));
    return 0;
}

static int put_sums(cJSON *tree, const struct job *j, struct sl_error *e)
{
    static const char digits[] = "0123456789abcdef";
    char *s = malloc(16 * (size_t)j->n_tasks + 1), *p = s;

    if (!s)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < j->n_tasks; i++)
        for (int k = 60; k >= 0; k -= 4)
            *p++ = digits[j->tasks[i].checksum >> k & 15];
    *p = 0;
    sl_put_str(tree, "sums", s);
    free(s);
    return 0;
}

/* One message for grants first .. last of one worker and one job. */
static int send_grants(struct sl_coord *c, uint32_t first, uint32_t last, struct sl_error *e)
{
    struct worker *w = c->grants[first].w;
    struct job *j = c->grants[first].j;
    struct sl_msg m;
    cJSON *tasks;

    SL_TRY(sl_msg_new(SL_M_GRANT, NULL, &m, e));
    sl_put_uint(m.tree, "job", j->id);
    tasks = sl_put_array(m.tree, "tasks");
    for (uint32_t i = first; i <= last; i++) {
        cJSON *t = sl_add_object(tasks);

        sl_put_uint(t, "task", c->grants[i].task);
        sl_put_uint(t, "epoch", c->grants[i].epoch);
        if (c->grants[i].task == SL_TASK_STITCH && put_sums(m.tree, j, e) < 0) {
            sl_msg_free(&m);
            return SL_EFAIL;
        }
    }
    sl_put_uint(m.tree, "lease_ms", c->o.lease_ms);
    if (j->group)
        sl_put_uint(m.tree, "group", j->group);
    if (c->grants[first].with)
        sl_put_uint(m.tree, "with", c->grants[first].with);
    if (j->fingerprint[0] && c->grants[first].task != SL_TASK_PREPARE)
        sl_put_str(m.tree, "fingerprint", j->fingerprint);
    if (!coord_has_spec(w, j->id)) {
        sl_put(m.tree, "spec", cJSON_CreateObjectReference(j->spec->child));
        if (coord_grow(&w->specs, w->n_specs, &w->cap_specs, sizeof *w->specs, e) < 0) {
            sl_msg_free(&m);
            return SL_EFAIL;
        }
        w->specs[w->n_specs++] = j->id;
    }
    return c->grants[first].early ? coord_send_early(c, w->peer, &m, e) : coord_send(c, w->peer, &m, e);
}

/* Brings each worker's grants of a job together, in the order in which they were made. */
static int by_worker(const void *a, const void *b)
{
    const struct grant *x = a, *y = b;

    if (x->w != y->w)
        return x->w < y->w ? -1 : 1;
    if (x->j != y->j)
        return x->j->id < y->j->id ? -1 : 1;
    return x->epoch < y->epoch ? -1 : 1;
}

int coord_schedule(struct sl_coord *c, struct sl_error *e)
{
    uint32_t workers = 0, idle = 0;

    for (uint32_t i = 0; i < c->n_workers; i++) {
        workers += c->workers[i]->peer && !c->workers[i]->draining;
        idle += c->workers[i]->peer && !c->workers[i]->draining && c->workers[i]->want > 0;
    }
    c->n_grants = 0;
    /* One task each in turn, so that nobody takes everything. */
    for (bool any = idle > 0; any;) {
        any = false;
        for (uint32_t i = 0; i < c->n_workers; i++) {
            struct worker *w = c->workers[(c->turn + i) % c->n_workers];
            struct job *j;
            uint32_t task = 0;

            if (!w->peer || w->draining || w->want == 0 || w->n_held + SL_SWEEP_MAX > HELD_ENOUGH ||
                coord_is_alone(w) || !(j = pick(c, w, workers, &task)))
                continue;
            if (!coord_goes_beside(w, j, task)) /* when what it holds is done */
                continue;
            SL_TRY(lease_all(c, w, j, task, e));
            any = true;
        }
        c->turn++;
    }
    if (c->n_grants)
        qsort(c->grants, c->n_grants, sizeof *c->grants, by_worker);
    for (uint32_t i = 0, k; i < c->n_grants; i = k) {
        for (k = i + 1; k < c->n_grants && k - i < 64 && c->grants[k].w == c->grants[i].w &&
                        c->grants[k].j == c->grants[i].j && c->grants[k].early == c->grants[i].early &&
                        c->grants[k].with == c->grants[i].with;)
            k++;
        SL_TRY(send_grants(c, i, k - 1, e));
    }
    c->n_grants = 0;
    return 0;
}
