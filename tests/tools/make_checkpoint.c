/* Makes checkpoints of any size for tests and the demo: DeepSeek-V3's form in
 * FP8 with block scales or with experts packed as 4-bit integers or as MXFP4, V3.2's too, Qwen2, Qwen3 and Llama
 * in BF16, Qwen3 with experts and MiniMax-M2 in FP8, GLM-4.5's form with a scale for each row, tokenizer included.
 * Weights are drawn from a fixed generator: the same options give the same bytes.
 * With --holes a checkpoint has its full size and hardly any data: scales and
 * small tensors are drawn, and of the large ones a few; the others are holes,
 * which read as zeros. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum arch { DEEPSEEK, QWEN2, LLAMA, QWEN3, QWEN3MOE, MINIMAX, GLM4MOE };
enum kind { FP8, BF16, F32, SCALE_F32, SCALE_E8M0, PACKED, SHAPE, FP4, FP4_U8, SCALE_U8 };
enum fill { GAUSS, NORM, SMALL, SCALES, SIZES };

struct tensor {
    char name[96];
    enum kind kind;
    enum fill fill;
    uint64_t rows, cols; /* rows 0: one dimension */
    uint64_t fan;        /* weights feeding one output: sigma is 1 / sqrt(fan) */
    uint64_t sizes[2];   /* SHAPE: what it says */
    bool of_packed;      /* a scale of 4-bit integers */
    uint64_t bytes;
    unsigned shard;
};

struct config {
    enum arch arch;
    uint64_t layers, dense, hidden, inter, moe_inter, experts, used, groups, groups_used;
    uint64_t heads, kv_heads, head_dim, q_lora, kv_lora, nope, rope, v_dim, vocab, shards, seed;
    uint64_t index_heads, index_dim, index_top; /* of V3.2's indexer; no heads: none */
    bool mtp, tied, f32_bias, f32_proj, sparse, holes, packed, mxfp4, head_norm;
    const char *scales; /* block, bf16, e8m0, tensor, row, bf16-row; none: the weights are BF16 */
    const char *scale_suffix, *tokenizer, *config, *out;
};

struct list {
    struct tensor *t;
    size_t n, cap;
};

#define TABLE 4096
/* Of --holes: tensors up to HOLE_MIN bytes are drawn, and one in DRAWN_OF up to DRAWN_MAX. */
#define HOLE_MIN 65536
#define DRAWN_MAX (24 << 20)
#define DRAWN_OF 1500
static float gauss[TABLE];      /* quantiles of the normal distribution */
static uint8_t gauss_e4m3[TABLE];

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("make_checkpoint: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static uint64_t next(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static float uniform(uint64_t *s) /* [0, 1) */
{
    return (float)(next(s) >> 40) * 0x1p-24f;
}

static uint8_t to_e4m3(float x)
{
    float a = fabsf(x), step;
    int e;
    if (a > 448)
        a = 448;
    if (a < 0x1p-6f)
        return (uint8_t)(lrintf(a * 512) | (x < 0 ? 128 : 0)); /* 8 is the first normal number */
    frexpf(a, &e); /* a = m * 2^e, m in [1/2, 1) */
    step = ldexpf(1, e - 4);
    a = rintf(a / step) * step;
    frexpf(a, &e);
    return (uint8_t)((e + 6) << 3 | ((int)ldexpf(a, 4 - e) & 7) | (x < 0 ? 128 : 0));
}

static void fill_tables(void)
{
    for (int i = 0; i < TABLE; i++) {
        double p = (i + 0.5) / TABLE, lo = -6, hi = 6;
        for (int k = 0; k < 50; k++) {
            double mid = (lo + hi) / 2;
            if (0.5 * erfc(-mid / sqrt(2)) < p)
                lo = mid;
            else
                hi = mid;
        }
        gauss[i] = (float)lo;
        gauss_e4m3[i] = to_e4m3((float)lo * 96);
    }
}

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static uint64_t kind_bytes(enum kind k)
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
    *t = (struct tensor){ .kind = k, .fill = f, .rows = rows, .cols = cols, .fan = cols,
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
    t->of_packed = true;
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
    t->of_packed = true;
}

/* A linear layer's weight, FP8 with its scales, packed (experts alone) or BF16. */
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
    add(l, FP8, GAUSS, rows, cols, "%s%s.weight", prefix, name);
    enum kind k = !strcmp(c->scales, "e8m0") ? SCALE_E8M0 : !strncmp(c->scales, "bf16", 4) ? BF16 : SCALE_F32;
    uint64_t r = (rows + 127) / 128, w = (cols + 127) / 128;
    if (!strcmp(c->scales, "tensor"))
        r = 0, w = 1;
    else if (strstr(c->scales, "row"))
        r = rows, w = 1;
    add(l, k, SCALES, r, w, "%s%s.%s", prefix, name, c->scale_suffix)->fan = cols;
}

/* A layer's feed-forward part: dense in the first ones, else experts, a shared one and a router. */
static void feed_forward(struct list *l, const struct config *c, uint64_t i, const char *p)
{
    char q[128];
    if (i < c->dense) {
        linear(l, c, c->hidden, c->inter, p, "mlp.down_proj");
        linear(l, c, c->inter, c->hidden, p, "mlp.gate_proj");
        linear(l, c, c->inter, c->hidden, p, "mlp.up_proj");
    } else {
        for (uint64_t e = 0; e <= c->experts; e++) {
            if (e < c->experts)
                snprintf(q, sizeof q, "%smlp.experts.%" PRIu64 ".", p, e);
            else
                snprintf(q, sizeof q, "%smlp.shared_experts.", p);
            linear(l, c, c->hidden, c->moe_inter, q, "down_proj");
            linear(l, c, c->moe_inter, c->hidden, q, "gate_proj");
            linear(l, c, c->moe_inter, c->hidden, q, "up_proj");
        }
        add(l, c->f32_bias ? F32 : BF16, SMALL, 0, c->experts, "%smlp.gate.e_score_correction_bias", p);
        add(l, BF16, GAUSS, c->experts, c->hidden, "%smlp.gate.weight", p);
    }
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
            add(l, BF16, NORM, 0, head, "%sself_attn.%s_norm.weight", p, qkv[k]);
    }
    linear(l, c, c->hidden, head * c->heads, p, "self_attn.o_proj");
}

