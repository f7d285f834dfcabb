/* Which places (i1, i2) of iq1_s and iq1_m may have a split whose score is as high as another's, by running sums, before any
 * is summed as the reference sums it. Of 561 and 153 places with two and four kinds each, one or two splits may.
 * Included by text_iq1_lanes.h and text_iq1_near.h. */
#ifndef SLUICE_KERNELS_TEXT_IQ1_BOUND_H
#define SLUICE_KERNELS_TEXT_IQ1_BOUND_H

/* On a GPU a magnitude or a sign costs nothing where the compiler knows of it. Of lanes, columns are plain arrays. */
#ifdef V_COLUMNS
V_FN vf iq1_size(vf a) { return fabsf(a); }
V_FN vf iq1_larger(vf a, vf b) { return fmaxf(a, b); }
#else
#define V_SPOT(i) (i)
V_FN vf iq1_size(vf a) { return v_abs(a); }
V_FN vf iq1_larger(vf a, vf b) { return v_max(a, b); }
#endif

/* Running sums over n values in order (16: iq1_m, 32: iq1_s), up to each place: of w * x, of w, and for iq1_m of w where
 * those of the second half count as negative. A value's level falls by 1 where it leaves the high part,
 * and again where it leaves the middle, so a split's sums follow from those at i1 and at i2. They and the reference's sums
 * differ by less than 128 roundings, each of at most 2^-24 of what all terms' magnitudes add up to;
 * slack is 2^-16 of that. */
#define IQ1_SLACK 0x1p-16f
struct iq1_near {
    const vf *x, *w, *v; /* columns of n + 1 */
    vf eighth[2];        /* an eighth of the sum of w * x, and of the first half's sum less the second's: levels move by
                          * 1 / 8, up or down, all alike or the halves apart, and a split's sum by this */
    vf all, all_w;       /* sums of the magnitudes of w * x, and of w */
};

V_FN vm iq1_between(float low, vf a, float high) { return v_and(v_lt(v_set(low), a), v_lt(a, v_set(high))); }

/* Whether no number is so large or small that roundings are not what they usually are. A value is below 2^64 then, since the
 * square of a larger one makes its weights infinite: what a subnormal weight loses, times a value, is far below slack. */
V_FN vm iq1_usual(const struct iq1_near *f)
{
    return v_and(iq1_between(0x1p-45f, f->all, 0x1p45f), iq1_between(0x1p-36f, f->all_w, 0x1p36f));
}

/* Kind 0: moved up, the last one: moved down; iq1_m's two between have the halves apart. */
V_SHAPE int iq1_pairs(int n) { return n == 16 ? 2 : 1; }

/* A split's score is (u + a)^2 / (m + e) in kind 0 and (u - a)^2 / (m - e) in the last kind, and so, with others in place of
 * a and e, in the two between. So one of two is L or more where u^2 - L m + a^2 + |2 a u - L e| is 0 or more. u, m, e and
 * 2 a u - L e are a number less one of i1's and one of i2's (m: more one of i1's), and u^2 has the product of two such besides.
 * What is rounded here, and slack, moves the whole by less than 2^-13 of all^2 + L all_w, which is added to it. */
struct iq1_row {
    vf twice, rest, turn[2]; /* rest: what i1 has in it for the first pair, turn: in 2 a u - L e */
};

V_FN vf iq1_turn(const struct iq1_near *f, vf least, int i, int k)
{
    const vf *w = k ? f->v : f->w;

    return v_sub(v_mul(v_mul(f->eighth[k], v_set(2.f)), f->x[V_SPOT(i)]), v_mul(v_mul(least, v_set(0.25f)), w[V_SPOT(i)]));
}

V_FN struct iq1_row iq1_row_of(int n, const struct iq1_near *f, vf least, int i1)
{
    vf added = v_mul(v_add(sqr(f->all), v_mul(least, f->all_w)), v_set(8 * IQ1_SLACK));
    vf u = v_sub(f->x[V_SPOT(n)], f->x[V_SPOT(i1)]);
    vf m = v_add(v_mul(f->w[V_SPOT(n)], v_set(1.015625f)), f->w[V_SPOT(i1)]), zero = v_set(0.f);
    struct iq1_row r = {v_add(u, u), v_add(v_add(v_sub(sqr(u), v_mul(least, m)), added), sqr(f->eighth[0])), {zero, zero}};

    V_UNROLL
    for (int k = 0; k < iq1_pairs(n); k++)
        r.turn[k] = v_sub(iq1_turn(f, least, n, k), iq1_turn(f, least, i1, k));
    return r;
}

/* What i2 has in the first pair's. */
V_FN vf iq1_rest(const struct iq1_near *f, vf least, int i2)
{
    return v_add(sqr(f->x[V_SPOT(i2)]), v_mul(least, f->w[V_SPOT(i2)]));
}

/* The whole of (i1, i2) but the row's rest, of the larger pair: x2, rest and turn are i2's running sum and what it has in the whole. */
V_FN vf iq1_over(int n, const struct iq1_near *f, const struct iq1_row *r, vf x2, vf rest, const vf *turn)
{
    vf over = iq1_size(v_sub(r->turn[0], turn[0]));

    if (iq1_pairs(n) == 2)
        over = iq1_larger(over, v_add(iq1_size(v_sub(r->turn[1], turn[1])), v_sub(sqr(f->eighth[1]), sqr(f->eighth[0]))));
    return v_add(v_sub(rest, v_mul(r->twice, x2)), over);
}

#endif
