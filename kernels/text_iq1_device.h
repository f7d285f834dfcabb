/* iq1_s and iq1_m for a GPU's thread: what data indexes is in columns of shared memory, and
 * splits are judged by running sums (text_iq1_near.h) before any is summed as on the processor. Included by text_iq1.h. */
#ifndef SLUICE_KERNELS_TEXT_IQ1_DEVICE_H
#define SLUICE_KERNELS_TEXT_IQ1_DEVICE_H

#include "kernels/text_iq1_near.h"

/* Places in ascending order: a value comes after those that are smaller, and after
 * equal ones before it. */
V_FN void rank_values(const vf *x, int n, vi *rank)
{
    for (int i = 0; i < n; i++)
        rank[i] = v_seti(i);
    V_UNROLL
    for (int i = 1; i < n; i++)
        V_UNROLL
        for (int j = 0; j < i; j++) {
            vi one = v_seli(v_lt(x[i], x[j]), v_seti(1), v_seti(0));

            rank[i] = v_isub(rank[i], one);
            rank[j] = v_iadd(rank[j], one);
        }
}

V_FN void in_order(const vf *v, int n, const vi *rank, float *to)
{
    for (int i = 0; i < n; i++)
        to[V_SPOT(rank[i])] = v[i];
}

#define V_SEARCH V_FN

/* Of those that all splits in turn are to tell, all places are looked at. */
struct iq1_places;
#define iq1_all ((const struct iq1_places *)0)
V_FN int iq1_from(const struct iq1_places *all, int i1, int i2)
{
    (void)all, (void)i1;
    return i2;
}

/* ---- iq1_s: running sums over the values in order */

struct iq1s_prefix {
    float *x, *w; /* columns of 33; the high parts are made where they are needed */
    vf all, all_w; /* what magnitudes add up to */
};
#define IQ1S_PREFIX(name) V_SPOTS(name##_spots, 66); struct iq1s_prefix name = {.x = name##_spots, .w = name##_spots + V_SPOT(33)}

V_FN void iq1s_prefix(const vf *x, const vf *w, const vi *rank, struct iq1s_prefix *f)
{
    vf wx[32], sum_x = v_set(0.f), sum_w = sum_x;

    for (int i = 0; i < 32; i++)
        wx[i] = v_mul(w[i], x[i]);
    in_order(wx, 32, rank, f->x + V_SPOT(1));
    in_order(w, 32, rank, f->w + V_SPOT(1));
    f->x[0] = f->w[0] = f->all = f->all_w = v_set(0.f);
    V_UNROLL
    for (int i = 1; i <= 32; i++) {
        f->all = v_add(f->all, fabsf(f->x[V_SPOT(i)]));
        f->all_w = v_add(f->all_w, fabsf(f->w[V_SPOT(i)]));
        f->x[V_SPOT(i)] = sum_x = v_add(sum_x, f->x[V_SPOT(i)]);
        f->w[V_SPOT(i)] = sum_w = v_add(sum_w, f->w[V_SPOT(i)]);
    }
}

/* A candidate's sums for a split of 32 values, moved up (p) and moved down (m). The levels of the two are
 * each other's negatives in reverse, so products are shared. */
struct iq1s_low { vf x1, w1, xp, xm, wp, wm, all_x, all_w; };
struct iq1s_sums { vf xp, xm, wp, wm; };

V_FN struct iq1s_low iq1s_low_part(const struct iq1s_prefix *f, int i1)
{
    vf low = v_set(0.875f), high = v_set(1.125f), x1 = f->x[V_SPOT(i1)], w1 = f->w[V_SPOT(i1)];
    struct iq1s_low l = {x1, w1, v_neg(v_mul(x1, low)), v_neg(v_mul(x1, high)), v_mul(v_mul(w1, low), low),
                         v_mul(v_mul(w1, high), high), f->x[V_SPOT(32)], f->w[V_SPOT(32)]};

    return l;
}

