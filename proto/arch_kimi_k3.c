/* Kimi-K3's text model: in most layers Kimi delta attention, a recurrent state behind short convolutions, in the
 * others latent attention; experts in a space of their own; each layer chooses among what earlier ones gave. */
#include "proto/arch_table.h"
#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define L SL_W_LAYER
#define KDA (SL_W_LAYER | SL_W_LINEAR)
#define MOE (SL_W_LAYER | SL_W_MOE)
#define LATENT (MOE | SL_W_LATENT)
#define OF_LAYER "model.layers.{i}."
#define ATTN "model.layers.{i}.self_attn."
#define FFN "model.layers.{i}.block_sparse_moe."
#define EXPERTS "model.layers.{i}.block_sparse_moe.experts.{e}."
#define SHARED "model.layers.{i}.block_sparse_moe.shared_experts."

static const struct sl_tensor_tmpl residuals[] = {
    {"output_res_score.weight", "model.output_attn_res_{f}.weight", 0, SL_N_NONE, SL_N_EMBD, SL_PRODUCT, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_res_score.weight", OF_LAYER "self_attention_res_{f}.weight", L, SL_N_NONE, SL_N_EMBD, SL_PRODUCT, SL_SHIP_BASE, 0},
    {"blk.{i}.ffn_res_score.weight", OF_LAYER "mlp_res_{f}.weight", L, SL_N_NONE, SL_N_EMBD, SL_PRODUCT, SL_SHIP_BASE, 0},
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl delta_attention[] = {
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", KDA, LINEAR_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", KDA, LINEAR_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", KDA, LINEAR_ROWS, EMBD),
    SL_TENSOR("blk.{i}.ssm_conv1d_q.weight", ATTN "q_conv1d.weight", KDA, LINEAR_ROWS, CONV, BASE),
    SL_TENSOR("blk.{i}.ssm_conv1d_k.weight", ATTN "k_conv1d.weight", KDA, LINEAR_ROWS, CONV, BASE),
    SL_TENSOR("blk.{i}.ssm_conv1d_v.weight", ATTN "v_conv1d.weight", KDA, LINEAR_ROWS, CONV, BASE),
    SL_MATRIX("blk.{i}.ssm_f_a.weight", ATTN "f_a_proj.weight", KDA, LINEAR_DIM, EMBD),
    SL_MATRIX("blk.{i}.ssm_f_b.weight", ATTN "f_b_proj.weight", KDA, LINEAR_ROWS, LINEAR_DIM),
    SL_MATRIX("blk.{i}.ssm_beta.weight", ATTN "b_proj.weight", KDA, HEAD, EMBD),
    {"blk.{i}.ssm_a", ATTN "A_log", KDA, SL_N_NONE, SL_N_HEAD, SL_FIRST, SL_SHIP_F32, 0},
    SL_TENSOR("blk.{i}.ssm_dt.bias", ATTN "dt_bias", KDA, NONE, LINEAR_ROWS, F32),
    SL_MATRIX("blk.{i}.ssm_g.weight", ATTN "g_proj.weight", KDA, LINEAR_ROWS, EMBD),
    SL_VECTOR("blk.{i}.ssm_norm.weight", ATTN "o_norm.weight", KDA, LINEAR_DIM),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", KDA, EMBD, LINEAR_ROWS),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl experts[] = {
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", FFN "gate.weight", MOE, EXPERT, EMBD, BASE),
    SL_TENSOR("blk.{i}.exp_probs_b.bias", FFN "gate.e_score_correction_bias", MOE, NONE, EXPERT, F32),
    SL_TENSOR("blk.{i}.ffn_routed_down.weight", FFN "routed_expert_down_proj.weight", LATENT, LATENT, EMBD, BASE),
    SL_TENSOR("blk.{i}.ffn_routed_up.weight", FFN "routed_expert_up_proj.weight", LATENT, EMBD, LATENT, BASE),
    SL_VECTOR("blk.{i}.ffn_routed_norm.weight", FFN "routed_expert_norm.weight", LATENT | SL_W_LATENT_NORM, LATENT),
    SL_MATRIX("blk.{i}.ffn_gate_exps.weight", EXPERTS "w1.weight", MOE, MOE_FF, LATENT),
    SL_MATRIX("blk.{i}.ffn_up_exps.weight", EXPERTS "w3.weight", MOE, MOE_FF, LATENT),
    SL_MATRIX("blk.{i}.ffn_down_exps.weight", EXPERTS "w2.weight", MOE, LATENT, MOE_FF),
    SL_GATED("_shexp", SHARED, MOE | SL_W_SHARED, SHARED_FF, EMBD, LINEAR),
    SL_END_TENSORS,
};

/* Of two names of a number the later one counts. */
static const struct sl_field fields[] = {
    SL_MAY(CTX, "model_max_length"), SL_MAY(CTX, "max_position_embeddings"), SL_NEED(FF, "intermediate_size"),
    SL_NEED(HEAD_KV_SRC, "num_key_value_heads"), SL_NEED(RMS_EPS, "rms_norm_eps"), SL_NEED(EXPERT, "num_experts"),
    SL_MAY(EXPERT_USED, "num_experts_per_token"), SL_MAY(EXPERT_USED, "num_experts_per_tok"), SL_MAY(GROUP, "n_group"),
    SL_MAY(GROUP_USED, "topk_group"), SL_NEED(DENSE, "first_k_dense_replace"), SL_MAY(Q_LORA, "q_lora_rank"),
    SL_NEED(KV_LORA, "kv_lora_rank"), SL_NEED(NOPE, "qk_nope_head_dim"), SL_NEED(ROPE_DIM, "qk_rope_head_dim"),
    SL_NEED(V_DIM, "v_head_dim"), SL_NEED(MOE_FF, "moe_intermediate_size"),
    SL_FIELD(SHARED, "num_shared_experts", true, false, NAN, 0, 1 << 10), SL_NEED(EXPERT_SCALE, "routed_scaling_factor"),
    SL_NEED(EXPERT_NORM, "moe_renormalize"), SL_MAY(LATENT_KEY, "routed_expert_hidden_size"), SL_NEED(SITU_BETA, "activation_situ_beta"),
    SL_NEED(SITU_LINEAR_BETA, "activation_situ_linear_beta"), SL_NEED(RES_BLOCK, "attn_res_block_size"), SL_END_FIELDS,
};

/* ---- what config.json says of delta attention ---- */

/* An entry of linear_attn_config, 1 to max. */
static int read_size(struct sl_params *p, const cJSON *linear, const char *name, enum sl_num to, uint64_t max,
                     struct sl_error *e)
{
    uint64_t v;

    if (!sl_json_uint(cJSON_GetObjectItemCaseSensitive(linear, name), max, &v) || !v)
        return sl_fail(e, SL_ESOURCE, "config.json: linear_attn_config.%s: expected an integer from 1 to %u", name,
                       (unsigned)max);
    sl_num_set(p, to, v);
    return 0;
}

/* Layers of full attention, counted from 1; the others have linear attention. */
static int read_layers(struct sl_params *p, const cJSON *linear, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(linear, "full_attn_layers"), *x;
    uint64_t n = p->num[SL_N_LAYER].u, v;

    if (!cJSON_IsArray(list))
        return sl_fail(e, SL_ESOURCE, "config.json: linear_attn_config.full_attn_layers: expected a list of layers");
    memset(p->linear, 1, n);
    p->n_linear = (uint32_t)n;
    cJSON_ArrayForEach(x, list) {
        if (!sl_json_uint(x, n, &v) || !v)
            return sl_fail(e, SL_ESOURCE, "config.json: linear_attn_config.full_attn_layers has an entry that is no layer, "
                           "1 to %u", (unsigned)n);
        p->n_linear -= p->linear[v - 1];
        p->linear[v - 1] = 0;
    }
    if (p->n_linear == 0 || p->n_linear == n)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: linear_attn_config.full_attn_layers names %s: llama.cpp runs the "
                       "model with layers of both kinds alone", p->n_linear ? "no layer" : "all layers");
    return 0;
}

static int read_linear(struct sl_params *p, struct sl_error *e)
{
    const cJSON *linear = cJSON_GetObjectItemCaseSensitive(p->config, "linear_attn_config");
    double bound = NAN;

    if (!cJSON_IsObject(linear))
        return sl_fail(e, SL_ESOURCE, "config.json has no \"linear_attn_config\", which %s needs", p->hf_class);
    SL_TRY(read_layers(p, linear, e));
    SL_TRY(read_size(p, linear, "short_conv_kernel_size", SL_N_CONV, 1 << 10, e));
    SL_TRY(read_size(p, linear, "head_dim", SL_N_LINEAR_DIM, 1 << 16, e));
    sl_num_set(p, SL_N_KDA_DIM, p->num[SL_N_LINEAR_DIM].u);
    SL_TRY(sl_config_float(linear, "linear_attn_config.", "gate_lower_bound", &bound, e));
    if (!isnan(bound))
        sl_num_set_f(p, SL_N_KDA_BOUND, bound);
    SL_TRY(sl_num_mul(p, SL_N_LINEAR_ROWS, p->num[SL_N_HEAD].u, p->num[SL_N_LINEAR_DIM].u, e));
    return sl_num_mul(p, SL_N_LINEAR_QKV, 3, p->num[SL_N_LINEAR_ROWS].u, e);
}

/* What llama.cpp takes for granted. */
static int check(const struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_only(p, "moe_router_activation_func", "sigmoid", true, e));
    SL_TRY(sl_arch_only(p, "hidden_act", "situ", true, e));
    if (!sl_config_bool(p->config, "mla_use_nope", false))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"mla_use_nope\" is not true: llama.cpp runs %s without positions "
                       "alone", p->hf_class);
    SL_TRY(sl_arch_no_llama3(p, e));
    return sl_arch_check_experts(p, e);
}

