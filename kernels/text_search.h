/* The searches behind the quantizers, in the lane vocabulary: each lane looks
 * for the scale of its own run of values. Included after a lanes_*.h file; the
 * same text is scalar C, SIMD lanes and a CUDA thread.
 *
 * Order is part of the contract: sums run over i upward, products associate
 * from the left, comparisons are strict, and a NaN fails every comparison.
 * Formulas: ggml's k-quants (llama.cpp pull request 1684 and its successors). */
#ifndef SLUICE_KERNELS_TEXT_SEARCH_H
#define SLUICE_KERNELS_TEXT_SEARCH_H

/* A constant table, and a function that is not to be inlined. */
#ifndef V_TABLE
#define V_TABLE static const __attribute__((unused))
#define V_CALL static __attribute__((noinline, unused))
#endif

#ifndef V_SHAPE
#define V_SHAPE V_FN
#endif

#ifndef V_KEEP
#define V_KEEP(a) ((void)(a))
#endif

#ifndef V_UNROLL
#define V_UNROLL
#endif

/* Below this magnitude a group counts as all zero. */
#define GROUP_EPS 1e-15f

V_FN vf sqr(vf a) { return v_mul(a, a); }

/* The integer nearest to a (ties to even) where |a| < 2^22; outside it wraps,
 * as the low 23 bits of a + 1.5 * 2^23 do. */
V_FN vi nearest(vf a)
{
    return v_isub(v_magic(a), v_seti(0x4b400000));
}

/* nearest() clamped to lo..hi, kept as the bits of 1.5 * 2^23 + level. */
V_FN vi level_bits(vf a, int lo, int hi)
{
    return v_imin(v_imax(v_magic(a), v_seti(0x4b400000 + lo)), v_seti(0x4b400000 + hi));
}

V_FN vf level(vf a, int lo, int hi)
{
    return v_sub(v_frombits(level_bits(a, lo, hi)), v_set(12582912.f));
}

V_FN vi level_int(vf a, int lo, int hi)
{
    return v_isub(level_bits(a, lo, hi), v_seti(0x4b400000));
}

/* The same where a NaN is known not to be, or its level not to be used: lanes that have
 * to look for a NaN at each value need not. */
#ifdef V_MAGIC_NUMBER
V_FN vi number_level_int(vf a, int lo, int hi)
{
    vi bits = v_imin(v_imax(V_MAGIC_NUMBER(a), v_seti(0x4b400000 + lo)), v_seti(0x4b400000 + hi));

    return v_isub(bits, v_seti(0x4b400000));
}

V_FN vf number_level(vf a, int lo, int hi)
{
    vi bits = v_imin(v_imax(V_MAGIC_NUMBER(a), v_seti(0x4b400000 + lo)), v_seti(0x4b400000 + hi));

    return v_sub(v_frombits(bits), v_set(12582912.f));
}

/* Of inv * (x - base), or inv * x, with levels from 0: where inv is no number, or infinite, or
 * 0, every level comes to 0 (a NaN's is, and infinity's low bits are 0, the least of all). With
 * inv and base 0 it does so without a NaN. */
V_FN void no_nan(vf *inv, vf *base)
{
    vm good = v_and(v_lt(v_set(0.f), v_abs(*inv)), v_lt(v_abs(*inv), v_frombits(v_seti(0x7f800000))));

    *inv = v_sel(good, *inv, v_set(0.f));
    *base = v_sel(good, *base, v_set(0.f));
}
#else
#define number_level_int level_int
#define number_level level
V_FN void no_nan(vf *inv, vf *base) { (void)inv, (void)base; }
#endif

/* Whether nearest() does not wrap; a NaN is outside. */
V_FN vm in_range(vf a)
{
    return v_lt(v_abs(a), v_set(4194304.f));
}

/* level() of what is in range, or where it does not matter: no bits have to be put right. */
V_FN vi near_level_bits(vf a, int lo, int hi)
{
    vi bits = v_bits(v_add(a, v_set(12582912.f)));

    return v_imin(v_imax(bits, v_seti(0x4b400000 + lo)), v_seti(0x4b400000 + hi));
}

