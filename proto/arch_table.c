#include "proto/arch_table.h"

#include "proto/suffix.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The converter's order: the keys of all, and those of architectures without a list of their own. Two entries with
 * one key belong to different architectures. rope.scaling.type goes before the first rope.scaling key. */
static const struct sl_key_tmpl common_keys[] = {
    {"block_count", SL_KV_U32, SL_N_LAYER, 0},
    {"context_length", SL_KV_U32, SL_N_CTX, 0},
    {"embedding_length", SL_KV_U32, SL_N_EMBD, 0},
    {"feed_forward_length", SL_KV_U32, SL_N_FF, 0},
    {"attention.head_count", SL_KV_U32, SL_N_HEAD, SL_KEY_HEADS},
    {"attention.head_count_kv", SL_KV_U32, SL_N_HEAD_KV, SL_KEY_CACHED_LAYERS},
    {"attention.causal", SL_KV_BOOL, SL_N_CAUSAL, 0},
    {"rope.scaling.factor", SL_KV_F32, SL_N_ROPE_FACTOR, 0},
    {"rope.scaling.original_context_length", SL_KV_U32, SL_N_ROPE_ORIG_CTX, 0},
    {"rope.scaling.yarn_ext_factor", SL_KV_F32, SL_N_YARN_EXT, 0},
    {"rope.scaling.yarn_attn_factor", SL_KV_F32, SL_N_YARN_ATTN, 0},
    {"rope.scaling.yarn_beta_fast", SL_KV_F32, SL_N_YARN_FAST, 0},
    {"rope.scaling.yarn_beta_slow", SL_KV_F32, SL_N_YARN_SLOW, 0},
    {"rope.dimension_sections", SL_KV_I32, SL_N_SECTIONS, SL_KEY_SECTIONS},
    {"rope.freq_base", SL_KV_F32, SL_N_ROPE_THETA, 0},
    {"rope.freq_base_swa", SL_KV_F32, SL_N_ROPE_THETA_WINDOW, 0},
    {"attention.layer_norm_rms_epsilon", SL_KV_F32, SL_N_RMS_EPS, 0},
    {"attention.layer_norm_epsilon", SL_KV_F32, SL_N_NORM_EPS, 0},
    {"expert_count", SL_KV_U32, SL_N_EXPERT, 0},
    {"expert_count", SL_KV_U32, SL_N_NO_EXPERT, 0},
    {"expert_used_count", SL_KV_U32, SL_N_EXPERT_USED, 0},
    {"expert_used_count", SL_KV_U32, SL_N_NO_EXPERT_USED, 0},
    {"expert_group_count", SL_KV_U32, SL_N_GROUP, 0},
    {"expert_group_used_count", SL_KV_U32, SL_N_GROUP_USED, 0},
    {"expert_gating_func", SL_KV_U32, SL_N_GATING, 0},
    {"attention.key_length", SL_KV_U32, SL_N_HEAD_DIM_K, 0},
    {"attention.value_length", SL_KV_U32, SL_N_HEAD_DIM_V, 0},
    SL_END_KEYS,
};

