/* Tasks that take their workers down, by memory or a driver. A lease that ends because its worker went away is no
 * attempt, so such a task would go round for ever: these leases are counted apart, in a row. A lost task goes out after
 * the others of its job and alone, so that of those that a worker held no other is taken for the one that ended it.
 *
 * Where many tasks of a job do so each would take that many workers. So losses are counted for the job as well, in a
 * row, by one rule: a lease counts that was granted more than a heartbeat after the worker of the last one that counted
 * was last heard, which may have lived so long. Workers that go away together are one then, however many they are. Until
 * a worker tells of one of its tasks, such a job goes out apart from others, so that a job counts what it was beside
 * another one once at most.
 *
 * The counts are this process's: a worker of which nothing was heard since the start is not counted, and a daemon that
 * is started anew begins anew, which is at most so many workers more. */
#include "daemon/coord_priv.h"

#include "proto/tensor_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* It does not stand still at its work, as when a disk hangs: it says nothing at all. */
static bool is_gone(const struct sl_coord *c, const struct worker *w)
{
    return w->known && (!w->peer || c->now.run_ms >= w->seen_ms + 2 * c->o.heartbeat_ms);
}

static void note_tensor(struct task *t, const struct worker *w, const struct job *j, uint32_t task)
{
    if (task >= SL_TASKS_MAX || w->cur_job != j->id || w->cur_task != task || !w->tensor[0])
        return;
    free(t->tensor);
    t->tensor = strdup(w->tensor); /* without memory: by its number */
}

static void describe(uint32_t task, const struct task *t, char *buf, size_t cap)
{
    if (task >= SL_TASKS_MAX)
        snprintf(buf, cap, "%s", sl_task_name(task));
    else if (t->tensor)
        snprintf(buf, cap, "%s (task %u)", t->tensor, task);
    else
        snprintf(buf, cap, "task %u", task);
}

/* Whether this loss is one more in a row of the job's; leases granted until then are of this one. */
static bool count_for_job(const struct worker *w, struct job *j, const struct task *t, uint64_t until)
{
    j->doubted = true;
    for (uint32_t i = 0; i < w->n_held; i++) {
        const struct task *beside = coord_task(w->held[i].job, w->held[i].task);

        if (beside->granted_ms > until)
            until = beside->granted_ms;
    }
    if (t->granted_ms <= j->lost_ms)
        return false;
    j->lost_ms = until;
    j->losses++;
    return true;
}

/* How long the task rests. A lease that ran out was rest enough. */
static uint64_t rest_ms(const struct sl_coord *c, const struct task *t, enum lost how)
{
    uint64_t backoff = coord_backoff_ms(t->losses);

    return how == LOST_GPU ? backoff : how == LOST_LEASE ? 0 : backoff < c->o.lease_ms ? backoff : c->o.lease_ms;
}

/* why: what the worker told; NULL: it went away without a word. */
static int lose(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, enum lost how, const char *why,
                struct sl_error *e)
{
    struct task *t = coord_task(j, task);
    char what[200], text[1024];
    bool plans = task < SL_TASKS_MAX, ends;

    note_tensor(t, w, j, task);
    t->losses++;
    j->any_lost |= plans;
    /* A GPU that fails is told at once, and its worker is back in seconds: no sooner than when a lease ran out. */
    ends = plans && count_for_job(w, j, t, why ? c->now.run_ms + c->o.lease_ms : w->seen_ms + c->o.heartbeat_ms) && j->losses >= c->o.losses;
    t->avoid = sl_xxh64(w->name, strlen(w->name));
    t->not_before_ms = c->now.run_ms + rest_ms(c, t, how);
    coord_turns_changed(c);
    ends &= t->losses < c->o.losses; /* else it is this task */
    if (c->o.losses == 0 || (t->losses < c->o.losses && !ends)) {
        c->stats.failures += why != NULL;
        return coord_return(c, j, task, e);
    }
    describe(task, t, what, sizeof what);
    snprintf(text, sizeof text, "%s: %u workers in a row %s while they had it%s, %s the last%s%.500s; see its log%s, then "
             "'sluice %s %llu' goes on", what, ends ? j->losses : t->losses, why ? "went away or lost a GPU" : "went away",
             ends ? " or others of the job's, none of which was done" : "", w->name, why ? ": " : "", why ? why : "",
             why ? "" : " and whether its memory was enough", task == SL_TASK_DISCARD ? "cancel --discard" : "retry",
             (unsigned long long)j->id);
    j->losses = 0; /* what ended them is known */
    return coord_task_failed(c, w, j, task, why ? -SL_EDEVICE : -SL_EFAIL, ends ? ENDS_JOB : LAST_ATTEMPT, text, e);
}

