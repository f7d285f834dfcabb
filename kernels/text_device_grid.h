/* A GPU thread's steps of the types on grids, before, between and after the searches that
 * text_queue.h shares out. Included by text_device.h. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_GRID_H
#define SLUICE_KERNELS_TEXT_DEVICE_GRID_H

/* Types on grids: all that comes before the searches for points. */
V_FN void queue_fit(int type, int j, const vf *w, int tid, struct device_thread *t, struct device_super *s, float *pool)
{
    const struct grid_kind kind = grid_kind_of(type);
    struct device_queue q = queue_of(type, pool, s);
    struct exchange *e = &s[tid / device_subs(type)].e;
    vf wt[32];

    if (type == SL_TYPE_IQ1_S) {
        iq1_s_begin(j, t->x, w, e, wt, &t->iq1);
    } else if (type == SL_TYPE_IQ1_M) {
        iq1_m_begin(j, t->x, w, e, wt, &t->iq1);
    } else {
        t->range = grid_begin(&kind, t->x, w, e->sigma2, &t->sub);
        grid_start(&kind, &t->sub, &t->best);
        t->off = kind.again == AGAIN_IF_OFF ? 255 : 0;
        t->places.off = 0;
        t->all = v_set(0.f);
        V_UNROLL
        for (int i = 0; i < kind.n; i++)
            t->all = v_add(t->all, v_abs(t->sub.x[i]));
    }
    V_UNROLL
    for (int i = 0; i < queue_values(type) && !queue_runs(type); i++) {
        q.x[V_SPOT(i) + tid] = queue_iq1(type) ? t->x[i] : t->sub.x[i];
        q.w[V_SPOT(i) + tid] = queue_iq1(type) ? wt[i] : v_sqrt(t->sub.w[i]);
    }
}

/* The values of groups in a thread's own columns. */
V_FN void queue_values_of(const float *column, int n, int tid, vf *out)
{
    for (int i = 0; i < n; i++)
        out[i] = column[V_SPOT(i) + tid];
}

/* grid_code() of a group of values not below 0, where no rounding wraps and nothing is a NaN: twice each level as a number,
 * put together as numbers, which is exact. */
V_FN vi group_code(const struct grid_kind *kind, const vf *x, vf inv)
{
    const float place = kind->bits == 2 ? 4.f : 8.f, top = 2.f * (float)grid_top(kind);
    const int last = kind->bits == 2 ? 7 : 3;
    vf code = v_set(0.f);

    V_UNROLL
    for (int i = last; i >= 0; i--) {
        vf twice = fminf(v_sub(v_mul(inv, x[i]), v_set(1.f)), top);

        twice = v_sub(v_add(twice, v_set(25165824.f)), v_set(25165824.f));
        code = i < last ? v_add(v_mul(code, v_set(place)), twice) : twice;
    }
    return (vi)(sl_bits(v_add(code, v_set(16777216.f))) & 0xffff);
}

/* Takes the points of a turn's first trial, or of a later turn's two and those put off; what is beyond the last of the four
 * trials is none. */
V_FN void super_take(int type, const struct device_queue *q, int turn, int tid, struct device_thread *t)
{
    const struct grid_kind kind = grid_kind_of(type);
    int from = 2 * (turn & ~1), last = v_imin(from + 3, 2 * kind.steps), at = turn & 1 ? 1 : 0;
    vi code[8];

    V_ROLLED
    for (; at == 0 || (turn & 1 && from + at <= last); at++) {
        bool later = from + at == last && at > 0;
        int second = at == 2;

        for (int k = 0; k < queue_groups(type); k++)
            code[k] = later ? (vi)(t->later[k / 2] >> 16 * (k & 1) & 0xffff) : q->code[V_SPOT(second ? queue_groups(type) + k : k) + tid];
        if (grid_better(&kind, &t->sub, code, &t->best))
            t->off = later ? t->later_off : t->places.off >> (second ? 8 : 0) & 255;
    }
    if (turn & 1)
        return;
    for (int k = 0; k < queue_groups(type); k += 2)
        t->later[k / 2] = v_halves_of(q->code[V_SPOT(queue_groups(type) + k) + tid], q->code[V_SPOT(queue_groups(type) + k + 1) + tid]);
    t->later_off = t->places.off >> 8;
}

V_FN void queue_invert(const struct device_queue *q, int trial, int tid, vm usual, vf inv)
{
    q->inv[V_SPOT(trial) + tid] = v_sel(usual, inv, v_frombits(v_seti(0x7fffffff)));
}

