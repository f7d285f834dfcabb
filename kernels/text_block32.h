/* Blocks of 32 values: q4_0, q4_1, q5_0, q5_1, iq4_nl, and iq4_xs, which is
 * eight such runs under one scale. sigma2 is the mean square of the row, used
 * with importance weights only. q8_0 is in text_values.h. */
#ifndef SLUICE_KERNELS_TEXT_BLOCK32_H
#define SLUICE_KERNELS_TEXT_BLOCK32_H

#include "kernels/text_kquant.h"

/* The low byte of the integer part: what a store of a float into a byte does
 * on x86-64, also where the value does not fit. */
V_FN vi byte_of(vf a) { return sign8(v_trunc(a)); }

V_FN vi inverse_levels(vf x, vf inv, vf offset, vi cap)
{
    return low8(v_imin(byte_of(v_add(v_mul(x, inv), offset)), cap));
}

V_FN vf inverse_or_zero(vf d)
{
    vf zero = v_set(0.f);

    return v_sel(v_ne(d, zero), v_div(v_set(1.f), d), zero);
}

/* Low nibbles of 32 levels at byte `at`. */
V_FN void put_nibbles(vi *out, int at, const vi *l)
{
    vi four = v_seti(15);

    for (int i = 0; i < 16; i++)
        put(out, at + i, v_ior(v_iand(l[i], four), v_shl(v_iand(l[i + 16], four), 4)));
}

V_FN void put_fifth_bits(vi *out, int at, const vi *l)
{
    for (int i = 0; i < 32; i++)
        put(out, at + i / 8, v_shl(v_iand(v_shr(l[i], 4), v_seti(1)), i & 7));
}

/* q4_0 (nmax 8) and q5_0 (nmax 16). Returns d. */
V_FN vf sym_levels(int nmax, const vf *x, const vf *w, vf sigma2, vi *l)
{
    vf amax, max, d, inv;

    if (w) {
        struct linear f;
        vf wt[32];

        spread_weights(32, x, w, sigma2, wt);
        fit_linear(1, 32, nmax, x, wt, &f);
        for (int i = 0; i < 32; i++)
            l[i] = linear_level(f, x[i], nmax);
        return f.scale;
    }
    max = first_largest(x, 32, &amax);
    d = v_div(max, v_set((float)-nmax));
    inv = inverse_or_zero(d);
    for (int i = 0; i < 32; i++)
        l[i] = inverse_levels(x[i], inv, v_set((float)nmax + 0.5f), v_seti(2 * nmax - 1));
    return d;
}

/* q4_1 (nmax 15) and q5_1 (nmax 31). Returns d. */
V_FN vf asym_levels(int nmax, const vf *x, const vf *w, vf sigma2, vi *l, vf *min)
{
    vf max = x[0], d, inv;

    if (w) {
        struct affine f;
        vf wt[32];

        spread_weights(32, x, w, sigma2, wt);
        fit_affine(1, 32, nmax, x, wt, -0.9f, 0.05f, 36, false, &f);
        for (int i = 0; i < 32; i++)
            l[i] = level_int(v_mul(f.inv, v_sub(x[i], f.base)), 0, nmax);
        *min = v_neg(f.min);
        return f.scale;
    }
    *min = x[0];
    for (int i = 1; i < 32; i++) {
        *min = v_sel(v_lt(x[i], *min), x[i], *min);
        max = v_sel(v_lt(max, x[i]), x[i], max);
    }
    d = v_div(v_sub(max, *min), v_set((float)nmax));
    inv = inverse_or_zero(d);
    for (int i = 0; i < 32; i++) /* only q4_1 caps; a byte is the widest cap */
        l[i] = inverse_levels(v_sub(x[i], *min), inv, v_set(0.5f), v_seti(nmax == 15 ? 15 : 255));
    return d;
}

V_FN void q4_0_block(const vf *x, const vf *w, vf sigma2, vi *out)
{
    vi l[32];

    put(out, 0, v_f16(sym_levels(8, x, w, sigma2, l)));
    put_nibbles(out, offsetof(struct blk_q4_0, qs), l);
}

V_FN void q5_0_block(const vf *x, const vf *w, vf sigma2, vi *out)
{
    vi l[32];

    put(out, 0, v_f16(sym_levels(16, x, w, sigma2, l)));
    put_fifth_bits(out, offsetof(struct blk_q5_0, qh), l);
    put_nibbles(out, offsetof(struct blk_q5_0, qs), l);
}

V_FN void q4_1_block(const vf *x, const vf *w, vf sigma2, vi *out)
{
    vf min;
    vi l[32];

    put(out, 0, v_f16(asym_levels(15, x, w, sigma2, l, &min)));
    put(out, offsetof(struct blk_q4_1, m), v_f16(min));
    put_nibbles(out, offsetof(struct blk_q4_1, qs), l);
}

V_FN void q5_1_block(const vf *x, const vf *w, vf sigma2, vi *out)
{
    vf min;
    vi l[32];

    put(out, 0, v_f16(asym_levels(31, x, w, sigma2, l, &min)));
    put(out, offsetof(struct blk_q5_1, m), v_f16(min));
    put_fifth_bits(out, offsetof(struct blk_q5_1, qh), l);
    put_nibbles(out, offsetof(struct blk_q5_1, qs), l);
}

