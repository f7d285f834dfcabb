/* Tencent's Hunyuan with experts: Hunyuan-A13B, whose layers all have them, and Hy3 (Hy-MT2-30B-A3B, too), which begins with a
 * dense layer, routes by sigmoid with a correction bias, and has a layer for multi-token prediction, kept behind the others.
 * Both have norms on the heads of q and k, and a shared expert. No permutation. The converter reads config.json as it stands. */
#include "proto/arch_table.h"
#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define L SL_W_LAYER
#define MOE (SL_W_LAYER | SL_W_MOE)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."
#define ATTN "model.layers.{i}.self_attn."
#define MLP "model.layers.{i}.mlp."
#define EXPERTS "model.layers.{i}.mlp.experts.{e}."
#define SHARED "model.layers.{i}.mlp.shared_mlp."

static const struct sl_tensor_tmpl experts[] = {
    SL_GATED("_exps", EXPERTS, MOE, MOE_FF, EMBD, LINEAR),
    SL_GATED("_shexp", SHARED, MOE, SHARED_FF, EMBD, LINEAR),
    SL_END_TENSORS,
};

static const struct sl_field fields[] = {
    SL_NEED(CTX, "max_position_embeddings"), SL_NEED(FF, "intermediate_size"), SL_MAY(HEAD_KV, "num_key_value_heads"),
    SL_NEED(RMS_EPS, "rms_norm_eps"), SL_MAY(HEAD_DIM, "head_dim"), SL_END_FIELDS,
};

/* ---- Hunyuan-A13B ---- */

static const struct sl_tensor_tmpl moe_own[] = {
    SL_VECTOR("blk.{i}.attn_q_norm.weight", ATTN "query_layernorm.weight", L, HEAD_DIM),
    SL_VECTOR("blk.{i}.attn_k_norm.weight", ATTN "key_layernorm.weight", L, HEAD_DIM),
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", MLP "gate.wg.weight", MOE, EXPERT, EMBD, F32),
    SL_END_TENSORS,
};

static const struct sl_field moe_fields[] = {
    SL_NEED(EXPERT, "num_experts"), SL_MAY(GROUP, "n_group"), SL_MAY(GROUP_USED, "topk_group"), SL_END_FIELDS,
};

/* A number that may stand once, or in a list for each layer, in which all are equal. */
static int read_uniform(struct sl_params *p, const char *name, enum sl_num num, struct sl_error *e)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(p->config, name), *x = cJSON_IsArray(j) ? j->child : j;
    uint64_t v, next;

    if (!x || !sl_json_uint(x, 1 << 24, &v) || !v)
        return sl_fail(e, SL_ESOURCE, "config.json has no \"%s\", a positive integer or a list of such, which %s needs", name, p->hf_class);
    for (x = x->next; cJSON_IsArray(j) && x; x = x->next)
        if (!sl_json_uint(x, 1 << 24, &next) || next != v)
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" has other numbers than %" PRIu64 ", and llama.cpp's %s has one for all layers",
                           name, v, p->arch->name);
    sl_num_set(p, num, v);
    return 0;
}

/* Texts longer than those of training need a larger base of the rotary embedding: the converter writes it for 256k tokens, and takes
 * no other numbers than these. */
