/* GLM-4.7-Flash: DeepSeek-V3's form, with GLM's tokens, and its layer for multi-token prediction kept behind the others. */
#include "proto/arch_table.h"

#include <math.h>

static const struct sl_field more_fields[] = {
    SL_MAY(NEXTN, "num_nextn_predict_layers"), SL_END_FIELDS,
};

/* By its size llama.cpp knows the model, and that it routes by sigmoid. */
static bool is_known(const struct sl_params *p)
{
    return p->num[SL_N_LAYER].u == 47 && p->num[SL_N_NEXTN].u <= 1 && p->num[SL_N_VOCAB].u == 154880;
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_whole_rope(p, e));
    SL_TRY(sl_arch_latent_derive(p, e));
    if (!sl_config_str(p->config, "scoring_func") && is_known(p))
        p->num[SL_N_GATING] = (struct sl_number){0};
    p->no_mtp |= !p->num[SL_N_NEXTN].u; /* where none is told of, those that are there are dropped */
    sl_arch_keep_mtp(p);
    return 0;
}

const struct sl_arch sl_arch_glm_flash = {
    .name = "deepseek2",
    .classes = SL_CLASSES("Glm4MoeLiteForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_latent_fields, more_fields),
    .tensors = sl_arch_latent_tensors,
    .keys = sl_arch_latent_keys,
    .derive = derive,
    .mla_only = true,
    .tokens = SL_TOKENS_GLM,
};
