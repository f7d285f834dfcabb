#include "proto/mixture.h"
#include "proto/plan_build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define LAYERS_MOST 4096u
#define EVEN_MOST 512u      /* layers that are spread evenly; more come from no real model */
#define WHOLE 65536u        /* of a GPU's size */
#define SPARE (1ull << 30)  /* the runtime, its pools, the system */

/* A layer's bytes. `moved`: of the two largest tensors among those that may be in host memory. */
struct layer {
    uint64_t rest, experts, cache, moved[2];
    uint64_t held, cached;         /* weights and cache, on GPUs, of the layers before it */
};

/* Layers before one on the GPUs before one: least sum of squared shares, and where the last GPU's begin. */
struct spread {
    double least;
    uint64_t at;
};

struct offload {
    const struct sl_hparams *h;
    const struct sl_machine *m;
    bool whole_heads;              /* the form of deepseek2's cache */
    uint32_t used[SL_MAX_GPUS], n_used; /* GPUs that hold anything */
    struct layer *layers;          /* the last one is the output; `held` and `cached` have one more */
    struct spread *spread;         /* for each GPU and layer; NULL: too many */
    uint64_t n, input;
    uint64_t row;                  /* a value for each token of a micro-batch, in F32 */
    bool experts;                  /* it has routed ones */
    uint64_t mask, attention, wide, logits; /* parts of buffers */
    uint64_t chosen;               /* what the experts of a layer take and give */
    uint64_t active, cells;        /* experts of a token; the cache's cells that it may look at */
    uint64_t cpu_moe, first;       /* layers whose experts are in host memory; the first one on a GPU */
    uint64_t moved, moved_far;     /* of those in host memory: the largest tensor; the two largest of a layer */
    bool blocks;                   /* the indexer chooses blocks of attention with heads */
    uint64_t passed;               /* values of a token that a layer gives the next one */
    uint64_t residuals;            /* half layers that share a residual; 0: there are none */
    uint64_t ahead;                /* further copies of what goes in, for micro-batches that overlap on several GPUs */
};

static uint64_t mul(uint64_t a, uint64_t b)
{
    uint64_t r;

    return __builtin_mul_overflow(a, b, &r) || r > UINT64_MAX / 65536 ? UINT64_MAX / 65536 : r;
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What --n-cpu-moe matches: ffn_{up,down,gate,gate_up}_{,ch}exps of a layer. */
static bool is_experts(const char *name)
{
    static const char *const parts[] = {".ffn_up_", ".ffn_down_", ".ffn_gate_", ".ffn_gate_up_"};

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *at = strstr(name, parts[i]);

        if (at && (strncmp(at += strlen(parts[i]), "exps", 4) == 0 || strncmp(at, "chexps", 6) == 0))
            return true;
    }
    return false;
}

/* Without those for multi-token prediction. */
static uint64_t layers_loaded(const struct offload *o)
{
    uint64_t all = o->n - 1;

    return all - (o->h->n_nextn < all ? o->h->n_nextn : 0);
}

static void add_to_layer(struct layer *l, uint64_t bytes, bool experts, bool may_move)
{
    *(experts ? &l->experts : &l->rest) += bytes;
    if (!may_move)
        return;
    l->moved[1] = max(l->moved[1], bytes < l->moved[0] ? bytes : l->moved[0]);
    l->moved[0] = max(l->moved[0], bytes);
}

/* What of layers for multi-token prediction llama.cpp loads though it does not use them: of Step-3.5 and Hy3, what it takes for
 * optional. */
