/* The work of a block of GPU threads, in phases; between two of them all threads
 * of the block meet. Included after lanes_cuda.h, by the kernels, and by tests
 * that run the same phases on a CPU, thread by thread.
 *
 *   superblock types: a thread has a sub-block, DEVICE_THREADS / sub-blocks superblocks a block
 *     begin   bits cleared, values loaded
 *     sum     lane = superblock: what weights need of all 256 values, in order
 *     fit     the sub-block's own scale; on grids, what the search for it begins with
 *     codes to trials   on grids, in turns: text_queue.h, text_device_runs.h
 *     clear   iq2, iq3: bits cleared, in whose place the queue had been
 *     take    what the last turn found
 *     half    lane = superblock, and scales or minimums: their levels
 *     top     lane = superblock: its scale
 *     terms   iq1_m: what the sub-block adds to the superblock's sums
 *     whole   iq1_m: lane = superblock: those sums, in order
 *     levels  the sub-block's levels
 *     store   the block's bytes, side by side
 *   blocks of 32: a thread has a block: begin, fit, store
 *   f32, f16, bf16: a thread has DEVICE_VALUES values: fit, store
 *
 * A second launch before q4_0 to q5_1 with weights makes the rows' mean squares:
 * a thread has a row. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_H
#define SLUICE_KERNELS_TEXT_DEVICE_H

#include "kernels/text_queue.h"

#define DEVICE_THREADS V_COLUMNS

enum device_phase {
    DEVICE_BEGIN, DEVICE_SUM, DEVICE_FIT,
    DEVICE_CODES, DEVICE_RUNS, DEVICE_LISTS, DEVICE_STARTS, DEVICE_PLACE, /* device_turns times all to trials; in each: */
    DEVICE_NEAREST, /* device_passes times */
    DEVICE_COLLECT, DEVICE_UNSURE, DEVICE_NAMED, /* while device_more */
    DEVICE_FILL, DEVICE_TRIALS,
    DEVICE_CLEAR, DEVICE_TAKE,
    DEVICE_HALF, DEVICE_TOP, DEVICE_TERMS, DEVICE_WHOLE, DEVICE_LEVELS, DEVICE_STORE,
    DEVICE_PHASES
};

/* Shared memory: what a superblock's threads exchange, its words. Both have an odd
 * number of words, so that lanes on neighbouring superblocks meet in no bank. */
struct device_super {
    struct exchange e;
    vi words[MAX_WORDS + 1];
};
struct device_small {
    vi words[17];
};

/* Values of f32, f16 and bf16 that a thread has: finding the first one's place takes longer than loading it. */
#define DEVICE_VALUES 16

/* A thread's own, from phase to phase. */
struct device_thread {
    vf x[32];
    struct affine f;
    vi levels[16];
    struct grid_codes codes;
    struct grid_sub sub;
    struct grid_best best;
    struct iq1_sub iq1;
    struct device_places places;
    uint32_t later[4];       /* iq2: the last of four trials' points, two each, until the two before are taken */
    uint32_t later_off, off; /* which of them, and of the best trial's, were no points */
    vf range, all; /* all: the sum of its values' magnitudes */
    vm again;
    int pass, call;          /* iq3: of a turn's searches, and of those in floats */
};

/* Sub-blocks of a superblock type; 1: a block of 32; 0: single values. */
V_SHAPE int device_subs(int type)
{
    switch (type) {
    case SL_TYPE_Q2_K: case SL_TYPE_Q3_K: case SL_TYPE_Q6_K:
    case SL_TYPE_IQ2_XS: case SL_TYPE_IQ2_S: case SL_TYPE_IQ1_M:
        return 16;
    case SL_TYPE_Q4_K: case SL_TYPE_Q5_K: case SL_TYPE_IQ4_XS:
    case SL_TYPE_IQ2_XXS: case SL_TYPE_IQ3_XXS: case SL_TYPE_IQ3_S: case SL_TYPE_IQ1_S:
        return 8;
    case SL_TYPE_F32: case SL_TYPE_F16: case SL_TYPE_BF16:
        return 0;
    default:
        return 1;
    }
}

#include "kernels/text_device_rounds.h"

