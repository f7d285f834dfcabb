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
    {"blk.{i}.ffn_gate.weight", FF "gate_proj.weight", DENSE, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up.weight", FF "up_proj.weight", DENSE, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down.weight", FF "down_proj.weight", DENSE, SL_N_EMBD, SL_N_FF, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_gate_inp.weight", FF "router.weight", MOE, SL_N_EXPERT, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.ffn_gate_exps.weight", FF "experts.{e}.gate_proj.weight", APART, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_exps.weight", FF "experts.{e}.up_proj.weight", APART, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_exps.weight", FF "experts.{e}.down_proj.weight", APART, SL_N_EMBD, SL_N_MOE_FF, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_gate_exps.weight", FF "experts.gate_up_proj", FUSED, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_exps.weight", FF "experts.gate_up_proj", FUSED, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_exps.weight", FF "experts.down_proj", FUSED, SL_N_EMBD, SL_N_MOE_FF, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_gate_shexp.weight", SHARED "gate_proj.weight", MOE, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_shexp.weight", SHARED "up_proj.weight", MOE, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_shexp.weight", SHARED "down_proj.weight", MOE, SL_N_EMBD, SL_N_MOE_FF, 0, SL_SHIP_LINEAR, 0},
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl *const tensors[] = {sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, own, NULL};

static const struct sl_field fields[] = {
    {SL_N_LAYER, "num_hidden_layers", SL_FIELD_INT, true, 1, SL_MAX_LAYER, 0},
    {SL_N_CTX, "max_position_embeddings", SL_FIELD_INT, false, 1, UINT32_MAX, NAN},
    {SL_N_EMBD, "hidden_size", SL_FIELD_INT, true, 1, 1 << 22, 0},
    {SL_N_FF, "intermediate_size_mlp", SL_FIELD_INT, false, 1, 1 << 24, NAN},
    {SL_N_HEAD, "num_attention_heads", SL_FIELD_INT, true, 1, 1 << 14, 0},
    {SL_N_HEAD_KV, "num_key_value_heads", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_VOCAB, "vocab_size", SL_FIELD_INT, true, 1, SL_MAX_VOCAB, 0},
    {SL_N_RMS_EPS, "rms_norm_eps", SL_FIELD_FLOAT, false, 0, 1, 1e-5},
    {SL_N_HEAD_DIM, "head_dim", SL_FIELD_INT, false, 1, 1 << 16, NAN},
    {SL_N_EXPERT, "num_local_experts", SL_FIELD_INT, false, 0, 1 << 14, NAN},
    {SL_N_EXPERT_USED, "num_experts_per_tok", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_MOE_FF, "intermediate_size", SL_FIELD_INT, false, 1, 1 << 24, NAN},
    {SL_N_GROUP, "n_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_GROUP_USED, "topk_group", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_MOE_STEP, "interleave_moe_layer_step", SL_FIELD_INT, false, 0, SL_MAX_LAYER, NAN},
    SL_END_FIELDS,
};

/* What the configuration class takes for an entry that is not there. */
static int take_defaults(struct sl_params *p, struct sl_error *e)
{
    static const struct { enum sl_num num; uint64_t v; } class[] = {
        {SL_N_CTX, 131072}, {SL_N_FF, 16384}, {SL_N_MOE_FF, 8192}, {SL_N_HEAD_KV, 8}, {SL_N_HEAD_DIM, 128},
        {SL_N_EXPERT, 16}, {SL_N_EXPERT_USED, 1}, {SL_N_MOE_STEP, 1},
    };
    double theta = NAN;

    for (size_t i = 0; i < sizeof class / sizeof *class; i++) {
        sl_field_default(p, class[i].num, (double)class[i].v);
        if (class[i].num != SL_N_HEAD_KV && class[i].num != SL_N_HEAD_DIM) /* null means what others make of them */
            SL_TRY(sl_arch_need(p, class[i].num, e));
    }
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

    SL_TRY(take_defaults(p, e));
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
    sl_num_set(p, SL_N_VOCAB_KEY, p->num[SL_N_VOCAB].u);
    sl_num_set(p, SL_N_ROPE_DIM, p->num[SL_N_HEAD_DIM].u);
    p->joined = !cJSON_IsObject(quantization) || !quantization->child;
    return sl_arch_llama3_freqs(p, e);
}

static const struct sl_key_tmpl keys[] = {
    {"vocab_size", SL_KV_U32, SL_N_VOCAB_KEY, 0},
    {"rope.dimension_count", SL_KV_U32, SL_N_ROPE_DIM, 0},
    {"interleave_moe_layer_step", SL_KV_U32, SL_N_MOE_STEP, 0},
    {"expert_feed_forward_length", SL_KV_U32, SL_N_MOE_FF, 0},
    SL_END_KEYS,
};

static const char *const classes[] = {"Llama4ForConditionalGeneration", "Llama4ForCausalLM", NULL};

const struct sl_arch sl_arch_llama4 = {
    .name = "llama4",
    .classes = classes,
    .fields = fields,
    .tensors = tensors,
    .keys = keys,
    .derive = derive,
    .arrange = sl_arch_transposed_experts,
    .tokens = SL_TOKENS_LLAMA4,
    .joined = FF "experts.gate_up_proj",
    .output_if_there = true,
};