static bool loaded_unused(const struct sl_model *m, const char *name)
{
    static const char *const parts[] = {".ffn_gate", ".ffn_up", ".ffn_down", ".embed_tokens.", ".shared_head_", ".exp_probs_b",
                                        ".attn_gate.", ".attn_q_norm.", ".attn_k_norm."};
    size_t n = sizeof parts / sizeof *parts - (strcmp(m->arch, "hy_v3") == 0 ? 3 : 0);

    if (strcmp(m->arch, "step35") != 0 && strcmp(m->arch, "hy_v3") != 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (strstr(name, parts[i]))
            return true;
    return false;
}

static void add_weights(struct offload *o, const struct sl_plan *p)
{
    uint64_t loaded = layers_loaded(o), layer;
    bool tied = true;

    for (uint32_t i = 0; i < p->n_tensors; i++)
        o->experts = o->experts || is_experts(p->tensors[i].t->name);
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const struct sl_plan_tensor *t = &p->tensors[i];
        bool experts = is_experts(t->t->name);

        if (strcmp(t->t->name, "token_embd.weight") == 0)
            o->input += t->bytes;
        else if (!sl_tensor_layer(t->t->name, &layer))
            o->layers[o->n - 1].rest += t->bytes;
        else if (layer < loaded || (layer < o->n - 1 && loaded_unused(p->model, t->t->name)))
            add_to_layer(&o->layers[layer], t->bytes, experts, experts || !o->experts);
        tied = tied && strcmp(t->t->name, "output.weight") != 0;
        if (strstr(t->t->name, ".ffn_up.weight"))
            o->wide = max(o->wide, mul(o->row, 2 * t->t->ne[1] + 3 * o->h->n_embd));
        if (experts && strstr(t->t->name, ".ffn_down_exps.weight"))
            o->chosen = max(o->chosen, mul(2 * o->row, t->t->ne[0]));
    }
    o->layers[o->n - 1].rest += tied && o->m->gpus ? o->input : 0;
}

/* Whether CUDA's flash attention has this form of heads. */
static bool has_flash(const struct sl_hparams *h, bool whole_heads)
{
    uint64_t k = h->head_k, v = h->head_v, group = h->n_head_kv ? h->n_head / h->n_head_kv : 0;

    if (h->kv_lora && !whole_heads)
        return h->rope_dim == 64 && ((h->kv_lora == 512 && h->n_head > 1) || (h->kv_lora == 256 && h->n_head % 32 == 0));
    if (h->kv_lora)
        group = 1;
    return (k == v && (k == 64 || k == 80 || k == 96 || k == 112 || k == 128 || k == 256))
           || (k == v && k == 512 && group > 1) || (k == 192 && v == 128 && group && group % 8 == 0);
}

/* A number of the model's metadata, or `otherwise`. */
static uint64_t model_number(const struct sl_model *m, const char *name, uint64_t otherwise)
{
    char key[SL_NAME_MAX];
    uint64_t n = otherwise;

    snprintf(key, sizeof key, "%s.%s", m->arch, name);
    sl_kvs_get_uint(&m->kvs, key, &n);
    return n;
}

static void add_work(struct offload *o, const struct sl_model *m, uint64_t ctx)
{
    const struct sl_hparams *h = o->h;
    bool whole_heads = o->whole_heads, flash = has_flash(h, whole_heads);
    uint64_t seen = h->window ? h->window + o->row / 4 + ctx / SL_FINE : ctx;
    uint64_t cells = mul((seen + 255) / 256, 256), used = model_number(m, "expert_used_count", 0);

    o->passed = mul(h->n_embd, model_number(m, "hyper_connection.count", 1));
    o->residuals = model_number(m, "attn_res.block_size", 0);
    o->blocks = h->index_dim && !h->kv_lora && !h->window;
    o->mask = mul(cells, flash ? o->row / 2 : o->row);
    o->logits = mul(o->row, h->n_vocab + (h->n_nextn ? 3 : 1) * h->n_embd);
    if (h->kv_lora && !whole_heads)
        o->attention = mul(o->row, mul(h->n_head, h->head_k + 2 * h->kv_lora + h->rope_dim) + 4 * h->n_embd + 2 * h->kv_lora);
    else
        o->attention = mul(o->row, mul(h->n_head, 2 * h->head_k + h->head_v) + 3 * h->n_embd);
    if (!flash)
        o->attention += mul(o->row, mul(h->n_head, cells));
    if (!flash && (!h->kv_lora || whole_heads))
        o->attention += mul(2 * cells, mul(h->kv_lora ? h->n_head : h->n_head_kv, h->head_v));
    o->active = used;
    o->cells = cells;
    o->chosen = mul(o->chosen, used) + mul(o->row, mul(used + 2, h->n_embd));
    o->wide = max(o->wide, mul(o->row, mul(2 * used + 3, h->n_embd)));
}

