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
    {"blk.{i}.exp_probs_b.bias", "model.layers.{i}.mlp.moe_statics.e_score_correction_bias", MOE, SL_N_NONE, SL_N_EXPERT, 0, SL_SHIP_F32, 0},
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl *const tensors[] = {
    sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, sl_arch_dense_tensors, sl_arch_expert_tensors, own, NULL,
};

/* The class has other names for two of them; where both are there, these count. */
static const struct sl_field fields[] = {
    {SL_N_RMS_EPS, "rms_norm_eps", SL_FIELD_FLOAT, false, 0, 1, 1e-5},
    {SL_N_EXPERT, "moe_num_experts", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT, "num_experts", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT_USED, "moe_k", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT_USED, "num_experts_per_tok", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_SHARED, "moe_num_shared_experts", SL_FIELD_INT, false, 0, 1 << 10, NAN},
    {SL_N_DENSE, "moe_layer_start_index", SL_FIELD_INT, false, 0, SL_MAX_LAYER, NAN},
    {SL_N_MOE_STEP, "moe_layer_interval", SL_FIELD_INT, false, 1, SL_MAX_LAYER, NAN},
    {SL_N_MOE_FF, "moe_intermediate_size", SL_FIELD_INT, false, 1, 1 << 24, NAN},
    {SL_N_GROUP, "n_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_GROUP_USED, "topk_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    SL_END_FIELDS,
};

/* What the configuration class takes for an entry that is not there. */
static int take_defaults(struct sl_params *p, struct sl_error *e)
{
    static const struct { enum sl_num num; uint64_t v; } class[] = {
        {SL_N_CTX, 131072}, {SL_N_HEAD_KV, 4}, {SL_N_EXPERT, 64}, {SL_N_EXPERT_USED, 6}, {SL_N_SHARED, 2}, {SL_N_DENSE, 1},
        {SL_N_MOE_STEP, 1}, {SL_N_MOE_FF, 1536},
    };
    double theta = NAN;

    for (size_t i = 0; i < sizeof class / sizeof *class; i++) {
        if (!p->num[class[i].num].have)
            sl_field_default(p, class[i].num, (double)class[i].v);
        if (!p->num[class[i].num].have) /* null */
            SL_TRY(sl_arch_need(p, class[i].num, e));
    }
    SL_TRY(sl_rope_float(p, "rope_theta", &theta, e));
    if (isnan(theta))
        sl_num_set_f(p, SL_N_ROPE_THETA, 500000);
    if (!cJSON_GetObjectItemCaseSensitive(p->config, "tie_word_embeddings")) {
        p->tied = true;
        p->when &= ~(uint32_t)SL_W_OUTPUT;
    }
    return 0;
}

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
    if (sl_config_bool(p->config, "use_bias", false))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"use_bias\" is true, and llama.cpp's %s has no biases", p->arch->name);
    if (n[SL_N_SHARED].u && n[SL_N_FF].u / n[SL_N_HEAD_KV].u != n[SL_N_SHARED_FF].u)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: shared experts have %u rows, and for llama.cpp's %s the converter takes \"intermediate_size\" / "
                       "\"num_key_value_heads\", %u", (unsigned)n[SL_N_SHARED_FF].u, p->arch->name, (unsigned)(n[SL_N_FF].u / n[SL_N_HEAD_KV].u));
    return sl_arch_whole_rope(p, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(take_defaults(p, e));
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

static const enum sl_num late[] = {SL_N_EXPERT, SL_N_EXPERT_USED, SL_N_NONE};

static const struct sl_key_tmpl keys[] = {
    {"expert_count", SL_KV_U32, SL_N_EXPERT, 0},
    {"expert_used_count", SL_KV_U32, SL_N_EXPERT_USED, 0},
    {"interleave_moe_layer_step", SL_KV_U32, SL_N_MOE_STEP, 0},
    {"leading_dense_block_count", SL_KV_U32, SL_N_DENSE, 0},
    {"expert_feed_forward_length", SL_KV_U32, SL_N_MOE_FF, 0},
    {"expert_shared_count", SL_KV_U32, SL_N_SHARED, 0},
    {"expert_shared_feed_forward_length", SL_KV_U32, SL_N_SHARED_FF_KEY, 0},
    SL_END_KEYS,
};

static const char *const classes[] = {"Ernie4_5_MoeForCausalLM", NULL};

const struct sl_arch sl_arch_ernie45_moe = {
    .name = "ernie4_5-moe",
    .classes = classes,
    .fields = sl_arch_plain_fields,
    .more_fields = fields,
    .tensors = tensors,
    .late = late,
    .keys = keys,
    .derive = derive,
    .arrange = arrange,
    .drops = drops,
    .tokens = SL_TOKENS_PIECES,
    .output_if_there = true,
};