static const struct sl_key_tmpl usual_keys[] = {
    {"attention.key_length", SL_KV_U32, SL_N_KEY_LEN, 0},
    {"attention.value_length", SL_KV_U32, SL_N_VALUE_LEN, 0},
    {"leading_dense_block_count", SL_KV_U32, SL_N_DENSE, 0},
    {"vocab_size", SL_KV_U32, SL_N_VOCAB_KEY, 0},
    {"attention.q_lora_rank", SL_KV_U32, SL_N_Q_LORA, 0},
    {"attention.kv_lora_rank", SL_KV_U32, SL_N_KV_LORA, 0},
    {"attention.key_length", SL_KV_U32, SL_N_KEY_LEN_LATE, 0},
    {"attention.value_length", SL_KV_U32, SL_N_VALUE_LEN_LATE, 0},
    {"attention.key_length_mla", SL_KV_U32, SL_N_KEY_LEN_MLA, 0},
    {"attention.value_length_mla", SL_KV_U32, SL_N_VALUE_LEN_MLA, 0},
    {"expert_feed_forward_length", SL_KV_U32, SL_N_MOE_FF, 0},
    {"expert_shared_feed_forward_length", SL_KV_U32, SL_N_SHARED_FF_KEY, 0},
    {"expert_shared_count", SL_KV_U32, SL_N_SHARED, 0},
    {"expert_weights_scale", SL_KV_F32, SL_N_EXPERT_SCALE, 0},
    {"expert_weights_norm", SL_KV_BOOL, SL_N_EXPERT_NORM, 0},
    {"rope.dimension_count", SL_KV_U32, SL_N_ROPE_DIM, 0},
    {"rope.scaling.factor", SL_KV_F32, SL_N_ROPE_FACTOR_LATE, 0},
    {"rope.scaling.yarn_beta_fast", SL_KV_F32, SL_N_YARN_FAST_LATE, 0},
    {"rope.scaling.yarn_beta_slow", SL_KV_F32, SL_N_YARN_SLOW_LATE, 0},
    {"rope.scaling.yarn_log_multiplier", SL_KV_F32, SL_N_YARN_LOG, 0},
    {"rope.scaling.original_context_length", SL_KV_U32, SL_N_ROPE_ORIG_LATE, 0},
    {"attention.temperature_scale", SL_KV_F32, SL_N_TEMPERATURE, 0},
    {"attention.temperature_length", SL_KV_U32, SL_N_TEMPERATURE_LENGTH, 0},
    {"nextn_predict_layers", SL_KV_U32, SL_N_NEXTN, 0},
    {"attention.indexer.head_count", SL_KV_U32, SL_N_INDEX_HEADS, 0},
    {"attention.indexer.key_length", SL_KV_U32, SL_N_INDEX_DIM, 0},
    {"attention.indexer.top_k", SL_KV_U32, SL_N_INDEX_TOP, 0},
    SL_END_KEYS,
};

static int set_each_layer(const struct sl_params *p, const char *key, float v, struct sl_kvs *kvs)
{
    float values[SL_MAX_LAYER];
    uint64_t n = p->num[SL_N_LAYER].u;

    for (uint64_t i = 0; i < n; i++)
        values[i] = v;
    return sl_kvs_set_arr(kvs, key, SL_KV_F32, values, n);
}

/* One value, where all layers have a cache. */
static int set_cached_layers(const struct sl_params *p, const char *key, uint64_t v, struct sl_kvs *kvs)
{
    int32_t values[SL_MAX_LAYER];
    uint64_t n = p->num[SL_N_LAYER].u;

    if (!p->n_linear && !p->num[SL_N_HEAD_KV_WINDOW].have)
        return sl_kvs_set_u32(kvs, key, (uint32_t)v);
    for (uint64_t i = 0; i < n; i++)
        values[i] = p->linear[i] ? 0 : (int32_t)(p->kinds[i] & SL_LAYER_WINDOW ? p->num[SL_N_HEAD_KV_WINDOW].u : v);
    return sl_kvs_set_arr(kvs, key, SL_KV_I32, values, n);
}

static int set_windows(const struct sl_params *p, const char *key, enum sl_gguf_type type, struct sl_kvs *kvs)
{
    int32_t values[SL_MAX_LAYER];
    uint8_t bools[SL_MAX_LAYER];
    uint64_t n = p->num[p->num[SL_N_WINDOW_LIST].have ? SL_N_WINDOW_LIST : SL_N_LAYER].u;

    for (uint64_t i = 0; i < n; i++)
        values[i] = bools[i] = (p->kinds[i] & SL_LAYER_WINDOW) != 0;
    return sl_kvs_set_arr(kvs, key, type, type == SL_KV_BOOL ? (const void *)bools : values, n);
}

static int set_heads(const struct sl_params *p, const char *key, uint64_t v, struct sl_kvs *kvs)
{
    int32_t values[SL_MAX_LAYER];
    uint64_t n = p->num[SL_N_LAYER].u;

    if (!p->num[SL_N_HEAD_WINDOW].have)
        return sl_kvs_set_u32(kvs, key, (uint32_t)v);
    for (uint64_t i = 0; i < n; i++)
        values[i] = (int32_t)(p->kinds[i] & SL_LAYER_WINDOW ? p->num[SL_N_HEAD_WINDOW].u : v);
    return sl_kvs_set_arr(kvs, key, SL_KV_I32, values, n);
}

static int set_key(const struct sl_params *p, const struct sl_key_tmpl *k, struct sl_kvs *kvs,
                   struct sl_error *e)
{
    const struct sl_number *n = &p->num[k->num];
    char key[128];
    int rc;

