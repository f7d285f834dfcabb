/* Qwen3-VL's text models, dense and with experts: Qwen3's, whose rotary embedding has sections, and which add what vision's
 * layers give to the input of their first ones. A layer's experts ship in one tensor, transposed. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <math.h>

static const struct sl_tensor_tmpl *const tensors[] = {sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors,
                                                       sl_arch_dense_tensors, NULL};
static const struct sl_tensor_tmpl *const moe_tensors[] = {sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors,
                                                           sl_arch_qwen_moe_tensors, NULL};

/* How many of vision's layers are passed on, by the converter's library 3 where config.json does not say. */
static int read_deepstack(struct sl_params *p, struct sl_error *e)
{
    const cJSON *vision = cJSON_GetObjectItemCaseSensitive(p->config, "vision_config");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(vision, "deepstack_visual_indexes");

    if (list && !cJSON_IsArray(list))
        return sl_fail(e, SL_ESOURCE, "config.json: \"deepstack_visual_indexes\" is no list");
    sl_num_set(p, SL_N_DEEPSTACK, list ? (uint64_t)cJSON_GetArraySize(list) : 3);
    if (p->num[SL_N_DEEPSTACK].u < p->num[SL_N_LAYER].u)
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"deepstack_visual_indexes\" has %u layers for %u of the text model, with which "
                   "llama.cpp's %s does not run", (unsigned)p->num[SL_N_DEEPSTACK].u, (unsigned)p->num[SL_N_LAYER].u, p->arch->name);
}

/* What the configuration classes take for what is absent. */
static int derive_any(struct sl_params *p, uint64_t heads_kv, struct sl_error *e)
{
    double theta = NAN;
    int rc;

    if (!p->num[SL_N_CTX].have)
        sl_num_set(p, SL_N_CTX, 128000);
    SL_TRY(sl_rope_float(p, "rope_theta", &theta, e));
    if (isnan(theta))
        sl_num_set_f(p, SL_N_ROPE_THETA, 5e6);
    SL_TRY(rc = sl_arch_sections(p, e));
    if (rc == 0)
        return sl_fail(e, SL_ESOURCE, "config.json has no \"mrope_section\", without which llama.cpp does not load %s", p->arch->name);
    SL_TRY(read_deepstack(p, e));
    return sl_arch_normed_attention(p, heads_kv, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    sl_field_default(p, SL_N_HEAD_DIM, 128);
    return derive_any(p, 32, e);
}

static int derive_moe(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    SL_TRY(sl_arch_need(p, SL_N_EXPERT, e));
    if (!n[SL_N_EXPERT_USED].have)
        sl_num_set(p, SL_N_EXPERT_USED, 4);
    if (!n[SL_N_HEAD_DIM].have && n[SL_N_EMBD].u >= n[SL_N_HEAD].u)
        sl_num_set(p, SL_N_HEAD_DIM, n[SL_N_EMBD].u / n[SL_N_HEAD].u);
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_all_have_experts(p, e));
    return derive_any(p, 16, e);
}

static const struct sl_key_tmpl keys[] = {
    {"expert_feed_forward_length", SL_KV_U32, SL_N_MOE_FF, 0},
    {"expert_shared_feed_forward_length", SL_KV_U32, SL_N_SHARED_FF_KEY, 0},
    {"n_deepstack_layers", SL_KV_U32, SL_N_DEEPSTACK, 0},
    SL_END_KEYS,
};

static const char *const classes[] = {"Qwen3VLForConditionalGeneration", NULL};
static const char *const moe_classes[] = {"Qwen3VLMoeForConditionalGeneration", NULL};

const struct sl_arch sl_arch_qwen3vl = {
    .name = "qwen3vl",
    .classes = classes,
    .fields = sl_arch_plain_fields,
    .tensors = tensors,
    .keys = keys,
    .derive = derive,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
    .ranks = true,
};

const struct sl_arch sl_arch_qwen3vlmoe = {
    .name = "qwen3vlmoe",
    .classes = moe_classes,
    .joins_experts = true,
    .fields = sl_arch_plain_fields,
    .more_fields = sl_arch_qwen_moe_fields,
    .tensors = moe_tensors,
    .keys = keys,
    .derive = derive_moe,
    .arrange = sl_arch_transposed_experts,
    .output_if_there = true,
};
