/* ggml types back to F32, by the formats' definitions: value = scale * level
 * (- or + minimum), in F32, in ggml's order of multiplications. */
#include "kernels/blocks.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

static const int8_t iq4_levels[16] = {SL_IQ4_LEVELS};

/* Sixteen bytes of two nibbles, with a fifth bit from qh (NULL: none). */
static void nibbles(const uint8_t *qs, const uint8_t *qh, int *q)
{
    for (int i = 0; i < 16; i++) {
        q[i] = qs[i] & 15;
        q[i + 16] = qs[i] >> 4;
    }
    for (int i = 0; qh && i < 32; i++)
        q[i] |= (qh[i / 8] >> (i % 8) & 1) << 4;
}

static void from_sym(const void *in, size_t qs_at, const uint8_t *qh, int centre, float *out)
{
    uint16_t d;
    int q[32];

    memcpy(&d, in, 2);
    nibbles((const uint8_t *)in + qs_at, qh, q);
    for (int i = 0; i < 32; i++)
        out[i] = (float)(q[i] - centre) * sl_f32_from_f16(d);
}

static void from_asym(const void *in, size_t qs_at, const uint8_t *qh, float *out)
{
    uint16_t dm[2];
    int q[32];

    memcpy(dm, in, 4);
    nibbles((const uint8_t *)in + qs_at, qh, q);
    for (int i = 0; i < 32; i++)
        out[i] = (float)q[i] * sl_f32_from_f16(dm[0]) + sl_f32_from_f16(dm[1]);
}

static void from_q4_0(const void *in, float *out) { from_sym(in, 2, NULL, 8, out); }
static void from_q5_0(const void *in, float *out) { from_sym(in, 6, (const uint8_t *)in + 2, 16, out); }
static void from_q4_1(const void *in, float *out) { from_asym(in, 4, NULL, out); }
static void from_q5_1(const void *in, float *out) { from_asym(in, 8, (const uint8_t *)in + 4, out); }

static void from_q8_0(const void *in, float *out)
{
    struct blk_q8_0 b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 32; i++)
        out[i] = (float)b.qs[i] * sl_f32_from_f16(b.d);
}

static void from_iq4_nl(const void *in, float *out)
{
    struct blk_iq4_nl b;
    int q[32];

    memcpy(&b, in, sizeof b);
    nibbles(b.qs, NULL, q);
    for (int i = 0; i < 32; i++)
        out[i] = sl_f32_from_f16(b.d) * (float)iq4_levels[q[i]];
}

static void from_iq4_xs(const void *in, float *out)
{
    struct blk_iq4_xs b;

    memcpy(&b, in, sizeof b);
    for (int j = 0; j < 8; j++) {
        int s = (b.scales_l[j / 2] >> 4 * (j % 2) & 15) | (b.scales_h >> 2 * j & 3) << 4, q[32];
        float d = sl_f32_from_f16(b.d) * (float)(s - 32);

        nibbles(b.qs + 16 * j, NULL, q);
        for (int i = 0; i < 32; i++)
            out[32 * j + i] = d * (float)iq4_levels[q[i]];
    }
}

/* Two bits of value i where each half of 128 values has 32 bytes. */
static int two_bits(const uint8_t *qs, int i)
{
    return qs[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3;
}

static void from_q2_k(const void *in, float *out)
{
    struct blk_q2_k b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 256; i++) {
        uint8_t s = b.scales[i / 16];
        float d = sl_f32_from_f16(b.d) * (float)(s & 15), m = sl_f32_from_f16(b.dmin) * (float)(s >> 4);

        out[i] = d * (float)two_bits(b.qs, i) - m;
    }
}

