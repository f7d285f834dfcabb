/* DeepSeek V2, V3, R1, Kimi-K2, Kimi-K2.5's text model and models of their form: multi-head latent attention
 * and many experts. In the MLA layout kv_b_proj becomes two tensors, and the
 * metadata tell of attention with one compressed key-value head. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define FULL (SL_W_LAYER | SL_W_FULL)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define INDEXER (SL_W_LAYER | SL_W_INDEXER)
#define OF_LAYER "model.layers.{i}."
#define ATTN "model.layers.{i}.self_attn."

const struct sl_tensor_tmpl sl_arch_latent_attention_tensors[] = {
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", FULL | SL_W_NOQLORA, Q_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_q_a.weight", ATTN "q_a_proj.weight", FULL | SL_W_QLORA, Q_LORA, EMBD),
    SL_VECTOR("blk.{i}.attn_q_a_norm.weight", ATTN "q_a_layernorm.weight", FULL | SL_W_QLORA, Q_LORA),
    SL_MATRIX("blk.{i}.attn_q_b.weight", ATTN "q_b_proj.weight", FULL | SL_W_QLORA, Q_ROWS, Q_LORA),
    SL_MATRIX("blk.{i}.attn_kv_a_mqa.weight", ATTN "kv_a_proj_with_mqa.weight", FULL, KV_A_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_kv_a_norm.weight", ATTN "kv_a_layernorm.weight", FULL, KV_LORA),
    SL_MATRIX("blk.{i}.attn_kv_b.weight", ATTN "kv_b_proj.weight", FULL | SL_W_LEGACY, KV_B_ROWS, KV_LORA),
    {"blk.{i}.attn_k_b.weight", ATTN "kv_b_proj.weight", FULL | SL_W_MLA, SL_N_KV_B_ROWS, SL_N_KV_LORA, SL_K_B,
     SL_SHIP_LINEAR, SL_N_HEAD},
    {"blk.{i}.attn_v_b.weight", ATTN "kv_b_proj.weight", FULL | SL_W_MLA, SL_N_KV_B_ROWS, SL_N_KV_LORA, SL_V_B,
     SL_SHIP_LINEAR, SL_N_HEAD},
    SL_MATRIX("blk.{i}.attn_gate.weight", ATTN "g_proj.weight", FULL | SL_W_OUT_GATE, O_COLS, EMBD),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", FULL, EMBD, O_COLS),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl indexer[] = {
    SL_MATRIX("blk.{i}.indexer.attn_q_b.weight", ATTN "indexer.wq_b.weight", INDEXER, INDEX_ROWS, Q_LORA),
    SL_MATRIX("blk.{i}.indexer.attn_k.weight", ATTN "indexer.wk.weight", INDEXER, INDEX_DIM, EMBD),
    SL_TENSOR("blk.{i}.indexer.k_norm.weight", ATTN "indexer.k_norm.weight", INDEXER, NONE, INDEX_DIM, F32),
    SL_TENSOR("blk.{i}.indexer.k_norm.bias", ATTN "indexer.k_norm.bias", INDEXER, NONE, INDEX_DIM, F32),
    SL_TENSOR("blk.{i}.indexer.proj.weight", ATTN "indexer.weights_proj.weight", INDEXER, INDEX_HEADS, EMBD, BASE),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl nextn[] = {
    SL_TENSOR("blk.{i}.nextn.embed_tokens.weight", OF_LAYER "embed_tokens.weight", NEXTN | SL_W_OPTIONAL, VOCAB, EMBD, BASE),
    {"blk.{i}.nextn.shared_head_head.weight", OF_LAYER "shared_head.head.weight",
     NEXTN | SL_W_OPTIONAL, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.nextn.shared_head_norm.weight", OF_LAYER "shared_head.norm.weight",
     NEXTN | SL_W_OPTIONAL, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    SL_END_TENSORS,
};

const struct sl_tensor_tmpl *const sl_arch_latent_tensors[] = {
    sl_arch_common_tensors, sl_arch_norm_tensors, sl_arch_latent_attention_tensors, sl_arch_dense_tensors,
    sl_arch_expert_tensors, indexer, sl_arch_nextn_tensors, nextn, NULL,
};

const struct sl_field sl_arch_latent_fields[] = {
    SL_NEED(FF, "intermediate_size"), SL_MAY(HEAD_KV_SRC, "num_key_value_heads"), SL_ELSE(RMS_EPS, "rms_norm_eps", 1e-6),
    SL_MAY(EXPERT_USED, "num_experts_per_tok"), SL_MAY(GROUP, "n_group"), SL_MAY(GROUP_USED, "topk_group"),
    SL_MAY(DENSE, "first_k_dense_replace"), SL_MAY(Q_LORA, "q_lora_rank"), SL_ELSE(KV_LORA, "kv_lora_rank", 512),
    SL_ELSE(NOPE, "qk_nope_head_dim", 128), SL_ELSE(ROPE_DIM, "qk_rope_head_dim", 64), SL_ELSE(V_DIM, "v_head_dim", 128),
    SL_MAY(MOE_FF, "moe_intermediate_size"), SL_MAY(EXPERT, "n_routed_experts"),
    SL_FIELD(SHARED, "n_shared_experts", false, false, 0, 0, 1 << 10), SL_MAY(EXPERT_SCALE, "routed_scaling_factor"),
    SL_MAY(EXPERT_NORM, "norm_topk_prob"), SL_END_FIELDS,
};

const enum sl_num sl_arch_latent_keys[] = {
    SL_N_KEY_LEN, SL_N_VALUE_LEN, SL_N_DENSE, SL_N_VOCAB, SL_N_Q_LORA, SL_N_KV_LORA, SL_N_KEY_LEN_LATE, SL_N_VALUE_LEN_LATE,
    SL_N_KEY_LEN_MLA, SL_N_VALUE_LEN_MLA, SL_N_MOE_FF, SL_N_SHARED, SL_N_EXPERT_SCALE, SL_N_EXPERT_NORM, SL_N_ROPE_DIM, SL_N_ROPE_FACTOR_LATE,
    SL_N_YARN_FAST_LATE, SL_N_YARN_SLOW_LATE, SL_N_YARN_LOG, SL_N_ROPE_ORIG_LATE, SL_N_TEMPERATURE, SL_N_TEMPERATURE_LENGTH, SL_N_NEXTN,
    SL_N_INDEX_HEADS, SL_N_INDEX_DIM, SL_N_INDEX_TOP, SL_N_INDEXERS, SL_N_NONE,
};

/* The converter reads config.json through the configuration class that model_type names, and as
 * it stands where the library has none of this name, as for "kimi_k2", or there is no name. */
