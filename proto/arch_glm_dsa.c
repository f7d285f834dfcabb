/* GLM-5, 5.1, 5.2: DeepSeek-V3.2's form, of which GLM-5.2 has an indexer in some layers alone; the
 * others take the choice of the one before them. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <string.h>

static int read_indexer_types(struct sl_params *p, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->config, "indexer_types");
    uint64_t n = p->num[SL_N_LAYER].u;

    if (!list || cJSON_IsNull(list))
        return 0;
    if (!cJSON_IsArray(list) || (uint64_t)cJSON_GetArraySize(list) != n)
        return sl_fail(e, SL_ESOURCE, "config.json: \"indexer_types\" is no list of %u entries, one for each layer",
                       (unsigned)n);
    for (const cJSON *x = list->child; x; x = x->next) {
        bool full = cJSON_IsString(x) && strcmp(x->valuestring, "full") == 0;

        if (!full && (!cJSON_IsString(x) || strcmp(x->valuestring, "shared") != 0 || x == list->child))
            return sl_fail(e, SL_ESOURCE, "config.json: \"indexer_types\" has an entry for layer %u that is not \"full\"%s",
                           (unsigned)p->n_indexer_types, x == list->child ? ", as the first must be" : " or \"shared\"");
        p->indexer_full[p->n_indexer_types++] = full;
    }
    sl_num_set(p, SL_N_INDEXERS, n);
    return 0;
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_whole_rope(p, e));
    SL_TRY(read_indexer_types(p, e));
    SL_TRY(sl_arch_indexed_derive(p, e));
    if (!sl_config_str(p->config, "scoring_func"))
        p->num[SL_N_GATING] = (struct sl_number){0}; /* sigmoid is then llama.cpp's own choice */
    return 0;
}

const struct sl_arch sl_arch_glm_dsa = {
    .name = "glm-dsa",
    .classes = SL_CLASSES("GlmMoeDsaForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_latent_fields, sl_arch_indexed_fields),
    .tensors = sl_arch_latent_tensors,
    .keys = sl_arch_latent_keys,
    .derive = derive,
    .mla_only = true,
    .tokens = SL_TOKENS_GLM,
    .shares_heads = true,
    .own_scales = sl_arch_latent_own_scales,
};