V_FN vf near_level(vf a, int lo, int hi)
{
    return v_sub(v_frombits(near_level_bits(a, lo, hi)), v_set(12582912.f));
}

V_FN vf sum_of_squares(const vf *x, int n)
{
    vf s = v_set(0.f);

    for (int i = 0; i < n; i++)
        s = v_add(s, sqr(x[i]));
    return s;
}

/* The first value of the largest magnitude, and that magnitude. */
V_FN vf first_largest(const vf *x, int n, vf *magnitude)
{
    vf amax = v_set(0.f), max = v_set(0.f);

    for (int i = 0; i < n; i++) {
        vf a = v_abs(x[i]);
        vm more = v_lt(amax, a);

        amax = v_sel(more, a, amax);
        max = v_sel(more, x[i], max);
    }
    *magnitude = amax;
    return max;
}

/* x ~ scale * level + min. The levels are not kept: they are
 * level(inv * (x - base)), and needed only where a stored scale became 0. */
struct affine {
    vf scale, min; /* min: what is subtracted, i.e. -offset */
    vf inv, base;
};

/* What one chain of fit_affine carries from step to step. */
struct affine_state {
    vf max, min, least, sum_w, sum_x, best;
    vm flat, far;
};

/* The level of a value, by either way. */
V_FN vf affine_level(bool near, vf a, int nmax)
{
    return near ? near_level(a, 0, nmax) : number_level(a, 0, nmax);
}

/* Marks where some level of inv * (x - base) may be out of range: all lie between those of the least
 * and the largest x. */
V_FN void affine_mark_far(struct affine_state *s, vf inv, vf base)
{
    vm inside = v_and(in_range(v_mul(inv, v_sub(s->least, base))), in_range(v_mul(inv, v_sub(s->max, base))));

    s->far = v_or(s->far, v_not(v_or(inside, s->flat)));
}

V_FN struct affine_state affine_first_try(bool near, int n, int nmax, const vf *x, const vf *w, bool abs_error,
                                          struct affine *f)
{
    vf zero = v_set(0.f), inv, base;
    struct affine_state s;

    s.min = s.max = x[0];
    s.sum_w = w[0];
    s.sum_x = v_mul(w[0], x[0]);
    s.best = zero;
    for (int i = 1; i < n; i++) {
        s.min = v_sel(v_lt(x[i], s.min), x[i], s.min);
        s.max = v_sel(v_lt(s.max, x[i]), x[i], s.max);
        s.sum_w = v_add(s.sum_w, w[i]);
        s.sum_x = v_add(s.sum_x, v_mul(w[i], x[i]));
    }
    s.min = v_sel(v_lt(zero, s.min), zero, s.min);
    s.least = s.min;
    s.flat = v_not(v_lt(s.min, s.max));
    s.far = v_none();
    f->inv = v_div(v_set((float)nmax), v_sub(s.max, s.min));
    f->base = s.min;
    f->scale = v_div(v_set(1.f), f->inv);
    inv = f->inv;
    base = s.min;
    no_nan(&inv, &base);
    if (near)
        affine_mark_far(&s, inv, base);
    for (int i = 0; i < n; i++) {
        vf l = affine_level(near, v_mul(inv, v_sub(x[i], base)), nmax);
        vf diff = v_sub(v_add(v_mul(f->scale, l), s.min), x[i]);

        s.best = v_add(s.best, v_mul(w[i], abs_error ? v_abs(diff) : sqr(diff)));
    }
    return s;
}

/* fit_affine() by levels that must be in range (near), or by any. Returns whether all were;
 * where not, nothing is found. */
