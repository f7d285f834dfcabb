/* A GPU thread's steps of the types on grids, before, between and after the searches that
 * text_queue.h shares out. Included by text_device.h. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_GRID_H
#define SLUICE_KERNELS_TEXT_DEVICE_GRID_H

/* Types on grids: all that comes before the searches for points. */
V_FN void queue_fit(int type, int j, const vf *w, int tid, struct device_thread *t, struct exchange *e, float *pool)
{
    const struct grid_kind kind = grid_kind_of(type);
    struct device_queue q = queue_of(type, pool);
    vf wt[32];

    if (type == SL_TYPE_IQ1_S) {
        iq1_s_begin(j, t->x, w, e, wt, &t->iq1);
    } else if (type == SL_TYPE_IQ1_M) {
        iq1_m_begin(j, t->x, w, e, wt, &t->iq1);
    } else {
        t->range = grid_begin(&kind, t->x, w, e->sigma2, &t->sub);
        grid_start(&kind, &t->sub, &t->best);
    }
    V_UNROLL
    for (int i = 0; i < queue_values(type); i++) {
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

V_FN void super_take(int type, const struct device_queue *q, int turn, int tid, struct device_thread *t)
{
    const struct grid_kind kind = grid_kind_of(type);
    vi code[8], off[8];

    for (int k = 0; k < queue_groups(type); k++) {
        code[k] = q->code[V_SPOT(k) + tid];
        off[k] = v_seti(t->places.at[k] >= 0);
    }
    if (turn <= 2 * kind.steps) {
        grid_take(&kind, &t->sub, code, off, &t->best);
        return;
    }
    for (int k = 0; k < queue_groups(type); k++)
        t->sub.code[k] = v_seli(grid_again_here(&kind, &t->best, t->again, k), code[k], t->sub.code[k]);
    if (t->again)
        grid_again_scale(&kind, &t->sub, t->again);
}

/* Scales whose squares times weights, 2^40 at most, and squares of levels F32 holds. */
V_FN void queue_invert(const struct device_queue *q, int tid, vf inv)
{
    vm usual = v_and(v_lt(v_set(0x1p-40f), q->scale[tid]), v_lt(q->scale[tid], v_set(0x1p38f)));

    q->inv[tid] = v_sel(usual, inv, v_frombits(v_seti(0x7fffffff)));
}

/* The codes of a turn, after the points of the one before are taken. */
V_FN void super_codes(int type, const struct sl_gpu_work *k, int turn, int n, int tid, struct device_thread *t, float *pool)
{
    const struct grid_kind kind = grid_kind_of(type);
    struct device_queue q = queue_of(type, pool);
    bool again = turn > 2 * kind.steps, mine = tid < n * device_subs(type);
    vf inv, x[8];

    if (!mine) {
        for (int g = 0; g < queue_groups(type); g++)
            t->places.at[g] = -1;
        return;
    }
    if (queue_iq1(type)) {
        q.scale[tid] = t->iq1.scale;
        queue_invert(&q, tid, v_div(v_set(2.f), t->iq1.scale));
        for (int g = 0; g < queue_groups(type); g++)
            queue_put(type, &k->grid, &q, tid, g, t->iq1.code[g], !t->iq1.dead, &t->places);
        return;
    }
    if (turn > 0)
        super_take(type, &q, turn - 1, tid, t);
    if (again) {
        t->again = v_and(grid_again_lanes(&kind, &t->sub, &t->best), !t->sub.dead);
        inv = v_div(v_set(1.f), t->sub.scale);
        q.scale[tid] = t->sub.scale;
    } else {
        inv = grid_spacing(&kind, turn - kind.steps, t->range);
        q.scale[tid] = v_div(v_set(1.f), inv);
    }
    queue_invert(&q, tid, inv);
    for (int g = 0; g < queue_groups(type); g++) {
        int values = kind.bits == 2 ? 8 : 4;

        queue_values_of(q.x + V_SPOT(g * values), values, tid, x);
        queue_put(type, &k->grid, &q, tid, g, grid_code(kind.bits, grid_top(&kind), x, inv),
                  again ? grid_again_here(&kind, &t->best, t->again, g) : !t->sub.dead, &t->places);
    }
}

/* The last turn's points, and what follows from them. */
V_FN void super_last(int type, const struct sl_gpu_work *k, int n, int tid, struct device_thread *t, struct device_super *s,
                     float *pool)
{
    const struct grid_kind kind = grid_kind_of(type);
    struct device_queue q = queue_of(type, pool);
    int subs = device_subs(type), j = tid % subs, values = 256 / subs;
    struct exchange *e = &s[tid / subs].e;
    vi *words = s[tid / subs].words;
    bool moved = false;
    vf x[32], w[32];

    if (tid >= n * subs)
        return;
    if (!queue_iq1(type)) {
        super_take(type, &q, device_turns(type) - 1, tid, t);
        grid_end(&kind, &k->grid, &t->sub);
        iquant_put(type, j, &t->sub, e, &t->codes, words);
        return;
    }
    queue_values_of(q.x, values, tid, x);
    queue_values_of(q.w, values, tid, w);
    for (int g = 0; g < queue_groups(type); g++) {
        t->iq1.code[g] = q.code[V_SPOT(g) + tid];
        moved |= t->places.at[g] >= 0;
    }
    iq1_points_end(&k->grid, values, x, w, moved, &t->iq1);
    if (type == SL_TYPE_IQ1_S)
        iq1_s_end(j, &t->iq1, e, words);
    else
        iq1_m_end(j, &t->iq1, e, words);
}

#endif
