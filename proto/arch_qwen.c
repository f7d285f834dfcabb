/* Qwen2 (biases on q, k and v), Qwen3 (norms on the heads of q and k), the R1 distills made from both, and
 * Qwen3 with many experts in each layer. No permutation. */
#include "proto/arch_table.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define MOE (SL_W_LAYER | SL_W_MOE)
#define MLP "model.layers.{i}.mlp."

static const struct sl_tensor_tmpl *const tensors[] = {sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors,
                                                       sl_arch_dense_tensors, NULL};

const struct sl_tensor_tmpl sl_arch_qwen_moe_tensors[] = {
    {"blk.{i}.ffn_gate_inp.weight", MLP "gate.weight", MOE, SL_N_EXPERT, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.ffn_gate_exps.weight", MLP "experts.{e}.gate_proj.weight", MOE | SL_W_APART, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_exps.weight", MLP "experts.{e}.up_proj.weight", MOE | SL_W_APART, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_exps.weight", MLP "experts.{e}.down_proj.weight", MOE | SL_W_APART, SL_N_EMBD, SL_N_MOE_FF, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_gate_exps.weight", MLP "experts.gate_up_proj", MOE | SL_W_FUSED, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_exps.weight", MLP "experts.gate_up_proj", MOE | SL_W_FUSED, SL_N_MOE_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_exps.weight", MLP "experts.down_proj", MOE | SL_W_FUSED, SL_N_EMBD, SL_N_MOE_FF, 0, SL_SHIP_LINEAR, 0},
    SL_END_TENSORS,
};

static const struct sl_tensor_tmpl *const moe_tensors[] = {sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors,
                                                           sl_arch_qwen_moe_tensors, NULL};

/* Newer libraries call the experts "local"; where both entries are there, theirs counts. */
const struct sl_field sl_arch_qwen_moe_fields[] = {
    {SL_N_EXPERT, "num_experts", SL_FIELD_INT, false, 0, 1 << 14, NAN},
    {SL_N_EXPERT, "num_local_experts", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT_USED, "num_experts_per_tok", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_MOE_FF, "moe_intermediate_size", SL_FIELD_INT, true, 1, 1 << 24, 0},
    {SL_N_SHARED_FF_KEY, "shared_expert_intermediate_size", SL_FIELD_INT, false, 0, 1 << 24, NAN},
    SL_END_FIELDS,
};

/* heads_kv: what a class takes where num_key_value_heads is absent. */
static int derive_attention(struct sl_params *p, uint64_t heads_kv, struct sl_error *e)
{
    if (!p->num[SL_N_CTX].have)
        sl_num_set(p, SL_N_CTX, 32768); /* the configuration classes' own */
    sl_field_default(p, SL_N_HEAD_KV, (double)heads_kv); /* null means as many as heads */
    SL_TRY(sl_arch_no_llama3(p, e));
    return sl_arch_plain_attention(p, e);
}

static int derive_qwen2(struct sl_params *p, struct sl_error *e)
{
    p->when |= SL_W_BIAS;
    return derive_attention(p, 32, e);
}

int sl_arch_normed_attention(struct sl_params *p, uint64_t heads_kv, struct sl_error *e)
{
    if (sl_config_bool(p->config, "attention_bias", false))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"attention_bias\" is true, and llama.cpp's %s has no bias of "
                       "the attention's output", p->arch->name);
    p->when |= SL_W_HEAD_NORM;
    return derive_attention(p, heads_kv, e);
}

static int derive_qwen3(struct sl_params *p, struct sl_error *e)
{
    sl_field_default(p, SL_N_HEAD_DIM, 128);
    return sl_arch_normed_attention(p, 32, e);
}

/* llama.cpp's model has experts in every layer, whatever these entries say. */
int sl_arch_all_have_experts(const struct sl_params *p, struct sl_error *e)
{
    const cJSON *dense = cJSON_GetObjectItemCaseSensitive(p->config, "mlp_only_layers");
    double step = 1;

    SL_TRY(sl_config_float(p->config, "", "decoder_sparse_step", &step, e));
    if (step == 1 && cJSON_GetArraySize(dense) == 0)
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" tells of layers without experts, which llama.cpp's %s "
                   "cannot have", step == 1 ? "mlp_only_layers" : "decoder_sparse_step", p->arch->name);
}

/* Of each expert the rows of gate are above those of up. */
void sl_arch_qwen_moe_views(struct sl_params *p)
{
    uint64_t expert = p->num[SL_N_MOE_FF].u * p->num[SL_N_EMBD].u, n = p->num[SL_N_EXPERT].u;

    for (int i = SL_VIEW_GATE; i <= SL_VIEW_UP; i++)
        p->views[i] = (struct sl_view){1, {{.elems = n * expert, .first = i == SL_VIEW_UP ? expert : 0, .run = expert,
                                            .n = {n, 1}, .step = {2 * expert}}}, 0};
}

void sl_arch_qwen_moe_arrange(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a)
{
    bool down = sl_ends_with(t->out, ".ffn_down_exps.weight"), up = sl_ends_with(t->out, ".ffn_up_exps.weight");

    if (!(t->when & SL_W_FUSED))
        return;
    a->stack = true;
    a->view = down ? NULL : &p->views[up ? SL_VIEW_UP : SL_VIEW_GATE];
    memcpy(a->shape, (uint64_t[3]){p->num[SL_N_EXPERT].u, p->num[t->rows].u * (down ? 1 : 2), p->num[t->cols].u}, sizeof a->shape);
}

static int derive_moe(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    SL_TRY(sl_arch_need(p, SL_N_EXPERT, e));
    if (!n[SL_N_EXPERT_USED].have)
        sl_num_set(p, SL_N_EXPERT_USED, 8); /* the configuration class's own */
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_all_have_experts(p, e));
    sl_arch_qwen_moe_views(p);
    return sl_arch_normed_attention(p, 4, e);
}

static const char *const qwen2_classes[] = {"Qwen2ForCausalLM", NULL};
static const char *const qwen3_classes[] = {"Qwen3ForCausalLM", NULL};
static const char *const moe_classes[] = {"Qwen3MoeForCausalLM", NULL};

const struct sl_arch sl_arch_qwen2 = {
    .name = "qwen2",
    .classes = qwen2_classes,
    .fields = sl_arch_plain_fields,
    .tensors = tensors,
    .derive = derive_qwen2,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
};

const struct sl_arch sl_arch_qwen3 = {
    .name = "qwen3",
    .classes = qwen3_classes,
    .fields = sl_arch_plain_fields,
    .tensors = tensors,
    .derive = derive_qwen3,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
    .ranks = true,
    .own_scales = " attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down output ",
};

const struct sl_arch sl_arch_qwen3moe = {
    .name = "qwen3moe",
    .classes = moe_classes,
    .fields = sl_arch_plain_fields,
    .more_fields = sl_arch_qwen_moe_fields,
    .tensors = moe_tensors,
    .derive = derive_moe,
    .arrange = sl_arch_qwen_moe_arrange,
    .output_if_there = true,
    .own_scales = " attn_q attn_k attn_v attn_output ffn_gate_exps ffn_up_exps ffn_down_exps output ",
};
