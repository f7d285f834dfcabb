#include "proto/size_solver.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STATES 4096u   /* that are carried from group to group */
#define TOLERANCE 1e-9 /* of the error: differences below it are rounding */

/* A choice that no other of its group beats; size upwards, error downwards. */
struct option {
    uint64_t bytes;
    double error;
    uint32_t choice;
    bool hull; /* on the lower convex hull */
};

struct group {
    struct option *o;
    uint32_t n;
    double least;  /* min of error + lambda * bytes */
    uint32_t index;
};

/* A step along a group's hull. */
struct step {
    uint32_t group, to; /* option that it leads to */
    uint64_t bytes;
    double error, slope; /* error saved, and that for each byte */
};

/* An assignment of the groups so far. */
struct state {
    uint64_t bytes;
    double error, excess; /* excess: above the relaxation's least */
    uint32_t parent, option;
};

struct solver {
    struct group *g;
    uint32_t n;
    struct option *options;
    size_t n_options;
    uint64_t budget;
    double lambda, relaxed; /* relaxed: the Lagrangian bound */
    uint32_t *best;         /* for each group an option */
    double best_error;
    uint64_t best_bytes;
    bool thinned;
};

static int by_size(const void *a, const void *b)
{
    const struct option *x = a, *y = b;

    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    if (x->error < y->error || x->error > y->error)
        return x->error < y->error ? -1 : 1;
    return x->choice < y->choice ? -1 : x->choice > y->choice;
}

static int by_slope(const void *a, const void *b)
{
    const struct step *x = a, *y = b;

    if (x->slope < y->slope || x->slope > y->slope)
        return x->slope > y->slope ? -1 : 1;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return x->to < y->to ? -1 : x->to > y->to;
}

/* Marks the lower convex hull, first and last option included. */
static void mark_hull(struct group *g)
{
    uint32_t last = 0;

    g->o[0].hull = true;
    while (last + 1 < g->n) {
        uint32_t next = last + 1;
        double best = -1;

        for (uint32_t i = last + 1; i < g->n; i++) {
            double slope = (g->o[last].error - g->o[i].error) / (double)(g->o[i].bytes - g->o[last].bytes);

            if (slope >= best) {
                best = slope;
                next = i;
            }
        }
        g->o[next].hull = true;
        last = next;
    }
}

static int fill_groups(struct solver *s, const struct sl_choice_group *groups, struct sl_error *e)
{
    struct option *at = s->options;

    for (uint32_t i = 0; i < s->n; i++) {
        struct group *g = &s->g[i];
        uint32_t kept = 0;

        g->o = at;
        g->index = i;
        for (uint32_t k = 0; k < groups[i].n; k++)
            if (groups[i].choices[k].error >= 0)
                g->o[g->n++] = (struct option){groups[i].choices[k].bytes, groups[i].choices[k].error, k, false};
        if (g->n == 0)
            return sl_fail(e, SL_EUSAGE, "group %u has no possible choice", i);
        qsort(g->o, g->n, sizeof *g->o, by_size);
        for (uint32_t k = 0; k < g->n; k++)
            if (kept == 0 || g->o[k].error < g->o[kept - 1].error)
                g->o[kept++] = g->o[k];
        g->n = kept;
        at += kept;
        mark_hull(g);
    }
    return 0;
}

static void keep_if_better(struct solver *s, const uint32_t *pick)
{
    uint64_t bytes = 0;
    double error = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        bytes += s->g[i].o[pick[i]].bytes;
        error += s->g[i].o[pick[i]].error;
    }
    if (bytes > s->budget || error >= s->best_error)
        return;
    s->best_error = error;
    s->best_bytes = bytes;
    memcpy(s->best, pick, s->n * sizeof *pick);
}

/* The one step within `left` bytes of which a byte saves most. Returns whether there is any. */
static bool best_step(const struct solver *s, const uint32_t *pick, uint64_t left, uint32_t *at, uint32_t *to)
{
    double best = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        const struct group *g = &s->g[i];

        for (uint32_t k = pick[i] + 1; k < g->n; k++) {
            uint64_t more = g->o[k].bytes - g->o[pick[i]].bytes;
            double slope = (g->o[pick[i]].error - g->o[k].error) / (double)more;

            if (more <= left && slope > best) {
                best = slope;
                *at = i;
                *to = k;
            }
        }
    }
    return best > 0;
}