static bool has_class(const struct sl_params *p)
{
    const char *type = sl_config_str(p->config, "model_type");

    return type && (strcmp(type, "deepseek_v2") == 0 || strcmp(type, "deepseek_v3") == 0);
}

/* V3 and what came of it, but not V2. */
static bool is_v3(const struct sl_params *p)
{
    return strcmp(p->hf_class, "DeepseekV2ForCausalLM") != 0;
}

/* NAN: the class does without. */
static void take_class_defaults(struct sl_params *p)
{
    static const struct { enum sl_num num; double v2, v3; } missing[] = {
        {SL_N_CTX, 2048, 4096}, {SL_N_Q_LORA, 1536, 1536},
        /* from here on: of models with experts alone */
        {SL_N_MOE_FF, 1407, 2048}, {SL_N_DENSE, 0, 3}, {SL_N_SHARED, 2, 1}, {SL_N_EXPERT_USED, NAN, 8},
        {SL_N_GROUP, NAN, 8}, {SL_N_GROUP_USED, NAN, 4}, {SL_N_EXPERT_SCALE, 1.0, 2.5}, {SL_N_EXPERT_NORM, 0, 1},
    };
    size_t n = p->num[SL_N_EXPERT].have ? sizeof missing / sizeof *missing : 2;

    for (size_t i = 0; i < n; i++) {
        double v = is_v3(p) ? missing[i].v3 : missing[i].v2;

        if (!isnan(v))
            sl_field_default(p, missing[i].num, v);
    }
}

int sl_arch_check_experts(const struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    if (n[SL_N_DENSE].u > n[SL_N_LAYER].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"first_k_dense_replace\" is %u of %u layers",
                       (unsigned)n[SL_N_DENSE].u, (unsigned)n[SL_N_LAYER].u);
    if (!n[SL_N_EXPERT].have)
        return 0;
    SL_TRY(sl_arch_need(p, SL_N_EXPERT, e));
    if (n[SL_N_EXPERT_USED].have && n[SL_N_EXPERT_USED].u > n[SL_N_EXPERT].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" is %u of %u experts",
                       sl_arch_field_name(p, SL_N_EXPERT_USED), (unsigned)n[SL_N_EXPERT_USED].u, (unsigned)n[SL_N_EXPERT].u);
    if (n[SL_N_GROUP].have && n[SL_N_EXPERT].u % n[SL_N_GROUP].u)
        return sl_fail(e, SL_ESOURCE, "config.json: %u experts cannot be divided in %u groups "
                       "(\"n_group\")", (unsigned)n[SL_N_EXPERT].u, (unsigned)n[SL_N_GROUP].u);
    if (n[SL_N_GROUP].have && n[SL_N_GROUP_USED].have && n[SL_N_GROUP_USED].u > n[SL_N_GROUP].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"topk_group\" is %u of %u groups",
                       (unsigned)n[SL_N_GROUP_USED].u, (unsigned)n[SL_N_GROUP].u);
    return 0;
}

