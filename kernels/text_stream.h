/* Where moving is most of the work: q8_0 in groups of LANES blocks, from F32 or
 * straight from stored elements, and E4M3 codes to values. The same bytes as
 * text_backend.h's plain forms, which do what is left over. */
#ifndef SLUICE_KERNELS_TEXT_STREAM_H
#define SLUICE_KERNELS_TEXT_STREAM_H

#include "kernels/blocks.h"

#include <math.h>

#define AHEAD 4096 /* bytes; measured: 1024 to 8192 are alike */

/* round_away for |a| < 2^22 or what is no number: less than a half is added, so that the largest
 * value below a half stays below 1; what was a half or more is carried over by rounding. */
V_FN vi round_away_small(vf a)
{
    vi sign = v_iand(v_bits(a), v_seti(INT32_MIN)), half = v_bits(v_set(0x1.fffffep-2f));

    return v_trunc(v_add(a, v_frombits(v_ior(sign, half))));
}

/* Blocks whose scales are made before their levels: more hide the scales' latency, fewer let reading
 * and writing memory overlap. Measured, as is how far ahead to fetch. */
#define BATCH 32
V_FN int batch_of(int dtype) { return dtype == SL_DTYPE_F32 ? 16 : BATCH; }
V_FN size_t ahead_of(int dtype) { return dtype == SL_DTYPE_F32 ? 6144 : AHEAD; }

/* A source element's magnitude as an integer that orders as the magnitudes do; `special`:
 * the least that is no number. E4M3 as V_LOAD_E4M3 gives it, F16 and BF16 as stored. */
V_FN vi magnitude(int dtype, const uint8_t *p)
{
    if (dtype == SL_DTYPE_F16 || dtype == SL_DTYPE_BF16)
        return v_iand(v_load_u16((const uint16_t *)(const void *)p), v_seti(0x7fff));
#ifdef V_LOAD_E4M3
    if (dtype == SL_DTYPE_F8_E4M3)
        return v_bits(v_abs(V_LOAD_E4M3(p)));
#endif
    return v_iand(v_loadi((const int32_t *)(const void *)p), v_seti(0x7fffffff));
}

V_FN int32_t special(int dtype)
{
    return dtype == SL_DTYPE_F16 ? 0x7c00 : dtype == SL_DTYPE_BF16 ? 0x7f80 : dtype == SL_DTYPE_F8_E4M3 ? 0x3ff00000 : 0x7f800000;
}

V_FN vf of_magnitude(int dtype, vi m)
{
    return dtype == SL_DTYPE_F16 ? v_f16val(m) : v_frombits(dtype == SL_DTYPE_BF16 ? v_shl(m, 16) : m);
}

V_FN vf stored(int dtype, const uint8_t *p)
{
    if (dtype == SL_DTYPE_F16)
        return v_f16val(v_load_u16((const uint16_t *)(const void *)p));
    if (dtype == SL_DTYPE_BF16)
        return v_frombits(v_shl(v_load_u16((const uint16_t *)(const void *)p), 16));
#ifdef V_LOAD_E4M3
    if (dtype == SL_DTYPE_F8_E4M3)
        return V_LOAD_E4M3(p);
#endif
    return v_load((const float *)(const void *)p);
}

/* The scales of LANES blocks, a block in a lane. scale: NULL, or each block's, by 256 for E4M3. */
V_FN void q8_0_scales(int dtype, const uint8_t *src, const float *scale, float *inv, int32_t *half, vi *largest, vi *largest_half)
{
    const size_t width = dtype == SL_DTYPE_F32 ? 4 : dtype == SL_DTYPE_F8_E4M3 ? 1 : 2;
    float t[LANES * LANES];
    vf r[LANES], d;
    vi top;

    for (int b = 0; b < LANES; b++) {
        const uint8_t *p = src + 32 * width * (size_t)b;
        vi m = magnitude(dtype, p);

        for (size_t i = 0; i < 32 * width; i += 64)
            __builtin_prefetch(p + ahead_of(dtype) + i); /* past the source's end is no harm */
        for (int i = LANES; i < 32; i += LANES)
            m = v_imax(m, magnitude(dtype, p + width * (size_t)i));
        v_store(t + b * LANES, v_frombits(m));
    }
    v_gather(r, t, LANES, LANES, LANES);
    for (int k = LANES / 2; k; k /= 2) /* a tree: a maximum has no order */
        for (int i = 0; i < k; i++)
            r[i] = v_frombits(v_imax(v_bits(r[i]), v_bits(r[i + k])));
    top = v_bits(r[0]);
    *largest = v_imax(*largest, top);
    d = of_magnitude(dtype, top);
    if (scale)
        d = v_abs(v_mul(d, v_load(scale)));
    d = v_div(d, v_set(127.f));
    top = v_f16(d);
    *largest_half = v_imax(*largest_half, top);
    v_storei(half, top);
    v_store(inv, v_sel(v_ne(d, v_set(0.f)), v_div(v_set(1.f), d), v_set(0.f)));
}

