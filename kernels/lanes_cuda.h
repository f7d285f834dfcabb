/* The lane vocabulary for a CUDA thread: one lane, each operation by its
 * round-to-nearest intrinsic, so that no compiler flag can fuse two of them.
 * A host compiler takes it too, for running the device text on a CPU in tests.
 * Meaning of each word: README.md. */
#ifndef SLUICE_KERNELS_LANES_CUDA_H
#define SLUICE_KERNELS_LANES_CUDA_H

#include "kernels/half.h"

#include <math.h>

#define LANES 1
#define CHAINS 1
#define LANE_NAME "cuda"

/* Threads of a block. A table that is indexed by what the data says has a column of it for
 * each thread, in shared memory: whatever the indices, no two lanes meet in a bank. All such
 * tables of a thread begin at the same place; one is done with before the next is made. */
#define V_COLUMNS 128
#define V_SPOT(i) ((i) * V_COLUMNS)

#ifdef __CUDACC__
#define V_FN static __device__ __forceinline__ __attribute__((unused))
/* Makes a value once: ptxas does not see that it could make it again in a loop. */
#define V_KEEP(a) asm volatile("mov.b32 %0, %0;" : "+f"(a))
#define V_SHAPE static constexpr __host__ __device__ __attribute__((unused))
#define V_CALL static __device__ __noinline__ __attribute__((unused))
#define V_TABLE static __device__ const __attribute__((unused))
/* A block's words are shared memory that several threads write bits of. */
#define V_OR(place, v) ((void)atomicOr((int *)(place), (int)(v)))
extern __shared__ float sl_pool[] __attribute__((aligned(16))); /* the queue has 64-bit words there */
#define V_SPOTS(name, n) float *const name = sl_pool + threadIdx.x
#define V_UNROLL _Pragma("unroll")
#define V_ROLLED _Pragma("unroll 1")
/* Adds 1, and returns what was there; several threads of a block may. */
#define V_COUNT(place) atomicAdd((place), 1)
/* Adds n, and returns what was there. */
#define V_MORE(place, n) atomicAdd((place), (n))
/* The least of what is there and of n; several threads of a block may. */
#define V_LEAST(place, n) ((void)atomicMin((place), (n)))
#define RN_ADD(a, b) __fadd_rn(a, b)
#define RN_SUB(a, b) __fsub_rn(a, b)
#define RN_MUL(a, b) __fmul_rn(a, b)
#define RN_DIV(a, b) __fdiv_rn(a, b)
#define RN_SQRT(a) __fsqrt_rn(a)
#define RN_FLOAT(a) __int2float_rn(a)
#else
#define V_FN static inline __attribute__((unused))
#define V_KEEP(a) ((void)(a))
#define V_SHAPE V_FN
#define V_SPOTS(name, n) float name##_columns[(n) * V_COLUMNS], *const name = name##_columns + 5
#define V_UNROLL
#define V_ROLLED
#define V_COUNT(place) ((*(place))++)
#define V_MORE(place, n) ((*(place) += (n)) - (n))
#define V_LEAST(place, n) (*(place) = *(place) < (n) ? *(place) : (n))
#define RN_ADD(a, b) ((a) + (b))
#define RN_SUB(a, b) ((a) - (b))
#define RN_MUL(a, b) ((a) * (b))
#define RN_DIV(a, b) ((a) / (b))
#define RN_SQRT(a) sqrtf(a)
#define RN_FLOAT(a) ((float)(a))
#endif

#include "kernels/lanes_one.h"

V_FN vf v_add(vf a, vf b) { return RN_ADD(a, b); }
V_FN vf v_sub(vf a, vf b) { return RN_SUB(a, b); }
V_FN vf v_mul(vf a, vf b) { return RN_MUL(a, b); }
V_FN vf v_div(vf a, vf b) { return RN_DIV(a, b); }
V_FN vf v_sqrt(vf a) { return RN_SQRT(a); }
V_FN vf v_tofloat(vi a) { return RN_FLOAT(a); }

/* (a & mask) | b, as one instruction, which ptxas does not see by itself. */
V_FN uint32_t v_masked_or(uint32_t a, uint32_t mask, uint32_t b)
{
#ifdef __CUDACC__
    uint32_t out;

    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(a), "r"(mask), "r"(b));
    return out;
#else
    return (a & mask) | b;
#endif
}

