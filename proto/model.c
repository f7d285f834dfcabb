/* The model of a Hugging Face checkpoint. The architecture's templates and the
 * config say which tensors there must be; the checkpoint is held against that,
 * name by name and shape by shape. */
#include "proto/arch_table.h"
#include "proto/cursor.h"
#include "proto/metadata_general.h"
#include "proto/model.h"
#include "proto/model_gguf.h"
#include "proto/model_source.h"
#include "proto/source_file.h"
#include "proto/suffix.h"
#include "proto/text_line.h"
#include "proto/tokenizer.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PLANNED 1000000 /* sources of a plan from config.json alone */
#define N_COUNT_SLACK 1024
#define LISTED 740          /* bytes of a message for names */

struct build {
    const struct sl_checkpoint *ck;
    const struct sl_params *p;
    struct sl_model *m;
    bool planned;     /* from config.json alone */
    struct sl_arrangement how; /* what is special about the tensor at hand */
    int ignored;      /* planned: 1 when that tensor's sources are not quantized, unlike others */
    uint8_t *used;    /* of the checkpoint's tensors */
    struct sl_names missing;
    char last_missing[128]; /* kv_b_proj is the source of two tensors, one after the other */
};

/* Effect: the source's name. Returns false when it does not fit. */
static bool source_name(const struct build *b, const struct sl_tensor_tmpl *t, uint64_t layer, uint64_t expert, char name[128])
{
    static const char in_layer[] = "model.layers.{i}.";
    const struct sl_number *n = b->p->num;
    const size_t len = sizeof in_layer - 1;
    int at;

    if (!b->p->arch->mtp_prefix || layer + n[SL_N_NEXTN].u < n[SL_N_LAYER].u || strncmp(t->src, in_layer, len) != 0)
        return sl_arch_name(name, 128, t->src, layer, expert);
    at = snprintf(name, 128, "%s%" PRIu64 ".", b->p->arch->mtp_prefix, layer + n[SL_N_NEXTN].u - n[SL_N_LAYER].u);
    return sl_arch_name(name + at, 128 - (size_t)at, t->src + len, layer, expert);
}

/* Whether the checkpoint has experts as the template does; by config.json alone: as published models have them. */
static bool joined_alike(const struct build *b, const struct sl_tensor_tmpl *t, uint64_t i)
{
    static const struct sl_tensor_tmpl up = {.src = "model.layers.{i}.mlp.experts.gate_up_proj"};
    uint32_t joined = t->when & (SL_W_FUSED | SL_W_APART);
    char name[128];
    const struct sl_tensor_tmpl own = {.src = b->p->arch->joined};
    bool fused;

    if (!joined)
        return true;
    if (b->planned)
        fused = own.src ? b->p->joined : b->p->arch->joins_experts && !b->p->fp8 && !b->ck->int8;
    else
        fused = source_name(b, own.src ? &own : &up, i, 0, name) && sl_checkpoint_find(b->ck, name) != SL_NO_TENSOR;
    return joined == (fused ? SL_W_FUSED : SL_W_APART);
}

/* Whether the template makes a tensor of layer i. */
static bool applies(const struct build *b, const struct sl_tensor_tmpl *t, uint32_t facts, uint64_t i)
{
    char name[128];

    if ((t->when & ~facts & ~(uint32_t)(SL_W_OPTIONAL | SL_W_FUSED | SL_W_APART)) != 0 || !joined_alike(b, t, i))
        return false;
    if ((t->when & SL_W_OPTIONAL) && b->planned)
        return t->rows != SL_N_VOCAB || !(b->p->arch->shares_heads || (b->p->arch->shares_embedding && sl_ends_with(t->src, ".embed_tokens.weight")));
    return !(t->when & SL_W_OPTIONAL) || !source_name(b, t, i, 0, name) ||
           sl_checkpoint_find(b->ck, name) != SL_NO_TENSOR;
}

static bool is_stack(const struct sl_tensor_tmpl *t)
{
    return t->src && strstr(t->src, "{e}") != NULL;
}

