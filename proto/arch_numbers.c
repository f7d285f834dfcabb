/* What each number is, whatever the architecture: its key, and the bounds that config.json's entry is held to; and the keys as they
 * are written. */
#include "proto/arch_table.h"

#include <inttypes.h>
#include <stdio.h>

/* How a key's value is made of the number, where it is not that itself. */
enum form {
    ONE,
    HEADS,    /* those of each layer where SL_N_HEAD_WINDOW is known */
    CACHED,   /* 0 for layers without a cache, and keys' heads of each layer where sl_params.kinds are known; one value where all
                 layers have as many */
    SECTIONS, /* sl_params.sections */
    WINDOWS,  /* of the first layers, as many as the number says: 1 for those of a window, 0 for the others */
    CLAMPS,   /* sl_params.clamps */
    RATIOS,   /* sl_params.ratios */
    INDEXERS, /* sl_params.indexer_full */
    NO_WORD,  /* "none" */
};

#define INT(key, min, max) {{SL_KV_U32, min, max}, key, ONE}
#define NUM(key, min, max) {{SL_KV_F32, min, max}, key, ONE}
#define BOOL(key) {{SL_KV_BOOL, 0, 1}, key, ONE}
#define MADE(key, type, form) {{type, 0, 0}, key, form} /* computed, or read by code of its own */
#define SIZE(min, max) {{SL_KV_U32, min, max}, NULL, ONE} /* in no key */

