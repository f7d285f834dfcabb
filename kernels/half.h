/* F16 and BF16 to F32 and back, in integer steps: round to nearest even,
 * subnormals kept; E8M0 to F32. One text for C and CUDA. */
#ifndef SLUICE_KERNELS_HALF_H
#define SLUICE_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SL_HALF_FN static inline __host__ __device__
#else
#define SL_HALF_FN static inline
#endif

SL_HALF_FN uint32_t sl_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, 4);
    return u;
}

SL_HALF_FN float sl_float(uint32_t u)
{
    float f;

    memcpy(&f, &u, 4);
    return f;
}

SL_HALF_FN uint16_t sl_f16_from_f32(float f)
{
    uint32_t sign = (sl_bits(f) >> 16) & 0x8000, a = sl_bits(f) & 0x7fffffff;

    if (a >= 0x47800000) /* 65536 and above, infinity, NaN */
        return (uint16_t)(sign | (a > 0x7f800000 ? 0x7e00 : 0x7c00));
    if (a < 0x38800000) /* subnormal: 0.5 has the same ulp, 2^-24 */
        return (uint16_t)(sign | (sl_bits(sl_float(a) + 0.5f) - 0x3f000000));
    a += 0xfff + ((a >> 13) & 1);
    return (uint16_t)(sign | ((a - 0x38000000) >> 13));
}

SL_HALF_FN float sl_f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, a = h & 0x7fff;

    if (a < 0x400)
        return sl_float(sign | sl_bits((float)a * 0x1p-24f));
    if (a >= 0x7c00)
        return sl_float(sign | 0x7f800000 | (a & 0x3ff) << 13);
    return sl_float(sign | ((a << 13) + 0x38000000));
}

SL_HALF_FN uint16_t sl_bf16_from_f32(float f)
{
    uint32_t u = sl_bits(f);

    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)((u >> 16) | 64); /* a NaN stays one */
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

SL_HALF_FN float sl_f32_from_bf16(uint16_t h)
{
    return sl_float((uint32_t)h << 16);
}

/* 2^(e - 127); 255 is a NaN. */
SL_HALF_FN float sl_f32_from_e8m0(uint8_t e)
{
    return sl_float(e == 255 ? 0x7fc00000 : e ? (uint32_t)e << 23 : 0x00400000);
}

#endif
