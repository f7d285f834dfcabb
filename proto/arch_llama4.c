/* Llama-4 (Scout, Maverick): the text model within a model that sees, or alone. Layers that look at chunks of tokens through a rotary
 * embedding, and every fourth that looks at all without one; in every layer, or every second, one expert of many beside a shared one.
 * A layer's experts come in two tensors, in which their matrices lie transposed, or each apart. */
#include "proto/arch_table.h"
#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define DENSE (SL_W_LAYER | SL_W_DENSE)
#define MOE (SL_W_LAYER | SL_W_MOE)
#define APART (MOE | SL_W_APART)
#define FUSED (MOE | SL_W_FUSED)
#define FF "model.layers.{i}.feed_forward."
#define SHARED FF "shared_expert."

static const struct sl_tensor_tmpl own[] = {
    {"rope_freqs.weight", NULL, SL_W_FREQS, SL_N_NONE, SL_N_HALF_ROPE, SL_INLINE, SL_SHIP_F32, 0},
    SL_GATED("", FF, DENSE, FF, EMBD, LINEAR),
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", FF "router.weight", MOE, EXPERT, EMBD, BASE),
    SL_GATED("_exps", FF "experts.{e}.", APART, MOE_FF, EMBD, LINEAR),
    SL_MATRIX("blk.{i}.ffn_gate_exps.weight", FF "experts.gate_up_proj", FUSED, MOE_FF, EMBD),
    SL_MATRIX("blk.{i}.ffn_up_exps.weight", FF "experts.gate_up_proj", FUSED, MOE_FF, EMBD),
    SL_MATRIX("blk.{i}.ffn_down_exps.weight", FF "experts.down_proj", FUSED, EMBD, MOE_FF),
    SL_GATED("_shexp", SHARED, MOE, MOE_FF, EMBD, LINEAR),
    SL_END_TENSORS,
};

/* What the configuration class takes for an entry that is not there; of null heads and rows of them, what others make of these. */
static const struct sl_field fields[] = {
    SL_CLASS_NEED(CTX, "max_position_embeddings", 131072), SL_CLASS_NEED(FF, "intermediate_size_mlp", 16384),
    SL_CLASS_NEED(MOE_FF, "intermediate_size", 8192), SL_CLASS(HEAD_KV, "num_key_value_heads", 8), SL_CLASS(HEAD_DIM, "head_dim", 128),
    SL_ELSE(RMS_EPS, "rms_norm_eps", 1e-5), SL_CLASS_NEED(EXPERT, "num_local_experts", 16),
    SL_CLASS_NEED(EXPERT_USED, "num_experts_per_tok", 1), SL_CLASS_NEED(MOE_STEP, "interleave_moe_layer_step", 1),
    SL_MAY(GROUP, "n_group"), SL_MAY(GROUP_USED, "topk_group"), SL_END_FIELDS,
};

static int derive_theta(struct sl_params *p, struct sl_error *e)
{
    double theta = NAN;

    SL_TRY(sl_rope_float(p, "rope_theta", &theta, e));
    if (isnan(theta) && !cJSON_GetObjectItemCaseSensitive(p->config, "rope_theta"))
        sl_num_set_f(p, SL_N_ROPE_THETA, 500000);
    return 0;
}

/* ---- what llama.cpp's text has, and no key says otherwise ---- */

static int check_constants(const struct sl_params *p, struct sl_error *e)
{
    static const struct { const char *name; double v; } same[] = {{"attention_chunk_size", 8192}, {"floor_scale", 8192}, {"attn_scale", 0.1}};
    const cJSON *tuned = cJSON_GetObjectItemCaseSensitive(p->config, "attn_temperature_tuning");
    bool norm = sl_config_bool(p->config, "use_qk_norm", true);

    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const cJSON *j = cJSON_GetObjectItemCaseSensitive(p->config, same[i].name);

        if (j && !(cJSON_IsNumber(j) && j->valuedouble == same[i].v))
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is not %g, which llama.cpp's %s has", same[i].name, same[i].v, p->arch->name);
    }
    if (tuned && !cJSON_IsTrue(tuned) && !(cJSON_IsNumber(tuned) && tuned->valuedouble != 0))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"attn_temperature_tuning\" is off, which llama.cpp's %s cannot do", p->arch->name);
    if (norm == (p->num[SL_N_EXPERT].u == 128))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"use_qk_norm\" is %s of a model of %u experts: llama.cpp's %s has norms on the heads "
                       "of q and k but where there are 128", norm ? "true" : "false", (unsigned)p->num[SL_N_EXPERT].u, p->arch->name);
    return 0;
}

