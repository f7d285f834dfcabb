/* Qwen3.5, dense and with experts, and Qwen3-Next: of every four layers three have linear attention (a gated delta net).
 * Of Qwen3.5 llama.cpp wants the value heads in another order, of Qwen3-Next what is joined by heads of keys apart. A layer
 * for multi-token prediction is kept behind the others. */
#include "proto/arch_table.h"
#include "proto/json_file.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define L SL_W_LAYER
#define FULL (SL_W_LAYER | SL_W_FULL)
#define LINEAR (SL_W_LAYER | SL_W_LINEAR)
#define MOE (SL_W_LAYER | SL_W_MOE)
#define NEXTN (SL_W_LAYER | SL_W_NEXTN)
#define OF_LAYER "model.layers.{i}."
#define ATTN OF_LAYER "self_attn."
#define DELTA OF_LAYER "linear_attn."
#define MLP OF_LAYER "mlp."

static const struct sl_tensor_tmpl attention[] = {
    SL_VECTOR("blk.{i}.post_attention_norm.weight", OF_LAYER "post_attention_layernorm.weight", L, EMBD),
    SL_MATRIX("blk.{i}.attn_q.weight", ATTN "q_proj.weight", FULL, GATED_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_q_norm.weight", ATTN "q_norm.weight", FULL, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_k.weight", ATTN "k_proj.weight", FULL, KV_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_k_norm.weight", ATTN "k_norm.weight", FULL, HEAD_DIM),
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", FULL, KV_ROWS, EMBD),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", FULL, EMBD, Q_ROWS),

    SL_TENSOR("blk.{i}.ssm_a", DELTA "A_log", LINEAR, NONE, LINEAR_VALUES, F32),
    SL_VECTOR("blk.{i}.ssm_dt.bias", DELTA "dt_bias", LINEAR, LINEAR_VALUES),
    SL_TENSOR("blk.{i}.ssm_conv1d.weight", DELTA "conv1d.weight", LINEAR, LINEAR_QKV, CONV, BASE),
    SL_TENSOR("blk.{i}.ssm_norm.weight", DELTA "norm.weight", LINEAR, NONE, LINEAR_V_DIM, F32),
    SL_MATRIX("blk.{i}.ssm_out.weight", DELTA "out_proj.weight", LINEAR, EMBD, LINEAR_ROWS),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl apart[] = {
    SL_MATRIX("blk.{i}.attn_qkv.weight", DELTA "in_proj_qkv.weight", LINEAR, LINEAR_QKV, EMBD),
    SL_MATRIX("blk.{i}.attn_gate.weight", DELTA "in_proj_z.weight", LINEAR, LINEAR_ROWS, EMBD),
    SL_TENSOR("blk.{i}.ssm_alpha.weight", DELTA "in_proj_a.weight", LINEAR, LINEAR_VALUES, EMBD, BASE),
    SL_TENSOR("blk.{i}.ssm_beta.weight", DELTA "in_proj_b.weight", LINEAR, LINEAR_VALUES, EMBD, BASE),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl joined[] = {
    SL_MATRIX("blk.{i}.attn_qkv.weight", DELTA "in_proj_qkvz.weight", LINEAR, LINEAR_QKV, EMBD),
    SL_MATRIX("blk.{i}.attn_gate.weight", DELTA "in_proj_qkvz.weight", LINEAR, LINEAR_ROWS, EMBD),
    SL_TENSOR("blk.{i}.ssm_ba.weight", DELTA "in_proj_ba.weight", LINEAR, LINEAR_PAIRS, EMBD, BASE),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl shared_expert[] = {
    SL_TENSOR("blk.{i}.ffn_gate_inp_shexp.weight", MLP "shared_expert_gate.weight", MOE, ONE, EMBD, BASE),
    SL_GATED("_shexp", MLP "shared_expert.", MOE, SHARED_FF_KEY, EMBD, LINEAR),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl nextn[] = {
    SL_TENSOR("blk.{i}.nextn.eh_proj.weight", "mtp.fc.weight", NEXTN, EMBD, TWO_EMBD, BASE),
    SL_VECTOR("blk.{i}.nextn.enorm.weight", "mtp.pre_fc_norm_embedding.weight", NEXTN, EMBD),
    SL_VECTOR("blk.{i}.nextn.hnorm.weight", "mtp.pre_fc_norm_hidden.weight", NEXTN, EMBD),
    SL_VECTOR("blk.{i}.nextn.shared_head_norm.weight", "mtp.norm.weight", NEXTN, EMBD),
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl *const tensors[] = {
    sl_arch_common_tensors, attention, apart, sl_arch_dense_tensors, sl_arch_qwen_moe_tensors, shared_expert, nextn, NULL,
};
/* Without a word of the layer for multi-token prediction the tensors tell. */
static const struct sl_field fields[] = {
    SL_MAY(FF, "intermediate_size"), SL_NEED(HEAD_KV, "num_key_value_heads"), SL_NEED(RMS_EPS, "rms_norm_eps"),
    SL_MAY(HEAD_DIM, "head_dim"), SL_FIELD(NEXTN, "mtp_num_hidden_layers", false, false, 1, 0, 1),
    SL_NEED(CONV, "linear_conv_kernel_dim"), SL_NEED(LINEAR_DIM, "linear_key_head_dim"), SL_NEED(LINEAR_V_DIM, "linear_value_head_dim"),
    SL_NEED(LINEAR_KEYS, "linear_num_key_heads"), SL_NEED(LINEAR_VALUES, "linear_num_value_heads"),
    SL_ELSE(FULL_EVERY, "full_attention_interval", 4), SL_END_FIELDS,
};

static const struct sl_field next_fields[] = { /* the configuration class's own */
    SL_ELSE(CTX, "max_position_embeddings", 32768), SL_CLASS(HEAD_DIM, "head_dim", 256), SL_END_FIELDS,
};

/* ---- where elements come from ---- */

enum { QKV, CONV, ROWS, HEAD_ROWS, HEADS, COLUMNS };
_Static_assert((int)COLUMNS < (int)SL_VIEW_GATE, "each has its place");

/* Behind the first `skip` elements value heads are grouped by their keys' heads, `run` elements of each; the output has
 * the first of each key's head, then the second of each, and so on. */
static void tile(struct sl_params *p, int view, uint64_t elems, uint64_t skip, uint64_t run)
{
    uint64_t keys = p->num[SL_N_LINEAR_KEYS].u, each = p->num[SL_N_LINEAR_VALUES].u / keys;
    struct sl_view *v = &p->views[view];

    if (skip)
        v->part[v->n_parts++] = (struct sl_view_part){.elems = skip, .run = skip, .n = {1, 1}};
    else
        v->period = run * keys * each;
    v->part[v->n_parts++] = (struct sl_view_part){.elems = elems - skip, .first = skip, .run = run, .n = {keys, each},
                                                  .step = {run * each, run, run * keys * each}};
}

/* Each head of keys has rows of queries, of keys, of its values' heads and of their gates. */
static void split(struct sl_params *p)
{
    uint64_t keys = p->num[SL_N_LINEAR_KEYS].u, head = p->num[SL_N_LINEAR_DIM].u * p->num[SL_N_EMBD].u;
    uint64_t values = p->num[SL_N_LINEAR_VALUES].u / keys * head, group = 2 * head + 2 * values;
    const struct sl_view_part part[4] = {
        {keys * head, 0, head, {keys, 1}, {group, 0, 0}}, {keys * head, head, head, {keys, 1}, {group, 0, 0}},
        {keys * values, 2 * head, values, {keys, 1}, {group, 0, 0}}, {keys * values, 2 * head + values, values, {keys, 1}, {group, 0, 0}},
    };

    p->views[QKV] = (struct sl_view){3, {part[0], part[1], part[2]}, 0};
    p->views[ROWS] = (struct sl_view){1, {part[3]}, 0};
}

static void derive_views(struct sl_params *p)
{
    uint64_t dim = p->num[SL_N_LINEAR_DIM].u, values = p->num[SL_N_LINEAR_VALUES].u, cols = p->num[SL_N_EMBD].u;
    uint64_t before = 2 * dim * p->num[SL_N_LINEAR_KEYS].u, all = dim * values, kernel = p->num[SL_N_CONV].u;

    if (p->arch == &sl_arch_qwen3next) {
        split(p);
    } else if (values != p->num[SL_N_LINEAR_KEYS].u) {
        tile(p, QKV, (before + all) * cols, before * cols, dim * cols);
        tile(p, CONV, (before + all) * kernel, before * kernel, dim * kernel);
        tile(p, ROWS, all * cols, 0, dim * cols);
        tile(p, HEAD_ROWS, values * cols, 0, cols);
        tile(p, HEADS, values, 0, 1);
        tile(p, COLUMNS, cols * all, 0, dim);
    }
    if (p->num[SL_N_EXPERT].u)
        sl_arch_qwen_moe_views(p);
}

static bool of_linear(const struct sl_params *p, const char *name, struct sl_arrangement *a)
{
    static const struct { const char *name; int view; } tiled[] = {
        {".attn_qkv.weight", QKV}, {".attn_gate.weight", ROWS}, {".ssm_alpha.weight", HEAD_ROWS}, {".ssm_beta.weight", HEAD_ROWS},
        {".ssm_a", HEADS}, {".ssm_dt.bias", HEADS}, {".ssm_conv1d.weight", CONV}, {".ssm_out.weight", COLUMNS},
    };

    for (size_t i = 0; i < sizeof tiled / sizeof *tiled; i++)
        if (sl_ends_with(name, tiled[i].name)) {
            a->view = p->views[tiled[i].view].n_parts ? &p->views[tiled[i].view] : NULL;
            return true;
        }
    return sl_ends_with(name, ".ssm_norm.weight");
}

/* The norms' weights are stored less 1, but for that of linear attention. */
static void arrange(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    const struct sl_number *n = p->num;

    if (of_linear(p, t->out, a)) {
        a->change = sl_ends_with(t->out, ".ssm_a") ? SL_MINUS_EXP : SL_AS_STORED;
        if (sl_ends_with(t->out, ".ssm_conv1d.weight"))
            memcpy(a->shape, (uint64_t[3]){n[SL_N_LINEAR_QKV].u, 1, n[SL_N_CONV].u}, sizeof a->shape);
        if (sl_ends_with(t->src, ".in_proj_qkvz.weight"))
            a->rows = n[SL_N_LINEAR_QKV].u + n[SL_N_LINEAR_ROWS].u;
    } else if (sl_ends_with(t->src, "norm.weight") || strncmp(t->src, "mtp.pre_fc_norm_", 16) == 0) {
        a->change = SL_PLUS_ONE;
    } else {
        sl_arch_qwen_moe_arrange(p, t, a);
    }
}

static bool drops(const struct sl_params *p, const char *name)
{
    return p->no_mtp && strncmp(name, "mtp.", 4) == 0;
}

/* ---- facts ---- */

static int derive_linear(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;
    unsigned keys = (unsigned)n[SL_N_LINEAR_KEYS].u, values = (unsigned)n[SL_N_LINEAR_VALUES].u;

    if (values % keys)
        return sl_fail(e, SL_ESOURCE, "config.json: \"linear_num_value_heads\" %u cannot be divided among %u "
                       "\"linear_num_key_heads\"", values, keys);
    if (n[SL_N_LINEAR_DIM].u != n[SL_N_LINEAR_V_DIM].u)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"linear_key_head_dim\" and \"linear_value_head_dim\" differ, which "
                       "llama.cpp's %s cannot have", p->arch->name);
    SL_TRY(sl_num_mul(p, SL_N_LINEAR_ROWS, n[SL_N_LINEAR_DIM].u, values, e));
    return sl_num_mul(p, SL_N_LINEAR_QKV, n[SL_N_LINEAR_DIM].u, 2 * (uint64_t)keys + values, e);
}

/* llama.cpp goes by the interval, whatever this list says. */
static int check_layers(const struct sl_params *p, struct sl_error *e)
{
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(p->config, "layer_types"), *type;
    uint64_t i = 0, every = p->num[SL_N_FULL_EVERY].u;

    cJSON_ArrayForEach(type, types) {
        const char *want = ++i % every ? "linear_attention" : "full_attention";

        if (!cJSON_IsString(type) || strcmp(type->valuestring, want) != 0)
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"layer_types\" has another layer %u than \"full_attention_interval\" "
                           "%u, by which llama.cpp's %s goes", (unsigned)i - 1, (unsigned)every, p->arch->name);
    }
    return 0;
}

int sl_arch_sections(struct sl_params *p, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->rope, "mrope_section"), *item;
    bool good = cJSON_IsArray(list);
    int i = 0;

    if (!list)
        return 0;
    cJSON_ArrayForEach(item, list) {
        uint64_t v = 0;

        good = good && sl_json_uint(item, 1 << 16, &v);
        if (i < 4)
            p->sections[i++] = (int32_t)v;
    }
    sl_num_set(p, SL_N_SECTIONS, 0);
    return good ? 1 : sl_fail(e, SL_ESOURCE, "config.json: \"mrope_section\" is no list of small integers");
}

/* The converter's own where config.json has none. */
static int read_sections(struct sl_params *p, struct sl_error *e)
{
    int rc = sl_arch_sections(p, e);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    memcpy(p->sections, (int32_t[4]){11, 11, 10, 0}, sizeof p->sections);
    sl_num_set(p, SL_N_SECTIONS_LATE, 0);
    return 0;
}

static int derive_rope(struct sl_params *p, struct sl_error *e)
{
    double part = 0.25, theta = NAN;

    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_rope_float(p, "partial_rotary_factor", &part, e));
    SL_TRY(sl_rope_float(p, "rope_theta", &theta, e));
    if (!(part > 0 && part <= 1))
        return sl_fail(e, SL_ESOURCE, "config.json: \"partial_rotary_factor\" is %g: expected a number above 0, up to 1", part);
    sl_num_set(p, SL_N_ROPE_DIM, (uint64_t)((double)p->num[SL_N_HEAD_DIM].u * part));
    if (p->arch == &sl_arch_qwen3next)
        return 0;
    p->num[SL_N_ROPE_THETA].have = !isnan(theta);
    return read_sections(p, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    if (p->arch != &sl_arch_qwen35moe) /* whose config.json may have none */
        SL_TRY(sl_arch_need(p, SL_N_FF, e));
    SL_TRY(sl_arch_plain_attention(p, e));
    SL_TRY(sl_num_mul(p, SL_N_GATED_ROWS, 2, n[SL_N_Q_ROWS].u, e));
    SL_TRY(derive_linear(p, e));
    SL_TRY(check_layers(p, e));
    SL_TRY(derive_rope(p, e));
    sl_num_set(p, SL_N_ONE, 1);
    sl_num_set(p, SL_N_LINEAR_PAIRS, 2 * n[SL_N_LINEAR_VALUES].u);
    derive_views(p);
    if (!n[SL_N_NEXTN].u) /* no key */
        p->num[SL_N_NEXTN] = (struct sl_number){0};
    sl_arch_keep_mtp(p);
    return 0;
}

static int derive_moe(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_need(p, SL_N_EXPERT_USED, e));
    SL_TRY(sl_arch_need(p, SL_N_SHARED_FF_KEY, e));
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_all_have_experts(p, e));
    return derive(p, e);
}

