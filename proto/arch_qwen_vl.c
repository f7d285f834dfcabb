/* Qwen3-VL's text models, dense and with experts: Qwen3's, whose rotary embedding has sections, and which add what vision's
 * layers give to the input of their first ones. A layer's experts ship in one tensor, transposed. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <math.h>

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
static const struct sl_field class_fields[] = {
    SL_ELSE(CTX, "max_position_embeddings", 128000), SL_CLASS(HEAD_KV, "num_key_value_heads", 32), SL_CLASS(HEAD_DIM, "head_dim", 128),
    SL_END_FIELDS,
};
static const struct sl_field moe_class_fields[] = {
    SL_ELSE(CTX, "max_position_embeddings", 128000), SL_CLASS(HEAD_KV, "num_key_value_heads", 16),
    SL_ELSE(EXPERT_USED, "num_experts_per_tok", 4), SL_END_FIELDS,
};

static int derive(struct sl_params *p, struct sl_error *e)
{
    int rc;

    SL_TRY(rc = sl_arch_sections(p, e));
    if (rc == 0)
        return sl_fail(e, SL_ESOURCE, "config.json has no \"mrope_section\", without which llama.cpp does not load %s", p->arch->name);
    SL_TRY(read_deepstack(p, e));
    return sl_arch_normed_attention(p, e);
}

static int derive_moe(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    if (!n[SL_N_HEAD_DIM].have && n[SL_N_EMBD].u >= n[SL_N_HEAD].u)
        sl_num_set(p, SL_N_HEAD_DIM, n[SL_N_EMBD].u / n[SL_N_HEAD].u);
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_all_have_experts(p, e));
    return derive(p, e);
}

const struct sl_arch sl_arch_qwen3vl = {
    .name = "qwen3vl",
    .classes = SL_CLASSES("Qwen3VLForConditionalGeneration"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, class_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, sl_arch_dense_tensors),
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_SHARED_FF_KEY, SL_N_DEEPSTACK),
    .facts = sl_arch_normed_facts,
    .derive = derive,
    .theta = 5e6,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
    .ranks = true,
};

const struct sl_arch sl_arch_qwen3vlmoe = {
    .name = "qwen3vlmoe",
    .classes = SL_CLASSES("Qwen3VLMoeForConditionalGeneration"),
    .joins_experts = true,
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, sl_arch_qwen_moe_fields, moe_class_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, sl_arch_qwen_moe_tensors),
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_SHARED_FF_KEY, SL_N_DEEPSTACK),
    .facts = sl_arch_normed_facts,
    .derive = derive_moe,
    .arrange = sl_arch_transposed_experts,
    .theta = 5e6,
    .output_if_there = true,
};
