/* DeepSeek-V4 (Flash, Pro): each layer looks at a window of tokens and, but for the first ones, at all
 * before them compressed, 4 to one (of which an indexer chooses) or 128 to one; four streams in place of one
 * residual; experts chosen by the token's id in the first layers. Tensors have DeepSeek's own names. */
#include "proto/arch_table.h"
#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define L SL_W_LAYER
#define FINE (SL_W_LAYER | SL_W_FINE)
#define COARSE (SL_W_LAYER | SL_W_COARSE)
#define ATTN "layers.{i}.attn."
#define FFN "layers.{i}.ffn."
#define EXPERTS "layers.{i}.ffn.experts.{e}."
#define SHARED "layers.{i}.ffn.shared_experts."

static const struct sl_tensor_tmpl all[] = {
    SL_TENSOR("token_embd.weight", "embed.weight", 0, VOCAB, EMBD, BASE),
    SL_VECTOR("output_norm.weight", "norm.weight", 0, EMBD),
    SL_TENSOR("output.weight", "head.weight", 0, VOCAB, EMBD, BASE),
    SL_TENSOR("output_hc_fn.weight", "hc_head_fn", 0, HC, HC_COLS, F32),
    SL_TENSOR("output_hc_base.weight", "hc_head_base", 0, NONE, HC, F32),
    SL_TENSOR("output_hc_scale.weight", "hc_head_scale", 0, NONE, ONE, F32),

    SL_TENSOR("blk.{i}.hc_attn_fn.weight", "layers.{i}.hc_attn_fn", L, HC_MIX, HC_COLS, F32),
    SL_TENSOR("blk.{i}.hc_attn_base.weight", "layers.{i}.hc_attn_base", L, NONE, HC_MIX, F32),
    SL_TENSOR("blk.{i}.hc_attn_scale.weight", "layers.{i}.hc_attn_scale", L, NONE, THREE, F32),
    SL_TENSOR("blk.{i}.hc_ffn_fn.weight", "layers.{i}.hc_ffn_fn", L, HC_MIX, HC_COLS, F32),
    SL_TENSOR("blk.{i}.hc_ffn_base.weight", "layers.{i}.hc_ffn_base", L, NONE, HC_MIX, F32),
    SL_TENSOR("blk.{i}.hc_ffn_scale.weight", "layers.{i}.hc_ffn_scale", L, NONE, THREE, F32),

    SL_VECTOR("blk.{i}.attn_norm.weight", "layers.{i}.attn_norm.weight", L, EMBD),
    SL_TENSOR("blk.{i}.attn_sinks.weight", ATTN "attn_sink", L, NONE, HEAD, F32),
    SL_MATRIX("blk.{i}.attn_q_a.weight", ATTN "wq_a.weight", L, Q_LORA, EMBD),
    SL_VECTOR("blk.{i}.attn_q_a_norm.weight", ATTN "q_norm.weight", L, Q_LORA),
    SL_MATRIX("blk.{i}.attn_q_b.weight", ATTN "wq_b.weight", L, Q_ROWS, Q_LORA),
    SL_MATRIX("blk.{i}.attn_kv.weight", ATTN "wkv.weight", L, HEAD_DIM, EMBD),
    SL_VECTOR("blk.{i}.attn_kv_a_norm.weight", ATTN "kv_norm.weight", L, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_output_a.weight", ATTN "wo_a.weight", L, OUT_A_ROWS, OUT_A_COLS),
    SL_MATRIX("blk.{i}.attn_output_b.weight", ATTN "wo_b.weight", L, EMBD, OUT_A_ROWS),

    SL_TENSOR("blk.{i}.attn_compressor_ape.weight", ATTN "compressor.ape", FINE, FINE, TWO_HEAD_DIM, F32),
    SL_TENSOR("blk.{i}.attn_compressor_kv.weight", ATTN "compressor.wkv.weight", FINE, TWO_HEAD_DIM, EMBD, BASE),
    SL_TENSOR("blk.{i}.attn_compressor_gate.weight", ATTN "compressor.wgate.weight", FINE, TWO_HEAD_DIM, EMBD, BASE),
    SL_VECTOR("blk.{i}.attn_compressor_norm.weight", ATTN "compressor.norm.weight", FINE, HEAD_DIM),
    SL_TENSOR("blk.{i}.attn_compressor_ape.weight", ATTN "compressor.ape", COARSE, COARSE, HEAD_DIM, F32),
    SL_TENSOR("blk.{i}.attn_compressor_kv.weight", ATTN "compressor.wkv.weight", COARSE, HEAD_DIM, EMBD, BASE),
    SL_TENSOR("blk.{i}.attn_compressor_gate.weight", ATTN "compressor.wgate.weight", COARSE, HEAD_DIM, EMBD, BASE),
    SL_VECTOR("blk.{i}.attn_compressor_norm.weight", ATTN "compressor.norm.weight", COARSE, HEAD_DIM),
    SL_MATRIX("blk.{i}.indexer.attn_q_b.weight", ATTN "indexer.wq_b.weight", FINE, INDEX_ROWS, Q_LORA),
    SL_TENSOR("blk.{i}.indexer.proj.weight", ATTN "indexer.weights_proj.weight", FINE, INDEX_HEADS, EMBD, BASE),
    SL_TENSOR("blk.{i}.indexer_compressor_ape.weight", ATTN "indexer.compressor.ape", FINE, FINE, TWO_INDEX_DIM, F32),
    SL_TENSOR("blk.{i}.indexer_compressor_kv.weight", ATTN "indexer.compressor.wkv.weight", FINE, TWO_INDEX_DIM, EMBD, BASE),
    SL_TENSOR("blk.{i}.indexer_compressor_gate.weight", ATTN "indexer.compressor.wgate.weight", FINE, TWO_INDEX_DIM, EMBD, BASE),
    SL_VECTOR("blk.{i}.indexer_compressor_norm.weight", ATTN "indexer.compressor.norm.weight", FINE, INDEX_DIM),

    SL_VECTOR("blk.{i}.ffn_norm.weight", "layers.{i}.ffn_norm.weight", L, EMBD),
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", FFN "gate.weight", L, EXPERT, EMBD, BASE),
    {"blk.{i}.ffn_gate_tid2eid.weight", FFN "gate.tid2eid", L | SL_W_HASHED, SL_N_VOCAB, SL_N_EXPERT_USED, SL_IDS,
     SL_SHIP_I64, SL_N_EXPERT},
    SL_TENSOR("blk.{i}.exp_probs_b.bias", FFN "gate.bias", L | SL_W_CORR, NONE, EXPERT, F32),
    SL_TENSOR("blk.{i}.ffn_gate_exps.weight", EXPERTS "w1.weight", L, MOE_FF, EMBD, EXPERT),
    SL_TENSOR("blk.{i}.ffn_up_exps.weight", EXPERTS "w3.weight", L, MOE_FF, EMBD, EXPERT),
    SL_TENSOR("blk.{i}.ffn_down_exps.weight", EXPERTS "w2.weight", L, EMBD, MOE_FF, EXPERT),
    SL_MATRIX("blk.{i}.ffn_gate_shexp.weight", SHARED "w1.weight", L, SHARED_FF, EMBD),
    SL_MATRIX("blk.{i}.ffn_up_shexp.weight", SHARED "w3.weight", L, SHARED_FF, EMBD),
    SL_MATRIX("blk.{i}.ffn_down_shexp.weight", SHARED "w2.weight", L, EMBD, SHARED_FF),
    SL_END_TENSORS,
};

static const struct sl_field fields[] = {
    SL_MAY(FF, "intermediate_size"), SL_FIELD(HEAD_KV, "num_key_value_heads", true, false, NAN, 1, 1), SL_NEED(RMS_EPS, "rms_norm_eps"),
    SL_NEED(EXPERT, "n_routed_experts"), SL_NEED(EXPERT_USED, "num_experts_per_tok"), SL_MAY(GROUP, "n_group"),
    SL_MAY(GROUP_USED, "topk_group"), SL_NEED(HEAD_DIM, "head_dim"), SL_NEED(ROPE_DIM, "qk_rope_head_dim"),
    SL_NEED(Q_LORA, "q_lora_rank"), SL_NEED(WINDOW, "sliding_window"), SL_NEED(MOE_FF, "moe_intermediate_size"),
    SL_NEED(SHARED, "n_shared_experts"), SL_NEED(EXPERT_SCALE, "routed_scaling_factor"), SL_NEED(EXPERT_NORM, "norm_topk_prob"),
    SL_NEED(CLAMP, "swiglu_limit"), SL_NEED(INDEX_HEADS, "index_n_heads"), SL_NEED(INDEX_DIM, "index_head_dim"),
    SL_NEED(INDEX_TOP, "index_topk"), SL_NEED(OUT_GROUP, "o_groups"), SL_NEED(OUT_LORA, "o_lora_rank"),
    SL_NEED(COMPRESS_THETA, "compress_rope_theta"), SL_NEED(HC, "hc_mult"), SL_NEED(HC_ITER, "hc_sinkhorn_iters"),
    SL_NEED(HC_EPS, "hc_eps"), SL_NEED(HASHED, "num_hash_layers"), SL_END_FIELDS,
};

/* One for each layer, and more for layers for multi-token prediction, all of which are passed on. */
static int read_ratios(struct sl_params *p, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->config, "compress_ratios");
    unsigned n = cJSON_IsArray(list) ? (unsigned)cJSON_GetArraySize(list) : 0;

    if (n < p->num[SL_N_LAYER].u || n > sizeof p->ratios / sizeof *p->ratios)
        return sl_fail(e, SL_ESOURCE, "config.json: \"compress_ratios\" is no list of %u entries or more, one for each layer",
                       (unsigned)p->num[SL_N_LAYER].u);
    for (const cJSON *x = list->child; x; x = x->next) {
        uint64_t v;

        if (!sl_json_uint(x, SL_COARSE, &v) || (v && v != SL_FINE && v != SL_COARSE))
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"compress_ratios\" has an entry for layer %u that is not 0, 4 or "
                           "128, which llama.cpp cannot run", (unsigned)p->n_ratios);
        p->ratios[p->n_ratios++] = (int32_t)v;
    }
    sl_num_set(p, SL_N_RATIOS, n);
    return 0;
}

