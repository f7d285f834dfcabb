/* Tasks that take their workers down, by memory or a driver. A lease that ends because its worker went away is no
 * attempt, so such a task would go round for ever: these leases are counted apart, in a row. A lost task goes out after
 * the others of its job and alone, so that of those that a worker held no other is taken for the one that ended it.
 *
 * The count is this process's: a worker of which nothing was heard since the start is not counted, and a daemon that is
 * started anew begins anew, which is at most so many workers more. */
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

int coord_lose(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, struct sl_error *e)
{
    struct task *t = coord_task(j, task);
    char what[200], text[1024];

    if (!is_gone(c, w))
        return coord_return(c, j, task, e);
    note_tensor(t, w, j, task);
    t->losses++;
    j->any_lost |= task < SL_TASKS_MAX;
    t->avoid = sl_xxh64(w->name, strlen(w->name));
    t->not_before_ms = c->now.run_ms;
    if (c->o.losses == 0 || t->losses < c->o.losses)
        return coord_return(c, j, task, e);
    describe(task, t, what, sizeof what);
    snprintf(text, sizeof text, "%s: %u workers in a row went away while they had it, %s the last; see its log and "
             "whether its memory was enough, then 'sluice %s %llu' goes on", what, t->losses, w->name,
             task == SL_TASK_DISCARD ? "cancel --discard" : "retry", (unsigned long long)j->id);
    return coord_task_failed(c, w, j, task, -SL_EFAIL, LAST_ATTEMPT, text, e);
}

void coord_outlived(struct task *t)
{
    if (t)
        t->losses = 0;
}

bool coord_is_suspect(struct job *j, uint32_t task)
{
    return coord_task(j, task)->losses > 0;
}

/* It came first, with its like of the sweep's other jobs. */
bool coord_has_suspect(const struct worker *w)
{
    return w->n_held > 0 && coord_is_suspect(w->held[0].job, w->held[0].task);
}

int64_t coord_least_lost(const struct sl_coord *c, const struct job *j, const struct worker *w)
{
    int64_t best = -1;

    for (uint32_t s = 0; s < j->n_shards; s++)
        for (uint32_t i = 0; j->shards[s].ready && i < j->shards[s].n; i++) {
            uint32_t t = j->shards[s].first + i;

            if (coord_grantable(c, &j->tasks[t], w) && (best < 0 || j->tasks[t].losses < j->tasks[best].losses))
                best = t;
        }
    return best;
}
