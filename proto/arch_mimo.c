/* MiMo-V2-Flash, V2.5, V2.6: layers that look at a window of tokens between those that look at all, the former with more heads of keys
 * and with sinks; keys' heads longer than values'; experts without a shared one, routed by sigmoid; three layers for multi-token
 * prediction, kept behind the others. V2.5 ships queries, keys and values in one matrix, each in the parts that several machines
 * had, and scales of FP8 that begin anew with each part. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define MTP_LAYERS 3 /* that were published; the converter writes no other number */
#define L SL_W_LAYER
#define FULL (SL_W_LAYER | SL_W_FULL)
#define WINDOW (SL_W_LAYER | SL_W_WINDOW)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."
#define ATTN OF_LAYER "self_attn."

static const struct sl_tensor_tmpl attention[] = {
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", L | SL_W_APART, Q_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", FULL | SL_W_APART, KV_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", WINDOW | SL_W_APART, K_ROWS_WINDOW, EMBD),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", FULL | SL_W_APART, V_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", WINDOW | SL_W_APART, V_ROWS_WINDOW, EMBD),
    SL_MATRIX("blk.{i}.attn_qkv.weight", ATTN "qkv_proj.weight", FULL | SL_W_FUSED, QKV_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_qkv.weight", ATTN "qkv_proj.weight", WINDOW | SL_W_FUSED, QKV_ROWS_WINDOW, EMBD),
    SL_TENSOR("blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, EMBD, O_COLS, BASE),
    SL_VECTOR("blk.{i}.attn_sinks.weight", ATTN "attention_sink_bias", L | SL_W_SINKS, HEAD),
    SL_VECTOR("blk.{i}.ffn_norm.weight", OF_LAYER "post_attention_layernorm.weight", L | SL_W_TRUNK, EMBD),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl nextn[] = {
    SL_VECTOR("blk.{i}.ffn_norm.weight", OF_LAYER "pre_mlp_layernorm.weight", NEXTN, EMBD),
    SL_VECTOR("blk.{i}.layer_output_norm.weight", OF_LAYER "final_layernorm.weight", NEXTN, EMBD),
    SL_END_TENSORS,
};

static const struct sl_field fields[] = {
    SL_NEED(CTX, "max_position_embeddings"), SL_NEED(FF, "intermediate_size"), SL_NEED(HEAD_KV, "num_key_value_heads"),
    SL_NEED(HEAD_KV_WINDOW, "swa_num_key_value_heads"), SL_NEED(HEAD_DIM, "head_dim"), SL_NEED(V_DIM, "v_head_dim"),
    SL_NEED(WINDOW, "sliding_window"), SL_NEED(EXPERT, "n_routed_experts"), SL_NEED(EXPERT_USED, "num_experts_per_tok"),
    SL_NEED(MOE_FF, "moe_intermediate_size"), SL_MAY(GROUP, "n_group"), SL_MAY(GROUP_USED, "topk_group"),
    SL_ELSE(RMS_EPS_LATE, "layernorm_epsilon", 1e-5), SL_MAY(VALUE_SCALE, "attention_value_scale"),
    SL_ELSE(NEXTN, "num_nextn_predict_layers", MTP_LAYERS), SL_END_FIELDS,
};

/* ---- where queries, keys and values lie ---- */

/* Each part has rows of queries, of keys and of values; the output has all queries first. */
static void part_view(const struct sl_params *p, enum sl_num k_rows, enum sl_num v_rows, uint64_t parts, struct sl_view *v)
{
    const uint64_t rows[3] = {p->num[SL_N_Q_ROWS].u, p->num[k_rows].u, p->num[v_rows].u}, cols = p->num[SL_N_EMBD].u;
    const uint64_t whole = (rows[0] + rows[1] + rows[2]) / parts * cols;
    uint64_t at = 0;

    for (int i = 0; i < 3; i++) {
        uint64_t run = rows[i] / parts * cols;

        if (rows[i] % parts)
            return;
        v->part[i] = (struct sl_view_part){.elems = parts * run, .first = at, .run = run, .n = {parts, 1}, .step = {whole}};
        at += run;
    }
    v->n_parts = 3;
}

static int derive_views(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    SL_TRY(sl_num_mul(p, SL_N_Q_ROWS, n[SL_N_HEAD].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_O_COLS, n[SL_N_HEAD].u, n[SL_N_V_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_KV_ROWS, n[SL_N_HEAD_KV].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_V_ROWS, n[SL_N_HEAD_KV].u, n[SL_N_V_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_K_ROWS_WINDOW, n[SL_N_HEAD_KV_WINDOW].u, n[SL_N_HEAD_DIM].u, e));
    SL_TRY(sl_num_mul(p, SL_N_V_ROWS_WINDOW, n[SL_N_HEAD_KV_WINDOW].u, n[SL_N_V_DIM].u, e));
    sl_num_set(p, SL_N_QKV_ROWS, n[SL_N_Q_ROWS].u + n[SL_N_KV_ROWS].u + n[SL_N_V_ROWS].u);
    sl_num_set(p, SL_N_QKV_ROWS_WINDOW, n[SL_N_Q_ROWS].u + n[SL_N_K_ROWS_WINDOW].u + n[SL_N_V_ROWS_WINDOW].u);
    for (int k = 0; k < SL_SCALE_PARTS; k++) {
        part_view(p, SL_N_KV_ROWS, SL_N_V_ROWS, sl_scale_parts[k], &p->views[k]);
        part_view(p, SL_N_K_ROWS_WINDOW, SL_N_V_ROWS_WINDOW, sl_scale_parts[k], &p->views[SL_SCALE_PARTS + k]);
    }
    return 0;
}

static void arrange(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    if (t->when & SL_W_FUSED)
        a->of_parts = &p->views[t->when & SL_W_WINDOW ? SL_SCALE_PARTS : 0];
}

static bool drops(const struct sl_params *p, const char *name)
{
    return p->no_mtp && strncmp(name, "model.mtp.", 10) == 0;
}

/* ---- facts ---- */

/* What the entry for windows must be as the one for all tokens is. */
static int check_same(const struct sl_params *p, const char *name, const char *of_window, struct sl_error *e)
{
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(p->config, name), *b = cJSON_GetObjectItemCaseSensitive(p->config, of_window);

    if (cJSON_IsNumber(b) && b->valuedouble == a->valuedouble)
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is not what \"%s\" is, and llama.cpp's %s has one for all layers", of_window, name,
                   p->arch->name);
}

static int derive_layers(struct sl_params *p, struct sl_error *e)
{
    bool full = sl_config_bool(p->config, "add_full_attention_sink_bias", false), near = sl_config_bool(p->config, "add_swa_attention_sink_bias", false);
    uint64_t n = p->num[SL_N_LAYER].u, all = n + p->num[SL_N_NEXTN].u, dense = 0;
    bool any = false;

    SL_TRY(sl_arch_layer_list(p, "hybrid_layer_pattern", SL_LAYER_WINDOW, 1, e));
    SL_TRY(sl_arch_layer_list(p, "moe_layer_freq", SL_LAYER_DENSE, 0, e));
    for (uint64_t i = 0; i < n; i++)
        any = any || (p->kinds[i] & SL_LAYER_WINDOW);
    if (!any)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"hybrid_layer_pattern\" tells of no layer with a window, without which llama.cpp's %s "
                       "does not run", p->arch->name);
    while (dense < n && (p->kinds[dense] & SL_LAYER_DENSE))
        dense++;
    sl_num_set(p, SL_N_DENSE, dense);
    for (uint64_t i = n; i < all; i++)
        p->kinds[i] = SL_LAYER_WINDOW | SL_LAYER_DENSE;
    for (uint64_t i = 0; i < all; i++)
        if (p->kinds[i] & SL_LAYER_WINDOW ? near : full)
            p->kinds[i] |= SL_LAYER_SINKS;
    p->has_kinds = true;
    return 0;
}

/* What llama.cpp's text has, and no key says otherwise. */
static int check_routing(struct sl_params *p, struct sl_error *e)
{
    const char *func = sl_config_str(p->config, "scoring_func");
    double scale = 1, shared = 0;

    SL_TRY(sl_arch_only(p, "topk_method", "noaux_tc", true, e));
    SL_TRY(sl_arch_only(p, "scoring_func", "sigmoid", false, e));
    SL_TRY(sl_config_float(p->config, "", "routed_scaling_factor", &scale, e));
    SL_TRY(sl_config_float(p->config, "", "n_shared_experts", &shared, e));
    if (scale != 1 || shared != 0)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is not %s, and llama.cpp's %s has %s", scale != 1 ? "routed_scaling_factor" : "n_shared_experts",
                       scale != 1 ? "1" : "0", p->arch->name, scale != 1 ? "1" : "none");
    if (func)
        SL_TRY(sl_arch_gating(p, "scoring_func", func, e));
    p->when |= SL_W_CORR;
    return sl_arch_check_experts(p, e);
}

/* The base for windows: the first of its names that is there, be it null, unless rope_parameters has a part for each kind of layer. */
int sl_arch_window_theta(struct sl_params *p, struct sl_error *e)
{
    static const char *const names[] = {"local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq"};
    const cJSON *rope = cJSON_GetObjectItemCaseSensitive(p->config, "rope_parameters"), *from = p->config;
    const cJSON *near = cJSON_GetObjectItemCaseSensitive(rope, "sliding_attention");
    const char *name = "rope_theta";
    double theta = NAN;

    if (near || cJSON_GetObjectItemCaseSensitive(rope, "full_attention"))
        from = near;
    for (size_t i = 0; from == p->config && i < sizeof names / sizeof *names; i++)
        if (cJSON_GetObjectItemCaseSensitive(from, name = names[i]))
            break;
    SL_TRY(sl_config_float(from, from == near ? "rope_parameters.sliding_attention." : "", name, &theta, e));
    if (theta <= 0)
        return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" is %g: expected a positive number", name, theta);
    if (!isnan(theta))
        sl_num_set_f(p, SL_N_ROPE_THETA_WINDOW, theta);
    return 0;
}

static int derive_rope(struct sl_params *p, struct sl_error *e)
{
    const cJSON *rope = cJSON_GetObjectItemCaseSensitive(p->config, "rope_parameters");
    double part = NAN;

    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_rope_float(p, "partial_rotary_factor", &part, e));
    SL_TRY(sl_config_float(rope, "rope_parameters.", "partial_rotary_factor", &part, e));
    if (isnan(part))
        return sl_fail(e, SL_ESOURCE, "config.json has no \"partial_rotary_factor\", which %s needs", p->hf_class);
    SL_TRY(sl_arch_part_rope(p, part, e));
    return sl_arch_window_theta(p, e);
}

