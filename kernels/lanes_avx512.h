/* The lane vocabulary with sixteen lanes, AVX-512 (F, BW, VL, DQ), never FMA.
 * Meaning of each word: README.md. */
#ifndef SLUICE_KERNELS_LANES_AVX512_H
#define SLUICE_KERNELS_LANES_AVX512_H

#include "kernels/half.h"

#include <immintrin.h>
#include <stdbool.h>

#define LANES 16
#define CHAINS 4
#define LANE_NAME "avx512"
#define V_FN static inline __attribute__((always_inline, unused))

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

V_FN vf v_set(float a) { return _mm512_set1_ps(a); }
V_FN vi v_seti(int32_t a) { return _mm512_set1_epi32(a); }
V_FN vf v_load(const float *p) { return _mm512_loadu_ps(p); }
V_FN vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
V_FN vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
V_FN vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
V_FN vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
V_FN vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
V_FN vf v_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.f), a); }
V_FN vf v_neg(vf a) { return _mm512_xor_ps(_mm512_set1_ps(-0.f), a); }
V_FN vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
V_FN vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
V_FN vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V_FN vm v_ne(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
V_FN vm v_and(vm a, vm b) { return (vm)(a & b); }
V_FN vm v_or(vm a, vm b) { return (vm)(a | b); }
V_FN vm v_not(vm a) { return (vm)~a; }
V_FN vm v_none(void) { return 0; }
V_FN bool v_any(vm a) { return a != 0; }
V_FN uint32_t v_lanes(vm a) { return a; }
V_FN vf v_sel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
V_FN vi v_seli(vm m, vi a, vi b) { return _mm512_mask_blend_epi32(m, b, a); }

V_FN void v_storei(int32_t *p, vi a) { _mm512_storeu_si512(p, a); }
V_FN vi v_iadd(vi a, vi b) { return _mm512_add_epi32(a, b); }
V_FN vi v_isub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
V_FN vi v_iand(vi a, vi b) { return _mm512_and_si512(a, b); }
V_FN vi v_ior(vi a, vi b) { return _mm512_or_si512(a, b); }
V_FN vi v_imin(vi a, vi b) { return _mm512_min_epi32(a, b); }
V_FN vi v_imax(vi a, vi b) { return _mm512_max_epi32(a, b); }
V_FN vi v_shl(vi a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }
V_FN vi v_shr(vi a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
V_FN vm v_ine(vi a, vi b) { return _mm512_cmpneq_epi32_mask(a, b); }
V_FN vi v_more_one(vm m, vi a) { return _mm512_mask_add_epi32(a, m, a, v_seti(1)); }
V_FN vi v_less_one(vm m, vi a) { return _mm512_mask_sub_epi32(a, m, a, v_seti(1)); }
V_FN vi v_bit(vi i) { return _mm512_sllv_epi32(v_seti(1), i); }
V_FN vf v_tofloat(vi a) { return _mm512_cvtepi32_ps(a); }
V_FN vi v_trunc(vf a) { return _mm512_cvttps_epi32(a); }
V_FN vf v_frombits(vi a) { return _mm512_castsi512_ps(a); }
V_FN vi v_bits(vf a) { return _mm512_castps_si512(a); }
V_FN vi v_magic(vf a)
{
    vi b = _mm512_castps_si512(_mm512_add_ps(a, _mm512_set1_ps(12582912.f)));

    return _mm512_ternarylogic_epi32(b, v_seti(0x7fffff), v_seti(0x4b000000), 0xea);
}

/* Scarcely a value is out of range, and to look for it once is cheaper than to put bits right. */
#define V_NEAR_FIRST

V_FN vi v_f16(vf a)
{
    return _mm512_cvtepu16_epi32(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V_FN vf v_f16val(vi a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }
V_FN vf v_lookup16(const float *table, vi i)
{
    return _mm512_permutexvar_ps(i, _mm512_loadu_ps(table));
}

typedef int32_t v_entry;
V_FN vi v_lookup32(const v_entry *table, vi i)
{
    return _mm512_permutex2var_epi32(_mm512_loadu_si512(table), i, _mm512_loadu_si512(table + 16));
}
/* A NaN becomes the high end. */
V_FN vf v_clamp(vf a, float low, float high) { return _mm512_max_ps(_mm512_min_ps(a, v_set(high)), v_set(low)); }
V_FN vi v_halves(vf a) /* 1.5 * 2^22 + 128: an ulp is 1/2 */
{
    return v_bits(_mm512_add_round_ps(a, v_set(6291584.f), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}

V_FN void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
V_FN void v_store_pairs(uint64_t *p, vf a, vf b)
{
    vi low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);

    _mm512_storeu_ps(p, _mm512_permutex2var_ps(a, low, b));
    _mm512_storeu_ps(p + 8, _mm512_permutex2var_ps(a, _mm512_add_epi32(low, v_seti(8)), b));
}
V_FN void v_load_pairs(const uint64_t *p, vf *a, vf *b)
{
    vf low = _mm512_loadu_ps(p), high = _mm512_loadu_ps(p + 8);
    vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);

    *a = _mm512_permutex2var_ps(low, even, high);
    *b = _mm512_permutex2var_ps(low, _mm512_add_epi32(even, v_seti(1)), high);
}
V_FN vi v_loadi(const int32_t *p) { return _mm512_loadu_si512(p); }
V_FN vi v_load_u16(const uint16_t *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
}
V_FN void v_store_u16(uint16_t *p, vi a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(a)); }
V_FN vi v_index(void) { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
V_FN vf v_spread(const float *p, int shift)
{
    __m256 few = shift == 3 ? _mm256_castps128_ps256(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)p)))
                            : _mm256_castps128_ps256(_mm_loadu_ps(p));

    return _mm512_permutexvar_ps(_mm512_srli_epi32(v_index(), shift == 3 ? 3 : 2), _mm512_castps256_ps512(few));
}
V_FN vf v_lookup4(const float *table, vi i)
{
    return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(table)), i);
}
V_FN vf v_lookup8(const float *table, vi i)
{
    return _mm512_permutexvar_ps(i, _mm512_broadcast_f32x8(_mm256_loadu_ps(table)));
}
V_FN int v_first_least(vf a, vi place)
{
    __mmask16 least = _mm512_cmp_ps_mask(a, v_set(_mm512_reduce_min_ps(a)), _CMP_EQ_OQ);

    return _mm512_mask_reduce_min_epi32(least, place);
}

