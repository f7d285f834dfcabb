#include "proto/model_gguf.h"

#include "proto/arch_table.h"
#include "proto/cursor.h"
#include "proto/metadata_name.h"
#include "proto/mixture.h"
#include "proto/suffix.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void take_tensor(const struct sl_src_tensor *t, uint32_t index, struct sl_out_tensor *o,
                        struct sl_model_src *s)
{
    snprintf(o->name, sizeof o->name, "%s", t->name);
    o->n_dims = t->n_dims;
    for (uint32_t d = 0; d < 4; d++)
        o->ne[d] = d < t->n_dims ? t->shape[t->n_dims - 1 - d] : 1;
    o->elems = t->elems;
    o->transform = SL_COPY;
    o->keep_f32 = sl_arch_keeps_f32(o->name, o->n_dims);
    o->src_type = sl_type_of_dtype((int)t->dtype);
    o->n_src = 1;
    *s = (struct sl_model_src){.tensor = index, .dtype = t->dtype, .cols = o->ne[0]};
    s->rows = t->elems / o->ne[0];
    s->scale.tensor = SL_NO_TENSOR;
}

/* Whether "blk.N." stands somewhere in name, as in T5's "dec.blk.N.". */
static bool has_layer(const char *name)
{
    uint64_t layer;

    for (const char *s = name; (s = strstr(s, "blk.")) != NULL; s++)
        if (sl_tensor_layer(s, &layer))
            return true;
    return false;
}

/* "blk.N." of what is left counts without the layers that are not. "blk.07." could get the name of
 * another tensor. Returns 1 when the tensor itself is one of those. */
static int renumber(const struct sl_model_opts *o, const char *from, struct sl_out_tensor *t,
                    struct sl_error *e)
{
    uint64_t layer, before = 0;
    const char *rest;

    if (!o->n_prune)
        return 0;
    if (!sl_tensor_layer(from, &layer) || (from[4] == '0' && from[5] != '.'))
        return !has_layer(from) ? 0
               : sl_fail(e, SL_EUNSUPPORTED, "--prune-layers: the layer of tensor '%.100s' does not stand first in its "
                         "name, or begins with 0; only models whose layers are blk.0, blk.1, ... can be pruned", from);
    for (uint32_t i = 0; i < o->n_prune; i++) {
        if (o->prune[i] == layer)
            return 1;
        before += o->prune[i] < layer;
    }
    if (!before)
        return 0;
    rest = strchr(from + 4, '.');
    snprintf(t->name, sizeof t->name, "blk.%" PRIu64 "%s", layer - before, rest);
    t->known_as = from;
    return 0;
}

static int take_tensors(const struct sl_checkpoint *ck, const struct sl_model_opts *o, struct sl_model *m,
                        struct sl_error *e)
{
    m->tensors = calloc((size_t)ck->n_tensors + 1, sizeof *m->tensors);
    m->src = calloc((size_t)ck->n_tensors + 1, sizeof *m->src);
    if (!m->tensors || !m->src)
        return sl_fail(e, SL_EFAIL, "out of memory for %" PRIu32 " tensors", ck->n_tensors);
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        struct sl_out_tensor *t = &m->tensors[m->n_tensors];
        int rc;

        take_tensor(&ck->tensors[i], i, t, &m->src[m->n_tensors]);
        SL_TRY(rc = renumber(o, ck->tensors[i].name, t, e));
        if (rc == 1)
            continue;
        t->first_src = m->n_tensors++;
        if (!sl_add_u64(m->n_params, ck->tensors[i].elems, &m->n_params))
            return sl_fail(e, SL_ESOURCE, "the model has more than 2^64 weights");
    }
    memset(&m->tensors[m->n_tensors], 0, sizeof *m->tensors);
    m->n_src = m->n_tensors;
    return 0;
}

/* The rules go by the source's number of layers, as llama-quantize's do; the
 * metadata say what is left. */
static int set_pruned(const struct sl_model_opts *o, struct sl_model *m, struct sl_error *e)
{
    char key[160];

    if (!o->n_prune)
        return 0;
    if (m->hp.n_layer == 0 || m->hp.n_layer > UINT32_MAX)
        return sl_fail(e, SL_EUSAGE, "--prune-layers: the model does not say how many layers it has "
                       "(%.80s.block_count)", m->arch);
    if (o->prune[o->n_prune - 1] >= m->hp.n_layer)
        return sl_fail(e, SL_EUSAGE, "--prune-layers %" PRIu32 ": the model has layers 0 to %" PRIu64,
                       o->prune[o->n_prune - 1], m->hp.n_layer - 1);
    if (o->n_prune == m->hp.n_layer)
        return sl_fail(e, SL_EUSAGE, "--prune-layers: no layer would be left");
    snprintf(key, sizeof key, "%.80s.block_count", m->arch);
    return sl_kvs_set_u32(&m->kvs, key, (uint32_t)m->hp.n_layer - o->n_prune) < 0
               ? sl_fail(e, SL_EFAIL, "out of memory for metadata") : 0;
}