static const struct {
    struct sl_bounds bounds;
    const char *key; /* after "<architecture>."; NULL: it has none */
    enum form form;
} numbers[SL_N_COUNT] = {
    [SL_N_LAYER] = INT("block_count", 1, SL_MAX_LAYER),
    [SL_N_CTX] = INT("context_length", 1, UINT32_MAX),
    [SL_N_EMBD] = INT("embedding_length", 1, 1 << 22),
    [SL_N_FF] = INT("feed_forward_length", 1, 1 << 24),
    [SL_N_HEAD] = {{SL_KV_U32, 1, 1 << 14}, "attention.head_count", HEADS},
    [SL_N_HEAD_KV] = {{SL_KV_U32, 1, 1 << 14}, "attention.head_count_kv", CACHED},
    [SL_N_HEAD_KV_SRC] = SIZE(1, 1 << 14),
    [SL_N_HEAD_WINDOW] = SIZE(1, 1 << 14),
    [SL_N_HEAD_KV_WINDOW] = SIZE(1, 1 << 14),
    [SL_N_HEAD_DIM] = SIZE(1, 1 << 16),
    [SL_N_V_DIM] = SIZE(1, 1 << 16),
    [SL_N_NOPE] = SIZE(1, 1 << 16),
    [SL_N_VOCAB] = INT("vocab_size", 1, SL_MAX_VOCAB),
    [SL_N_CAUSAL] = BOOL("attention.causal"),
    [SL_N_RMS_EPS] = NUM("attention.layer_norm_rms_epsilon", 0, 1),
    [SL_N_RMS_EPS_LATE] = NUM("attention.layer_norm_rms_epsilon", 0, 1),
    [SL_N_NORM_EPS] = MADE("attention.layer_norm_epsilon", SL_KV_F32, ONE),
    [SL_N_HEAD_DIM_K] = MADE("attention.key_length", SL_KV_U32, ONE),
    [SL_N_HEAD_DIM_V] = MADE("attention.value_length", SL_KV_U32, ONE),
    [SL_N_WINDOW] = INT("attention.sliding_window", 1, UINT32_MAX),
    [SL_N_WINDOW_LIST] = MADE("attention.sliding_window_pattern", SL_KV_BOOL, WINDOWS),
    [SL_N_WINDOW_INTS] = MADE("attention.sliding_window_pattern", SL_KV_I32, WINDOWS),
    [SL_N_VALUE_SCALE] = NUM("attention.value_scale", 1e-6, 1e6),
    [SL_N_DEEPSTACK] = MADE("n_deepstack_layers", SL_KV_U32, ONE),
    [SL_N_NEXTN] = INT("nextn_predict_layers", 0, 64),

    /* the rotary embedding */
    [SL_N_ROPE_DIM] = INT("rope.dimension_count", 1, 1 << 16),
    [SL_N_ROPE_THETA] = MADE("rope.freq_base", SL_KV_F32, ONE),
    [SL_N_ROPE_THETA_WINDOW] = MADE("rope.freq_base_swa", SL_KV_F32, ONE),
    [SL_N_SECTIONS] = MADE("rope.dimension_sections", SL_KV_I32, SECTIONS),
    [SL_N_SECTIONS_LATE] = MADE("rope.dimension_sections", SL_KV_I32, SECTIONS),
    [SL_N_NO_SCALING] = MADE("rope.scaling.type", SL_KV_STR, NO_WORD),
    [SL_N_ROPE_FACTOR] = MADE("rope.scaling.factor", SL_KV_F32, ONE),
    [SL_N_ROPE_FACTOR_LATE] = NUM("rope.scaling.factor", 1e-6, 1e6),
    [SL_N_ROPE_ORIG_CTX] = MADE("rope.scaling.original_context_length", SL_KV_U32, ONE),
    [SL_N_ROPE_ORIG_LATE] = INT("rope.scaling.original_context_length", 1, UINT32_MAX),
    [SL_N_YARN_EXT] = MADE("rope.scaling.yarn_ext_factor", SL_KV_F32, ONE),
    [SL_N_YARN_ATTN] = MADE("rope.scaling.yarn_attn_factor", SL_KV_F32, ONE),
    [SL_N_YARN_FAST] = MADE("rope.scaling.yarn_beta_fast", SL_KV_F32, ONE),
    [SL_N_YARN_SLOW] = MADE("rope.scaling.yarn_beta_slow", SL_KV_F32, ONE),
    [SL_N_YARN_FAST_LATE] = NUM("rope.scaling.yarn_beta_fast", 0, 1e6),
    [SL_N_YARN_SLOW_LATE] = NUM("rope.scaling.yarn_beta_slow", 0, 1e6),
    [SL_N_YARN_LOG] = MADE("rope.scaling.yarn_log_multiplier", SL_KV_F32, ONE),
    [SL_N_TEMPERATURE] = NUM("attention.temperature_scale", -1e6, 1e6),
    [SL_N_TEMPERATURE_LENGTH] = MADE("attention.temperature_length", SL_KV_U32, ONE),

    /* experts */
    [SL_N_EXPERT] = INT("expert_count", 1, 1 << 14),
    [SL_N_NO_EXPERT] = MADE("expert_count", SL_KV_U32, ONE),
    [SL_N_EXPERT_USED] = INT("expert_used_count", 1, 1 << 14),
    [SL_N_NO_EXPERT_USED] = MADE("expert_used_count", SL_KV_U32, ONE),
    [SL_N_GROUP] = INT("expert_group_count", 1, 1 << 14),
    [SL_N_GROUP_USED] = INT("expert_group_used_count", 1, 1 << 14),
    [SL_N_GATING] = MADE("expert_gating_func", SL_KV_U32, ONE),
    [SL_N_GATING_LATE] = MADE("expert_gating_func", SL_KV_U32, ONE),
    [SL_N_DENSE] = INT("leading_dense_block_count", 0, SL_MAX_LAYER),
    [SL_N_MOE_STEP] = INT("interleave_moe_layer_step", 1, SL_MAX_LAYER),
    [SL_N_MOE_EVERY] = INT("moe_every_n_layers", 0, UINT32_MAX),
    [SL_N_MOE_FF] = INT("expert_feed_forward_length", 1, 1 << 24),
    [SL_N_SHARED] = INT("expert_shared_count", 1, 1 << 10),
    [SL_N_SHARED_FF_KEY] = INT("expert_shared_feed_forward_length", 1, 1 << 24),
    [SL_N_EXPERT_SCALE] = NUM("expert_weights_scale", -1e6, 1e6),
    [SL_N_EXPERT_NORM] = BOOL("expert_weights_norm"),
    [SL_N_LATENT_KEY] = INT("expert_latent_length", 1, 1 << 22),
    [SL_N_HASHED] = INT("hash_layer_count", 0, SL_MAX_LAYER),
    [SL_N_CLAMP] = {{SL_KV_F32, 0, 1e6}, NULL, ONE},
    [SL_N_CLAMPS] = MADE("swiglu_clamp_exp", SL_KV_F32, CLAMPS),
    [SL_N_CLAMPS_SHARED] = MADE("swiglu_clamp_shexp", SL_KV_F32, CLAMPS),
    [SL_N_SITU_BETA] = NUM("activation.situ_beta", -1e6, 1e6),
    [SL_N_SITU_LINEAR_BETA] = NUM("activation.situ_linear_beta", -1e6, 1e6),

    /* latent attention, and indexers */
    [SL_N_Q_LORA] = INT("attention.q_lora_rank", 1, 1 << 20),
    [SL_N_KV_LORA] = INT("attention.kv_lora_rank", 1, 1 << 20),
    [SL_N_KEY_LEN] = MADE("attention.key_length", SL_KV_U32, ONE),
    [SL_N_VALUE_LEN] = MADE("attention.value_length", SL_KV_U32, ONE),
    [SL_N_KEY_LEN_LATE] = MADE("attention.key_length", SL_KV_U32, ONE),
    [SL_N_VALUE_LEN_LATE] = MADE("attention.value_length", SL_KV_U32, ONE),
    [SL_N_KEY_LEN_MLA] = MADE("attention.key_length_mla", SL_KV_U32, ONE),
    [SL_N_VALUE_LEN_MLA] = MADE("attention.value_length_mla", SL_KV_U32, ONE),
    [SL_N_INDEX_HEADS] = INT("attention.indexer.head_count", 1, 1 << 14),
    [SL_N_INDEX_DIM] = INT("attention.indexer.key_length", 1, 1 << 16),
    [SL_N_INDEX_TOP] = INT("attention.indexer.top_k", 1, UINT32_MAX),
    [SL_N_INDEX_BLOCK] = INT("attention.indexer.block_size", 1, UINT32_MAX),
    [SL_N_INDEX_LOCAL] = INT("attention.indexer.local_blocks", 0, UINT32_MAX),
    [SL_N_INDEXERS] = MADE("attention.indexer.types", SL_KV_BOOL, INDEXERS),

    /* linear attention, and what else one family has */
    [SL_N_CONV] = INT("ssm.conv_kernel", 1, 1 << 8),
    [SL_N_LINEAR_DIM] = INT("ssm.state_size", 1, 1 << 12),
    [SL_N_LINEAR_V_DIM] = SIZE(1, 1 << 12),
    [SL_N_LINEAR_KEYS] = INT("ssm.group_count", 1, 1 << 12),
    [SL_N_LINEAR_VALUES] = INT("ssm.time_step_rank", 1, 1 << 12),
    [SL_N_LINEAR_ROWS] = MADE("ssm.inner_size", SL_KV_U32, ONE),
    [SL_N_FULL_EVERY] = INT("full_attention_interval", 1, SL_MAX_LAYER),
    [SL_N_KDA_DIM] = MADE("kda.head_dim", SL_KV_U32, ONE),
    [SL_N_KDA_BOUND] = MADE("kda.gate_lower_bound", SL_KV_F32, ONE),
    [SL_N_RES_BLOCK] = INT("attn_res.block_size", 1, UINT32_MAX),
    [SL_N_OUT_GROUP] = INT("attention.output_group_count", 1, 1 << 14),
    [SL_N_OUT_LORA] = INT("attention.output_lora_rank", 1, 1 << 20),
    [SL_N_RATIOS] = MADE("attention.compress_ratios", SL_KV_I32, RATIOS),
    [SL_N_COMPRESS_THETA] = NUM("attention.compress_rope_freq_base", 1, 1e12),
    [SL_N_HC] = INT("hyper_connection.count", 1, 1 << 6),
    [SL_N_HC_ITER] = INT("hyper_connection.sinkhorn_iterations", 0, UINT32_MAX),
    [SL_N_HC_EPS] = NUM("hyper_connection.epsilon", 0, 1),
    [SL_N_EMBD_OUT] = MADE("embedding_length_out", SL_KV_U32, ONE),
};

