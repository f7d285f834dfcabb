#include "proto/recipe_rules.h"

#include "proto/imatrix.h"
#include "proto/text_line.h"

#include <stdlib.h>
#include <string.h>

#define LIST 780 /* bytes of a message for the tensors that it names */

struct assign {
    const struct sl_recipe *r;
    const struct sl_model *m;
    const struct sl_recipe_opts *o;
    struct sl_pattern **overrides;
    struct sl_mixture_pass mix;
    bool tied;
    uint32_t n_missing; /* tensors whose types need data that are not there */
    bool *missing;      /* which they are */
};

static bool in_layers(const struct sl_layers *l, uint64_t i, const struct sl_hparams *hp)
{
    uint64_t n = hp->n_layer;
    bool dense = i < hp->n_layer_dense || (hp->n_dense_last && i + hp->n_dense_last >= n) ||
                 (hp->moe_step && (i + 1) % hp->moe_step);

    switch (l->kind) {
    case SL_LAYERS_RANGE: return i >= l->a && i <= l->b && (i - l->a) % l->step == 0;
    case SL_LAYERS_MORE_BITS: return sl_mixture_more_bits(i, n);
    case SL_LAYERS_FIRST: return i < n / l->a;
    case SL_LAYERS_LAST: return i >= (l->a - 1) * n / l->a;
    case SL_LAYERS_DENSE: return hp->n_expert > 1 && dense;
    case SL_LAYERS_MOE: return hp->n_expert > 1 && !dense;
    }
    return false;
}

bool sl_rule_in_layers(const struct sl_rule *rule, const char *name, const struct sl_hparams *hp)
{
    uint64_t layer;
    bool hit = rule->n_layers == 0;

    if (!hit && !sl_tensor_layer(name, &layer))
        return false;
    for (uint32_t i = 0; i < rule->n_layers && !hit; i++)
        hit = in_layers(&rule->layers[i], layer, hp);
    return hit;
}

static void mark_used(const struct assign *a, uint32_t i)
{
    if (a->o->used)
        a->o->used[i] = 1;
}

/* What the tensor stays in when nothing quantizes it: a GGUF source's own
 * type; from safetensors F32, or what the source has when that is exact. */
static int source_type(const struct assign *a, const struct sl_out_tensor *t)
{
    if (t->src_type >= 0)
        return t->src_type;
    if (t->n_src == 0 || t->keep_f32)
        return SL_TYPE_F32;
    if (sl_model_is_mxfp4(a->m, t))
        return SL_TYPE_MXFP4;
    if (sl_model_is_nvfp4(a->m, t) && t->ne[0] % sl_type_info(SL_TYPE_NVFP4)->block == 0)
        return SL_TYPE_NVFP4;
    switch (a->m->src[t->first_src].dtype) {
    case SL_DTYPE_BF16: return SL_TYPE_BF16;
    case SL_DTYPE_F16: return SL_TYPE_F16;
    case SL_DTYPE_F4: /* BF16 holds NVFP4's values */
        return sl_model_src_nvfp4(&a->m->src[t->first_src]) ? SL_TYPE_BF16 : SL_TYPE_F32;
    case SL_DTYPE_F8_E4M3:
    case SL_DTYPE_F8_E5M2: return a->m->keeps_q8_0 ? SL_TYPE_Q8_0 : SL_TYPE_F32;
    default: return SL_TYPE_F32;
    }
}

static int mixture_type(struct assign *a, const struct sl_out_tensor *t, struct sl_error *e)
{
    if (t->outtype_f32 && a->r->mixture && sl_mixture_is_outtype(a->r->mixture))
        return SL_TYPE_F32;
    return a->r->mixture ? sl_mixture_type(&a->mix, t, e) : a->r->default_type;
}

/* A tied embedding is matched as the output that it also is. */
static int recipe_type(struct assign *a, const struct sl_out_tensor *t, struct sl_error *e)
{
    bool output = a->tied && strcmp(t->name, "token_embd.weight") == 0;
    const char *name = output ? "output.weight" : t->name;

    if (output && a->o->output_type >= 0)
        return a->o->output_type;
    for (uint32_t i = 0; i < a->r->n_rules; i++) {
        const struct sl_rule *rule = &a->r->rules[i];
        int hit = sl_rule_in_layers(rule, name, &a->m->hp) ? sl_pattern_match(rule->pattern, name, e) : 0;

        if (hit < 0)
            return sl_fail_context(e, "%s:%u", a->r->where, rule->line);
        if (!hit)
            continue;
        mark_used(a, a->o->n_overrides + i);
        if (rule->type == SL_RULE_MIXTURE)
            break;
        return rule->type == SL_RULE_KEEP ? source_type(a, t) : rule->type;
    }
    return mixture_type(a, t, e);
}

