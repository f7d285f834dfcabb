#include "client/target.h"

#include "proto/suffix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is worth a try, unless --types says otherwise: no other type is smaller at its error. */
static const int defaults[] = {
    SL_TYPE_IQ1_S, SL_TYPE_IQ1_M, SL_TYPE_IQ2_XXS, SL_TYPE_IQ2_XS, SL_TYPE_IQ2_S, SL_TYPE_Q2_K,
    SL_TYPE_IQ3_XXS, SL_TYPE_Q3_K, SL_TYPE_IQ3_S, SL_TYPE_IQ4_XS, SL_TYPE_Q4_K, SL_TYPE_Q5_K,
    SL_TYPE_Q6_K, SL_TYPE_Q8_0,
};

static int parse_types(struct target *t, const char *text, struct sl_error *e)
{
    char *copy = strdup(text), *rest = copy, *word;
    int rc = copy ? 0 : sl_no_memory(e);

    while (rc == 0 && (word = strsep(&rest, ",")) != NULL) {
        int type = sl_type_by_name(word);

        if (type < 0)
            rc = sl_no_type("--types", word, e);
        else if (!sl_type_info(type)->quantizes)
            rc = sl_fail(e, SL_EUSAGE, "--types: '%s' is no type that can be written; 'sluice types' lists them",
                         word);
        for (uint32_t i = 0; rc == 0 && i < t->n_candidates; i++)
            if (t->candidates[i] == type)
                rc = sl_fail(e, SL_EUSAGE, "--types: '%s' is there twice", word);
        if (rc == 0)
            t->candidates[t->n_candidates++] = type;
    }
    free(copy);
    return rc;
}

static int choose_candidates(struct target *t, const char *types, struct sl_error *e)
{
    t->limited = types != NULL;
    if (types)
        return parse_types(t, types, e);
    t->n_candidates = sizeof defaults / sizeof defaults[0];
    memcpy(t->candidates, defaults, sizeof defaults);
    return 0;
}

static int assign_text(const struct target *t, const char *text, int *types, struct sl_error *e)
{
    struct sl_recipe_opts ro = t->ro;
    struct sl_recipe *r;
    uint32_t n;
    int rc;

    ro.any_type = true;
    SL_TRY(sl_recipe_parse("probe", "probe", text, &r, e));
    rc = sl_recipe_assign(r, t->probe.model, &ro, types, &n, e);
    sl_recipe_close(r);
    return rc;
}

/* A tensor is free when two recipes of one type each give it two types. */
static int find_free(struct target *t, struct sl_error *e)
{
    uint32_t n = t->probe.model->n_tensors;
    int *a = calloc((size_t)n + 1, sizeof *a);
    int rc = a ? assign_text(t, "default f16\n", a, e) : sl_no_memory(e);

    if (rc == 0)
        rc = assign_text(t, "default f32\n", t->types, e);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        t->free[i] = a[i] != t->types[i];
        t->n_free += t->free[i];
    }
    free(a);
    if (rc == 0 && t->n_free == 0)
        rc = sl_fail(e, SL_EUSAGE, "no tensor of this model can be quantized: there is nothing to choose");
    return rc;
}

/* Without --types MXFP4 is tried for what has it, and for nothing else (target_type). */
static void choose_kept(struct target *t)
{
    const struct sl_model *m = t->probe.model;

    for (uint32_t i = 0; i < m->n_tensors && !t->limited; i++)
        if (t->free[i] && target_keeps(t, i, SL_TYPE_MXFP4)) {
            t->candidates[t->n_candidates++] = SL_TYPE_MXFP4;
            return;
        }
}

/* A block's product makes one of the 2 n_layer parts that are added up in the residual
 * stream; routed and shared experts make theirs together. The output acts on the whole
 * stream, and so does the embedding, whose error the later parts dilute by half on average. */
static double count_of(const struct sl_model *m, const char *name, bool tied)
{
    double layers = (double)(m->hp.n_layer ? m->hp.n_layer : 1);

    if (strcmp(name, "output.weight") == 0)
        return 2 * layers;
    if (strcmp(name, "token_embd.weight") == 0)
        return tied ? 3 * layers : layers;
    return strstr(name, "_exps.") || strstr(name, "_shexp.") ? 0.5 : 1;
}

