/* MiniMax-M2, 2.1, 2.5, 2.7: experts in every layer, routed by sigmoid with a correction bias; one norm over all heads
 * of q and one over those of k; rotary embedding of a part of each head. transformers 4 has no configuration class of
 * them, so that nothing is taken for an entry that is not there. The layers for multi-token prediction that
 * config.json tells of were not published.
 * MiniMax-M3: the same but for dense layers before those with experts, a shared expert, norms on each head, norms that are
 * stored less one, and attention to blocks of tokens that an indexer chooses; within a model that sees. */
#include "proto/arch_table.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <math.h>

#define L SL_W_LAYER
#define MOE (SL_W_LAYER | SL_W_MOE)
#define ATTN "model.layers.{i}.self_attn."
#define SPARSE "model.layers.{i}.block_sparse_moe."
#define EXPERTS "model.layers.{i}.block_sparse_moe.experts.{e}."
#define SHARED "model.layers.{i}.block_sparse_moe.shared_experts."

static const struct sl_tensor_tmpl own[] = {
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", L, Q_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_q_norm.weight", ATTN "q_norm.weight", L, Q_ROWS),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", L, KV_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_k_norm.weight", ATTN "k_norm.weight", L, KV_ROWS),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", L, KV_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, EMBD, Q_ROWS),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl experts[] = {
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", SPARSE "gate.weight", MOE, EXPERT, EMBD, F32),
    SL_TENSOR("blk.{i}.exp_probs_b.bias", SPARSE "e_score_correction_bias", MOE, NONE, EXPERT, F32),
    SL_MATRIX("blk.{i}.ffn_gate_exps.weight", EXPERTS "w1.weight", MOE, MOE_FF, EMBD),
    SL_MATRIX("blk.{i}.ffn_down_exps.weight", EXPERTS "w2.weight", MOE, EMBD, MOE_FF),
    SL_MATRIX("blk.{i}.ffn_up_exps.weight", EXPERTS "w3.weight", MOE, MOE_FF, EMBD),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl indexer[] = {
    SL_MATRIX("blk.{i}.indexer.q_proj.weight", ATTN "index_q_proj.weight", MOE, INDEX_ROWS, EMBD),
    SL_MATRIX("blk.{i}.indexer.k_proj.weight", ATTN "index_k_proj.weight", MOE, INDEX_DIM, EMBD),
    SL_VECTOR("blk.{i}.indexer.q_norm.weight", ATTN "index_q_norm.weight", MOE, INDEX_DIM),
    SL_VECTOR("blk.{i}.indexer.k_norm.weight", ATTN "index_k_norm.weight", MOE, INDEX_DIM),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl shared_expert[] = {
    SL_GATED("_shexp", SHARED, MOE, SHARED_FF, EMBD, LINEAR),
    SL_END_TENSORS,
};

static const struct sl_field fields[] = {
    SL_NEED(CTX, "max_position_embeddings"), SL_NEED(MOE_FF, "intermediate_size"), SL_NEED(HEAD_KV, "num_key_value_heads"),
    SL_NEED(RMS_EPS, "rms_norm_eps"), SL_NEED(HEAD_DIM, "head_dim"), SL_NEED(ROPE_DIM, "rotary_dim"),
    SL_NEED(EXPERT, "num_local_experts"), SL_NEED(EXPERT_USED, "num_experts_per_tok"), SL_MAY(GROUP, "n_group"),
    SL_MAY(GROUP_USED, "topk_group"), SL_END_FIELDS,
};

static int derive_both(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;
    const char *func = sl_config_str(p->config, "scoring_func");
    unsigned dim = (unsigned)n[SL_N_HEAD_DIM].u, rotary = (unsigned)n[SL_N_ROPE_DIM].u;

    SL_TRY(sl_arch_need_theta(p, e));
    if (rotary > dim || rotary % 2)
        return sl_fail(e, SL_ESOURCE, "config.json: \"rotary_dim\" is %u; expected an even number of the %u of \"head_dim\"",
                       rotary, dim);
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_arch_gating(p, "scoring_func", func ? func : "sigmoid", e)); /* without it llama.cpp does not run the model at all */
    return sl_arch_plain_attention(p, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    sl_num_set(p, SL_N_FF, p->num[SL_N_MOE_FF].u);
    return derive_both(p, e);
}

const struct sl_arch sl_arch_minimax_m2 = {
    .name = "minimax-m2",
    .classes = SL_CLASSES("MiniMaxM2ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields),
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_ROPE_DIM),
    .tensors = SL_TENSORS(sl_arch_common_tensors, own, sl_arch_norm_tensors, experts),
    .facts = SL_FACTS(SL_OWN_HEAD),
    .derive = derive,
    .tokens = SL_TOKENS_MINIMAX,
};

/* ---- MiniMax-M3 ---- */

static const struct sl_field m3_fields[] = {
    SL_MAY(FF, "dense_intermediate_size"), SL_NEED(SHARED, "n_shared_experts"), SL_NEED(EXPERT_SCALE, "routed_scaling_factor"),
    SL_END_FIELDS,
};

/* Of "sparse_attention_config". */
static const struct sl_field index_fields[] = {
    SL_NEED(INDEX_HEADS, "sparse_num_index_heads"), SL_NEED(INDEX_DIM, "sparse_index_dim"), SL_NEED(INDEX_TOP, "sparse_topk_blocks"),
    SL_NEED(INDEX_BLOCK, "sparse_block_size"), SL_NEED(INDEX_LOCAL, "sparse_local_block"), SL_END_FIELDS,
};

/* What llama.cpp's text has, and no key says otherwise. */
static int check_constants(const struct sl_params *p, struct sl_error *e)
{
    static const struct { const char *name; double v; } same[] = {
        {"swiglu_alpha", 1.702}, {"swiglu_beta", 1}, {"swiglu_limit", 7},
    };

    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        double v = same[i].v;

        SL_TRY(sl_config_float(p->config, "", same[i].name, &v, e));
        if (v != same[i].v)
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is %g, and llama.cpp's %s has %g", same[i].name, v,
                           p->arch->name, same[i].v);
    }
    return 0;
}