static uint64_t sources(const struct build *b, const struct sl_tensor_tmpl *t)
{
    return !t->src ? 0 : t->transform == SL_PRODUCT ? 2 : is_stack(t) ? b->p->num[SL_N_EXPERT].u : 1;
}

/* How many layers the template applies to (1 for the model's own tensors). */
static uint64_t instances(const struct build *b, const struct sl_tensor_tmpl *t)
{
    uint64_t n = 0;

    if (!(t->when & SL_W_LAYER))
        return applies(b, t, b->p->when, 0);
    for (uint64_t i = 0; i < b->p->num[SL_N_LAYER].u; i++)
        n += applies(b, t, sl_arch_layer_facts(b->p, i), i);
    return n;
}

/* The fields' limits keep these sums far from overflow. */
static int allocate(struct build *b, struct sl_error *e)
{
    uint64_t tensors = 0, src = 0;
    uint64_t cap = b->planned ? MAX_PLANNED : 2 * (uint64_t)b->ck->n_tensors + N_COUNT_SLACK;

    for (const struct sl_tensor_tmpl *const *table = b->p->arch->tensors; *table; table++)
        for (const struct sl_tensor_tmpl *t = *table; t->out; t++) {
            uint64_t n = instances(b, t);

            tensors += n;
            src += n * sources(b, t);
        }
    if (src > cap || tensors > cap)
        return sl_fail(e, SL_ESOURCE, "config.json describes a model of %" PRIu64 " tensors; %s",
                       src, b->planned ? "at most 1000000 are supported"
                       : "the checkpoint holds far fewer: the config is not of this checkpoint");
    if (b->ck->nvfp4) { /* and two scales of each */
        tensors *= 3;
        src *= 3;
    }
    b->m->tensors = calloc(tensors + 1, sizeof *b->m->tensors);
    b->m->src = calloc(src + 1, sizeof *b->m->src);
    b->used = calloc((size_t)b->ck->n_tensors + 1, 1);
    if (!b->m->tensors || !b->m->src || !b->used)
        return sl_fail(e, SL_EFAIL, "out of memory for %" PRIu64 " tensors", src);
    return 0;
}

/* ---- one source ---- */

static int take_source(struct build *b, const struct sl_tensor_tmpl *t, uint64_t layer,
                       uint64_t expert, struct sl_model_src *s, struct sl_error *e)
{
    const struct sl_src_tensor *src;
    uint64_t rows, cols;
    char name[128];

    sl_model_source_size(b->p, t, &b->how, &rows, &cols);
    *s = (struct sl_model_src){.tensor = SL_NO_TENSOR, .rows = t->rows == SL_N_NONE ? 1 : rows, .cols = cols};
    s->scale.tensor = SL_NO_TENSOR;
    if (t->rows == SL_N_NONE && t->transform == SL_PERMUTE) {
        s->rows = cols;
        s->cols = 1;
    }
    if (b->planned) {
        sl_model_source_plan(b->p, b->ck, t->ship, b->ignored, s);
        return 0;
    }
    if (!source_name(b, t, layer, expert, name))
        return sl_fail(e, SL_EFAIL, "the name of a tensor like '%s' is too long", t->src);
    s->tensor = sl_checkpoint_find(b->ck, name);
    if (s->tensor == SL_NO_TENSOR) {
        if (strcmp(b->last_missing, name) != 0)
            sl_names_add(&b->missing, name, 10, LISTED);
        memcpy(b->last_missing, name, sizeof name);
        return 0;
    }
    src = &b->ck->tensors[s->tensor];
    SL_TRY(sl_model_source_check(src, t, &b->how, rows, cols, e));
    b->used[s->tensor] = 1;
    s->dtype = src->dtype;
    if (t->transform == SL_FIRST)
        s->cols = src->elems;
    return sl_checkpoint_scale(b->ck, s->tensor, &s->scale, e);
}

/* ---- one output tensor ---- */

