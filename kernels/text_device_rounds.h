/* A round of iq3's trials (text_device_runs.h): what comes before and after the searches. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_ROUNDS_H
#define SLUICE_KERNELS_TEXT_DEVICE_ROUNDS_H

#include "kernels/text_device_runs.h"

/* Lays out a thread's sub-block; of one that is dead, or none, zeros. */
V_FN void runs_publish(int type, const struct device_runs *r, int column, const struct device_thread *t)
{
    const struct grid_kind kind = grid_kind_of(type);
    const int trials = runs_trials(type);
    float *inv = r->inv + column;
    vf small, large;
    bool fine;

    if (t->sub.dead) {
        for (int i = 0; i < 32; i++)
            r->x[i * RUNS_COLUMNS + column] = r->w[i * RUNS_COLUMNS + column] = v_set(0.f);
        for (int i = 0; i < trials; i++)
            inv[i * RUNS_COLUMNS] = v_set(0.f);
        r->state[column] = COLUMN_DEAD;
        return;
    }
    V_UNROLL
    for (int i = 0; i < 32; i++) {
        r->x[i % 4 * RUNS_CELLS + i / 4 * RUNS_COLUMNS + column] = t->sub.x[i];
        r->w[i % 4 * RUNS_CELLS + i / 4 * RUNS_COLUMNS + column] = t->sub.w[i];
    }
    V_ROLLED
    for (int i = 0; i < trials; i++)
        inv[i * RUNS_COLUMNS] = grid_spacing(&kind, i - kind.steps, t->range);
    small = v_div(v_set(1.f), inv[(trials - 1) * RUNS_COLUMNS]);
    large = v_div(v_set(1.f), inv[0]);
    fine = v_mul(t->all, inv[(trials - 1) * RUNS_COLUMNS]) < 0x1p20f && queue_usual(small, large);
    r->state[column] = fine ? COLUMN_FINE : COLUMN_WILD;
}

/* What a round's trials give to a thread's sub-block, and the second move laid out. */
V_FN void runs_judge(int type, const struct device_runs *r, int column, struct device_thread *t)
{
    const struct grid_kind kind = grid_kind_of(type);
    const int trials = runs_trials(type);
    uint32_t here = 0;
    int best = -1;
    bool fine;
    vf inv;

    if (t->sub.dead) {
        r->state[column] = COLUMN_DEAD;
        return;
    }
    V_ROLLED
    for (int i = 0; i < trials; i++)
        if (grid_judge(r->sums[2 * i * RUNS_COLUMNS + column], r->sums[(2 * i + 1) * RUNS_COLUMNS + column], &t->sub, &t->best))
            best = i;
    for (int k = 0; k < 8 && best >= 0; k++) {
        t->sub.code[k] = r->code[best * RUNS_CELLS + k * RUNS_COLUMNS + column];
        t->best.off[k] = v_seti((int32_t)(r->off[k * RUNS_COLUMNS + column] >> best & 1));
    }
    t->again = grid_again_lanes(&kind, &t->sub, &t->best);
    for (int k = 0; k < 8; k++)
        here |= grid_again_here(&kind, &t->best, t->again, k) ? 1u << k : 0;
    inv = v_div(v_set(1.f), t->sub.scale);
    fine = v_mul(t->all, inv) < 0x1p20f && queue_usual(t->sub.scale, t->sub.scale) &&
           inv < v_mul(r->inv[(trials - 1) * RUNS_COLUMNS + column], v_set(RUNS_BEYOND));
    r->inv[trials * RUNS_COLUMNS + column] = inv;
    r->scale[column] = t->sub.scale;
    r->here[column] = here;
    r->state[column] = !here ? COLUMN_DEAD : fine ? COLUMN_FINE : COLUMN_WILD;
}

/* Takes what the second move found. */
V_FN void runs_take(int type, const struct device_runs *r, int column, struct device_thread *t)
{
    const struct grid_kind kind = grid_kind_of(type);

    if (!t->again)
        return;
    V_UNROLL
    for (int k = 0; k < 8; k++)
        if (grid_again_here(&kind, &t->best, t->again, k))
            t->sub.code[k] = r->code[runs_trials(type) * RUNS_CELLS + k * RUNS_COLUMNS + column];
    V_UNROLL
    for (int i = 0; i < 32; i++)
        t->sub.wx[i] = v_mul(t->sub.w[i], t->sub.x[i]);
    grid_again_scale(&kind, &t->sub, t->again);
}

