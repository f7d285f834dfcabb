/* The body of a backend: groups of LANES blocks through the block texts, and
 * what works on single values (q8_0, f16, bf16, loading). Included last by
 * quantize_<backend>.c, which names the vocabulary and the table to define. */
#ifndef SLUICE_KERNELS_TEXT_BACKEND_H
#define SLUICE_KERNELS_TEXT_BACKEND_H

#include "kernels/backend.h"
#include "kernels/text_block32.h"
#include "kernels/text_few_levels.h"
#include "kernels/text_iq1.h"
#include "kernels/text_mxfp4.h"
#include "kernels/text_values.h"
#include "kernels/text_stream.h"

typedef void block_fn(const vf *x, const vf *w, vf sigma2, vi *out);

#define BLOCK_256(name)                                                                     \
    static __attribute__((noinline)) void name##_plain(const vf *x, const vf *w, vf s, vi *out) \
    {                                                                                       \
        (void)w, (void)s;                                                                   \
        name##_block(x, NULL, out);                                                         \
    }                                                                                       \
    static __attribute__((noinline)) void name##_weighted(const vf *x, const vf *w, vf s, vi *out) \
    {                                                                                       \
        (void)s;                                                                            \
        name##_block(x, w, out);                                                            \
    }

#define BLOCK_WEIGHTED(name)                                                                \
    static __attribute__((noinline)) void name##_weighted(const vf *x, const vf *w, vf s, vi *out) \
    {                                                                                       \
        (void)s;                                                                            \
        name##_block(x, w, out);                                                            \
    }

#define BLOCK_32(name)                                                                      \
    static __attribute__((noinline)) void name##_plain(const vf *x, const vf *w, vf s, vi *out) \
    {                                                                                       \
        (void)w;                                                                            \
        name##_block(x, NULL, s, out);                                                      \
    }                                                                                       \
    static __attribute__((noinline)) void name##_weighted(const vf *x, const vf *w, vf s, vi *out) \
    {                                                                                       \
        name##_block(x, w, s, out);                                                         \
    }

#define BLOCK_PLAIN(name)                                                                   \
    static __attribute__((noinline)) void name##_plain(const vf *x, const vf *w, vf s, vi *out) \
    {                                                                                       \
        (void)w, (void)s;                                                                   \
        name##_block(x, out);                                                               \
    }

BLOCK_256(q2_k)
BLOCK_256(q3_k)
BLOCK_256(q4_k)
BLOCK_256(q5_k)
BLOCK_256(q6_k)
BLOCK_256(iq4_xs)
BLOCK_256(iq1_m)
BLOCK_256(iq2_s)
BLOCK_256(iq3_xxs)
BLOCK_256(iq3_s)
BLOCK_WEIGHTED(iq1_s)
BLOCK_WEIGHTED(iq2_xxs)
BLOCK_WEIGHTED(iq2_xs)
BLOCK_32(q4_0)
BLOCK_32(q4_1)
BLOCK_32(q5_0)
BLOCK_32(q5_1)
BLOCK_32(iq4_nl)
BLOCK_32(mxfp4)
BLOCK_PLAIN(q1_0)
BLOCK_PLAIN(q2_0)
BLOCK_PLAIN(tq1_0)
BLOCK_PLAIN(tq2_0)