/* Layers without a fact of their own: all dense in a model without experts. */
static int derive_experts(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    if (!n[SL_N_EXPERT].have && has_class(p) &&
        !cJSON_GetObjectItemCaseSensitive(p->config, "n_routed_experts"))
        return sl_fail(e, SL_ESOURCE, "config.json has no \"n_routed_experts\": the class of %s takes %d "
                       "experts then; a model without experts has null there", p->hf_class,
                       is_v3(p) ? 256 : 64);
    if (!n[SL_N_DENSE].have)
        sl_num_set(p, SL_N_DENSE, n[SL_N_EXPERT].have ? 0 : n[SL_N_LAYER].u);
    if (!n[SL_N_MOE_FF].have)
        sl_num_set(p, SL_N_MOE_FF, n[SL_N_FF].u);
    if (n[SL_N_EXPERT_NORM].have && !n[SL_N_EXPERT_NORM].u)
        p->num[SL_N_EXPERT_NORM].have = false; /* written only when true */
    SL_TRY(sl_arch_check_experts(p, e));
    if (!n[SL_N_EXPERT].have)
        return 0;
    if (n[SL_N_SHARED].u)
        p->when |= SL_W_SHARED;
    return sl_num_mul(p, SL_N_SHARED_FF, n[SL_N_SHARED].u, n[SL_N_MOE_FF].u, e);
}

/* V3 routes by sigmoid with a correction bias ("noaux_tc"), V2 by softmax without; configs
 * written by newer libraries leave both entries out. The converter then writes no function, which
 * llama.cpp takes for softmax: wrong for V3, whose is written. */
static int derive_routing(struct sl_params *p, struct sl_error *e)
{
    bool v3 = is_v3(p);
    const char *func = sl_config_str(p->config, "scoring_func");
    const char *method = sl_config_str(p->config, "topk_method");

    if (method ? strcmp(method, "noaux_tc") == 0 : v3)
        p->when |= SL_W_CORR;
    if (!func && !v3)
        return 0;
    return sl_arch_gating(p, "scoring_func", func ? func : "sigmoid", e);
}

int sl_arch_latent_attention(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;
    uint64_t heads = n[SL_N_HEAD].u, nope = n[SL_N_NOPE].u, rope = n[SL_N_ROPE_DIM].u;
    uint64_t lora = n[SL_N_KV_LORA].u, v = n[SL_N_V_DIM].u;
    bool mla = p->layout == SL_LAYOUT_MLA;
    /* Classes have a head_dim, for which the converter writes the keys earlier; but not for null. */
    const cJSON *head_dim = cJSON_GetObjectItemCaseSensitive(p->config, "head_dim");
    bool late = head_dim ? cJSON_IsNull(head_dim) : !has_class(p);

    if (n[SL_N_HEAD_KV_SRC].have && n[SL_N_HEAD_KV_SRC].u != heads)
        return sl_fail(e, SL_ESOURCE, "config.json: \"num_key_value_heads\" is %u: with latent "
                       "attention it is \"num_attention_heads\", %u",
                       (unsigned)n[SL_N_HEAD_KV_SRC].u, (unsigned)heads);
    p->when |= n[SL_N_Q_LORA].have ? SL_W_QLORA : SL_W_NOQLORA;
    p->when |= mla ? SL_W_MLA : SL_W_LEGACY;
    sl_num_set(p, SL_N_HEAD_KV, mla ? 1 : heads);
    sl_num_set(p, late ? SL_N_KEY_LEN_LATE : SL_N_KEY_LEN, mla ? lora + rope : nope + rope);
    sl_num_set(p, late ? SL_N_VALUE_LEN_LATE : SL_N_VALUE_LEN, mla ? lora : v);
    if (mla) {
        sl_num_set(p, SL_N_KEY_LEN_MLA, nope + rope);
        sl_num_set(p, SL_N_VALUE_LEN_MLA, v);
    }
    sl_num_set(p, SL_N_KV_A_ROWS, lora + rope);
    SL_TRY(sl_num_mul(p, SL_N_Q_ROWS, heads, nope + rope, e));
    SL_TRY(sl_num_mul(p, SL_N_KV_B_ROWS, heads, nope + v, e));
    return sl_num_mul(p, SL_N_O_COLS, heads, v, e);
}

int sl_arch_latent_derive(struct sl_params *p, struct sl_error *e)
{
    double mscale = NAN;

    if (has_class(p))
        take_class_defaults(p);
    SL_TRY(sl_arch_latent_attention(p, e));
    SL_TRY(derive_experts(p, e));
    SL_TRY(derive_routing(p, e));
    SL_TRY(sl_arch_no_llama3(p, e));
    /* The factor 0.1 is a convention of these files; the product is made in
     * double, as the converter makes it. */
    SL_TRY(sl_config_float(p->rope, "rope_scaling.", "mscale_all_dim", &mscale, e));
    if (!isnan(mscale))
        sl_num_set_f(p, SL_N_YARN_LOG, 0.1 * mscale);
    return 0;
}

/* The last one's text model says that it is of the second (checkpoint_text.c). */
const struct sl_arch sl_arch_deepseek2 = {
    .name = "deepseek2",
    .classes = SL_CLASSES("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "KimiK25ForConditionalGeneration"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_latent_fields),
    .tensors = sl_arch_latent_tensors,
    .keys = sl_arch_latent_keys,
    .derive = sl_arch_latent_derive,
    .drops_mtp = true,
};