bool sl_recipe_may_quantize(const struct sl_out_tensor *t)
{
    return !t->keep_f32 && t->transform != SL_INLINE && sl_mixture_quantizable(t);
}

/* Whether an option of the form PATTERN=TYPE has t; its type in *type. */
static int named_type(struct assign *a, const struct sl_out_tensor *t, int *type, struct sl_error *e)
{
    for (uint32_t i = 0; i < a->o->n_overrides; i++) {
        int hit = sl_pattern_match(a->overrides[i], t->name, e);

        if (hit < 0)
            return sl_fail_context(e, "--tensor-type");
        if (hit) {
            mark_used(a, i);
            *type = a->o->overrides[i].type;
            return 1;
        }
    }
    return 0;
}

/* The type before the column fallback. *fixed: the fallback does not apply. */
static int chosen_type(struct assign *a, const struct sl_out_tensor *t, bool *fixed,
                       struct sl_error *e)
{
    const struct sl_recipe_opts *o = a->o;
    int named, type = -1;

    *fixed = true;
    if (!sl_recipe_may_quantize(t))
        return t->src_type >= 0 ? t->src_type : t->keeps_own ? source_type(a, t) : SL_TYPE_F32;
    if (o->leave_output && strcmp(t->name, "output.weight") == 0)
        return source_type(a, t);
    if (o->embedding_type >= 0 && strcmp(t->name, "token_embd.weight") == 0)
        return o->embedding_type;
    if (o->output_type >= 0 && strcmp(t->name, "output.weight") == 0)
        return o->output_type;
    SL_TRY(named = named_type(a, t, &type, e));
    *fixed = !named && o->embedding_type >= 0 && strcmp(t->name, "per_layer_token_embd.weight") == 0;
    if (named)
        return type;
    if (*fixed)
        return o->embedding_type;
    if (o->pure)
        return a->r->mixture ? sl_mixture_base_type(a->r->mixture) : a->r->default_type;
    return recipe_type(a, t, e);
}

int sl_recipe_unwritable(const struct sl_recipe *r)
{
    int base = r->mixture ? sl_mixture_base_type(r->mixture) : r->default_type;

    for (uint32_t i = 0; i < r->n_rules; i++)
        if (r->rules[i].type >= 0 && !sl_type_info(r->rules[i].type)->quantizes)
            return r->rules[i].type;
    return sl_type_info(base)->quantizes ? -1 : base;
}

bool sl_recipe_needs_imatrix(const struct sl_recipe *r, const char *tensor, int type,
                             bool rules_2025)
{
    return sl_mixture_needs_imatrix(r->mixture, tensor, type, rules_2025);
}

/* Whether the quantizer will have weights for t, or does without. */
static int check_imatrix(struct assign *a, const struct sl_out_tensor *t, int type,
                         struct sl_error *e)
{
    const struct sl_recipe_opts *o = a->o;
    bool there = o->has_imatrix && (o->imatrix || sl_weight_words_use(&o->words, t->name));
    uint32_t entry;
    int rc;

    if (o->has_imatrix && o->imatrix && sl_type_info(type)->block > 1) {
        SL_TRY(rc = sl_imatrix_for(o->imatrix, t, &entry, e));
        there = rc == 1;
    }
    if (there || (o->any_type && !o->has_imatrix)
        || !sl_recipe_needs_imatrix(a->r, t->name, type, o->rules_2025))
        return 0;
    a->n_missing++;
    a->missing[t - a->m->tensors] = true;
    return 0;
}

/* The name after "blk.N.", and N; without a block the whole name. */
static const char *split_name(const char *name, uint64_t *layer)
{
    const char *dot = sl_tensor_layer(name, layer) ? strchr(name + 4, '.') : NULL;

    return dot ? dot + 1 : name;
}

/* Effect: *l = tensor `at` and its like in later blocks, "blk.1-3,7.ffn_up.weight (iq1_s)". They
 * are taken off a->missing. Returns how many they are. */
