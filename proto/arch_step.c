/* Step-3.5-Flash, and the text model of Step-3.7-Flash: layers that look at a window of tokens, with more heads, between those that
 * look at all; a gate for each head of the attention's output; a layer's experts in three tensors, and a shared one; norms that
 * are stored less one; activations that some layers bound; layers for multi-token prediction, kept behind the others. */
#include "proto/arch_table.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define L SL_W_LAYER
#define MOE (SL_W_LAYER | SL_W_MOE)
#define FULL (SL_W_LAYER | SL_W_FULL)
#define WINDOW (SL_W_LAYER | SL_W_WINDOW)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."
#define ATTN OF_LAYER "self_attn."
#define EXPERTS OF_LAYER "moe."
#define SHARED OF_LAYER "share_expert."
#define HEAD OF_LAYER "transformer.shared_head."

static const struct sl_tensor_tmpl own[] = {
    {"rope_freqs.weight", NULL, SL_W_FREQS, SL_N_NONE, SL_N_HALF_ROPE, SL_INLINE, SL_SHIP_F32, 0},
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", FULL, Q_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", WINDOW, Q_ROWS_WINDOW, EMBD),
    SL_VECTOR("blk.{i}.attn_q_norm.weight", ATTN "q_norm.weight", L, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", FULL, KV_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", WINDOW, K_ROWS_WINDOW, EMBD),
    SL_VECTOR("blk.{i}.attn_k_norm.weight", ATTN "k_norm.weight", L, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", FULL, KV_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", WINDOW, K_ROWS_WINDOW, EMBD),
    SL_TENSOR("blk.{i}.attn_gate.weight", ATTN "g_proj.weight", FULL | SL_W_OUT_GATE, HEAD, EMBD, BASE),
    SL_TENSOR("blk.{i}.attn_gate.weight", ATTN "g_proj.weight", WINDOW | SL_W_OUT_GATE, HEAD_WINDOW, EMBD, BASE),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", FULL, EMBD, Q_ROWS),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", WINDOW, EMBD, Q_ROWS_WINDOW),
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", EXPERTS "gate.weight", MOE, EXPERT, EMBD, BASE),
    SL_TENSOR("blk.{i}.exp_probs_b.bias", EXPERTS "router_bias", MOE | SL_W_CORR, NONE, EXPERT, F32),
    SL_GATED("_exps", EXPERTS, MOE, MOE_FF, EMBD, LINEAR),
    SL_GATED("_shexp", SHARED, MOE, SHARED_FF_KEY, EMBD, LINEAR),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl nextn[] = {
    SL_TENSOR("blk.{i}.nextn.embed_tokens.weight", OF_LAYER "embed_tokens.weight", NEXTN | SL_W_OPTIONAL, VOCAB, EMBD, BASE),
    SL_VECTOR("blk.{i}.nextn.shared_head_norm.weight", HEAD "norm.weight", NEXTN | SL_W_OPTIONAL, EMBD),
    SL_TENSOR("blk.{i}.nextn.shared_head_head.weight", HEAD "output.weight", NEXTN | SL_W_OPTIONAL, VOCAB, EMBD, BASE),
    SL_END_TENSORS,
};

static const struct sl_field fields[] = {
    SL_NEED(CTX, "max_position_embeddings"), SL_NEED(FF, "intermediate_size"), SL_NEED(HEAD_KV, "num_attention_groups"),
    SL_NEED(RMS_EPS, "rms_norm_eps"), SL_NEED(HEAD_DIM, "head_dim"), SL_NEED(WINDOW, "sliding_window"),
    SL_NEED(EXPERT, "moe_num_experts"), SL_NEED(EXPERT_USED, "moe_top_k"), SL_NEED(MOE_FF, "moe_intermediate_size"),
    SL_NEED(SHARED_FF_KEY, "share_expert_dim"), SL_MAY(EXPERT_SCALE, "moe_router_scaling_factor"),
    SL_MAY(EXPERT_NORM, "norm_expert_weight"), SL_ELSE(MOE_EVERY, "moe_every_n_layer", 1), SL_ELSE(NEXTN, "num_nextn_predict_layers", 0),
    SL_END_FIELDS,
};

