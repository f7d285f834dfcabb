/* The k-quant superblocks: 256 values a lane in, the block's bytes out, packed
 * into 32-bit words. Each takes two passes: sub-block scales by the searches of
 * text_search.h, then the levels again with the scales as they are stored.
 * w: importance weights of the values, or NULL. */
#ifndef SLUICE_KERNELS_TEXT_KQUANT_H
#define SLUICE_KERNELS_TEXT_KQUANT_H

#include "kernels/blocks.h"
#include "kernels/text_search.h"

/* Words of the largest block (q6_k, 210 bytes). */
#define MAX_WORDS 53

/* out's byte `at` |= v; v is 0..255, or 0..65535 at an even place. */
V_FN void put(vi *out, int at, vi v)
{
    out[at >> 2] = v_ior(out[at >> 2], v_shl(v, (at & 3) * 8));
}

/* Four bytes, each 0..255, as one word. */
V_FN vi word4(const vi *b, int stride)
{
    return v_ior(v_ior(b[0], v_shl(b[stride], 8)), v_ior(v_shl(b[2 * stride], 16), v_shl(b[3 * stride], 24)));
}

V_FN vi low8(vi a) { return v_iand(a, v_seti(255)); }

/* The low 8 bits of a as a signed number. */
V_FN vi sign8(vi a)
{
    return v_isub(v_iand(v_iadd(a, v_seti(128)), v_seti(255)), v_seti(128));
}

/* Importance times magnitude. */
V_FN void spread_weights(int n, const vf *x, const vf *w, vf sigma2, vf *out)
{
    for (int i = 0; i < n; i++)
        out[i] = v_mul(w[i], v_sqrt(v_add(sigma2, sqr(x[i]))));
}

V_FN vf sum_of(const vf *a, int n)
{
    vf s = v_set(0.f);

    for (int i = 0; i < n; i++)
        s = v_add(s, a[i]);
    return s;
}

V_FN vf largest(const vf *a, int n)
{
    vf max = v_set(0.f);

    for (int i = 0; i < n; i++)
        max = v_sel(v_lt(max, a[i]), a[i], max);
    return max;
}

/* Levels of one sub-block from its stored scale and minimum; where the scale
 * became 0 the search's own levels stay. */
V_FN void requant_affine(int n, int nmax, const vf *x, struct affine f, vf d, vf dm, vi *out)
{
    vm live = v_ne(d, v_set(0.f));

    for (int i = 0; i < n; i++)
        out[i] = level_int(v_div(v_add(x[i], dm), d), 0, nmax);
    if (v_any(v_not(live)))
        for (int i = 0; i < n; i++)
            out[i] = v_seli(live, out[i], level_int(v_mul(f.inv, v_sub(x[i], f.base)), 0, nmax));
}

/* The same without minimum: old holds the search's levels. */
V_FN void requant_linear(int nmax, const vf *x, vf d, vi *levels)
{
    vm live = v_ne(d, v_set(0.f));

    for (int i = 0; i < 16; i++) {
        vi l = v_iadd(level_int(v_div(x[i], d), -nmax, nmax - 1), v_seti(nmax));

        levels[i] = v_seli(live, l, levels[i]);
    }
}

/* Two bits a value: byte i of each half holds values i, 32 + i, 64 + i, 96 + i. */
V_FN void pack_two_bits(const vi *levels, vi *out)
{
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i += 4) {
            const vi *l = levels + 128 * half + i;
            vi word = v_seti(0);

            for (int k = 0; k < 4; k++)
                word = v_ior(word, v_shl(word4(l + 32 * k, 1), 2 * k));
            out[8 * half + i / 4] = word;
        }
}