V_FN struct iq1s_sums iq1s_split(const struct iq1s_prefix *f, struct iq1s_low l, int i1, int i2)
{
    vf low = v_set(0.875f), high = v_set(1.125f), mid = v_set(0.125f);
    vf x2 = f->x[V_SPOT(i2)], w2 = f->w[V_SPOT(i2)], rest_x = v_sub(l.all_x, x2), rest_w = v_sub(l.all_w, w2);
    vf mid_x = v_mul(v_sub(x2, l.x1), mid), mid_w = v_mul(v_mul(v_sub(w2, l.w1), mid), mid);
    struct iq1s_sums s = {v_add(v_add(l.xp, mid_x), v_mul(rest_x, high)), v_add(v_sub(l.xm, mid_x), v_mul(rest_x, low)),
                          v_add(v_add(l.wp, mid_w), v_mul(v_mul(rest_w, high), high)),
                          v_add(v_add(l.wm, mid_w), v_mul(v_mul(rest_w, low), low))};

    (void)i1;
    return s;
}

V_CALL void iq1s_search(const struct iq1s_prefix *f, struct iq1_best *out);

V_FN struct iq1_near iq1s_near(const struct iq1s_prefix *f)
{
    struct iq1_near n = {.x = f->x, .w = f->w, .eighth = {v_mul(f->x[V_SPOT(32)], 0.125f)}, .all = f->all, .all_w = f->all_w};

    return n;
}

/* Sums of one split. */
V_FN void iq1s_sums_of(const struct iq1s_prefix *f, uint32_t id, vf *sum_x, vf *sum_w)
{
    struct iq1s_sums s = iq1s_split(f, iq1s_low_part(f, iq1_i1(id)), iq1_i1(id), iq1_i2(id));

    *sum_x = id >> 12 ? s.xm : s.xp;
    *sum_w = id >> 12 ? s.wm : s.wp;
}

/* Of the listed splits the one that all in turn would leave; returns whether they tell. */
V_FN bool iq1s_take(const struct iq1s_prefix *f, const struct iq1_list *l, vf least, struct iq1_best *b)
{
    struct iq1_taken t = iq1_untaken(least);

    if (l->n > IQ1_LIST)
        return false;
    V_ROLLED
    for (int i = l->n - 1; i >= 0; i--) {
        uint32_t id = iq1_get(l, i);
        vf x, w;

        iq1s_sums_of(f, id, &x, &w);
        iq1_next(&t, id, x, w);
    }
    *b = t.b;
    return t.known;
}

V_FN struct iq1_best iq1s_best(const struct iq1s_prefix *f, vm small)
{
    struct iq1_near n = iq1s_near(f);
    struct iq1_best b = iq1_start();

    if (small)
        return b;
    if (iq1_usual(&n)) {
        vf least;
        struct iq1_list l = iq1_look(32, &n, &least);

        if (iq1s_take(f, &l, least, &b))
            return b;
    }
    iq1s_search(f, &b);
    return b;
}

/* ---- iq1_m: values and weights in order, and where the second half's are */