static int stretch_rope(struct sl_params *p, struct sl_error *e)
{
    const char *type = sl_config_str(p->rope, "rope_type");
    double alpha = 1000, base = p->num[SL_N_ROPE_THETA].f;
    uint64_t dim = p->num[SL_N_EMBD].u / p->num[SL_N_HEAD].u, ctx = p->num[SL_N_CTX].u;

    if (!type)
        type = sl_config_str(p->rope, "type");
    if (!type || strcmp(type, "dynamic") != 0)
        return 0;
    SL_TRY(sl_config_float(p->rope, "rope_scaling.", "alpha", &alpha, e));
    if (alpha != 1000 || base != 10000 || dim != 128 || (ctx != 32768 && ctx != 262144))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: rope_scaling of type dynamic with alpha %g, rope_theta %g, heads of %" PRIu64
                       " rows and a context of %" PRIu64 "; supported for %s: 1000, 10000, 128, 32768 or 262144", alpha, base, dim, ctx, p->hf_class);
    p->rope_type = "none";
    sl_num_set_f(p, SL_N_ROPE_THETA, base * pow(alpha, (double)dim / (double)(dim - 2)));
    sl_num_set_f(p, SL_N_ROPE_FACTOR_LATE, 1);
    sl_num_set(p, SL_N_ROPE_ORIG_LATE, 262144);
    sl_num_set(p, SL_N_CTX, 262144);
    return 0;
}

static int derive_moe(struct sl_params *p, struct sl_error *e)
{
    const char *name, *func = sl_arch_scoring(p, &name);
    double skipped = 0;

    SL_TRY(sl_arch_only(p, name, "softmax", false, e));
    if (func)
        sl_num_set(p, SL_N_GATING, 1);
    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_arch_whole_rope(p, e));
    SL_TRY(read_uniform(p, "moe_topk", SL_N_EXPERT_USED, e));
    if (p->num[SL_N_EXPERT_USED].u > p->num[SL_N_EXPERT].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"moe_topk\" is %u of %u experts", (unsigned)p->num[SL_N_EXPERT_USED].u,
                       (unsigned)p->num[SL_N_EXPERT].u);
    SL_TRY(read_uniform(p, "moe_intermediate_size", SL_N_MOE_FF, e));
    SL_TRY(read_uniform(p, "num_shared_expert", SL_N_SHARED, e));
    SL_TRY(sl_config_float(p->config, "", "moe_layer_num_skipped", &skipped, e));
    if (p->num[SL_N_MOE_FF].u != p->num[SL_N_FF].u || p->num[SL_N_SHARED].u != 1 || skipped != 0)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: llama.cpp's %s has experts of \"intermediate_size\" and one shared one in all layers; "
                       "\"moe_intermediate_size\", \"num_shared_expert\" or \"moe_layer_num_skipped\" says otherwise", p->arch->name);
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_plain_attention(p, e));
    sl_num_set(p, SL_N_SHARED_FF, p->num[SL_N_FF].u);
    sl_num_set(p, SL_N_SHARED_FF_KEY, p->num[SL_N_FF].u);
    return stretch_rope(p, e);
}