static void add_cache(struct offload *o, const struct sl_plan *p, uint64_t ctx)
{
    bool all = !o->h->index_dim && !o->h->n_linear && !p->model->near; /* those for multi-token prediction, too */
    uint64_t n = all ? o->n - 1 : layers_loaded(o);
    uint32_t ubatch = (uint32_t)(o->row / 4);
    uint64_t cache = sl_plan_cache(p, ctx, o->whole_heads, ubatch);

    for (uint64_t i = 0; i < n; i++)
        o->layers[i].cache = p->model->near ? sl_plan_layer_cache(p->model, i, ctx, ubatch) : cache / n + (i < cache % n);
}

/* Of the layers from one to another, those after the dense ones. */
static uint64_t sparse_layers(const struct offload *o, uint64_t at, uint64_t end)
{
    uint64_t first = max(at, o->h->n_layer_dense), last = min(end, layers_loaded(o));

    return last > first ? last - first : 0;
}

/* What comes to a GPU from elsewhere: a copy for each micro-batch that is under way. */
static uint64_t copied(const struct offload *o, uint32_t gpu, uint64_t at, uint64_t end)
{
    uint64_t values = 8 * o->h->n_embd + (gpu ? 4 * o->passed : 0);
    uint64_t n = o->ahead ? o->ahead * o->mask + mul(o->row, values) : 0;

    if (gpu && o->residuals)
        n += mul((1 + o->ahead) * o->row, mul(2 * at / o->residuals, o->h->n_embd));
    if (o->blocks && (o->ahead || gpu)) /* masks, for each layer by itself */
        n += mul((1 + o->ahead) * (o->ahead && gpu ? 2 : 1), mul(sparse_layers(o, at, end), 2 * o->mask));
    return n;
}

/* MiniMax-M3: scores of blocks for each head of keys, and what is made of them. */
static uint64_t block_work(const struct offload *o, uint32_t gpu, uint64_t at, uint64_t end)
{
    uint64_t scores = 3 * o->mask + mul(2 * o->row, mul(o->h->n_head_kv, o->cells)), n = mul(o->row, 6 * o->h->n_embd);

    if (!o->ahead && gpu == 0) /* masks of the layers without a break */
        return scores + n + mul(2 * sparse_layers(o, max(at, o->cpu_moe), end), o->mask);
    if (!o->ahead)
        return scores + o->attention + o->wide;
    return gpu ? scores - min(scores, 4 * o->mask) : scores + o->mask + n;
}

/* DeepSeek-V3.2, GLM-5: an indexer's scores beside the heads' products, or beside the experts'. */
static uint64_t index_work(const struct offload *o)
{
    const struct sl_hparams *h = o->h;

    if (o->ahead)
        return max(o->attention, o->wide) + mul(o->row, 4 * h->n_embd) + 7 * o->mask;
    return mul(o->row, mul(h->n_head, h->kv_lora + h->rope_dim) + mul(4 * o->active + 5, h->n_embd)) + 4 * o->mask;
}

/* DeepSeek-V4: the same, of compressed tokens; the layer's cache is copied into one piece. */
static uint64_t window_work(const struct offload *o, uint32_t gpu)
{
    uint64_t joined = mul(6 * o->h->head_k, o->cells);

    if (o->ahead)
        return mul(o->row, (gpu ? 37 : 26) * o->h->n_embd) + 5 * o->mask + joined;
    return max(o->attention + mul(o->row, 10 * o->h->n_embd), o->wide + 6 * o->mask + joined);
}

/* What a micro-batch takes in the widest of these layers, masks included. */
static uint64_t layer_work(const struct offload *o, uint32_t gpu, uint64_t at, uint64_t end)
{
    uint64_t work = max(o->attention, o->wide) + o->mask;

    if (o->blocks)
        return max(work, block_work(o, gpu, at, end));
    if (o->h->window)
        return window_work(o, gpu);
    return o->h->index_dim ? index_work(o) : work;
}

