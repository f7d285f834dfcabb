/* The lane vocabulary with eight lanes, AVX2 and F16C, never FMA. Meaning of
 * each word: README.md. */
#ifndef SLUICE_KERNELS_LANES_AVX2_H
#define SLUICE_KERNELS_LANES_AVX2_H

#include "kernels/half.h"

#include <immintrin.h>
#include <stdbool.h>

#define LANES 8
#define CHAINS 4
#define LANE_NAME "avx2"
#define V_FN static inline __attribute__((always_inline, unused))

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm; /* all bits of a lane */

V_FN vf v_set(float a) { return _mm256_set1_ps(a); }
V_FN vi v_seti(int32_t a) { return _mm256_set1_epi32(a); }
V_FN vf v_load(const float *p) { return _mm256_loadu_ps(p); }
V_FN vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
V_FN vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
V_FN vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
V_FN vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
V_FN vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
V_FN vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a); }
V_FN vf v_neg(vf a) { return _mm256_xor_ps(_mm256_set1_ps(-0.f), a); }
V_FN vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
V_FN vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
V_FN vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
V_FN vm v_ne(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
V_FN vm v_and(vm a, vm b) { return _mm256_and_ps(a, b); }
V_FN vm v_or(vm a, vm b) { return _mm256_or_ps(a, b); }
V_FN vm v_not(vm a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
V_FN vm v_none(void) { return _mm256_setzero_ps(); }
V_FN bool v_any(vm a) { return _mm256_movemask_ps(a) != 0; }
V_FN uint32_t v_lanes(vm a) { return (uint32_t)_mm256_movemask_ps(a); }
V_FN vf v_sel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
V_FN vi v_seli(vm m, vi a, vi b)
{
    return _mm256_castps_si256(v_sel(m, _mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}

V_FN void v_storei(int32_t *p, vi a) { _mm256_storeu_si256((__m256i *)p, a); }
V_FN vi v_iadd(vi a, vi b) { return _mm256_add_epi32(a, b); }
V_FN vi v_isub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
V_FN vi v_iand(vi a, vi b) { return _mm256_and_si256(a, b); }
V_FN vi v_ior(vi a, vi b) { return _mm256_or_si256(a, b); }
V_FN vi v_imin(vi a, vi b) { return _mm256_min_epi32(a, b); }
V_FN vi v_imax(vi a, vi b) { return _mm256_max_epi32(a, b); }
V_FN vi v_shl(vi a, int n) { return _mm256_sll_epi32(a, _mm_cvtsi32_si128(n)); }
V_FN vi v_shr(vi a, int n) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(n)); }
V_FN vm v_ine(vi a, vi b) { return v_not(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b))); }
V_FN vi v_more_one(vm m, vi a) { return _mm256_sub_epi32(a, _mm256_castps_si256(m)); }
V_FN vi v_less_one(vm m, vi a) { return _mm256_add_epi32(a, _mm256_castps_si256(m)); }
V_FN vi v_bit(vi i) { return _mm256_sllv_epi32(v_seti(1), i); }
V_FN vf v_tofloat(vi a) { return _mm256_cvtepi32_ps(a); }
V_FN vi v_trunc(vf a) { return _mm256_cvttps_epi32(a); }
V_FN vf v_frombits(vi a) { return _mm256_castsi256_ps(a); }
V_FN vi v_bits(vf a) { return _mm256_castps_si256(a); }
V_FN vi v_magic(vf a)
{
    vi b = _mm256_castps_si256(_mm256_add_ps(a, _mm256_set1_ps(12582912.f)));

    return v_ior(v_iand(b, v_seti(0x7fffff)), v_seti(0x4b000000));
}

/* Scarcely a value is out of range, and to look for it once is cheaper than to put bits right. */
#define V_NEAR_FIRST

V_FN vi v_f16(vf a)
{
    return _mm256_cvtepu16_epi32(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V_FN vf v_f16val(vi a)
{
    __m128i lo = _mm256_castsi256_si128(a), hi = _mm256_extracti128_si256(a, 1);

    return _mm256_cvtph_ps(_mm_packus_epi32(lo, hi));
}
V_FN vf v_lookup16(const float *table, vi i)
{
    vf lo = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i);
    vf hi = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i);

    return _mm256_blendv_ps(lo, hi, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}

/* Of the result only the low byte is meant. */
typedef uint8_t v_entry;
V_FN vi v_lookup32(const v_entry *table, vi i)
{
    vi lo = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), i);
    vi hi = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table + 16))), i);

    return v_seli(_mm256_castsi256_ps(_mm256_slli_epi32(i, 27)), hi, lo);
}
/* A NaN becomes the high end. */
V_FN vf v_clamp(vf a, float low, float high) { return _mm256_max_ps(_mm256_min_ps(a, v_set(high)), v_set(low)); }
V_FN vi v_halves(vf a)
{
    return v_bits(v_add(_mm256_floor_ps(v_add(a, a)), v_set(12582912.f + 256.f)));
}