/* Older names of the same number come earlier among the keys. */
static int derive_eps(struct sl_params *p, struct sl_error *e)
{
    const char *name = cJSON_GetObjectItemCaseSensitive(p->config, "rms_norm_eps") ? "rms_norm_eps" : "norm_eps";
    double early = NAN;

    SL_TRY(sl_config_float(p->config, "", name, &early, e));
    if (isnan(early))
        return 0;
    p->num[SL_N_RMS_EPS] = p->num[SL_N_RMS_EPS_LATE];
    p->num[SL_N_RMS_EPS_LATE] = (struct sl_number){0};
    return 0;
}

/* V2.6's experts in MXFP4. */
static int read_store(struct sl_params *p, struct sl_error *e)
{
    const cJSON *q = cJSON_GetObjectItemCaseSensitive(p->config, "quantization_config");
    const char *store = sl_config_str(q, "store_dtype");
    double group = SL_F4_GROUP;

    p->fp4_experts = store && strcmp(store, "mxfp4") == 0;
    SL_TRY(sl_config_float(q, "quantization_config.", "mxfp4_block_size", &group, e));
    return !p->fp4_experts || group == SL_F4_GROUP ? 0 : sl_fail(e, SL_EUNSUPPORTED, "config.json: quantization_config.mxfp4_block_size is %g; "
                                                                 "supported: %u", group, SL_F4_GROUP);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    static const char *const same[][2] = {
        {"head_dim", "swa_head_dim"}, {"v_head_dim", "swa_v_head_dim"}, {"num_attention_heads", "swa_num_attention_heads"},
    };
    const char *layout = sl_config_str(p->config, "attention_projection_layout");
    struct sl_number *n = p->num;

    SL_TRY(read_store(p, e));
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        SL_TRY(check_same(p, same[i][0], same[i][1], e));
    if (n[SL_N_HEAD].u % n[SL_N_HEAD_KV].u || n[SL_N_HEAD].u % n[SL_N_HEAD_KV_WINDOW].u)
        return sl_fail(e, SL_ESOURCE, "config.json: %u heads cannot be divided among %u \"num_key_value_heads\" and %u \"swa_num_key_value_heads\"",
                       (unsigned)n[SL_N_HEAD].u, (unsigned)n[SL_N_HEAD_KV].u, (unsigned)n[SL_N_HEAD_KV_WINDOW].u);
    SL_TRY(derive_layers(p, e));
    SL_TRY(check_routing(p, e));
    SL_TRY(derive_rope(p, e));
    SL_TRY(derive_eps(p, e));
    SL_TRY(derive_views(p, e));
    sl_num_set(p, SL_N_HEAD_DIM_K, n[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_HEAD_DIM_V, n[SL_N_V_DIM].u);
    p->joined = layout && strcmp(layout, "fused_qkv") == 0;
    if (!n[SL_N_NEXTN].u) /* no key */
        n[SL_N_NEXTN] = (struct sl_number){0};
    else if (n[SL_N_NEXTN].u != MTP_LAYERS && !p->no_mtp)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"num_nextn_predict_layers\" is %u; supported for %s: %d, or --no-mtp", (unsigned)n[SL_N_NEXTN].u,
                       p->hf_class, MTP_LAYERS);
    sl_arch_keep_mtp(p);
    sl_num_set(p, SL_N_WINDOW_INTS, n[SL_N_LAYER].u);
    return 0;
}

static const char *const classes[] = {"MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM", NULL};

const struct sl_arch sl_arch_mimo2 = {
    .name = "mimo2",
    .classes = classes,
    .fields = SL_FIELDS(sl_arch_model_fields, fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, attention, sl_arch_dense_tensors, sl_arch_expert_tensors, nextn, sl_arch_nextn_tensors),
    .keys = SL_KEYS(SL_N_WINDOW, SL_N_WINDOW_INTS, SL_N_MOE_FF, SL_N_ROPE_DIM, SL_N_RMS_EPS_LATE, SL_N_VALUE_SCALE, SL_N_NEXTN),
    .facts = SL_FACTS(SL_OWN_HEAD, {"attention_bias", false, "no biases"}, {"norm_topk_prob", true, "weights of experts whose sum is 1"}),
    .derive = derive,
    .arrange = arrange,
    .drops = drops,
    .mtp_prefix = "model.mtp.layers.",
    .mtp_sign = "model.mtp.layers.0.eh_proj.weight",
    .joined = ATTN "qkv_proj.weight",
};