static void dense_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64], q[128];
    bool moe = c->arch == QWEN3MOE;
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    add(l, BF16, NORM, 0, c->hidden, "%sinput_layernorm.weight", p);
    for (uint64_t e = 0; e < (moe ? c->experts : 1); e++) {
        snprintf(q, sizeof q, moe ? "%smlp.experts.%" PRIu64 "." : "%smlp.", p, e);
        linear(l, c, c->hidden, moe ? c->moe_inter : c->inter, q, "down_proj");
        linear(l, c, moe ? c->moe_inter : c->inter, c->hidden, q, "gate_proj");
        linear(l, c, moe ? c->moe_inter : c->inter, c->hidden, q, "up_proj");
    }
    if (moe)
        add(l, BF16, GAUSS, c->experts, c->hidden, "%smlp.gate.weight", p);
    add(l, BF16, NORM, 0, c->hidden, "%spost_attention_layernorm.weight", p);
    attention(l, c, p);
}

static void glm_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    add(l, BF16, NORM, 0, c->hidden, "%sinput_layernorm.weight", p);
    feed_forward(l, c, i, p);
    add(l, BF16, NORM, 0, c->hidden, "%spost_attention_layernorm.weight", p);
    attention(l, c, p);
}

static void minimax_layer(struct list *l, const struct config *c, uint64_t i)
{
    char p[64], q[128];
    snprintf(p, sizeof p, "model.layers.%" PRIu64 ".", i);
    add(l, F32, SMALL, 0, c->experts, "%sblock_sparse_moe.e_score_correction_bias", p);
    for (uint64_t e = 0; e < c->experts; e++) {
        snprintf(q, sizeof q, "%sblock_sparse_moe.experts.%" PRIu64 ".", p, e);
        linear(l, c, c->inter, c->hidden, q, "w1");
        linear(l, c, c->hidden, c->inter, q, "w2");
        linear(l, c, c->inter, c->hidden, q, "w3");
    }
    add(l, F32, GAUSS, c->experts, c->hidden, "%sblock_sparse_moe.gate.weight", p);
    add(l, BF16, NORM, 0, c->hidden, "%sinput_layernorm.weight", p);
    add(l, BF16, NORM, 0, c->hidden, "%spost_attention_layernorm.weight", p);
    add(l, BF16, NORM, 0, c->head_dim * c->kv_heads, "%sself_attn.k_norm.weight", p);
    linear(l, c, c->head_dim * c->kv_heads, c->hidden, p, "self_attn.k_proj");
    linear(l, c, c->hidden, c->head_dim * c->heads, p, "self_attn.o_proj");
    add(l, BF16, NORM, 0, c->head_dim * c->heads, "%sself_attn.q_norm.weight", p);
    linear(l, c, c->head_dim * c->heads, c->hidden, p, "self_attn.q_proj");
    linear(l, c, c->head_dim * c->kv_heads, c->hidden, p, "self_attn.v_proj");
}

static void list_tensors(struct list *l, const struct config *c)
{
    if (!c->tied)
        add(l, BF16, GAUSS, c->vocab, c->hidden, "lm_head.weight");
    add(l, BF16, GAUSS, c->vocab, c->hidden, "model.embed_tokens.weight");
    bool glm = c->arch == GLM4MOE;
    for (uint64_t i = 0; i < c->layers; i++)
        (c->arch == DEEPSEEK ? deepseek_layer : c->arch == MINIMAX ? minimax_layer : glm ? glm_layer : dense_layer)(l, c, i);
    if (c->mtp) { /* the multi-token-prediction layer, which a conversion keeps of V3.2 and GLM alone */
        (glm ? glm_layer : deepseek_layer)(l, c, c->layers);
        const char *p = "model.layers.";
        char q[64];
        snprintf(q, sizeof q, "%s%" PRIu64 ".", p, c->layers);
        add(l, BF16, GAUSS, c->hidden, 2 * c->hidden, "%s%" PRIu64 ".eh_proj.weight", p, c->layers);
        add(l, BF16, NORM, 0, c->hidden, "%s%" PRIu64 ".enorm.weight", p, c->layers);
        add(l, BF16, NORM, 0, c->hidden, "%s%" PRIu64 ".hnorm.weight", p, c->layers);
        add(l, BF16, GAUSS, c->vocab, c->hidden, "%s%" PRIu64 ".embed_tokens.weight", p, c->layers);
        add(l, BF16, NORM, 0, c->hidden, "%s%" PRIu64 ".shared_head.norm.weight", p, c->layers);
        if (glm)
            linear(l, c, c->vocab, c->hidden, q, "shared_head.head");
        else
            add(l, BF16, GAUSS, c->vocab, c->hidden, "%s%" PRIu64 ".shared_head.head.weight", p, c->layers);
    }
    add(l, BF16, NORM, 0, c->hidden, "model.norm.weight");
}