static const struct {
    block_fn *plain, *weighted; /* plain: NULL where a type needs weights, weighted: where it takes none */
    bool row_mean; /* with weights, the mean square of the whole row is used */
} block_fns[SL_TYPE_LIMIT] = {
    [SL_TYPE_Q2_K] = {q2_k_plain, q2_k_weighted, false},
    [SL_TYPE_Q3_K] = {q3_k_plain, q3_k_weighted, false},
    [SL_TYPE_Q4_K] = {q4_k_plain, q4_k_weighted, false},
    [SL_TYPE_Q5_K] = {q5_k_plain, q5_k_weighted, false},
    [SL_TYPE_Q6_K] = {q6_k_plain, q6_k_weighted, false},
    [SL_TYPE_IQ4_XS] = {iq4_xs_plain, iq4_xs_weighted, false},
    [SL_TYPE_IQ1_S] = {NULL, iq1_s_weighted, false},
    [SL_TYPE_IQ1_M] = {iq1_m_plain, iq1_m_weighted, false},
    [SL_TYPE_IQ2_XXS] = {NULL, iq2_xxs_weighted, false},
    [SL_TYPE_IQ2_XS] = {NULL, iq2_xs_weighted, false},
    [SL_TYPE_IQ2_S] = {iq2_s_plain, iq2_s_weighted, false},
    [SL_TYPE_IQ3_XXS] = {iq3_xxs_plain, iq3_xxs_weighted, false},
    [SL_TYPE_IQ3_S] = {iq3_s_plain, iq3_s_weighted, false},
    [SL_TYPE_IQ4_NL] = {iq4_nl_plain, iq4_nl_weighted, false},
    [SL_TYPE_MXFP4] = {mxfp4_plain, mxfp4_weighted, false},
    [SL_TYPE_Q4_0] = {q4_0_plain, q4_0_weighted, true},
    [SL_TYPE_Q4_1] = {q4_1_plain, q4_1_weighted, true},
    [SL_TYPE_Q5_0] = {q5_0_plain, q5_0_weighted, true},
    [SL_TYPE_Q5_1] = {q5_1_plain, q5_1_weighted, true},
    [SL_TYPE_Q1_0] = {q1_0_plain, NULL, false},
    [SL_TYPE_Q2_0] = {q2_0_plain, NULL, false},
    [SL_TYPE_TQ1_0] = {tq1_0_plain, NULL, false},
    [SL_TYPE_TQ2_0] = {tq2_0_plain, NULL, false},
};

static float row_mean_square(const float *x, uint64_t n)
{
    float s = 0;

    for (uint64_t i = 0; i < n; i++)
        s += x[i] * x[i];
    return s / (float)n;
}

/* Row means for `lanes` blocks from block `first` on; *row is the last row
 * computed, *mean its mean. */
static vf gather_means(const float *x, uint64_t row_len, uint64_t first, int lanes, uint64_t *row, float *mean)
{
    float m[16];

    for (int k = 0; k < LANES; k++) {
        uint64_t r = (first + (uint64_t)(k < lanes ? k : lanes - 1)) * 32 / row_len;

        if (r != *row) {
            *row = r;
            *mean = row_mean_square(x + r * row_len, row_len);
        }
        m[k] = *mean;
    }
    return v_load(m);
}

static void store_blocks(const vi *words, int lanes, size_t bytes, uint8_t *out)
{
    int32_t t[MAX_WORDS][LANES];
    size_t whole = bytes / 4;

    for (size_t i = 0; 4 * i < bytes; i++)
        v_storei(t[i], words[i]);
    for (int k = 0; k < lanes; k++, out += bytes) {
        for (size_t i = 0; i < whole; i++)
            memcpy(out + 4 * i, &t[i][k], 4);
        if (bytes % 4 >= 2)
            memcpy(out + 4 * whole, &t[whole][k], 2);
        if (bytes % 2)
            out[bytes - 1] = (uint8_t)(t[whole][k] >> (bytes % 4 - 1) * 8);
    }
}