#define NO_BIASES SL_FACTS({"attention_bias", false, "no biases"})
#define OWN_SCALES " attn_q attn_k attn_v attn_output output nextn.eh_proj "
#define LINEAR_OWN_SCALES OWN_SCALES "attn_qkv attn_gate ssm_alpha ssm_beta ssm_out "
#define EXPERT_OWN_SCALES "ffn_gate_exps ffn_up_exps ffn_down_exps ffn_gate_shexp ffn_up_shexp ffn_down_shexp "

const struct sl_arch sl_arch_qwen35 = {
    .name = "qwen35",
    .classes = SL_CLASSES("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields),
    .tensors = tensors,
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_SHARED_FF_KEY, SL_N_NEXTN, SL_N_CONV, SL_N_LINEAR_DIM, SL_N_LINEAR_KEYS, SL_N_LINEAR_VALUES,
                    SL_N_LINEAR_ROWS, SL_N_FULL_EVERY, SL_N_ROPE_DIM, SL_N_SECTIONS_LATE),
    .facts = NO_BIASES,
    .derive = derive,
    .arrange = arrange,
    .drops = drops,
    .mtp_prefix = "mtp.layers.",
    .mtp_sign = "mtp.fc.weight",
    .output_if_there = true,
    .own_scales = LINEAR_OWN_SCALES "ffn_gate ffn_up ffn_down ",
};