V_FN int32_t largest_lane(vi a)
{
    int32_t t[LANES], m = 0;

    v_storei(t, a);
    for (int i = 0; i < LANES; i++)
        m = t[i] > m ? t[i] : m;
    return m;
}

/* Writes whole groups of LANES blocks; returns how many blocks that were. *plain: whether every
 * element was a number and every d fits in F16. |x * inv| is at most 127 and its rounding, or not
 * finite (a subnormal scale). */
V_FN uint64_t q8_0_stream(int dtype, const uint8_t *src, const float *scale, uint64_t blocks, bool *plain, uint8_t *out)
{
    const size_t width = dtype == SL_DTYPE_F32 ? 4 : dtype == SL_DTYPE_F8_E4M3 ? 1 : 2, bytes = sizeof(struct blk_q8_0);
    vi largest = v_seti(0), largest_half = v_seti(0);
    uint64_t done = 0;

    if (LANES == 1)
        return 0;
    while (blocks - done >= LANES) {
        int n = blocks - done < (uint64_t)batch_of(dtype) ? (int)(blocks - done) / LANES * LANES : batch_of(dtype);
        float inv[BATCH];
        int32_t half[BATCH];

        for (int b = 0; b < n; b += LANES)
            q8_0_scales(dtype, src + 32 * width * (size_t)b, scale ? scale + b : NULL, inv + b, half + b, &largest, &largest_half);
        for (int b = 0; b < n; b++, src += 32 * width, out += bytes) {
            vf by = v_set(inv[b]), s = v_set(scale ? scale[b] : 1.f);

            memcpy(out, &half[b], 2); /* little-endian, as every machine that this is built for */
            for (int i = 0; i < 32; i += LANES) {
                vf x = stored(dtype, src + width * (size_t)i);

                if (scale)
                    x = v_mul(x, s);
                v_store_i8((int8_t *)out + 2 + i, round_away_small(v_mul(x, by)));
            }
        }
        scale = scale ? scale + n : NULL;
        done += (uint64_t)n;
    }
    *plain = largest_lane(largest) < special(dtype) && largest_lane(largest_half) < 0x7c00;
    return done;
}

#ifdef V_LOAD_E4M3
static uint64_t q8_0_of_e4m3(const uint8_t *src, const float *scale, uint64_t blocks, bool *plain, uint8_t *out)
{
    enum { PART = 256 };
    float by_256[PART];
    uint64_t done = 0;

    while (blocks - done >= LANES) {
        uint64_t n = blocks - done < PART ? (blocks - done) / LANES * LANES : PART;
        float most = 0;

        for (uint64_t i = 0; i < n; i++) {
            by_256[i] = scale[done + i] * 256;
            most += scale[done + i] * 448 - scale[done + i] * 448; /* 0, or a NaN */
        }
        *plain = most == 0;
        if (*plain)
            q8_0_stream(SL_DTYPE_F8_E4M3, src + 32 * done, by_256, n, plain, out + sizeof(struct blk_q8_0) * done);
        if (!*plain)
            return 0;
        done += n;
    }
    return done;
}
#endif

/* Straight from stored elements; backend.h. */
static uint64_t backend_q8_0(int dtype, const void *src, const float *scale, uint64_t blocks, void *out)
{
    uint64_t done = 0;
    bool plain = false;

    if (scale && dtype != SL_DTYPE_F8_E4M3)
        return 0;
    switch (dtype) {
#ifdef V_LOAD_E4M3
    case SL_DTYPE_F8_E4M3:
        done = scale ? q8_0_of_e4m3(src, scale, blocks, &plain, out) : 0;
        break;
#endif
    case SL_DTYPE_F16:
        done = q8_0_stream(SL_DTYPE_F16, src, NULL, blocks, &plain, out);
        break;
    case SL_DTYPE_BF16:
        done = q8_0_stream(SL_DTYPE_BF16, src, NULL, blocks, &plain, out);
        break;
    case SL_DTYPE_F32:
        done = q8_0_stream(SL_DTYPE_F32, src, NULL, blocks, &plain, out);
        break;
    default:
        break;
    }
    return plain ? done : 0;
}