/* What llama-quantize sets anew, or drops; what Sluice said of the source's own making; and
 * an alignment that the output does not have (llama-quantize copies it, and nothing reads
 * such a file). */
static bool is_rewritten(const struct sl_kvs *from, const char *key)
{
    uint32_t align;

    if (strcmp(key, "general.alignment") == 0)
        return !sl_kvs_get_u32(from, key, &align) || align != SL_GGUF_ALIGN;
    return strncmp(key, "split.", 6) == 0 || strncmp(key, "sluice.", 7) == 0 || strcmp(key, "general.file_type") == 0 ||
           strcmp(key, "general.quantization_version") == 0;
}

static int take_keys(const struct sl_kvs *from, struct sl_model *m, struct sl_error *e)
{
    for (uint64_t i = 0; i < from->n; i++)
        if (!is_rewritten(from, from->kv[i].key) && sl_kvs_copy(&m->kvs, &from->kv[i]) < 0)
            return sl_fail(e, SL_EFAIL, "out of memory for metadata");
    return 0;
}

/* An integer "<arch>.<name>", or `otherwise`. */
static uint64_t number(const struct sl_model *m, const char *name, uint64_t otherwise)
{
    char key[160];
    uint64_t v;

    snprintf(key, sizeof key, "%.80s.%s", m->arch, name);
    return sl_kvs_get_uint(&m->kvs, key, &v) ? v : otherwise;
}

static bool has_tensor(const struct sl_model *m, const char *suffix)
{
    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (sl_stem(m->tensors[i].name, suffix))
            return true;
    return false;
}

/* Of a list of all layers, as DeepSeek-V4 has it. */
static void set_window(struct sl_model *m)
{
    const struct sl_kv *kv = sl_kvs_find(&m->kvs, "deepseek4.attention.compress_ratios");
    struct sl_hparams *hp = &m->hp;

    if (!kv || kv->type != SL_KV_ARR || kv->elem != SL_KV_I32)
        return;
    hp->window = number(m, "attention.sliding_window", 0);
    for (uint64_t i = 0; i < kv->n && i < hp->n_layer; i++) {
        int32_t ratio;

        memcpy(&ratio, (const uint8_t *)kv->data + i * sizeof ratio, sizeof ratio);
        hp->n_fine += ratio == SL_FINE;
        hp->n_coarse += ratio == SL_COARSE;
    }
}

/* Of Qwen3.5, whose other layers have linear attention. */
static void set_state(struct sl_model *m)
{
    uint64_t every = number(m, "full_attention_interval", 0), dim = number(m, "ssm.state_size", 0), conv = number(m, "ssm.conv_kernel", 1);
    uint64_t inner = number(m, "ssm.inner_size", 0), groups = number(m, "ssm.group_count", 0), most = UINT32_MAX;
    struct sl_hparams *hp = &m->hp;
    uint64_t layers = hp->n_nextn < hp->n_layer ? hp->n_layer - hp->n_nextn : 0;

    if (!every || !conv || conv > 256 || dim > 1 << 12 || inner > most || groups > most || layers > most)
        return;
    hp->n_linear = layers - layers / every;
    hp->state = dim * inner + (conv - 1) * (inner + 2 * groups * dim);
}

/* The architecture's list of whole numbers or of bools, one entry for each layer, or NULL. */
static const struct sl_kv *layer_list(const struct sl_model *m, const char *name)
{
    const struct sl_kv *kv;
    char key[160];

    snprintf(key, sizeof key, "%.80s.%s", m->arch, name);
    kv = sl_kvs_find(&m->kvs, key);
    if (!kv || kv->type != SL_KV_ARR || !kv->data || kv->n < m->hp.n_layer)
        return NULL;
    return kv->elem == SL_KV_F32 || kv->elem == SL_KV_F64 ? NULL : kv;
}

