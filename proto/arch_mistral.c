/* Mistral-Large-3, in Mistral's own format (checkpoint_mistral.c): DeepSeek-V3's form with routing by softmax, and a
 * temperature that grows with the place of a token. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <math.h>

static const struct sl_field yarn_fields[] = {
    SL_NEED(ROPE_FACTOR_LATE, "factor"), SL_NEED(YARN_FAST_LATE, "beta"), SL_NEED(YARN_SLOW_LATE, "alpha"),
    SL_NEED(ROPE_ORIG_LATE, "original_max_position_embeddings"), SL_END_FIELDS,
};

static const struct sl_field temperature_fields[] = {
    SL_NEED(TEMPERATURE, "beta"), SL_END_FIELDS,
};

/* llama.cpp's multiplier is the same whatever apply_scale says: with it the model would be another. */
static int derive(struct sl_params *p, struct sl_error *e)
{
    const cJSON *yarn = cJSON_GetObjectItemCaseSensitive(p->config, "yarn");
    const cJSON *scaling = cJSON_GetObjectItemCaseSensitive(p->config, "llama_4_scaling");

    if (!cJSON_IsObject(yarn) || !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(yarn, "apply_scale")))
        return sl_fail(e, SL_EUNSUPPORTED, "params.json: \"yarn\" without \"apply_scale\": false is not supported");
    SL_TRY(sl_arch_read_fields(p, yarn, yarn_fields, e));
    if (scaling && !cJSON_IsNull(scaling))
        SL_TRY(sl_arch_read_fields(p, scaling, temperature_fields, e));
    SL_TRY(sl_arch_latent_derive(p, e));
    p->rope_type = "yarn";
    sl_num_set_f(p, SL_N_YARN_LOG, 0.1);
    sl_num_set(p, SL_N_TEMPERATURE_LENGTH, p->num[SL_N_ROPE_ORIG_LATE].u);
    return 0;
}

const struct sl_arch sl_arch_mistral_large3 = {
    .name = "deepseek2",
    .classes = SL_CLASSES("MistralLarge3ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_latent_fields),
    .tensors = sl_arch_latent_tensors,
    .keys = sl_arch_latent_keys,
    .derive = derive,
    .tokens = SL_TOKENS_TEKKEN,
    .template_of = "Mistral",
    .output_if_there = true,
};