static int set_experts(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;
    bool latent = n[SL_N_LATENT_KEY].have;

    sl_num_set(p, SL_N_GATING, 2); /* sigmoid */
    sl_num_set(p, SL_N_LATENT, n[latent ? SL_N_LATENT_KEY : SL_N_EMBD].u);
    if (latent)
        p->when |= SL_W_LATENT;
    if (sl_config_bool(p->config, "latent_moe_use_norm", false))
        p->when |= SL_W_LATENT_NORM;
    if (n[SL_N_SHARED].u)
        p->when |= SL_W_SHARED;
    return sl_num_mul(p, SL_N_SHARED_FF, n[SL_N_SHARED].u, n[SL_N_MOE_FF].u, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(check(p, e));
    SL_TRY(read_linear(p, e));
    SL_TRY(sl_arch_latent_attention(p, e));
    if (sl_config_bool(p->config, "mla_use_output_gate", false))
        p->when |= SL_W_OUT_GATE;
    if (!cJSON_GetObjectItemCaseSensitive(p->config, "rope_theta") &&
        !cJSON_GetObjectItemCaseSensitive(p->rope, "rope_theta"))
        p->num[SL_N_ROPE_THETA].have = false; /* it has no positions */
    return set_experts(p, e);
}

static void arrange(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    (void)p;
    if (t->transform == SL_FIRST)
        a->change = SL_MINUS_EXP;
    a->convolution = strstr(t->out, ".ssm_conv1d_") != NULL;
}

const struct sl_arch sl_arch_kimi_k3 = {
    .name = "kimi-k3",
    .classes = SL_CLASSES("KimiK3ForConditionalGeneration"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_norm_tensors, residuals, delta_attention, sl_arch_latent_attention_tensors,
                          sl_arch_dense_tensors, experts),
    .keys = SL_KEYS(SL_N_KEY_LEN, SL_N_VALUE_LEN, SL_N_VOCAB, SL_N_CONV, SL_N_KDA_DIM, SL_N_KDA_BOUND, SL_N_Q_LORA, SL_N_KV_LORA,
                    SL_N_ROPE_DIM, SL_N_KEY_LEN_LATE, SL_N_VALUE_LEN_LATE, SL_N_KEY_LEN_MLA, SL_N_VALUE_LEN_MLA, SL_N_MOE_FF,
                    SL_N_SHARED, SL_N_DENSE, SL_N_EXPERT_SCALE, SL_N_EXPERT_NORM, SL_N_LATENT_KEY, SL_N_SITU_BETA, SL_N_SITU_LINEAR_BETA,
                    SL_N_RES_BLOCK),
    .derive = derive,
    .arrange = arrange,
    .mla_only = true,
    .config_eos = true,
    .output_if_there = true,
    .template_of = "Kimi-K3",
};
