/* Llama and the R1 distills made from it. Q and K are stored for GGUF's pairing
 * of neighbouring rows, so their rows are permuted; rope_type llama3 becomes
 * the tensor rope_freqs. */
#include "proto/arch_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define L SL_W_LAYER
#define ATTN "model.layers.{i}.self_attn."
#define MLP "model.layers.{i}.mlp."

static const struct sl_tensor_tmpl own[] = {
    {"rope_freqs.weight", NULL, SL_W_FREQS, SL_N_NONE, SL_N_HALF_ROPE, SL_INLINE, SL_SHIP_F32, 0},
    {"blk.{i}.attn_q.weight", ATTN "q_proj.weight", L, SL_N_Q_ROWS, SL_N_EMBD, SL_PERMUTE, SL_SHIP_LINEAR, SL_N_HEAD},
    {"blk.{i}.attn_q.bias", ATTN "q_proj.bias", L | SL_W_BIAS, SL_N_NONE, SL_N_Q_ROWS, SL_PERMUTE, SL_SHIP_BASE, SL_N_HEAD},
    {"blk.{i}.attn_k.weight", ATTN "k_proj.weight", L, SL_N_KV_ROWS, SL_N_EMBD, SL_PERMUTE, SL_SHIP_LINEAR, SL_N_HEAD_KV},
    {"blk.{i}.attn_k.bias", ATTN "k_proj.bias", L | SL_W_BIAS, SL_N_NONE, SL_N_KV_ROWS, SL_PERMUTE, SL_SHIP_BASE, SL_N_HEAD_KV},
    SL_MATRIX("blk.{i}.attn_v.weight", ATTN "v_proj.weight", L, KV_ROWS, EMBD),
    SL_VECTOR("blk.{i}.attn_v.bias", ATTN "v_proj.bias", L | SL_W_BIAS, KV_ROWS),
    SL_MATRIX("blk.{i}.attn_output.weight", ATTN "o_proj.weight", L, EMBD, Q_ROWS),
    SL_VECTOR("blk.{i}.attn_output.bias", ATTN "o_proj.bias", L | SL_W_OBIAS, EMBD),
    SL_VECTOR("blk.{i}.ffn_norm.weight", "model.layers.{i}.post_attention_layernorm.weight", L, EMBD),
    SL_MATRIX("blk.{i}.ffn_gate.weight", MLP "gate_proj.weight", L, FF, EMBD),
    SL_VECTOR("blk.{i}.ffn_gate.bias", MLP "gate_proj.bias", L | SL_W_FBIAS, FF),
    SL_MATRIX("blk.{i}.ffn_up.weight", MLP "up_proj.weight", L, FF, EMBD),
    SL_VECTOR("blk.{i}.ffn_up.bias", MLP "up_proj.bias", L | SL_W_FBIAS, FF),
    SL_MATRIX("blk.{i}.ffn_down.weight", MLP "down_proj.weight", L, EMBD, FF),
    SL_VECTOR("blk.{i}.ffn_down.bias", MLP "down_proj.bias", L | SL_W_FBIAS, EMBD),
    SL_END_TENSORS,
};

int sl_arch_plain_attention(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;
    unsigned embd = (unsigned)n[SL_N_EMBD].u, heads = (unsigned)n[SL_N_HEAD].u;

    if (!n[SL_N_HEAD_KV].have)
        sl_num_set(p, SL_N_HEAD_KV, heads);
    if (heads % n[SL_N_HEAD_KV].u)
        return sl_fail(e, SL_ESOURCE, "config.json: %u heads cannot be divided among %u "
                       "\"num_key_value_heads\"", heads, (unsigned)n[SL_N_HEAD_KV].u);
    if (n[SL_N_HEAD_DIM].have) {
        sl_num_set(p, SL_N_HEAD_DIM_K, n[SL_N_HEAD_DIM].u);
        sl_num_set(p, SL_N_HEAD_DIM_V, n[SL_N_HEAD_DIM].u);
    } else if (embd % heads) {
        return sl_fail(e, SL_ESOURCE, "config.json: \"hidden_size\" %u cannot be divided among %u "
                       "\"num_attention_heads\"", embd, heads);
    } else {
        sl_num_set(p, SL_N_HEAD_DIM, embd / heads);
    }
    SL_TRY(sl_num_mul(p, SL_N_Q_ROWS, heads, n[SL_N_HEAD_DIM].u, e));
    return sl_num_mul(p, SL_N_KV_ROWS, n[SL_N_HEAD_KV].u, n[SL_N_HEAD_DIM].u, e);
}