static void quantize_blocks(int type, const float *x, const float *w, uint64_t n, uint64_t row_len, uint8_t *out)
{
    const struct sl_type_info *t = sl_type_info(type);
    uint64_t blocks = n / t->block, row = UINT64_MAX;
    block_fn *fn = w ? block_fns[type].weighted : block_fns[type].plain;
    vf xs[256], ws[256], sigma2 = v_set(0.f);
    float mean = 0;

    for (uint64_t b = 0; b < blocks; b += LANES) {
        int lanes = blocks - b < LANES ? (int)(blocks - b) : LANES;
        vi words[MAX_WORDS]; /* those behind the block's own are not stored, whatever they hold */

        v_gather(xs, x + b * t->block, t->block, lanes, (int)t->block);
        if (w)
            v_gather(ws, w + b * t->block, t->block, lanes, (int)t->block);
        if (w && block_fns[type].row_mean)
            sigma2 = gather_means(x, row_len, b, lanes, &row, &mean);
        for (size_t i = 0; 4 * i < t->bytes; i++)
            words[i] = v_seti(0);
        fn(xs, w ? ws : NULL, sigma2, words);
        store_blocks(words, lanes, t->bytes, out + b * t->bytes);
    }
}

static void quantize_q8_0(const float *x, uint64_t n, uint8_t *out)
{
    for (uint64_t b = 0; b < n / 32; b++)
        q8_0_block(x + 32 * b, out + b * sizeof(struct blk_q8_0));
}

/* backend.h: 1 says that every stored scale is finite. */
static int backend_quantize(int type, const float *x, const float *w, uint64_t n, uint64_t row, void *out)
{
    uint16_t *half = out;
    uint64_t done;
    bool plain;

    if (type < 0 || type >= SL_TYPE_LIMIT)
        return SL_EUNSUPPORTED;
    if (!block_fns[type].weighted)
        w = NULL;
    if (w || block_fns[type].plain) {
        quantize_blocks(type, x, w, n, row, out);
        return 0;
    }
    switch (type) {
    case SL_TYPE_F32:
        memcpy(out, x, n * 4);
        return 0;
    case SL_TYPE_F16:
        return quantize_halves(false, x, n, half);
    case SL_TYPE_BF16:
        return quantize_halves(true, x, n, half);
    case SL_TYPE_Q8_0:
        done = q8_0_stream(SL_DTYPE_F32, (const uint8_t *)(const void *)x, NULL, n / 32, &plain, out);
        quantize_q8_0(x + 32 * done, n - 32 * done, (uint8_t *)out + done * sizeof(struct blk_q8_0));
        return 0;
    default:
        return SL_EUNSUPPORTED;
    }
}

/* out[i] = element i times scale; returns whether one of them is not finite. */
static bool backend_load(int dtype, const void *src, uint64_t n, float scale, float *restrict out)
{
    const uint8_t *restrict b = src;
    uint32_t bad = 0;
    uint64_t i = 0;

#ifdef V_LOAD_E4M3
    if (dtype == SL_DTYPE_F8_E4M3)
        i = load_e4m3(b, n, &scale, n, out);
#endif
    if (dtype == SL_DTYPE_F16)
        i = load_f16(b, n, scale, out);
#define LOAD_LOOP(width, expr)                                       \
    for (; i < n; i++) {                                             \
        uint##width##_t e;                                           \
        memcpy(&e, b + i * sizeof e, sizeof e);                      \
        out[i] = (expr) * scale;                                     \
        bad |= -(uint32_t)((sl_bits(out[i]) & 0x7f800000) == 0x7f800000); \
    }                                                                \
    break

    switch (dtype) {
    case SL_DTYPE_F8_E4M3:
        LOAD_LOOP(8, from_e4m3(e));
    case SL_DTYPE_F8_E5M2:
        LOAD_LOOP(8, from_e5m2(e));
    case SL_DTYPE_F16:
        LOAD_LOOP(16, from_half(e));
    case SL_DTYPE_BF16:
        LOAD_LOOP(16, sl_float((uint32_t)e << 16));
    case SL_DTYPE_F32:
        LOAD_LOOP(32, sl_float(e));
    case SL_DTYPE_F64:
        for (; i < n; i++) {
            double e;

            memcpy(&e, b + i * 8, 8);
            out[i] = (float)e * scale;
            bad |= -(uint32_t)((sl_bits(out[i]) & 0x7f800000) == 0x7f800000);
        }
        break;
    default:
        return true;
    }
#undef LOAD_LOOP
    return bad != 0;
}

#endif