    snprintf(key, sizeof key, "%s.%s", p->arch->name, k->key);
    if (k->form == SL_KEY_RATIOS)
        rc = sl_kvs_set_arr(kvs, key, SL_KV_I32, p->ratios, p->n_ratios);
    else if (k->form == SL_KEY_SECTIONS)
        rc = sl_kvs_set_arr(kvs, key, SL_KV_I32, p->sections, 4);
    else if (k->form == SL_KEY_EACH_LAYER)
        rc = set_each_layer(p, key, (float)n->f, kvs);
    else if (k->form == SL_KEY_CACHED_LAYERS)
        rc = set_cached_layers(p, key, n->u, kvs);
    else if (k->form == SL_KEY_WINDOWS)
        rc = set_windows(p, key, k->type, kvs);
    else if (k->form == SL_KEY_HEADS)
        rc = set_heads(p, key, n->u, kvs);
    else if (k->form == SL_KEY_CLAMPS)
        rc = sl_kvs_set_arr(kvs, key, SL_KV_F32, p->clamps[k->num == SL_N_CLAMPS_SHARED], p->num[SL_N_LAYER].u);
    else if (k->type == SL_KV_F32)
        rc = sl_kvs_set_f32(kvs, key, (float)n->f);
    else if (k->type == SL_KV_BOOL)
        rc = sl_kvs_set_bool(kvs, key, n->u != 0);
    else if (n->u > UINT32_MAX)
        return sl_fail(e, SL_ESOURCE, "config.json: %s would be %" PRIu64 ", which is more than 32 "
                       "bits hold", key, n->u);
    else
        rc = sl_kvs_set_u32(kvs, key, (uint32_t)n->u);
    return rc < 0 ? sl_fail(e, rc, "out of memory for the key %s", key) : 0;
}

static bool is_late(const struct sl_params *p, const struct sl_key_tmpl *k)
{
    for (const enum sl_num *n = p->arch->late; n && *n != SL_N_NONE; n++)
        if (*n == k->num)
            return true;
    return false;
}

/* Those of all are not the late ones. */
static int set_keys(const struct sl_params *p, const struct sl_key_tmpl *k, struct sl_kvs *kvs, struct sl_error *e)
{
    bool common = k == common_keys;
    char key[128];

    for (; k->key; k++) {
        if ((!p->num[k->num].have && k->form != SL_KEY_RATIOS) || (common && is_late(p, k)))
            continue;
        if (k->num == SL_N_ROPE_FACTOR || k->num == SL_N_ROPE_FACTOR_LATE) {
            snprintf(key, sizeof key, "%s.rope.scaling.type", p->arch->name);
            if (sl_kvs_set_str(kvs, key, p->rope_type) < 0)
                return sl_fail(e, SL_EFAIL, "out of memory for the key %s", key);
        }
        SL_TRY(set_key(p, k, kvs, e));
    }
    return 0;
}

int sl_arch_keys(const struct sl_params *p, struct sl_kvs *kvs, struct sl_error *e)
{
    char key[128];

    SL_TRY(set_keys(p, common_keys, kvs, e));
    SL_TRY(set_keys(p, p->arch->keys ? p->arch->keys : usual_keys, kvs, e));
    snprintf(key, sizeof key, "%s.%s", p->arch->name, p->arch->says_no_scaling ? "rope.scaling.type" : "attention.indexer.types");
    if ((p->arch->says_no_scaling && sl_kvs_set_str(kvs, key, "none") < 0) ||
        (p->n_indexer_types && sl_kvs_set_arr(kvs, key, SL_KV_BOOL, p->indexer_full, p->n_indexer_types) < 0))
        return sl_fail(e, SL_EFAIL, "out of memory for the key %s", key);
    return 0;
}

uint32_t sl_arch_layer_facts(const struct sl_params *p, uint64_t i)
{
    uint64_t step = p->num[SL_N_MOE_STEP].u;
    uint8_t kind = p->has_kinds ? p->kinds[i] : i < p->num[SL_N_DENSE].u || (step && (i + 1) % step) ? SL_LAYER_DENSE : 0;
    bool dense = !p->num[SL_N_EXPERT].have || (kind & SL_LAYER_DENSE);
    bool shared = i < p->n_indexer_types && !p->indexer_full[i], hashed = i < p->num[SL_N_HASHED].u;
    int32_t ratio = i < p->n_ratios ? p->ratios[i] : 0;
    bool nextn = i + p->num[SL_N_NEXTN].u >= p->num[SL_N_LAYER].u, every = p->num[SL_N_FULL_EVERY].have;
    bool linear = p->n_linear ? p->linear[i] : every && !nextn && (i + 1) % p->num[SL_N_FULL_EVERY].u != 0;

    return (p->when & ~(shared ? (uint32_t)SL_W_INDEXER : 0) & ~(hashed ? (uint32_t)SL_W_CORR : 0)) | SL_W_LAYER |
           (dense ? SL_W_DENSE : SL_W_MOE) | (hashed ? SL_W_HASHED : 0) |
           (ratio == SL_FINE ? SL_W_FINE : ratio ? SL_W_COARSE : 0) |
           (linear ? SL_W_LINEAR : kind & SL_LAYER_WINDOW ? SL_W_WINDOW : SL_W_FULL) |
           (kind & SL_LAYER_SINKS ? SL_W_SINKS : 0) | (nextn ? SL_W_NEXTN : SL_W_TRUNK);
}