V_FN void q2_k_block(const vf *x, const vf *w, vi *out)
{
    struct affine f[16];
    vf scales[16], mins[16], sums[16], wt[16 * CHAINS], d, dm, sigma2 = v_set(0.f);
    vi ls[16], lm[16], levels[256];

    if (w)
        sigma2 = v_div(sum_of_squares(x, 256), v_set(256.f));
    for (int j = 0; j < 16; j += CHAINS) {
        const vf *xs = x + 16 * j;

        if (w) {
            spread_weights(16 * CHAINS, xs, w + 16 * j, sigma2, wt);
            fit_affine(CHAINS, 16, 3, xs, wt, -0.9f, 0.05f, 36, false, f + j);
        } else {
            for (int i = 0; i < 16 * CHAINS; i++)
                wt[i] = v_abs(xs[i]);
            fit_affine(CHAINS, 16, 3, xs, wt, -0.5f, 0.1f, 15, true, f + j);
        }
        for (int c = 0; c < CHAINS; c++) {
            sums[j + c] = sum_of(wt + 16 * c, 16);
            scales[j + c] = f[j + c].scale;
            mins[j + c] = f[j + c].min;
        }
    }
    if (w) {
        d = fit_positive(16, 15, scales, sums, ls);
        dm = fit_positive(16, 15, mins, sums, lm);
    } else {
        vf zero = v_set(0.f), fifteen = v_set(15.f), top = largest(scales, 16), low = largest(mins, 16);
        vm any_s = v_lt(zero, top), any_m = v_lt(zero, low);

        d = v_sel(any_s, v_div(top, fifteen), zero);
        dm = v_sel(any_m, v_div(low, fifteen), zero);
        for (int j = 0; j < 16; j++) {
            vi a = nearest(v_mul(v_div(fifteen, top), scales[j]));
            vi b = nearest(v_mul(v_div(fifteen, low), mins[j]));

            ls[j] = low8(v_seli(any_s, a, v_seti(0)));
            lm[j] = v_seli(any_m, b, v_seti(0));
        }
    }
    put(out, offsetof(struct blk_q2_k, d), v_f16(d));
    put(out, offsetof(struct blk_q2_k, dmin), v_f16(dm));
    d = v_f16val(v_f16(d));
    dm = v_f16val(v_f16(dm));
    for (int j = 0; j < 16; j++) {
        vi sc = low8(v_ior(ls[j], v_shl(lm[j], 4)));

        put(out, (int)offsetof(struct blk_q2_k, scales) + j, sc);
        requant_affine(16, 3, x + 16 * j, f[j], v_mul(d, v_tofloat(v_iand(sc, v_seti(15)))),
                       v_mul(dm, v_tofloat(v_shr(sc, 4))), levels + 16 * j);
    }
    pack_two_bits(levels, out + offsetof(struct blk_q2_k, qs) / 4);
}

/* 16 six-bit scales, 0..63, in 12 bytes: low halves first, then the high bits. */
V_FN void pack_q3_scales(const vi *l, vi *out)
{
    for (int j = 0; j < 16; j++) {
        vi low = v_iand(l[j], v_seti(15)), high = v_iand(v_shr(l[j], 4), v_seti(3));

        put(out, (int)offsetof(struct blk_q3_k, scales) + (j & 7), v_shl(low, j < 8 ? 0 : 4));
        put(out, (int)offsetof(struct blk_q3_k, scales) + 8 + (j & 3), v_shl(high, 2 * (j / 4)));
    }
}

V_FN void q3_k_block(const vf *x, const vf *w, vi *out)
{
    vf scales[16], sums[16], wt[16], d, sigma2 = v_set(0.f);
    vi ls[16], levels[256], low[256];

    if (w)
        sigma2 = v_div(v_mul(v_set(2.f), sum_of_squares(x, 256)), v_set(256.f));
    for (int j = 0; j < 16 && w; j++) {
        struct linear f;

        spread_weights(16, x + 16 * j, w + 16 * j, sigma2, wt);
        sums[j] = sum_of(wt, 16);
        f = fit_linear(16, 4, x + 16 * j, wt);
        scales[j] = f.scale;
        for (int i = 16 * j; i < 16 * j + 16; i++)
            levels[i] = linear_level(f, x[i], 4);
    }
    for (int j = 0; j < 16 && !w; j += CHAINS)
        fit_sweeps(CHAINS, x + 16 * j, levels + 16 * j, scales + j);
    if (w) {
        struct linear f = fit_linear(16, 32, scales, sums);

        d = f.scale;
        for (int j = 0; j < 16; j++)
            ls[j] = linear_level(f, scales[j], 32);
    } else {
        vf amax, max = first_largest(scales, 16, &amax), inv = v_div(v_set(-32.f), max);
        vm any = v_ne(max, v_set(0.f));

        d = v_sel(any, v_div(v_set(1.f), inv), v_set(0.f));
        for (int j = 0; j < 16; j++) {
            vi l = sign8(nearest(v_mul(inv, scales[j])));

            l = v_iadd(v_imin(v_imax(l, v_seti(-32)), v_seti(31)), v_seti(32));
            ls[j] = v_seli(any, l, v_seti(0));
        }
    }
    pack_q3_scales(ls, out);
    put(out, offsetof(struct blk_q3_k, d), v_f16(d));
    d = v_f16val(v_f16(d));
    for (int j = 0; j < 16; j++)
        requant_linear(4, x + 16 * j, v_mul(d, v_tofloat(v_isub(ls[j], v_seti(32)))), levels + 16 * j);
    for (int i = 0; i < 256; i++)
        low[i] = v_iand(levels[i], v_seti(3));
    pack_two_bits(low, out + offsetof(struct blk_q3_k, qs) / 4);
    for (int i = 0; i < 256; i++) /* bit i / 32 of byte i % 32: the third bit of value i */
        put(out, (int)offsetof(struct blk_q3_k, hmask) + (i & 31), v_shl(v_shr(levels[i], 2), i / 32));
}