V_FN int device_bytes(int type)
{
    switch (type) {
    case SL_TYPE_Q2_K: return sizeof(struct blk_q2_k);
    case SL_TYPE_Q3_K: return sizeof(struct blk_q3_k);
    case SL_TYPE_Q4_K: return sizeof(struct blk_q4_k);
    case SL_TYPE_Q5_K: return sizeof(struct blk_q5_k);
    case SL_TYPE_Q6_K: return sizeof(struct blk_q6_k);
    case SL_TYPE_IQ4_XS: return sizeof(struct blk_iq4_xs);
    case SL_TYPE_IQ1_S: return sizeof(struct blk_iq1_s);
    case SL_TYPE_IQ1_M: return sizeof(struct blk_iq1_m);
    case SL_TYPE_IQ2_XXS: return sizeof(struct blk_iq2_xxs);
    case SL_TYPE_IQ2_XS: return sizeof(struct blk_iq2_xs);
    case SL_TYPE_IQ2_S: return sizeof(struct blk_iq2_s);
    case SL_TYPE_IQ3_XXS: return sizeof(struct blk_iq3_xxs);
    case SL_TYPE_IQ3_S: return sizeof(struct blk_iq3_s);
    case SL_TYPE_Q4_0: return sizeof(struct blk_q4_0);
    case SL_TYPE_Q4_1: return sizeof(struct blk_q4_1);
    case SL_TYPE_Q5_0: return sizeof(struct blk_q5_0);
    case SL_TYPE_Q5_1: return sizeof(struct blk_q5_1);
    case SL_TYPE_Q8_0: return sizeof(struct blk_q8_0);
    case SL_TYPE_IQ4_NL: return sizeof(struct blk_iq4_nl);
    case SL_TYPE_F32: return 4;
    default: return 2;
    }
}

V_FN bool device_means(int type)
{
    return type == SL_TYPE_Q4_0 || type == SL_TYPE_Q4_1 || type == SL_TYPE_Q5_0 || type == SL_TYPE_Q5_1;
}

V_SHAPE bool device_iquant(int type)
{
    return type == SL_TYPE_IQ2_XXS || type == SL_TYPE_IQ2_XS || type == SL_TYPE_IQ2_S ||
           type == SL_TYPE_IQ3_XXS || type == SL_TYPE_IQ3_S;
}

/* Turns of the searches for grid points: iq2's two for four trials, and the last move; iq3's two for a round; iq1's one. */
V_SHAPE int device_turns(int type)
{
    return queue_iq1(type) ? 1 : queue_runs(type) ? 2 * V_COLUMNS / RUNS_COLUMNS
           : device_iquant(type) ? 2 * (grid_kind_of(type).steps / 2 + 1) + 1 : 0;
}

/* How often a turn's searches are made. */
V_SHAPE int device_passes(int type, int turn) { return queue_runs(type) && !(turn & 1) ? RUNS_PASSES : 1; }

/* Whether a phase of a superblock type does anything; of two neighbours that do, the threads meet between. */
V_SHAPE bool device_has(int type, bool weighted, enum device_phase phase)
{
    switch (phase) {
    case DEVICE_SUM:
        return type != SL_TYPE_Q6_K && (weighted || type == SL_TYPE_IQ4_XS || type == SL_TYPE_IQ1_M || device_iquant(type));
    case DEVICE_CODES: case DEVICE_STARTS: case DEVICE_PLACE: case DEVICE_NEAREST: case DEVICE_UNSURE: case DEVICE_TAKE:
        return device_turns(type) > 0;
    case DEVICE_CLEAR:
        return device_iquant(type);
    case DEVICE_RUNS: case DEVICE_LISTS: case DEVICE_COLLECT: case DEVICE_FILL: case DEVICE_TRIALS:
        return queue_runs(type);
    case DEVICE_NAMED:
        return device_turns(type) > 0 && !queue_runs(type);
    case DEVICE_HALF:
        return type == SL_TYPE_Q2_K || type == SL_TYPE_Q4_K || type == SL_TYPE_Q5_K;
    case DEVICE_TERMS: case DEVICE_WHOLE:
        return type == SL_TYPE_IQ1_M;
    case DEVICE_LEVELS:
        return device_subs(type) > 1 && type != SL_TYPE_IQ1_S && type != SL_TYPE_IQ1_M &&
               (!device_iquant(type) || type == SL_TYPE_IQ3_S);
    default:
        return true;
    }
}

/* The pool of shared memory: sums of 256 values a superblock, or columns (lanes_cuda.h), or the queue. A
 * sub-block's values are one place apart from its neighbour's, and a superblock's one more, so that
 * lanes on neighbours meet in no bank, when they write and when they read. */
#define DEVICE_POOL 4368
V_FN int device_place(int subs, int superblock, int j)
{
    return superblock * (256 + subs + 1) + j * (256 / subs + 1);
}