static int64_t list_at(const struct sl_kv *list, uint64_t i)
{
    size_t bytes = sl_gguf_type_size(list->elem);
    bool is_signed = list->elem == SL_KV_I8 || list->elem == SL_KV_I16 || list->elem == SL_KV_I32;
    int unused = 64 - 8 * (int)bytes;
    uint64_t v = 0;

    memcpy(&v, (const uint8_t *)list->data + i * bytes, bytes);
    return is_signed ? (int64_t)(v << unused) >> unused : (int64_t)v;
}

/* Layers for multi-token prediction, where they have no router. */
static void set_dense_last(struct sl_model *m)
{
    struct sl_hparams *hp = &m->hp;
    uint64_t layer;

    hp->n_dense_last = hp->n_nextn < hp->n_layer ? hp->n_nextn : 0;
    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (sl_arch_is_router(m->tensors[i].name) && sl_tensor_layer(m->tensors[i].name, &layer) && layer + hp->n_nextn >= hp->n_layer)
            hp->n_dense_last = 0;
}

/* Layers that look at so many tokens by an interval, not by a list; 0: all look at all. */
static int set_periodic(struct sl_model *m, uint64_t window, struct sl_error *e)
{
    struct sl_hparams *hp = &m->hp;

    if (!hp->n_layer || hp->n_layer > SL_MAX_LAYER || !window)
        return 0;
    m->near = calloc(hp->n_layer, 1);
    if (!m->near)
        return sl_fail(e, SL_EFAIL, "out of memory for %" PRIu64 " layers", hp->n_layer);
    hp->near_window = window;
    hp->n_head_kv_near = hp->n_head_kv_far = hp->n_head_kv;
    for (uint64_t i = 0; i + hp->n_nextn < hp->n_layer; i++)
        m->near[i] = (i + 1) % SL_WINDOW_PERIOD != 0;
    set_dense_last(m);
    return 0;
}

int sl_model_set_near(struct sl_model *m, struct sl_error *e)
{
    bool step = strcmp(m->arch, sl_arch_step35.name) == 0;
    const struct sl_kv *windows = layer_list(m, "attention.sliding_window_pattern");
    const struct sl_kv *heads = layer_list(m, "attention.head_count_kv");
    struct sl_hparams *hp = &m->hp;

    if (strcmp(m->arch, sl_arch_llama4.name) == 0) /* a key may say that all layers look at all tokens */
        return set_periodic(m, number(m, "attention.sliding_window", SL_LLAMA4_CHUNK) ? SL_LLAMA4_CHUNK : 0, e);
    if (strcmp(m->arch, sl_arch_exaone_moe.name) == 0)
        return set_periodic(m, number(m, "attention.sliding_window", 0), e);
    if ((!step && strcmp(m->arch, sl_arch_mimo2.name) != 0) || !windows || !hp->n_layer)
        return 0;
    m->near = calloc(hp->n_layer, 1);
    if (!m->near)
        return sl_fail(e, SL_EFAIL, "out of memory for %" PRIu64 " layers", hp->n_layer);
    hp->near_window = number(m, "attention.sliding_window", 0);
    set_dense_last(m);
    for (uint64_t i = 0; i < hp->n_layer; i++) {
        int64_t n = heads ? list_at(heads, i) : (int64_t)hp->n_head_kv;

        m->near[i] = list_at(windows, i) != 0;
        if (n > 0)
            *(m->near[i] ? &hp->n_head_kv_near : &hp->n_head_kv_far) = (uint64_t)n;
    }
    return 0;
}

/* Layers with 0 heads for keys have linear attention, as Kimi-K3's. */
static void set_linear(struct sl_model *m)
{
    struct sl_hparams *hp = &m->hp;
    uint64_t dim = number(m, "kda.head_dim", 0), conv = number(m, "ssm.conv_kernel", 0);
    const struct sl_kv *list = layer_list(m, "attention.head_count_kv");

    if (!list || dim > UINT16_MAX || conv > UINT16_MAX)
        return;
    for (uint64_t i = 0; i < hp->n_layer; i++) {
        int64_t heads = list_at(list, i);

        hp->n_linear += dim && heads == 0;
        if (i == 0 && heads >= 0)
            hp->n_head_kv = (uint64_t)heads;
    }
    if (hp->n_linear && conv && hp->n_head <= UINT16_MAX)
        hp->state = hp->n_head * dim * (dim + 3 * (conv - 1));
}

/* The first layers that have no router, where no key counts them. */
static uint64_t dense_layers(const struct sl_model *m)
{
    uint64_t least = m->hp.n_layer, layer;

    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (sl_arch_is_router(m->tensors[i].name) && sl_tensor_layer(m->tensors[i].name, &layer) && layer < least)
            least = layer;
    return least;
}