static size_t put_number(char buf[20], uint64_t v)
{
    char rev[20];
    size_t n = 0;

    do
        rev[n++] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    for (size_t i = 0; i < n; i++)
        buf[i] = rev[n - 1 - i];
    return n;
}

bool sl_arch_name(char *buf, size_t cap, const char *tmpl, uint64_t i, uint64_t e)
{
    size_t at = 0;

    for (const char *s = tmpl; *s;) {
        char digits[20];
        size_t n = 1;
        const char *from = s;

        if (strncmp(s, "{f}", 3) == 0) {
            from = e == 0 ? "norm" : "proj";
            n = 4;
            s += 3;
        } else if (strncmp(s, "{i}", 3) == 0 || strncmp(s, "{e}", 3) == 0) {
            n = put_number(digits, s[1] == 'i' ? i : e);
            from = digits;
            s += 3;
        } else {
            s++;
        }
        if (n >= cap - at)
            return false;
        memcpy(buf + at, from, n);
        at += n;
    }
    buf[at] = '\0';
    return true;
}

bool sl_arch_in_layer(const char *name, const char *prefix, uint64_t *i, const char **rest)
{
    size_t n = strlen(prefix);
    const char *s = name + n;

    if (strncmp(name, prefix, n) != 0 || *s < '0' || *s > '9')
        return false;
    for (*i = 0; *s >= '0' && *s <= '9' && *i < UINT32_MAX; s++)
        *i = *i * 10 + (uint64_t)(*s - '0');
    *rest = s;
    return true;
}

bool sl_arch_drops(const struct sl_params *p, const char *name)
{
    const char *rest;
    uint64_t i;

    if (sl_ends_with(name, ".attention.masked_bias") || sl_ends_with(name, ".attention.bias") ||
        sl_ends_with(name, ".rotary_emb.inv_freq"))
        return true;
    if (p->arch->drops)
        return p->arch->drops(p, name);
    if (strcmp(name, "lm_head.weight") == 0)
        return p->tied && !p->arch->output_if_there;
    return (p->arch->drops_mtp || p->no_mtp) && sl_arch_in_layer(name, "model.layers.", &i, &rest) && i >= p->num[SL_N_LAYER].u;
}

bool sl_arch_sees(const struct sl_params *p, const char *name)
{
    static const char *const parts[] = {"vision_tower.", "mm_projector.", "multi_modal_projector.", "patch_merge_mlp.",
                                        "model.visual.", "visual.", "audio_encoder.", "speech_embeddings.",
                                        "vision_encoder.", "vision_language_adapter.", "patch_merger.", "pre_mm_projector_norm.",
                                        "model.vision_model.", "vision_model.", "model.vit_large_projector.", "vit_large_projector."};

    for (size_t i = 0; i < sizeof parts / sizeof *parts && p->vision; i++)
        if (strncmp(name, parts[i], strlen(parts[i])) == 0)
            return true;
    return false;
}

bool sl_arch_is_router(const char *name)
{
    return sl_ends_with(name, "ffn_gate_inp.weight");
}

bool sl_arch_keeps_f32(const char *name, uint32_t n_dims)
{
    return n_dims <= 1 || !sl_ends_with(name, "weight") || sl_ends_with(name, "_norm.weight") || sl_arch_is_router(name) ||
           sl_ends_with(name, ".indexer.q_proj.weight") || sl_ends_with(name, ".indexer.k_proj.weight") ||
           sl_ends_with(name, ".ffn_gate_inp_shexp.weight") || strstr(name, ".ssm_conv1d") != NULL;
}

bool sl_arch_outtype_f32(const char *name)
{
    return sl_ends_with(name, ".indexer.proj.weight");
}