static void from_q3_k(const void *in, float *out)
{
    struct blk_q3_k b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 256; i++) {
        int j = i / 16, low = b.scales[j % 8] >> (j < 8 ? 0 : 4) & 15;
        int s = low | (b.scales[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
        int q = two_bits(b.qs, i) - (b.hmask[i % 32] >> i / 32 & 1 ? 0 : 4);

        out[i] = sl_f32_from_f16(b.d) * (float)(s - 32) * (float)q;
    }
}

static void scale_min(const uint8_t *b, int j, int *s, int *m)
{
    *s = j < 4 ? b[j] & 63 : (b[j + 4] & 15) | b[j - 4] >> 6 << 4;
    *m = j < 4 ? b[j + 4] & 63 : b[j + 4] >> 4 | b[j] >> 6 << 4;
}

/* q4_k and, with the fifth bits in qh, q5_k. */
static void from_k45(uint16_t d, uint16_t dmin, const uint8_t *scales, const uint8_t *qh, const uint8_t *qs,
                     float *out)
{
    for (int j = 0; j < 8; j++) {
        const uint8_t *q = qs + j / 2 * 32;
        float ds, dm;
        int s, m;

        scale_min(scales, j, &s, &m);
        ds = sl_f32_from_f16(d) * (float)s;
        dm = sl_f32_from_f16(dmin) * (float)m;
        for (int i = 0; i < 32; i++) {
            int l = (q[i] >> 4 * (j % 2) & 15) | (qh ? (qh[i] >> j & 1) << 4 : 0);

            out[32 * j + i] = ds * (float)l - dm;
        }
    }
}

static void from_q4_k(const void *in, float *out)
{
    struct blk_q4_k b;

    memcpy(&b, in, sizeof b);
    from_k45(b.d, b.dmin, b.scales, NULL, b.qs, out);
}

static void from_q5_k(const void *in, float *out)
{
    struct blk_q5_k b;

    memcpy(&b, in, sizeof b);
    from_k45(b.d, b.dmin, b.scales, b.qh, b.qs, out);
}

static void from_q6_k(const void *in, float *out)
{
    struct blk_q6_k b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, k = i % 128 / 32, at = i % 32;
        int low = b.ql[64 * half + 32 * (k % 2) + at] >> 4 * (k / 2) & 15;
        int high = b.qh[32 * half + at] >> 2 * k & 3;

        out[i] = sl_f32_from_f16(b.d) * (float)b.scales[i / 16] * (float)((low | high << 4) - 32);
    }
}

static void (*const from_block[SL_TYPE_LIMIT])(const void *in, float *out) = {
    [SL_TYPE_Q4_0] = from_q4_0,     [SL_TYPE_Q4_1] = from_q4_1, [SL_TYPE_Q5_0] = from_q5_0,
    [SL_TYPE_Q5_1] = from_q5_1,     [SL_TYPE_Q8_0] = from_q8_0, [SL_TYPE_IQ4_NL] = from_iq4_nl,
    [SL_TYPE_IQ4_XS] = from_iq4_xs, [SL_TYPE_Q2_K] = from_q2_k, [SL_TYPE_Q3_K] = from_q3_k,
    [SL_TYPE_Q4_K] = from_q4_k,     [SL_TYPE_Q5_K] = from_q5_k, [SL_TYPE_Q6_K] = from_q6_k,
};

int sl_dequantize(int type, const void *in, uint64_t n, float *out)
{
    const struct sl_type_info *t = sl_type_info(type);
    const uint8_t *p = in;

    if (!t || n % t->block)
        return SL_EUNSUPPORTED;
    if (type == SL_TYPE_F32) {
        memcpy(out, in, n * 4);
        return 0;
    }
    if (type == SL_TYPE_F16 || type == SL_TYPE_BF16) {
        for (uint64_t i = 0; i < n; i++) {
            uint16_t h;

            memcpy(&h, p + 2 * i, 2);
            out[i] = type == SL_TYPE_F16 ? sl_f32_from_f16(h) : sl_f32_from_bf16(h);
        }
        return 0;
    }
    if (!from_block[type])
        return SL_EUNSUPPORTED;
    for (uint64_t i = 0; i < n; i += t->block, p += t->bytes)
        from_block[type](p, out + i);
    return 0;
}
