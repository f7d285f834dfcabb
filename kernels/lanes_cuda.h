/* The lane vocabulary for a CUDA thread: one lane, each operation by its
 * round-to-nearest intrinsic, so that no compiler flag can fuse two of them.
 * A host compiler takes it too, for running the device text on a CPU in tests.
 * Meaning of each word: README.md. */
#ifndef SLUICE_KERNELS_LANES_CUDA_H
#define SLUICE_KERNELS_LANES_CUDA_H

#include "kernels/half.h"

#include <math.h>
#include <stdbool.h>

#define LANES 1
#define CHAINS 1
#define LANE_NAME "cuda"

#ifdef __CUDACC__
#define V_FN static __device__ __forceinline__
#define RN_ADD(a, b) __fadd_rn(a, b)
#define RN_SUB(a, b) __fsub_rn(a, b)
#define RN_MUL(a, b) __fmul_rn(a, b)
#define RN_DIV(a, b) __fdiv_rn(a, b)
#define RN_SQRT(a) __fsqrt_rn(a)
#define RN_FLOAT(a) __int2float_rn(a)
#else
#define V_FN static inline __attribute__((unused))
#define RN_ADD(a, b) ((a) + (b))
#define RN_SUB(a, b) ((a) - (b))
#define RN_MUL(a, b) ((a) * (b))
#define RN_DIV(a, b) ((a) / (b))
#define RN_SQRT(a) sqrtf(a)
#define RN_FLOAT(a) ((float)(a))
#endif

typedef float vf;
typedef int32_t vi;
typedef bool vm;

V_FN vf v_set(float a) { return a; }
V_FN vf v_add(vf a, vf b) { return RN_ADD(a, b); }
V_FN vf v_sub(vf a, vf b) { return RN_SUB(a, b); }
V_FN vf v_mul(vf a, vf b) { return RN_MUL(a, b); }
V_FN vf v_div(vf a, vf b) { return RN_DIV(a, b); }
V_FN vf v_sqrt(vf a) { return RN_SQRT(a); }
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
V_FN vi v_iadd(vi a, vi b) { return (vi)((uint32_t)a + (uint32_t)b); }
V_FN vi v_isub(vi a, vi b) { return (vi)((uint32_t)a - (uint32_t)b); }
V_FN vi v_iand(vi a, vi b) { return a & b; }
V_FN vi v_ior(vi a, vi b) { return a | b; }
V_FN vi v_imin(vi a, vi b) { return a < b ? a : b; }
V_FN vi v_imax(vi a, vi b) { return a > b ? a : b; }
V_FN vi v_shl(vi a, int n) { return (vi)((uint32_t)a << n); }
V_FN vi v_shr(vi a, int n) { return (vi)((uint32_t)a >> n); }
V_FN vm v_ine(vi a, vi b) { return a != b; }
V_FN vf v_tofloat(vi a) { return RN_FLOAT(a); }
V_FN vf v_frombits(vi a) { return sl_float((uint32_t)a); }

/* A CUDA NaN has all mantissa bits set, an x86 one only the first: both must
 * count as level 0. */
V_FN vi v_magic(vf a)
{
    vf s = RN_ADD(a, 12582912.f);

    return s != s ? 0x4b400000 : (vi)((sl_bits(s) & 0x7fffff) | 0x4b000000);
}

V_FN vi v_f16(vf a) { return sl_f16_from_f32(a); }
V_FN vf v_f16val(vi a) { return sl_f32_from_f16((uint16_t)a); }

#endif