/* Floats of the pool that a type takes: 0 where none. */
V_SHAPE int device_pool(int type, bool weighted)
{
    if (queue_runs(type))
        return runs_floats(type);
    if (device_turns(type)) /* more than the sums take */
        return queue_floats(type);
    return device_subs(type) > 1 && device_has(type, weighted, DEVICE_SUM) ? DEVICE_POOL : 0;
}

/* Output blocks, or single values, that one block of threads makes. */
V_SHAPE int device_share(int type)
{
    int subs = device_subs(type);

    return subs ? DEVICE_THREADS / subs : DEVICE_THREADS * DEVICE_VALUES;
}

V_FN const float *device_weights(const struct sl_gpu_work *k, uint64_t at)
{
    uint64_t place = k->elem0 + at;

    return k->w + (place / k->matrix - k->slice0) * k->row + place % k->row;
}

/* ---- phases of a superblock type; n: superblocks of this block of threads */

V_FN void super_clear(int n, int tid, struct device_super *s)
{
    for (int i = tid; i < n * MAX_WORDS; i += DEVICE_THREADS)
        s[i / MAX_WORDS].words[i % MAX_WORDS] = 0;
}

V_FN void super_begin(int type, bool weighted, const struct sl_gpu_work *k, uint64_t first, int n, int tid,
                      struct device_thread *t, struct device_super *s, float *pool)
{
    int subs = device_subs(type), j = tid % subs, values = 256 / subs;
    float *place = pool + device_place(subs, tid / subs, j);

    if (!device_iquant(type))
        super_clear(n, tid, s);
    if (device_turns(type)) {
        if (tid < QUEUE_LENGTHS)
            (queue_runs(type) ? runs_of(type, pool, s).count : queue_of(type, pool, s).count)[tid] = 0;
        t->sub.dead = t->iq1.dead = true; /* of threads without a sub-block */
        t->again = false;
    }
    if (tid >= n * subs)
        return;
    if (device_load(k, (first + (uint64_t)(tid / subs)) * 256 + (uint64_t)(j * values), values, t->x))
        *k->status = 1;
    if (!device_has(type, weighted, DEVICE_SUM))
        return;
    V_UNROLL
    for (int i = 0; i < values; i++)
        place[i] = sqr(t->x[i]);
}

V_FN void super_sum(int type, int n, int tid, struct device_super *s, const float *pool)
{
    int subs = device_subs(type), values = 256 / subs;
    vf sum = v_set(0.f);

    if (tid >= n)
        return;
    for (int j = 0; j < subs; j++) {
        const float *place = pool + device_place(subs, tid, j);

        V_UNROLL
        for (int i = 0; i < values; i++)
            sum = v_add(sum, place[i]);
    }
    if (type == SL_TYPE_IQ4_XS)
        s[tid].e.sigma2 = iq4_sigma2(256, sum);
    else if (device_iquant(type))
        s[tid].e.sigma2 = iquant_sigma2(type, sum);
    else
        s[tid].e.sigma2 = k_sigma2(type == SL_TYPE_Q2_K ? 1.f : 2.f, sum);
}

#include "kernels/text_device_grid.h"

V_FN void super_fit(int type, bool weighted, const struct sl_gpu_work *k, uint64_t first, int n, int tid,
                    struct device_thread *t, struct device_super *s, float *pool)
{
    int subs = device_subs(type), j = tid % subs, values = 256 / subs;
    struct exchange *e = &s[tid / subs].e;
    vf ws[32], *w = weighted ? ws : NULL;

    if (tid >= n * subs)
        return;
    if (weighted) {
        const float *from = device_weights(k, (first + (uint64_t)(tid / subs)) * 256 + (uint64_t)(j * values));

        V_UNROLL
        for (int i = 0; i < values; i++)
            ws[i] = from[i];
    }
    if (type == SL_TYPE_Q2_K)
        q2_k_fit(1, j, t->x, w, &t->f, e);
    else if (type == SL_TYPE_Q3_K)
        q3_k_fit(1, j, t->x, w, t->levels, e);
    else if (type == SL_TYPE_Q4_K || type == SL_TYPE_Q5_K)
        k45_fit(type == SL_TYPE_Q4_K ? 15 : 31, 1, j, t->x, w, &t->f, e);
    else if (type == SL_TYPE_Q6_K)
        q6_k_fit(1, j, t->x, w, t->levels, e);
    else if (type == SL_TYPE_IQ4_XS)
        e->scale[j] = fit_iq4(t->x, w, e->sigma2);
    else
        queue_fit(type, j, w, tid, t, s, pool);
}