V_FN bool affine_search(bool near, int chains, int n, int nmax, const vf *x, const vf *w, float rmin, float rdelta,
                        int nstep, bool abs_error, struct affine *f)
{
    vm far = v_none();
    vf zero = v_set(0.f), keep[4][32];
    struct affine_state s[4];

    for (int c = 0; c < chains; c++)
        s[c] = affine_first_try(near, n, nmax, x + c * n, w + c * n, abs_error, &f[c]);
    for (int step = 0; step <= nstep; step++) {
        vf top = v_add(v_add(v_set(rmin), v_mul(v_set(rdelta), v_set((float)step))), v_set((float)nmax));
        vf inv[4], sum_l[4], sum_l2[4], sum_xl[4], err[4], det[4], scale[4], off[4], by[4], base[4];

        for (int c = 0; c < chains; c++) {
            by[c] = inv[c] = v_div(top, v_sub(s[c].max, s[c].min));
            base[c] = s[c].min;
            no_nan(&by[c], &base[c]);
            if (near)
                affine_mark_far(&s[c], by[c], base[c]);
            sum_l[c] = sum_l2[c] = sum_xl[c] = err[c] = zero;
        }
        for (int i = 0; i < n; i++)
            for (int c = 0; c < chains; c++) {
                vf xi = x[c * n + i], l = affine_level(near, v_mul(by[c], v_sub(xi, base[c])), nmax);
                vf wl = v_mul(w[c * n + i], l);

                keep[c][i] = l;
                sum_l[c] = v_add(sum_l[c], wl);
                sum_l2[c] = v_add(sum_l2[c], v_mul(wl, l));
                sum_xl[c] = v_add(sum_xl[c], v_mul(wl, xi));
            }
        for (int c = 0; c < chains; c++) {
            vm positive;

            det[c] = v_sub(v_mul(s[c].sum_w, sum_l2[c]), v_mul(sum_l[c], sum_l[c]));
            scale[c] = v_div(v_sub(v_mul(s[c].sum_w, sum_xl[c]), v_mul(s[c].sum_x, sum_l[c])), det[c]);
            off[c] = v_div(v_sub(v_mul(sum_l2[c], s[c].sum_x), v_mul(sum_l[c], sum_xl[c])), det[c]);
            positive = v_lt(zero, off[c]);
            if (v_any(positive)) {
                off[c] = v_sel(positive, zero, off[c]);
                scale[c] = v_sel(positive, v_div(sum_xl[c], sum_l2[c]), scale[c]);
            }
        }
        for (int i = 0; i < n; i++)
            for (int c = 0; c < chains; c++) {
                vf diff = v_sub(v_add(v_mul(scale[c], keep[c][i]), off[c]), x[c * n + i]);

                err[c] = v_add(err[c], v_mul(w[c * n + i], abs_error ? v_abs(diff) : sqr(diff)));
            }
        for (int c = 0; c < chains; c++) {
            vm better = v_and(v_and(v_lt(zero, det[c]), v_lt(err[c], s[c].best)), v_not(s[c].flat));

            s[c].best = v_sel(better, err[c], s[c].best);
            f[c].inv = v_sel(better, inv[c], f[c].inv);
            f[c].base = v_sel(better, s[c].min, f[c].base);
            f[c].scale = v_sel(better, scale[c], f[c].scale);
            s[c].min = v_sel(better, off[c], s[c].min);
        }
    }
    for (int c = 0; c < chains; c++) {
        f[c].scale = v_sel(s[c].flat, zero, f[c].scale);
        f[c].inv = v_sel(s[c].flat, zero, f[c].inv);
        f[c].min = v_neg(s[c].min);
        far = v_or(far, s[c].far);
    }
    return !v_any(far);
}

#ifdef V_NEAR_FIRST
V_CALL void affine_anew(int chains, int n, int nmax, const vf *x, const vf *w, float rmin, float rdelta, int nstep,
                        bool abs_error, struct affine *f)
{
    (void)affine_search(false, chains, n, nmax, x, w, rmin, rdelta, nstep, abs_error, f);
}
#endif

