/* Types of two to four levels under one scale: q1_0 (blocks of 128), q2_0 (64), tq1_0 and tq2_0 (256). Nothing is searched
 * for: the scale is the mean or the largest magnitude. Importance weights say nothing to them, as in ggml. */
#ifndef SLUICE_KERNELS_TEXT_FEW_LEVELS_H
#define SLUICE_KERNELS_TEXT_FEW_LEVELS_H

#include "kernels/text_kquant.h"

V_FN void q1_0_block(const vf *x, vi *out)
{
    vf zero = v_set(0.f), sum = zero;

    for (int i = 0; i < 128; i++)
        sum = v_add(sum, v_abs(x[i]));
    put(out, 0, v_f16(v_div(sum, v_set(128.f))));
    for (int k = 0; k < 16; k++) {
        vi bits = v_seti(0);

        for (int i = 0; i < 8; i++) /* -0 is not below 0 */
            bits = v_ior(bits, v_seli(v_lt(x[8 * k + i], zero), v_seti(0), v_seti(1 << i)));
        put(out, (int)offsetof(struct blk_q1_0, qs) + k, bits);
    }
}

/* The largest magnitude of n values, and its reciprocal: 0 for zeros, infinite where F32 does not hold it. */
V_FN vf largest_scale(int n, const vf *x, vf *inv)
{
    vf zero = v_set(0.f), d = zero;

    for (int i = 0; i < n; i++)
        d = v_max(d, v_abs(x[i]));
    *inv = v_sel(v_ne(d, zero), v_div(v_set(1.f), d), zero);
    return d;
}

V_FN vm is_infinite(vf a) { return v_lt(v_set(0x1.fffffep127f), a); }

/* Rounded to nearest, ties away from 0, plus 1: 0 to 2 for -1.5 to 1.5, and no more are there; a NaN is 1. */
V_FN vi three_levels(vf a)
{
    vf below_half = v_set(0x1.fffffep-2f);

    return v_seli(v_lt(below_half, a), v_seti(2), v_seli(v_lt(a, v_neg(below_half)), v_seti(0), v_seti(1)));
}

/* Of a product that is not finite ggml makes INT_MIN, and of that level 0. */
V_FN void q2_0_block(const vf *x, vi *out)
{
    vf inv, d = largest_scale(64, x, &inv);
    vi kept = v_seli(is_infinite(inv), v_seti(0), v_seti(3));

    put(out, 0, v_f16(d));
    for (int k = 0; k < 16; k++) {
        vi byte = v_seti(0);

        for (int i = 0; i < 4; i++)
            byte = v_ior(byte, v_shl(v_iand(three_levels(v_mul(x[4 * k + i], inv)), kept), 2 * i));
        put(out, (int)offsetof(struct blk_q2_0, qs) + k, byte);
    }
}

/* Of a product that is not finite ggml makes a long's least value, and of its low half level 1, as of 0. */
V_FN vf ternary_scale(const vf *x, vf *inv)
{
    vf d = largest_scale(256, x, inv);

    *inv = v_sel(is_infinite(*inv), v_set(0.f), *inv);
    return d;
}

/* The first n of five digits to the base of three, `apart` values from each other, as a fraction of 256, rounded up. A
 * quotient by 243 is a 486th or more above the integer that is meant, or below the next: the roundings are far less. */
V_FN vi trits(int n, int apart, const vf *x, vf inv)
{
    vi q = v_seti(0);

    for (int i = 0; i < 5; i++) {
        q = v_iadd(q, v_iadd(q, q));
        if (i < n)
            q = v_iadd(q, three_levels(v_mul(x[i * apart], inv)));
    }
    return v_trunc(v_mul(v_tofloat(v_iadd(v_shl(q, 9), v_seti(2 * 242 + 1))), v_set(1.f / 486.f)));
}

V_FN void tq1_0_block(const vf *x, vi *out)
{
    vf inv;

    put(out, (int)offsetof(struct blk_tq1_0, d), v_f16(ternary_scale(x, &inv)));
    for (int i = 0; i < 32; i++)
        put(out, i, trits(5, 32, x + i, inv));
    for (int i = 0; i < 16; i++)
        put(out, 32 + i, trits(5, 16, x + 160 + i, inv));
    for (int i = 0; i < 4; i++)
        put(out, (int)offsetof(struct blk_tq1_0, qh) + i, trits(4, 4, x + 240 + i, inv));
}

V_FN void tq2_0_block(const vf *x, vi *out)
{
    vf inv;

    put(out, (int)offsetof(struct blk_tq2_0, d), v_f16(ternary_scale(x, &inv)));
    for (int k = 0; k < 64; k++) {
        vi byte = v_seti(0);

        for (int i = 0; i < 4; i++)
            byte = v_ior(byte, v_shl(three_levels(v_mul(x[k / 32 * 128 + k % 32 + 32 * i], inv)), 2 * i));
        put(out, k, byte);
    }
}

#endif
