/* K-EXAONE (EXAONE MoE): of every four layers three look at a window of tokens, through a rotary embedding, and the fourth at all
 * of them, without one; norms on the heads of q and k; experts routed by sigmoid with a bias, and shared ones; a layer for
 * multi-token prediction without experts, kept behind the others. transformers 4 has no configuration class of them, so that nothing
 * is taken for an entry that is not there. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define MOE (SL_W_LAYER | SL_W_MOE)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)

static const struct sl_tensor_tmpl own[] = {
    SL_TENSOR("blk.{i}.exp_probs_b.bias", "model.layers.{i}.mlp.e_score_correction_bias", MOE, NONE, EXPERT, F32),
    SL_MATRIX("blk.{i}.nextn.eh_proj.weight", "mtp.fc.weight", NEXTN, EMBD, TWO_EMBD),
    SL_VECTOR("blk.{i}.nextn.enorm.weight", "mtp.pre_fc_norm_embedding.weight", NEXTN, EMBD),
    SL_VECTOR("blk.{i}.nextn.hnorm.weight", "mtp.pre_fc_norm_hidden.weight", NEXTN, EMBD),
    SL_VECTOR("blk.{i}.nextn.shared_head_norm.weight", "mtp.norm.weight", NEXTN, EMBD),
    SL_END_TENSORS,
};

/* Of two entries with one number the later one counts. */
static const struct sl_field moe_fields[] = {
    SL_NEED(CTX, "max_position_embeddings"), SL_NEED(EXPERT, "num_experts"), SL_MAY(EXPERT, "num_local_experts"),
    SL_NEED(EXPERT_USED, "num_experts_per_tok"), SL_MAY(GROUP, "n_group"), SL_MAY(GROUP_USED, "topk_group"),
    SL_NEED(WINDOW, "sliding_window"), SL_NEED(MOE_FF, "moe_intermediate_size"), SL_NEED(SHARED, "num_shared_experts"),
    SL_NEED(EXPERT_SCALE, "routed_scaling_factor"), SL_NEED(EXPERT_NORM, "norm_topk_prob"),
    SL_ELSE(DENSE, "first_last_k_dense_replace", 0), SL_MAY(DENSE, "first_k_dense_replace"),
    SL_ELSE(NEXTN, "num_nextn_predict_layers", 0), SL_END_FIELDS,
};

/* By sliding_window_pattern, a number or letters, where config.json has no list. Returns whether it tells of layer i; *near = what. */
static bool by_pattern(const struct sl_params *p, uint64_t i, bool *near)
{
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(p->config, "sliding_window_pattern");
    size_t n = cJSON_IsString(pattern) ? strlen(pattern->valuestring) : 0;

    if (n)
        *near = pattern->valuestring[i % n] == 'L';
    else if (cJSON_IsNumber(pattern) && pattern->valuedouble >= 1 && pattern->valuedouble <= SL_MAX_LAYER)
        *near = (i + 1) % (uint64_t)pattern->valuedouble != 0;
    else
        return false;
    return true;
}

/* llama.cpp of August goes by an interval, whatever the list says. */
static int derive_layers(struct sl_params *p, struct sl_error *e)
{
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(p->config, "layer_types"), *type = types ? types->child : NULL;
    uint64_t n = p->num[SL_N_LAYER].u, listed = 0;
    bool list = cJSON_IsArray(types);

    for (uint64_t i = 0; i < n; i++) {
        bool near = (i + 1) % SL_WINDOW_PERIOD != 0, is = near;

        if (list) {
            is = cJSON_IsString(type) && strcmp(type->valuestring, "sliding_attention") == 0;
            listed += type != NULL;
            type = type ? type->next : NULL;
        } else {
            listed += by_pattern(p, i, &is);
        }
        if (is != near || (list && listed <= i) || (i + 1 == n && type))
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" has another entry for layer %u than llama.cpp's %s, of which every fourth layer looks "
                           "at all tokens", list ? "layer_types" : "sliding_window_pattern", (unsigned)i, p->arch->name);
        p->kinds[i] = (uint8_t)((near ? SL_LAYER_WINDOW : 0) | (i < p->num[SL_N_DENSE].u ? SL_LAYER_DENSE : 0));
    }
    for (uint64_t i = n; i < n + p->num[SL_N_NEXTN].u; i++)
        p->kinds[i] = SL_LAYER_DENSE;
    p->has_kinds = true;
    if (listed)
        sl_num_set(p, SL_N_WINDOW_LIST, n);
    return 0;
}

static int derive_rope(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    if (p->rope_type)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: rope_scaling of type %.60s is not supported for %s", p->rope_type, p->hf_class);
    SL_TRY(sl_arch_need_theta(p, e));
    SL_TRY(sl_arch_whole_rope(p, e));
    SL_TRY(sl_arch_window_theta(p, e));
    return !n[SL_N_ROPE_THETA_WINDOW].have || n[SL_N_ROPE_THETA_WINDOW].f == n[SL_N_ROPE_THETA].f ? 0
               : sl_fail(e, SL_EUNSUPPORTED, "config.json: a \"rope_theta\" of %g for windows and of %g for all tokens, and llama.cpp's %s has one",
                         n[SL_N_ROPE_THETA_WINDOW].f, n[SL_N_ROPE_THETA].f, p->arch->name);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    const char *name, *func = sl_arch_scoring(p, &name);
    struct sl_number *n = p->num;

    SL_TRY(sl_arch_plain_attention(p, e));
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_gating(p, name, func ? func : "sigmoid", e)); /* without it llama.cpp does not load the model at all */
    SL_TRY(derive_rope(p, e));
    SL_TRY(derive_layers(p, e));
    SL_TRY(sl_num_mul(p, SL_N_SHARED_FF, n[SL_N_SHARED].u, n[SL_N_MOE_FF].u, e));
    n[SL_N_SHARED_FF_KEY] = n[SL_N_SHARED_FF];
    p->when |= SL_W_HEAD_NORM | SL_W_SHARED;
    sl_arch_keep_mtp(p);
    sl_num_set(p, SL_N_NO_SCALING, 0);
    sl_num_set(p, SL_N_NEXTN, n[SL_N_NEXTN].u); /* the key says 0, too */
    return 0;
}

static bool drops(const struct sl_params *p, const char *name)
{
    return p->no_mtp && strncmp(name, "mtp.", 4) == 0;
}

const struct sl_arch sl_arch_exaone_moe = {
    .name = "exaone-moe",
    .classes = SL_CLASSES("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, moe_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, sl_arch_dense_tensors,
                          sl_arch_expert_tensors, own),
    .keys = SL_KEYS(SL_N_VOCAB, SL_N_WINDOW, SL_N_WINDOW_LIST, SL_N_MOE_FF, SL_N_SHARED, SL_N_SHARED_FF_KEY, SL_N_EXPERT_SCALE,
                    SL_N_EXPERT_NORM, SL_N_DENSE, SL_N_NEXTN, SL_N_NO_SCALING),
    .facts = SL_FACTS(SL_OWN_HEAD),
    .derive = derive,
    .drops = drops,
    .mtp_prefix = "mtp.layers.",
    .mtp_sign = "mtp.fc.weight",
};
