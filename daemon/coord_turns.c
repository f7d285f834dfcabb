/* A job's turn to begin: what its line, its sweep and earlier jobs with its output say.
 *
 * A job takes room on the disk from its prepare on. So jobs of one user and one
 * priority, a line, begin one after another: the next when what is begun leaves
 * no more than two ready tasks for each worker.
 *
 * What is asked of every job of a queue of thousands is found in one walk over them, kept
 * until something changes (coord_turns_changed). */
#include "daemon/coord_priv.h"

#include "proto/tensor_hash.h"

#include <stdlib.h>
#include <string.h>

/* A line's jobs that keep others from beginning: any that is placed later (first), any at all
 * (full). */
struct line {
    const struct job *any, *first, *full;
};

struct sweep {
    uint64_t group;
    uint32_t planned, preparing, waiting; /* jobs that have not ended, by their prepare */
};

/* Open addressing; room for twice the jobs. */
struct turns {
    bool known;
    uint64_t at_ms;
    struct line *lines;
    struct sweep *sweeps;
    uint32_t slots;          /* of each; a power of two */
    const struct job **discards;
    uint32_t n_discards;
};

static bool is_active(const struct job *j)
{
    return j->state == SL_JOB_QUEUED || j->state == SL_JOB_RUNNING;
}

static bool is_preparing(const struct job *j)
{
    return is_active(j) && j->special[0].state != SL_TASK_DONE;
}

/* The number by which jobs stand in a line; a sweep stands there once. */
static uint64_t place(const struct job *j)
{
    return j->group ? j->group : j->id;
}

bool coord_started(const struct job *j)
{
    for (uint32_t i = 0; i < j->n_after; i++)
        if (j->dep[i] != DEP_MET)
            return false;
    return true;
}

bool coord_other_release(const struct sl_coord *c, const struct worker *w)
{
    return strcmp(w->version, c->o.version) != 0;
}

/* Is there one of another name than it failed under? Workers of one machine may have one name. */
static bool another_may(const struct sl_coord *c, const struct task *t)
{
    for (uint32_t i = 0; i < c->n_workers; i++) {
        const struct worker *w = c->workers[i];

        if (w->peer && !w->draining && t->avoid != sl_xxh64(w->name, strlen(w->name)))
            return true;
    }
    return false;
}

bool coord_grantable(const struct sl_coord *c, const struct task *t, const struct worker *w)
{
    if (!t || !t->exists || t->state != SL_TASK_READY || t->not_before_ms > c->now.run_ms)
        return false;
    /* Another worker first, while there is one. */
    if (!w || (!t->avoid && !t->avoid_others) || c->n_workers < 2 || c->now.run_ms > t->not_before_ms + c->o.lease_ms)
        return true;
    if (t->avoid_others && coord_other_release(c, w))
        return false;
    return t->avoid != sl_xxh64(w->name, strlen(w->name)) || !another_may(c, t);
}

bool coord_has_grantable(const struct sl_coord *c, const struct job *j)
{
    for (uint32_t s = 0; s < j->n_shards; s++)
        for (uint32_t i = 0; j->shards[s].ready && i < j->shards[s].n; i++)
            if (coord_grantable(c, &j->tasks[j->shards[s].first + i], NULL))
                return true;
    return false;
}

/* ---- the walk */

static void free_turns(struct turns *t)
{
    if (!t)
        return;
    free(t->lines);
    free(t->sweeps);
    free(t->discards);
    free(t);
}

int coord_turns_room(struct sl_coord *c, struct sl_error *e)
{
    struct turns *t;
    uint32_t slots = 64;

    while (slots < 2 * c->cap_jobs)
        slots *= 2;
    if (c->turns && slots <= c->turns->slots) {
        c->turns->known = false;
        return 0;
    }
    t = calloc(1, sizeof *t);
    if (t)
        *t = (struct turns){.slots = slots, .lines = calloc(slots, sizeof *t->lines),
                            .sweeps = calloc(slots, sizeof *t->sweeps),
                            .discards = calloc(slots, sizeof *t->discards)};
    if (!t || !t->lines || !t->sweeps || !t->discards) {
        free_turns(t);
        return sl_no_memory(e);
    }
    free_turns(c->turns);
    c->turns = t;
    return 0;
}

void coord_turns_free(struct sl_coord *c)
{
    free_turns(c->turns);
    c->turns = NULL;
}

void coord_turns_changed(struct sl_coord *c)
{
    if (c->turns)
        c->turns->known = false;
}

static struct line *line_of(const struct turns *t, const struct job *j)
{
    uint32_t at = (uint32_t)sl_xxh64(j->user, strlen(j->user)) + j->priority * 0x9e3779b1u;

    for (;; at++) {
        struct line *l = &t->lines[at & (t->slots - 1)];

        if (!l->any || (l->any->priority == j->priority && strcmp(l->any->user, j->user) == 0))
            return l;
    }
}

