#include "proto/arch_table.h"
#include "proto/mixture.h"
#include "proto/plan_build.h"

#include <string.h>

#define RUNTIME_BYTES (3ull * (1u << 30) / 10) /* context and libraries of a GPU runtime */

static uint64_t mul(uint64_t a, uint64_t b)
{
    uint64_t r;

    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX / 1024 : r;
}

/* F16 values that the cache holds for one token of one layer. */
static uint64_t cache_values(const struct sl_model *m, bool whole_heads)
{
    const struct sl_hparams *h = &m->hp;

    if (h->kv_lora && !whole_heads)
        return h->kv_lora + h->rope_dim;
    return mul(h->kv_lora ? h->n_head : h->n_head_kv, h->head_k + h->head_v);
}

/* Layers below that one whose attention has an indexer: each keeps its keys. */
static uint64_t indexers(const struct sl_model *m, uint64_t below)
{
    uint64_t n = 0, layer;

    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const char *name = m->tensors[i].name;
        bool keys = strstr(name, ".indexer.attn_k.weight") || strstr(name, ".indexer.k_proj.weight");

        n += keys && sl_tensor_layer(name, &layer) && layer < below;
    }
    return n;
}

/* What an indexer's keys take of a token; where attention has heads, llama.cpp sets as much aside as a head's values take,
 * too. */
static uint64_t index_values(const struct sl_hparams *h)
{
    return h->index_dim + (h->kv_lora ? 0 : h->head_v);
}

/* Cells for that many tokens, in llama.cpp's steps. */
static uint64_t cells(uint64_t tokens)
{
    return (tokens + 255) / 256 * 256;
}

/* What is looked at beside the window: a micro-batch is in its cache with it. */
static uint64_t window_cells(uint64_t window, uint64_t ctx, uint32_t ubatch)
{
    return cells(window + ubatch < ctx ? window + ubatch : ctx);
}

uint64_t sl_plan_layer_cache(const struct sl_model *m, uint64_t layer, uint64_t ctx, uint32_t ubatch)
{
    const struct sl_hparams *h = &m->hp;
    uint64_t heads = m->near[layer] ? h->n_head_kv_near : h->n_head_kv_far;

    return mul(mul(heads, 2 * (h->head_k + h->head_v)), m->near[layer] ? window_cells(h->near_window, ctx, ubatch) : ctx);
}

static uint64_t near_cache(const struct sl_model *m, uint64_t layers, uint64_t ctx, uint32_t ubatch)
{
    uint64_t bytes = 0;

    for (uint64_t i = 0; i < layers && bytes < UINT64_MAX / 1024; i++) /* a GGUF file may say anything */
        bytes += sl_plan_layer_cache(m, i, ctx, ubatch);
    return bytes;
}

/* DeepSeek-V4: keys that are values too, of a window in each layer and of compressed tokens, and an indexer's keys. */
static uint64_t windowed_cache(const struct sl_hparams *h, uint64_t layers, uint64_t ctx, uint32_t ubatch)
{
    uint64_t fine = mul(mul(h->n_fine, cells(ctx / SL_FINE)), h->head_k + h->index_dim);

    return 2 * (mul(mul(layers, window_cells(h->window, ctx, ubatch)), h->head_k) + fine + mul(mul(h->n_coarse, cells(ctx / SL_COARSE)), h->head_k));
}

uint64_t sl_plan_cache(const struct sl_plan *p, uint64_t ctx, bool whole_heads, uint32_t ubatch)
{
    const struct sl_hparams *h = &p->model->hp;
    const struct sl_model *m = p->model;
    bool cached = !h->index_dim && !h->n_linear && !m->near && strcmp(m->arch, sl_arch_hy_v3.name) != 0; /* layers for multi-token prediction */
    uint64_t layers = !cached && h->n_nextn < h->n_layer ? h->n_layer - h->n_nextn : h->n_layer, bytes;

    if (m->near)
        return near_cache(m, layers, ctx, ubatch);
    if (h->window)
        return windowed_cache(h, layers, ctx, ubatch);
    layers -= h->n_linear < layers ? h->n_linear : 0;
    bytes = mul(mul(cache_values(m, whole_heads), 2), mul(layers, ctx)) + mul(4 * h->n_linear, h->state);
    if (h->index_dim && !whole_heads)
        bytes += mul(mul(index_values(h), 2), mul(indexers(m, layers), ctx));
    return bytes;
}

void sl_plan_paper(const struct sl_plan *p, uint64_t ctx, uint32_t ubatch, uint32_t devices, struct sl_memory *out)
{
    const struct sl_hparams *h = &p->model->hp;
    uint64_t scores = mul(mul(h->n_head, ctx), 2 * (uint64_t)ubatch), logits = mul(h->n_vocab, 4 * (uint64_t)ubatch);

    out->weights = p->tensor_bytes;
    out->kv_cache = sl_plan_cache(p, ctx, true, ubatch);
    out->buffers = mul(scores + logits + RUNTIME_BYTES, devices);
    out->total = out->weights + out->kv_cache + out->buffers;
    out->per_device = (out->total + devices - 1) / devices;
}