/* The dense layers are the first ones. */
static int count_dense(struct sl_params *p, struct sl_error *e)
{
    uint64_t n = p->num[SL_N_LAYER].u, dense = 0;

    SL_TRY(sl_arch_layer_list(p, "moe_layer_freq", SL_LAYER_DENSE, 0, e));
    while (dense < n && p->kinds[dense])
        dense++;
    for (uint64_t i = dense; i < n; i++)
        if (p->kinds[i])
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"moe_layer_freq\" tells of a dense layer, %u, behind those with "
                           "experts, which llama.cpp cannot run", (unsigned)i);
    sl_num_set(p, SL_N_DENSE, dense);
    return 0;
}

static int derive_indexer(struct sl_params *p, struct sl_error *e)
{
    const cJSON *sparse = cJSON_GetObjectItemCaseSensitive(p->config, "sparse_attention_config");
    const struct sl_number *n = p->num;

    if (!cJSON_IsObject(sparse))
        return sl_fail(e, SL_ESOURCE, "config.json has no \"sparse_attention_config\", which %s needs", p->hf_class);
    SL_TRY(sl_arch_read_fields(p, sparse, index_fields, e));
    if (n[SL_N_INDEX_HEADS].u != n[SL_N_HEAD_KV].u)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"sparse_num_index_heads\" is %u, and llama.cpp's %s has one for each "
                       "of \"num_key_value_heads\", %u", (unsigned)n[SL_N_INDEX_HEADS].u, p->arch->name, (unsigned)n[SL_N_HEAD_KV].u);
    if (n[SL_N_INDEX_DIM].u < n[SL_N_ROPE_DIM].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"sparse_index_dim\" is %u; \"rotary_dim\" alone is %u",
                       (unsigned)n[SL_N_INDEX_DIM].u, (unsigned)n[SL_N_ROPE_DIM].u);
    return sl_num_mul(p, SL_N_INDEX_ROWS, n[SL_N_INDEX_HEADS].u, n[SL_N_INDEX_DIM].u, e);
}

static int derive_m3(struct sl_params *p, struct sl_error *e)
{
    if (!p->num[SL_N_FF].have)
        sl_num_set(p, SL_N_FF, p->num[SL_N_MOE_FF].u);
    SL_TRY(check_constants(p, e));
    SL_TRY(count_dense(p, e));
    SL_TRY(derive_both(p, e));
    SL_TRY(derive_indexer(p, e));
    p->when |= SL_W_HEAD_NORM;
    sl_num_set(p, SL_N_EXPERT_NORM, 1);
    return sl_num_mul(p, SL_N_SHARED_FF, p->num[SL_N_SHARED].u, p->num[SL_N_MOE_FF].u, e);
}

/* Norms' weights are stored less 1. */
static void arrange_m3(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    (void)p;
    if (sl_ends_with(t->src, "norm.weight"))
        a->change = SL_PLUS_ONE;
}

/* The second's text model says that it is of the first (checkpoint_text.c). */
const struct sl_arch sl_arch_minimax_m3 = {
    .name = "minimax-m3",
    .classes = SL_CLASSES("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields, m3_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, indexer, sl_arch_dense_tensors,
                          shared_expert, experts),
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_ROPE_DIM, SL_N_SHARED, SL_N_EXPERT_SCALE, SL_N_EXPERT_NORM, SL_N_INDEX_HEADS, SL_N_INDEX_DIM,
                    SL_N_INDEX_TOP, SL_N_INDEX_BLOCK, SL_N_INDEX_LOCAL, SL_N_DENSE),
    .facts = SL_FACTS(SL_OWN_HEAD, {"use_gemma_norm", true, "norms that are stored less one"}),
    .derive = derive_m3,
    .tokens = SL_TOKENS_MINIMAX,
    .arrange = arrange_m3,
};