static uint32_t name_alike(struct assign *a, const int *types, uint32_t at, struct sl_line *l)
{
    uint64_t first = 0, last, layer;
    const char *name = a->m->tensors[at].name, *rest = split_name(name, &first);
    uint32_t count = 1;

    last = first;
    l->n = 0;
    if (rest != name)
        sl_line_add(l, "blk.%llu", (unsigned long long)first);
    for (uint32_t i = at + 1; rest != name && i < a->m->n_tensors; i++) {
        if (!a->missing[i] || types[i] != types[at] || strcmp(split_name(a->m->tensors[i].name, &layer), rest) != 0)
            continue;
        if (layer != last + 1) {
            if (last != first)
                sl_line_add(l, "-%llu", (unsigned long long)last);
            sl_line_add(l, ",%llu", (unsigned long long)layer);
            first = layer;
        }
        last = layer;
        a->missing[i] = false;
        count++;
    }
    if (last != first)
        sl_line_add(l, "-%llu", (unsigned long long)last);
    sl_line_add(l, "%s%s (%s)", rest != name ? "." : "", rest, sl_type_info(types[at])->name);
    a->missing[at] = false;
    return count;
}

/* All tensors whose data are missing; what does not fit into the message is counted. */
static void name_missing(struct assign *a, const int *types, struct sl_line *list)
{
    uint32_t left = a->n_missing;
    struct sl_line one;

    list->n = 0;
    sl_line_add(list, "%s", "");
    for (uint32_t i = 0; i < a->m->n_tensors; i++) {
        uint32_t count;

        if (!a->missing[i])
            continue;
        count = name_alike(a, types, i, &one);
        if (list->n + one.n + 40 > LIST) {
            sl_line_add(list, "%s%u more", list->n ? " and " : "", left);
            return;
        }
        sl_line_add(list, "%s%s", list->n ? ", " : "", one.text);
        left -= count;
    }
}

/* Whether all tensors whose data are missing are of a checkpoint's layers for multi-token prediction. */
static bool misses_nextn_alone(const struct assign *a)
{
    uint64_t first = a->m->hp.n_layer - a->m->hp.n_nextn, layer;

    if (!a->m->hp.n_nextn)
        return false;
    for (uint32_t i = 0; i < a->m->n_tensors; i++)
        if (a->missing[i] && (!sl_tensor_layer(a->m->tensors[i].name, &layer) || layer < first))
            return false;
    return true;
}

/* What to do about an imatrix without data; "" when nothing is known. */
static const char *missing_advice(const struct assign *a)
{
    bool checkpoint = a->m->tensors[0].src_type < 0;

    if (a->o->imatrix && a->m->layout == SL_LAYOUT_MLA && sl_imatrix_is_legacy(a->o->imatrix))
        return checkpoint && !a->m->hp.index_dim ? "; it was made in the legacy layout: use --layout legacy"
                                                 : "; it was made in the legacy layout";
    if (!misses_nextn_alone(a))
        return "";
    return checkpoint ? "; llama-imatrix does not run layers for multi-token prediction: "
                        "give them another type (--tensor-type), or --no-mtp"
                      : "; llama-imatrix does not run layers for multi-token prediction: "
                        "give them another type (--tensor-type)";
}

static int missing_data(struct assign *a, const int *types, struct sl_error *e)
{
    struct sl_line list;

    name_missing(a, types, &list);
    if (a->o->has_imatrix && !a->o->imatrix)
        return sl_fail(e, SL_EUSAGE, "--include-weights or --exclude-weights leave %u tensors without "
                       "importance weights whose types need them: %s", a->n_missing, list.text);
    if (!a->o->imatrix)
        return sl_fail(e, SL_EUSAGE, "recipe %s needs an importance matrix; %s: "
                       "%u tensors have types that cannot do without: %s", a->r->name,
                       a->o->words.n ? "--include-weights or --exclude-weights leave nothing of the one given"
                                     : "give one with --imatrix FILE, or --imatrix synthetic where there is none", a->n_missing, list.text);
    return sl_fail(e, SL_EUSAGE, "imatrix %s has no data for %u tensors whose types need an importance "
                   "matrix: %s%s", a->o->imatrix->path, a->n_missing, list.text, missing_advice(a));
}