static uint64_t gpu_buffers(const struct offload *o, uint32_t gpu, uint64_t at, uint64_t end)
{
    uint64_t work = o->h->index_dim ? o->attention + o->wide : max(o->attention, o->wide);
    uint64_t most = layer_work(o, gpu, at, end);

    if (at + 1 == o->n) /* the output alone */
        return o->logits + mul(o->row, 4 * o->passed) + SPARE;
    if (end == o->n)
        most = max(most, o->logits + (o->ahead ? o->mask : 0));
    if (gpu == 0 && o->first) /* a layer's cache is copied with its weights */
        most = max(most, work + o->moved + o->mask + o->layers[0].cache);
    if (gpu == 0 && o->cpu_moe) /* where layers differ, the second one does not take the first one's place */
        most = max(most, (o->h->n_linear || o->h->window ? 2 : 1) * o->moved + o->chosen + o->mask
                             + (o->h->index_dim ? o->attention + o->mask : 0));
    if (gpu == 0 && o->cpu_moe > end)
        most = max(most, o->moved_far + o->mask + mul(o->row, 2 * o->h->n_embd));
    return most + copied(o, gpu, at, end) + SPARE;
}

/* The bytes of a layer that are where its attention is. */
static uint64_t at_attention(const struct offload *o, uint64_t i)
{
    return o->layers[i].rest + (i < o->cpu_moe ? 0 : o->layers[i].experts);
}

static void sum(struct sl_place *p)
{
    p->total = p->weights + p->kv_cache + p->buffers;
}

/* What one of the used GPUs holds of layers. */
static struct sl_place gpu_place(const struct offload *o, uint32_t gpu, uint64_t at, uint64_t end)
{
    struct sl_place p = {0};

    if (at == end)
        return p;
    p.weights = o->layers[end].held - o->layers[at].held;
    p.kv_cache = o->layers[end].cached - o->layers[at].cached;
    p.buffers = gpu_buffers(o, gpu, at, end);
    sum(&p);
    return p;
}

static uint64_t gpu_size(const struct offload *o, uint32_t gpu)
{
    return o->m->gpu[o->used[gpu]];
}

static uint64_t gpu_cap(const struct offload *o, uint32_t gpu, uint64_t share)
{
    uint64_t size = gpu_size(o, gpu);

    return size / WHOLE * share + size % WHOLE * share / WHOLE;
}

/* As many layers from `at` on as fit on one GPU; returns the first that is left. */
static uint64_t fill_gpu(const struct offload *o, uint32_t gpu, uint64_t at, uint64_t cap)
{
    uint64_t end = at;

    for (uint64_t i = at + 1; i <= o->n; i++) {
        struct sl_place now = gpu_place(o, gpu, at, i);

        if (now.weights + now.kv_cache > cap)
            break;
        if (now.total <= cap)
            end = i;
    }
    return end;
}

static void put_gpu(const struct offload *o, uint32_t gpu, uint64_t at, uint64_t end, struct sl_offload *out)
{
    out->gpu[o->used[gpu]] = gpu_place(o, gpu, at, end);
    out->split[o->used[gpu]] = (uint32_t)(end - at);
}

static void fill_host(const struct offload *o, struct sl_place *out)
{
    uint64_t work = max(max(o->attention, o->wide), o->logits);
    uint64_t masks = (1 + o->ahead) * (o->h->index_dim && !o->blocks ? 2 : 1) + (o->blocks ? o->ahead ? 1 : 2 : 0);

    memset(out, 0, sizeof *out);
    out->weights = o->input;
    for (uint64_t i = 0; i < o->n; i++) {
        out->weights += o->layers[i].rest + o->layers[i].experts;
        if (i >= o->first)
            out->weights -= at_attention(o, i);
        else
            out->kv_cache += o->layers[i].cache;
    }
    out->buffers = SPARE + masks * o->mask
                   + mul(o->row, (2 + o->ahead) * o->h->n_embd) + (o->first < o->n ? 0 : work + o->mask);
    sum(out);
}

