/* Ling 2.0 and Ring (Ling-1T, Ling-flash-2.0, Ling-mini-2.0): q, k and v in one matrix, norms on the heads of q and k, rotary
 * embedding of a half of each head; many experts in groups, routed by sigmoid with a bias, and a shared one; a layer for
 * multi-token prediction, kept behind the others. No permutation. transformers has no configuration class of them, so that
 * nothing is taken for an entry that is not there. */
#include "proto/arch_table.h"

#include <math.h>
#include <string.h>

#define L SL_W_LAYER
#define MOE (SL_W_LAYER | SL_W_MOE)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."
#define ATTN "model.layers.{i}.attention."

static const struct sl_tensor_tmpl own[] = {
    {"token_embd.weight", "model.word_embeddings.weight", 0, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output_norm.weight", "model.norm.weight", 0, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output.weight", "lm_head.weight", 0, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_norm.weight", OF_LAYER "input_layernorm.weight", L, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_qkv.weight", ATTN "query_key_value.weight", L, SL_N_QKV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_q_norm.weight", ATTN "query_layernorm.weight", L, SL_N_NONE, SL_N_HEAD_DIM, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_k_norm.weight", ATTN "key_layernorm.weight", L, SL_N_NONE, SL_N_HEAD_DIM, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_output.weight", ATTN "dense.weight", L, SL_N_EMBD, SL_N_Q_ROWS, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.exp_probs_b.bias", OF_LAYER "mlp.gate.expert_bias", MOE, SL_N_NONE, SL_N_EXPERT, 0, SL_SHIP_F32, 0},
    SL_END_TENSORS,
};

/* Embedding and head are the model's own, as published. */
static const struct sl_tensor_tmpl nextn[] = {
    {"blk.{i}.layer_output_norm.weight", OF_LAYER "final_layernorm.weight", NEXTN, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl *const tensors[] = {
    own, sl_arch_norm_tensors, sl_arch_dense_tensors, sl_arch_expert_tensors, sl_arch_nextn_tensors, nextn, NULL,
};

/* Newer libraries call the experts "local"; where both entries are there, theirs counts. */
static const struct sl_field moe_fields[] = {
    {SL_N_EXPERT, "num_experts", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT, "num_local_experts", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT_USED, "num_experts_per_tok", SL_FIELD_INT, true, 1, 1 << 14, 0},
    {SL_N_GROUP, "n_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_GROUP_USED, "topk_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_DENSE, "first_k_dense_replace", SL_FIELD_INT, true, 0, SL_MAX_LAYER, 0},
    {SL_N_MOE_FF, "moe_intermediate_size", SL_FIELD_INT, true, 1, 1 << 24, 0},
    {SL_N_SHARED_FF_KEY, "moe_shared_expert_intermediate_size", SL_FIELD_INT, false, 1, 1 << 24, NAN},
    {SL_N_EXPERT_SCALE, "routed_scaling_factor", SL_FIELD_FLOAT, true, -1e6, 1e6, 0},
    {SL_N_SHARED, "num_shared_experts", SL_FIELD_INT, true, 1, 1 << 10, 0},
    {SL_N_EXPERT_NORM, "norm_topk_prob", SL_FIELD_BOOL, true, 0, 1, 0},
    {SL_N_NEXTN, "num_nextn_predict_layers", SL_FIELD_INT, false, 0, 64, NAN},
    SL_END_FIELDS,
};

/* Entries that tell of tensors that llama.cpp's model has not, or has always. */
static int check_parts(const struct sl_params *p, struct sl_error *e)
{
    static const struct { const char *name; bool v; } same[] = {{"use_qkv_bias", false}, {"use_bias", false}, {"use_qk_norm", true}};

    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (sl_config_bool(p->config, same[i].name, same[i].v) != same[i].v)
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is %s, and llama.cpp's %s has %s", same[i].name,
                           same[i].v ? "false" : "true", p->arch->name, same[i].v ? "norms on the heads of q and k" : "no biases");
    return sl_arch_own_head(p, e);
}

/* llama.cpp's q, k and v are as wide as the model; a shared expert as wide as the key says, once for each. */
static int check_sizes(const struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    if (n[SL_N_Q_ROWS].u != n[SL_N_EMBD].u)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: %u heads of %u rows, and llama.cpp's %s has as many as \"hidden_size\", %u",
                       (unsigned)n[SL_N_HEAD].u, (unsigned)n[SL_N_HEAD_DIM].u, p->arch->name, (unsigned)n[SL_N_EMBD].u);
    if (n[SL_N_SHARED].u > 1 && !n[SL_N_SHARED_FF_KEY].have)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"num_shared_experts\" is %u without "
                       "\"moe_shared_expert_intermediate_size\": llama.cpp's %s would take them for wider ones",
                       (unsigned)n[SL_N_SHARED].u, p->arch->name);
    return 0;
}

