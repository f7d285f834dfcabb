/* Which tensors a checkpoint has: names, shapes and kinds of elements, as published models of each form ship them. */
#include "generator.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

uint64_t kind_bytes(enum kind k)
{
    return k == FP8 || k == SCALE_E8M0 || k >= FP4 ? 1 : k == BF16 ? 2 : 4;
}

static struct tensor *add(struct list *l, enum kind k, enum fill f, uint64_t rows, uint64_t cols,
                          const char *fmt, ...) __attribute__((format(printf, 6, 7)));
static struct tensor *add(struct list *l, enum kind k, enum fill f, uint64_t rows, uint64_t cols,
                          const char *fmt, ...)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        l->t = realloc(l->t, l->cap * sizeof *l->t);
        if (!l->t)
            die("out of memory");
    }
    struct tensor *t = &l->t[l->n++];
    va_list ap;
    *t = (struct tensor){ .kind = k, .fill = f, .rows = rows, .cols = cols, .fan = cols, .level = 96,
                          .bytes = (rows ? rows : 1) * cols * kind_bytes(k) };
    va_start(ap, fmt);
    vsnprintf(t->name, sizeof t->name, fmt, ap);
    va_end(ap);
    return t;
}

/* As compressed-tensors packs it: groups of 32 weights, eight weights in each I32. */
static void packed(struct list *l, uint64_t rows, uint64_t cols, const char *prefix, const char *name)
{
    add(l, PACKED, GAUSS, rows, cols / 8, "%s%s.weight_packed", prefix, name);
    struct tensor *t = add(l, BF16, SCALES, rows, cols / 32, "%s%s.weight_scale", prefix, name);
    t->fan = cols;
    t->level = 2.5f;
    t = add(l, SHAPE, SIZES, 0, 2, "%s%s.weight_shape", prefix, name);
    t->sizes[0] = rows;
    t->sizes[1] = cols;
}

/* As DeepSeek-V4's experts, or as compressed-tensors packs it: 32 weights under an exponent, two in a byte. */
static void mxfp4(struct list *l, bool packed, uint64_t rows, uint64_t cols, const char *prefix, const char *name)
{
    add(l, packed ? FP4_U8 : FP4, GAUSS, rows, cols / 2, packed ? "%s%s.weight_packed" : "%s%s.weight", prefix, name);
    struct tensor *t = add(l, packed ? SCALE_U8 : SCALE_E8M0, SCALES, rows, cols / 32, packed ? "%s%s.weight_scale" : "%s%s.scale",
                           prefix, name);
    t->fan = cols;
    t->level = 2.5f;
}

/* A linear layer's weight, FP8 or INT8 with its scales, packed (experts alone) or BF16. */
static void linear(struct list *l, const struct config *c, uint64_t rows, uint64_t cols,
                   const char *prefix, const char *name)
{
    if (c->mxfp4 && strstr(prefix, ".experts.")) {
        mxfp4(l, c->packed, rows, cols, prefix, name);
        return;
    }
    if (c->packed && strstr(prefix, ".experts.")) {
        packed(l, rows, cols, prefix, name);
        return;
    }
    if (c->packed || !strcmp(c->scales, "none")) {
        add(l, BF16, GAUSS, rows, cols, "%s%s.weight", prefix, name);
        return;
    }
    add(l, c->int8 ? INT8 : FP8, GAUSS, rows, cols, "%s%s.weight", prefix, name);
    enum kind k = !strcmp(c->scales, "e8m0") ? SCALE_E8M0 : !strcmp(c->scales, "mxfp8") ? SCALE_U8 : !strncmp(c->scales, "bf16", 4) ? BF16 : SCALE_F32;
    uint64_t r = (rows + 127) / 128, w = (cols + 127) / 128;
    if (!strcmp(c->scales, "tensor"))
        r = 0, w = 1;
    else if (strstr(c->scales, "row"))
        r = rows, w = 1;
    else if (k == SCALE_U8)
        r = rows, w = (cols + 31) / 32;
    struct tensor *t = add(l, k, SCALES, r, w, "%s%s.%s", prefix, name, c->scale_suffix);
    t->fan = cols;
    t->level = c->int8 ? 36 : 96;
}

/* A feed-forward network, dense or one expert; prefix ends with its name. */
static void network(struct list *l, const struct config *c, uint64_t inter, const char *prefix)
{
    linear(l, c, c->hidden, inter, prefix, "down_proj");
    linear(l, c, inter, c->hidden, prefix, "gate_proj");
    linear(l, c, inter, c->hidden, prefix, "up_proj");
}

/* The one network of a dense layer, or all experts'. */
static void networks(struct list *l, const struct config *c, bool dense, const char *p)
{
    char q[128];
    if (dense) {
        snprintf(q, sizeof q, "%smlp.", p);
        network(l, c, c->inter, q);
    }
    for (uint64_t e = 0; !dense && e < c->experts; e++) {
        snprintf(q, sizeof q, "%smlp.experts.%" PRIu64 ".", p, e);
        network(l, c, c->moe_inter, q);
    }
}