/* The experts of cpu_moe layers, or the layers before `first`, are in host memory. */
static void set_host_part(struct offload *o, uint64_t cpu_moe, uint64_t first)
{
    o->cpu_moe = cpu_moe;
    o->first = first;
    o->moved = o->moved_far = 0;
    o->ahead = o->n_used > 1 && !cpu_moe && !first ? 3 : 0;
    for (uint64_t i = 0; i < max(cpu_moe, first); i++) {
        o->moved = max(o->moved, o->layers[i].moved[0]);
        o->moved_far = max(o->moved_far, o->layers[i].moved[0] + o->layers[i].moved[1]);
    }
    for (uint64_t i = 0; i < o->n; i++) {
        o->layers[i + 1].held = o->layers[i].held + at_attention(o, i);
        o->layers[i + 1].cached = o->layers[i].cached + o->layers[i].cache;
    }
}

/* All of it. Returns whether no GPU holds more than that share of its size. */
static bool lay(struct offload *o, uint64_t cpu_moe, uint64_t first, uint64_t share, struct sl_offload *out)
{
    uint64_t at = first;

    memset(out, 0, sizeof *out);
    set_host_part(o, cpu_moe, first);
    out->cpu_moe = (uint32_t)cpu_moe;
    out->layers = (uint32_t)o->n;
    out->gpu_layers = (uint32_t)(o->n - first);
    for (uint32_t g = 0; g < o->n_used; g++) {
        uint64_t end = g + 1 == o->n_used ? o->n : fill_gpu(o, g, at, gpu_cap(o, g, share));

        put_gpu(o, g, at, end, out);
        at = end;
    }
    fill_host(o, &out->host);
    return !o->n_used || out->gpu[o->used[o->n_used - 1]].total <= gpu_cap(o, o->n_used - 1, share);
}

/* Where the layers of one GPU best begin, when the next one's begin at `end`. */
static struct spread spread_to(const struct offload *o, uint32_t gpu, uint64_t end, uint64_t cap)
{
    struct spread best = {HUGE_VAL, end};

    for (uint64_t at = gpu ? end + 1 : o->first + 1; at-- > o->first;) {
        struct sl_place p = gpu_place(o, gpu, at, end);
        double before = gpu ? o->spread[(gpu - 1) * (o->n + 1) + at].least : 0;
        double part = (double)(p.weights + p.kv_cache) / (double)gpu_size(o, gpu);

        if (p.total <= cap && before + part * part < best.least)
            best = (struct spread){before + part * part, at};
    }
    return best;
}

/* Layers as the GPUs' sizes are to each other, as nearly as whole layers allow; on none more than that share. */
static void spread(struct offload *o, uint64_t share, struct sl_offload *out)
{
    uint64_t end = o->n;

    if (!o->spread)
        return;
    for (uint32_t g = 0; g < o->n_used; g++)
        for (uint64_t i = o->first; i <= o->n; i++)
            o->spread[g * (o->n + 1) + i] = spread_to(o, g, i, gpu_cap(o, g, share));
    for (uint32_t g = o->n_used; g-- > 0;) {
        uint64_t at = o->spread[g * (o->n + 1) + end].at;

        put_gpu(o, g, at, end, out);
        end = at;
    }
}

/* The same with the fullest GPU as empty as it can be, and the others evenly. */
static void level(struct offload *o, struct sl_offload *out)
{
    uint64_t least = 0, most = WHOLE;
    uint64_t cpu_moe = o->cpu_moe, first = o->first;

    while (most - least > 1) {
        uint64_t mid = least + (most - least) / 2;

        if (lay(o, cpu_moe, first, mid, out))
            most = mid;
        else
            least = mid;
    }
    lay(o, cpu_moe, first, most, out);
    spread(o, most, out);
}

static void search(struct offload *o, struct sl_offload *out)
{
    bool host = o->m->host != SL_HOST_UNKNOWN;
    uint64_t first = o->n_used ? 0 : o->n;
    bool fits = lay(o, 0, first, WHOLE, out);

    for (uint64_t i = 0; i < o->n && o->experts && host && !fits; i++)
        if (o->layers[i].experts)
            fits = lay(o, i + 1, 0, WHOLE, out);
    while (!o->experts && host && !fits && first < o->n)
        fits = lay(o, 0, ++first, WHOLE, out);
    if (fits && o->n_used > 1)
        level(o, out);
    out->fits = fits;
}

