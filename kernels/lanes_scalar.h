/* The lane vocabulary with one lane: plain C. Meaning of each word: README.md. */
#ifndef SLUICE_KERNELS_LANES_SCALAR_H
#define SLUICE_KERNELS_LANES_SCALAR_H

#include "kernels/half.h"

#include <math.h>

#define LANES 1
#define CHAINS 1
#define LANE_NAME "scalar"
#define V_FN static inline __attribute__((always_inline, unused))

#include "kernels/lanes_one.h"

V_FN vf v_add(vf a, vf b) { return a + b; }
V_FN vf v_sub(vf a, vf b) { return a - b; }
V_FN vf v_mul(vf a, vf b) { return a * b; }
V_FN vf v_div(vf a, vf b) { return a / b; }
V_FN vf v_sqrt(vf a) { return sqrtf(a); }
V_FN vf v_min(vf a, vf b) { return a < b ? a : b; }
V_FN vf v_max(vf a, vf b) { return a > b ? a : b; }
V_FN uint32_t v_lanes(vm a) { return a; }
V_FN vf v_tofloat(vi a) { return (float)a; }
V_FN vi v_magic(vf a)
{
    return (vi)((sl_bits(a + 12582912.f) & 0x7fffff) | 0x4b000000);
}

/* A NaN becomes the high end. */
V_FN vf v_clamp(vf a, float low, float high)
{
    vf b = a < high ? a : high;

    return b > low ? b : low;
}
V_FN vi v_halves(vf a)
{
    vf near = a + 6291584.f; /* 1.5 * 2^22 + 128: an ulp is 1/2 */

    return (vi)sl_bits(near) - (a < near - 6291584.f);
}

V_FN void v_store_u16(uint16_t *p, vi a) { *p = (uint16_t)a; }

#endif