/* llama.cpp reads what scales output.weight beside nvfp4 alone, and loads no file with a tensor that it does not read. */
static bool loses_scale(const struct assign *a, const struct sl_out_tensor *t, int type)
{
    bool has = false;

    if (type == SL_TYPE_NVFP4 || strcmp(t->name, "output.weight") != 0 || !sl_model_is_nvfp4(a->m, t))
        return false;
    for (uint32_t i = 0; i < a->m->n_tensors && !has; i++)
        has = strcmp(a->m->tensors[i].name, "output.scale") == 0 || strcmp(a->m->tensors[i].name, "output.input_scale") == 0;
    return has;
}

static int check_type(struct assign *a, const struct sl_out_tensor *t, int type,
                      struct sl_error *e)
{
    const struct sl_type_info *info = sl_type_info(type);

    if (t->ne[0] % info->block)
        return sl_fail(e, SL_EUSAGE,
                       "%s: rows of %llu weights do not divide into %s's blocks of %u; choose "
                       "another type for this tensor, f16 always fits",
                       t->name, (unsigned long long)t->ne[0], info->name, info->block);
    if (sl_model_keeps(a->m, t, type))
        return 0;
    if (t->src_type >= 0 && sl_type_info(t->src_type)->block > 1 && !a->o->allow_requantize && !a->o->any_type)
        return sl_fail(e, SL_EUSAGE,
                       "%s: it is %s in the source already, and quantizing twice loses more; quantize from the "
                       "F32, F16 or BF16 file, or give --allow-requantize",
                       t->name, sl_type_info(t->src_type)->name);
    if (loses_scale(a, t, type) && !a->o->any_type)
        return sl_fail(e, SL_EUSAGE,
                       "%s: it is nvfp4 under a scale of its own, which llama.cpp reads beside nvfp4 alone: it would not load "
                       "the file; keep it, by --leave-output-tensor or '%s = keep' in a recipe", t->name, t->name);
    if (!info->quantizes && !a->o->any_type)
        return sl_fail(e, SL_EUNSUPPORTED,
                       "%s: recipe %s asks for type %s, which this version cannot write; see "
                       "'sluice types'",
                       t->name, a->r->name, info->name);
    return check_imatrix(a, t, type, e);
}

static int assign_all(struct assign *a, int *types, uint32_t *n_fallback, struct sl_error *e)
{
    for (uint32_t i = 0; i < a->m->n_tensors; i++) {
        const struct sl_out_tensor *t = &a->m->tensors[i];
        bool fixed;
        int type = chosen_type(a, t, &fixed, e), other = type;

        SL_TRY(type);
        if (!fixed)
            other = sl_mixture_fallback(type, t->ne[0], a->o->rules_2025);
        if (other >= 0 && other != type) {
            (*n_fallback)++;
            type = other;
        }
        SL_TRY(check_type(a, t, type, e));
        types[i] = type;
    }
    return a->n_missing ? missing_data(a, types, e) : 0;
}

static int compile_overrides(struct assign *a, struct sl_error *e)
{
    a->overrides = calloc(a->o->n_overrides + 1, sizeof *a->overrides);
    if (!a->overrides)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < a->o->n_overrides; i++)
        if (sl_pattern_compile(a->o->overrides[i].pattern, true, true, &a->overrides[i], e) < 0)
            return sl_fail_context(e, "--tensor-type");
    return 0;
}

bool sl_recipe_tied(const struct sl_model *m)
{
    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i].name, "output.weight") == 0)
            return false;
    return true;
}

int sl_recipe_assign(const struct sl_recipe *r, const struct sl_model *m,
                     const struct sl_recipe_opts *o, int *types, uint32_t *n_fallback,
                     struct sl_error *e)
{
    static const struct sl_recipe_opts none = {.output_type = -1, .embedding_type = -1};
    struct assign a = {.r = r, .m = m, .o = o ? o : &none, .tied = sl_recipe_tied(m)};
    int rc;

    *n_fallback = 0;
    if (r->mixture) {
        sl_mixture_begin(&a.mix, r->mixture, m, a.o->has_imatrix, a.o->rules_2025);
        a.mix.output_type = a.o->output_type;
    }
    a.missing = calloc((size_t)m->n_tensors + 1, sizeof *a.missing);
    rc = a.missing ? compile_overrides(&a, e) : sl_no_memory(e);
    if (rc == 0)
        rc = assign_all(&a, types, n_fallback, e);
    for (uint32_t i = 0; a.overrides && i < a.o->n_overrides; i++)
        sl_pattern_free(a.overrides[i]);
    free(a.overrides);
    free(a.missing);
    return rc;
}
