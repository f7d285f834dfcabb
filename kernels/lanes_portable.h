/* The lane vocabulary on GCC's and clang's vector types: four lanes, which is
 * the width that every 64-bit CPU has. Meaning of each word: README.md. */
#ifndef SLUICE_KERNELS_LANES_PORTABLE_H
#define SLUICE_KERNELS_LANES_PORTABLE_H

#include "kernels/half.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>

#define LANES 4
#define CHAINS 4
#define LANE_NAME "portable"
#define V_FN static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef vi vm; /* 0 or -1 in each lane */

V_FN vf v_set(float a) { return (vf){a, a, a, a}; }
V_FN vi v_seti(int32_t a) { return (vi){a, a, a, a}; }
V_FN vf v_load(const float *p)
{
    vf a;

    memcpy(&a, p, sizeof a);
    return a;
}
V_FN vf v_add(vf a, vf b) { return a + b; }
V_FN vf v_sub(vf a, vf b) { return a - b; }
V_FN vf v_mul(vf a, vf b) { return a * b; }
V_FN vf v_div(vf a, vf b) { return a / b; }
V_FN vf v_sqrt(vf a)
{
    for (int i = 0; i < LANES; i++)
        a[i] = sqrtf(a[i]);
    return a;
}
V_FN vf v_abs(vf a) { return (vf)((vi)a & v_seti(0x7fffffff)); }
V_FN vf v_neg(vf a) { return (vf)((vi)a ^ v_seti(INT_MIN)); }
V_FN vf v_min(vf a, vf b) { return (vf)(((vi)a & (a < b)) | ((vi)b & ~(a < b))); }
V_FN vf v_max(vf a, vf b) { return (vf)(((vi)a & (a > b)) | ((vi)b & ~(a > b))); }
V_FN vm v_lt(vf a, vf b) { return (vm)(a < b); }
V_FN vm v_ne(vf a, vf b) { return (vm)(a != b); }
V_FN vm v_and(vm a, vm b) { return a & b; }
V_FN vm v_or(vm a, vm b) { return a | b; }
V_FN vm v_not(vm a) { return ~a; }
V_FN vm v_none(void) { return v_seti(0); }
V_FN bool v_any(vm a) { return (a[0] | a[1] | a[2] | a[3]) != 0; }
V_FN uint32_t v_lanes(vm a) { return (uint32_t)((a[0] & 1) | (a[1] & 2) | (a[2] & 4) | (a[3] & 8)); }
V_FN vi v_seli(vm m, vi a, vi b) { return (m & a) | (~m & b); }
V_FN vf v_sel(vm m, vf a, vf b) { return (vf)v_seli(m, (vi)a, (vi)b); }

V_FN void v_storei(int32_t *p, vi a) { memcpy(p, &a, sizeof a); }
V_FN vi v_iadd(vi a, vi b) { return (vi)((vu)a + (vu)b); }
V_FN vi v_isub(vi a, vi b) { return (vi)((vu)a - (vu)b); }
V_FN vi v_iand(vi a, vi b) { return a & b; }
V_FN vi v_ior(vi a, vi b) { return a | b; }
V_FN vi v_imin(vi a, vi b) { return v_seli((vm)(a < b), a, b); }
V_FN vi v_imax(vi a, vi b) { return v_seli((vm)(a > b), a, b); }
V_FN vi v_shl(vi a, int n) { return (vi)((vu)a << (uint32_t)n); }
V_FN vi v_shr(vi a, int n) { return (vi)((vu)a >> (uint32_t)n); }
V_FN vm v_ine(vi a, vi b) { return (vm)(a != b); }
V_FN vi v_more_one(vm m, vi a) { return v_isub(a, m); }
V_FN vi v_less_one(vm m, vi a) { return v_iadd(a, m); }
V_FN vi v_bit(vi i) { return (vi){1 << i[0], 1 << i[1], 1 << i[2], 1 << i[3]}; }
V_FN vf v_tofloat(vi a) { return __builtin_convertvector(a, vf); }
V_FN vi v_trunc(vf a)
{
    vi r;

    for (int i = 0; i < LANES; i++)
        r[i] = a[i] > -2147483648.f && a[i] < 2147483648.f ? (int32_t)a[i] : INT_MIN;
    return r;
}
V_FN vf v_frombits(vi a) { return (vf)a; }
V_FN vi v_bits(vf a) { return (vi)a; }
V_FN vi v_magic(vf a)
{
    return ((vi)(a + v_set(12582912.f)) & v_seti(0x7fffff)) | v_seti(0x4b000000);
}