static void set_shares(struct target *t)
{
    const struct sl_model *m = t->probe.model;
    bool tied = sl_recipe_tied(m);
    double all = 0;

    for (uint32_t i = 0; i < m->n_tensors; i++) {
        t->share[i] = t->free[i] ? count_of(m, m->tensors[i].name, tied) : 0;
        all += t->share[i];
    }
    for (uint32_t i = 0; i < m->n_tensors; i++)
        t->share[i] /= all;
}

int target_open(struct target *t, const char *source, const struct cli_plan_args *plan,
                const struct target_args *a, struct sl_error *e)
{
    struct cli_plan_args probe = *plan;
    struct sl_job_options jo;
    size_t n;

    memset(t, 0, sizeof *t);
    t->best_stock = -1;
    if (plan->pure)
        return sl_fail(e, SL_EUSAGE, "--pure gives every tensor one type: there is nothing to choose or to measure");
    SL_TRY(choose_candidates(t, a->types, e));
    probe.recipe = "q8_0";
    probe.pure = true; /* quantized is what may be, so that it has weights */
    probe.rules = "2026"; /* rows that no block divides are f16 there, not an error */
    SL_TRY(cli_job_open(&t->probe, source, false, &probe, NULL, e));
    probe.pure = false;
    probe.rules = plan->rules;
    SL_TRY(cli_job_options(&probe, &jo, e));
    SL_TRY(sl_job_recipe_opts(&t->probe, &jo, &t->ro, e));
    t->ro.any_type = false;
    n = (size_t)t->probe.model->n_tensors + 1;
    t->free = calloc(n, sizeof *t->free);
    t->types = calloc(n, sizeof *t->types);
    t->mask = calloc(n, sizeof *t->mask);
    t->share = calloc(n, sizeof *t->share);
    t->error = calloc(n * SL_TYPE_LIMIT, sizeof *t->error);
    if (!t->free || !t->types || !t->mask || !t->share || !t->error)
        return sl_no_memory(e);
    SL_TRY(find_free(t, e));
    choose_kept(t);
    set_shares(t);
    return 0;
}

void target_free(struct target *t)
{
    for (uint32_t i = 0; i < t->n_stock; i++)
        free(t->stock[i].types);
    free(t->free);
    free(t->types);
    free(t->mask);
    free(t->share);
    free(t->error);
    free(t->text);
    sl_job_plan_close(&t->probe);
    memset(t, 0, sizeof *t);
}

int target_type(const struct target *t, uint32_t i, int type)
{
    const struct sl_out_tensor *x = &t->probe.model->tensors[i];
    int got = sl_mixture_fallback(type, x->ne[0], t->ro.rules_2025);
    bool has = sl_imatrix_use_has((void *)(uintptr_t)&t->probe.weights, i);

    if (got < 0 || x->ne[0] % sl_type_info(got)->block || (got == SL_TYPE_MXFP4 && !t->limited && !target_keeps(t, i, got)))
        return -1;
    if (!has && (sl_needs_weights(got) || sl_mixture_needs_imatrix(NULL, x->name, got, t->ro.rules_2025)))
        return -1;
    return got;
}

uint64_t target_bytes(const struct target *t, uint32_t i, int type)
{
    uint64_t n = sl_type_bytes(type, t->probe.model->tensors[i].elems);

    return t->by_bits ? n : sl_gguf_padded(n);
}

bool target_is_candidate(const struct target *t, uint32_t i, int type)
{
    for (uint32_t k = 0; k < t->n_candidates; k++)
        if (target_type(t, i, t->candidates[k]) == type)
            return true;
    return false;
}

bool target_keeps(const struct target *t, uint32_t i, int type)
{
    return type == SL_TYPE_MXFP4 && sl_model_is_mxfp4(t->probe.model, &t->probe.model->tensors[i]);
}

void target_want_error(struct target *t, uint32_t i, int type)
{
    if (!target_keeps(t, i, type))
        t->mask[i] |= UINT64_C(1) << type;
}