/* Group k's codes of a turn. near: no rounding wraps, so that what is found out of two trials holds between. */
V_FN void queue_codes(int type, bool near, int turn, const struct sl_grid *g, const struct device_queue *q, int k, int tid, vf first,
                      vf second, struct device_thread *t)
{
    const struct grid_kind kind = grid_kind_of(type);
    const int values = kind.bits == 2 ? 8 : 4;
    bool again = turn == device_turns(type) - 1;
    vi one, two;
    vf x[8];

    if (near && turn & 1 && queue_clear(q, k, &t->places)) {
        t->places.at[0][k] = t->places.at[1][k] = PLACE_NONE;
        return;
    }
    t->places.off &= ~(0x101u << k);
    queue_values_of(q->x + V_SPOT(k * values), values, tid, x);
    for (int i = 0; i < values && near && kind.parity; i++)
        x[i] = fmaxf(x[i], 0.f);
    one = near ? group_code(&kind, x, first) : grid_code(kind.bits, grid_top(&kind), x, first);
    two = near ? group_code(&kind, x, second) : grid_code(kind.bits, grid_top(&kind), x, second);
    queue_put_both(type, g, q, tid, k, one, two, again ? grid_again_here(&kind, &t->best, t->again, k) : !t->sub.dead, &t->places);
}

/* The codes of a turn, after the points of the one before are taken. */
V_FN void super_codes(int type, const struct sl_gpu_work *k, int turn, int n, int tid, struct device_thread *t, struct device_super *s,
                      float *pool)
{
    const struct grid_kind kind = grid_kind_of(type);
    struct device_queue q = queue_of(type, pool, s);
    bool again = turn == device_turns(type) - 1;
    vf first, second;
    vm usual;

    if (tid >= n * device_subs(type)) {
        for (int g = 0; g < queue_groups(type); g++)
            t->places.at[0][g] = t->places.at[1][g] = PLACE_NONE;
        return;
    }
    if (queue_iq1(type)) {
        q.scale[tid] = t->iq1.scale;
        queue_invert(&q, 0, tid, queue_usual(t->iq1.scale, t->iq1.scale), v_div(v_set(2.f), t->iq1.scale));
        t->places.off = 0;
        for (int g = 0; g < queue_groups(type); g++)
            queue_put(type, &k->grid, &q, tid, 0, g, t->iq1.code[g], !t->iq1.dead, &t->places);
        return;
    }
    if (turn > 0)
        super_take(type, &q, turn - 1, tid, t);
    if (again) {
        for (int g = 0; g < queue_groups(type); g++)
            t->best.off[g] = v_seti((int32_t)(t->off >> g & 1));
        t->again = v_and(grid_again_lanes(&kind, &t->sub, &t->best), !t->sub.dead);
        first = second = v_div(v_set(1.f), t->sub.scale);
        q.scale[tid] = q.scale[V_SPOT(1) + tid] = t->sub.scale;
    } else {
        int from = 2 * (turn & ~1), last = v_imin(from + 3, 2 * kind.steps);

        first = grid_spacing(&kind, from + (turn & 1) - kind.steps, t->range);
        second = grid_spacing(&kind, (turn & 1 ? from + 2 : last) - kind.steps, t->range);
        q.scale[tid] = v_div(v_set(1.f), first);
        q.scale[V_SPOT(1) + tid] = v_div(v_set(1.f), second);
    }
    usual = queue_usual(q.scale[V_SPOT(1) + tid], q.scale[tid]);
    queue_invert(&q, 0, tid, usual, first);
    queue_invert(&q, 1, tid, usual, second);
    if (v_mul(t->all, first) < 0x1p20f && v_mul(t->all, second) < 0x1p20f) {
        V_UNROLL
        for (int g = 0; g < queue_groups(type); g++)
            queue_codes(type, true, turn, &k->grid, &q, g, tid, first, second, t);
    } else {
        V_UNROLL
        for (int g = 0; g < queue_groups(type); g++)
            queue_codes(type, false, turn, &k->grid, &q, g, tid, first, second, t);
    }
}

/* The last turn's points, and what follows from them. */
V_FN void super_last(int type, const struct sl_gpu_work *k, int n, int tid, struct device_thread *t, struct device_super *s,
                     float *pool)
{
    const struct grid_kind kind = grid_kind_of(type);
    struct device_queue q = queue_of(type, pool, s);
    int subs = device_subs(type), j = tid % subs, values = 256 / subs;
    struct exchange *e = &s[tid / subs].e;
    vi *words = s[tid / subs].words;
    bool moved = false;
    vf x[32], w[32];

    if (tid >= n * subs)
        return;
    if (!queue_iq1(type)) {
        for (int g = 0; g < queue_groups(type); g++)
            t->sub.code[g] = v_seli(grid_again_here(&kind, &t->best, t->again, g), q.code[V_SPOT(g) + tid], t->sub.code[g]);
        if (t->again)
            grid_again_scale(&kind, &t->sub, t->again);
        grid_end(&kind, &k->grid, &t->sub);
        iquant_put(type, j, &t->sub, e, &t->codes, words);
        return;
    }
    queue_values_of(q.x, values, tid, x);
    queue_values_of(q.w, values, tid, w);
    for (int g = 0; g < queue_groups(type); g++) {
        t->iq1.code[g] = q.code[V_SPOT(g) + tid];
        moved |= t->places.at[0][g] >= 0;
    }
    iq1_points_end(&k->grid, values, x, w, moved, &t->iq1);
    if (type == SL_TYPE_IQ1_S)
        iq1_s_end(j, &t->iq1, e, words);
    else
        iq1_m_end(j, &t->iq1, e, words);
}

#endif