V_FN void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
V_FN void v_store_pairs(uint64_t *p, vf a, vf b)
{
    vf low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);

    _mm256_storeu_ps((float *)p, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps((float *)(p + 4), _mm256_permute2f128_ps(low, high, 0x31));
}
V_FN void v_load_pairs(const uint64_t *p, vf *a, vf *b)
{
    vf first = _mm256_loadu_ps((const float *)p), second = _mm256_loadu_ps((const float *)(p + 4));
    vf low = _mm256_permute2f128_ps(first, second, 0x20), high = _mm256_permute2f128_ps(first, second, 0x31);

    *a = _mm256_shuffle_ps(low, high, 0x88);
    *b = _mm256_shuffle_ps(low, high, 0xdd);
}
V_FN vi v_loadi(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
V_FN vi v_load_u16(const uint16_t *p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
V_FN void v_store_u16(uint16_t *p, vi a)
{
    __m128i lo = _mm256_castsi256_si128(a), hi = _mm256_extracti128_si256(a, 1);

    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(lo, hi));
}
V_FN vi v_index(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
V_FN vf v_spread(const float *p, int shift)
{
    return shift == 3 ? _mm256_broadcast_ss(p) : _mm256_set_m128(_mm_broadcast_ss(p + 1), _mm_broadcast_ss(p));
}
V_FN vf v_lookup4(const float *table, vi i)
{
    return _mm256_permutevar_ps(_mm256_broadcast_ps((const __m128 *)table), i);
}
V_FN vf v_lookup8(const float *table, vi i) { return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i); }
V_FN int v_first_least(vf a, vi place)
{
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128i p;

    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    m = _mm_min_ss(m, _mm_shuffle_ps(m, m, 1));
    place = v_seli(_mm256_cmp_ps(a, _mm256_broadcastss_ps(m), _CMP_EQ_OQ), place, v_seti(INT32_MAX));
    p = _mm_min_epi32(_mm256_castsi256_si128(place), _mm256_extracti128_si256(place, 1));
    p = _mm_min_epi32(p, _mm_shuffle_epi32(p, 0x4e));
    return _mm_cvtsi128_si32(_mm_min_epi32(p, _mm_shuffle_epi32(p, 0xb1)));
}

V_FN float v_hmax(vf a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}
V_FN void v_store_i8(int8_t *p, vi a)
{
    __m256i low = _mm256_shuffle_epi8(a, _mm256_set1_epi32(0x0c080400));

    low = _mm256_permutevar8x32_epi32(low, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
    _mm_storel_epi64((__m128i *)p, _mm256_castsi256_si128(low));
}

/* E4M3 codes as F16 bits: the same sign and mantissa, an exponent lower by 8. */
V_FN vf v_load_e4m3(const uint8_t *p)
{
    __m128i e = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);

    return _mm256_cvtph_ps(_mm_and_si128(e, _mm_set1_epi16((int16_t)0xbf80)));
}
#define V_LOAD_E4M3 v_load_e4m3

/* A byte's two codes to two words, whose higher bits no table looks at. */
V_FN vi v_codes4(const uint8_t *p)
{
    int32_t four;
    vi b;

    memcpy(&four, p, 4);
    b = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
    return _mm256_or_si256(b, _mm256_slli_epi64(b, 28));
}
#define V_CODES4 v_codes4

V_FN void transpose8(vf *r)
{
    vf t[8], u[8];

    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            u[i + 2 * k] = _mm256_shuffle_ps(t[i + k], t[i + k + 2], 0x44);
            u[i + 2 * k + 1] = _mm256_shuffle_ps(t[i + k], t[i + k + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

/* dst[i], lane k = src[k * stride + i]; lanes from `lanes` on repeat the last.
 * n is a multiple of 8. */
V_FN void v_gather(vf *dst, const float *src, size_t stride, int lanes, int n)
{
    for (int i = 0; i < n; i += 8) {
        vf r[8];

        for (int k = 0; k < 8; k++)
            r[k] = _mm256_loadu_ps(src + stride * (size_t)(k < lanes ? k : lanes - 1) + i);
        transpose8(r);
        for (int k = 0; k < 8; k++)
            dst[i + k] = r[k];
    }
}

#endif