/* Of "attention_other_setting". */
static const struct sl_field window_fields[] = {
    SL_MAY(HEAD_WINDOW, "num_attention_heads"), SL_MAY(HEAD_KV_WINDOW, "num_attention_groups"), SL_END_FIELDS,
};

static void arrange(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    if (t->src && sl_ends_with(t->src, "norm.weight"))
        a->change = SL_PLUS_ONE;
    if (!sl_ends_with(t->out, "_exps.weight"))
        return;
    a->stack = true;
    memcpy(a->shape, (uint64_t[3]){p->num[SL_N_EXPERT].u, p->num[t->rows].u, p->num[t->cols].u}, sizeof a->shape);
}

/* ---- facts of layers ---- */

/* Lists may be of the layers for multi-token prediction, too; what is not told of looks at all tokens, through half a head. */
static int read_kinds(struct sl_params *p, uint64_t n, struct sl_error *e)
{
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(p->config, "layer_types");
    const cJSON *parts = cJSON_GetObjectItemCaseSensitive(p->config, "partial_rotary_factors");
    const cJSON *type = types ? types->child : NULL, *part = parts ? parts->child : NULL;
    bool full = false, near = false;

    for (uint64_t i = 0; i < n; i++) {
        bool window = cJSON_IsString(type) && strcmp(type->valuestring, "sliding_attention") == 0;

        if (type && !window && !(cJSON_IsString(type) && strcmp(type->valuestring, "full_attention") == 0))
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"layer_types\" has another entry for layer %u than full_attention and "
                           "sliding_attention", (unsigned)i);
        if ((part && !cJSON_IsNumber(part)) || (part ? part->valuedouble : 0.5) != (window ? 1 : 0.5))
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"partial_rotary_factors\" has another entry for layer %u than %s, which llama.cpp's "
                           "%s has for %s_attention", (unsigned)i, window ? "1" : "0.5", p->arch->name, window ? "sliding" : "full");
        p->kinds[i] = window ? SL_LAYER_WINDOW : 0;
        near = near || window;
        full = full || (!window && i < p->num[SL_N_LAYER].u);
        type = type ? type->next : NULL;
        part = part ? part->next : NULL;
    }
    p->has_kinds = true;
    return near && full ? 0 : sl_fail(e, SL_EUNSUPPORTED, "config.json: \"layer_types\" tells of no layer of %s_attention, without which "
                                      "llama.cpp's %s does not run", full ? "sliding" : "full", p->arch->name);
}

/* Layers with experts are told by their numbers, between commas. */
static int read_experts(struct sl_params *p, uint64_t n, struct sl_error *e)
{
    const char *s = sl_config_str(p->config, "moe_layers_enum");
    uint64_t first = n;

    if (!s || !*s)
        return sl_fail(e, SL_ESOURCE, "config.json has no \"moe_layers_enum\", which %s needs: the layers with experts, \"3,4,5\"", p->hf_class);
    for (uint64_t i = 0; i < n; i++)
        p->kinds[i] |= SL_LAYER_DENSE;
    for (;; s++) {
        char *end;
        unsigned long i = strtoul(s, &end, 10);

        if (end == s || i >= n || (*end && *end != ','))
            return sl_fail(e, SL_ESOURCE, "config.json: \"moe_layers_enum\" is no list of layers below %u, as \"3,4,5\"", (unsigned)n);
        p->kinds[i] &= (uint8_t)~SL_LAYER_DENSE;
        first = i < first ? i : first;
        if (!*(s = end))
            break;
    }
    sl_num_set(p, SL_N_DENSE, first);
    return 0;
}

