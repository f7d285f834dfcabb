/* The k-quant superblocks: 256 values a lane in, the block's bytes out, packed
 * into 32-bit words that begin as zeros. Each is written in steps:
 *
 *   <type>_fit     a sub-block's scale by the searches of text_search.h
 *   <type>_half    levels of the sub-block scales, and (mins) of the minimums
 *   <type>_top     the superblock's scale, what is stored of the sub-blocks'
 *   <type>_levels  a sub-block's levels with the scales as they are stored
 *
 * On a CPU a lane does them one after the other for its superblock. On a GPU a
 * sub-block is a thread's, and struct exchange is what the threads share. j: the
 * sub-block; its x and w begin at its own values. w: importance weights, or NULL. */
#ifndef SLUICE_KERNELS_TEXT_KQUANT_H
#define SLUICE_KERNELS_TEXT_KQUANT_H

#include "kernels/blocks.h"
#include "kernels/text_search.h"

/* Words of the largest block (q6_k, 210 bytes). */
#define MAX_WORDS 53

/* What the sub-blocks of a superblock tell each other. */
struct exchange {
    vf scale[16], min[16], sum[16]; /* by sub-block; sum: of its weights */
    vi ls[16], lm[16];              /* levels of scale and min */
    vf sigma2;                      /* what the weights need of all 256 values */
    vf d, dm;                       /* from top on: as they are stored */
    vi none;                        /* from top on: not 0 where the block is all zeros */
    vi odd;                         /* an odd number of words: no two blocks meet in a memory bank */
};

#ifndef V_OR
#define V_OR(place, v) (*(place) = v_ior(*(place), (v)))
#endif

/* out's byte `at` |= v; v is 0..255, or 0..65535 at an even place. */
V_FN void put(vi *out, int at, vi v)
{
    V_OR(&out[at >> 2], v_shl(v, (at & 3) * 8));
}

