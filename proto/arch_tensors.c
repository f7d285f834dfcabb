/* Tensors and facts that several architectures have, by the names of Hugging Face's classes. A plan's fingerprint depends on
 * their order. */
#include "proto/arch_table.h"
#include "proto/suffix.h"

#include <math.h>
#include <string.h>

#define L SL_W_LAYER
#define MOE (SL_W_LAYER | SL_W_MOE)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."
#define ATTN "model.layers.{i}.self_attn."
#define MLP "model.layers.{i}.mlp."
#define EXPERTS "model.layers.{i}.mlp.experts.{e}."
#define SHARED_EXPERTS "model.layers.{i}.mlp.shared_experts."

const struct sl_tensor_tmpl sl_arch_common_tensors[] = {
    SL_TENSOR("token_embd.weight", "model.embed_tokens.weight", 0, VOCAB, EMBD, BASE),
    SL_VECTOR("output_norm.weight", "model.norm.weight", 0, EMBD),
    SL_TENSOR("output.weight", "lm_head.weight", SL_W_OUTPUT, VOCAB, EMBD, BASE),
    SL_VECTOR("blk.{i}.attn_norm.weight", OF_LAYER "input_layernorm.weight", L, EMBD),
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_attention_tensors[] = {
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", L, Q_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_q.bias", ATTN "q_proj.bias", L | SL_W_BIAS, Q_ROWS),
    SL_VECTOR("blk.{i}.attn_q_norm.weight", ATTN "q_norm.weight", L | SL_W_HEAD_NORM, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", L, KV_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_k.bias", ATTN "k_proj.bias", L | SL_W_BIAS, KV_ROWS),
    SL_VECTOR("blk.{i}.attn_k_norm.weight", ATTN "k_norm.weight", L | SL_W_HEAD_NORM, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", L, KV_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_v.bias", ATTN "v_proj.bias", L | SL_W_BIAS, KV_ROWS),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, EMBD, Q_ROWS),
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_norm_tensors[] = {
    SL_VECTOR("blk.{i}.ffn_norm.weight", OF_LAYER "post_attention_layernorm.weight", L, EMBD),
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_dense_tensors[] = {
    SL_GATED("", MLP, L | SL_W_DENSE, FF, EMBD, LINEAR),
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_expert_tensors[] = {
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", MLP "gate.weight", MOE, EXPERT, EMBD, BASE),
    SL_TENSOR("blk.{i}.exp_probs_b.bias", MLP "gate.e_score_correction_bias", MOE | SL_W_CORR, NONE, EXPERT, F32),
    SL_GATED("_exps", EXPERTS, MOE, MOE_FF, EMBD, EXPERT),
    SL_GATED("_shexp", SHARED_EXPERTS, MOE | SL_W_SHARED, SHARED_FF, EMBD, LINEAR),
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_nextn_tensors[] = {
    SL_TENSOR("blk.{i}.nextn.eh_proj.weight", OF_LAYER "eh_proj.weight", NEXTN, EMBD, TWO_EMBD, BASE),
    SL_VECTOR("blk.{i}.nextn.enorm.weight", OF_LAYER "enorm.weight", NEXTN, EMBD),
    SL_VECTOR("blk.{i}.nextn.hnorm.weight", OF_LAYER "hnorm.weight", NEXTN, EMBD),
    SL_END_TENSORS,
};

const struct sl_field sl_arch_model_fields[] = {
    SL_NEED(LAYER, "num_hidden_layers"), SL_MAY(CTX, "max_position_embeddings"), SL_NEED(EMBD, "hidden_size"),
    SL_NEED(HEAD, "num_attention_heads"), SL_NEED(VOCAB, "vocab_size"), SL_END_FIELDS,
};

const struct sl_field sl_arch_plain_fields[] = {
    SL_NEED(FF, "intermediate_size"), SL_MAY(HEAD_KV, "num_key_value_heads"), SL_ELSE(RMS_EPS, "rms_norm_eps", 1e-6),
    SL_MAY(HEAD_DIM, "head_dim"), SL_END_FIELDS,
};

void sl_arch_transposed_experts(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    uint64_t outputs = p->num[t->rows].u;
    bool down = sl_ends_with(t->out, ".ffn_down_exps.weight");

    if (!(t->when & SL_W_FUSED))
        return;
    a->stack = a->columns = true;
    a->col0 = sl_ends_with(t->out, ".ffn_up_exps.weight") ? outputs : 0;
    memcpy(a->shape, (uint64_t[3]){p->num[SL_N_EXPERT].u, p->num[t->cols].u, outputs * (down ? 1 : 2)}, sizeof a->shape);
}