/* The converter's order. Numbers with one key belong to different architectures, or places. */
static const enum sl_num common[] = {
    SL_N_LAYER, SL_N_CTX, SL_N_EMBD, SL_N_FF, SL_N_HEAD, SL_N_HEAD_KV, SL_N_CAUSAL, SL_N_ROPE_FACTOR, SL_N_ROPE_ORIG_CTX, SL_N_YARN_EXT,
    SL_N_YARN_ATTN, SL_N_YARN_FAST, SL_N_YARN_SLOW, SL_N_SECTIONS, SL_N_ROPE_THETA, SL_N_ROPE_THETA_WINDOW, SL_N_RMS_EPS, SL_N_NORM_EPS,
    SL_N_EXPERT, SL_N_NO_EXPERT, SL_N_EXPERT_USED, SL_N_NO_EXPERT_USED, SL_N_GROUP, SL_N_GROUP_USED, SL_N_GATING, SL_N_HEAD_DIM_K,
    SL_N_HEAD_DIM_V, SL_N_NONE,
};

const struct sl_bounds *sl_num_bounds(enum sl_num n)
{
    return &numbers[n].bounds;
}

/* A value for each layer: v, or for those of a window the number `near`, and 0 where there is no cache. */
static int set_layers(const struct sl_params *p, const char *key, uint64_t v, enum sl_num near, bool cached, struct sl_kvs *kvs)
{
    int32_t values[SL_MAX_LAYER];
    uint64_t n = p->num[SL_N_LAYER].u;

    for (uint64_t i = 0; i < n; i++)
        values[i] = cached && p->linear[i] ? 0 : (int32_t)(p->kinds[i] & SL_LAYER_WINDOW ? p->num[near].u : v);
    return sl_kvs_set_arr(kvs, key, SL_KV_I32, values, n);
}