const struct sl_arch sl_arch_qwen35moe = {
    .name = "qwen35moe",
    .classes = SL_CLASSES("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
    .joins_experts = true,
    .fields = SL_FIELDS(sl_arch_model_fields, fields, sl_arch_qwen_moe_fields),
    .tensors = tensors,
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_SHARED_FF_KEY, SL_N_NEXTN, SL_N_CONV, SL_N_LINEAR_DIM, SL_N_LINEAR_KEYS, SL_N_LINEAR_VALUES,
                    SL_N_LINEAR_ROWS, SL_N_FULL_EVERY, SL_N_ROPE_DIM, SL_N_SECTIONS_LATE),
    .facts = NO_BIASES,
    .derive = derive_moe,
    .arrange = arrange,
    .drops = drops,
    .mtp_prefix = "mtp.layers.",
    .mtp_sign = "mtp.fc.weight",
    .output_if_there = true,
    .own_scales = LINEAR_OWN_SCALES EXPERT_OWN_SCALES,
};

const struct sl_arch sl_arch_qwen3next = {
    .name = "qwen3next",
    .classes = SL_CLASSES("Qwen3NextForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, fields, sl_arch_qwen_moe_fields, next_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, attention, joined, sl_arch_dense_tensors, sl_arch_qwen_moe_tensors, shared_expert,
                          nextn),
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_SHARED_FF_KEY, SL_N_NEXTN, SL_N_CONV, SL_N_LINEAR_DIM, SL_N_LINEAR_KEYS, SL_N_LINEAR_VALUES,
                    SL_N_LINEAR_ROWS, SL_N_FULL_EVERY, SL_N_ROPE_DIM, SL_N_SECTIONS_LATE),
    .facts = NO_BIASES,
    .derive = derive_moe,
    .arrange = arrange,
    .drops = drops,
    .mtp_prefix = "mtp.layers.",
    .mtp_sign = "mtp.fc.weight",
    .output_if_there = true,
    .own_scales = OWN_SCALES EXPERT_OWN_SCALES,
};