V_TABLE float iq4_levels[16] = {SL_IQ4_LEVELS};

/* Each interval of 8, from -128 on, holds at most one of the points half-way between two levels, all of
 * which are multiples of 1/2 and belong to the upper level. With k = floor(2 * a) + 256 its interval is
 * k / 16, and k + iq4_step[k / 16] has the level's index in bits 4 to 7: the carry is the point. */
V_TABLE v_entry iq4_step[32] = {0, 247, 240, 224, 219, 208, 196, 192, 178, 176, 164, 160, 153, 144, 144, 137,
                                130, 128, 122, 113, 112, 101, 96, 86, 80, 66, 64, 48, 38, 32, 16, 0};

/* The index of the iq4 level nearest to a, in the low four bits; a NaN takes the last. */
V_FN vi iq4_nearest(vf a)
{
    vi k = v_halves(v_clamp(a, -128.f, 127.5f));

    return v_shr(v_iadd(k, v_lookup32(iq4_step, v_shr(k, 4))), 4);
}

V_FN vi iq4_index(vf a) { return v_iand(iq4_nearest(a), v_seti(15)); }

/* The scale of one run of 32: 16 spacings by weighted least squares. */
V_FN vf fit_iq4(const vf *x, const vf *w, vf sigma2)
{
    vf zero = v_set(0.f), amax, max = first_largest(x, 32, &amax), wt[32], d = zero, best = zero;
    vm dead = v_lt(amax, v_set(GROUP_EPS));

    if (w)
        spread_weights(32, x, w, sigma2, wt);
    else
        for (int i = 0; i < 32; i++)
            wt[i] = sqr(x[i]);
    for (int t = 0; t < 16; t++) {
        vf sum_qx = zero, sum_q2 = zero, inv, trial;
        vm better;

        if (t == 0) /* the reciprocal of a quotient: rounded twice */
            inv = v_div(v_set(1.f), v_div(v_neg(max), v_set(-127.f)));
        else
            inv = v_div(v_set((float)(t - 8 - 127)), max);
        for (int i = 0; i < 32; i++) {
            vf q = v_lookup16(iq4_levels, iq4_nearest(v_mul(inv, x[i]))), wq = v_mul(wt[i], q);

            sum_qx = v_add(sum_qx, v_mul(wq, x[i]));
            sum_q2 = v_add(sum_q2, v_mul(wq, q));
        }
        trial = v_div(sum_qx, sum_q2);
        better = v_lt(zero, sum_q2);
        if (t > 0)
            better = v_and(better, v_lt(v_mul(best, sum_q2), sqr(sum_qx)));
        d = v_sel(better, trial, d);
        best = t == 0 ? v_mul(d, sum_qx) : v_sel(better, v_mul(trial, sum_qx), best);
    }
    return v_sel(dead, zero, d);
}

V_FN vf iq4_sigma2(int n, vf squares)
{
    return v_mul(squares, v_set(2.f / (float)n));
}

V_FN void iq4_nl_block(const vf *x, const vf *w, vf unused, vi *out)
{
    vf sigma2 = iq4_sigma2(32, sum_of_squares(x, 32)), d, inv;
    vi l[32];

    (void)unused;
    d = fit_iq4(x, w, sigma2);
    inv = inverse_or_zero(d);
    for (int i = 0; i < 32; i++)
        l[i] = iq4_index(v_mul(inv, x[i]));
    put(out, 0, v_f16(d));
    put_nibbles(out, offsetof(struct blk_iq4_nl, qs), l);
}

V_FN void iq4_xs_top(struct exchange *e, vi *out)
{
    vf amax, d = v_div(v_neg(first_largest(e->scale, 8, &amax)), v_set(32.f)), inv = inverse_or_zero(d);

    put(out, 0, v_f16(d));
    e->d = d; /* the levels are those of the scale before it is stored */
    e->none = v_seti(0);
    for (int j = 0; j < 8; j++) {
        vi s = level_int(v_mul(inv, e->scale[j]), -32, 31), up = v_iadd(s, v_seti(32));

        e->ls[j] = s;
        put(out, (int)offsetof(struct blk_iq4_xs, scales_l) + j / 2, v_shl(v_iand(up, v_seti(15)), 4 * (j & 1)));
        put(out, (int)offsetof(struct blk_iq4_xs, scales_h) + j / 4, v_shl(v_shr(up, 4), 2 * (j & 3)));
    }
}

V_FN void iq4_xs_levels(int j, const vf *x, const struct exchange *e, vi *out)
{
    vf run = inverse_or_zero(v_mul(e->d, v_tofloat(e->ls[j])));
    vi l[32];

    for (int i = 0; i < 32; i++)
        l[i] = iq4_index(v_mul(run, x[i]));
    put_nibbles(out, (int)offsetof(struct blk_iq4_xs, qs) + 16 * j, l);
}

V_FN void iq4_xs_block(const vf *x, const vf *w, vi *out)
{
    struct exchange e;

    e.sigma2 = iq4_sigma2(256, sum_of_squares(x, 256));
    for (int j = 0; j < 8; j++)
        e.scale[j] = fit_iq4(x + 32 * j, w ? w + 32 * j : NULL, e.sigma2);
    iq4_xs_top(&e, out);
    for (int j = 0; j < 8; j++)
        iq4_xs_levels(j, x + 32 * j, &e, out);
}

#endif