static int set_windows(const struct sl_params *p, const char *key, enum sl_gguf_type type, uint64_t n, struct sl_kvs *kvs)
{
    int32_t values[SL_MAX_LAYER];
    uint8_t bools[SL_MAX_LAYER];

    for (uint64_t i = 0; i < n; i++)
        values[i] = bools[i] = (p->kinds[i] & SL_LAYER_WINDOW) != 0;
    return sl_kvs_set_arr(kvs, key, type, type == SL_KV_BOOL ? (const void *)bools : values, n);
}

static int set_one(const char *key, enum sl_gguf_type type, const struct sl_number *n, struct sl_kvs *kvs)
{
    return type == SL_KV_F32    ? sl_kvs_set_f32(kvs, key, (float)n->f)
           : type == SL_KV_BOOL ? sl_kvs_set_bool(kvs, key, n->u != 0)
                                : sl_kvs_set_u32(kvs, key, (uint32_t)n->u);
}

static int set_form(const struct sl_params *p, enum sl_num num, const char *key, struct sl_kvs *kvs)
{
    const struct sl_number *n = &p->num[num];
    enum sl_gguf_type type = numbers[num].bounds.type;

    switch (numbers[num].form) {
    case HEADS:
        if (p->num[SL_N_HEAD_WINDOW].have)
            return set_layers(p, key, n->u, SL_N_HEAD_WINDOW, false, kvs);
        break;
    case CACHED:
        if (p->n_linear || p->num[SL_N_HEAD_KV_WINDOW].have)
            return set_layers(p, key, n->u, SL_N_HEAD_KV_WINDOW, true, kvs);
        break;
    case SECTIONS:
        return sl_kvs_set_arr(kvs, key, type, p->sections, 4);
    case WINDOWS:
        return set_windows(p, key, type, n->u, kvs);
    case CLAMPS:
        return sl_kvs_set_arr(kvs, key, type, p->clamps[num == SL_N_CLAMPS_SHARED], p->num[SL_N_LAYER].u);
    case RATIOS:
        return sl_kvs_set_arr(kvs, key, type, p->ratios, p->n_ratios);
    case INDEXERS:
        return sl_kvs_set_arr(kvs, key, type, p->indexer_full, p->n_indexer_types);
    case NO_WORD:
        return sl_kvs_set_str(kvs, key, "none");
    case ONE:
        break;
    }
    return set_one(key, type, n, kvs);
}

static int set_key(const struct sl_params *p, enum sl_num num, struct sl_kvs *kvs, struct sl_error *e)
{
    const struct sl_number *n = &p->num[num];
    char key[128];
    int rc = 0;

    if (num == SL_N_ROPE_FACTOR || num == SL_N_ROPE_FACTOR_LATE) { /* the type goes before it */
        snprintf(key, sizeof key, "%s.rope.scaling.type", p->arch->name);
        rc = sl_kvs_set_str(kvs, key, p->rope_type);
    }
    snprintf(key, sizeof key, "%s.%s", p->arch->name, numbers[num].key);
    if (n->u > UINT32_MAX && numbers[num].bounds.type == SL_KV_U32)
        return sl_fail(e, SL_ESOURCE, "config.json: %s would be %" PRIu64 ", which is more than 32 bits hold", key, n->u);
    rc = rc < 0 ? rc : set_form(p, num, key, kvs);
    return rc < 0 ? sl_fail(e, rc, "out of memory for the key %s", key) : 0;
}

static bool is_among(enum sl_num num, const enum sl_num *keys)
{
    while (keys && *keys != SL_N_NONE && *keys != num)
        keys++;
    return keys && *keys == num;
}

int sl_arch_keys(const struct sl_params *p, struct sl_kvs *kvs, struct sl_error *e)
{
    for (const enum sl_num *k = common; *k != SL_N_NONE; k++)
        if (p->num[*k].have && !is_among(*k, p->arch->keys))
            SL_TRY(set_key(p, *k, kvs, e));
    for (const enum sl_num *k = p->arch->keys; k && *k != SL_N_NONE; k++)
        if (p->num[*k].have)
            SL_TRY(set_key(p, *k, kvs, e));
    return 0;
}
