#include "client/target.h"

#include "client/waiting.h"
#include "proto/size_solver.h"
#include "proto/size_text.h"
#include "proto/suffix.h"
#include "proto/utf8.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Room for what differs between this plan's headers and a conversion's: the names of the
 * recipe and its file. */
#define SLACK 512u
#define ROUNDS 5

struct member {
    char key[SL_NAME_MAX];
    uint32_t tensor;
};

/* The free tensors by fused group, and each group's choices: one for each candidate, and
 * the last, where there is one, as the best stock recipe has it. */
struct problem {
    struct member *m;
    uint32_t *first;               /* n + 1: where each group's members begin */
    struct sl_choice_group *g;
    struct sl_choice *choices;
    uint32_t *start;
    uint32_t n, width;
};

static int by_key(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    int c = strcmp(x->key, y->key);

    return c ? c : x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static void problem_free(struct problem *p)
{
    free(p->m);
    free(p->first);
    free(p->g);
    free(p->choices);
    free(p->start);
}

static int problem_groups(const struct target *t, struct problem *p, struct sl_error *e)
{
    uint32_t n = 0;

    p->width = t->n_candidates + 1;
    p->m = calloc((size_t)t->n_free + 1, sizeof *p->m);
    p->first = calloc((size_t)t->n_free + 2, sizeof *p->first);
    p->g = calloc((size_t)t->n_free + 1, sizeof *p->g);
    p->start = calloc((size_t)t->n_free + 1, sizeof *p->start);
    p->choices = calloc(((size_t)t->n_free + 1) * p->width, sizeof *p->choices);
    if (!p->m || !p->first || !p->g || !p->start || !p->choices)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < t->probe.model->n_tensors; i++)
        if (t->free[i]) {
            target_fused_key(t->probe.model->tensors[i].name, p->m[n].key);
            p->m[n++].tensor = i;
        }
    qsort(p->m, n, sizeof *p->m, by_key);
    for (uint32_t i = 0; i < n; i++)
        if (i == 0 || strcmp(p->m[i].key, p->m[i - 1].key) != 0)
            p->first[p->n++] = i;
    p->first[p->n] = n;
    return 0;
}

/* The type of tensor i under choice k of its group. */
static int choice_type(const struct target *t, uint32_t i, uint32_t k)
{
    return k < t->n_candidates ? target_type(t, i, t->candidates[k]) : t->stock[t->best_stock].types[i];
}

static void problem_choices(const struct target *t, struct problem *p, bool with_stock)
{
    for (uint32_t g = 0; g < p->n; g++) {
        struct sl_choice *c = p->choices + (size_t)g * p->width;

        p->g[g] = (struct sl_choice_group){c, with_stock ? p->width : t->n_candidates};
        p->start[g] = t->n_candidates;
        for (uint32_t k = 0; k < p->g[g].n; k++) {
            c[k] = (struct sl_choice){0, 0};
            for (uint32_t m = p->first[g]; m < p->first[g + 1]; m++) {
                uint32_t i = p->m[m].tensor;
                int type = choice_type(t, i, k);

                c[k].error += type < 0 ? (double)NAN
                                       : t->share[i] * t->error[(size_t)i * SL_TYPE_LIMIT + (size_t)type];
                c[k].bytes += type < 0 ? 0 : target_bytes(t, i, type);
            }
        }
    }
}

/* ---- sizes */

static uint64_t fixed_bytes(const struct target *t)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < t->probe.model->n_tensors; i++)
        if (!t->free[i])
            sum += target_bytes(t, i, t->types[i]);
    return sum;
}

/* Bytes that a plan's files have beside their tensors, as t->want counts. */
static uint64_t overhead(const struct target *t, const struct sl_plan *p)
{
    uint64_t tensors = 0;

    if (t->by_bits)
        return 0;
    for (uint32_t i = 0; i < p->n_tensors; i++)
        tensors += sl_gguf_padded(p->tensors[i].bytes);
    return p->file_bytes - tensors + SLACK;
}

/* Errors: SL_EUSAGE when the smallest choices exceed the target. */
static int check_small(const struct target *t, const struct problem *p, uint64_t other, struct sl_error *e)
{
    uint64_t least = other;
    char a[32], b[32];

    for (uint32_t g = 0; g < p->n; g++) {
        uint64_t best = UINT64_MAX;

        for (uint32_t k = 0; k < p->g[g].n; k++)
            if (p->g[g].choices[k].error >= 0 && p->g[g].choices[k].bytes < best)
                best = p->g[g].choices[k].bytes;
        if (best == UINT64_MAX)
            return sl_fail(e, SL_EUSAGE, "%s: none of the types can be used for it%s; allow others with --types",
                           t->probe.model->tensors[p->m[p->first[g]].tensor].name,
                           !t->ro.has_imatrix ? " without an importance matrix (--imatrix)" : "");
        least += best;
    }
    if (least <= t->want)
        return 0;
    return sl_fail(e, SL_EUSAGE, "a target of %s (%llu bytes) is too small: with %s the model takes at least %s (%llu bytes)%s",
                   sl_size_text(a, t->want), (unsigned long long)t->want, t->limited ? "these types" : "all types that are tried",
                   sl_size_text(b, least), (unsigned long long)least,
                   t->limited ? "; allow smaller ones with --types" : t->ro.has_imatrix ? "" : "; smaller ones need an importance matrix (--imatrix)");
}