static int check(const struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    SL_TRY(sl_arch_only(p, "scoring_func", "sqrtsoftplus", false, e));
    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_arch_check_experts(p, e));
    if (n[SL_N_HEAD].u % n[SL_N_OUT_GROUP].u)
        return sl_fail(e, SL_ESOURCE, "config.json: %u heads cannot be divided in %u groups (\"o_groups\")",
                       (unsigned)n[SL_N_HEAD].u, (unsigned)n[SL_N_OUT_GROUP].u);
    if (n[SL_N_HASHED].u > n[SL_N_LAYER].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"num_hash_layers\" is %u of %u layers", (unsigned)n[SL_N_HASHED].u,
                       (unsigned)n[SL_N_LAYER].u);
    return 0;
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    const char *experts = sl_config_str(p->config, "expert_dtype");
    const struct sl_number *n = p->num;
    uint64_t hc;

    SL_TRY(check(p, e));
    SL_TRY(read_ratios(p, e));
    p->when |= SL_W_CORR;
    p->fp4_experts = experts && strcmp(experts, "fp4") == 0;
    hc = n[SL_N_HC].u;
    sl_num_set(p, SL_N_GATING, 4); /* sqrtsoftplus */
    sl_num_set(p, SL_N_HEAD_DIM_K, n[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_HEAD_DIM_V, n[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_ONE, 1);
    sl_num_set(p, SL_N_THREE, 3);
    sl_num_set(p, SL_N_FINE, SL_FINE);
    sl_num_set(p, SL_N_COARSE, SL_COARSE);
    sl_num_set(p, SL_N_TWO_HEAD_DIM, 2 * n[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_TWO_INDEX_DIM, 2 * n[SL_N_INDEX_DIM].u);
    sl_num_set(p, SL_N_HC_MIX, (2 + hc) * hc);
    sl_num_set(p, SL_N_HC_COLS, hc * n[SL_N_EMBD].u);
    for (uint64_t i = 0; i < n[SL_N_LAYER].u; i++)
        p->clamps[0][i] = p->clamps[1][i] = (float)n[SL_N_CLAMP].f;
    sl_num_set(p, SL_N_CLAMPS, 0);
    sl_num_set(p, SL_N_CLAMPS_SHARED, 0);
    sl_num_set(p, SL_N_EMBD_OUT, hc * n[SL_N_EMBD].u);
    SL_TRY(sl_num_mul(p, SL_N_Q_ROWS, n[SL_N_HEAD].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_OUT_A_ROWS, n[SL_N_OUT_GROUP].u, n[SL_N_OUT_LORA].u, e));
    SL_TRY(sl_num_mul(p, SL_N_OUT_A_COLS, n[SL_N_HEAD].u / n[SL_N_OUT_GROUP].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_INDEX_ROWS, n[SL_N_INDEX_HEADS].u, n[SL_N_INDEX_DIM].u, e));
    return sl_num_mul(p, SL_N_SHARED_FF, n[SL_N_SHARED].u, n[SL_N_MOE_FF].u, e);
}

/* What drafts tokens (multi-token prediction, DSpark) is left out, and a bias of layers that do not use it: llama.cpp
 * would not load the file. */
static bool drops(const struct sl_params *p, const char *name)
{
    const char *rest;
    uint64_t i;

    return strncmp(name, "mtp.", 4) == 0 || (sl_arch_in_layer(name, "layers.", &i, &rest) &&
                                             strcmp(rest, ".ffn.gate.bias") == 0 && i < p->num[SL_N_HASHED].u);
}

const struct sl_arch sl_arch_deepseek4 = {
    .name = "deepseek4",
    .classes = SL_CLASSES("DeepseekV4ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields),
    .tensors = SL_TENSORS(all),
    .keys = SL_KEYS(SL_N_ROPE_DIM, SL_N_Q_LORA, SL_N_WINDOW, SL_N_MOE_FF, SL_N_SHARED, SL_N_EXPERT_SCALE, SL_N_EXPERT_NORM, SL_N_CLAMPS,
                    SL_N_CLAMPS_SHARED, SL_N_INDEX_HEADS, SL_N_INDEX_DIM, SL_N_INDEX_TOP, SL_N_OUT_GROUP, SL_N_OUT_LORA, SL_N_RATIOS,
                    SL_N_COMPRESS_THETA, SL_N_HC, SL_N_HC_ITER, SL_N_HC_EPS, SL_N_HASHED, SL_N_EMBD_OUT),
    .derive = derive,
    .drops = drops,
    .tokens = SL_TOKENS_V4,
    .mla_only = true,
    .e8m0 = true,
    .template_of = "DeepSeek-V4",
    .template_first = true,
    .own_types = true,
};