/* Eight six-bit scales and minimums in 12 bytes. s and m are bytes; what does
 * not fit in six bits spills as it does in the reference, so the packed bytes
 * decide, and unpack_k4 reads them back. */
V_FN void pack_k4(const vi *s, const vi *m, vi *b)
{
    vi four = v_seti(15);

    for (int j = 0; j < 4; j++) {
        b[j] = low8(v_ior(s[j], v_shl(v_shr(s[j + 4], 4), 6)));
        b[j + 4] = low8(v_ior(m[j], v_shl(v_shr(m[j + 4], 4), 6)));
        b[j + 8] = v_ior(v_iand(s[j + 4], four), v_shl(v_iand(m[j + 4], four), 4));
    }
}

V_FN void unpack_k4(const vi *b, int j, vi *s, vi *m)
{
    vi four = v_seti(15), six = v_seti(63);

    if (j < 4) {
        *s = v_iand(b[j], six);
        *m = v_iand(b[j + 4], six);
    } else {
        *s = v_ior(v_iand(b[j + 4], four), v_shl(v_shr(b[j - 4], 6), 4));
        *m = v_ior(v_shr(b[j + 4], 4), v_shl(v_shr(b[j], 6), 4));
    }
}

/* q4_k (nmax 15) and q5_k (nmax 31): scales, minimums and levels. b: the 12
 * packed bytes. */
V_FN void k45_levels(int nmax, const vf *x, const vf *w, vi *head, vi *b, vi *levels)
{
    struct affine f[8];
    vf scales[8], mins[8], sums[8], wt[32 * CHAINS], d, dm, sigma2 = v_set(0.f), zero = v_set(0.f);
    vi ls[8], lm[8], cap = v_seti(63);

    if (w)
        sigma2 = v_div(v_mul(v_set(2.f), sum_of_squares(x, 256)), v_set(256.f));
    for (int j = 0; j < 8; j += CHAINS) {
        const vf *xs = x + 32 * j;

        if (w) {
            spread_weights(32 * CHAINS, xs, w + 32 * j, sigma2, wt);
            fit_affine(CHAINS, 32, nmax, xs, wt, -0.9f, 0.05f, 36, false, f + j);
        } else {
            for (int c = 0; c < CHAINS; c++) {
                vf mean = v_sqrt(v_div(sum_of_squares(xs + 32 * c, 32), v_set(32.f)));

                for (int i = 32 * c; i < 32 * c + 32; i++)
                    wt[i] = v_add(mean, v_abs(xs[i]));
            }
            if (nmax == 15)
                fit_affine(CHAINS, 32, nmax, xs, wt, -1.f, 0.1f, 20, false, f + j);
            else
                fit_affine(CHAINS, 32, nmax, xs, wt, -0.5f, 0.1f, 15, false, f + j);
        }
        for (int c = 0; c < CHAINS; c++) {
            sums[j + c] = sum_of(wt + 32 * c, 32);
            scales[j + c] = f[j + c].scale;
            mins[j + c] = f[j + c].min;
        }
    }
    if (w) {
        d = fit_positive(8, 63, scales, sums, ls);
        dm = fit_positive(8, 63, mins, sums, lm);
        for (int j = 0; j < 8 && nmax == 31; j++) { /* q4_k has no such cap */
            ls[j] = v_imin(ls[j], cap);
            lm[j] = v_imin(lm[j], cap);
        }
    } else {
        vf top = largest(scales, 8), low = largest(mins, 8);
        vf inv_s = v_sel(v_lt(zero, top), v_div(v_set(63.f), top), zero);
        vf inv_m = v_sel(v_lt(zero, low), v_div(v_set(63.f), low), zero);

        d = v_div(top, v_set(63.f));
        dm = v_div(low, v_set(63.f));
        for (int j = 0; j < 8; j++) {
            ls[j] = v_imin(low8(nearest(v_mul(inv_s, scales[j]))), cap);
            lm[j] = v_imin(low8(nearest(v_mul(inv_m, mins[j]))), cap);
        }
    }
    pack_k4(ls, lm, b);
    *head = v_ior(v_f16(d), v_shl(v_f16(dm), 16));
    d = v_f16val(v_f16(d));
    dm = v_f16val(v_f16(dm));
    for (int j = 0; j < 8; j++) {
        vi s, m;

        unpack_k4(b, j, &s, &m);
        requant_affine(32, nmax, x + 32 * j, f[j], v_mul(d, v_tofloat(s)), v_mul(dm, v_tofloat(m)), levels + 32 * j);
    }
}