/* A layer's feed-forward part in DeepSeek's form, GLM's and Ling's: dense in the first ones, else experts, a shared one and a
 * router. */
static void feed_forward(struct list *l, const struct config *c, uint64_t i, const char *p)
{
    char q[128];
    bool dense = i < c->dense;
    networks(l, c, dense, p);
    if (dense)
        return;
    snprintf(q, sizeof q, "%smlp.shared_experts.", p);
    network(l, c, c->moe_inter, q);
    add(l, c->f32_bias ? F32 : BF16, SMALL, 0, c->experts, c->arch == LING ? "%smlp.gate.expert_bias" : "%smlp.gate.e_score_correction_bias", p);
    add(l, BF16, GAUSS, c->experts, c->hidden, "%smlp.gate.weight", p);
}

/* The same in Qwen's form and Llama's: dense, or experts in every layer. */
static void plain_feed_forward(struct list *l, const struct config *c, const char *p)
{
    networks(l, c, c->arch != QWEN3MOE, p);
    if (c->arch == QWEN3MOE)
        add(l, BF16, GAUSS, c->experts, c->hidden, "%smlp.gate.weight", p);
}

static void deepseek_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    add(l, BF16, NORM, 0, c->hidden, "%sinput_layernorm.weight", p);
    feed_forward(l, c, i, p);
    add(l, BF16, NORM, 0, c->hidden, "%spost_attention_layernorm.weight", p);
    if (c->index_heads) {
        add(l, F32, SMALL, 0, c->index_dim, "%sself_attn.indexer.k_norm.bias", p);
        add(l, F32, NORM, 0, c->index_dim, "%sself_attn.indexer.k_norm.weight", p);
        add(l, c->f32_proj ? F32 : BF16, GAUSS, c->index_heads, c->hidden, "%sself_attn.indexer.weights_proj.weight", p);
        linear(l, c, c->index_dim, c->hidden, p, "self_attn.indexer.wk");
        linear(l, c, c->index_heads * c->index_dim, c->q_lora, p, "self_attn.indexer.wq_b");
    }
    add(l, BF16, NORM, 0, c->kv_lora, "%sself_attn.kv_a_layernorm.weight", p);
    linear(l, c, c->kv_lora + c->rope, c->hidden, p, "self_attn.kv_a_proj_with_mqa");
    linear(l, c, c->heads * (c->nope + c->v_dim), c->kv_lora, p, "self_attn.kv_b_proj");
    linear(l, c, c->hidden, c->heads * c->v_dim, p, "self_attn.o_proj");
    add(l, BF16, NORM, 0, c->q_lora, "%sself_attn.q_a_layernorm.weight", p);
    linear(l, c, c->q_lora, c->hidden, p, "self_attn.q_a_proj");
    linear(l, c, c->heads * (c->nope + c->rope), c->q_lora, p, "self_attn.q_b_proj");
}

/* MiniMax-M3's norms are stored less one. */
static enum fill norms(const struct config *c)
{
    return c->arch == MINIMAX3 ? SMALL : NORM;
}

static void attention(struct list *l, const struct config *c, const char *p)
{
    uint64_t head = c->head_dim ? c->head_dim : c->hidden / c->heads, kv = head * c->kv_heads;
    static const char *const qkv[] = { "k", "q", "v" };
    for (int k = 0; k < 3; k++) {
        uint64_t rows = k == 1 ? head * c->heads : kv;
        char name[32];
        if (c->arch == QWEN2 || c->arch == GLM4MOE)
            add(l, BF16, SMALL, 0, rows, "%sself_attn.%s_proj.bias", p, qkv[k]);
        snprintf(name, sizeof name, "self_attn.%s_proj", qkv[k]);
        linear(l, c, rows, c->hidden, p, name);
        if (k < 2 && c->head_norm)
            add(l, BF16, norms(c), 0, head, "%sself_attn.%s_norm.weight", p, qkv[k]);
    }
    linear(l, c, c->hidden, head * c->heads, p, "self_attn.o_proj");
}

/* Qwen's, Llama's and GLM's. */
static void plain_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    add(l, BF16, NORM, 0, c->hidden, "%sinput_layernorm.weight", p);
    if (c->arch == GLM4MOE)
        feed_forward(l, c, i, p);
    else
        plain_feed_forward(l, c, p);
    add(l, BF16, NORM, 0, c->hidden, "%spost_attention_layernorm.weight", p);
    attention(l, c, p);
}

static void block_sparse(struct list *l, const struct config *c, uint64_t inter, const char *p)
{
    char q[128];
    add(l, F32, SMALL, 0, c->experts, "%sblock_sparse_moe.e_score_correction_bias", p);
    for (uint64_t e = 0; e < c->experts; e++) {
        snprintf(q, sizeof q, "%sblock_sparse_moe.experts.%" PRIu64 ".", p, e);
        linear(l, c, inter, c->hidden, q, "w1");
        linear(l, c, c->hidden, inter, q, "w2");
        linear(l, c, inter, c->hidden, q, "w3");
    }
    add(l, F32, GAUSS, c->experts, c->hidden, "%sblock_sparse_moe.gate.weight", p);
}

