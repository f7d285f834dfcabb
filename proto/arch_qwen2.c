/* Qwen2 and the R1 distills made from it: biases on q, k and v, no permutation. */
#include "proto/arch_table.h"

#include <cjson/cJSON.h>
#include <string.h>

#define L SL_W_LAYER
#define ATTN "model.layers.{i}.self_attn."
#define MLP "model.layers.{i}.mlp."

static const struct sl_tensor_tmpl tensors[] = {
    {"token_embd.weight", "model.embed_tokens.weight", 0, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output_norm.weight", "model.norm.weight", 0, SL_N_NONE, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"output.weight", "lm_head.weight", SL_W_OUTPUT, SL_N_VOCAB, SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_norm.weight", "model.layers.{i}.input_layernorm.weight", L, SL_N_NONE, SL_N_EMBD,
     0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_q.weight", ATTN "q_proj.weight", L, SL_N_Q_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_q.bias", ATTN "q_proj.bias", L, SL_N_NONE, SL_N_Q_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_k.weight", ATTN "k_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_k.bias", ATTN "k_proj.bias", L, SL_N_NONE, SL_N_KV_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_v.weight", ATTN "v_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.attn_v.bias", ATTN "v_proj.bias", L, SL_N_NONE, SL_N_KV_ROWS, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, SL_N_EMBD, SL_N_Q_ROWS, 0,
     SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_norm.weight", "model.layers.{i}.post_attention_layernorm.weight", L, SL_N_NONE,
     SL_N_EMBD, 0, SL_SHIP_BASE, 0},
    {"blk.{i}.ffn_gate.weight", MLP "gate_proj.weight", L, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_up.weight", MLP "up_proj.weight", L, SL_N_FF, SL_N_EMBD, 0, SL_SHIP_LINEAR, 0},
    {"blk.{i}.ffn_down.weight", MLP "down_proj.weight", L, SL_N_EMBD, SL_N_FF, 0, SL_SHIP_LINEAR, 0},
    {NULL, NULL, 0, 0, 0, 0, 0, 0},
};

int sl_arch_qwen_derive(struct sl_params *p, uint64_t heads_kv, uint64_t head_dim, struct sl_error *e)
{
    if (!p->num[SL_N_CTX].have)
        sl_num_set(p, SL_N_CTX, 32768); /* the configuration classes' own */
    if (!cJSON_GetObjectItemCaseSensitive(p->config, "num_key_value_heads"))
        sl_num_set(p, SL_N_HEAD_KV, heads_kv); /* null means as many as heads */
    if (head_dim && !cJSON_GetObjectItemCaseSensitive(p->config, "head_dim"))
        sl_num_set(p, SL_N_HEAD_DIM, head_dim);
    if (p->num[SL_N_HEAD_DIM].have) {
        sl_num_set(p, SL_N_HEAD_DIM_K, p->num[SL_N_HEAD_DIM].u);
        sl_num_set(p, SL_N_HEAD_DIM_V, p->num[SL_N_HEAD_DIM].u);
    }
    if (p->rope_type && strcmp(p->rope_type, "llama3") == 0)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: rope_scaling of type llama3 is not "
                       "supported for %s", p->hf_class);
    return sl_arch_plain_attention(p, e);
}

static int derive(struct sl_params *p, struct sl_error *e)
{
    return sl_arch_qwen_derive(p, 32, 0, e);
}

static const char *const classes[] = {"Qwen2ForCausalLM", NULL};

const struct sl_arch sl_arch_qwen2 = {
    .name = "qwen2",
    .classes = classes,
    .fields = sl_arch_plain_fields,
    .tensors = tensors,
    .derive = derive,
    .output_if_there = true,
    .sentencepiece = true,
    .embeds = true,
};
