/* Blocks of mxfp4: 32 values under a power of two. ggml takes no importance weights here. */
#ifndef SLUICE_KERNELS_TEXT_MXFP4_H
#define SLUICE_KERNELS_TEXT_MXFP4_H

#include "kernels/text_block32.h"

/* floor(log2f(a)), a > 0, of a log2f that rounds to nearest: just below 2^k it is k already. There the logarithm is
 * k - (1 - a / 2^k) / ln 2 but for a square that moves it by less than a thousandth of what decides: no float's logarithm is
 * nearer to the middle between two floats than 0.004 of their distance. */
V_FN vi log2_floor(vf a)
{
    vm small = v_lt(a, v_set(0x1p-126f));
    vi bits = v_bits(v_sel(small, v_mul(a, v_set(0x1p32f)), a));
    vi k = v_isub(v_shr(bits, 23), v_seli(small, v_seti(126 + 32), v_seti(126)));
    vf part = v_frombits(v_ior(v_iand(bits, v_seti(0x7fffff)), v_seti(0x3f800000))); /* a / 2^(k - 1) */
    vf whole = v_tofloat(k), log = v_sub(whole, v_mul(v_sub(v_set(2.f), part), v_set(0.72134752f)));

    return v_isub(k, v_seli(v_ne(log, whole), v_seti(1), v_seti(0)));
}

/* The stored exponent: floor(log2f) less 2 and with the bias, in a byte that wraps; 255, a NaN, where that is -1. */
V_FN vi mxfp4_exponent(vf amax)
{
    return v_seli(v_lt(v_set(0.f), amax), low8(v_iadd(log2_floor(amax), v_seti(125))), v_seti(0));
}

/* The value of level 1/2, by which the levels are 0, 1, 2, 3, 4, 6, 8 and 12: 2^(e - 128). */
V_FN vf mxfp4_half(vi e)
{
    vi tiny = v_seli(v_ine(e, v_seti(0)), v_seti(0x00400000), v_seti(0x00200000));

    return v_frombits(v_seli(v_ine(v_shr(e, 1), v_seti(0)), v_shl(v_isub(e, v_seti(1)), 23), tiny));
}

V_FN void mxfp4_block(const vf *x, const vf *w, vf unused, vi *out)
{
    static const float levels[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    vf amax = v_set(0.f), zero = amax, d, middle[7];
    vi e, l[32];

    (void)w, (void)unused;
    for (int i = 0; i < 32; i++)
        amax = v_sel(v_lt(amax, v_abs(x[i])), v_abs(x[i]), amax);
    e = mxfp4_exponent(amax);
    d = mxfp4_half(e);
    for (int k = 0; k < 7; k++) /* infinite where the upper level is: ggml's error is so there */
        middle[k] = v_add(v_mul(v_mul(d, v_set(levels[k])), v_set(0.5f)), v_mul(v_mul(d, v_set(levels[k + 1])), v_set(0.5f)));
    for (int i = 0; i < 32; i++) {
        vf a = v_abs(x[i]);

        l[i] = v_seti(0); /* a value in the middle takes the lower */
        for (int k = 0; k < 7; k++)
            l[i] = v_iadd(l[i], v_seli(v_lt(middle[k], a), v_seti(1), v_seti(0)));
        l[i] = v_ior(l[i], v_seli(v_and(v_lt(x[i], zero), v_lt(middle[0], a)), v_seti(8), v_seti(0)));
    }
    put(out, 0, e);
    put_nibbles(out, offsetof(struct blk_mxfp4, qs), l);
}

#endif