/* A turn's codes. */
V_FN void runs_begin(int type, int turn, int tid, struct device_thread *t, const struct device_runs *r)
{
    int round = tid / RUNS_COLUMNS, column = tid % RUNS_COLUMNS;

    if (tid < 8)
        r->n[tid] = 0; /* and n_unsure */
    t->pass = t->call = 0;
    if (turn & 1) {
        if (round == turn / 2)
            runs_judge(type, r, column, t);
        return;
    }
    if (round == turn / 2 - 1)
        runs_take(type, r, column, t);
    if (round == turn / 2)
        runs_publish(type, r, column, t);
}

/* A bit for each trial before which a value's level may change, and maybe others. inv: of the first trial. x over the scale
 * passes 2 l at trial l * each - first, but for roundings, which are far below 2^-9 trials. */
V_FN uint32_t runs_changes(const struct grid_kind *kind, vf x, vf inv)
{
    const float first = 15.f / kind->step - (float)kind->steps, near = 0x1p-9f;
    vf level = v_mul(v_mul(inv, x), v_set(0.5f)), each = v_div(v_set(first), level), at, end;
    uint32_t bits = 0;

    at = v_sub(v_add(v_sub(level, v_set(0.501f)), v_set(12582912.f)), v_set(12582911.f));
    at = v_sub(v_mul(fmaxf(at, 1.f), each), v_set(first));
    end = fminf(v_sub(v_mul(v_set(7.f), each), v_set(first)), 31.5f);
    V_UNROLL
    for (int i = 0; i < kind->steps / 5 + 1; i++) { /* each is 10 at least, since no x is above the range */
        vf here = fminf(at, end);

        bits |= 1u << (sl_bits(v_add(v_add(here, v_set(0.5f - near)), v_set(12582912.f))) & 31);
        bits |= 1u << (sl_bits(v_add(v_add(here, v_set(0.5f + near)), v_set(12582912.f))) & 31);
        at = v_add(at, each);
    }
    return bits;
}

/* A thread's groups: their weights in a search's units, and their runs' items; of a second move, an item for it. */
V_FN void runs_groups(int type, int turn, int tid, const struct device_runs *r)
{
    const struct grid_kind kind = grid_kind_of(type);
    const int trials = runs_trials(type);

    V_ROLLED
    for (int cell = tid; cell < RUNS_CELLS; cell += V_COLUMNS) {
        int column = cell % RUNS_COLUMNS;
        uint32_t state = r->state[column], bits = 0, wild;
        vf x[4], w[4];

        r->unclear[cell] = 0;
        if (turn & 1) {
            wild = state == COLUMN_WILD || !(r->wu[cell] >= 0) ? RUNS_WILD : 0;
            if (state != COLUMN_DEAD && r->here[column] >> cell / RUNS_COLUMNS & 1)
                runs_items(r, cell, 1u << trials, trials, wild);
            continue;
        }
        runs_of_cell(r->x, cell, x);
        runs_of_cell(r->w, cell, w);
        V_UNROLL
        for (int i = 0; i < 4; i++)
            w[i] = v_sqrt(w[i]);
        wild = !runs_units(kind.parity, x, w, v_mul(r->inv[(trials - 1) * RUNS_COLUMNS + column], v_set(RUNS_BEYOND)), w) ||
               state == COLUMN_WILD ? RUNS_WILD : 0;
        V_UNROLL
        for (int i = 0; i < 4; i++)
            r->wu[i * RUNS_CELLS + cell] = i || !wild ? w[i] : v_set(-1.f);
        r->off[cell] = 0;
        V_UNROLL
        for (int i = 0; i < trials; i++)
            r->code[i * RUNS_CELLS + cell] = RUNS_NONE;
        if (state == COLUMN_DEAD) {
            r->code[cell] = 0;
            continue;
        }
        V_UNROLL
        for (int i = 0; i < 4; i++)
            bits |= runs_changes(&kind, kind.parity ? fmaxf(x[i], 0.f) : x[i], r->inv[column]);
        bits = state == COLUMN_WILD ? ~0u : bits | 1;
        runs_items(r, cell, bits & runs_bits(0, trials - 1), trials - 1, wild);
    }
}