/* Spends what is left of the budget where a byte saves most, one group at a time. */
static void improve(struct solver *s, uint32_t *pick, uint64_t bytes)
{
    uint32_t at, to;

    while (bytes <= s->budget && best_step(s, pick, s->budget - bytes, &at, &to)) {
        bytes += s->g[at].o[to].bytes - s->g[at].o[pick[at]].bytes;
        pick[at] = to;
    }
    keep_if_better(s, pick);
}

/* Steps along all hulls, the best first: the relaxation's price of a byte is that of the
 * first step that does not fit. */
static int relax(struct solver *s, uint32_t *pick, struct sl_error *e)
{
    struct step *steps = calloc(s->n_options, sizeof *steps);
    uint32_t n_steps = 0;
    uint64_t bytes = 0;

    if (!steps)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct group *g = &s->g[i];
        uint32_t from = 0;

        pick[i] = 0;
        bytes += g->o[0].bytes;
        for (uint32_t k = 1; k < g->n; k++) {
            if (!g->o[k].hull)
                continue;
            steps[n_steps] = (struct step){i, k, g->o[k].bytes - g->o[from].bytes,
                                           g->o[from].error - g->o[k].error, 0};
            steps[n_steps].slope = steps[n_steps].error / (double)steps[n_steps].bytes;
            n_steps++;
            from = k;
        }
    }
    qsort(steps, n_steps, sizeof *steps, by_slope);
    s->lambda = 0;
    for (uint32_t i = 0; i < n_steps; i++) {
        if (steps[i].bytes > s->budget - bytes) {
            s->lambda = steps[i].slope;
            break;
        }
        bytes += steps[i].bytes;
        pick[steps[i].group] = steps[i].to;
    }
    free(steps);
    s->relaxed = -s->lambda * (double)s->budget;
    for (uint32_t i = 0; i < s->n; i++) {
        struct group *g = &s->g[i];

        g->least = INFINITY;
        for (uint32_t k = 0; k < g->n; k++)
            g->least = fmin(g->least, g->o[k].error + s->lambda * (double)g->o[k].bytes);
        s->relaxed += g->least;
    }
    improve(s, pick, bytes);
    return 0;
}

static int state_order(const void *a, const void *b)
{
    const struct state *x = a, *y = b;

    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    if (x->error < y->error || x->error > y->error)
        return x->error < y->error ? -1 : 1;
    return x->parent < y->parent ? -1 : x->parent > y->parent;
}

static int excess_order(const void *a, const void *b)
{
    const struct state *x = a, *y = b;

    if (x->excess < y->excess || x->excess > y->excess)
        return x->excess < y->excess ? -1 : 1;
    return state_order(a, b);
}

/* All states of one group more. next has room for n states times the group's options.
 * Returns how many are left, sorted by size. */
static uint32_t extend(struct solver *s, const struct group *g, const struct state *now, uint32_t n,
                       uint64_t rest, struct state *next)
{
    double room = s->best_error * (1 - TOLERANCE) - s->relaxed;
    uint32_t made = 0, kept = 0;

    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < g->n; k++) {
            struct state x = {now[i].bytes + g->o[k].bytes, now[i].error + g->o[k].error, 0, i, k};

            x.excess = now[i].excess + (g->o[k].error + s->lambda * (double)g->o[k].bytes - g->least);
            if (x.bytes <= s->budget - rest && x.excess < room)
                next[made++] = x;
        }
    qsort(next, made, sizeof *next, state_order);
    for (uint32_t i = 0; i < made; i++)
        if (kept == 0 || next[i].error < next[kept - 1].error)
            next[kept++] = next[i];
    if (kept > STATES) {
        s->thinned = true;
        qsort(next, kept, sizeof *next, excess_order);
        kept = STATES;
        qsort(next, kept, sizeof *next, state_order);
    }
    return kept;
}