static void minimax_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    block_sparse(l, c, c->inter, p);
    add(l, BF16, NORM, 0, c->hidden, "%sinput_layernorm.weight", p);
    add(l, BF16, NORM, 0, c->hidden, "%spost_attention_layernorm.weight", p);
    add(l, BF16, NORM, 0, c->head_dim * c->kv_heads, "%sself_attn.k_norm.weight", p);
    linear(l, c, c->head_dim * c->kv_heads, c->hidden, p, "self_attn.k_proj");
    linear(l, c, c->hidden, c->head_dim * c->heads, p, "self_attn.o_proj");
    add(l, BF16, NORM, 0, c->head_dim * c->heads, "%sself_attn.q_norm.weight", p);
    linear(l, c, c->head_dim * c->heads, c->hidden, p, "self_attn.q_proj");
    linear(l, c, c->head_dim * c->kv_heads, c->hidden, p, "self_attn.v_proj");
}

static void minimax3_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64], q[128];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    if (i < c->dense) {
        networks(l, c, true, p);
    } else {
        block_sparse(l, c, c->moe_inter, p);
        snprintf(q, sizeof q, "%sblock_sparse_moe.shared_experts.", p);
        network(l, c, c->moe_inter, q);
        add(l, BF16, SMALL, 0, c->index_dim, "%sself_attn.index_k_norm.weight", p);
        linear(l, c, c->index_dim, c->hidden, p, "self_attn.index_k_proj");
        add(l, BF16, SMALL, 0, c->index_dim, "%sself_attn.index_q_norm.weight", p);
        linear(l, c, c->kv_heads * c->index_dim, c->hidden, p, "self_attn.index_q_proj");
    }
    add(l, BF16, SMALL, 0, c->hidden, "%sinput_layernorm.weight", p);
    add(l, BF16, SMALL, 0, c->hidden, "%spost_attention_layernorm.weight", p);
    attention(l, c, p);
}

static void ling_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    linear(l, c, c->hidden, c->head_dim * c->heads, p, "attention.dense");
    add(l, BF16, NORM, 0, c->head_dim, "%sattention.key_layernorm.weight", p);
    add(l, BF16, NORM, 0, c->head_dim, "%sattention.query_layernorm.weight", p);
    linear(l, c, c->head_dim * (c->heads + 2 * c->kv_heads), c->hidden, p, "attention.query_key_value");
    add(l, BF16, NORM, 0, c->hidden, "%sinput_layernorm.weight", p);
    feed_forward(l, c, i, p);
    add(l, BF16, NORM, 0, c->hidden, "%spost_attention_layernorm.weight", p);
}

/* The layer for multi-token prediction: one of DeepSeek's, GLM's or Ling's, and what stands around it. */
static void mtp_layer(struct list *l, const struct config *c)
{
    char p[64];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", c->layers);
    (c->arch == GLM4MOE ? plain_layer : c->arch == LING ? ling_layer : deepseek_layer)(l, c, c->layers);
    add(l, BF16, GAUSS, c->hidden, 2 * c->hidden, "%seh_proj.weight", p);
    add(l, BF16, NORM, 0, c->hidden, "%senorm.weight", p);
    add(l, BF16, NORM, 0, c->hidden, "%shnorm.weight", p);
    if (c->arch == LING) {
        add(l, BF16, NORM, 0, c->hidden, "%sfinal_layernorm.weight", p);
        return;
    }
    add(l, BF16, GAUSS, c->vocab, c->hidden, "%sembed_tokens.weight", p);
    add(l, BF16, NORM, 0, c->hidden, "%sshared_head.norm.weight", p);
    if (c->arch == GLM4MOE)
        linear(l, c, c->vocab, c->hidden, p, "shared_head.head");
    else
        add(l, BF16, GAUSS, c->vocab, c->hidden, "%sshared_head.head.weight", p);
}

void list_tensors(struct list *l, const struct config *c)
{
    if (!c->tied)
        add(l, BF16, GAUSS, c->vocab, c->hidden, "lm_head.weight");
    add(l, BF16, GAUSS, c->vocab, c->hidden, c->arch == LING ? "model.word_embeddings.weight" : "model.embed_tokens.weight");
    for (uint64_t i = 0; i < c->layers; i++)
        (c->arch == DEEPSEEK ? deepseek_layer : c->arch == MINIMAX ? minimax_layer : c->arch == MINIMAX3 ? minimax3_layer
         : c->arch == LING ? ling_layer : plain_layer)(l, c, i);
    if (c->mtp)
        mtp_layer(l, c);
    add(l, BF16, norms(c), 0, c->hidden, "model.norm.weight");
}