/* Where the scales of the tensor's source begin anew with each part, its rows lie in the order of the parts. */
static int order_parts(const struct build *b, struct sl_out_tensor *o, struct sl_error *e)
{
    const struct sl_scale *s = &b->m->src[o->first_src].scale;
    const struct sl_view *v = b->how.of_parts;

    if (!v || !s->part_rows)
        return 0;
    for (int i = 0; i < SL_SCALE_PARTS; i++, v++)
        if (sl_scale_parts[i] == s->rows / s->part_blocks && v->n_parts) {
            o->transform = SL_VIEW;
            o->view = &b->m->views[v - b->p->views];
            return 0;
        }
    return sl_fail(e, SL_ESOURCE, "tensor '%.200s': its scales are of %u parts, which do not divide the heads of config.json",
                   b->ck->tensors[b->m->src[o->first_src].tensor].name, (unsigned)(s->rows / s->part_blocks));
}

static void set_dims(const struct build *b, const struct sl_tensor_tmpl *t, struct sl_out_tensor *o)
{
    const struct sl_number *n = b->p->num;
    uint64_t ne[4] = {n[t->cols].u, n[t->rows].u, 1, 1};

    o->n_dims = t->rows == SL_N_NONE ? 1 : 2;
    if (o->n_dims == 1)
        ne[1] = 1;
    if (is_stack(t) || b->how.stack) {
        ne[2] = n[SL_N_EXPERT].u;
        o->n_dims = 3;
    }
    if (b->how.convolution) { /* the converter writes a last dimension of 1, too; llama-quantize does not */
        ne[2] = ne[1];
        ne[1] = 1;
        o->n_dims = 3;
    }
    if (t->transform == SL_K_B || t->transform == SL_V_B) {
        o->nope = (uint32_t)n[SL_N_NOPE].u;
        o->v_dim = (uint32_t)n[SL_N_V_DIM].u;
        o->lora = n[SL_N_KV_LORA].u;
        ne[0] = t->transform == SL_K_B ? o->nope : o->lora;
        ne[1] = t->transform == SL_K_B ? o->lora : o->v_dim;
        ne[2] = n[SL_N_HEAD].u;
        o->n_dims = 3;
    }
    if (b->how.columns) {
        o->transform = SL_K_B;
        o->nope = (uint32_t)ne[0];
        o->lora = ne[1];
        o->col0 = b->how.col0;
        o->heads = (uint32_t)ne[2];
    }
    memcpy(o->ne, ne, sizeof ne);
    if (t->heads != SL_N_NONE)
        o->heads = (uint32_t)n[t->heads].u;
}

static int add_tensor(struct build *b, const struct sl_tensor_tmpl *t, uint64_t layer,
                      struct sl_error *e)
{
    struct sl_model *m = b->m;
    struct sl_out_tensor *o = &m->tensors[m->n_tensors];
    uint64_t n_src = sources(b, t);
    char first[128];

    if (!sl_arch_name(o->name, sizeof o->name, t->out, layer, 0))
        return sl_fail(e, SL_EFAIL, "the name of a tensor like '%s' is too long", t->out);
    b->how = (struct sl_arrangement){0};
    if (b->p->arch->arrange)
        b->p->arch->arrange(b->p, t, &b->how);
    o->transform = b->how.view ? SL_VIEW : t->transform;
    o->view = b->how.view ? &m->views[b->how.view - b->p->views] : NULL;
    o->change = b->how.change;
    o->src_type = t->transform == SL_IDS ? SL_TYPE_I32 : -1;
    set_dims(b, t, o);
    o->elems = 1;
    for (int d = 0; d < 4; d++)
        if (!sl_mul_u64(o->elems, o->ne[d], &o->elems))
            return sl_fail(e, SL_ESOURCE, "config.json: tensor '%s' would have more than 2^64 weights",
                           o->name);
    if (!sl_add_u64(m->n_params, o->elems, &m->n_params) || m->n_params > INT64_MAX)
        return sl_fail(e, SL_ESOURCE, "config.json describes a model of more than 2^63 weights");
    o->keeps_own = b->p->arch->own_types && sl_arch_is_router(o->name);
    o->keep_f32 = !o->keeps_own && sl_arch_keeps_f32(o->name, o->n_dims);
    o->outtype_f32 = !b->p->arch->own_types && sl_arch_outtype_f32(o->name);
    o->first_src = m->n_src;
    o->n_src = (uint32_t)n_src;
    if (o->transform == SL_INLINE)
        o->values = b->p->values;
    b->ignored = 0;
    if (b->planned && (t->ship == SL_SHIP_LINEAR || t->ship == SL_SHIP_EXPERT) && source_name(b, t, layer, 0, first))
        SL_TRY(b->ignored = sl_checkpoint_ignores(b->ck, first, e));
    for (uint64_t x = 0; x < n_src; x++)
        SL_TRY(take_source(b, t, layer, x, &m->src[m->n_src++], e));
    SL_TRY(order_parts(b, o, e));
    m->n_tensors++;
    return sl_model_add_own_scales(m, b->ck, b->p->arch, o, e);
}

