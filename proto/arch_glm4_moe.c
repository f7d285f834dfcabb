/* GLM-4.5, 4.5-Air, 4.6, 4.7: attention with plain heads, biases on q, k and v, norms on the heads of
 * q and k (not in 4.5-Air); many experts, routed by sigmoid, and a shared one; a layer for multi-token
 * prediction, kept behind the others. No permutation. GLM-4.5V and 4.6V: the same within a model that sees, the rotary
 * embedding in sections, without that layer. Solar-Open: the same without biases and norms on heads, with a tokenizer of its own. */
#include "proto/arch_table.h"

#include <math.h>
#include <string.h>

#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."

static const struct sl_tensor_tmpl norm[] = {
    {"blk.{i}.post_attention_norm.weight", OF_LAYER "post_attention_layernorm.weight", SL_W_LAYER, SL_N_NONE, SL_N_EMBD, 0,
     SL_SHIP_BASE, 0},
    SL_END_TENSORS,
};

/* In FP8 the second head ships with scales; the matrix before that layer is one that "ignore" names. */
static const struct sl_tensor_tmpl nextn[] = {
    {"blk.{i}.nextn.eh_proj.weight", OF_LAYER "eh_proj.weight", NEXTN, SL_N_EMBD, SL_N_TWO_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.nextn.enorm.weight", OF_LAYER "enorm.weight", NEXTN, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.nextn.hnorm.weight", OF_LAYER "hnorm.weight", NEXTN, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.nextn.embed_tokens.weight", OF_LAYER "embed_tokens.weight", NEXTN | SL_W_OPTIONAL, SL_N_VOCAB, SL_N_EMBD,
     0, SL_SHIP_BASE, 0},
    {"blk.{i}.nextn.shared_head_head.weight", OF_LAYER "shared_head.head.weight", NEXTN | SL_W_OPTIONAL, SL_N_VOCAB,
     SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.nextn.shared_head_norm.weight", OF_LAYER "shared_head.norm.weight", NEXTN | SL_W_OPTIONAL, SL_N_NONE,
     SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl *const tensors[] = {
    sl_arch_common_tensors, sl_arch_attention_tensors, norm, sl_arch_dense_tensors, sl_arch_expert_tensors, nextn, NULL,
};

static const struct sl_field moe_fields[] = {
    {SL_N_EXPERT, "n_routed_experts", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT_USED, "num_experts_per_tok", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_SHARED, "n_shared_experts", SL_FIELD_INT, false, 1, 1 << 10, NAN},
    {SL_N_MOE_FF, "moe_intermediate_size", SL_FIELD_INT, false, 1, 1 << 24, NAN},
    {SL_N_DENSE, "first_k_dense_replace", SL_FIELD_INT, false, 0, SL_MAX_LAYER, NAN},
    {SL_N_GROUP, "n_group", SL_FIELD_INT, false, 1, 1 << 16, NAN},
    {SL_N_GROUP_USED, "topk_group", SL_FIELD_INT, false, 1, 1 << 16, NAN},
    {SL_N_EXPERT_SCALE, "routed_scaling_factor", SL_FIELD_FLOAT, false, -1e6, 1e6, NAN},
    {SL_N_EXPERT_NORM, "norm_topk_prob", SL_FIELD_BOOL, false, 0, 1, NAN},
    {SL_N_NEXTN, "num_nextn_predict_layers", SL_FIELD_INT, false, 0, 64, NAN},
    SL_END_FIELDS,
};

/* What the configuration classes take for what is absent; those that see have biases, too. Returns whether. */
static bool take_class_defaults(struct sl_params *p)
{
    static const struct { enum sl_num num; double v; } missing[] = {
        {SL_N_HEAD_KV, 8}, {SL_N_RMS_EPS, 1e-5}, {SL_N_EXPERT, 128}, {SL_N_EXPERT_USED, 8},
        {SL_N_SHARED, 1}, {SL_N_MOE_FF, 1408}, {SL_N_DENSE, 1}, {SL_N_GROUP, 1}, {SL_N_GROUP_USED, 1},
        {SL_N_EXPERT_SCALE, 1}, {SL_N_EXPERT_NORM, 1},
    };
    const char *type = sl_config_str(p->config, "model_type");

    bool sees = type && strcmp(type, "glm4v_moe") == 0;

    if (!sees && !(type && strcmp(type, "glm4_moe") == 0))
        return false;
    sl_field_default(p, SL_N_CTX, sees ? 65536 : 131072);
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        sl_field_default(p, missing[i].num, missing[i].v);
    return sees;
}

static int derive_experts(struct sl_params *p, struct sl_error *e)
{
    static const enum sl_num needed[] = {SL_N_EXPERT, SL_N_EXPERT_USED, SL_N_SHARED, SL_N_MOE_FF};

    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        SL_TRY(sl_arch_need(p, needed[i], e));
    SL_TRY(sl_arch_check_experts(p, e));
    p->when |= SL_W_CORR | SL_W_SHARED;
    return sl_num_mul(p, SL_N_SHARED_FF, p->num[SL_N_SHARED].u, p->num[SL_N_MOE_FF].u, e);
}

/* The key stands where the converter meets the entry, or comes later where there is none. */
static int derive_routing(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_only(p, "scoring_func", "sigmoid", false, e));
    sl_num_set(p, sl_config_str(p->config, "scoring_func") ? SL_N_GATING : SL_N_GATING_LATE, 2);
    return 0;
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    bool biases = take_class_defaults(p);

    SL_TRY(sl_arch_plain_attention(p, e));
    SL_TRY(sl_arch_half_rope(p, e));
    SL_TRY(sl_arch_sections(p, e));
    if (p->num[SL_N_DENSE].u)
        SL_TRY(sl_arch_need(p, SL_N_FF, e));
    SL_TRY(derive_experts(p, e));
    SL_TRY(derive_routing(p, e));
    if (sl_config_bool(p->config, "attention_bias", biases))
        p->when |= SL_W_BIAS;
    if (sl_config_bool(p->config, "use_qk_norm", false))
        p->when |= SL_W_HEAD_NORM;
    sl_arch_keep_mtp(p);
    return 0;
}

static const struct sl_key_tmpl keys[] = {
    {"rope.dimension_count", SL_KV_U32, SL_N_ROPE_DIM, 0},
    {"expert_feed_forward_length", SL_KV_U32, SL_N_MOE_FF, 0},
    {"expert_shared_count", SL_KV_U32, SL_N_SHARED, 0},
    {"leading_dense_block_count", SL_KV_U32, SL_N_DENSE, 0},
    {"expert_gating_func", SL_KV_U32, SL_N_GATING_LATE, 0},
    {"expert_weights_scale", SL_KV_F32, SL_N_EXPERT_SCALE, 0},
    {"expert_weights_norm", SL_KV_BOOL, SL_N_EXPERT_NORM, 0},
    {"nextn_predict_layers", SL_KV_U32, SL_N_NEXTN, 0},
    SL_END_KEYS,
};

static const char *const classes[] = {"Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration", NULL};
static const char *const solar_classes[] = {"SolarOpenForCausalLM", NULL};

const struct sl_arch sl_arch_glm4_moe = {
    .name = "glm4moe",
    .classes = classes,
    .fields = sl_arch_plain_fields,
    .more_fields = moe_fields,
    .tensors = tensors,
    .keys = keys,
    .derive = derive,
    .tokens = SL_TOKENS_GLM,
    .output_if_there = true,
};

/* Its newer configuration class has no width of dense layers, of which there are none. */
static const struct sl_field solar_fields[] = {
    {SL_N_LAYER, "num_hidden_layers", SL_FIELD_INT, true, 1, SL_MAX_LAYER, 0},
    {SL_N_CTX, "max_position_embeddings", SL_FIELD_INT, true, 1, UINT32_MAX, 0},
    {SL_N_EMBD, "hidden_size", SL_FIELD_INT, true, 1, 1 << 22, 0},
    {SL_N_FF, "intermediate_size", SL_FIELD_INT, false, 1, 1 << 24, NAN},
    {SL_N_HEAD, "num_attention_heads", SL_FIELD_INT, true, 1, 1 << 14, 0},
    {SL_N_HEAD_KV, "num_key_value_heads", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_VOCAB, "vocab_size", SL_FIELD_INT, true, 1, SL_MAX_VOCAB, 0},
    {SL_N_RMS_EPS, "rms_norm_eps", SL_FIELD_FLOAT, true, 0, 1, 0},
    {SL_N_HEAD_DIM, "head_dim", SL_FIELD_INT, false, 1, 1 << 16, NAN},
    SL_END_FIELDS,
};

const struct sl_arch sl_arch_solar_open = {
    .name = "glm4moe",
    .classes = solar_classes,
    .fields = solar_fields,
    .more_fields = moe_fields,
    .tensors = tensors,
    .keys = keys,
    .derive = derive,
    .tokens = SL_TOKENS_SOLAR,
    .output_if_there = true,
};