V_FN void super_half(int type, bool weighted, int n, int tid, struct device_super *s)
{
    bool mins = tid >= n;
    struct exchange *e = &s[mins ? tid - n : tid].e;

    if (tid >= 2 * n)
        return;
    if (type == SL_TYPE_Q2_K)
        q2_k_half(weighted, mins, e);
    else if (type == SL_TYPE_Q4_K || type == SL_TYPE_Q5_K)
        k45_half(type == SL_TYPE_Q4_K ? 15 : 31, weighted, mins, e);
}

/* iq1_m's superblock scale takes all values once more: its sums' terms, then the sums, in order. */
V_FN void super_terms(bool weighted, const struct sl_gpu_work *k, uint64_t first, int n, int tid,
                      struct device_thread *t, struct device_super *s, float *pool)
{
    int j = tid % 16, place = device_place(16, tid / 16, j), second = device_place(16, DEVICE_THREADS / 16, 0);
    vf w[16], qx[16], q2[16];

    if (tid >= n * 16)
        return;
    if (weighted) {
        const float *from = device_weights(k, (first + (uint64_t)(tid / 16)) * 256 + (uint64_t)(j * 16));

        V_UNROLL
        for (int i = 0; i < 16; i++)
            w[i] = from[i];
    }
    iq1_m_top_terms(j, t->x, weighted ? w : NULL, &s[tid / 16].e, qx, q2, s[tid / 16].words);
    V_UNROLL
    for (int i = 0; i < 16; i++) {
        pool[place + i] = qx[i];
        pool[second + place + i] = q2[i];
    }
}

V_FN void super_whole(int n, int tid, struct device_super *s, const float *pool)
{
    int second = device_place(16, DEVICE_THREADS / 16, 0);
    vf sum_qx = v_set(0.f), sum_q2 = sum_qx;

    if (tid >= n)
        return;
    for (int j = 0; j < 16; j++) {
        const float *place = pool + device_place(16, tid, j);

        V_UNROLL
        for (int i = 0; i < 16; i++) {
            sum_qx = v_add(sum_qx, place[i]);
            sum_q2 = v_add(sum_q2, place[second + i]);
        }
    }
    iq1_m_top_end(&s[tid].e, sum_qx, sum_q2, s[tid].words);
}

V_FN void super_top(int type, bool weighted, int n, int tid, struct device_super *s)
{
    struct exchange *e = &s[tid].e;
    vi *words = s[tid].words;

    if (tid >= n)
        return;
    if (type == SL_TYPE_Q2_K)
        q2_k_top(e, words);
    else if (type == SL_TYPE_Q3_K)
        q3_k_top(weighted, e, words);
    else if (type == SL_TYPE_Q4_K || type == SL_TYPE_Q5_K)
        k45_top(e, words);
    else if (type == SL_TYPE_Q6_K)
        q6_k_top(e, words);
    else if (type == SL_TYPE_IQ4_XS)
        iq4_xs_top(e, words);
    else if (type == SL_TYPE_IQ1_S)
        iq1_s_top(e, words);
    else if (type == SL_TYPE_IQ1_M)
        iq1_m_top_begin(e);
    else
        iquant_top(type, e, words);
}

V_FN void super_levels(int type, int n, int tid, struct device_thread *t, struct device_super *s)
{
    int subs = device_subs(type), j = tid % subs;
    const struct exchange *e = &s[tid / subs].e;
    vi *words = s[tid / subs].words;

    if (tid >= n * subs)
        return;
    if (type == SL_TYPE_Q2_K)
        q2_k_levels(j, t->x, t->f, e, words);
    else if (type == SL_TYPE_Q3_K)
        q3_k_levels(j, t->x, t->levels, e, words);
    else if (type == SL_TYPE_Q4_K || type == SL_TYPE_Q5_K)
        k45_levels(type == SL_TYPE_Q4_K ? 15 : 31, j, t->x, t->f, e, words);
    else if (type == SL_TYPE_Q6_K)
        q6_k_levels(j, t->x, t->levels, e, words);
    else if (type == SL_TYPE_IQ4_XS)
        iq4_xs_levels(j, t->x, e, words);
    else if (device_iquant(type))
        iquant_levels(type, j, &t->codes, e, words);
}

/* The first n pairs of bytes of what threads or superblocks have in their words, `each` pairs one after the
 * other; words of one begin `stride` after those before. none: NULL, or beside the words, not 0 for zeros. */