/* Fits of levels 0..nmax with a minimum <= 0 to `chains` runs of n values, one
 * after the other in x; w: their weights. A first try, then steps 0..nstep of
 * nmax + rmin + rdelta * step levels over the range, each refined by weighted
 * least squares. abs_error: the error is the sum of w * |diff| in place of
 * w * diff^2. The chains do not touch each other: several of them hide the latency
 * of one (chains <= 4, n <= 32). */
V_FN void fit_affine(int chains, int n, int nmax, const vf *x, const vf *w, float rmin, float rdelta, int nstep,
                     bool abs_error, struct affine *f)
{
#ifdef V_NEAR_FIRST
    if (!affine_search(true, chains, n, nmax, x, w, rmin, rdelta, nstep, abs_error, f))
        affine_anew(chains, n, nmax, x, w, rmin, rdelta, nstep, abs_error, f);
#else
    (void)affine_search(false, chains, n, nmax, x, w, rmin, rdelta, nstep, abs_error, f);
#endif
}

/* x ~ scale * level with levels -nmax..nmax-1. The levels are
 * level(inv * x) + nmax, or all 0 where the group counts as zero. */
struct linear {
    vf scale, inv;
    vm zero;
};

/* Fits without minimum (all levels are in range, but where the group counts as zero and they
 * are not used) to `chains` runs of n values: 19 spacings around -nmax / (first largest value). w:
 * weights, or NULL for x^2. Chains as for fit_affine. */
V_FN void fit_linear(int chains, int n, int nmax, const vf *x, const vf *w, struct linear *f)
{
    vf none = v_set(0.f), max[4], best[4], wi[128], wx[128];

    for (int i = 0; i < chains * n; i++) {
        wi[i] = w ? w[i] : sqr(x[i]);
        wx[i] = v_mul(wi[i], x[i]);
        V_KEEP(wi[i]);
        V_KEEP(wx[i]);
    }
    for (int c = 0; c < chains; c++) {
        vf amax;

        max[c] = first_largest(x + c * n, n, &amax);
        f[c].zero = v_lt(amax, v_set(GROUP_EPS));
        f[c].scale = f[c].inv = best[c] = none;
        V_KEEP(max[c]);
    }
    for (int t = 0; t < 19; t++) {
        int is = t == 0 ? 0 : t < 10 ? t - 10 : t - 9; /* 0, -9..-1, 1..9 */
        vf top = v_add(v_set((float)nmax), v_mul(v_set(0.1f), v_set((float)is)));
        vf inv[4], sum_lx[4], sum_l2[4];

        for (int c = 0; c < chains; c++) {
            inv[c] = v_div(v_neg(top), max[c]);
            sum_lx[c] = sum_l2[c] = none;
        }
        for (int i = 0; i < n; i++)
            for (int c = 0; c < chains; c++) {
                vf l = near_level(v_mul(inv[c], x[c * n + i]), -nmax, nmax - 1);

                sum_lx[c] = v_add(sum_lx[c], v_mul(wx[c * n + i], l));
                sum_l2[c] = v_add(sum_l2[c], v_mul(v_mul(wi[c * n + i], l), l));
            }
        for (int c = 0; c < chains; c++) {
            vf scale = v_div(sum_lx[c], sum_l2[c]);
            vm better;

            if (t == 0) {
                f[c].scale = v_sel(v_ne(sum_l2[c], none), scale, none);
                f[c].inv = inv[c];
                best[c] = v_mul(f[c].scale, sum_lx[c]);
                continue;
            }
            better = v_and(v_lt(none, sum_l2[c]), v_lt(v_mul(best[c], sum_l2[c]), sqr(sum_lx[c])));
            f[c].scale = v_sel(better, scale, f[c].scale);
            f[c].inv = v_sel(better, inv[c], f[c].inv);
            best[c] = v_sel(better, v_mul(scale, sum_lx[c]), best[c]);
        }
    }
    for (int c = 0; c < chains; c++)
        f[c].scale = v_sel(f[c].zero, none, f[c].scale);
}