/* Bounds of activations: null and what is not told of are 0, none. */
static int read_clamps(struct sl_params *p, const char *name, enum sl_num num, float *to, uint64_t n, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->config, name), *x = list ? list->child : NULL;

    if (!list || cJSON_IsNull(list))
        return 0;
    if (!cJSON_IsArray(list))
        return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" is no list", name);
    for (uint64_t i = 0; i < n && x; i++, x = x->next) {
        if (!cJSON_IsNull(x) && (!cJSON_IsNumber(x) || !isfinite((float)x->valuedouble)))
            return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" has an entry for layer %u that is no number", name, (unsigned)i);
        to[i] = cJSON_IsNull(x) ? 0 : (float)x->valuedouble;
    }
    sl_num_set(p, num, 0);
    return 0;
}

/* ---- rotary embedding ---- */

/* By the frequencies of layers that look at all tokens; the others turn unscaled. In doubles, from frequencies in float, as the
 * converter has it. */
static int derive_freqs(struct sl_params *p, double base, struct sl_error *e)
{
    uint64_t half = p->num[SL_N_HEAD_DIM].u / 2, dim = half;
    struct sl_llama3 s;

    SL_TRY(sl_arch_llama3(p, &s, e));
    s.old = floor(s.old);
    for (uint64_t j = 0; j < half; j++) {
        float exponent = (float)(2 * j) / (float)dim, freq = 1.0f / (float)pow((double)(float)base, (double)exponent);
        double wavelen = 2 * M_PI / (double)freq, smooth = (s.old / wavelen - s.low) / (s.high - s.low);

        if (2 * j >= dim || wavelen < s.old / s.high)
            p->values[j] = 1;
        else
            p->values[j] = (float)(wavelen > s.old / s.low ? s.factor : 1.0 / ((1.0 - smooth) / s.factor + smooth));
    }
    return 0;
}

/* "rope_theta" may be a list, for each layer; llama.cpp has one number for layers of either kind, the converter the first two. */
static int derive_rope(struct sl_params *p, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->config, "rope_theta");
    double theta = NAN, near = NAN;
    uint64_t i = 0;
    const cJSON *x;

    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) < 2)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"rope_theta\" is no list of a number for each layer, as supported for %s", p->hf_class);
    cJSON_ArrayForEach(x, list) {
        double *of = p->kinds[i < SL_MAX_LAYER ? i : 0] & SL_LAYER_WINDOW ? &near : &theta;

        if (!cJSON_IsNumber(x) || !(x->valuedouble > 0) || !isfinite((float)x->valuedouble))
            return sl_fail(e, SL_ESOURCE, "config.json: \"rope_theta\" has an entry for layer %u that is no positive number", (unsigned)i);
        if (i < p->num[SL_N_LAYER].u && !isnan(*of) && *of != x->valuedouble)
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"rope_theta\" has another number for layer %u than for those before it of its kind, and "
                           "llama.cpp's %s has one for each kind", (unsigned)i, p->arch->name);
        if (i < p->num[SL_N_LAYER].u)
            *of = x->valuedouble;
        i++;
    }
    if (list->child->valuedouble != theta || list->child->next->valuedouble != near)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: the first two layers are not one of full_attention and one of sliding_attention, by "
                       "which the converter takes \"rope_theta\"");
    sl_num_set_f(p, SL_N_ROPE_THETA, theta);
    sl_num_set_f(p, SL_N_ROPE_THETA_WINDOW, near);
    return p->rope_type && strcmp(p->rope_type, "llama3") == 0 ? derive_freqs(p, theta, e)
           : !p->rope_type ? 0
           : sl_fail(e, SL_EUNSUPPORTED, "config.json: rope_scaling of type %.60s is not supported for %s: llama3", p->rope_type, p->hf_class);
}

/* ---- the whole ---- */

