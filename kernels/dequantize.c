/* ggml types back to F32, by the formats' definitions: value = scale * level
 * (- or + minimum), in F32, in ggml's order of multiplications. */
#include "kernels/blocks.h"
#include "kernels/grids.h"
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

/* ggml doubles the values and halves the scale, which is the same; where e is 255, E8M0's NaN, it goes
 * on with 2^128, and this does not. */
static void from_mxfp4(const void *in, float *out)
{
    static const float values[16] = {SL_E2M1_VALUES};
    struct blk_mxfp4 b;
    float d;
    int q[32];

    memcpy(&b, in, sizeof b);
    d = sl_f32_from_e8m0(b.e);
    nibbles(b.qs, NULL, q);
    for (int i = 0; i < 32; i++)
        out[i] = values[q[i]] * d;
}

/* E4M3 without its sign, as ggml reads it: the code of its NaN is 0, that of the other one 480. */
static float from_ue4m3(uint8_t code)
{
    uint32_t m = code & 7, x = code >> 3 & 15;

    if (code == 0x7f)
        return 0;
    return x ? (float)(8 + m) * sl_f32_from_e8m0((uint8_t)(x + 117)) : (float)m * 0x1p-9f;
}

static void from_nvfp4(const void *in, float *out)
{
    static const float values[16] = {SL_E2M1_VALUES};
    struct blk_nvfp4 b;

    memcpy(&b, in, sizeof b);
    for (int k = 0; k < 4; k++, out += 16) {
        float d = from_ue4m3(b.d[k]);

        for (int i = 0; i < 16; i++)
            out[i] = values[b.qs[8 * k + i % 8] >> i / 8 * 4 & 15] * d;
    }
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

/* Signs stored as seven bits: the eighth makes their number even. */
static uint32_t eighth_sign(uint32_t s)
{
    uint32_t p = s ^ s >> 4;

    p ^= p >> 2;
    return s | ((p ^ p >> 1) & 1) << 7;
}

/* Eight values: a point of eight, or two of four. */
static void from_codes(float d, const float *levels, int bits, uint32_t code, uint32_t signs, float *out)
{
    for (int i = 0; i < 8; i++) {
        float v = d * levels[code >> bits * i & ((1u << bits) - 1)];

        out[i] = signs >> i & 1 ? -v : v;
    }
}

static const float iq2_levels[4] = {8, 25, 43, 0};
static const float iq3_xxs_levels[8] = {4, 12, 20, 28, 36, 44, 52, 62};
static const float iq3_s_levels[8] = {1, 3, 5, 7, 9, 11, 13, 15};

static float iq2_scale(uint16_t d, uint32_t s)
{
    return sl_f32_from_f16(d) * (0.5f + (float)s) * 0.25f;
}

static void from_iq2_xxs(const void *in, float *out)
{
    const struct sl_grid *g = sl_grid_for_reading(SL_GRID_IQ2_XXS);
    struct blk_iq2_xxs b;

    memcpy(&b, in, sizeof b);
    for (int j = 0; j < 8; j++) {
        uint32_t index = b.qs[4 * j] | (uint32_t)b.qs[4 * j + 1] << 16;
        uint32_t high = b.qs[4 * j + 2] | (uint32_t)b.qs[4 * j + 3] << 16;

        for (int k = 0; k < 4; k++)
            from_codes(iq2_scale(b.d, high >> 28), iq2_levels, 2, g->code[index >> 8 * k & 255],
                       eighth_sign(high >> 7 * k & 127), out + 32 * j + 8 * k);
    }
}

static void from_iq2_xs(const void *in, float *out)
{
    const struct sl_grid *g = sl_grid_for_reading(SL_GRID_IQ2_XS);
    struct blk_iq2_xs b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 32; i++)
        from_codes(iq2_scale(b.d, b.scales[i / 4] >> 4 * (i / 2 % 2) & 15), iq2_levels, 2, g->code[b.qs[i] & 511],
                   eighth_sign(b.qs[i] >> 9), out + 8 * i);
}

static void from_iq2_s(const void *in, float *out)
{
    const struct sl_grid *g = sl_grid_for_reading(SL_GRID_IQ2_S);
    struct blk_iq2_s b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 32; i++)
        from_codes(iq2_scale(b.d, b.scales[i / 4] >> 4 * (i / 2 % 2) & 15), iq2_levels, 2,
                   g->code[b.qs[i] | (b.qh[i / 4] >> 2 * (i % 4) & 3) << 8], b.qs[32 + i], out + 8 * i);
}

static void from_iq3_xxs(const void *in, float *out)
{
    const struct sl_grid *g = sl_grid_for_reading(SL_GRID_IQ3_XXS);
    struct blk_iq3_xxs b;

    memcpy(&b, in, sizeof b);
    for (int j = 0; j < 8; j++) {
        uint32_t high;
        float d;

        memcpy(&high, b.qs + 64 + 4 * j, 4);
        d = sl_f32_from_f16(b.d) * (0.5f + (float)(high >> 28)) * 0.5f;
        for (int k = 0; k < 4; k++) {
            const uint8_t *q = b.qs + 8 * j + 2 * k;

            from_codes(d, iq3_xxs_levels, 3, g->code[q[0]] | (uint32_t)g->code[q[1]] << 12,
                       eighth_sign(high >> 7 * k & 127), out + 32 * j + 8 * k);
        }
    }
}