/* Those of layer i by its facts, or with the facts of the model those that it has once. */
static int add_tensors(struct build *b, uint32_t facts, uint64_t i, struct sl_error *e)
{
    for (const struct sl_tensor_tmpl *const *table = b->p->arch->tensors; *table; table++)
        for (const struct sl_tensor_tmpl *t = *table; t->out; t++)
            if ((t->when & SL_W_LAYER) == (facts & SL_W_LAYER) && applies(b, t, facts, i))
                SL_TRY(add_tensor(b, t, i, e));
    return 0;
}

static int add_all(struct build *b, struct sl_error *e)
{
    SL_TRY(add_tensors(b, b->p->when, 0, e));
    for (uint64_t i = 0; i < b->p->num[SL_N_LAYER].u; i++)
        SL_TRY(add_tensors(b, sl_arch_layer_facts(b->p, i), i, e));
    return 0;
}

/* Whether that layer is one for multi-token prediction that is kept. */
static bool has_mtp(const struct build *b, uint64_t layer)
{
    char name[128];

    if (b->p->arch->mtp_prefix)
        return (layer < b->p->num[SL_N_LAYER].u || !b->p->num[SL_N_NEXTN].u) &&
               sl_checkpoint_find(b->ck, b->p->arch->mtp_sign) != SL_NO_TENSOR && !sl_arch_drops(b->p, b->p->arch->mtp_sign);
    return sl_arch_name(name, sizeof name, "model.layers.{i}.eh_proj.weight", layer, 0) &&
           sl_checkpoint_find(b->ck, name) != SL_NO_TENSOR && !sl_arch_drops(b->p, name);
}

/* Whether config.json tells of layers for multi-token prediction that the checkpoint lacks. */
static bool lacks_mtp(const struct build *b)
{
    return b->p->num[SL_N_NEXTN].u && !has_mtp(b, b->p->num[SL_N_LAYER].u - 1);
}

static int unknown_tensors(struct build *b, struct sl_names *unknown, struct sl_error *e)
{
    bool more = has_mtp(b, b->p->num[SL_N_LAYER].u);
    uint32_t n = b->missing.n;

    return sl_fail(e, SL_EUNSUPPORTED, "%" PRIu32 " tensor%s unknown for %s (%" PRIu32 " expected one%s missing%s%.*s): %s%s%s%s",
                   unknown->n, unknown->n == 1 ? "" : "s", b->p->hf_class, n, n == 1 ? "" : "s", n ? ": " : "",
                   (int)strcspn(b->missing.line.text, ","), b->missing.line.text, sl_names_text(unknown),
                   more ? "; config.json's " : n ? "; is config.json of the same model?" : "",
                   more ? sl_arch_field_name(b->p, SL_N_NEXTN) : "",
                   more ? " does not tell of all layers for multi-token prediction: correct it, or give --no-mtp" : "");
}

