/* Qwen3, the R1 distill made from it, and Qwen3 with many experts in each layer: norms on the heads of q
 * and k, no biases, no permutation. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <math.h>

#define L SL_W_LAYER
#define ATTN "model.layers.{i}.self_attn."
#define MLP "model.layers.{i}.mlp."
#define EXPERTS "model.layers.{i}.mlp.experts.{e}."

static const struct sl_tensor_tmpl tensors[] = {
    {"token_embd.weight", "model.embed_tokens.weight", 0, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output_norm.weight", "model.norm.weight", 0, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output.weight", "lm_head.weight", SL_W_OUTPUT, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_norm.weight", "model.layers.{i}.input_layernorm.weight", L, SL_N_NONE, SL_N_EMBD,
     0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_q.weight", ATTN "q_proj.weight", L, SL_N_Q_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_q_norm.weight", ATTN "q_norm.weight", L, SL_N_NONE, SL_N_HEAD_DIM, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_k.weight", ATTN "k_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_k_norm.weight", ATTN "k_norm.weight", L, SL_N_NONE, SL_N_HEAD_DIM, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_v.weight", ATTN "v_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, SL_N_EMBD, SL_N_Q_ROWS, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_norm.weight", "model.layers.{i}.post_attention_layernorm.weight", L, SL_N_NONE, SL_N_EMBD,
     0, SL_SHIP_BASE, 0},

    {"blk.{i}.ffn_gate.weight", MLP "gate_proj.weight", L | SL_W_DENSE, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up.weight", MLP "up_proj.weight", L | SL_W_DENSE, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down.weight", MLP "down_proj.weight", L | SL_W_DENSE, SL_N_EMBD, SL_N_FF, 0, SL_SHIP_LINEAR, 0},

    {"blk.{i}.ffn_gate_inp.weight", MLP "gate.weight", L | SL_W_MOE, SL_N_EXPERT, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.ffn_gate_exps.weight", EXPERTS "gate_proj.weight", L | SL_W_MOE, SL_N_MOE_FF, SL_N_EMBD, 0,
     SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up_exps.weight", EXPERTS "up_proj.weight", L | SL_W_MOE, SL_N_MOE_FF, SL_N_EMBD, 0,
     SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down_exps.weight", EXPERTS "down_proj.weight", L | SL_W_MOE, SL_N_EMBD, SL_N_MOE_FF, 0,
     SL_SHIP_LINEAR, 0},
    {NULL, NULL, 0, 0, 0, 0, 0, 0},
};

/* Newer libraries call the experts "local"; where both entries are there, theirs counts. */
static const struct sl_field moe_fields[] = {
    {SL_N_EXPERT, "num_experts", SL_FIELD_INT, false, 0, 1 << 14, NAN},
    {SL_N_EXPERT, "num_local_experts", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_EXPERT_USED, "num_experts_per_tok", SL_FIELD_INT, false, 1, 1 << 14, NAN},
    {SL_N_MOE_FF, "moe_intermediate_size", SL_FIELD_INT, true, 1, 1 << 24, 0},
    {SL_N_SHARED_FF_KEY, "shared_expert_intermediate_size", SL_FIELD_INT, false, 0, 1 << 24, NAN},
    {SL_N_NONE, NULL, 0, false, 0, 0, 0},
};

static int derive_attention(struct sl_params *p, uint64_t heads_kv, uint64_t head_dim, struct sl_error *e)
{
    if (sl_config_bool(p->config, "attention_bias", false))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"attention_bias\" is true, and llama.cpp's %s has no bias of "
                       "the attention's output", p->arch->name);
    return sl_arch_qwen_derive(p, heads_kv, head_dim, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    return derive_attention(p, 32, 128, e);
}

/* llama.cpp's model has experts in every layer, whatever these entries say. */
static int all_have_experts(const struct sl_params *p, struct sl_error *e)
{
    const cJSON *dense = cJSON_GetObjectItemCaseSensitive(p->config, "mlp_only_layers");
    double step = 1;

    SL_TRY(sl_config_float(p->config, "", "decoder_sparse_step", &step, e));
    if (step == 1 && cJSON_GetArraySize(dense) == 0)
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" tells of layers without experts, which llama.cpp's %s "
                   "cannot have", step == 1 ? "mlp_only_layers" : "decoder_sparse_step", p->arch->name);
}

static int derive_moe(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    if (!n[SL_N_EXPERT].u)
        return sl_fail(e, SL_ESOURCE, "config.json has no \"num_experts\", which %s needs", p->hf_class);
    if (!n[SL_N_EXPERT_USED].have)
        sl_num_set(p, SL_N_EXPERT_USED, 8); /* the configuration class's own */
    if (n[SL_N_EXPERT_USED].u > n[SL_N_EXPERT].u)
        return sl_fail(e, SL_ESOURCE, "config.json: \"num_experts_per_tok\" is %u of %u experts",
                       (unsigned)n[SL_N_EXPERT_USED].u, (unsigned)n[SL_N_EXPERT].u);
    SL_TRY(all_have_experts(p, e));
    return derive_attention(p, 4, 0, e);
}

static const char *const classes[] = {"Qwen3ForCausalLM", NULL};
static const char *const moe_classes[] = {"Qwen3MoeForCausalLM", NULL};

const struct sl_arch sl_arch_qwen3 = {
    .name = "qwen3",
    .classes = classes,
    .fields = sl_arch_plain_fields,
    .tensors = tensors,
    .derive = derive,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
    .ranks = true,
};

const struct sl_arch sl_arch_qwen3moe = {
    .name = "qwen3moe",
    .classes = moe_classes,
    .fields = sl_arch_plain_fields,
    .more_fields = moe_fields,
    .tensors = tensors,
    .derive = derive_moe,
    .output_if_there = true,
};