/* Every trial's points. */
V_FN void runs_fill(int type, int tid, const struct device_runs *r)
{
    V_ROLLED
    for (int cell = tid; cell < RUNS_CELLS; cell += V_COLUMNS) {
        uint16_t point = r->code[cell];

        V_UNROLL
        for (int i = 1; i < runs_trials(type); i++) {
            uint16_t here = r->code[i * RUNS_CELLS + cell];

            point = here == RUNS_NONE ? point : here;
            r->code[i * RUNS_CELLS + cell] = point;
        }
    }
}

/* grid_sums of a sub-block's trials; each warp has some of them. */
V_FN void runs_sums(int type, int tid, const struct device_runs *r)
{
    const int trials = runs_trials(type), share = (trials * RUNS_COLUMNS + V_COLUMNS - 1) / V_COLUMNS;
    int column = tid % RUNS_COLUMNS, own = tid / RUNS_COLUMNS * share, from = v_imin(own, trials - share);
    vf sum_qx[8], sum_q2[8];

    V_UNROLL
    for (int j = 0; j < share; j++)
        sum_qx[j] = sum_q2[j] = v_set(0.f);
    V_ROLLED
    for (int cell = column; cell < RUNS_CELLS; cell += RUNS_COLUMNS) {
        vf w[4], wx[4];

        runs_of_cell(r->w, cell, w);
        runs_of_cell(r->x, cell, wx);
        V_UNROLL
        for (int i = 0; i < 4; i++)
            wx[i] = v_mul(w[i], wx[i]);
        V_UNROLL
        for (int j = 0; j < share; j++) {
            vi code = r->code[(from + j) * RUNS_CELLS + cell];

            V_UNROLL
            for (int i = 0; i < 4; i++) {
                vf q = grid_odd_value(3, code, i);

                sum_qx[j] = v_add(sum_qx[j], v_mul(wx[i], q));
                sum_q2[j] = v_add(sum_q2[j], v_mul(v_mul(w[i], q), q));
            }
        }
    }
    V_UNROLL
    for (int j = 0; j < share; j++) {
        if (from + j < own)
            continue;
        r->sums[2 * (from + j) * RUNS_COLUMNS + column] = sum_qx[j];
        r->sums[(2 * (from + j) + 1) * RUNS_COLUMNS + column] = sum_q2[j];
    }
}

/* Phases from codes to trials; turns are a round's trials, and its second move. */
V_FN void runs_phase(int type, enum device_phase phase, const struct sl_grid *g, int turn, int tid, int lane, struct device_thread *t,
                     struct device_super *s, float *pool)
{
    struct device_runs r = runs_of(type, pool, s);

    if (phase == DEVICE_CODES)
        runs_begin(type, turn, tid, t, &r);
    else if (phase == DEVICE_RUNS)
        runs_groups(type, turn, tid, &r);
    else if (phase == DEVICE_LISTS)
        runs_lists(type, g, turn, tid, &r);
    else if (phase == DEVICE_STARTS)
        queue_starts(r.count, r.start, lane);
    else if (phase == DEVICE_PLACE)
        runs_place(tid, &r);
    else if (phase == DEVICE_NEAREST)
        runs_nearest(type, g, tid, t, &r);
    else if (phase == DEVICE_COLLECT)
        runs_collect(tid, t, &r);
    else if (phase == DEVICE_UNSURE)
        runs_unsure(type, g, lane, t, &r);
    else if (phase == DEVICE_FILL && !(turn & 1))
        runs_fill(type, tid, &r);
    else if (phase == DEVICE_TRIALS && !(turn & 1))
        runs_sums(type, tid, &r);
}

/* The last round's second move, and what follows from all. */
V_FN void runs_end(int type, const struct sl_grid *g, int n, int tid, struct device_thread *t, struct device_super *s, float *pool)
{
    const struct grid_kind kind = grid_kind_of(type);
    struct device_runs r = runs_of(type, pool, s);

    if (tid >= n * 8)
        return;
    if (tid / RUNS_COLUMNS == V_COLUMNS / RUNS_COLUMNS - 1)
        runs_take(type, &r, tid % RUNS_COLUMNS, t);
    grid_end(&kind, g, &t->sub);
    iquant_put(type, tid % 8, &t->sub, &s[tid / 8].e, &t->codes, s[tid / 8].words);
}

#endif