/* Four bits a value: byte i of each 64 holds values i and i + 32. */
V_FN void pack_nibbles(const vi *levels, vi *out)
{
    vi four = v_seti(0x0f0f0f0f);

    for (int g = 0; g < 4; g++)
        for (int i = 0; i < 32; i += 4) {
            const vi *l = levels + 64 * g + i;

            out[8 * g + i / 4] = v_ior(v_iand(word4(l, 1), four), v_shl(v_iand(word4(l + 32, 1), four), 4));
        }
}

V_FN void q4_k_block(const vf *x, const vf *w, vi *out)
{
    vi b[12], levels[256];

    k45_levels(15, x, w, &out[0], b, levels);
    for (int k = 0; k < 3; k++)
        out[1 + k] = word4(b + 4 * k, 1);
    pack_nibbles(levels, out + offsetof(struct blk_q4_k, qs) / 4);
}

V_FN void q5_k_block(const vf *x, const vf *w, vi *out)
{
    vi b[12], levels[256], *qh = out + offsetof(struct blk_q5_k, qh) / 4;

    k45_levels(31, x, w, &out[0], b, levels);
    for (int k = 0; k < 3; k++)
        out[1 + k] = word4(b + 4 * k, 1);
    pack_nibbles(levels, out + offsetof(struct blk_q5_k, qs) / 4);
    for (int i = 0; i < 32; i += 4) /* bit g of byte i: the fifth bit of value 32 * g + i */
        for (int g = 0; g < 8; g++) {
            vi high = v_iand(v_shr(word4(levels + 32 * g + i, 1), 4), v_seti(0x01010101));

            qh[i / 4] = v_ior(qh[i / 4], v_shl(high, g));
        }
}

/* Low nibbles, then pairs of high bits; each half of 128 values on its own. */
V_FN void pack_q6(const vi *levels, vi *out)
{
    vi four = v_seti(0x0f0f0f0f), two = v_seti(0x03030303);

    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i += 4) {
            vi q[4], high = v_seti(0), *ql = out + 16 * half + i / 4;

            for (int k = 0; k < 4; k++) {
                q[k] = word4(levels + 128 * half + 32 * k + i, 1);
                high = v_ior(high, v_shl(v_iand(v_shr(q[k], 4), two), 2 * k));
            }
            ql[0] = v_ior(v_iand(q[0], four), v_shl(v_iand(q[2], four), 4));
            ql[8] = v_ior(v_iand(q[1], four), v_shl(v_iand(q[3], four), 4));
            out[offsetof(struct blk_q6_k, qh) / 4 + 8 * half + i / 4] = high;
        }
}

V_FN void q6_k_block(const vf *x, const vf *w, vi *out)
{
    vf scales[16], amax, max, inv, d;
    vi levels[256];
    vm zero;

    for (int j = 0; j < 16; j++) {
        struct linear f = fit_linear(16, 32, x + 16 * j, w ? w + 16 * j : NULL);

        scales[j] = f.scale;
        for (int i = 16 * j; i < 16 * j + 16; i++)
            levels[i] = linear_level(f, x[i], 32);
    }
    max = first_largest(scales, 16, &amax);
    zero = v_lt(amax, v_set(GROUP_EPS));
    inv = v_div(v_set(-128.f), max);
    put(out, offsetof(struct blk_q6_k, d), v_f16(v_div(v_set(1.f), inv)));
    d = v_f16val(v_f16(v_div(v_set(1.f), inv)));
    for (int j = 0; j < 16; j++) {
        vi s = sign8(v_imin(nearest(v_mul(inv, scales[j])), v_seti(127)));

        put(out, (int)offsetof(struct blk_q6_k, scales) + j, low8(s));
        requant_linear(32, x + 16 * j, v_mul(d, v_tofloat(s)), levels + 16 * j);
    }
    pack_q6(levels, out);
    for (int k = 0; k < MAX_WORDS && v_any(zero); k++)
        out[k] = v_seli(zero, v_seti(0), out[k]);
}

#endif