static int odd_layer(const struct sl_params *p, const char *name, uint64_t i, struct sl_error *e)
{
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" has another entry for layer %u than llama.cpp's %s, of which every fourth layer "
                   "looks at all tokens without a rotary embedding", name, (unsigned)i, p->arch->name);
}

/* Of every four layers three turn and look at a chunk: by two lists, the first of which may be empty, and then goes by an interval. */
static int check_layers(const struct sl_params *p, struct sl_error *e)
{
    const cJSON *turns = cJSON_GetObjectItemCaseSensitive(p->config, "no_rope_layers"), *x = turns ? turns->child : NULL;
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(p->config, "layer_types"), *type = types ? types->child : NULL;
    const cJSON *every = cJSON_GetObjectItemCaseSensitive(p->config, "no_rope_layer_interval");
    bool listed = x != NULL;

    if (!listed && every && !(cJSON_IsNumber(every) && every->valuedouble == 4))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"no_rope_layer_interval\" is not 4, which llama.cpp's %s has", p->arch->name);
    for (uint64_t i = 0; i < p->num[SL_N_LAYER].u; i++) {
        bool near = (i + 1) % SL_WINDOW_PERIOD != 0;

        if (listed && !(cJSON_IsNumber(x) && (x->valuedouble != 0) == near))
            return odd_layer(p, "no_rope_layers", i, e);
        if (cJSON_IsArray(types) && !(cJSON_IsString(type) && strcmp(type->valuestring, near ? "chunked_attention" : "full_attention") == 0))
            return odd_layer(p, "layer_types", i, e);
        x = x ? x->next : NULL;
        type = type ? type->next : NULL;
    }
    return 0;
}

static int check_experts(const struct sl_params *p, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->config, "moe_layers"), *x;
    uint64_t step = p->num[SL_N_MOE_STEP].u, next = step - 1, v;
    bool same = true;

    SL_TRY(sl_arch_check_experts(p, e));
    if (!list || cJSON_IsNull(list))
        return 0;
    cJSON_ArrayForEach(x, list) {
        same = same && sl_json_uint(x, SL_MAX_LAYER, &v) && v == next;
        next += step;
    }
    return same && cJSON_IsArray(list) && next >= p->num[SL_N_LAYER].u ? 0
               : sl_fail(e, SL_EUNSUPPORTED, "config.json: \"moe_layers\" has other layers than \"interleave_moe_layer_step\" %u, by which llama.cpp's "
                         "%s goes", (unsigned)step, p->arch->name);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    const cJSON *quantization = cJSON_GetObjectItemCaseSensitive(p->config, "quantization_config");
    const char *name, *func = sl_arch_scoring(p, &name);

    SL_TRY(derive_theta(p, e));
    SL_TRY(check_constants(p, e));
    SL_TRY(check_layers(p, e));
    SL_TRY(check_experts(p, e));
    if (func) /* passed on; llama.cpp goes by sigmoid whatever it says */
        SL_TRY(sl_arch_gating(p, name, func, e));
    SL_TRY(sl_arch_whole_rope(p, e));
    SL_TRY(sl_arch_plain_attention(p, e));
    if (p->num[SL_N_HEAD_DIM].u % 2)
        return sl_fail(e, SL_ESOURCE, "config.json: heads have %u rows; an even number is needed", (unsigned)p->num[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_HEAD_DIM_K, p->num[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_HEAD_DIM_V, p->num[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_ROPE_DIM, p->num[SL_N_HEAD_DIM].u);
    p->joined = !cJSON_IsObject(quantization) || !quantization->child;
    return sl_arch_llama3_freqs(p, e);
}

const struct sl_arch sl_arch_llama4 = {
    .name = "llama4",
    .classes = SL_CLASSES("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, own),
    .keys = SL_KEYS(SL_N_VOCAB, SL_N_ROPE_DIM, SL_N_MOE_STEP, SL_N_MOE_FF),
    .derive = derive,
    .arrange = sl_arch_transposed_experts,
    .tokens = SL_TOKENS_LLAMA4,
    .joined = FF "experts.gate_up_proj",
    .output_if_there = true,
};