/* Every tensor of the checkpoint is used, scales another one, or is dropped. */
static int account(struct build *b, struct sl_error *e)
{
    struct sl_names unknown = {.n = 0};

    for (uint32_t i = 0; i < b->ck->n_tensors; i++) {
        const char *name = b->ck->tensors[i].name;

        if (b->used[i] || sl_checkpoint_is_scale(b->ck, i))
            continue;
        if (sl_arch_sees(b->p, name))
            b->m->n_vision++;
        else if (!sl_arch_drops(b->p, name))
            sl_names_add(&unknown, name, 5, LISTED);
    }
    if (b->missing.n && sl_checkpoint_is_shard(b->ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and %" PRIu32 " tensors are in others; give "
                       "the folder, %s", b->ck->files[0].path, b->missing.n, b->ck->dir);
    if (unknown.n)
        return unknown_tensors(b, &unknown, e);
    if (b->missing.n == 1 && strcmp(b->last_missing, "lm_head.weight") == 0)
        return sl_fail(e, SL_ESOURCE, "1 tensor missing from the checkpoint: lm_head.weight; where the embedding "
                       "serves as the head, config.json must say \"tie_word_embeddings\": true");
    if (b->missing.n)
        return sl_fail(e, SL_ESOURCE, "%" PRIu32 " tensor%s missing from the checkpoint: %s; is the download complete, "
                       "and config.json of the same model?%s", b->missing.n, b->missing.n == 1 ? "" : "s",
                       sl_names_text(&b->missing),
                       lacks_mtp(b) ? " Without layers for multi-token prediction, give --no-mtp" : "");
    return 0;
}

static int build_tensors(struct build *b, struct sl_error *e)
{
    SL_TRY(allocate(b, e));
    SL_TRY(add_all(b, e));
    return b->planned ? 0 : account(b, e);
}

/* ---- the model ---- */

static void set_hparams(struct sl_hparams *hp, const struct sl_params *p)
{
    const struct sl_number *n = p->num;
    bool latent = n[SL_N_KV_LORA].have;

    hp->mla_only = p->arch->mla_only;
    hp->n_layer = n[SL_N_LAYER].u;
    hp->n_head = n[p->kinds[0] & SL_LAYER_WINDOW && n[SL_N_HEAD_WINDOW].have ? SL_N_HEAD_WINDOW : SL_N_HEAD].u;
    hp->n_head_kv = p->linear[0] ? 0 : n[p->kinds[0] & SL_LAYER_WINDOW && n[SL_N_HEAD_KV_WINDOW].have ? SL_N_HEAD_KV_WINDOW : SL_N_HEAD_KV].u;
    hp->n_expert = n[SL_N_EXPERT].u;
    hp->n_layer_dense = n[SL_N_DENSE].u;
    hp->moe_step = n[SL_N_MOE_STEP].u;
    hp->n_embd = n[SL_N_EMBD].u;
    hp->n_vocab = n[SL_N_VOCAB].u;
    hp->n_nextn = n[SL_N_NEXTN].u;
    hp->index_dim = n[SL_N_INDEX_DIM].u;
    hp->window = p->has_kinds ? 0 : n[SL_N_WINDOW].u;
    for (uint64_t i = 0; i < hp->n_layer; i++)
        hp->n_linear += (sl_arch_layer_facts(p, i) & SL_W_LINEAR) != 0;
    hp->state = n[SL_N_LINEAR_DIM].u * n[SL_N_LINEAR_ROWS].u;
    if (n[SL_N_CONV].u)
        hp->state += (n[SL_N_CONV].u - 1) * n[SL_N_LINEAR_QKV].u;
    for (uint64_t i = 0; i < hp->n_layer && i < p->n_ratios; i++) {
        hp->n_fine += p->ratios[i] == SL_FINE;
        hp->n_coarse += p->ratios[i] == SL_COARSE;
    }
    hp->kv_lora = n[SL_N_KV_LORA].u;
    hp->rope_dim = latent ? n[SL_N_ROPE_DIM].u : n[SL_N_HEAD_DIM].u;
    hp->head_k = latent ? n[SL_N_NOPE].u + n[SL_N_ROPE_DIM].u : n[SL_N_HEAD_DIM].u;
    hp->head_v = n[SL_N_V_DIM].have ? n[SL_N_V_DIM].u : n[SL_N_HEAD_DIM].u;
}

static int set_keys(struct sl_model *m, const struct sl_params *p, const struct sl_checkpoint *ck,
                    const struct sl_model_opts *o, struct sl_error *e)
{
    const struct sl_source_dir dir = {ck->dir, ck->roots};
    struct sl_metadata_in in = {.dir = dir, .config = ck->config,
                                .model_name = o->model_name};

    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct sl_out_tensor *t = &m->tensors[i];

        in.total += t->elems;
        if (strstr(t->name, "_exps.") && t->n_dims >= 3)
            in.expert += t->elems / t->ne[2];
        else
            in.shared += t->elems;
    }
    in.n_expert = in.expert ? m->hp.n_expert : 0;
    if (sl_kvs_set_str(&m->kvs, "general.architecture", p->arch->name) < 0 ||
        sl_kvs_set_str(&m->kvs, "general.type", "model") < 0)
        return sl_fail(e, SL_EFAIL, "out of memory for metadata");
    SL_TRY(sl_metadata_general(&in, &m->kvs, &m->base_name, &m->model_name, e));
    SL_TRY(sl_arch_keys(p, &m->kvs, e));
    m->no_tokenizer = ck->n_files == 0 || (o->tokenizer_optional && ck->dir && !sl_tokenizer_there(ck->dir, p->arch));
    m->tokenizer_file = sl_tokenizer_file(p->arch);
    if (m->no_tokenizer)
        return 0;
    m->no_tokenizer_config = p->arch->tokens != SL_TOKENS_TEKKEN && !sl_source_exists(dir.path, "tokenizer_config.json");
    SL_TRY(sl_tokenizer_keys(&dir, ck->config, p->arch, m->hp.n_vocab, &m->kvs, e));
    if (p->arch->config_eos)
        SL_TRY(sl_tokenizer_eos(p->config, &m->kvs, e));
    if (!sl_kvs_find(&m->kvs, "tokenizer.chat_template"))
        m->template_of = p->arch->template_of;
    else if (p->arch->template_first)
        sl_kvs_move(&m->kvs, "tokenizer.chat_template", 1);
    return 0;
}