static int by_spread(const void *a, const void *b)
{
    const struct group *x = a, *y = b;
    uint64_t dx = x->o[x->n - 1].bytes - x->o[0].bytes, dy = y->o[y->n - 1].bytes - y->o[0].bytes;

    if (dx != dy)
        return dx > dy ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* The way back from the last state; groups lie in the order of g. */
static void trace(struct solver *s, struct group *g, struct state *const *stage, uint32_t last,
                  uint32_t *pick)
{
    for (uint32_t i = s->n; i-- > 0;) {
        const struct state *x = &stage[i][last];

        pick[g[i].index] = x->option;
        last = x->parent;
    }
    keep_if_better(s, pick);
}

/* Groups of large steps first: the small ones fill what these leave. */
static int search(struct solver *s, uint32_t *pick, struct sl_error *e)
{
    struct group *g = malloc(s->n * sizeof *g);
    struct state **stage = calloc(s->n, sizeof *stage), root = {0, 0, 0, 0, 0}, *room = NULL;
    uint32_t count = 1, most = 1, i = 0;
    uint64_t rest = 0;
    int rc = g && stage ? 0 : sl_no_memory(e);

    for (uint32_t k = 0; rc == 0 && k < s->n; k++) {
        g[k] = s->g[k];
        most = g[k].n > most ? g[k].n : most;
        rest += g[k].o[0].bytes;
    }
    if (rc == 0)
        qsort(g, s->n, sizeof *g, by_spread);
    room = malloc((size_t)STATES * most * sizeof *room);
    if (rc == 0 && !room)
        rc = sl_no_memory(e);
    for (; rc == 0 && i < s->n && count; i++) {
        rest -= g[i].o[0].bytes;
        count = extend(s, &g[i], i ? stage[i - 1] : &root, count, rest, room);
        stage[i] = malloc((count ? count : 1) * sizeof *room);
        if (!stage[i])
            rc = sl_no_memory(e);
        else
            memcpy(stage[i], room, count * sizeof *room);
    }
    /* Nothing is left when nothing beats what is known already. */
    if (rc == 0 && count)
        trace(s, g, stage, count - 1, pick); /* sizes upwards, errors downwards */
    for (uint32_t k = 0; stage && k < s->n; k++)
        free(stage[k]);
    free(stage);
    free(room);
    free(g);
    return rc;
}

/* The caller's start, its choices replaced by what beats them. */
static void take_start(struct solver *s, const struct sl_choice_group *groups, const uint32_t *start,
                       uint32_t *pick)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        const struct sl_choice *c = &groups[i].choices[start[i]];

        pick[i] = 0;
        for (uint32_t k = 0; k < s->g[i].n; k++)
            if (s->g[i].o[k].bytes <= c->bytes)
                pick[i] = k;
        bytes += s->g[i].o[pick[i]].bytes;
    }
    if (bytes <= s->budget)
        improve(s, pick, bytes);
}

static int solve(struct solver *s, const struct sl_choice_group *groups, const uint32_t *start,
                 struct sl_solution *out, struct sl_error *e)
{
    uint64_t least = 0;
    uint32_t *pick = out->pick;

    SL_TRY(fill_groups(s, groups, e));
    for (uint32_t i = 0; i < s->n; i++)
        if (__builtin_add_overflow(least, s->g[i].o[0].bytes, &least))
            return sl_fail(e, SL_EUSAGE, "sizes overflow");
    if (least > s->budget)
        return sl_fail(e, SL_EUSAGE, "the smallest choices take %llu bytes, more than %llu",
                       (unsigned long long)least, (unsigned long long)s->budget);
    SL_TRY(relax(s, pick, e));
    if (start)
        take_start(s, groups, start, pick);
    if (s->n && s->best_error > s->relaxed + TOLERANCE * s->best_error)
        SL_TRY(search(s, pick, e));
    out->exact = !s->thinned;
    out->bytes = s->best_bytes;
    out->error = s->best_error;
    out->bound = out->exact ? s->best_error : fmin(fmax(s->relaxed, 0), s->best_error);
    for (uint32_t i = 0; i < s->n; i++)
        pick[i] = s->g[i].o[s->best[i]].choice;
    return 0;
}

int sl_size_solve(const struct sl_choice_group *groups, uint32_t n, uint64_t budget,
                  const uint32_t *start, struct sl_solution *out, struct sl_error *e)
{
    struct solver s = {.n = n, .n_options = 1, .budget = budget, .best_error = INFINITY};
    int rc;

    for (uint32_t i = 0; i < n; i++)
        s.n_options += groups[i].n;
    *out = (struct sl_solution){.pick = calloc((size_t)n + 1, sizeof *out->pick)};
    s.g = calloc((size_t)n + 1, sizeof *s.g);
    s.options = calloc(s.n_options, sizeof *s.options);
    s.best = calloc((size_t)n + 1, sizeof *s.best);
    rc = out->pick && s.g && s.options && s.best ? solve(&s, groups, start, out, e)
                                                 : sl_no_memory(e);
    free(s.g);
    free(s.options);
    free(s.best);
    return rc;
}

void sl_solution_free(struct sl_solution *s)
{
    free(s->pick);
    s->pick = NULL;
}