static void set_hparams(struct sl_model *m)
{
    struct sl_hparams *hp = &m->hp;
    const struct sl_kv *tokens = sl_kvs_find(&m->kvs, "tokenizer.ggml.tokens");
    const struct sl_kv *heads;
    bool counts = strcmp(m->arch, sl_arch_mimo2.name) != 0 && strcmp(m->arch, sl_arch_hy_v3.name) != 0;

    hp->n_layer = number(m, "block_count", 0);
    heads = hp->n_layer ? layer_list(m, "attention.head_count") : NULL;
    hp->n_head = number(m, "attention.head_count", heads && list_at(heads, 0) > 0 ? (uint64_t)list_at(heads, 0) : 0);
    hp->n_head_kv = number(m, "attention.head_count_kv", hp->n_head);
    hp->n_expert = number(m, "expert_count", 0);
    hp->n_layer_dense = number(m, "leading_dense_block_count", counts ? 0 : dense_layers(m));
    hp->moe_step = number(m, "interleave_moe_layer_step", 0);
    hp->n_embd = number(m, "embedding_length", 0);
    hp->kv_lora = number(m, "attention.kv_lora_rank", 0);
    hp->n_vocab = number(m, "vocab_size", tokens ? tokens->n : 0);
    hp->head_k = number(m, "attention.key_length", hp->n_head ? hp->n_embd / hp->n_head : 0);
    hp->head_v = number(m, "attention.value_length", hp->n_head ? hp->n_embd / hp->n_head : 0);
    hp->head_k = number(m, "attention.key_length_mla", hp->head_k);
    hp->head_v = number(m, "attention.value_length_mla", hp->head_v);
    hp->rope_dim = number(m, "rope.dimension_count", hp->head_k);
    hp->n_nextn = number(m, "nextn_predict_layers", 0);
    hp->index_dim = number(m, "attention.indexer.key_length", 0);
    hp->mla_only = strcmp(m->arch, sl_arch_kimi_k3.name) == 0; /* of the others an indexer tells */
    set_window(m);
    set_state(m);
    set_linear(m);
}

/* "dir/Name-Q8_0-00001-of-00003.gguf" without the folder and what follows Name
 * (the split number, and the ending). */
static char *stem_of(const char *path)
{
    const char *base = strrchr(path, '/');
    char *s = strdup(base ? base + 1 : path);

    if (s)
        s[sl_gguf_stem(s)] = '\0';
    return s;
}

static const char *text(const struct sl_model *m, const char *key)
{
    const char *v;

    return sl_kvs_get_str(&m->kvs, key, &v) && *v ? v : NULL;
}

static int set_names(const struct sl_checkpoint *ck, const struct sl_model_opts *o,
                     struct sl_model *m, struct sl_error *e)
{
    char *stem = stem_of(ck->files[0].path);
    const char *name;

    if (o->model_name && sl_kvs_set_str(&m->kvs, "general.name", o->model_name) < 0) {
        free(stem);
        return sl_fail(e, SL_EFAIL, "out of memory for metadata");
    }
    name = text(m, "general.name");
    m->model_name = strdup(name ? name : stem ? stem : "");
    if (text(m, "general.basename") || name)
        m->base_name = sl_file_base_name(name, text(m, "general.basename"),
                                         text(m, "general.size_label"), text(m, "general.finetune"),
                                         text(m, "general.version"));
    else
        m->base_name = sl_file_base_name(stem, NULL, NULL, NULL, NULL);
    free(stem);
    return m->base_name && m->model_name ? 0 : sl_fail(e, SL_EFAIL, "out of memory for metadata");
}

int sl_model_from_gguf(const struct sl_checkpoint *ck, const struct sl_model_opts *o,
                       struct sl_model *m, struct sl_error *e)
{
    SL_TRY(take_tensors(ck, o, m, e));
    SL_TRY(take_keys(&ck->gguf->kvs, m, e));
    if (!sl_kvs_get_str(&m->kvs, "general.architecture", &m->arch) || !*m->arch)
        return sl_fail(e, SL_ESOURCE, "%s: the key general.architecture is missing", ck->gguf->path);
    m->layout = has_tensor(m, ".attn_kv_b.weight") && !has_tensor(m, ".attn_k_b.weight")
                    ? SL_LAYOUT_LEGACY : SL_LAYOUT_MLA;
    set_hparams(m);
    SL_TRY(sl_model_set_near(m, e));
    SL_TRY(set_pruned(o, m, e));
    return set_names(ck, o, m, e);
}
