/* iq1_s and iq1_m for lanes: values in order, running sums, terms. Included by text_iq1.h. */
#ifndef SLUICE_KERNELS_TEXT_IQ1_LANES_H
#define SLUICE_KERNELS_TEXT_IQ1_LANES_H

#define V_SEARCH V_CALL

/* out[rank[i]] = v[i], lane by lane. */
V_FN void in_order(const vf *v, int n, const vi *rank, vf *out)
{
    float from[32][LANES], to[32][LANES];
    int32_t r[32][LANES];

    for (int i = 0; i < n; i++) {
        v_store(from[i], v[i]);
        v_storei(r[i], rank[i]);
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < LANES; k++)
            to[r[i][k]][k] = from[i][k];
    for (int i = 0; i < n; i++)
        out[i] = v_load(to[i]);
}
/* Running sums over the values in order, and what the high part adds to the sums
 * of q * x and q^2 when it starts at i2; p: moved up, m: moved down. */
#define IQ1S_PREFIX(name) struct iq1s_prefix name
struct iq1s_prefix {
    vf x[33], w[33], high_xp[33], high_xm[33], high_wp[33], high_wm[33];
};

V_FN void iq1s_prefix(const vf *x, const vf *w, const vi *rank, struct iq1s_prefix *f)
{
    vf low = v_set(0.875f), high = v_set(1.125f), wx[32], sorted_wx[32], sorted_w[32];

    for (int i = 0; i < 32; i++)
        wx[i] = v_mul(w[i], x[i]);
    in_order(wx, 32, rank, sorted_wx);
    in_order(w, 32, rank, sorted_w);
    f->x[0] = f->w[0] = v_set(0.f);
    for (int i = 0; i < 32; i++) {
        f->x[i + 1] = v_add(f->x[i], sorted_wx[i]);
        f->w[i + 1] = v_add(f->w[i], sorted_w[i]);
    }
    for (int i = 0; i <= 32; i++) {
        vf rest_x = v_sub(f->x[32], f->x[i]), rest_w = v_sub(f->w[32], f->w[i]);

        f->high_xp[i] = v_mul(rest_x, high);
        f->high_xm[i] = v_mul(rest_x, low);
        f->high_wp[i] = v_mul(v_mul(rest_w, high), high);
        f->high_wm[i] = v_mul(v_mul(rest_w, low), low);
    }
}

/* A candidate's sums for a split of 32 values, moved up and moved down. The levels of the two are each
 * other's negatives in reverse, so products are shared. */
struct iq1s_low { vf xp, xm, wp, wm; };
struct iq1s_sums { vf xp, xm, wp, wm; };

V_FN struct iq1s_low iq1s_low_part(const struct iq1s_prefix *f, int i1)
{
    vf low = v_set(0.875f), high = v_set(1.125f);
    struct iq1s_low l = {v_neg(v_mul(f->x[i1], low)), v_neg(v_mul(f->x[i1], high)), v_mul(v_mul(f->w[i1], low), low),
                         v_mul(v_mul(f->w[i1], high), high)};

    return l;
}

V_FN struct iq1s_sums iq1s_split(const struct iq1s_prefix *f, struct iq1s_low l, int i1, int i2)
{
    vf mid = v_set(0.125f);
    vf mid_x = v_mul(v_sub(f->x[i2], f->x[i1]), mid), mid_w = v_mul(v_mul(v_sub(f->w[i2], f->w[i1]), mid), mid);
    struct iq1s_sums s = {v_add(v_add(l.xp, mid_x), f->high_xp[i2]), v_add(v_sub(l.xm, mid_x), f->high_xm[i2]),
                          v_add(v_add(l.wp, mid_w), f->high_wp[i2]), v_add(v_add(l.wm, mid_w), f->high_wm[i2])};

    return s;
}

/* The terms of 16 values in order. Halves (the first and the last eight values of
 * the sub-block) are moved apart: kind 0 both up, 1 the second down, 2 the first
 * down, 3 both down. high: what a value adds as a high one, in each kind; mid: the
 * same for kinds 0 and 1 of a middle one (2 and 3: the negatives of 1 and 0). As a
 * low one it adds the negative (q2: the same) of the opposite kind's high. */
struct iq1m_terms {
    vf high_x[4][16], high_w[4][16], mid_x[2][16], mid_w[16];
};
#define IQ1M_TERMS(name) struct iq1m_terms name

V_FN void iq1m_terms(const vf *x, const vf *w, const vi *rank, struct iq1m_terms *f)
{
    vf less = v_set(0.875f), more = v_set(1.125f), eighth = v_set(0.125f), sx[16], sw[16], half[16], second[16];

    for (int i = 0; i < 16; i++)
        half[i] = v_set(i < 8 ? 0.f : 1.f);
    in_order(x, 16, rank, sx);
    in_order(w, 16, rank, sw);
    in_order(half, 16, rank, second);
    for (int i = 0; i < 16; i++) {
        vm is_second = v_ne(second[i], v_set(0.f));
        vf w_less = v_mul(sw[i], less), w_more = v_mul(sw[i], more), w_mid = v_mul(sw[i], eighth);
        vf x_less = v_mul(w_less, sx[i]), x_more = v_mul(w_more, sx[i]), x_mid = v_mul(w_mid, sx[i]);
        vf w2_less = v_mul(w_less, less), w2_more = v_mul(w_more, more);

        f->high_x[0][i] = x_more;
        f->high_x[1][i] = v_sel(is_second, x_less, x_more);
        f->high_x[2][i] = v_sel(is_second, x_more, x_less);
        f->high_x[3][i] = x_less;
        f->high_w[0][i] = w2_more;
        f->high_w[1][i] = v_sel(is_second, w2_less, w2_more);
        f->high_w[2][i] = v_sel(is_second, w2_more, w2_less);
        f->high_w[3][i] = w2_less;
        f->mid_x[0][i] = x_mid;
        f->mid_x[1][i] = v_sel(is_second, v_neg(x_mid), x_mid);
        f->mid_w[i] = v_mul(w_mid, eighth);
    }
}

/* high[k] of place j. */
V_FN void iq1m_high(const struct iq1m_terms *f, int j, vf *x, vf *w)
{
    for (int k = 0; k < 4; k++) {
        x[k] = f->high_x[k][j];
        w[k] = f->high_w[k][j];
    }
}

V_FN vf iq1m_mid(const struct iq1m_terms *f, int j, int kind) { return f->mid_x[kind][j]; }
V_FN vf iq1m_mid_w(const struct iq1m_terms *f, int j) { return f->mid_w[j]; }

#endif