struct iq1m_terms {
    float *x, *w; /* columns of 16; running sums stand behind them */
    uint32_t second;
};
#define IQ1M_COLUMNS 83
#define IQ1M_TERMS(name)                                                                                              \
    V_SPOTS(name##_spots, IQ1M_COLUMNS);                                                                              \
    struct iq1m_terms name = {.x = name##_spots, .w = name##_spots + V_SPOT(16)}

V_FN void iq1m_terms(const vf *x, const vf *w, const vi *rank, struct iq1m_terms *f)
{
    in_order(x, 16, rank, f->x);
    in_order(w, 16, rank, f->w);
    f->second = 0;
    for (int i = 8; i < 16; i++)
        f->second |= 1u << rank[i];
}

/* What place j adds as a high value, in each kind: 0 both halves up, 1 the second down, 2 the first
 * down, 3 both down. As a low one it adds the negative (q2: the same) of the opposite kind's. */
V_FN void iq1m_high(const struct iq1m_terms *f, int j, vf *x, vf *w)
{
    bool second = f->second >> j & 1;
    vf value = f->x[V_SPOT(j)], less = v_mul(f->w[V_SPOT(j)], 0.875f), more = v_mul(f->w[V_SPOT(j)], 1.125f);

    x[0] = v_mul(more, value);
    x[3] = v_mul(less, value);
    w[0] = v_mul(more, 1.125f);
    w[3] = v_mul(less, 0.875f);
    x[1] = second ? x[3] : x[0];
    x[2] = second ? x[0] : x[3];
    w[1] = second ? w[3] : w[0];
    w[2] = second ? w[0] : w[3];
}

/* As a middle one, in kind 0 or 1 (2 and 3: the negatives of 1 and 0). */
V_FN vf iq1m_mid(const struct iq1m_terms *f, int j, int kind)
{
    vf m = v_mul(v_mul(f->w[V_SPOT(j)], 0.125f), f->x[V_SPOT(j)]);

    return kind && f->second >> j & 1 ? v_neg(m) : m;
}

V_FN vf iq1m_mid_w(const struct iq1m_terms *f, int j) { return v_mul(v_mul(f->w[V_SPOT(j)], 0.125f), 0.125f); }

/* Sums of one split, in order. */
V_FN void iq1m_split(const struct iq1m_terms *f, uint32_t id, vf *sum_x, vf *sum_w)
{
    uint32_t low = (1u << iq1_i1(id)) - 1, mid = low ^ ((1u << iq1_i2(id)) - 1);
    uint32_t down = (id >> 12 & 1 ? f->second : 0) | (id >> 13 & 1 ? ~f->second : 0);
    uint32_t more = ~(low ^ down), negative = low | (mid & down);
    vf x = v_set(0.f), w = x;

    V_ROLLED
    for (int from = 0; from < 16; from += 8, mid >>= 8, more >>= 8, negative >>= 8) /* all at once would take registers */
        V_UNROLL
        for (int j = 0; j < 8; j++) {
            vf by = mid >> j & 1 ? 0.125f : more >> j & 1 ? 1.125f : 0.875f;
            vf weighted = v_mul(f->w[V_SPOT(from + j)], by), product = v_mul(weighted, f->x[V_SPOT(from + j)]);

            x = v_add(x, sl_float(sl_bits(product) ^ (negative << (31 - j) & 0x80000000)));
            w = v_add(w, v_mul(weighted, by));
        }
    *sum_x = x;
    *sum_w = w;
}

/* Running sums. */
V_FN struct iq1_near iq1m_near(const struct iq1m_terms *f)
{
    float *x = f->x + V_SPOT(32), *w = f->x + V_SPOT(49), *v = f->x + V_SPOT(66);
    vf zero = v_set(0.f), sum_x = zero, sum_w = zero, sum_v = zero, halves = zero;
    struct iq1_near n = {.x = x, .w = w, .v = v, .all = zero, .all_w = zero};

    x[0] = w[0] = v[0] = zero;
    V_UNROLL
    for (int j = 0; j < 16; j++) {
        vf weight = f->w[V_SPOT(j)], p = v_mul(weight, f->x[V_SPOT(j)]);
        uint32_t second = f->second << (31 - j) & 0x80000000;

        x[V_SPOT(j + 1)] = sum_x = v_add(sum_x, p);
        w[V_SPOT(j + 1)] = sum_w = v_add(sum_w, weight);
        v[V_SPOT(j + 1)] = sum_v = v_add(sum_v, sl_float(sl_bits(weight) ^ second));
        halves = v_add(halves, sl_float(sl_bits(p) ^ second));
        n.all = v_add(n.all, fabsf(p));
        n.all_w = v_add(n.all_w, fabsf(weight));
    }
    n.eighth[0] = v_mul(sum_x, 0.125f);
    n.eighth[1] = v_mul(halves, 0.125f);
    return n;
}

/* Of the listed splits the one that all in turn would leave; returns whether they tell. */
V_FN bool iq1m_take(const struct iq1m_terms *f, const struct iq1_list *l, vf least, struct iq1_best *b)
{
    struct iq1_taken t = iq1_untaken(least);

    if (l->n > IQ1_LIST)
        return false;
    V_ROLLED
    for (int i = l->n - 1; i >= 0; i--) {
        uint32_t id = iq1_get(l, i);
        vf x, w;

        iq1m_split(f, id, &x, &w);
        iq1_next(&t, id, x, w);
    }
    *b = t.b;
    return t.known;
}

V_CALL void iq1m_search(const struct iq1m_terms *f, struct iq1_best *b);

V_FN struct iq1_best iq1m_best(const struct iq1m_terms *f, vm small)
{
    struct iq1_best b = iq1_start();
    struct iq1_near n;

    if (small)
        return b;
    n = iq1m_near(f);
    if (iq1_usual(&n)) {
        vf least;
        struct iq1_list l = iq1_look(16, &n, &least);

        if (iq1m_take(f, &l, least, &b))
            return b;
    }
    iq1m_search(f, &b);
    return b;
}

#endif