/* Whole groups of LANES; returns how many weights were written, or 0 when one is beyond the
 * type's range or no number. */
V_FN uint64_t halves_stream(bool bf16, const float *x, uint64_t n, uint16_t *out)
{
    vi largest = v_seti(0);
    uint64_t i;

    for (i = 0; i + LANES <= n; i += LANES) {
        vf a = v_load(x + i);
        vi b = v_bits(a);

        largest = v_imax(largest, v_bits(v_abs(a)));
        if (bf16)
            b = v_shr(v_iadd(v_iadd(b, v_seti(0x7fff)), v_iand(v_shr(b, 16), v_seti(1))), 16);
        else
            b = v_f16(a);
        v_store_u16(out + i, b);
    }
    /* The least magnitudes that round to infinity. */
    return largest_lane(largest) < (bf16 ? 0x7f7f8000 : 0x477ff000) ? i : 0;
}

/* F16 and BF16; returns whether every weight is in the type's range. */
static bool quantize_halves(bool bf16, const float *x, uint64_t n, uint16_t *out)
{
    uint64_t i = bf16 ? halves_stream(true, x, n, out) : halves_stream(false, x, n, out);
    bool fine = i > 0;

    for (; i < n; i++) {
        out[i] = bf16 ? sl_bf16_from_f32(x[i]) : sl_f16_from_f32(x[i]);
        fine &= (out[i] & (bf16 ? 0x7f80 : 0x7c00)) != (bf16 ? 0x7f80 : 0x7c00);
    }
    return fine;
}

/* F16 elements times scale, in whole groups of LANES; returns how many, or 0 when one is not finite. */
static uint64_t load_f16(const uint8_t *b, uint64_t n, float scale, float *out)
{
    vi largest = v_seti(0);
    vf s = v_set(scale);
    uint64_t i;

    for (i = 0; LANES > 1 && i + LANES <= n; i += LANES) {
        vf a = v_mul(v_f16val(v_load_u16((const uint16_t *)(const void *)(b + 2 * i))), s);

        largest = v_imax(largest, v_bits(v_abs(a)));
        v_store(out + i, a);
    }
    return largest_lane(largest) < 0x7f800000 ? i : 0;
}

#ifdef V_LOAD_E4M3
/* Effect: out[i] = element i times scale[i / run], where every code is a number and no product can
 * leave F32's range; returns how many elements that were. The vocabulary gives a code's value / 256,
 * which F16 holds; 256 * scale is exact, so the one rounding is the same. */
static uint64_t load_e4m3(const uint8_t *b, uint64_t n, const float *scale, uint64_t run, float *out)
{
    uint8_t none = 0;
    uint64_t i = 0;

    for (uint64_t k = 0; k * run < n; k++)
        if (!isfinite(scale[k] * 448))
            return 0;
    for (uint64_t k = 0; k < n; k += 64)
        __builtin_prefetch(b + k + AHEAD);
    for (uint64_t k = 0; k < n; k++)
        none |= (uint8_t)((b[k] & 0x7f) + 1);
    if (none & 0x80)
        return 0;
    for (uint64_t k = 0; i < n; k++) {
        uint64_t end = i + run < n ? i + run : n;
        float by = scale[k] * 256;
        vf s = v_set(by);

        for (; i + 4 * LANES <= end; i += 4 * LANES)
            for (int j = 0; j < 4 * LANES; j += LANES)
                v_store(out + i + j, v_mul(V_LOAD_E4M3(b + i + j), s));
        for (; i < end; i++)
            out[i] = from_e4m3(b[i]) * scale[k];
    }
    return i;
}
#endif

#ifdef V_CODES4
/* backend.h */
static uint64_t load_f4(const uint8_t *b, uint64_t n, const float *scale, float *out)
{
    static const float values[16] = {SL_E2M1_VALUES};
    uint32_t large = 0;

    for (uint64_t k = 0; k < n; k += 32, b += 16) {
        vf s = v_set(scale[k / 32]);

        large |= -(uint32_t)!(fabsf(scale[k / 32]) < SL_E2M1_SAFE);
        for (int i = 0; i < 32; i += LANES)
            v_store(out + k + i, v_mul(v_lookup16(values, V_CODES4(b + i / 2)), s));
    }
    return large ? 0 : n;
}
#endif

#endif
