/* q8_0 straight from E4M3 codes, by table. Under one scale the levels of a block
 * follow from its codes alone: x = v * s, d = |x|max / 127, level = x * (1 / d) rounded
 * half away from zero, so the exact level is 127 v / vmax, and the four roundings move
 * it by less than 2^-21 of itself. An exact half is only v = vmax / 2 (63.5), because 127
 * is a prime; every other quotient of two E4M3 values is further from a half than 2^-12 of
 * it (kernels_load_test tries them all). At 63.5 halving is exact, so it is 64
 * where |x|max * (1 / d) is rounded to 127 or more, and 63 otherwise. Hence 128 levels for
 * each largest code and each outcome (sl_e4m3_levels), looked up by one permutation of bytes (VBMI). */
#if defined(__x86_64__)
#include "kernels/backend.h"
#include "kernels/grids.h"

#include <immintrin.h>
#include <string.h>

#define GROUP 16 /* blocks whose scales are made together */
#define BATCH 64 /* blocks: the scales' latency hides behind each other's */
#define AHEAD 2048
#define VBMI __attribute__((target("avx512vbmi")))

/* The largest code without its sign in each of GROUP blocks. */
static inline VBMI __m512i largest_codes(const uint8_t *p)
{
    const __m512i place = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    __m512i c[8], half[4], quarter[2], m;

    for (int i = 0; i < 8; i++)
        c[i] = _mm512_and_si512(_mm512_loadu_si512(p + 64 * i), _mm512_set1_epi8(0x7f));
    for (int i = 0; i < 4; i++)
        half[i] = _mm512_max_epu8(_mm512_unpacklo_epi64(c[2 * i], c[2 * i + 1]),
                                  _mm512_unpackhi_epi64(c[2 * i], c[2 * i + 1]));
    for (int i = 0; i < 2; i++) {
        __m512 a = _mm512_castsi512_ps(half[2 * i]), b = _mm512_castsi512_ps(half[2 * i + 1]);

        quarter[i] = _mm512_max_epu8(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                                     _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
    }
    m = _mm512_max_epu8(_mm512_shuffle_i32x4(quarter[0], quarter[1], 0x88),
                        _mm512_shuffle_i32x4(quarter[0], quarter[1], 0xdd));
    m = _mm512_max_epu8(m, _mm512_srli_epi32(m, 16));
    m = _mm512_max_epu8(m, _mm512_srli_epi32(m, 8));
    return _mm512_permutexvar_epi32(place, _mm512_and_si512(m, _mm512_set1_epi32(0xff)));
}

/* d in F16 and the place of the table's row, for GROUP blocks. Returns a bit for each block that
 * the table does not hold for: a code that is no number, a scale near the ends of F32's range, a d
 * beyond F16's. */
static inline VBMI unsigned rows(const uint8_t *src, const float *scale, uint16_t *d16, uint32_t *row)
{
    __m512i max = largest_codes(src);
    __m512 s = _mm512_loadu_ps(scale), value, x, d, inv;
    __m256i half;
    __mmask16 up, odd;

    value = _mm512_cvtph_ps(_mm256_slli_epi16(_mm512_cvtepi32_epi16(max), 7)); /* / 256, as lanes_avx512.h has it */
    x = _mm512_mul_ps(value, _mm512_mul_ps(s, _mm512_set1_ps(256)));
    d = _mm512_div_ps(x, _mm512_set1_ps(127));
    inv = _mm512_div_ps(_mm512_set1_ps(1), d);
    up = _mm512_cmp_ps_mask(_mm512_mul_ps(x, inv), _mm512_set1_ps(127), _CMP_GE_OQ);
    half = _mm512_cvtps_ph(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    odd = (__mmask16)(_mm512_cmp_ps_mask(s, _mm512_set1_ps(0x1p-90f), _CMP_NGE_UQ) |
                      _mm512_cmp_ps_mask(s, _mm512_set1_ps(0x1p90f), _CMP_NLE_UQ) |
                      _mm512_cmpeq_epi32_mask(max, _mm512_set1_epi32(0x7f)) |
                      _mm256_cmpge_epu16_mask(half, _mm256_set1_epi16(0x7c00)));
    _mm256_storeu_si256((__m256i *)(void *)d16, half);
    _mm512_storeu_si512(row, _mm512_slli_epi32(_mm512_mask_add_epi32(max, up, max, _mm512_set1_epi32(128)), 7));
    return odd;
}

static inline VBMI void block(const uint8_t *src, uint16_t d16, const uint8_t *row, uint8_t *out)
{
    __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)src);
    __m512i q = _mm512_permutex2var_epi8(_mm512_load_si512(row), _mm512_castsi256_si512(c), _mm512_load_si512(row + 64));

    memcpy(out, &d16, 2);
    _mm256_storeu_si256((__m256i *)(void *)(out + 2), _mm256_sign_epi8(_mm512_castsi512_si256(q), c));
}

bool sl_e4m3_by_table(void) { return __builtin_cpu_supports("avx512vbmi"); }

VBMI uint64_t sl_q8_0_of_e4m3(const uint8_t *src, const float *scale, uint64_t blocks, uint8_t *out)
{
    const uint8_t *table = sl_e4m3_levels();
    uint64_t done = 0;

    while (blocks - done >= GROUP) {
        uint64_t n = blocks - done < BATCH ? (blocks - done) / GROUP * GROUP : BATCH;
        uint16_t d16[BATCH];
        uint32_t row[BATCH];
        unsigned odd = 0;

        for (uint64_t b = 0; b < n; b += GROUP) {
            for (int i = 0; i < GROUP * 32; i += 64)
                __builtin_prefetch(src + 32 * b + AHEAD + i);
            odd |= rows(src + 32 * b, scale + done + b, d16 + b, row + b);
        }
        if (odd)
            return 0;
        for (uint64_t b = 0; b < n; b++)
            block(src + 32 * b, d16[b], table + row[b], out + 34 * b);
        src += 32 * n;
        out += 34 * n;
        done += n;
    }
    return done;
}
#else
typedef int sl_no_e4m3_table; /* an empty unit is not C11 */
#endif