/* Without the smallest. */
static void leave_smallest(struct offload *o)
{
    uint32_t least = 0;

    for (uint32_t g = 1; g < o->n_used; g++)
        if (gpu_size(o, g) <= gpu_size(o, least))
            least = g;
    o->n_used--;
    for (uint32_t g = least; g < o->n_used; g++)
        o->used[g] = o->used[g + 1];
}

/* Whether there are GPUs without a layer; they are used no more. */
static bool leave_out(struct offload *o, const struct sl_offload *out)
{
    uint32_t n = 0;

    for (uint32_t g = 0; g < o->n_used; g++)
        if (out->split[o->used[g]])
            o->used[n++] = o->used[g];
    if (n == o->n_used)
        return false;
    o->n_used = n;
    return true;
}

static void offload_free(struct offload *o)
{
    free(o->spread);
    free(o->layers);
}

static int offload_init(struct offload *o, const struct sl_plan *p, const struct sl_machine *m, bool whole_heads, uint64_t ctx,
                        uint32_t ubatch)
{
    uint64_t n = p->model->hp.n_layer;

    *o = (struct offload){.h = &p->model->hp, .m = m, .whole_heads = whole_heads, .n_used = m->gpus, .row = 4 * (uint64_t)ubatch};
    o->n = 1 + (n > LAYERS_MOST ? LAYERS_MOST : n); /* a GGUF file may say anything */
    o->layers = calloc(o->n + 1, sizeof *o->layers);
    if (o->layers && m->gpus > 1 && o->n <= EVEN_MOST)
        o->spread = calloc((o->n + 1) * m->gpus, sizeof *o->spread);
    if (!o->layers || (!o->spread && m->gpus > 1 && o->n <= EVEN_MOST)) {
        offload_free(o);
        return SL_EFAIL;
    }
    for (uint32_t g = 0; g < m->gpus; g++)
        o->used[g] = g;
    while (o->n_used > SL_GPUS_MOST)
        leave_smallest(o);
    add_weights(o, p);
    add_work(o, p->model, ctx);
    add_cache(o, p, ctx);
    return 0;
}

static void search_used(struct offload *o, struct sl_offload *out)
{
    do
        search(o, out);
    while (out->fits && leave_out(o, out));
}

int sl_plan_offload(const struct sl_plan *p, const struct sl_machine *m, uint64_t ctx, uint32_t ubatch, struct sl_offload *out)
{
    struct offload o;

    memset(out, 0, sizeof *out);
    SL_TRY(offload_init(&o, p, m, p->model->layout == SL_LAYOUT_LEGACY, ctx, ubatch));
    search_used(&o, out);
    out->fits = out->fits && out->host.total <= m->host;
    offload_free(&o);
    return 0;
}

/* As many layers for each GPU, as nearly as whole ones allow. Returns whether they fit. */
static bool lay_alike(struct offload *o, struct sl_offload *out)
{
    uint64_t at = 0;
    bool fits = true;

    memset(out, 0, sizeof *out);
    set_host_part(o, 0, 0);
    out->layers = out->gpu_layers = (uint32_t)o->n;
    for (uint32_t g = 0; g < o->n_used; g++) {
        uint64_t end = (o->n * (g + 1) + o->n_used - 1) / o->n_used;

        put_gpu(o, g, at, end, out);
        fits = fits && out->gpu[o->used[g]].total <= gpu_size(o, g);
        at = end;
    }
    fill_host(o, &out->host);
    return fits;
}

int sl_plan_alike(const struct sl_plan *p, const struct sl_machine *m, bool whole_heads, uint64_t ctx, uint32_t ubatch,
                  struct sl_offload *out)
{
    struct sl_offload by_option;
    struct offload o;

    memset(out, 0, sizeof *out);
    SL_TRY(offload_init(&o, p, m, whole_heads, ctx, ubatch));
    out->fits = lay_alike(&o, out);
    memset(out->split, 0, sizeof out->split);
    if (!out->fits)
        search_used(&o, &by_option);
    if (!out->fits && by_option.fits)
        *out = by_option;
    offload_free(&o);
    return 0;
}
