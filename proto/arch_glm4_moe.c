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
    SL_VECTOR("blk.{i}.post_attention_norm.weight", OF_LAYER "post_attention_layernorm.weight", SL_W_LAYER, EMBD),
    SL_END_TENSORS,
};

/* In FP8 the second head ships with scales; the matrix before that layer is one that "ignore" names. */
static const struct sl_tensor_tmpl nextn[] = {
    SL_MATRIX("blk.{i}.nextn.eh_proj.weight", OF_LAYER "eh_proj.weight", NEXTN, EMBD, TWO_EMBD),
    SL_VECTOR("blk.{i}.nextn.enorm.weight", OF_LAYER "enorm.weight", NEXTN, EMBD),
    SL_VECTOR("blk.{i}.nextn.hnorm.weight", OF_LAYER "hnorm.weight", NEXTN, EMBD),
    SL_TENSOR("blk.{i}.nextn.embed_tokens.weight", OF_LAYER "embed_tokens.weight", NEXTN | SL_W_OPTIONAL, VOCAB, EMBD, BASE),
    SL_MATRIX("blk.{i}.nextn.shared_head_head.weight", OF_LAYER "shared_head.head.weight", NEXTN | SL_W_OPTIONAL, VOCAB, EMBD),
    SL_VECTOR("blk.{i}.nextn.shared_head_norm.weight", OF_LAYER "shared_head.norm.weight", NEXTN | SL_W_OPTIONAL, EMBD),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl *const tensors[] = {
    sl_arch_common_tensors, sl_arch_attention_tensors, norm, sl_arch_dense_tensors, sl_arch_expert_tensors, nextn, NULL,
};

static const struct sl_field moe_fields[] = {
    SL_MAY(EXPERT, "n_routed_experts"), SL_MAY(EXPERT_USED, "num_experts_per_tok"), SL_MAY(SHARED, "n_shared_experts"),
    SL_MAY(MOE_FF, "moe_intermediate_size"), SL_MAY(DENSE, "first_k_dense_replace"), SL_MAY(GROUP, "n_group"),
    SL_MAY(GROUP_USED, "topk_group"), SL_MAY(EXPERT_SCALE, "routed_scaling_factor"), SL_MAY(EXPERT_NORM, "norm_topk_prob"),
    SL_MAY(NEXTN, "num_nextn_predict_layers"), SL_END_FIELDS,
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

const struct sl_arch sl_arch_glm4_moe = {
    .name = "glm4moe",
    .classes = SL_CLASSES("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, moe_fields),
    .tensors = tensors,
    .keys = SL_KEYS(SL_N_ROPE_DIM, SL_N_MOE_FF, SL_N_SHARED, SL_N_DENSE, SL_N_GATING_LATE, SL_N_EXPERT_SCALE, SL_N_EXPERT_NORM,
                    SL_N_NEXTN),
    .derive = derive,
    .tokens = SL_TOKENS_GLM,
    .output_if_there = true,
};

/* Its newer configuration class has no width of dense layers, of which there are none. */
static const struct sl_field solar_fields[] = {
    SL_NEED(CTX, "max_position_embeddings"), SL_MAY(FF, "intermediate_size"), SL_MAY(HEAD_KV, "num_key_value_heads"),
    SL_NEED(RMS_EPS, "rms_norm_eps"), SL_MAY(HEAD_DIM, "head_dim"), SL_END_FIELDS,
};

const struct sl_arch sl_arch_solar_open = {
    .name = "glm4moe",
    .classes = SL_CLASSES("SolarOpenForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, solar_fields, moe_fields),
    .tensors = tensors,
    .keys = SL_KEYS(SL_N_ROPE_DIM, SL_N_MOE_FF, SL_N_SHARED, SL_N_DENSE, SL_N_GATING_LATE, SL_N_EXPERT_SCALE, SL_N_EXPERT_NORM,
                    SL_N_NEXTN),
    .derive = derive,
    .tokens = SL_TOKENS_SOLAR,
    .output_if_there = true,
};
