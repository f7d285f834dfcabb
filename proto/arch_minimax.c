/* MiniMax-M2, 2.1, 2.5, 2.7: experts in every layer, routed by sigmoid with a correction bias; one norm over all heads
 * of q and one over those of k; rotary embedding of a part of each head. transformers 4 has no configuration class of
 * them, so that nothing is taken for an entry that is not there. The layers for multi-token prediction that
 * config.json tells of were not published. */
#include "proto/arch_table.h"

#include <math.h>
#include <string.h>

#define L SL_W_LAYER
#define ATTN "model.layers.{i}.self_attn."
#define MOE "model.layers.{i}.block_sparse_moe."
#define EXPERTS "model.layers.{i}.block_sparse_moe.experts.{e}."

static const struct sl_tensor_tmpl own[] = {
    {"blk.{i}.attn_q.weight", ATTN "q_proj.weight", L, SL_N_Q_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_q_norm.weight", ATTN "q_norm.weight", L, SL_N_NONE, SL_N_Q_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_k.weight", ATTN "k_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_k_norm.weight", ATTN "k_norm.weight", L, SL_N_NONE, SL_N_KV_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_v.weight", ATTN "v_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, SL_N_EMBD, SL_N_Q_ROWS, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_norm.weight", "model.layers.{i}.post_attention_layernorm.weight", L, SL_N_NONE, SL_N_EMBD, 0,
     SL_SHIP_BASE, 0},
    {"blk.{i}.ffn_gate_inp.weight", MOE "gate.weight", L, SL_N_EXPERT, SL_N_EMBD, 0, SL_SHIP_F32, 0},
    {"blk.{i}.exp_probs_b.bias", MOE "e_score_correction_bias", L, SL_N_NONE, SL_N_EXPERT, 0, SL_SHIP_F32, 0},
    {"blk.{i}.ffn_gate_exps.weight", EXPERTS "w1.weight", L, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_exps.weight", EXPERTS "w2.weight", L, SL_N_EMBD, SL_N_FF, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_exps.weight", EXPERTS "w3.weight", L, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {NULL, NULL, 0, 0, 0, 0, 0, 0},
};

static const struct sl_tensor_tmpl *const tensors[] = {sl_arch_common_tensors, own, NULL};

static const struct sl_field fields[] = {
    {SL_N_LAYER, "num_hidden_layers", SL_FIELD_INT, true, 1, SL_MAX_LAYER, 0},
    {SL_N_CTX, "max_position_embeddings", SL_FIELD_INT, true, 1, UINT32_MAX, 0},
    {SL_N_EMBD, "hidden_size", SL_FIELD_INT, true, 1, 1 << 22, 0},
    {SL_N_FF, "intermediate_size", SL_FIELD_INT, true, 1, 1 << 24, 0},
    {SL_N_HEAD, "num_attention_heads", SL_FIELD_INT, true, 1, 1 << 14, 0},
    {SL_N_HEAD_KV, "num_key_value_heads", SL_FIELD_INT, true, 1, 1 << 14, 0},
    {SL_N_VOCAB, "vocab_size", SL_FIELD_INT, true, 1, SL_MAX_VOCAB, 0},
    {SL_N_RMS_EPS, "rms_norm_eps", SL_FIELD_FLOAT, true, 0, 1, 0},
    {SL_N_HEAD_DIM, "head_dim", SL_FIELD_INT, true, 1, 1 << 16, 0},
    {SL_N_ROPE_DIM, "rotary_dim", SL_FIELD_INT, true, 2, 1 << 16, 0},
    {SL_N_EXPERT, "num_local_experts", SL_FIELD_INT, true, 1, 1 << 14, 0},
    {SL_N_EXPERT_USED, "num_experts_per_tok", SL_FIELD_INT, true, 1, 1 << 14, 0},
    {SL_N_GROUP, "n_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_GROUP_USED, "topk_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_NONE, NULL, 0, false, 0, 0, 0},
};

static int need_theta(const struct sl_params *p, struct sl_error *e)
{
    double theta = NAN;

    SL_TRY(sl_rope_float(p, "rope_theta", &theta, e));
    return isnan(theta) ? sl_fail(e, SL_ESOURCE, "config.json has no \"rope_theta\", which %s needs", p->hf_class) : 0;
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;
    const char *func = sl_config_str(p->config, "scoring_func");
    unsigned dim = (unsigned)n[SL_N_HEAD_DIM].u, rotary = (unsigned)n[SL_N_ROPE_DIM].u;

    SL_TRY(need_theta(p, e));
    if (rotary > dim || rotary % 2)
        return sl_fail(e, SL_ESOURCE, "config.json: \"rotary_dim\" is %u; expected an even number of the %u of \"head_dim\"",
                       rotary, dim);
    SL_TRY(sl_arch_check_experts(p, e));
    if (p->tied)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"tie_word_embeddings\" is true, and llama.cpp's %s has a head "
                       "of its own", p->arch->name);
    SL_TRY(sl_arch_no_llama3(p, e));
    sl_num_set(p, SL_N_MOE_FF, n[SL_N_FF].u);
    SL_TRY(sl_arch_gating(p, func ? func : "sigmoid", e)); /* without it llama.cpp does not run the model at all */
    return sl_arch_plain_attention(p, e);
}

static const char *const classes[] = {"MiniMaxM2ForCausalLM", NULL};

const struct sl_arch sl_arch_minimax_m2 = {
    .name = "minimax-m2",
    .classes = classes,
    .fields = fields,
    .tensors = tensors,
    .derive = derive,
    .tokens = SL_TOKENS_MINIMAX,
};