/* Draws the next n elements of a tensor; s is its own stream. */
static void draw(const struct tensor *t, uint64_t n, void *buf, uint64_t *s)
{
    float sigma = 1 / sqrtf((float)t->fan), level = t->of_packed ? 2.5f : 96;
    uint8_t *b = buf;
    uint16_t *h = buf;
    float *f = buf;
    if (t->kind == FP8) {
        for (uint64_t i = 0; i < n;) {
            uint64_t r = next(s);
            for (int k = 0; k < 5 && i < n; k++, r >>= 12)
                b[i++] = gauss_e4m3[r & (TABLE - 1)];
        }
        return;
    }
    if (t->kind == PACKED) { /* a level is sigma / 2.5 */
        for (uint64_t i = 0; i < 4 * n; i++) {
            uint64_t r = next(s);
            int low = (int)lrintf(gauss[r & (TABLE - 1)] * 2.5f), high = (int)lrintf(gauss[r >> 32 & (TABLE - 1)] * 2.5f);
            b[i] = (uint8_t)((low < -8 ? 0 : low > 7 ? 15 : low + 8) | (high < -8 ? 0 : high > 7 ? 15 : high + 8) << 4);
        }
        return;
    }
    if (t->kind == FP4 || t->kind == FP4_U8) {
        for (uint64_t i = 0; i < n; i++)
            b[i] = (uint8_t)next(s);
        return;
    }
    if (t->kind == SHAPE) {
        for (uint64_t i = 0; i < n; i++)
            memcpy(b + 4 * i, &(uint32_t){ (uint32_t)t->sizes[i] }, 4);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t r = next(s);
        float g = gauss[r & (TABLE - 1)] * (0.9f + 0.2f * (float)(r >> 40) * 0x1p-24f), x;
        switch (t->fill) {
        case NORM: x = 1 + 0.1f * g; break;
        case SMALL: x = 0.02f * g; break;
        case SCALES: x = sigma / level * (0.6f + 0.8f * uniform(s)); break;
        default: x = sigma * g; break;
        }
        if (t->kind == SCALE_E8M0 || t->kind == SCALE_U8)
            b[i] = (uint8_t)(127 + (int)rintf(log2f(x)));
        else if (t->kind == BF16)
            h[i] = to_bf16(x);
        else
            f[i] = x;
    }
}

static FILE *open_out(const struct config *c, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", c->out, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        die("%s: %s", path, strerror(errno));
    return f;
}

static void close_out(FILE *f, const char *name)
{
    if (ferror(f) | fclose(f))
        die("%s: cannot be written: %s", name, strerror(errno));
}

static const char *dtype_name(enum kind k)
{
    return k == FP4 ? "I8" : k == FP4_U8 || k == SCALE_U8 ? "U8" : k == FP8 ? "F8_E4M3" : k == BF16 ? "BF16" : k == SCALE_E8M0 ? "F8_E8M0" : k == PACKED || k == SHAPE ? "I32" : "F32";
}

static void shard_name(char buf[64], const struct config *c, unsigned i)
{
    if (c->shards == 1)
        strcpy(buf, "model.safetensors");
    else
        snprintf(buf, 64, "model-%05u-of-%05u.safetensors", i + 1, (unsigned)c->shards);
}

/* With --holes: whether tensor i holds data all the same. */
static bool is_drawn(const struct config *c, const struct tensor *t, size_t i)
{
    if (!c->holes || t->fill == SCALES || t->bytes <= HOLE_MIN)
        return true;
    return t->bytes <= DRAWN_MAX && i * 0x9e3779b97f4a7c15u >> 32 < UINT32_MAX / DRAWN_OF;
}