V_FN vi linear_level(struct linear f, vf x, int nmax)
{
    vi l = v_isub(near_level_bits(v_mul(f.inv, x), -nmax, nmax - 1), v_seti(0x4b400000 - nmax));

    return v_seli(f.zero, v_seti(0), l);
}

/* Levels -4..3 for `chains` (<= 4) runs of 16 values, weights x^2: rounding,
 * then up to five sweeps that move one level at a time. A sweep that moves
 * nothing stays without effect when repeated, so chains and lanes may stop
 * together. Writes level + 4 (0 for a zero run) and the scales. */
V_FN void fit_sweeps(int chains, const vf *x, vi *out, vf *scales)
{
    vf none = v_set(0.f), l[4][16], sum_lx[4], sum_l2[4];
    vm zero[4];

    for (int c = 0; c < chains; c++) {
        vf amax, inv = v_div(v_set(-4.f), first_largest(x + 16 * c, 16, &amax));

        zero[c] = v_lt(amax, v_set(GROUP_EPS));
        sum_lx[c] = sum_l2[c] = none;
        for (int i = 0; i < 16; i++) {
            vf xi = x[16 * c + i], w = sqr(xi);

            l[c][i] = level(v_mul(inv, xi), -4, 3);
            sum_lx[c] = v_add(sum_lx[c], v_mul(v_mul(w, xi), l[c][i]));
            sum_l2[c] = v_add(sum_l2[c], v_mul(v_mul(w, l[c][i]), l[c][i]));
        }
    }
    for (int sweep = 0; sweep < 5; sweep++) {
        vm moved = v_none();

        for (int i = 0; i < 16; i++)
            for (int c = 0; c < chains; c++) {
                vf xi = x[16 * c + i], w = sqr(xi), wx = v_mul(w, xi), old = l[c][i];
                vf slx = v_sub(sum_lx[c], v_mul(wx, old)), sl2 = v_sub(sum_l2[c], v_mul(v_mul(w, old), old));
                vf to = number_level(v_div(v_mul(xi, sl2), slx), -4, 3); /* a NaN: slx is not above 0 */
                vm take = v_and(v_lt(none, slx), v_ne(to, old));

                slx = v_add(slx, v_mul(wx, to));
                sl2 = v_add(sl2, v_mul(v_mul(w, to), to));
                take = v_and(take, v_lt(none, sl2));
                take = v_and(take, v_lt(v_mul(sqr(sum_lx[c]), sl2), v_mul(sqr(slx), sum_l2[c])));
                l[c][i] = v_sel(take, to, old);
                sum_lx[c] = v_sel(take, slx, sum_lx[c]);
                sum_l2[c] = v_sel(take, sl2, sum_l2[c]);
                moved = v_or(moved, take);
            }
        if (!v_any(moved))
            break;
    }
    for (int c = 0; c < chains; c++) {
        vf scale = v_sel(v_lt(none, sum_l2[c]), v_div(sum_lx[c], sum_l2[c]), none);

        for (int i = 0; i < 16; i++)
            out[16 * c + i] = v_seli(zero[c], v_seti(0), v_iadd(level_int(l[c][i], -4, 3), v_seti(4)));
        scales[c] = v_sel(zero[c], none, scale);
    }
}

/* Levels for n sub-block scales or minimums, or values (n <= 32), weights w: nine
 * spacings by error, then up to five sweeps. A level is a byte: what does not
 * fit wraps. scales: of the levels. Chains (<= 4) as for fit_sweeps, each with its own x, w and out. */