/* Four bytes, each 0..255, as one word. */
V_FN vi word4(const vi *b)
{
    return v_ior(v_ior(b[0], v_shl(b[1], 8)), v_ior(v_shl(b[2], 16), v_shl(b[3], 24)));
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
V_FN void put_two_bits(int j, const vi *l, vi *out)
{
    for (int i = 0; i < 16; i += 4)
        V_OR(&out[8 * (j / 8) + 4 * (j & 1) + i / 4], v_shl(word4(l + i), j & 6));
}

V_FN void q2_k_fit(int chains, int j, const vf *x, const vf *w, struct affine *f, struct exchange *e)
{
    vf wt[64];

    if (w) {
        spread_weights(16 * chains, x, w, e->sigma2, wt);
        fit_affine(chains, 16, 3, x, wt, -0.9f, 0.05f, 36, false, f);
    } else {
        for (int i = 0; i < 16 * chains; i++)
            wt[i] = v_abs(x[i]);
        fit_affine(chains, 16, 3, x, wt, -0.5f, 0.1f, 15, true, f);
    }
    for (int c = 0; c < chains; c++) {
        e->sum[j + c] = sum_of(wt + 16 * c, 16);
        e->scale[j + c] = f[c].scale;
        e->min[j + c] = f[c].min;
    }
}

V_FN void q2_k_half(bool weighted, bool mins, struct exchange *e)
{
    const vf *v = mins ? e->min : e->scale;
    vi *l = mins ? e->lm : e->ls;
    vf zero = v_set(0.f), fifteen = v_set(15.f), top, d;
    vm any;

    if (weighted) {
        d = fit_positive(16, 15, v, e->sum, l);
    } else {
        top = largest(v, 16);
        any = v_lt(zero, top);
        d = v_sel(any, v_div(top, fifteen), zero);
        for (int j = 0; j < 16; j++)
            l[j] = v_seli(any, nearest(v_mul(v_div(fifteen, top), v[j])), v_seti(0));
    }
    if (mins)
        e->dm = d;
    else
        e->d = d;
}

V_FN void q2_k_top(struct exchange *e, vi *out)
{
    put(out, offsetof(struct blk_q2_k, d), v_f16(e->d));
    put(out, offsetof(struct blk_q2_k, dmin), v_f16(e->dm));
    e->d = v_f16val(v_f16(e->d));
    e->dm = v_f16val(v_f16(e->dm));
    e->none = v_seti(0);
    for (int j = 0; j < 16; j++) {
        e->ls[j] = low8(v_ior(low8(e->ls[j]), v_shl(e->lm[j], 4)));
        put(out, (int)offsetof(struct blk_q2_k, scales) + j, e->ls[j]);
    }
}

V_FN void q2_k_levels(int j, const vf *x, struct affine f, const struct exchange *e, vi *out)
{
    vi l[16], sc = e->ls[j];

    requant_affine(16, 3, x, f, v_mul(e->d, v_tofloat(v_iand(sc, v_seti(15)))),
                   v_mul(e->dm, v_tofloat(v_shr(sc, 4))), l);
    put_two_bits(j, l, out + offsetof(struct blk_q2_k, qs) / 4);
}

V_FN vf k_sigma2(float times, vf squares)
{
    return v_div(v_mul(v_set(times), squares), v_set(256.f));
}

V_FN void q2_k_block(const vf *x, const vf *w, vi *out)
{
    struct affine f[16];
    struct exchange e;

    e.sigma2 = w ? k_sigma2(1.f, sum_of_squares(x, 256)) : v_set(0.f);
    for (int j = 0; j < 16; j += CHAINS)
        q2_k_fit(CHAINS, j, x + 16 * j, w ? w + 16 * j : NULL, f + j, &e);
    q2_k_half(w != NULL, false, &e);
    q2_k_half(w != NULL, true, &e);
    q2_k_top(&e, out);
    for (int j = 0; j < 16; j++)
        q2_k_levels(j, x + 16 * j, f[j], &e, out);
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

/* levels: of the search, for where the stored scale became 0. */
V_FN void q3_k_fit(int chains, int j, const vf *x, const vf *w, vi *levels, struct exchange *e)
{
    struct linear f[4];
    vf wt[64];

    if (!w) {
        vf scales[4];

        fit_sweeps(chains, x, levels, scales);
        for (int c = 0; c < chains; c++)
            e->scale[j + c] = scales[c];
        return;
    }
    spread_weights(16 * chains, x, w, e->sigma2, wt);
    for (int c = 0; c < chains; c++)
        e->sum[j + c] = sum_of(wt + 16 * c, 16);
    fit_linear(chains, 16, 4, x, wt, f);
    for (int c = 0; c < chains; c++) {
        e->scale[j + c] = f[c].scale;
        for (int i = 16 * c; i < 16 * c + 16; i++)
            levels[i] = linear_level(f[c], x[i], 4);
    }
}

V_FN void q3_k_top(bool weighted, struct exchange *e, vi *out)
{
    vf d;

    if (weighted) {
        struct linear f;

        fit_linear(1, 16, 32, e->scale, e->sum, &f);
        d = f.scale;
        for (int j = 0; j < 16; j++)
            e->ls[j] = linear_level(f, e->scale[j], 32);
    } else {
        vf amax, max = first_largest(e->scale, 16, &amax), inv = v_div(v_set(-32.f), max);
        vm any = v_ne(max, v_set(0.f));

        d = v_sel(any, v_div(v_set(1.f), inv), v_set(0.f));
        for (int j = 0; j < 16; j++) {
            vi l = sign8(nearest(v_mul(inv, e->scale[j])));

            l = v_iadd(v_imin(v_imax(l, v_seti(-32)), v_seti(31)), v_seti(32));
            e->ls[j] = v_seli(any, l, v_seti(0));
        }
    }
    pack_q3_scales(e->ls, out);
    put(out, offsetof(struct blk_q3_k, d), v_f16(d));
    e->d = v_f16val(v_f16(d));
    e->none = v_seti(0);
}

V_FN void q3_k_levels(int j, const vf *x, vi *levels, const struct exchange *e, vi *out)
{
    vi low[16], ones = v_seti(0x01010101);

    requant_linear(4, x, v_mul(e->d, v_tofloat(v_isub(e->ls[j], v_seti(32)))), levels);
    for (int i = 0; i < 16; i++)
        low[i] = v_iand(levels[i], v_seti(3));
    put_two_bits(j, low, out + offsetof(struct blk_q3_k, qs) / 4);
    for (int i = 0; i < 16; i += 4) /* bit i / 32 of byte i % 32: the third bit of value i */
        V_OR(&out[offsetof(struct blk_q3_k, hmask) / 4 + (unsigned)(4 * (j & 1) + i / 4)],
             v_shl(v_iand(v_shr(word4(levels + i), 2), ones), j / 2));
}

V_FN void q3_k_block(const vf *x, const vf *w, vi *out)
{
    struct exchange e;
    vi levels[256];

    e.sigma2 = w ? k_sigma2(2.f, sum_of_squares(x, 256)) : v_set(0.f);
    for (int j = 0; j < 16; j += CHAINS)
        q3_k_fit(CHAINS, j, x + 16 * j, w ? w + 16 * j : NULL, levels + 16 * j, &e);
    q3_k_top(w != NULL, &e, out);
    for (int j = 0; j < 16; j++)
        q3_k_levels(j, x + 16 * j, levels + 16 * j, &e, out);
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

/* q4_k (nmax 15) and q5_k (nmax 31). */
V_FN void k45_fit(int nmax, int chains, int j, const vf *x, const vf *w, struct affine *f, struct exchange *e)
{
    vf wt[128];

    if (w) {
        spread_weights(32 * chains, x, w, e->sigma2, wt);
        fit_affine(chains, 32, nmax, x, wt, -0.9f, 0.05f, 36, false, f);
    } else {
        for (int c = 0; c < chains; c++) {
            vf mean = v_sqrt(v_div(sum_of_squares(x + 32 * c, 32), v_set(32.f)));

            for (int i = 32 * c; i < 32 * c + 32; i++)
                wt[i] = v_add(mean, v_abs(x[i]));
        }
        if (nmax == 15)
            fit_affine(chains, 32, nmax, x, wt, -1.f, 0.1f, 20, false, f);
        else
            fit_affine(chains, 32, nmax, x, wt, -0.5f, 0.1f, 15, false, f);
    }
    for (int c = 0; c < chains; c++) {
        e->sum[j + c] = sum_of(wt + 32 * c, 32);
        e->scale[j + c] = f[c].scale;
        e->min[j + c] = f[c].min;
    }
}

V_FN void k45_half(int nmax, bool weighted, bool mins, struct exchange *e)
{
    const vf *v = mins ? e->min : e->scale;
    vi *l = mins ? e->lm : e->ls, cap = v_seti(63);
    vf zero = v_set(0.f), d;

    if (weighted) {
        d = fit_positive(8, 63, v, e->sum, l);
        for (int j = 0; j < 8 && nmax == 31; j++) /* q4_k has no such cap */
            l[j] = v_imin(l[j], cap);
    } else {
        vf top = largest(v, 8), inv = v_sel(v_lt(zero, top), v_div(v_set(63.f), top), zero);

        d = v_div(top, v_set(63.f));
        for (int j = 0; j < 8; j++)
            l[j] = v_imin(low8(nearest(v_mul(inv, v[j]))), cap);
    }
    if (mins)
        e->dm = d;
    else
        e->d = d;
}

V_FN void k45_top(struct exchange *e, vi *out)
{
    vi b[12];

    pack_k4(e->ls, e->lm, b);
    out[0] = v_ior(v_f16(e->d), v_shl(v_f16(e->dm), 16));
    for (int k = 0; k < 3; k++)
        out[1 + k] = word4(b + 4 * k);
    e->d = v_f16val(v_f16(e->d));
    e->dm = v_f16val(v_f16(e->dm));
    e->none = v_seti(0);
    for (int j = 0; j < 8; j++)
        unpack_k4(b, j, &e->ls[j], &e->lm[j]);
}

/* Four bits a value: byte i of each 64 holds values i and i + 32; q5_k has bit j
 * of byte i of qh as the fifth. */
V_FN void k45_levels(int nmax, int j, const vf *x, struct affine f, const struct exchange *e, vi *out)
{
    vi l[32], four = v_seti(0x0f0f0f0f), one = v_seti(0x01010101);
    vi *qs = out + (nmax == 15 ? offsetof(struct blk_q4_k, qs) : offsetof(struct blk_q5_k, qs)) / 4;

    requant_affine(32, nmax, x, f, v_mul(e->d, v_tofloat(e->ls[j])), v_mul(e->dm, v_tofloat(e->lm[j])), l);
    for (int i = 0; i < 32; i += 4) {
        vi word = word4(l + i);

        V_OR(&qs[8 * (j / 2) + i / 4], v_shl(v_iand(word, four), 4 * (j & 1)));
        if (nmax == 31)
            V_OR(&out[offsetof(struct blk_q5_k, qh) / 4 + (unsigned)i / 4], v_shl(v_iand(v_shr(word, 4), one), j));
    }
}

V_FN void k45_block(int nmax, const vf *x, const vf *w, vi *out)
{
    struct affine f[8];
    struct exchange e;

    e.sigma2 = w ? k_sigma2(2.f, sum_of_squares(x, 256)) : v_set(0.f);
    for (int j = 0; j < 8; j += CHAINS)
        k45_fit(nmax, CHAINS, j, x + 32 * j, w ? w + 32 * j : NULL, f + j, &e);
    k45_half(nmax, w != NULL, false, &e);
    k45_half(nmax, w != NULL, true, &e);
    k45_top(&e, out);
    for (int j = 0; j < 8; j++)
        k45_levels(nmax, j, x + 32 * j, f[j], &e, out);
}

V_FN void q4_k_block(const vf *x, const vf *w, vi *out) { k45_block(15, x, w, out); }
V_FN void q5_k_block(const vf *x, const vf *w, vi *out) { k45_block(31, x, w, out); }

V_FN void q6_k_fit(int chains, int j, const vf *x, const vf *w, vi *levels, struct exchange *e)
{
    struct linear f[4];

    fit_linear(chains, 16, 32, x, w, f);
    for (int c = 0; c < chains; c++) {
        e->scale[j + c] = f[c].scale;
        for (int i = 16 * c; i < 16 * c + 16; i++)
            levels[i] = linear_level(f[c], x[i], 32);
    }
}

V_FN void q6_k_top(struct exchange *e, vi *out)
{
    vf amax, max = first_largest(e->scale, 16, &amax), inv = v_div(v_set(-128.f), max);
    vi d = v_f16(v_div(v_set(1.f), inv));

    e->none = v_seli(v_lt(amax, v_set(GROUP_EPS)), v_seti(1), v_seti(0));
    put(out, offsetof(struct blk_q6_k, d), d);
    e->d = v_f16val(d);
    for (int j = 0; j < 16; j++) {
        e->ls[j] = sign8(v_imin(nearest(v_mul(inv, e->scale[j])), v_seti(127)));
        put(out, (int)offsetof(struct blk_q6_k, scales) + j, low8(e->ls[j]));
    }
}

/* Low nibbles, then pairs of high bits; each half of 128 values on its own. */
V_FN void q6_k_levels(int j, const vf *x, vi *levels, const struct exchange *e, vi *out)
{
    vi four = v_seti(0x0f0f0f0f), two = v_seti(0x03030303);
    int k = j % 8 / 2, at = 4 * (j & 1);

    requant_linear(32, x, v_mul(e->d, v_tofloat(e->ls[j])), levels);
    for (int i = 0; i < 16; i += 4) {
        vi word = word4(levels + i);

        V_OR(&out[16 * (j / 8) + 8 * (k & 1) + at + i / 4], v_shl(v_iand(word, four), 4 * (k >> 1)));
        V_OR(&out[(int)offsetof(struct blk_q6_k, qh) / 4 + 8 * (j / 8) + at + i / 4],
             v_shl(v_iand(v_shr(word, 4), two), 2 * k));
    }
}

/* No bit is set where e->none says so. */
V_FN void clear_none(const struct exchange *e, vi *out)
{
    vm none = v_ine(e->none, v_seti(0));

    for (int k = 0; k < MAX_WORDS && v_any(none); k++)
        out[k] = v_seli(none, v_seti(0), out[k]);
}

V_FN void q6_k_block(const vf *x, const vf *w, vi *out)
{
    struct exchange e;
    vi levels[256];

    for (int j = 0; j < 16; j += CHAINS)
        q6_k_fit(CHAINS, j, x + 16 * j, w ? w + 16 * j : NULL, levels + 16 * j, &e);
    q6_k_top(&e, out);
    for (int j = 0; j < 16; j++)
        q6_k_levels(j, x + 16 * j, levels + 16 * j, &e, out);
    clear_none(&e, out);
}

#endif