static void from_iq3_s(const void *in, float *out)
{
    const struct sl_grid *g = sl_grid_for_reading(SL_GRID_IQ3_S);
    struct blk_iq3_s b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 32; i++) {
        float d = sl_f32_from_f16(b.d) * (float)(1 + 2 * (b.scales[i / 8] >> 4 * (i / 4 % 2) & 15));
        const uint8_t *q = b.qs + 2 * i;
        int high = b.qh[i / 4] >> 2 * (i % 4);

        from_codes(d, iq3_s_levels, 3, g->code[q[0] | (high & 1) << 8] | (uint32_t)g->code[q[1] | (high >> 1 & 1) << 8] << 12,
                   b.signs[i], out + 8 * i);
    }
}

/* d times level - 1, moved by an eighth. */
static void from_iq1(float d, uint32_t code, uint32_t down, float *out)
{
    for (int i = 0; i < 8; i++)
        out[i] = d * ((float)((int)(code >> 2 * i & 3) - 1) + (down ? -0.125f : 0.125f));
}

static void from_iq1_s(const void *in, float *out)
{
    const struct sl_grid *g = sl_grid_for_reading(SL_GRID_IQ1);
    struct blk_iq1_s b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 32; i++) {
        uint32_t h = b.qh[i / 4];
        float d = sl_f32_from_f16(b.d) * (float)(2 * (h >> 12 & 7) + 1);

        from_iq1(d, g->code[b.qs[i] | (h >> 3 * (i % 4) & 7) << 8], h & 0x8000, out + 8 * i);
    }
}

static void from_iq1_m(const void *in, float *out)
{
    const struct sl_grid *g = sl_grid_for_reading(SL_GRID_IQ1);
    struct blk_iq1_m b;
    uint32_t half = 0;

    memcpy(&b, in, sizeof b);
    for (int k = 0; k < 4; k++)
        half |= (uint32_t)(b.scales[k] >> 12) << 4 * k;
    for (int i = 0; i < 32; i++) {
        uint32_t h = b.qh[i / 2] >> 4 * (i % 2) & 15, s = b.scales[i / 8] >> 3 * (i / 2 % 4) & 7;

        from_iq1(sl_f32_from_f16((uint16_t)half) * (float)(2 * s + 1), g->code[b.qs[i] | (h & 7) << 8], h & 8, out + 8 * i);
    }
}

static void from_q1_0(const void *in, float *out)
{
    struct blk_q1_0 b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 128; i++)
        out[i] = b.qs[i / 8] >> i % 8 & 1 ? sl_f32_from_f16(b.d) : -sl_f32_from_f16(b.d);
}

static float from_level(int level, uint16_t d) { return (float)(level - 1) * sl_f32_from_f16(d); }

static void from_q2_0(const void *in, float *out)
{
    struct blk_q2_0 b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 64; i++)
        out[i] = from_level(b.qs[i / 4] >> 2 * (i % 4) & 3, b.d);
}

static void from_tq2_0(const void *in, float *out)
{
    struct blk_tq2_0 b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 256; i++)
        out[i] = from_level(two_bits(b.qs, i), b.d);
}

/* Digit n of the fraction byte / 256. */
static int trit(uint8_t byte, int n)
{
    static const uint8_t pow3[5] = {1, 3, 9, 27, 81};

    return (uint8_t)(byte * pow3[n]) * 3 >> 8;
}

static void from_tq1_0(const void *in, float *out)
{
    struct blk_tq1_0 b;

    memcpy(&b, in, sizeof b);
    for (int i = 0; i < 160; i++)
        out[i] = from_level(trit(b.qs[i % 32], i / 32), b.d);
    for (int i = 0; i < 80; i++)
        out[160 + i] = from_level(trit(b.qs[32 + i % 16], i / 16), b.d);
    for (int i = 0; i < 16; i++)
        out[240 + i] = from_level(trit(b.qh[i % 4], i / 4), b.d);
}

static void (*const from_block[SL_TYPE_LIMIT])(const void *in, float *out) = {
    [SL_TYPE_Q4_0] = from_q4_0,     [SL_TYPE_Q4_1] = from_q4_1, [SL_TYPE_Q5_0] = from_q5_0,
    [SL_TYPE_Q5_1] = from_q5_1,     [SL_TYPE_Q8_0] = from_q8_0, [SL_TYPE_IQ4_NL] = from_iq4_nl,
    [SL_TYPE_IQ4_XS] = from_iq4_xs, [SL_TYPE_Q2_K] = from_q2_k, [SL_TYPE_Q3_K] = from_q3_k,
    [SL_TYPE_Q4_K] = from_q4_k,     [SL_TYPE_Q5_K] = from_q5_k, [SL_TYPE_Q6_K] = from_q6_k,
    [SL_TYPE_IQ1_S] = from_iq1_s,   [SL_TYPE_IQ1_M] = from_iq1_m, [SL_TYPE_IQ2_XXS] = from_iq2_xxs,
    [SL_TYPE_IQ2_XS] = from_iq2_xs, [SL_TYPE_IQ2_S] = from_iq2_s, [SL_TYPE_IQ3_XXS] = from_iq3_xxs,
    [SL_TYPE_IQ3_S] = from_iq3_s,   [SL_TYPE_MXFP4] = from_mxfp4, [SL_TYPE_NVFP4] = from_nvfp4,
    [SL_TYPE_Q1_0] = from_q1_0,     [SL_TYPE_Q2_0] = from_q2_0, [SL_TYPE_TQ1_0] = from_tq1_0,
    [SL_TYPE_TQ2_0] = from_tq2_0,
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
