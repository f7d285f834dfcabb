/* The words of the lane vocabulary that are the same for every single lane, plain C or a CUDA
 * thread: what rounds is its own. Included by those two, behind their V_FN. Meaning of each
 * word: README.md. */
#ifndef SLUICE_KERNELS_LANES_ONE_H
#define SLUICE_KERNELS_LANES_ONE_H

#include "kernels/half.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

typedef float vf;
typedef int32_t vi;
typedef bool vm;
typedef uint8_t v_entry;

V_FN vf v_set(float a) { return a; }
V_FN vf v_load(const float *p) { return *p; }
V_FN vf v_abs(vf a) { return sl_float(sl_bits(a) & 0x7fffffff); }
V_FN vf v_neg(vf a) { return sl_float(sl_bits(a) ^ 0x80000000); }
V_FN vm v_lt(vf a, vf b) { return a < b; }
V_FN vm v_ne(vf a, vf b) { return a != b; }
V_FN vm v_and(vm a, vm b) { return a && b; }
V_FN vm v_or(vm a, vm b) { return a || b; }
V_FN vm v_not(vm a) { return !a; }
V_FN vm v_none(void) { return false; }
V_FN bool v_any(vm a) { return a; }
V_FN vf v_sel(vm m, vf a, vf b) { return m ? a : b; }
V_FN vi v_seli(vm m, vi a, vi b) { return m ? a : b; }

V_FN vi v_seti(int32_t a) { return a; }
V_FN void v_storei(int32_t *p, vi a) { *p = a; }
V_FN vi v_iadd(vi a, vi b) { return (vi)((uint32_t)a + (uint32_t)b); }
V_FN vi v_isub(vi a, vi b) { return (vi)((uint32_t)a - (uint32_t)b); }
V_FN vi v_iand(vi a, vi b) { return a & b; }
V_FN vi v_ior(vi a, vi b) { return a | b; }
V_FN vi v_imin(vi a, vi b) { return a < b ? a : b; }
V_FN vi v_imax(vi a, vi b) { return a > b ? a : b; }
V_FN vi v_shl(vi a, int n) { return (vi)((uint32_t)a << n); }
V_FN vi v_shr(vi a, int n) { return (vi)((uint32_t)a >> n); }
V_FN vm v_ine(vi a, vi b) { return a != b; }
V_FN vi v_more_one(vm m, vi a) { return v_iadd(a, m); }
V_FN vi v_less_one(vm m, vi a) { return v_isub(a, m); }
V_FN vi v_bit(vi i) { return (vi)(1u << i); }
V_FN vi v_trunc(vf a) { return a > -2147483648.f && a < 2147483648.f ? (vi)a : INT_MIN; }
V_FN vf v_frombits(vi a) { return sl_float((uint32_t)a); }
V_FN vi v_bits(vf a) { return (vi)sl_bits(a); }
V_FN vi v_f16(vf a) { return sl_f16_from_f32(a); }
V_FN vf v_f16val(vi a) { return sl_f32_from_f16((uint16_t)a); }

V_FN vf v_lookup16(const float *table, vi i) { return table[i & 15]; }
V_FN vi v_lookup32(const v_entry *table, vi i) { return table[i & 31]; }
V_FN void v_store(float *p, vf a) { *p = a; }
V_FN void v_store_pairs(uint64_t *p, vf a, vf b) { *p = sl_bits(a) | (uint64_t)sl_bits(b) << 32; }
V_FN void v_load_pairs(const uint64_t *p, vf *a, vf *b) { *a = sl_float((uint32_t)*p), *b = sl_float((uint32_t)(*p >> 32)); }
V_FN vi v_loadi(const int32_t *p) { return *p; }
V_FN vi v_load_u16(const uint16_t *p) { return *p; }
V_FN vi v_index(void) { return 0; }
V_FN vf v_spread(const float *p, int shift) { (void)shift; return p[0]; }
V_FN vf v_lookup4(const float *table, vi i) { return table[i & 3]; }
V_FN vf v_lookup8(const float *table, vi i) { return table[i & 7]; }
V_FN int v_first_least(vf a, vi place) { (void)a; return place; }
V_FN float v_hmax(vf a) { return a; }
V_FN void v_store_i8(int8_t *p, vi a) { *p = (int8_t)a; }

/* dst[i], lane k = src[k * stride + i]; lanes from `lanes` on repeat the last. */
V_FN void v_gather(vf *dst, const float *src, size_t stride, int lanes, int n)
{
    (void)stride, (void)lanes;
    for (int i = 0; i < n; i++)
        dst[i] = src[i];
}

#endif
