/* ERNIE-4.5 with experts (300B-A47B, 21B-A3B, and their Base and Thinking): attention with plain heads, whose rotary embedding turns
 * neighbouring rows; dense layers before those with experts, which are routed by softmax with a correction bias; shared experts, or
 * none. What belongs to multi-token prediction has names of its own, and is left out. No permutation. */
#include "proto/arch_table.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define MOE (SL_W_LAYER | SL_W_MOE)

/* The bias ships as a matrix of one row. */
static const struct sl_tensor_tmpl own[] = {
    SL_TENSOR("blk.{i}.exp_probs_b.bias", "model.layers.{i}.mlp.moe_statics.e_score_correction_bias", MOE, NONE, EXPERT, F32),
    SL_END_TENSORS,
};

/* The class has other names for two of them; where both are there, these count. */
static const struct sl_field fields[] = {
    SL_ELSE(RMS_EPS, "rms_norm_eps", 1e-5), SL_CLASS_NEED(CTX, "max_position_embeddings", 131072),
    SL_CLASS_NEED(HEAD_KV, "num_key_value_heads", 4), SL_CLASS_NEED(EXPERT, "moe_num_experts", 64), SL_MAY(EXPERT, "num_experts"),
    SL_CLASS_NEED(EXPERT_USED, "moe_k", 6), SL_MAY(EXPERT_USED, "num_experts_per_tok"),
    SL_FIELD(SHARED, "moe_num_shared_experts", true, true, 2, 0, 1 << 10), SL_CLASS_NEED(DENSE, "moe_layer_start_index", 1),
    SL_CLASS_NEED(MOE_STEP, "moe_layer_interval", 1), SL_CLASS_NEED(MOE_FF, "moe_intermediate_size", 1536), SL_MAY(GROUP, "n_group"),
    SL_MAY(GROUP_USED, "topk_group"), SL_END_FIELDS,
};

/* llama.cpp's layers all have experts from the first one on, and no biases but attention's; the converter computes the width of shared
 * ones from that of dense layers. */
static int check_parts(const struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;
    double end = -1;

    SL_TRY(sl_arch_only(p, "moe_gate_act", "softmax", false, e));
    SL_TRY(sl_config_float(p->config, "", "moe_layer_end_index", &end, e));
    if (n[SL_N_MOE_STEP].u != 1 || (end != -1 && end != (double)n[SL_N_LAYER].u - 1))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" tells of dense layers behind those with experts, which llama.cpp's %s cannot have",
                       n[SL_N_MOE_STEP].u != 1 ? "moe_layer_interval" : "moe_layer_end_index", p->arch->name);
    if (n[SL_N_SHARED].u && n[SL_N_FF].u / n[SL_N_HEAD_KV].u != n[SL_N_SHARED_FF].u)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: shared experts have %u rows, and for llama.cpp's %s the converter takes \"intermediate_size\" / "
                       "\"num_key_value_heads\", %u", (unsigned)n[SL_N_SHARED_FF].u, p->arch->name, (unsigned)(n[SL_N_FF].u / n[SL_N_HEAD_KV].u));
    return sl_arch_whole_rope(p, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    if (!cJSON_GetObjectItemCaseSensitive(p->config, "tie_word_embeddings")) { /* so the configuration class */
        p->tied = true;
        p->when &= ~(uint32_t)SL_W_OUTPUT;
    }
    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_plain_attention(p, e));
    SL_TRY(sl_num_mul(p, SL_N_SHARED_FF, p->num[SL_N_SHARED].u, p->num[SL_N_MOE_FF].u, e));
    SL_TRY(check_parts(p, e));
    if (p->num[SL_N_SHARED].u) {
        sl_num_set(p, SL_N_SHARED_FF_KEY, p->num[SL_N_SHARED_FF].u);
        p->when |= SL_W_SHARED;
    }
    return 0;
}

static void arrange(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    (void)p;
    a->row = sl_ends_with(t->src, ".e_score_correction_bias");
}

static bool drops(const struct sl_params *p, const char *name)
{
    (void)p;
    return strncmp(name, "model.mtp_", 10) == 0;
}

const struct sl_arch sl_arch_ernie45_moe = {
    .name = "ernie4_5-moe",
    .classes = SL_CLASSES("Ernie4_5_MoeForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, sl_arch_dense_tensors,
                          sl_arch_expert_tensors, own),
    .keys = SL_KEYS(SL_N_EXPERT, SL_N_EXPERT_USED, SL_N_MOE_STEP, SL_N_DENSE, SL_N_MOE_FF, SL_N_SHARED, SL_N_SHARED_FF_KEY),
    .facts = SL_FACTS({"use_bias", false, "no biases"}),
    .derive = derive,
    .arrange = arrange,
    .drops = drops,
    .tokens = SL_TOKENS_PIECES,
    .theta = 500000,
    .output_if_there = true,
};