static int derive_experts(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_need(p, SL_N_EXPERT, e));
    SL_TRY(sl_arch_check_experts(p, e));
    if (!p->num[SL_N_SHARED_FF_KEY].have)
        sl_num_set(p, SL_N_SHARED_FF_KEY, p->num[SL_N_MOE_FF].u);
    p->when |= SL_W_SHARED;
    return sl_num_mul(p, SL_N_SHARED_FF, p->num[SL_N_SHARED].u, p->num[SL_N_SHARED_FF_KEY].u, e);
}

/* Without a word for it llama.cpp does not load the model at all. */
static int derive_routing(struct sl_params *p, struct sl_error *e)
{
    const char *name, *func = sl_arch_scoring(p, &name);

    return sl_arch_gating(p, name, func ? func : "sigmoid", e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_need(p, SL_N_CTX, e));
    SL_TRY(sl_arch_need_theta(p, e));
    SL_TRY(check_parts(p, e));
    SL_TRY(sl_arch_plain_attention(p, e));
    SL_TRY(check_sizes(p, e));
    SL_TRY(sl_arch_half_rope(p, e));
    SL_TRY(derive_experts(p, e));
    SL_TRY(derive_routing(p, e));
    sl_num_set(p, SL_N_QKV_ROWS, p->num[SL_N_Q_ROWS].u + 2 * p->num[SL_N_KV_ROWS].u);
    sl_num_set(p, SL_N_VOCAB_KEY, p->num[SL_N_VOCAB].u);
    sl_arch_keep_mtp(p);
    return 0;
}

static const struct sl_key_tmpl keys[] = {
    {"rope.dimension_count", SL_KV_U32, SL_N_ROPE_DIM, 0},
    {"leading_dense_block_count", SL_KV_U32, SL_N_DENSE, 0},
    {"vocab_size", SL_KV_U32, SL_N_VOCAB_KEY, 0},
    {"expert_feed_forward_length", SL_KV_U32, SL_N_MOE_FF, 0},
    {"expert_shared_feed_forward_length", SL_KV_U32, SL_N_SHARED_FF_KEY, 0},
    {"expert_weights_scale", SL_KV_F32, SL_N_EXPERT_SCALE, 0},
    {"expert_shared_count", SL_KV_U32, SL_N_SHARED, 0},
    {"expert_weights_norm", SL_KV_BOOL, SL_N_EXPERT_NORM, 0},
    {"nextn_predict_layers", SL_KV_U32, SL_N_NEXTN, 0},
    SL_END_KEYS,
};

static const char *const classes[] = {"BailingMoeV2ForCausalLM", NULL};

const struct sl_arch sl_arch_bailing2 = {
    .name = "bailingmoe2",
    .classes = classes,
    .fields = sl_arch_plain_fields,
    .more_fields = moe_fields,
    .tensors = tensors,
    .keys = keys,
    .derive = derive,
    .tokens = SL_TOKENS_LING,
};