V_FN void device_store(uint8_t *to, int n, int each, int tid, const vi *words, int stride, const vi *none)
{
    uint16_t *out = (uint16_t *)(void *)to;

    for (uint32_t i = (uint32_t)tid; i < (uint32_t)n; i += DEVICE_THREADS) {
        uint32_t b = i / (uint32_t)each, h = i % (uint32_t)each, at = b * (uint32_t)stride;

        out[i] = none && none[at] ? 0 : (uint16_t)((uint32_t)words[at + h / 2] >> 16 * (h & 1));
    }
}

/* turn: of the phases from codes to nearest. Where a lane has a superblock, another warp of each
 * block has the lanes, since a block's first warps share one of the processor's four schedulers. */
V_FN void super_phase(int type, bool weighted, enum device_phase phase, int turn, const struct sl_gpu_work *k, uint64_t block,
                      int tid, struct device_thread *t, struct device_super *s, float *pool)
{
    uint64_t first = block * (uint64_t)device_share(type), left = k->elems / 256 - first;
    int n = left < (uint64_t)device_share(type) ? (int)left : device_share(type);
    int lane = (tid + 32 * (int)(block & 3)) & (DEVICE_THREADS - 1);

    if (!device_has(type, weighted, phase))
        return;
    if (phase == DEVICE_BEGIN) {
        super_begin(type, weighted, k, first, n, tid, t, s, pool);
    } else if (phase == DEVICE_SUM) {
        super_sum(type, n, lane, s, pool);
    } else if (phase == DEVICE_FIT) {
        super_fit(type, weighted, k, first, n, tid, t, s, pool);
    } else if (queue_runs(type) && phase >= DEVICE_CODES && phase <= DEVICE_TRIALS) {
        runs_phase(type, phase, &k->grid, turn, tid, lane, t, s, pool);
    } else if (phase == DEVICE_CODES) {
        super_codes(type, k, turn, n, tid, t, s, pool);
    } else if (phase == DEVICE_STARTS) {
        struct device_queue q = queue_of(type, pool, s);

        queue_starts(q.count, q.start, lane);
    } else if (phase == DEVICE_PLACE) {
        struct device_queue q = queue_of(type, pool, s);

        queue_place(type, &q, tid, queue_iq1(type) ? t->iq1.down : NULL, &t->places);
    } else if (phase == DEVICE_NEAREST) {
        struct device_queue q = queue_of(type, pool, s);

        queue_nearest(type, &k->grid, &q, tid);
    } else if (phase == DEVICE_UNSURE) {
        struct device_queue q = queue_of(type, pool, s);

        queue_unsure_8(type, &k->grid, &q, lane);
    } else if (phase == DEVICE_NAMED) {
        struct device_queue q = queue_of(type, pool, s);

        queue_named_8(type, &k->grid, &q, lane);
    } else if (phase == DEVICE_CLEAR) {
        super_clear(n, tid, s);
    } else if (phase == DEVICE_TAKE) {
        if (queue_runs(type))
            runs_end(type, &k->grid, n, tid, t, s, pool);
        else
            super_last(type, k, n, tid, t, s, pool);
    } else if (phase == DEVICE_HALF) {
        super_half(type, weighted, n, lane, s);
    } else if (phase == DEVICE_TOP) {
        super_top(type, weighted, n, lane, s);
    } else if (phase == DEVICE_TERMS) {
        super_terms(weighted, k, first, n, tid, t, s, pool);
    } else if (phase == DEVICE_WHOLE) {
        super_whole(n, lane, s, pool);
    } else if (phase == DEVICE_LEVELS) {
        super_levels(type, n, tid, t, s);
    } else {
        int bytes = device_bytes(type);

        device_store(k->out + first * (uint64_t)bytes, n * (bytes / 2), bytes / 2, tid, s->words, (int)(sizeof *s / sizeof(vi)),
                     &s->e.none);
    }
}

/* Whether the phases from collect to named are to be done again. */
V_FN bool device_more(int type, const struct device_thread *t, struct device_super *s, float *pool)
{
    struct device_runs r = runs_of(type, pool, s);

    return queue_runs(type) && runs_more(t, &r);
}

#include "kernels/text_device_small.h"

/* Blocks of threads that a launch has. */
V_FN uint64_t device_blocks(const struct sl_gpu_work *k)
{
    uint64_t share = (uint64_t)device_share(k->type) * (device_subs(k->type) > 1 ? 256 : device_subs(k->type) ? 32 : 1);

    return (k->elems + share - 1) / share;
}

V_FN uint64_t device_mean_blocks(const struct sl_gpu_work *k)
{
    return k->weighted && device_means(k->type) ? (k->elems / k->row + DEVICE_THREADS - 1) / DEVICE_THREADS : 0;
}

#endif