/* Whether neither config.json nor a tensor tells of a layer for multi-token prediction, which such models have. */
static bool silent_without_mtp(const struct sl_checkpoint *ck, const struct sl_params *p)
{
    return p->arch->mtp_prefix && !cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(p->config, sl_arch_field_name(p, SL_N_NEXTN))) &&
           sl_checkpoint_find(ck, p->arch->mtp_sign) == SL_NO_TENSOR;
}

static int open_hf(const struct sl_checkpoint *ck, const struct sl_model_opts *o,
                   struct sl_model *m, struct sl_error *e)
{
    struct build b = {.ck = ck, .m = m, .planned = ck->n_files == 0};
    const struct sl_source_dir dir = {ck->dir, ck->roots};
    struct sl_params p;
    int rc;

    if (!ck->config)
        return sl_fail(e, SL_ESOURCE, "the checkpoint has no config.json: give the folder that holds "
                       "the model's config.json, tokenizer and .safetensors files");
    rc = sl_params_read(sl_checkpoint_config(ck), o->layout, o->no_mtp, &p, e);
    if (rc == 0 && !b.planned && silent_without_mtp(ck, &p))
        rc = sl_params_read(sl_checkpoint_config(ck), o->layout, true, &p, e);
    m->priv = p.values;
    rc = rc < 0 ? rc : sl_arch_check_task(&p, &dir, e);
    if (rc < 0)
        return rc;
    if (p.tied && p.arch->output_if_there &&
        sl_checkpoint_find(ck, "lm_head.weight") != SL_NO_TENSOR)
        p.when |= SL_W_OUTPUT;
    b.p = &p;
    memcpy(m->views, p.views, sizeof m->views);
    m->arch = p.arch->name;
    m->layout = p.layout;
    m->keeps_q8_0 = p.arch->own_types || p.fp4_experts;
    set_hparams(&m->hp, &p);
    rc = build_tensors(&b, e);
    free(b.used);
    SL_TRY(rc);
    SL_TRY(set_keys(m, &p, ck, o, e));
    return sl_model_set_near(m, e);
}