/* sum + the first or the last two bytes of b, signed or not, times the signed 16-bit halves of a. */
V_FN int32_t v_dot2(bool last, bool sign, uint32_t a, uint32_t b, int32_t sum)
{
#ifdef __CUDACC__
    if (sign && last)
        asm("dp2a.hi.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    else if (sign)
        asm("dp2a.lo.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    else if (last)
        asm("dp2a.hi.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    else
        asm("dp2a.lo.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    for (int i = 0; i < 2; i++) {
        uint32_t byte = b >> 8 * (i + 2 * last) & 255;

        sum += (int16_t)(a >> 16 * i) * (sign ? (int8_t)byte : (int32_t)byte);
    }
    return sum;
#endif
}

/* The byte of (low, high) that each of the lowest four nibbles, 0 to 7, names. */
V_FN uint32_t v_bytes_of(uint32_t low, uint32_t high, uint32_t nibbles)
{
    uint32_t out = 0;

#ifdef __CUDACC__
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(low), "r"(high), "r"(nibbles));
#else
    for (int i = 0; i < 4; i++)
        out |= ((nibbles >> 4 * i & 4 ? high : low) >> 8 * (nibbles >> 4 * i & 3) & 255) << 8 * i;
#endif
    return out;
}

/* The place of the highest bit of a word that has one. */
V_FN int v_last_bit(uint32_t a)
{
#ifdef __CUDACC__
    return 31 - __clz((int)a);
#else
    return 31 - __builtin_clz(a);
#endif
}

V_FN int v_bits_set(uint32_t a)
{
#ifdef __CUDACC__
    return __popc(a);
#else
    return __builtin_popcount(a);
#endif
}

V_FN unsigned long long v_pair(uint32_t high, uint32_t low)
{
#ifdef __CUDACC__
    unsigned long long out;

    asm("mov.b64 %0, {%1, %2};" : "=l"(out) : "r"(low), "r"(high));
    return out;
#else
    return (unsigned long long)high << 32 | low;
#endif
}

/* A word one bit up, and in its lowest the highest of another. */
V_FN uint32_t v_shift_in(uint32_t a, uint32_t from)
{
#ifdef __CUDACC__
    return __funnelshift_l(from, a, 1);
#else
    return a << 1 | from >> 31;
#endif
}

/* The low halves of two words. */
V_FN uint32_t v_halves_of(uint32_t first, uint32_t second)
{
#ifdef __CUDACC__
    return __byte_perm(first, second, 0x5410);
#else
    return (first & 0xffff) | second << 16;
#endif
}

/* A CUDA NaN has all mantissa bits set, an x86 one only the first: both must
 * count as level 0. */
V_FN vi v_magic(vf a)
{
    vf s = RN_ADD(a, 12582912.f);

    return s != s ? 0x4b400000 : (vi)((sl_bits(s) & 0x7fffff) | 0x4b000000);
}

/* The same where a is a number, or does not matter. */
V_FN vi v_magic_number(vf a)
{
    uint32_t s = sl_bits(RN_ADD(a, 12582912.f));

#ifdef __CUDACC__
    return (vi)v_masked_or(s, 0x7fffff, 0x4b000000);
#else
    return s << 1 > 0xff000000 ? 0x4b7fffff /* as a device has its NaNs */ : (vi)((s & 0x7fffff) | 0x4b000000);
#endif
}
#define V_MAGIC_NUMBER v_magic_number

/* A NaN becomes the high end. */
V_FN vf v_clamp(vf a, float low, float high) { return fmaxf(fminf(a, high), low); }
V_FN vi v_halves(vf a) /* 1.5 * 2^22 + 128: an ulp is 1/2 */
{
#ifdef __CUDACC__
    return (vi)sl_bits(__fadd_rd(a, 6291584.f));
#else
    vf near = a + 6291584.f;

    return (vi)sl_bits(near) - (a < near - 6291584.f);
#endif
}

/* 2 * level + 1 of place i of a code with two or three bits for each. The level is taken where it lies, as a number
 * beside 2^23, and half a level added: exact, and in place of a shift, which is an integer's, a multiplication. */
V_FN vf v_odd(int bits, vi code, int i)
{
    uint32_t one = 1u << bits * i;
    vf level = sl_float(v_masked_or((uint32_t)code, ((1u << bits) - 1) * one, 0x4b000000));

    return RN_MUL(RN_SUB(level, 8388608.f - 0.5f * (vf)one), 2.f / (vf)one);
}

#endif