/* Scarcely a value is out of range, and to look for it once is cheaper than to put bits right. */
#define V_NEAR_FIRST

V_FN vi v_f16(vf a)
{
    vi r;

    for (int i = 0; i < LANES; i++)
        r[i] = sl_f16_from_f32(a[i]);
    return r;
}
V_FN vf v_f16val(vi a)
{
    vf r;

    for (int i = 0; i < LANES; i++)
        r[i] = sl_f32_from_f16((uint16_t)a[i]);
    return r;
}
V_FN vf v_lookup16(const float *table, vi i)
{
    i &= v_seti(15);
    return (vf){table[i[0]], table[i[1]], table[i[2]], table[i[3]]};
}
typedef uint8_t v_entry;
V_FN vi v_lookup32(const v_entry *table, vi i)
{
    i &= v_seti(31);
    return (vi){table[i[0]], table[i[1]], table[i[2]], table[i[3]]};
}
/* A NaN becomes the high end. */
V_FN vf v_clamp(vf a, float low, float high)
{
    vf b = v_sel((vm)(a < v_set(high)), a, v_set(high));

    return v_sel((vm)(b > v_set(low)), b, v_set(low));
}
V_FN vi v_halves(vf a)
{
    vf near = a + v_set(6291584.f); /* 1.5 * 2^22 + 128: an ulp is 1/2 */

    return (vi)near + (vi)(a < near - v_set(6291584.f));
}

V_FN void v_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
V_FN void v_store_pairs(uint64_t *p, vf a, vf b)
{
    vf low = {a[0], b[0], a[1], b[1]}, high = {a[2], b[2], a[3], b[3]};

    memcpy(p, &low, sizeof low);
    memcpy(p + 2, &high, sizeof high);
}
V_FN void v_load_pairs(const uint64_t *p, vf *a, vf *b)
{
    vf low, high;

    memcpy(&low, p, sizeof low);
    memcpy(&high, p + 2, sizeof high);
    *a = (vf){low[0], low[2], high[0], high[2]};
    *b = (vf){low[1], low[3], high[1], high[3]};
}
V_FN vi v_loadi(const int32_t *p)
{
    vi a;

    memcpy(&a, p, sizeof a);
    return a;
}
V_FN vi v_load_u16(const uint16_t *p)
{
    uint16_t h[LANES];

    memcpy(h, p, sizeof h); /* of any alignment */
    return (vi){h[0], h[1], h[2], h[3]};
}
V_FN void v_store_u16(uint16_t *p, vi a)
{
    for (int i = 0; i < LANES; i++)
        p[i] = (uint16_t)a[i];
}
V_FN vi v_index(void) { return (vi){0, 1, 2, 3}; }
V_FN vf v_spread(const float *p, int shift) { (void)shift; return v_set(p[0]); }
V_FN vf v_lookup4(const float *table, vi i)
{
    return (vf){table[i[0] & 3], table[i[1] & 3], table[i[2] & 3], table[i[3] & 3]};
}
V_FN vf v_lookup8(const float *table, vi i)
{
    return (vf){table[i[0] & 7], table[i[1] & 7], table[i[2] & 7], table[i[3] & 7]};
}
V_FN int v_first_least(vf a, vi place)
{
    int at = 0;

    for (int i = 1; i < LANES; i++)
        if (a[i] < a[at] || (!(a[at] < a[i]) && place[i] < place[at]))
            at = i;
    return place[at];
}

V_FN float v_hmax(vf a)
{
    float m = a[0];

    for (int i = 1; i < LANES; i++)
        m = m > a[i] ? m : a[i];
    return m;
}
V_FN void v_store_i8(int8_t *p, vi a)
{
    for (int i = 0; i < LANES; i++)
        p[i] = (int8_t)a[i];
}

/* dst[i], lane k = src[k * stride + i]; lanes from `lanes` on repeat the last. */
V_FN void v_gather(vf *dst, const float *src, size_t stride, int lanes, int n)
{
    const float *p[LANES];

    for (int k = 0; k < LANES; k++)
        p[k] = src + stride * (size_t)(k < lanes ? k : lanes - 1);
    for (int i = 0; i < n; i++)
        dst[i] = (vf){p[0][i], p[1][i], p[2][i], p[3][i]};
}

#endif