static int check_large(const struct target *t, uint64_t other, struct sl_error *e)
{
    uint64_t whole = other;
    bool any_kept = false;
    char a[32], b[32];

    for (uint32_t i = 0; i < t->probe.model->n_tensors; i++) {
        bool kept = t->free[i] && target_is_candidate(t, i, SL_TYPE_MXFP4) && target_keeps(t, i, SL_TYPE_MXFP4);

        if (t->free[i])
            whole += target_bytes(t, i, kept ? SL_TYPE_MXFP4 : SL_TYPE_F16);
        any_kept |= kept;
    }
    if (t->want < whole)
        return 0;
    if (any_kept)
        return sl_fail(e, SL_EUSAGE, "a target of %s is not below the %s that the model takes with MXFP4 kept and 16 bits "
                       "for each other weight: nothing has to be quantized; use --recipe bf16 and --tensor-type REGEX=mxfp4 "
                       "for the tensors that are MXFP4", sl_size_text(a, t->want), sl_size_text(b, whole));
    return sl_fail(e, SL_EUSAGE, "a target of %s is not below the %s that the model takes in 16 bits a weight: nothing "
                   "has to be quantized; use --recipe bf16", sl_size_text(a, t->want), sl_size_text(b, whole));
}

static int parse_want(struct target *t, const struct target_args *a, struct sl_error *e)
{
    char *end = NULL;
    double bits;

    if (a->size)
        return cli_parse_size("--target-size", a->size, &t->want, e);
    bits = strtod(a->bpw, &end);
    if (end == a->bpw || *end || !(bits > 0) || bits > 64)
        return sl_fail(e, SL_EUSAGE, "--target-bpw '%s': expected bits a weight, such as 3.5", a->bpw);
    t->by_bits = true;
    t->want = (uint64_t)floor(bits * (double)t->probe.model->n_params / 8);
    return 0;
}

/* ---- choosing */

static void candidates_to_mask(struct target *t)
{
    for (uint32_t i = 0; i < t->probe.model->n_tensors; i++)
        for (uint32_t k = 0; t->free[i] && k < t->n_candidates; k++) {
            int type = target_type(t, i, t->candidates[k]);

            if (type >= 0)
                target_want_error(t, i, type);
        }
}

static void judge_stock(struct target *t, uint64_t budget)
{
    t->best_stock = -1;
    for (uint32_t k = 0; k < t->n_stock; k++) {
        struct target_stock *s = &t->stock[k];

        s->fits = s->fits && s->bytes <= budget;
        if (!s->fits || !s->allowed)
            continue;
        s->error = target_error(t, s->types);
        if (s->error >= 0 && (t->best_stock < 0 || s->error < t->stock[t->best_stock].error))
            t->best_stock = (int)k;
    }
}

/* Whether some group is as the best stock recipe has it, and no candidate gives the same. */
static bool picks_stock(const struct target *t, const struct problem *p, const struct sl_solution *s)
{
    for (uint32_t g = 0; g < p->n; g++)
        if (s->pick[g] == t->n_candidates)
            return true;
    return false;
}

/* The best assignment within the budget of all tensors together. */
static int choose(struct target *t, struct problem *p, uint64_t budget, uint64_t other, struct sl_error *e)
{
    uint64_t fixed = fixed_bytes(t), room = budget > fixed ? budget - fixed : 0;
    struct sl_solution s;
    int rc;

    judge_stock(t, budget);
    problem_choices(t, p, false);
    rc = sl_size_solve(p->g, p->n, room, NULL, &s, e);
    t->from_stock = false;
    /* A stock recipe may use other types, or split a fused group. */
    if (t->best_stock >= 0
        && (rc == SL_EUSAGE || (rc == 0 && s.error > t->stock[t->best_stock].error))) {
        sl_solution_free(&s);
        problem_choices(t, p, true);
        rc = sl_size_solve(p->g, p->n, room, p->start, &s, e);
        t->from_stock = rc == 0 && picks_stock(t, p, &s);
    }
    if (rc == SL_EUSAGE)
        SL_TRY(check_small(t, p, fixed + other, e));
    for (uint32_t g = 0; rc == 0 && g < p->n; g++)
        for (uint32_t m = p->first[g]; m < p->first[g + 1]; m++)
            t->types[p->m[m].tensor] = choice_type(t, p->m[m].tensor, s.pick[g]);
    if (rc == 0) {
        t->bytes = s.bytes + fixed;
        t->mean_error = target_error(t, t->types);
        t->bound = s.bound;
        t->exact = s.exact;
    }
    sl_solution_free(&s);
    return rc;
}