const struct sl_arch sl_arch_hunyuan_moe = {
    .name = "hunyuan-moe",
    .classes = SL_CLASSES("HunYuanMoEV1ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields, moe_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, moe_own, experts),
    .keys = SL_KEYS(SL_N_SHARED_FF_KEY, SL_N_MOE_FF, SL_N_EXPERT_USED, SL_N_SHARED, SL_N_ROPE_FACTOR_LATE, SL_N_ROPE_ORIG_LATE),
    .facts = SL_FACTS({"use_qk_norm", true, "norms on the heads of q and k"}, {"use_mixed_mlp_moe", true, "a shared expert"},
                      {"norm_topk_prob", true, "weights of experts whose sum is 1"}, {"use_cla", false, "keys of its own in each layer"},
                      {"use_mla", false, "plain heads"}, {"attention_bias", false, "no biases"}, {"mlp_bias", false, "no biases"},
                      {"group_limited_greedy", false, "no groups of experts"}),
    .derive = derive_moe,
    .tokens = SL_TOKENS_HUNYUAN,
};

/* ---- Hy3 ---- */

static const struct sl_tensor_tmpl v3_own[] = {
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", MLP "router.gate.weight", MOE, EXPERT, EMBD, BASE),
    SL_TENSOR("blk.{i}.exp_probs_b", MLP "expert_bias", MOE | SL_W_CORR, NONE, EXPERT, F32),
    SL_VECTOR("blk.{i}.nextn.shared_head_norm.weight", OF_LAYER "final_layernorm.weight", NEXTN, EMBD),
    SL_END_TENSORS,
};

/* Newer libraries call the experts "local"; where both entries are there, theirs counts. */
static const struct sl_field v3_fields[] = {
    SL_NEED(EXPERT, "num_experts"), SL_MAY(EXPERT, "num_local_experts"), SL_NEED(EXPERT_USED, "num_experts_per_tok"),
    SL_MAY(GROUP, "n_group"), SL_MAY(GROUP_USED, "topk_group"), SL_ELSE(DENSE, "first_k_dense_replace", 1),
    SL_NEED(MOE_FF, "moe_intermediate_size"), SL_ELSE(SHARED, "num_shared_experts", 1), SL_ELSE(EXPERT_NORM, "route_norm", 1),
    SL_ELSE(EXPERT_SCALE, "router_scaling_factor", 1), SL_MAY(NEXTN, "num_nextn_predict_layers"), SL_END_FIELDS,
};

/* Newer libraries list the layers; the dense ones are the first. */
static int count_dense(struct sl_params *p, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->config, "mlp_layer_types"), *x;
    uint64_t dense = 0, i = 0;

    if (!cJSON_IsArray(list))
        return 0;
    cJSON_ArrayForEach(x, list) {
        const char *type = cJSON_GetStringValue(x);

        if (!type || (strcmp(type, "dense") != 0 && strcmp(type, "sparse") != 0) || (type[0] == 'd' && dense != i))
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"mlp_layer_types\" has another entry for layer %" PRIu64 " than dense in the first "
                           "layers and sparse behind them", i);
        dense += type[0] == 'd';
        i++;
    }
    if (i != p->num[SL_N_LAYER].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"mlp_layer_types\" is no list of %u entries, one for each layer", (unsigned)p->num[SL_N_LAYER].u);
    sl_num_set(p, SL_N_DENSE, dense);
    return 0;
}

static int derive_v3(struct sl_params *p, struct sl_error *e)
{
    const char *name, *func = sl_arch_scoring(p, &name);

    SL_TRY(sl_arch_only(p, name, "sigmoid", false, e));
    sl_num_set(p, func ? SL_N_GATING : SL_N_GATING_LATE, 2);
    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_arch_whole_rope(p, e));
    SL_TRY(sl_arch_need_theta(p, e));
    SL_TRY(count_dense(p, e));
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_plain_attention(p, e));
    SL_TRY(sl_num_mul(p, SL_N_SHARED_FF, p->num[SL_N_SHARED].u, p->num[SL_N_MOE_FF].u, e));
    sl_num_set(p, SL_N_SHARED_FF_KEY, p->num[SL_N_SHARED_FF].u);
    if (!p->num[SL_N_NEXTN].u) /* the converter writes no 0 */
        p->num[SL_N_NEXTN].have = false;
    p->when |= SL_W_HEAD_NORM;
    if (sl_config_bool(p->config, "moe_router_enable_expert_bias", true))
        p->when |= SL_W_CORR;
    sl_arch_keep_mtp(p);
    return 0;
}

const struct sl_arch sl_arch_hy_v3 = {
    .name = "hy_v3",
    .classes = SL_CLASSES("HYV3ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields, v3_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, sl_arch_dense_tensors, v3_own, experts,
                          sl_arch_nextn_tensors),
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_SHARED_FF_KEY, SL_N_EXPERT_NORM, SL_N_EXPERT_SCALE, SL_N_GATING_LATE, SL_N_NEXTN),
    .facts = SL_FACTS({"qk_norm", true, "norms on the heads of q and k"}, {"moe_router_use_sigmoid", true, "routing by sigmoid"},
                      {"attention_bias", false, "no biases"}, {"mlp_bias", false, "no biases"}),
    .derive = derive_v3,
    .tokens = SL_TOKENS_HY3,
    .output_if_there = true,
};