/* The first lane that holds the least. */
V_FN int v_least_lane(vf a)
{
    return __builtin_ctz(_mm512_cmp_ps_mask(a, v_set(_mm512_reduce_min_ps(a)), _CMP_EQ_OQ));
}
#define V_LEAST_LANE v_least_lane

V_FN float v_hmax(vf a) { return _mm512_reduce_max_ps(a); }
V_FN void v_store_i8(int8_t *p, vi a)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}

/* E4M3 codes as F16 bits: the same sign and mantissa, an exponent lower by 8. */
V_FN vf v_load_e4m3(const uint8_t *p)
{
    __m256i e = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 7);

    return _mm512_cvtph_ps(_mm256_and_si256(e, _mm256_set1_epi16((int16_t)0xbf80)));
}
#define V_LOAD_E4M3 v_load_e4m3

/* A byte's two codes to two words, whose higher bits no table looks at. */
V_FN vi v_codes4(const uint8_t *p)
{
    vi b = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)p));

    return _mm512_or_si512(b, _mm512_slli_epi64(b, 28));
}
#define V_CODES4 v_codes4

V_FN void transpose16(vf *r)
{
    vf t[16], u[16];

    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; k++) {
            u[i + 2 * k] = _mm512_shuffle_ps(t[i + k], t[i + k + 2], 0x44);
            u[i + 2 * k + 1] = _mm512_shuffle_ps(t[i + k], t[i + k + 2], 0xee);
        }
    for (int k = 0; k < 4; k++) {
        t[k] = _mm512_shuffle_f32x4(u[k], u[4 + k], 0x88);
        t[4 + k] = _mm512_shuffle_f32x4(u[k], u[4 + k], 0xdd);
        t[8 + k] = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0x88);
        t[12 + k] = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0xdd);
    }
    for (int k = 0; k < 8; k++) {
        r[k] = _mm512_shuffle_f32x4(t[k], t[8 + k], 0x88);
        r[8 + k] = _mm512_shuffle_f32x4(t[k], t[8 + k], 0xdd);
    }
}

/* dst[i], lane k = src[k * stride + i]; lanes from `lanes` on repeat the last.
 * n is a multiple of 16. */
V_FN void v_gather(vf *dst, const float *src, size_t stride, int lanes, int n)
{
    for (int i = 0; i < n; i += 16) {
        vf r[16];

        for (int k = 0; k < 16; k++)
            r[k] = _mm512_loadu_ps(src + stride * (size_t)(k < lanes ? k : lanes - 1) + i);
        transpose16(r);
        for (int k = 0; k < 16; k++)
            dst[i + k] = r[k];
    }
}

#endif