static struct sweep *sweep_of(const struct turns *t, const struct job *j)
{
    uint32_t at = (uint32_t)j->group * 0x9e3779b1u;

    for (;; at++) {
        struct sweep *s = &t->sweeps[at & (t->slots - 1)];

        if (!s->group || s->group == j->group)
            return s;
    }
}

static void count_sweep(const struct turns *t, const struct job *j)
{
    struct sweep *s = sweep_of(t, j);

    s->group = j->group;
    if (!is_active(j))
        return;
    s->planned += j->special[0].state == SL_TASK_DONE;
    s->preparing += j->special[0].state == SL_TASK_LEASED;
    s->waiting += j->special[0].state != SL_TASK_DONE && j->special[0].state != SL_TASK_LEASED;
}

static bool cleared(const struct sl_coord *c, const struct turns *t, const struct job *j, uint64_t *by)
{
    for (uint32_t i = 0; i < t->n_discards; i++)
        if (t->discards[i] != j && t->discards[i]->output_hash == j->output_hash &&
            coord_same_output(c, t->discards[i]->spec, j->spec)) {
            *by = t->discards[i]->id;
            return true;
        }
    return false;
}

static bool has_work(const struct turns *t, const struct job *j)
{
    const struct sweep *s = j->group ? sweep_of(t, j) : NULL;

    /* Tasks of a sweep's plans go out together: all of them must have one first. */
    return j->state == SL_JOB_RUNNING && j->n_ready > 0 && j->special[0].state == SL_TASK_DONE &&
           (!s || s->preparing + s->waiting == 0);
}

/* Whether k keeps all of its line from beginning. A prepare that takes longer than a lease
 * is not waited for: what it hangs on need not concern the next. */
static bool is_full(const struct sl_coord *c, const struct turns *t, const struct job *k, uint32_t enough)
{
    const struct task *prepare = &k->special[0];

    if (is_preparing(k))
        return prepare->state == SL_TASK_LEASED && c->now.run_ms < prepare->granted_ms + c->o.lease_ms;
    return has_work(t, k) && k->n_ready > enough && coord_has_grantable(c, k);
}

static void stand_in_line(const struct sl_coord *c, const struct turns *t, const struct job *j, uint32_t enough)
{
    struct line *l = line_of(t, j);
    uint64_t ignored;

    l->any = j;
    if (!coord_started(j))
        return;
    if (is_full(c, t, j, enough)) {
        if (!l->full)
            l->full = j;
    } else if (is_preparing(j) && (!l->first || place(j) < place(l->first)) &&
               coord_grantable(c, &j->special[0], NULL) && !cleared(c, t, j, &ignored)) {
        l->first = j;
    }
}

static const struct turns *turns(const struct sl_coord *c)
{
    struct turns *t = c->turns;
    uint32_t workers = 0;

    if (t->known && t->at_ms == c->now.run_ms)
        return t;
    t->known = true;
    t->at_ms = c->now.run_ms;
    t->n_discards = 0;
    memset(t->lines, 0, t->slots * sizeof *t->lines);
    memset(t->sweeps, 0, t->slots * sizeof *t->sweeps);
    for (uint32_t i = 0; i < c->n_workers; i++)
        workers += c->workers[i]->peer && !c->workers[i]->draining;
    for (uint32_t i = 0; i < c->n_jobs; i++) {
        if (coord_discards(c->jobs[i]))
            t->discards[t->n_discards++] = c->jobs[i];
        if (c->jobs[i]->group)
            count_sweep(t, c->jobs[i]);
    }
    for (uint32_t i = 0; i < c->n_jobs; i++)
        stand_in_line(c, t, c->jobs[i], COORD_ENOUGH_AHEAD * workers);
    return t;
}

/* ---- what is asked */

uint64_t coord_cleared_by(const struct sl_coord *c, const struct job *j)
{
    uint64_t by = 0;

    return cleared(c, turns(c), j, &by) ? by : 0;
}

bool coord_has_work(const struct sl_coord *c, const struct job *j)
{
    return has_work(turns(c), j);
}

/* Its sweep has begun: its other plans are waited for. */
static bool sweep_begun(const struct turns *t, const struct job *j)
{
    const struct sweep *s = j->group ? sweep_of(t, j) : NULL;

    return s && s->planned + s->preparing > 0;
}

uint64_t coord_turn_behind(const struct sl_coord *c, const struct job *j)
{
    const struct turns *t = turns(c);
    const struct line *l = line_of(t, j);

    if (!is_preparing(j) || j->special[0].state == SL_TASK_LEASED || sweep_begun(t, j))
        return 0;
    if (l->full)
        return l->full->id;
    return l->first && place(l->first) < place(j) ? l->first->id : 0;
}