int coord_lose(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, enum lost how, struct sl_error *e)
{
    return is_gone(c, w) ? lose(c, w, j, task, how, NULL, e) : coord_return(c, j, task, e);
}

int coord_lose_gpu(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, const char *text,
                   struct sl_error *e)
{
    coord_task(j, task)->gpu_failed = true;
    SL_TRY(coord_event(c, "task_failed", j, task, w->name, e, "%s", text));
    return lose(c, w, j, task, LOST_GPU, text, e);
}

void coord_outlived(struct job *j, uint32_t task)
{
    struct task *t = j ? coord_task(j, task) : NULL;

    if (!t)
        return;
    t->losses = 0;
    t->gpu_failed = false;
    if (task < SL_TASKS_MAX) {
        j->losses = 0;
        j->doubted = false;
    }
}

/* One of the job's own may take long, so the first loss is taken for chance. */
static bool goes_alone(struct job *j, uint32_t task)
{
    return coord_task(j, task)->losses > (task < SL_TASKS_MAX ? 0 : 1);
}

bool coord_is_alone(const struct worker *w)
{
    for (uint32_t i = 0; i < w->n_held; i++)
        if (goes_alone(w->held[i].job, w->held[i].task))
            return true;
    return false;
}

/* It holds one of a job's own tasks. */
static bool has_special(const struct worker *w)
{
    bool special = false;

    for (uint32_t i = 0; i < w->n_held; i++)
        special |= w->held[i].task >= SL_TASKS_MAX;
    return special;
}

bool coord_waits_long(const struct worker *w, struct job *j, uint32_t task)
{
    return has_special(w) && goes_alone(j, task);
}

bool coord_goes_beside(const struct worker *w, struct job *j, uint32_t task)
{
    if (goes_alone(j, task))
        return w->n_held == 0;
    for (uint32_t i = 0; i < w->n_held && task < SL_TASKS_MAX; i++) {
        const struct held *h = &w->held[i];

        if (h->task < SL_TASKS_MAX && (j->doubted || h->job->doubted) && !coord_same_stream(h->job, j))
            return false;
    }
    return true;
}

/* A worker without a GPU may be given what was lost of the job, and not hours later. It is slower by far, so one GPU that
 * fails at whatever it gets sends nobody there: two have to fail in a row. */
static bool has_cpu_worker(const struct sl_coord *c, const struct job *j)
{
    for (uint32_t i = 0; i < c->n_workers; i++) {
        const struct worker *w = c->workers[i];

        if (w->peer && !w->draining && strcmp(w->device, "cpu") == 0 && !coord_lacks(c, w, j) && !has_special(w))
            return true;
    }
    return false;
}

static bool is_left_to_cpu(const struct task *t)
{
    return t->gpu_failed && t->losses > 1;
}

bool coord_waits_for_cpu(const struct sl_coord *c, const struct job *j)
{
    bool any = false;

    for (uint32_t i = 0; j->any_lost && i < j->n_tasks; i++) {
        if (j->tasks[i].state == SL_TASK_READY && !is_left_to_cpu(&j->tasks[i]))
            return false;
        any |= j->tasks[i].state == SL_TASK_READY;
    }
    return any && has_cpu_worker(c, j);
}

int64_t coord_least_lost(const struct sl_coord *c, const struct job *j, const struct worker *w)
{
    bool leaves = strcmp(w->device, "cpu") != 0 && has_cpu_worker(c, j);
    int64_t best = -1;

    for (uint32_t s = 0; s < j->n_shards; s++)
        for (uint32_t i = 0; j->shards[s].ready && i < j->shards[s].n; i++) {
            uint32_t t = j->shards[s].first + i;

            if (coord_grantable(c, &j->tasks[t], w) && !(leaves && is_left_to_cpu(&j->tasks[t])) &&
                (best < 0 || j->tasks[t].losses < j->tasks[best].losses))
                best = t;
        }
    return best;
}