static int derive_attention(struct sl_params *p, struct sl_error *e)
{
    const cJSON *other = cJSON_GetObjectItemCaseSensitive(p->config, "attention_other_setting");
    struct sl_number *n = p->num;
    double dim = n[SL_N_HEAD_DIM].f;

    SL_TRY(sl_arch_read_fields(p, other, window_fields, e));
    if (!n[SL_N_HEAD_WINDOW].have)
        n[SL_N_HEAD_WINDOW] = n[SL_N_HEAD];
    if (!n[SL_N_HEAD_KV_WINDOW].have)
        n[SL_N_HEAD_KV_WINDOW] = n[SL_N_HEAD_KV];
    SL_TRY(sl_config_float(other, "attention_other_setting.", "head_dim", &dim, e));
    if (dim != n[SL_N_HEAD_DIM].f || n[SL_N_HEAD_DIM].u % 4)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: heads of %u and of %g rows, and llama.cpp's %s has one number, a multiple of 4",
                       (unsigned)n[SL_N_HEAD_DIM].u, dim, p->arch->name);
    if (n[SL_N_HEAD].u % n[SL_N_HEAD_KV].u || n[SL_N_HEAD_WINDOW].u % n[SL_N_HEAD_KV_WINDOW].u)
        return sl_fail(e, SL_ESOURCE, "config.json: %u and %u heads cannot be divided among %u and %u \"num_attention_groups\"", (unsigned)n[SL_N_HEAD].u,
                       (unsigned)n[SL_N_HEAD_WINDOW].u, (unsigned)n[SL_N_HEAD_KV].u, (unsigned)n[SL_N_HEAD_KV_WINDOW].u);
    SL_TRY(sl_num_mul(p, SL_N_Q_ROWS, n[SL_N_HEAD].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_Q_ROWS_WINDOW, n[SL_N_HEAD_WINDOW].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_KV_ROWS, n[SL_N_HEAD_KV].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_K_ROWS_WINDOW, n[SL_N_HEAD_KV_WINDOW].u, n[SL_N_HEAD_DIM].u, e));
    sl_num_set(p, SL_N_HEAD_DIM_K, n[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_HEAD_DIM_V, n[SL_N_HEAD_DIM].u);
    if (sl_config_bool(p->config, "use_head_wise_attn_gate", false))
        p->when |= SL_W_OUT_GATE;
    return 0;
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    const char *name, *func = sl_arch_scoring(p, &name);
    struct sl_number *n = p->num;
    uint64_t all = n[SL_N_LAYER].u + n[SL_N_NEXTN].u;

    SL_TRY(derive_attention(p, e));
    SL_TRY(read_kinds(p, all, e));
    SL_TRY(read_experts(p, all, e));
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_only(p, name, "sigmoid", false, e));
    if (func)
        SL_TRY(sl_arch_gating(p, name, func, e));
    if (sl_config_bool(p->config, "use_moe_router_bias", true))
        p->when |= SL_W_CORR;
    SL_TRY(read_clamps(p, "swiglu_limits", SL_N_CLAMPS, p->clamps[0], all, e));
    SL_TRY(read_clamps(p, "swiglu_limits_shared", SL_N_CLAMPS_SHARED, p->clamps[1], all, e));
    SL_TRY(derive_rope(p, e));
    if (!n[SL_N_NEXTN].u) /* no key */
        n[SL_N_NEXTN] = (struct sl_number){0};
    sl_arch_keep_mtp(p);
    sl_num_set(p, SL_N_WINDOW_LIST, n[SL_N_LAYER].u);
    return 0;
}

const struct sl_arch sl_arch_step35 = {
    .name = "step35",
    .classes = SL_CLASSES("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_norm_tensors, sl_arch_dense_tensors, own, sl_arch_nextn_tensors, nextn),
    .keys = SL_KEYS(SL_N_HEAD_KV, SL_N_WINDOW, SL_N_WINDOW_LIST, SL_N_EXPERT, SL_N_EXPERT_USED, SL_N_MOE_FF, SL_N_SHARED_FF_KEY,
                    SL_N_EXPERT_SCALE, SL_N_EXPERT_NORM, SL_N_DENSE, SL_N_MOE_EVERY, SL_N_CLAMPS, SL_N_CLAMPS_SHARED, SL_N_NEXTN),
    .shares_embedding = true,
    .layer_thetas = true,
    .facts = SL_FACTS(SL_OWN_HEAD),
    .derive = derive,
    .arrange = arrange,
};