/* The factors by which llama3 scaling divides each frequency. The converter
 * computes base^(2j/dim) and what follows on float32 tensors, and its limits on
 * Python's doubles; every operation below is rounded where it rounds. */
static void fill_freqs(struct sl_params *p, const struct sl_llama3 *s)
{
    uint64_t dim = p->num[SL_N_HEAD_DIM].u;
    float base = (float)p->num[SL_N_ROPE_THETA].f;
    double longest = s->old / s->low, shortest = s->old / s->high;

    for (uint64_t j = 0; j < dim / 2; j++) {
        float exponent = (float)(2 * j) / (float)dim;
        float freq = 1.0f / (float)pow((double)base, (double)exponent);
        float wavelen = (1.0f / freq) * (float)(2 * M_PI);

        if ((double)wavelen < shortest) {
            p->values[j] = 1.0f;
        } else if ((double)wavelen > longest) {
            p->values[j] = (float)s->factor;
        } else {
            float turns = (1.0f / wavelen) * (float)s->old;
            float smooth = (turns - (float)s->low) / (float)(s->high - s->low);

            p->values[j] = 1.0f / ((1.0f - smooth) / (float)s->factor + smooth);
        }
    }
}

/* The context before scaling stands among the rope parameters; older converters
 * looked for it at the top level. */
int sl_arch_llama3(struct sl_params *p, struct sl_llama3 *s, struct sl_error *e)
{
    *s = (struct sl_llama3){.factor = 8, .low = 1, .high = 4, .old = 8192};
    SL_TRY(sl_config_float(p->rope, "rope_scaling.", "factor", &s->factor, e));
    SL_TRY(sl_config_float(p->rope, "rope_scaling.", "low_freq_factor", &s->low, e));
    SL_TRY(sl_config_float(p->rope, "rope_scaling.", "high_freq_factor", &s->high, e));
    SL_TRY(sl_config_float(p->config, "", "original_max_position_embeddings", &s->old, e));
    SL_TRY(sl_config_float(p->rope, "rope_scaling.", "original_max_position_embeddings", &s->old, e));
    if (s->factor <= 0 || s->low <= 0 || s->high < s->low || s->old < 1)
        return sl_fail(e, SL_ESOURCE, "config.json: rope_scaling of type llama3 has absurd values: "
                       "factor %g, low_freq_factor %g, high_freq_factor %g, original context %g",
                       s->factor, s->low, s->high, s->old);
    sl_num_set(p, SL_N_HALF_ROPE, p->num[SL_N_HEAD_DIM].u / 2);
    p->values = calloc(p->num[SL_N_HALF_ROPE].u, sizeof *p->values);
    if (!p->values)
        return sl_fail(e, SL_EFAIL, "out of memory for rope_freqs");
    p->when |= SL_W_FREQS;
    return 0;
}

int sl_arch_llama3_freqs(struct sl_params *p, struct sl_error *e)
{
    struct sl_llama3 s;

    if (!p->rope_type || strcmp(p->rope_type, "llama3") != 0)
        return 0;
    SL_TRY(sl_arch_llama3(p, &s, e));
    fill_freqs(p, &s);
    return 0;
}

static const struct sl_field context[] = {SL_ELSE(CTX, "max_position_embeddings", 2048), SL_END_FIELDS}; /* the class's own */

static int derive(struct sl_params *p, struct sl_error *e)
{
    SL_TRY(sl_arch_plain_attention(p, e));
    if (p->num[SL_N_HEAD_DIM].u % 2)
        return sl_fail(e, SL_ESOURCE, "config.json: heads have %u rows; an even number is needed",
                       (unsigned)p->num[SL_N_HEAD_DIM].u);
    /* The converter's config class always has a head_dim. */
    sl_num_set(p, SL_N_HEAD_DIM_K, p->num[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_HEAD_DIM_V, p->num[SL_N_HEAD_DIM].u);
    sl_num_set(p, SL_N_ROPE_DIM, p->num[SL_N_HEAD_DIM].u);
    if (sl_config_bool(p->config, "attention_bias", false))
        p->when |= SL_W_BIAS | SL_W_OBIAS;
    if (sl_config_bool(p->config, "mlp_bias", false))
        p->when |= SL_W_FBIAS;
    return sl_arch_llama3_freqs(p, e);
}

const struct sl_arch sl_arch_llama = {
    .name = "llama",
    .classes = SL_CLASSES("LlamaForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_plain_fields, context),
    .tensors = SL_TENSORS(sl_arch_common_tensors, own),
    .keys = SL_KEYS(SL_N_VOCAB, SL_N_ROPE_DIM),
    .derive = derive,
    .output_if_there = true,
    .sentencepiece = true,
    .space_prefix = true,
    .own_scales = " attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down output ",
};