static int by_name(const void *a, const void *b)
{
    return sl_tensor_name_cmp(((const struct sl_out_tensor *)a)->name,
                              ((const struct sl_out_tensor *)b)->name);
}

int sl_model_open(const struct sl_checkpoint *ck, const struct sl_model_opts *o,
                  struct sl_model **out, struct sl_error *e)
{
    static const struct sl_model_opts usual;
    struct sl_model *m = calloc(1, sizeof *m);
    int rc;

    o = o ? o : &usual;
    *out = NULL;
    if (!m)
        return sl_fail(e, SL_EFAIL, "out of memory for the model");
    rc = ck->is_gguf ? sl_model_from_gguf(ck, o, m, e) : open_hf(ck, o, m, e);
    if (rc < 0) {
        sl_checkpoint_fail(ck, e);
        sl_model_close(m);
        return rc;
    }
    if (!ck->is_gguf || !o->keep_order)
        qsort(m->tensors, m->n_tensors, sizeof *m->tensors, by_name);
    *out = m;
    return 0;
}

void sl_model_close(struct sl_model *m)
{
    if (!m)
        return;
    sl_kvs_free(&m->kvs);
    free(m->tensors);
    free(m->src);
    free(m->base_name);
    free(m->model_name);
    free(m->near);
    free(m->priv);
    free(m);
}

/* Whether a tensor is of that type in a GGUF file, or of F4 in such groups in a checkpoint. */
static bool is_grouped(const struct sl_model *m, const struct sl_out_tensor *t, int type, uint64_t group)
{
    if (t->src_type >= 0)
        return t->src_type == type;
    for (uint32_t i = 0; i < t->n_src; i++) {
        const struct sl_model_src *s = &m->src[t->first_src + i];

        if (s->dtype != SL_DTYPE_F4 || s->scale.block_rows != 1 || s->scale.block_cols != group)
            return false;
    }
    return t->n_src > 0;
}

bool sl_model_is_mxfp4(const struct sl_model *m, const struct sl_out_tensor *t)
{
    return is_grouped(m, t, SL_TYPE_MXFP4, SL_F4_GROUP) && t->transform == SL_COPY;
}

/* Whether n elements that lie in order in the output do so in the source, wherever n divides their place. */
static bool in_order_by(const struct sl_out_tensor *t, uint64_t n)
{
    if (t->transform != SL_VIEW)
        return t->transform == SL_COPY || (t->transform == SL_PERMUTE && t->n_dims > 1 && t->ne[0] % n == 0);
    for (uint32_t i = 0; i < t->view->n_parts; i++) {
        const struct sl_view_part *p = &t->view->part[i];

        if (p->first % n || p->run % n || p->step[0] % n || p->step[1] % n || p->step[2] % n)
            return false;
    }
    return t->ne[0] % n == 0;
}

bool sl_model_is_nvfp4(const struct sl_model *m, const struct sl_out_tensor *t)
{
    return is_grouped(m, t, SL_TYPE_NVFP4, SL_NVFP4_GROUP) && in_order_by(t, sl_type_info(SL_TYPE_NVFP4)->block);
}

bool sl_model_keeps(const struct sl_model *m, const struct sl_out_tensor *t, int type)
{
    return type == t->src_type || (type == SL_TYPE_MXFP4 && sl_model_is_mxfp4(m, t)) ||
           (type == SL_TYPE_NVFP4 && sl_model_is_nvfp4(m, t));
}

/* N of "blk.N.", or -1 for names outside layers. */
static int64_t layer_of(const char *name)
{
    int64_t n = 0;

    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9')
        return -1;
    for (const char *s = name + 4; *s >= '0' && *s <= '9' && n <= INT_MAX; s++)
        n = n * 10 + (*s - '0');
    return n;
}

int sl_tensor_name_cmp(const char *a, const char *b)
{
    int64_t la = layer_of(a), lb = layer_of(b);

    if (la != lb)
        return la < lb ? -1 : 1;
    return strcmp(a, b);
}