V_FN void fit_positives(int chains, int n, int nmax, const vf *const *x, const vf *const *w, vi *const *out, vf *scales)
{
    vf none = v_set(0.f), max[4], best[4], inv[4], sum_lx[4], sum_l2[4];
    vi byte = v_seti(255), top = v_seti(nmax);

    for (int c = 0; c < chains; c++) {
        max[c] = best[c] = sum_lx[c] = sum_l2[c] = none;
        for (int i = 0; i < n; i++)
            max[c] = v_sel(v_lt(x[c][i], max[c]), max[c], x[c][i]);
        inv[c] = v_div(v_set((float)nmax), max[c]);
    }
    for (int t = 0; t < 9; t++) {
        int is = t == 0 ? 0 : t < 5 ? t - 5 : t - 4; /* 0, -4..-1, 1..4 */
        vf trial[4], step[4], err[4];

        for (int c = 0; c < chains; c++) {
            trial[c] = v_div(v_add(v_mul(v_set(0.1f), v_set((float)is)), v_set((float)nmax)), max[c]);
            step[c] = v_div(v_set(1.f), trial[c]);
            err[c] = none;
        }
        for (int i = 0; i < n; i++)
            for (int c = 0; c < chains; c++) {
                vi l = nearest(v_mul(trial[c], x[c][i]));
                vf diff;

                l = t == 0 ? v_iand(l, byte) : v_imin(l, top);
                diff = v_sub(x[c][i], v_mul(step[c], v_tofloat(l)));
                err[c] = v_add(err[c], v_mul(v_mul(w[c][i], diff), diff));
            }
        for (int c = 0; c < chains; c++) {
            vm better;

            if (t == 0) {
                best[c] = err[c];
                continue;
            }
            better = v_lt(err[c], best[c]);
            best[c] = v_sel(better, err[c], best[c]);
            inv[c] = v_sel(better, trial[c], inv[c]);
        }
    }
    for (int i = 0; i < n; i++)
        for (int c = 0; c < chains; c++) {
            vi l = v_imin(nearest(v_mul(inv[c], x[c][i])), top);
            vf lf = v_tofloat(l);

            out[c][i] = v_iand(l, byte);
            sum_lx[c] = v_add(sum_lx[c], v_mul(v_mul(w[c][i], x[c][i]), lf));
            sum_l2[c] = v_add(sum_l2[c], v_mul(v_mul(w[c][i], lf), lf));
        }
    for (int sweep = 0; sweep < 5; sweep++) {
        vm moved = v_none();

        for (int i = 0; i < n; i++)
            for (int c = 0; c < chains; c++) {
                vf l = v_tofloat(out[c][i]), wx = v_mul(w[c][i], x[c][i]), tf;
                vf slx = v_sub(sum_lx[c], v_mul(wx, l)), sl2 = v_sub(sum_l2[c], v_mul(v_mul(w[c][i], l), l));
                vi to = v_imin(nearest(v_div(v_mul(x[c][i], sl2), slx)), top);
                vm take = v_and(v_and(v_lt(none, slx), v_lt(none, sl2)), v_ine(to, out[c][i]));

                tf = v_tofloat(to);
                slx = v_add(slx, v_mul(wx, tf));
                sl2 = v_add(sl2, v_mul(v_mul(w[c][i], tf), tf));
                take = v_and(take, v_lt(v_mul(sqr(sum_lx[c]), sl2), v_mul(sqr(slx), sum_l2[c])));
                out[c][i] = v_seli(take, v_iand(to, byte), out[c][i]);
                sum_lx[c] = v_sel(take, slx, sum_lx[c]);
                sum_l2[c] = v_sel(take, sl2, sum_l2[c]);
                moved = v_or(moved, take);
            }
        if (!v_any(moved))
            break;
    }
    for (int c = 0; c < chains; c++) {
        vm zero = v_lt(max[c], v_set(GROUP_EPS));

        for (int i = 0; i < n; i++)
            out[c][i] = v_seli(zero, v_seti(0), out[c][i]);
        scales[c] = v_sel(zero, none, v_sel(v_lt(none, sum_l2[c]), v_div(sum_lx[c], sum_l2[c]), none));
    }
}

V_FN vf fit_positive(int n, int nmax, const vf *x, const vf *w, vi *out)
{
    vf scale;

    fit_positives(1, n, nmax, &x, &w, &out, &scale);
    return scale;
}

#endif
