/* Tensors that several architectures have, by the names of Hugging Face's classes. A plan's fingerprint depends on
 * their order. */
#include "proto/arch_table.h"
#include "proto/suffix.h"

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
    {"token_embd.weight", "model.embed_tokens.weight", 0, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output_norm.weight", "model.norm.weight", 0, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output.weight", "lm_head.weight", SL_W_OUTPUT, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_norm.weight", OF_LAYER "input_layernorm.weight", L, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_attention_tensors[] = {
    {"blk.{i}.attn_q.weight", ATTN "q_proj.weight", L, SL_N_Q_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_q.bias", ATTN "q_proj.bias", L | SL_W_BIAS, SL_N_NONE, SL_N_Q_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_q_norm.weight", ATTN "q_norm.weight", L | SL_W_HEAD_NORM, SL_N_NONE, SL_N_HEAD_DIM, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_k.weight", ATTN "k_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_k.bias", ATTN "k_proj.bias", L | SL_W_BIAS, SL_N_NONE, SL_N_KV_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_k_norm.weight", ATTN "k_norm.weight", L | SL_W_HEAD_NORM, SL_N_NONE, SL_N_HEAD_DIM, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_v.weight", ATTN "v_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_v.bias", ATTN "v_proj.bias", L | SL_W_BIAS, SL_N_NONE, SL_N_KV_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, SL_N_EMBD, SL_N_Q_ROWS, 0, SL_SHIP_LINEAR, 0},
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_norm_tensors[] = {
    {"blk.{i}.ffn_norm.weight", OF_LAYER "post_attention_layernorm.weight", L, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_dense_tensors[] = {
    {"blk.{i}.ffn_gate.weight", MLP "gate_proj.weight", L | SL_W_DENSE, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up.weight", MLP "up_proj.weight", L | SL_W_DENSE, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down.weight", MLP "down_proj.weight", L | SL_W_DENSE, SL_N_EMBD, SL_N_FF, 0, SL_SHIP_LINEAR, 0},
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_expert_tensors[] = {
    {"blk.{i}.ffn_gate_inp.weight", MLP "gate.weight", MOE, SL_N_EXPERT, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.exp_probs_b.bias", MLP "gate.e_score_correction_bias", MOE | SL_W_CORR, SL_N_NONE, SL_N_EXPERT, 0,
     SL_SHIP_F32, 0},
    {"blk.{i}.ffn_gate_exps.weight", EXPERTS "gate_proj.weight", MOE, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_EXPERT, 0},
    {"blk.{i}.ffn_up_exps.weight", EXPERTS "up_proj.weight", MOE, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_EXPERT, 0},
    {"blk.{i}.ffn_down_exps.weight", EXPERTS "down_proj.weight", MOE, SL_N_EMBD, SL_N_MOE_FF, 0, SL_SHIP_EXPERT, 0},
    {"blk.{i}.ffn_gate_shexp.weight", SHARED_EXPERTS "gate_proj.weight", MOE | SL_W_SHARED, SL_N_SHARED_FF, SL_N_EMBD, 0,
     SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_shexp.weight", SHARED_EXPERTS "up_proj.weight", MOE | SL_W_SHARED, SL_N_SHARED_FF, SL_N_EMBD, 0,
     SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_shexp.weight", SHARED_EXPERTS "down_proj.weight", MOE | SL_W_SHARED, SL_N_EMBD, SL_N_SHARED_FF, 0,
     SL_SHIP_LINEAR, 0},
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl sl_arch_nextn_tensors[] = {
    {"blk.{i}.nextn.eh_proj.weight", OF_LAYER "eh_proj.weight", NEXTN, SL_N_EMBD, SL_N_TWO_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.nextn.enorm.weight", OF_LAYER "enorm.weight", NEXTN, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.nextn.hnorm.weight", OF_LAYER "hnorm.weight", NEXTN, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    SL_END_TENSORS,
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