/* The recipe's own plan: its types must be those that were chosen. */
static int plan_of(const struct target *t, const char *source, const struct cli_plan_args *plan,
                   struct sl_job_plan *j, struct sl_error *e)
{
    SL_TRY(cli_job_open_text(j, source, plan, t->name, t->text, e));
    for (uint32_t i = 0; i < j->plan->n_tensors; i++)
        if (j->plan->tensors[i].type != t->types[i])
            return sl_fail(e, SL_EFAIL, "%s: the recipe gives %s where %s was chosen", j->plan->tensors[i].t->name,
                           sl_type_info(j->plan->tensors[i].type)->name, sl_type_info(t->types[i])->name);
    return 0;
}

/* The recipe's text is in the files' headers, so that the room for tensors is known only
 * when it is written. */
static int fit(struct target *t, struct problem *p, const char *source, const struct cli_plan_args *plan,
               const struct target_args *a, struct sl_error *e)
{
    uint64_t other = overhead(t, t->probe.plan), got;
    bool done = false;

    for (int round = 0; round < ROUNDS && !done; round++) {
        struct sl_job_plan j = {0};
        int rc;

        SL_TRY(choose(t, p, t->want > other ? t->want - other : 0, other, e));
        SL_TRY(target_write(t, a, e));
        rc = plan_of(t, source, plan, &j, e);
        got = rc == 0 ? overhead(t, j.plan) : 0;
        sl_job_plan_close(&j);
        SL_TRY(rc);
        /* Within the size; and, while there are rounds, not for want of a better guess. */
        done = got <= other && (other - got <= SLACK || round == ROUNDS - 1);
        other = done || got > other ? got : got + SLACK / 2;
    }
    if (!done)
        return sl_fail(e, SL_EFAIL, "no recipe was found whose own headers leave room; give a target some KB larger");
    return 0;
}

/* As sl_recipe_load names a file's recipe, so that this plan is the conversion's. */
static void set_names(struct target *t, const struct target_args *a)
{
    const char *slash = a->file ? strrchr(a->file, '/') : NULL;
    size_t n;

    snprintf(t->encoding, sizeof t->encoding, "AUTO-%.20s%s", a->size ? a->size : a->bpw, a->size ? "" : "BPW");
    for (char *c = t->encoding; *c; c++)
        *c = isalnum((unsigned char)*c) || *c == '-' ? (char)toupper((unsigned char)*c) : '_';
    snprintf(t->name, sizeof t->name, "%s", slash ? slash + 1 : a->file ? a->file : t->encoding);
    n = sl_stem(t->name, ".recipe");
    if (n)
        t->name[n] = '\0';
    sl_utf8_disarm(t->name);
}

int target_make(struct target *t, const char *source, const struct cli_plan_args *plan,
                const struct target_args *a, struct sl_error *e)
{
    struct cli_plan_args quiet = *plan; /* one line at a time */
    struct problem p = {0};
    struct waiting w;
    uint64_t other;
    int rc;

    SL_TRY(target_open(t, source, plan, a, e));
    SL_TRY(parse_want(t, a, e));
    set_names(t, a);
    other = overhead(t, t->probe.plan);
    SL_TRY(check_large(t, fixed_bytes(t) + other, e));
    SL_TRY(target_list_stock(t, t->want > other ? t->want - other : 0, e));
    candidates_to_mask(t);
    rc = problem_groups(t, &p, e);
    problem_choices(t, &p, false);
    if (rc == 0)
        rc = check_small(t, &p, fixed_bytes(t) + other, e);
    if (rc == 0)
        rc = target_run_measure(t, a, e);
    if (rc == 0) {
        waiting_begin(&w, quiet.silent, "choosing types for", source);
        quiet.silent = true;
        rc = fit(t, &p, source, &quiet, a, e);
        waiting_end(&w);
    }
    problem_free(&p);
    return rc;
}

int target_measure(struct target *t, const char *source, const struct cli_plan_args *plan,
                   const struct target_args *a, struct sl_error *e)
{
    struct sl_recipe *r;
    uint32_t n_fallback;
    int rc;

    SL_TRY(target_open(t, source, plan, a, e));
    SL_TRY(sl_recipe_load(plan->recipe, &r, e));
    t->ro.any_type = false;
    rc = sl_recipe_assign(r, t->probe.model, &t->ro, t->types, &n_fallback, e);
    sl_recipe_close(r);
    SL_TRY(rc);
    for (uint32_t i = 0; i < t->probe.model->n_tensors; i++)
        if (t->free[i])
            target_want_error(t, i, t->types[i]);
    SL_TRY(target_run_measure(t, a, e));
    t->mean_error = target_error(t, t->types);
    return 0;
}
