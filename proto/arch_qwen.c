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
    SL_TENSOR("blk.{i}.ffn_gate_inp.weight", MLP "gate.weight", MOE, EXPERT, EMBD, BASE),
    SL_GATED("_exps", MLP "experts.{e}.", MOE | SL_W_APART, MOE_FF, EMBD, LINEAR),
    SL_MATRIX("blk.{i}.ffn_gate_exps.weight", MLP "experts.gate_up_proj", MOE | SL_W_FUSED, MOE_FF, EMBD),
    SL_MATRIX("blk.{i}.ffn_up_exps.weight", MLP "experts.gate_up_proj", MOE | SL_W_FUSED, MOE_FF, EMBD),
    SL_MATRIX("blk.{i}.ffn_down_exps.weight", MLP "experts.down_proj", MOE | SL_W_FUSED, EMBD, MOE_FF),
    SL_END_TENSORS,
};

/* Newer libraries call the experts "local"; where both entries are there, theirs counts. */
const struct sl_field sl_arch_qwen_moe_fields[] = {
    SL_FIELD(EXPERT, "num_experts", true, false, NAN, 0, 1 << 14), SL_MAY(EXPERT, "num_local_experts"),
    SL_MAY(EXPERT_USED, "num_experts_per_tok"),
    SL_NEED(MOE_FF, "moe_intermediate_size"), SL_FIELD(SHARED_FF_KEY, "shared_expert_intermediate_size", false, false, NAN, 0, 1 << 24),
    SL_END_FIELDS,
};

/* What the configuration classes take for what is absent; null heads of keys are as many as heads. */
static const struct sl_field class_fields[] = {
    SL_ELSE(CTX, "max_position_embeddings", 32768), SL_CLASS(HEAD_KV, "num_key_value_heads", 32), SL_END_FIELDS,
};
static const struct sl_field head_fields[] = {SL_CLASS(HEAD_DIM, "head_dim", 128), SL_END_FIELDS};
static const struct sl_field moe_class_fields[] = {
    SL_ELSE(CTX, "max_position_embeddings", 32768), SL_CLASS(HEAD_KV, "num_key_value_heads", 4),
    SL_ELSE(EXPERT_USED, "num_experts_per_tok", 8), SL_END_FIELDS,
};

static int derive_qwen2(struct sl_params *p, struct sl_error *e)
{
    p->when |= SL_W_BIAS;
    SL_TRY(sl_arch_no_llama3(p, e));
    return sl_arch_plain_attention(p, e);
}

const struct sl_fact sl_arch_normed_facts[] = {{"attention_bias", false, "no bias of the attention's output"}, {NULL, false, NULL}};

int sl_arch_normed_attention(struct sl_params *p, struct sl_error *e)
{
    p->when |= SL_W_HEAD_NORM;
    SL_TRY(sl_arch_no_llama3(p, e));
    return sl_arch_plain_attention(p, e);
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
    SL_TRY(sl_arch_check_experts(p, e));
    SL_TRY(sl_arch_all_have_experts(p, e));
    sl_arch_qwen_moe_views(p);
    return sl_arch_normed_attention(p, e);
}

const struct sl_arch sl_arch_qwen2 = {
    .name = "qwen2",
    .classes = SL_CLASSES("Qwen2ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, class_fields),
    .tensors = tensors,
    .derive = derive_qwen2,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
};

const struct sl_arch sl_arch_qwen3 = {
    .name = "qwen3",
    .classes = SL_CLASSES("Qwen3ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, class_fields, head_fields),
    .tensors = tensors,
    .facts = sl_arch_normed_facts,
    .derive = sl_arch_normed_attention,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
    .ranks = true,
    .own_scales = " attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down output ",
};

const struct sl_arch sl_arch_qwen3moe = {
    .name = "qwen3moe",
    .classes = SL_CLASSES("Qwen3MoeForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, sl_arch_qwen_moe_fields, moe_class_fields),
    .tensors = SL_TENSORS(sl_arch_common_tensors, sl_arch_attention_tensors, sl_arch_norm_tensors, sl_arch_qwen_moe_tensors),
    .keys = SL_KEYS(SL_N_MOE_FF, SL_N_SHARED_FF_KEY),
    .facts = sl_arch_normed_facts,
    .derive = derive_moe,
    .arrange = sl_arch_qwen_moe_arrange,
    .output_if_there = true,
    .own_scales = " attn_q attn_k attn_v attn_output ffn_gate_exps ffn_up_exps ffn_down_exps output ",
};