int target_list_stock(struct target *t, uint64_t budget, struct sl_error *e)
{
    const char *name;
    struct sl_error why;

    for (uint32_t k = 0; (name = sl_recipe_stock_name(k)) != NULL && t->n_stock < TARGET_STOCK_MAX; k++) {
        struct target_stock *s = &t->stock[t->n_stock];
        struct sl_recipe *r;
        uint32_t n_fallback;

        SL_TRY(sl_recipe_load(name, &r, e));
        *s = (struct target_stock){.name = name, .allowed = true, .error = (double)NAN};
        s->types = calloc((size_t)t->probe.model->n_tensors + 1, sizeof *s->types);
        if (!s->types) {
            sl_recipe_close(r);
            return sl_no_memory(e);
        }
        t->n_stock++;
        /* One that this source or the lack of an imatrix forbids is no rival, nor what NVFP4 is copied by. */
        s->fits = strcmp(name, "nvfp4-kept") != 0 && (t->probe.ck->is_gguf || !sl_recipe_is_copy(r)) &&
                  sl_recipe_assign(r, t->probe.model, &t->ro, s->types, &n_fallback, &why) == 0;
        sl_recipe_close(r);
        for (uint32_t i = 0; s->fits && i < t->probe.model->n_tensors; i++) {
            s->bytes += target_bytes(t, i, s->types[i]);
            s->fits &= !t->free[i] || sl_type_info(s->types[i])->quantizes;
            s->allowed &= !t->limited || !t->free[i] || target_is_candidate(t, i, s->types[i]);
        }
        s->fits &= s->bytes <= budget;
        for (uint32_t i = 0; s->fits && s->allowed && i < t->probe.model->n_tensors; i++)
            if (t->free[i])
                target_want_error(t, i, s->types[i]);
    }
    return 0;
}

static void show(void *bar, uint64_t done, uint64_t total, uint64_t read)
{
    (void)total;
    progress_update(bar, done, read, 0);
}

int target_run_measure(struct target *t, const struct target_args *a, struct sl_error *e)
{
    struct progress bar;
    struct measure_opts o = {.threads = (unsigned)a->threads, .progress = show, .user = &bar};
    uint64_t t0 = now_ns(), total = 0;
    int rc;

    for (uint32_t i = 0; i < t->probe.model->n_tensors; i++) {
        uint64_t n = t->probe.model->tensors[i].elems;

        if (t->mask[i])
            total += n < SL_MEASURE_WEIGHTS ? n : SL_MEASURE_WEIGHTS;
    }
    progress_begin(&bar, a->progress, "measure", total, 0);
    rc = measure_errors(&t->probe, t->mask, &o, t->error, &t->stats, e);
    progress_end(&bar);
    t->seconds = (double)(now_ns() - t0) / 1e9;
    return rc;
}

double target_error(const struct target *t, const int *types)
{
    double sum = 0;

    for (uint32_t i = 0; i < t->probe.model->n_tensors; i++)
        if (t->free[i])
            sum += t->share[i] * t->error[(size_t)i * SL_TYPE_LIMIT + (size_t)types[i]];
    return sum;
}

/* Computed together by llama.cpp (one kernel for gate and up) and by vLLM (one matrix of
 * gate and up, one of q_a and kv_a). */
void target_fused_key(const char *name, char key[SL_NAME_MAX])
{
    static const struct { const char *part, *with; } fused[] = {
        {".ffn_gate_exps.weight", ".ffn_up_exps.weight"},   {".ffn_gate_shexp.weight", ".ffn_up_shexp.weight"},
        {".ffn_gate.weight", ".ffn_up.weight"},             {".attn_kv_a_mqa.weight", ".attn_q_a.weight"},
    };

    snprintf(key, SL_NAME_MAX, "%s", name);
    for (size_t i = 0; i < sizeof fused / sizeof fused[0]; i++) {
        size_t n = sl_stem(name, fused[i].part);

        if (n)
            snprintf(key + n, SL_NAME_MAX - n, "%s", fused[i].with);
    }
}