static void write_shard(const struct config *c, const struct list *l, unsigned shard)
{
    char name[64], *header = NULL;
    size_t len = 0;
    uint64_t at = 0;
    FILE *m = open_memstream(&header, &len);
    if (!m)
        die("out of memory");
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", m);
    for (size_t i = 0; i < l->n; i++) {
        const struct tensor *t = &l->t[i];
        if (t->shard != shard)
            continue;
        fprintf(m, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, dtype_name(t->kind));
        if (t->rows)
            fprintf(m, "%" PRIu64 ",", t->rows);
        fprintf(m, "%" PRIu64 "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->cols, at, at + t->bytes);
        at += t->bytes;
    }
    fputc('}', m);
    while (ftell(m) % 8)
        fputc(' ', m);
    fclose(m);
    shard_name(name, c, shard);
    FILE *f = open_out(c, name);
    uint64_t n64 = len;
    fwrite(&n64, 8, 1, f);
    fwrite(header, 1, len, f);
    free(header);
    enum { CHUNK = 1 << 20, HEAD = 4096 };
    uint8_t *buf = malloc(CHUNK * 4);
    if (!buf)
        die("out of memory");
    for (size_t i = 0; i < l->n; i++) {
        const struct tensor *t = &l->t[i];
        if (t->shard != shard)
            continue;
        if (!is_drawn(c, t, i)) {
            if (fseeko(f, (off_t)t->bytes, SEEK_CUR))
                die("%s: %s", name, strerror(errno));
            continue;
        }
        uint64_t n = (t->rows ? t->rows : 1) * t->cols, s = c->seed * 0x100000001b3u + i * 0x9e3779b9u + 1;
        while (n) {
            uint64_t k = n < CHUNK ? n : CHUNK;
            if (c->sparse && t->fill == GAUSS && t->rows && n > HEAD)
                k = HEAD;
            draw(t, k, buf, &s);
            fwrite(buf, kind_bytes(t->kind), k, f);
            n -= k;
            if (k == HEAD) {
                fseeko(f, (off_t)(n * kind_bytes(t->kind)), SEEK_CUR);
                n = 0;
            }
        }
    }
    free(buf);
    if (fflush(f) || ftruncate(fileno(f), (off_t)(8 + len + at))) /* a hole may be last */
        die("%s: %s", name, strerror(errno));
    close_out(f, name);
}

static void write_index(const struct config *c, const struct list *l, uint64_t total)
{
    if (c->shards == 1)
        return;
    FILE *f = open_out(c, "model.safetensors.index.json");
    fprintf(f, "{\"metadata\":{\"total_size\":%" PRIu64 "},\"weight_map\":{", total);
    for (size_t i = 0; i < l->n; i++) {
        char name[64];
        shard_name(name, c, l->t[i].shard);
        fprintf(f, "%s\n\"%s\":\"%s\"", i ? "," : "", l->t[i].name, name);
    }
    fputs("}}\n", f);
    close_out(f, "model.safetensors.index.json");
}

static void write_fp8(FILE *f, const struct config *c)
{
    bool lists = c->arch != DEEPSEEK && c->arch != MINIMAX;
    fprintf(f, "{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\",\"activation_scheme\":\"dynamic\"%s",
            !strcmp(c->scales, "tensor") || !strcmp(c->scales, "row") ? "" : ",\"weight_block_size\":[128,128]");
    for (uint64_t i = 0; i < c->layers && lists; i++)
        fprintf(f, "%s\"model.layers.%" PRIu64 ".input_layernorm\",\"model.layers.%" PRIu64 ".mlp.gate\"",
                i ? "," : ",\"modules_to_not_convert\":[\"lm_head\",", i, i);
    fputs(lists ? "]}" : "}", f);
}

static void write_quantized(FILE *f, const struct config *c)
{
    if (!strcmp(c->scales, "none"))
        return;
    fputs(",\"quantization_config\":", f);
    write_fp8(f, c);
}

/* Qwen3's own entries: with experts as Qwen3-235B's, without as DeepSeek-R1-0528-Qwen3-8B's. */
static void write_qwen3(FILE *f, const struct config *c)
{
    fprintf(f, ",\"bos_token_id\":256,\"eos_token_id\":257,\"head_dim\":%" PRIu64 ",\"attention_bias\":false,"
               "\"use_sliding_window\":false,\"sliding_window\":null,\"max_window_layers\":%" PRIu64,
            c->head_dim, c->layers);
    if (c->arch == QWEN3)
        fputs(",\"max_position_embeddings\":131072,\"rope_theta\":1000000,\"rope_scaling\":{\"attn_factor\":"
              "0.8782488562869419,\"factor\":4.0,\"original_max_position_embeddings\":32768,\"rope_type\":\"yarn\"}", f);
    else
        fprintf(f, ",\"max_position_embeddings\":262144,\"rope_theta\":5000000,\"rope_scaling\":null,"
                   "\"num_experts\":%" PRIu64 ",\"num_experts_per_tok\":%" PRIu64 ",\"moe_intermediate_size\":%" PRIu64
                   ",\"norm_topk_prob\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":[]",
                c->experts, c->used, c->moe_inter);
    write_quantized(f, c);
}

static void write_minimax(FILE *f, const struct config *c)
{
    fprintf(f, ",\"head_dim\":%" PRIu64 ",\"rotary_dim\":%" PRIu64 ",\"num_local_experts\":%" PRIu64
               ",\"num_experts_per_tok\":%" PRIu64 ",\"max_position_embeddings\":196608,\"rope_theta\":5000000,"
               "\"scoring_func\":\"sigmoid\",\"use_routing_bias\":true,\"use_qk_norm\":true,\"qk_norm_type\":\"per_layer\","
               "\"use_mtp\":true,\"num_mtp_modules\":3,\"mtp_transformer_layers\":1,\"shared_intermediate_size\":0",
            c->head_dim, c->rope, c->experts, c->used);
    write_quantized(f, c);
}

/* GLM-4.6's own entries. In FP8 "ignore" names all that is not quantized, whether it could be or not. */
static void write_glm4(FILE *f, const struct config *c)
{
    fprintf(f, ",\"attention_bias\":true,\"attention_dropout\":0.0,\"pad_token_id\":321,\"eos_token_id\":[321,325,327],"
               "\"head_dim\":%" PRIu64 ",\"max_position_embeddings\":202752,\"partial_rotary_factor\":0.5,\"rope_scaling\":null,"
               "\"rope_theta\":1000000,\"moe_intermediate_size\":%" PRIu64 ",\"norm_topk_prob\":true,\"n_group\":1,\"topk_group\":1,"
               "\"n_routed_experts\":%" PRIu64 ",\"n_shared_experts\":1,\"routed_scaling_factor\":2.5,\"num_experts_per_tok\":%" PRIu64
               ",\"first_k_dense_replace\":%" PRIu64 ",\"use_qk_norm\":%s,\"num_nextn_predict_layers\":%d",
            c->head_dim, c->moe_inter, c->experts, c->used, c->dense, c->head_norm ? "true" : "false", c->mtp);
    if (!strcmp(c->scales, "none"))
        return;
    fputs(",\"quantization_config\":{\"config_groups\":{\"group_0\":{\"input_activations\":{\"actorder\":null,\"block_structure\":null,"
          "\"dynamic\":true,\"group_size\":null,\"num_bits\":8,\"observer\":null,\"observer_kwargs\":{},\"strategy\":\"token\","
          "\"symmetric\":true,\"type\":\"float\"},\"output_activations\":null,\"targets\":[\"Linear\"],\"weights\":{\"actorder\":null,"
          "\"block_structure\":null,\"dynamic\":false,\"group_size\":null,\"num_bits\":8,\"observer\":\"minmax\",\"observer_kwargs\":{},"
          "\"strategy\":\"channel\",\"symmetric\":true,\"type\":\"float\"}}},\"format\":\"float-quantized\","
          "\"global_compression_ratio\":null,\"ignore\":[\"lm_head\",\"model.embed_tokens\",\"model.norm\"", f);
    for (uint64_t i = 0; i < c->layers + c->mtp; i++) {
        static const char *const names[] = { "input_layernorm", "post_attention_layernorm", "self_attn.q_proj.bias", "self_attn.k_proj.bias",
                                            "self_attn.v_proj.bias", "mlp.gate", "mlp.gate.e_score_correction_bias", "embed_tokens",
                                            "eh_proj", "enorm", "hnorm", "shared_head.norm" };
        for (int k = 0; k < (i < c->dense ? 5 : i < c->layers ? 7 : 12); k++)
            fprintf(f, ",\"model.layers.%" PRIu64 ".%s\"", i, names[k]);
    }
    fputs("],\"kv_cache_scheme\":null,\"quant_method\":\"compressed-tensors\",\"quantization_status\":\"compressed\"}", f);
}

static void write_config(const struct config *c)
{
    FILE *f = open_out(c, "config.json");
    static const char *const classes[] = { "DeepseekV3ForCausalLM", "Qwen2ForCausalLM", "LlamaForCausalLM",
                                          "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "MiniMaxM2ForCausalLM",
                                          "Glm4MoeForCausalLM" };
    static const char *const types[] = { "deepseek_v3", "qwen2", "llama", "qwen3", "qwen3_moe", "minimax_m2", "glm4_moe" };
    fprintf(f, "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"torch_dtype\":\"bfloat16\","
               "\"hidden_size\":%" PRIu64 ",\"intermediate_size\":%" PRIu64 ",\"num_hidden_layers\":%" PRIu64
               ",\"num_attention_heads\":%" PRIu64 ",\"num_key_value_heads\":%" PRIu64 ",\"vocab_size\":%" PRIu64
               ",\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-06,\"tie_word_embeddings\":%s",
            c->index_heads ? "DeepseekV32ForCausalLM" : classes[c->arch],
            c->index_heads ? "deepseek_v32" : types[c->arch], c->hidden, c->inter, c->layers, c->heads,
            c->kv_heads, c->vocab, c->tied ? "true" : "false");
    if (c->index_heads)
        fprintf(f, ",\"index_head_dim\":%" PRIu64 ",\"index_n_heads\":%" PRIu64 ",\"index_topk\":%" PRIu64,
                c->index_dim, c->index_heads, c->index_top);
    if (c->arch == DEEPSEEK) {
        fprintf(f, ",\"bos_token_id\":0,\"eos_token_id\":1,\"max_position_embeddings\":163840,\"rope_theta\":10000,"
                   "\"first_k_dense_replace\":%" PRIu64 ",\"moe_intermediate_size\":%" PRIu64
                   ",\"n_routed_experts\":%" PRIu64 ",\"n_shared_experts\":1,\"num_experts_per_tok\":%" PRIu64
                   ",\"n_group\":%" PRIu64 ",\"topk_group\":%" PRIu64 ",\"q_lora_rank\":%" PRIu64
                   ",\"kv_lora_rank\":%" PRIu64 ",\"qk_nope_head_dim\":%" PRIu64 ",\"qk_rope_head_dim\":%" PRIu64
                   ",\"v_head_dim\":%" PRIu64,
                c->dense, c->moe_inter, c->experts, c->used, c->groups, c->groups_used,
                c->q_lora, c->kv_lora, c->nope, c->rope, c->v_dim);
        fprintf(f, ",\"moe_layer_freq\":1,\"norm_topk_prob\":true,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","
                   "\"routed_scaling_factor\":2.5,\"num_nextn_predict_layers\":%d,\"rope_scaling\":{\"type\":\"yarn\","
                   "\"factor\":40,\"original_max_position_embeddings\":4096,\"beta_fast\":32,\"beta_slow\":1,"
                   "\"mscale\":1.0,\"mscale_all_dim\":1.0},\"quantization_config\":", c->mtp);
        if (c->packed)
            fprintf(f, "{\"quant_method\":\"compressed-tensors\",\"format\":\"%s\",\"quantization_status\":\"compressed\","
                  "\"config_groups\":{\"group_0\":{\"input_activations\":null,\"output_activations\":null,\"targets\":[\"Linear\"],"
                  "\"weights\":{\"actorder\":null,\"block_structure\":null,\"dynamic\":false,\"group_size\":32,\"num_bits\":4,"
                  "\"observer\":\"minmax\",\"observer_kwargs\":{},\"strategy\":\"group\",\"symmetric\":true,\"type\":\"%s\"}}},"
                  "\"ignore\":[\"lm_head\",\"re:.*self_attn.*\",\"re:.*shared_experts.*\","
                  "\"re:.*mlp\\\\.(gate|up|gate_up|down)_proj.*\"],\"kv_cache_scheme\":null}", c->mxfp4 ? "mxfp4-pack-quantized" : "pack-quantized", c->mxfp4 ? "float" : "int");
        else
            write_fp8(f, c);
    } else if (c->arch == QWEN3 || c->arch == QWEN3MOE) {
        write_qwen3(f, c);
    } else if (c->arch == MINIMAX) {
        write_minimax(f, c);
    } else if (c->arch == GLM4MOE) {
        write_glm4(f, c);
    } else if (c->arch == QWEN2) {
        fputs(",\"bos_token_id\":256,\"eos_token_id\":257,\"max_position_embeddings\":32768,\"rope_theta\":1000000.0", f);
    } else {
        fputs(",\"bos_token_id\":256,\"eos_token_id\":257,\"max_position_embeddings\":131072,\"rope_theta\":500000.0,"
              "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
              "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}", f);
    }
    fputs("}\n", f);
    close_out(f, "config.json");
}

static void copy_file(const struct config *c, const char *path, const char *name)
{
    char buf[65536];
    size_t n;
    FILE *in = fopen(path, "rb");
    if (!in)
        die("%s: %s", path, strerror(errno));
    FILE *out = open_out(c, name);
    while ((n = fread(buf, 1, sizeof buf, in)) > 0)
        fwrite(buf, 1, n, out);
    fclose(in);
    close_out(out, name);
}

static void copy_tokenizer(const struct config *c, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", c->tokenizer, name);
    copy_file(c, path, name);
}

/* The character that byte-level BPE shows for a byte: itself where printable,
 * otherwise U+0100 and on, in order. As a JSON string's content. */
static void byte_token(FILE *f, int byte)
{
    unsigned extra = 0, code = 0;
    for (int b = 0; b <= byte; b++) {
        bool shown = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code = shown ? (unsigned)b : 256 + extra++;
    }
    if (code == '"' || code == '\\')
        fprintf(f, "\\%c", (char)code);
    else if (code < 128)
        fputc((int)code, f);
    else
        fprintf(f, "\\u%04x", code);
}

/* How text is split, and what is put before it: MiniMax-M2's, GLM's, and those of DeepSeek-R1's distillations. */
static void write_rules(FILE *f, const struct config *c, const char *bos)
{
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define BEFORE "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define SHORT "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    bool minimax = c->arch == MINIMAX, glm = c->arch == GLM4MOE;
    const char *words = minimax ? BEFORE UPPER "*" LOWER "+" SHORT "?|" BEFORE UPPER "+" LOWER "*" SHORT "?"
                                : SHORT "|" BEFORE "\\\\p{L}+";
    fprintf(f, "\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
               "\"pattern\":{\"Regex\":\"%s|\\\\p{N}%s| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n%s]*|\\\\s*[\\\\r\\\\n]+|"
               "\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"%s\",\"invert\":%s},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
               "\"trim_offsets\":true,\"use_regex\":false}]},\"post_processor\":",
            minimax ? "{\"type\":\"NFC\"}" : "null", words, minimax || glm || c->arch == LLAMA ? "{1,3}" : "",
            minimax ? "/" : "", minimax ? "Removed" : "Isolated", minimax ? "true" : "false");
    if (minimax)
        fputs("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":false,\"use_regex\":true}", f);
    else if (glm)
        fputs("null", f);
    else
        fprintf(f, "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"%s\",\"type_id\":0}},"
                   "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"%s\":{\"id\":\"%s\","
                   "\"ids\":[256],\"tokens\":[\"%s\"]}}}", bos, bos, bos, bos);
}

/* 256 bytes, 64 merges of letter pairs, and two specials or GLM's eight: before the merges, in MiniMax-M2's and GLM's
 * form behind them. */
static void write_tokenizer(const struct config *c)
{
    static const char *const names[] = { "<\\uff5cbegin\\u2581of\\u2581sentence\\uff5c>",
                                         "<\\uff5cend\\u2581of\\u2581sentence\\uff5c>" };
    static const char *const minimax_names[] = { "]~!b[", "[e~[" };
    static const char *const glm_names[] = { "[gMASK]", "<|endoftext|>", "[sMASK]", "<sop>", "<think>", "<|user|>",
                                             "<|assistant|>", "<|observation|>" };
    bool minimax = c->arch == MINIMAX, glm = c->arch == GLM4MOE, last = minimax || glm;
    const char *const *special = glm ? glm_names : minimax ? minimax_names : names;
    int n = glm ? 8 : 2;
    FILE *f = open_out(c, "tokenizer.json");
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[", f);
    for (int i = 0; i < n; i++)
        fprintf(f, "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                   "\"normalized\":false,\"special\":%s}", i ? "," : "", (last ? 320 : 256) + i, special[i], i == 4 ? "false" : "true");
    fputs("],", f);
    write_rules(f, c, special[0]);
    fprintf(f, ",\"decoder\":{\"type\":\"ByteLevel\"%s},\"model\":{\"type\":\"BPE\",\"vocab\":{",
            last ? ",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true" : "");
    for (int b = 0; b < 256; b++) {
        fputs(b ? ",\"" : "\"", f);
        byte_token(f, b);
        fprintf(f, "\":%d", b);
    }
    const char *letters = "etaoinsh";
    for (int i = 0; i < 64; i++)
        fprintf(f, ",\"%c%c\":%d", letters[i / 8], letters[i % 8], (last ? 256 : 258) + i);
    fputs("},\"merges\":[", f);
    for (int i = 0; i < 64; i++)
        fprintf(f, "%s\"%c %c\"", i ? "," : "", letters[i / 8], letters[i % 8]);
    fputs("]}}\n", f);
    close_out(f, "tokenizer.json");
    f = open_out(c, "tokenizer_config.json");
    if (minimax)
        fprintf(f, "{\"add_prefix_space\":false,\"bos_token\":\"%s\",\"clean_up_tokenization_spaces\":false,\"eos_token\":\"%s\","
                   "\"unk_token\":\"%s\",\"model_max_length\":40960000,\"tokenizer_class\":\"GPT2Tokenizer\"}\n",
                special[0], special[1], special[1]);
    else if (glm)
        fputs("{\"clean_up_tokenization_spaces\":false,\"do_lower_case\":false,\"eos_token\":\"<|endoftext|>\",\"extra_special_tokens\":{},"
              "\"model_max_length\":128000,\"pad_token\":\"<|endoftext|>\",\"padding_side\":\"left\",\"remove_space\":false,"
              "\"tokenizer_class\":\"PreTrainedTokenizer\"}\n", f);
    else
        fprintf(f, "{\"add_bos_token\":true,\"add_eos_token\":false,\"bos_token\":\"%s\",\"eos_token\":\"%s\","
                   "\"pad_token\":\"%s\",\"unk_token\":null,\"tokenizer_class\":\"LlamaTokenizerFast\"}\n",
                special[0], special[1], special[1]);
    close_out(f, "tokenizer_config.json");
}

static void usage(FILE *f)
{
    fputs("usage: make_checkpoint [--arch ARCH] [OPTION...] --out DIR\n"
          "  --arch deepseek|qwen2|llama|qwen3|qwen3moe|minimax|glm4moe   comes first (deepseek)\n"
          "  --preset small|demo|big-tensor|r1|k2\n"
          "      small: 15 MB; demo: 350 MB; big-tensor: one BF16 tensor of 256 MiB;\n"
          "      r1, k2: DeepSeek-R1's and Kimi-K2's own shapes (with --holes)\n"
          "  --layers --dense --hidden --inter --moe-inter --experts --used --groups\n"
          "  --groups-used --heads --kv-heads --q-lora --kv-lora --nope --rope --v-dim\n"
          "  --vocab --shards --seed --head-dim   numbers\n"
          "  --index-heads --index-dim --index-top   V3.2's form, by heads of the indexer (0, 64, 16)\n"
          "  --scales block|bf16|e8m0|tensor|row|bf16-row|none   form of the FP8 scales (block); none: BF16 weights\n"
          "  --scale-suffix NAME           weight_scale_inv\n"
          "  --packed                      experts in 4-bit integers as Kimi-K2-Thinking's, the rest BF16\n"
          "  --mxfp4                       experts in MXFP4 as DeepSeek-V4's; with --packed as compressed-tensors'\n"
          "  --bf16-bias                   router bias in BF16 instead of F32\n"
          "  --f32-proj                    the indexer's weights_proj in F32 instead of BF16\n"
          "  --no-mtp                      without it, where a preset has it\n"
          "  --mtp                         with a multi-token-prediction layer\n"
          "  --tied                        no lm_head\n"
          "  --no-head-norm                no norms on the heads of q and k, as GLM-4.5-Air\n"
          "  --holes                       large tensors are holes, but for a few\n"
          "  --config FILE                 config.json to copy in place of a made one\n"
          "  --sparse                      of each matrix only the beginning, then a hole\n"
          "  --tokenizer DIR               where DeepSeek's tokenizer files are (tests/tiny-v3)\n", f);
}

static struct config defaults(enum arch a)
{
    struct config c = { .arch = a, .layers = 2, .dense = 1, .hidden = 512, .inter = 1024, .moe_inter = 256,
                        .experts = 8, .used = 2, .groups = 2, .groups_used = 1, .heads = 8, .kv_heads = 8,
                        .q_lora = 256, .kv_lora = 256, .nope = 64, .rope = 32, .v_dim = 64, .vocab = 4096,
                        .index_dim = 64, .index_top = 16, .shards = 2, .seed = 1, .f32_bias = true, .scales = "block",
                        .scale_suffix = "weight_scale_inv", .tokenizer = "tests/tiny-v3" };
    if (a != DEEPSEEK) {
        c.kv_heads = 2;
        c.vocab = 512;
        c.scales = a == QWEN3MOE ? "bf16" : a == MINIMAX ? "block" : "none";
        c.head_norm = a == QWEN3 || a == QWEN3MOE || a == GLM4MOE;
        c.head_dim = c.head_norm || a == MINIMAX ? 128 : 0;
    }
    if (a == GLM4MOE)
        c.scales = "row", c.scale_suffix = "weight_scale", c.mtp = true;
    return c;
}

static void preset(struct config *c, const char *name)
{
    if (!strcmp(name, "small"))
        return;
    if (!strcmp(name, "demo")) {
        c->layers = 5, c->hidden = 1024, c->inter = 4096, c->moe_inter = 512, c->experts = 32;
        c->used = 4, c->groups = 4, c->groups_used = 2, c->heads = 16, c->kv_heads = 16;
        c->q_lora = 512, c->kv_lora = 512, c->nope = 128, c->rope = 64, c->v_dim = 128, c->shards = 4;
    } else if (!strcmp(name, "big-tensor")) {
        c->layers = 1, c->hidden = 1024, c->inter = 2048, c->vocab = 131072, c->shards = 1, c->tied = true;
        if (c->arch == DEEPSEEK)
            die("big-tensor is for qwen2 and llama");
    } else if (!strcmp(name, "r1") || !strcmp(name, "k2")) {
        bool r1 = name[0] == 'r';
        c->layers = 61, c->dense = r1 ? 3 : 1, c->hidden = 7168, c->inter = 18432, c->moe_inter = 2048;
        c->experts = r1 ? 256 : 384, c->used = 8, c->groups = r1 ? 8 : 1, c->groups_used = r1 ? 4 : 1;
        c->heads = c->kv_heads = r1 ? 128 : 64, c->q_lora = 1536, c->kv_lora = 512, c->nope = 128;
        c->rope = 64, c->v_dim = 128, c->vocab = r1 ? 129280 : 163840, c->shards = r1 ? 163 : 61;
        c->mtp = r1;
    } else {
        die("preset %s: small, demo, big-tensor, r1 or k2", name);
    }
}

/* The whole checkpoint; a line on standard output. */
static void write_checkpoint(const struct config *c)
{
    if (mkdir(c->out, 0777) && errno != EEXIST)
        die("%s: %s", c->out, strerror(errno));
    fill_tables();
    struct list l = { 0 };
    list_tensors(&l, c);
    uint64_t total = 0, at = 0;
    for (size_t i = 0; i < l.n; i++)
        total += l.t[i].bytes;
    for (size_t i = 0; i < l.n; i++) {
        l.t[i].shard = (unsigned)((double)at / (double)total * (double)c->shards);
        at += l.t[i].bytes;
    }
    for (unsigned i = 0; i < c->shards; i++)
        write_shard(c, &l, i);
    write_index(c, &l, total);
    if (c->config)
        copy_file(c, c->config, "config.json");
    else
        write_config(c);
    if (c->arch == DEEPSEEK) {
        copy_tokenizer(c, "tokenizer.json");
        copy_tokenizer(c, "tokenizer_config.json");
    } else {
        write_tokenizer(c);
    }
    printf("%s: %zu tensors, %.1f MB in %" PRIu64 " file%s\n", c->out, l.n, (double)total / 1e6, c->shards,
           c->shards == 1 ? "" : "s");
    free(l.t);
}

static enum arch arch_of(const char *name)
{
    static const char *const names[] = { "deepseek", "qwen2", "llama", "qwen3", "qwen3moe", "minimax", "glm4moe" };
    for (enum arch a = DEEPSEEK; a <= GLM4MOE; a++)
        if (!strcmp(name, names[a]))
            return a;
    die("--arch %s: deepseek, qwen2, llama, qwen3, qwen3moe, minimax or glm4moe", name);
    return DEEPSEEK;
}

int main(int argc, char **argv)
{
    enum { NUM0 = 256 };
    static const char *const nums[] = { "layers", "dense", "hidden", "inter", "moe-inter", "experts", "used",
                                        "groups", "groups-used", "heads", "kv-heads", "q-lora", "kv-lora", "nope",
                                        "rope", "v-dim", "vocab", "shards", "seed", "index-heads", "index-dim",
                                        "index-top", "head-dim" };
    enum { N = sizeof nums / sizeof *nums };
    const struct option rest[] = { { "arch", 1, NULL, 'a' }, { "preset", 1, NULL, 'p' }, { "scales", 1, NULL, 's' },
                                   { "scale-suffix", 1, NULL, 'x' }, { "bf16-bias", 0, NULL, 'b' },
                                   { "packed", 0, NULL, 'P' }, { "mxfp4", 0, NULL, '4' }, { "f32-proj", 0, NULL, 'j' },
                                   { "mtp", 0, NULL, 'm' }, { "no-mtp", 0, NULL, 'M' }, { "tied", 0, NULL, 't' },
                                   { "no-head-norm", 0, NULL, 'N' },
                                   { "sparse", 0, NULL, 'S' }, { "holes", 0, NULL, 'H' }, { "config", 1, NULL, 'c' },
                                   { "tokenizer", 1, NULL, 'k' }, { "out", 1, NULL, 'o' },
                                   { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    struct option opts[N + sizeof rest / sizeof *rest];
    struct config c = defaults(DEEPSEEK);
    for (int i = 0; i < N; i++)
        opts[i] = (struct option){ nums[i], required_argument, NULL, NUM0 + i };
    memcpy(opts + N, rest, sizeof rest);
    for (int o; (o = getopt_long(argc, argv, "", opts, NULL)) != -1;) {
        if (o >= NUM0) {
            uint64_t *field[] = { &c.layers, &c.dense, &c.hidden, &c.inter, &c.moe_inter, &c.experts, &c.used,
                                  &c.groups, &c.groups_used, &c.heads, &c.kv_heads, &c.q_lora, &c.kv_lora, &c.nope,
                                  &c.rope, &c.v_dim, &c.vocab, &c.shards, &c.seed, &c.index_heads, &c.index_dim,
                                  &c.index_top, &c.head_dim };
            char *end;
            *field[o - NUM0] = strtoull(optarg, &end, 10);
            if (*end || end == optarg)
                die("--%s %s: a number is expected", nums[o - NUM0], optarg);
            continue;
        }
        switch (o) {
        case 'a':
            if (c.out)
                die("--arch comes before the other options");
            c = defaults(arch_of(optarg));
            break;
        case 'p': preset(&c, optarg); break;
        case 's': c.scales = optarg; break;
        case 'x': c.scale_suffix = optarg; break;
        case 'b': c.f32_bias = false; break;
        case 'P': c.packed = true; break;
        case '4': c.mxfp4 = true; break;
        case 'j': c.f32_proj = true; break;
        case 'm': c.mtp = true; break;
        case 'M': c.mtp = false; break;
        case 't': c.tied = true; break;
        case 'N': c.head_norm = false; break;
        case 'S': c.sparse = true; break;
        case 'k': c.tokenizer = optarg; break;
        case 'H': c.holes = true; break;
        case 'c': c.config = optarg; break;
        case 'o': c.out = optarg; break;
        case 'h': usage(stdout); return 0;
        default: usage(stderr); return 2;
        }
    }
    if (!c.out || optind != argc || c.shards == 0 || c.shards > 99999) {
        usage(stderr);
        return 2;
    }
    write_checkpoint(&c);
    return 0;
}
