/* Ling 2.0 and Ring (Ling-1T, Ling-flash-2.0, Ling-mini-2.0): q, k and v in one matrix, norms on the heads of q and k, rotary
 * embedding of a half of each head; many experts in groups, routed by sigmoid with a bias, and a shared one; a layer for
 * multi-token prediction, kept behind the others. No permutation. transformers has no configuration class of them, so that
 * nothing is taken for an entry that is not there. */
#include "proto/arch_table.h"

#include <math.h>

#define L SL_W_LAYER
#define MOE (SL_W_LAYER | SL_W_MOE)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."
#define ATTN "model.layers.{i}.attention."

static const struct sl_tensor_tmpl own[] = {
    SL_TENSOR("token_embd.weight", "model.word_embeddings.weight", 0, VOCAB, EMBD, BASE),
    SL_VECTOR("output_norm.weight", "model.norm.weight", 0, EMBD),
    SL_TENSOR("output.weight", "lm_head.weight", 0, VOCAB, EMBD, BASE),
    SL_VECTOR("blk.{i}.attn_norm.weight", OF_LAYER "input_layernorm.weight", L, EMBD),
    SL_MATRIX("blk.{i}.attn_qkv.weight", ATTN "query_key_value.weight", L, QKV_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_q_norm.weight", ATTN "query_layernorm.weight", L, HEAD_DIM),
    SL_VECTOR("blk.{i}.attn_k_norm.weight", ATTN "key_layernorm.weight", L, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "dense.weight", L, EMBD, Q_ROWS),
    SL_TENSOR("blk.{i}.exp_probs_b.bias", OF_LAYER "mlp.gate.expert_bias", MOE, NONE, EXPERT, F32),
    SL_END_TENSORS,
};

/* Embedding and head are the model's own, as published. */
static const struct sl_tensor_tmpl nextn[] = {
    SL_VECTOR("blk.{i}.layer_output_norm.weight", OF_LAYER "final_layernorm.weight", NEXTN, EMBD),
    SL_END_TENSORS,
};

/* Newer libraries call the experts "local"; where both entries are there, theirs counts. */
static const struct sl_field moe_fields[] = {
    SL_NEED(CTX, "max_position_embeddings"), SL_NEED(EXPERT, "num_experts"), SL_MAY(EXPERT, "num_local_experts"),
    SL_NEED(EXPERT_USED, "num_experts_per_tok"), SL_MAY(GROUP, "n_group"), SL_MAY(GROUP_USED, "topk_group"),
    SL_NEED(DENSE, "first_k_dense_replace"), SL_NEED(MOE_FF, "moe_intermediate_size"),
    SL_MAY(SHARED_FF_KEY, "moe_shared_expert_intermediate_size"), SL_NEED(EXPERT_SCALE, "routed_scaling_factor"),
    SL_NEED(SHARED, "num_shared_experts"), SL_NEED(EXPERT_NORM, "norm_topk_prob"), SL_MAY(NEXTN, "num_nextn_predict_layers"),
    SL_END_FIELDS,
};

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
    SL_TRY(sl_arch_need_theta(p, e));
    SL_TRY(sl_arch_plain_attention(p, e));
    SL_TRY(check_sizes(p, e));
    SL_TRY(sl_arch_half_rope(p, e));
    SL_TRY(derive_experts(p, e));
    SL_TRY(derive_routing(p, e));
    sl_num_set(p, SL_N_QKV_ROWS, p->num[SL_N_Q_ROWS].u + 2 * p->num[SL_N_KV_ROWS].u);
    sl_arch_keep_mtp(p);
    return 0;
}

const struct sl_arch sl_arch_bailing2 = {
    .name = "bailingmoe2",
    .classes = SL_CLASSES("BailingMoeV2ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, moe_fields),
    .tensors = SL_TENSORS(own, sl_arch_norm_tensors, sl_arch_dense_tensors, sl_arch_expert_tensors, sl_arch_nextn_tensors, nextn),
    .keys = SL_KEYS(SL_N_ROPE_DIM, SL_N_DENSE, SL_N_VOCAB, SL_N_MOE_FF, SL_N_SHARED_FF_KEY, SL_N_EXPERT_SCALE, SL_N_SHARED,
                    SL_N_EXPERT_NORM, SL_N_NEXTN),
    .facts = SL_FACTS({"use_qkv_bias", false, "no biases"}, {"use_bias", false, "no biases"},
                      {"use_qk_norm", true, "norms on the heads of q and k"}, SL_OWN_HEAD),
    .derive = derive,
    .tokens = SL_TOKENS_LING,
};
