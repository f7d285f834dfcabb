/* The searches for grid points of a block of threads, shared out. Lists of neighbours are of
 * 1 to 400 codes, and a code that is a point needs none: were each thread to search for its own
 * sub-block, a warp would wait for its longest list three or four times as long as its threads have to
 * search on average. So threads put their codes into a queue, which is ordered by length, and each takes
 * what comes next: the threads of a warp then search lists of like lengths, for whomever.
 *
 *   codes   each thread puts in the codes that are no points, and counts lengths
 *   starts  where the lists of each length begin in the order
 *   place   the order
 *   nearest each search, by any thread
 *   unsure  searches that whole numbers did not settle, in floats
 *   named   what came of those, which several threads shared
 *
 * Of iq2 a turn has two trials: most groups have the same code in both, and so the same list, which is then walked
 * once for both. These are the first and the last of four, then the two between. Where the code is the same, so it is between;
 * and two neighbours' sums differ by scale^2 times what is linear in 1 / scale, so that the one that is clearly the least at both
 * ends is the least between, and need not be searched for. iq3's are in text_device_runs.h.
 *
 * Which thread searches, and in which order, changes no sum. */
#ifndef SLUICE_KERNELS_TEXT_QUEUE_H
#define SLUICE_KERNELS_TEXT_QUEUE_H

#include "kernels/text_device_load.h"
#include "kernels/text_iq1.h"

#define QUEUE_LENGTHS 32

/* Whether text_device_runs.h has the searches. */
V_SHAPE bool queue_runs(int type) { return type == SL_TYPE_IQ3_XXS || type == SL_TYPE_IQ3_S; }

/* In shared memory. A search is its thread | group << 7 | QUEUE_FIRST, QUEUE_SECOND or both; of iq1 not these, but 1 << 10
 * where its levels are moved down. */
enum { QUEUE_CELL = 1023, QUEUE_FIRST = 1 << 10, QUEUE_SECOND = 1 << 11 };

struct device_queue {
    float *x, *w;           /* columns: the values of a thread's sub-block, and what their squares are weighted by */
    float *scale, *inv;     /* by trial and thread; inv: of the scale (iq1: twice that), where queue_settle may use it, else no number */
    uint16_t *code, *order; /* code: by trial, group and thread; once searched for, the point's. order: then, whether both
                             * trials' are clearly the same */
    uint16_t *unsure;       /* searches for one trial, n_unsure of them */
    int32_t *count, *start; /* by length, longest first; start[QUEUE_LENGTHS]: all searches */
    int32_t *n_unsure;
    unsigned long long *least; /* by place in unsure: queue_rank of a sum << 32 | its place in the list */
};

/* Scales whose squares times weights, 2^40 at most, and squares of levels F32 holds: the smallest and the largest. */
V_FN vm queue_usual(vf small, vf large) { return v_and(v_lt(v_set(0x1p-40f), small), v_lt(large, v_set(0x1p38f))); }

/* How far x / scale may be from a code's level for a search in whole numbers: where signs have a parity, one value of
 * eight may be far below 0. */
V_SHAPE int queue_reach(int type) { return type == SL_TYPE_IQ2_S ? 4 : 8; }

/* A thread's places in the queue, by trial: length | place there << 8, or none, or that of the first trial. off: a bit for
 * each group that is no point, of the second trial from bit 8 on. */
enum { PLACE_NONE = -1, PLACE_SAME = -2 };
struct device_places {
    int32_t at[2][8];
    uint32_t off;
};

V_SHAPE bool queue_iq1(int type) { return type == SL_TYPE_IQ1_S || type == SL_TYPE_IQ1_M; }
V_SHAPE int queue_values(int type)
{
    return type == SL_TYPE_IQ2_XS || type == SL_TYPE_IQ2_S || type == SL_TYPE_IQ1_M ? 16 : 32;
}
V_SHAPE int queue_groups(int type) { return queue_values(type) / 8; }

/* Trials of a turn. */
V_SHAPE int queue_trials(int type) { return queue_iq1(type) ? 1 : 2; }

/* Where a search's code is. */
V_FN int queue_cell(int type, int id, bool second) { return (id & QUEUE_CELL) + (second ? V_SPOT(queue_groups(type)) : 0); }

/* What is added to the levels 1, 3, 5 of a search: twice iq1's are -2, 0, 2, moved up or down by a fourth. */
V_FN vf queue_shift(int type, int id) { return !queue_iq1(type) ? 0.f : id >> 10 & 1 ? -3.25f : -2.75f; }

/* Columns before the counts, which nothing that comes before the searches may touch. */
V_SHAPE int queue_columns(int type)
{
    int n = 2 * (queue_values(type) + queue_trials(type)) + (queue_iq1(type) ? 2 * queue_groups(type) : 0);

    return type == SL_TYPE_IQ1_M && n < IQ1M_COLUMNS ? IQ1M_COLUMNS : n;
}

/* Floats of shared memory. */
V_SHAPE int queue_floats(int type)
{
    int words = queue_iq1(type) ? 3 : 6;

    return queue_columns(type) * V_COLUMNS + queue_groups(type) * V_COLUMNS * words / 2 + 2 * QUEUE_LENGTHS + 2;
}

/* Bytes that lie where the superblocks' words do, which are not used as long as there are turns: least. */
V_SHAPE int queue_aside(int type) { return queue_iq1(type) ? 0 : 2 * queue_groups(type) * V_COLUMNS * 8; }

V_FN struct device_queue queue_of(int type, float *pool, void *aside)
{
    const int cells = V_SPOT(queue_groups(type) * queue_trials(type));
    struct device_queue q;

    q.x = pool;
    q.w = q.x + V_SPOT(queue_values(type));
    q.scale = q.w + V_SPOT(queue_values(type));
    q.inv = q.scale + V_SPOT(queue_trials(type));
    q.least = (unsigned long long *)(queue_iq1(type) ? (void *)(q.inv + V_SPOT(1)) : aside);
    q.count = (int32_t *)(void *)(pool + V_SPOT(queue_columns(type)));
    q.start = q.count + QUEUE_LENGTHS;
    q.n_unsure = q.start + QUEUE_LENGTHS + 1;
    q.code = (uint16_t *)(void *)(q.n_unsure + 1);
    q.order = q.code + cells;
    q.unsure = q.order + cells;
    return q;
}

/* Which of the lengths a list has; the last codes of a list that is cut short are repeated ones. */
V_FN int queue_length(int type, int n)
{
    int l = (n - 1) >> (queue_iq1(type) ? 4 : type == SL_TYPE_IQ2_XS ? 3 : 2);

    return l < QUEUE_LENGTHS ? QUEUE_LENGTHS - 1 - l : 0;
}

/* Puts group k's code of a trial in; here: whether it is to be moved where it is no point. */
V_FN void queue_put(int type, const struct sl_grid *g, const struct device_queue *q, int tid, int trial, int k, vi code, bool here,
                    struct device_places *p)
{
    int32_t entry = here ? g->map[code] : 0;

    q->code[V_SPOT(trial * queue_groups(type) + k) + tid] = (uint16_t)code;
    p->at[trial][k] = PLACE_NONE;
    if (entry < 0) {
        int length = queue_length(type, sl_grid_list_length(entry));

        p->at[trial][k] = length | V_COUNT(&q->count[length]) << 8;
        p->off |= 1u << (8 * trial + k);
    }
}

/* The same for a code that both trials have, or for each trial's own. */
V_FN void queue_put_both(int type, const struct sl_grid *g, const struct device_queue *q, int tid, int k, vi first, vi second,
                         bool here, struct device_places *p)
{
    queue_put(type, g, q, tid, 0, k, first, here, p);
    if (first != second) {
        queue_put(type, g, q, tid, 1, k, second, here, p);
        return;
    }
    q->code[V_SPOT(queue_groups(type) + k) + tid] = (uint16_t)second;
    p->at[1][k] = PLACE_SAME;
    p->off |= (p->off & 1u << k) << 8;
}

/* Whether both trials have the same code, and between them there can be no other point. */
V_FN bool queue_clear(const struct device_queue *q, int k, const struct device_places *p)
{
    int at = p->at[0][k];

    return p->at[1][k] == PLACE_SAME && (at < 0 || q->order[q->start[at & 255] + (at >> 8)]);
}

V_FN void queue_starts(const int32_t *count, int32_t *start, int tid)
{
    int32_t sum = 0;

    if (tid > QUEUE_LENGTHS)
        return;
    V_UNROLL
    for (int i = 0; i < QUEUE_LENGTHS; i++)
        sum += i < tid ? count[i] : 0;
    start[tid] = sum;
}

/* down: iq1's moves by group. Empties the counts. */
V_FN void queue_place(int type, const struct device_queue *q, int tid, const vi *down, const struct device_places *p)
{
    if (tid < QUEUE_LENGTHS)
        q->count[tid] = 0;
    if (tid == 0)
        *q->n_unsure = 0;
    V_UNROLL
    for (int k = 0; k < queue_groups(type); k++) {
        int at = p->at[0][k], too = queue_iq1(type) ? (down[k] ? 1 << 10 : 0) : QUEUE_FIRST | (p->at[1][k] == PLACE_SAME ? QUEUE_SECOND : 0);

        if (at >= 0)
            q->order[q->start[at & 255] + (at >> 8)] = (uint16_t)(tid | k << 7 | too);
        at = queue_iq1(type) ? PLACE_NONE : p->at[1][k];
        if (at >= 0)
            q->order[q->start[at & 255] + (at >> 8)] = (uint16_t)(tid | k << 7 | QUEUE_SECOND);
    }
}

/* Searches in whole numbers. A point whose levels differ from the code's by 2 m[i] has a sum that is larger than the
 * code's by 4 scale^2 sum of w[i] (m[i]^2 + m[i] e[i]), e[i] = level of the code - x[i] / scale. p[i] = w[i] and
 * q[i] = w[i] e[i] are taken in units of which the largest p is just below 2^15 / reach, and rounded: an error of at most
 * sum of m[i]^2. p less 1 makes of it a lower bound of each neighbour's; the winner's own may be higher by
 * twice as much. Sums in floats, whose terms and totals are rounded, are off by less than a unit, since |e| is below
 * reach, 4 or 8. So where the second lowest bound is clearly above the lowest, any sums have that one as their least.
 * iq1's levels differ by m[i]: without the 4, and e[i] is twice as much.
 * e, and with it how far one point's sum is above another's in these units, is linear in 1 / scale: a point that is clear of the
 * others at two scales is so between, by no less than at one of them. */
struct queue_pairs {
    uint32_t p[4], q[2][4]; /* two values each; q by trial */
};

/* The differences and squares of a neighbour, a byte each, four times; filled up: 0 and 255. */
V_FN void queue_move(int bits, const uint32_t *move, uint32_t *by, uint32_t *square)
{
    by[0] = move[0];
    square[0] = move[bits - 2];
    if (bits == 2)
        for (int h = 1; h >= 0; h--) {
            by[h] = v_bytes_of(0x0400fcf8, 0x0008, move[0] >> 16 * h);
            square[h] = v_bytes_of(0x04000410, 0xff10, move[0] >> 16 * h);
        }
}

/* Adds p square, or q by. */
V_FN int queue_bound(int bits, bool sign, const uint32_t *f, const uint32_t *bytes, int sum)
{
    for (int h = 0; h < 4 - bits; h++)
        sum = v_dot2(true, sign, f[2 * h + 1], bytes[h], v_dot2(false, sign, f[2 * h], bytes[h], sum));
    return sum;
}

/* wu: weights of eight values (two bits) or four, in the search's units: the largest times far is below 2^15. Returns whether
 * they are in hand. */
V_FN bool queue_units(int bits, vf far, const vf *w, vf *wu)
{
    const uint32_t least = 87u << 23, span = 80u << 23; /* weights from 2^-40 to 2^40 */
    const int values = bits == 2 ? 8 : 4;
    uint32_t most = sl_bits(w[0]);
    vf unit;

    V_UNROLL
    for (int i = 1; i < values; i++)
        most = sl_bits(w[i]) > most ? sl_bits(w[i]) : most; /* what is not above 0, or no number: the largest */
    unit = v_frombits((vi)((268u << 23) - (sl_bits(v_mul(sl_float(most), far)) & 0x7f800000)));
    V_UNROLL
    for (int i = 0; i < values; i++)
        wu[i] = v_mul(w[i], unit);
    return most - least < span;
}

/* p of these. */
V_FN void queue_factors(int bits, const vf *wu, uint32_t *p)
{
    V_UNROLL
    for (int i = 0; i < (bits == 2 ? 8 : 4); i += 2)
        p[i / 2] = v_halves_of(sl_bits(v_add(wu[i], 12582911.f)), sl_bits(v_add(wu[i + 1], 12582911.f)));
}

/* q of e. */
V_FN void queue_products(int bits, const vf *wu, const vf *e, uint32_t *q)
{
    V_UNROLL
    for (int i = 0; i < (bits == 2 ? 8 : 4); i += 2)
        q[i / 2] = v_halves_of(sl_bits(v_add(v_mul(wu[i], e[i]), 12582912.f)), sl_bits(v_add(v_mul(wu[i + 1], e[i + 1]), 12582912.f)));
}

/* e of a scale. Returns how far it goes. level: the code's, odd ones; iq1's with the shift. inv: of the scale, iq1: twice
 * that. */
V_FN vf queue_errors(int bits, const vf *level, const vf *x, vf inv, vf *e)
{
    vf far = v_set(0.f);

    V_UNROLL
    for (int i = 0; i < (bits == 2 ? 8 : 4); i++) {
        e[i] = v_sub(level[i], v_mul(x[i], inv));
        far = i ? fmaxf(far, fabsf(e[i])) : fabsf(e[i]);
    }
    return far;
}

/* The sum of w * (scale * level - x)^2 over eight values of three levels; iq1: the shift is added to its levels. */
V_FN vf queue_sum_8(bool iq1, uint32_t point, const vf *x, const vf *w, vf scale, vf shift)
{
    vf sum = v_set(0.f);

    V_UNROLL
    for (int i = 0; i < 8; i++) {
        vf level = v_odd(2, (vi)point, i), diff, term;

        if (iq1)
            level = v_mul(v_add(level, shift), v_set(0.5f)); /* exact */
        diff = v_sub(v_mul(scale, level), x[i]);
        term = v_mul(v_mul(w[i], diff), diff);
        sum = i ? v_add(sum, term) : term;
    }
    return sum;
}

/* The point that is `move` from a code. */
V_FN uint16_t queue_moved(int bits, const uint32_t *by, uint32_t code)
{
    int point = 4 * (int)code;

    if (bits == 3)
        point = v_dot2(true, true, 512 << 16 | 64, by[0], v_dot2(false, true, 8 << 16 | 1, by[0], point));
    else
        for (int h = 0; h < 2; h++)
            point = v_dot2(true, true, (uint32_t)(64 << 16 | 16) << 8 * h, by[h],
                           v_dot2(false, true, (uint32_t)(4 << 16 | 1) << 8 * h, by[h], point));
    return (uint16_t)(point >> 2);
}

/* A search for one or two scales, of what was made of them. first: where its list begins in all moves, in words.
 * code[0]: the code; then by scale the point. part, unless NULL: where the two are different, at what part of the
 * way between the scales' inverses their sums are equal. pair, of iq1_m, one scale: equal values
 * make many sums equal, mostly two; those two are summed in floats at once. Returns a bit for each scale, 0 and its code left
 * where it is not clear. */
V_FN int queue_walk(int bits, int ends, int clear, bool pair, bool in_hand, const struct sl_grid *g, uint32_t first, int n,
                    const struct queue_pairs *f, const vf *x, const vf *w, vf scale, vf shift, uint16_t *code, vf *part)
{
    const uint32_t words = (uint32_t)(bits - 1), end = first + words * (uint32_t)n, from_code = code[0];
    int best[2] = {INT_MAX, INT_MAX}, second[2] = {INT_MAX, INT_MAX}, third = INT_MAX, settled = 0;
    uint32_t at[2] = {first, first}, other = first, j = first;
    uint32_t move[2][2], power[2][2];

    V_ROLLED
    do {
        const struct device_quad *from = (const struct device_quad *)(const void *)(g->moves + j);
        struct device_quad four[2];
        int before[2] = {best[0], best[1]}, then = second[0];

        four[0] = from[0];
        if (bits == 3)
            four[1] = from[1];
        V_UNROLL
        for (int c = 0; c < 4; c++) {
            uint32_t by[2], square[2];
            int common;

            queue_move(bits, &four[c * (bits - 1) / 4].w[c * (bits - 1) % 4], by, square);
            common = queue_bound(bits, false, f->p, square, c);
            V_UNROLL
            for (int t = 0; t < ends; t++) {
                int sum = queue_bound(bits, true, f->q[t], by, common);

                third = pair ? v_imin(third, v_imax(second[t], sum)) : third;
                second[t] = v_imin(second[t], v_imax(best[t], sum));
                best[t] = v_imin(best[t], sum);
            }
        }
        if (pair && second[0] < then)
            other = best[0] < before[0] && second[0] == before[0] ? at[0] : j;
        V_UNROLL
        for (int t = 0; t < ends; t++)
            at[t] = best[t] < before[t] ? j : at[t];
        j += 4 * words;
    } while (j < end);
    V_UNROLL
    for (int t = 0; t < ends; t++) {
        uint32_t *by = move[t], *square = power[t];
        int margin = clear;

        queue_move(bits, g->moves + (at[t] + words * (uint32_t)(best[t] & 3)), by, square);
        for (int h = 0; h < 4 - bits; h++)
            margin = v_dot2(true, false, 0x20002, square[h], v_dot2(false, false, 0x20002, square[h], margin));
        if (pair && in_hand && second[t] - best[t] <= margin && third - best[t] > margin) {
            uint32_t a = at[t] + (uint32_t)(best[t] & 3), b = other + (uint32_t)(second[t] & 3), one = g->lists[a < b ? a : b],
                     two = g->lists[a < b ? b : a];

            *code = (uint16_t)(queue_sum_8(true, two, x, w, scale, shift) < queue_sum_8(true, one, x, w, scale, shift) ? two : one);
            return 1;
        }
        if (in_hand && second[t] - best[t] > margin) {
            code[t] = queue_moved(bits, by, from_code);
            settled |= 1 << t;
        }
    }
    if (part && settled == 3 && code[0] != code[1]) {
        int above[2];

        V_UNROLL
        for (int t = 0; t < 2; t++)
            above[t] = queue_bound(bits, true, f->q[t], move[!t], queue_bound(bits, false, f->p, power[!t], 0)) - best[t];
        *part = v_div(v_tofloat(above[0]), v_tofloat(above[0] + above[1]));
    }
    return settled;
}

/* A search for one or two scales, of iq1 and iq2. inv: by scale, as in queue_errors, the larger last: if levels are the
 * nearest |e| is not beyond reach at the first scale if it is not at the last. */
V_FN int queue_settle(int ends, int reach, bool pair, const struct sl_grid *g, uint32_t first, int n, const vf *x, const vf *w, vf scale,
                      const vf *inv, vf shift, uint16_t *code)
{
    const int clear = 16; /* in quarters of a unit: places 3, floats 8, roundings of q and e 2 */
    struct queue_pairs f;
    vf wu[8], level[8], e[8];
    bool in_hand = queue_units(2, v_set((float)reach), w, wu), near = false;

    queue_factors(2, wu, f.p);
    V_UNROLL
    for (int i = 0; i < 8; i++)
        level[i] = shift != 0.f ? v_add(v_odd(2, (vi)*code, i), shift) : v_odd(2, (vi)*code, i);
    V_UNROLL
    for (int t = 0; t < ends; t++) {
        near = queue_errors(2, level, x, inv[t], e) < (float)reach - 0x1p-6f;
        queue_products(2, wu, e, f.q[t]);
    }
    /* &: with && ptxas puts it off, and takes 13 registers more */
    return queue_walk(2, ends, clear, pair, in_hand & near, g, first, n, &f, x, w, scale, shift, code, NULL);
}

/* What orders as a number does, as unsigned bits. A search has sums of 0 or of -0, never both: a term has its
 * weight's sign. */
V_FN uint32_t queue_rank(vf a)
{
    uint32_t bits = sl_bits(a);

    return bits >> 31 ? ~bits : bits | 0x80000000;
}

/* Lists of eight values are long, and few searches are unsure: 16 threads share one, and 8 where lists have some ten points. */
V_FN void queue_unsure_8(int type, const struct sl_grid *g, const struct device_queue *q, int tid)
{
    const int threads = type == SL_TYPE_IQ2_S ? 8 : 16;

    V_ROLLED
    for (int s = tid / threads; s < *q->n_unsure; s += V_COLUMNS / threads) {
        int id = q->unsure[s], owner = id & 127, k = id >> 7 & 7, second = id >> 11, at = 0;
        int32_t entry = g->map[q->code[queue_cell(type, id, second)]];
        const uint16_t *list = sl_grid_list(g, entry);
        vf x[8], w[8], scale = q->scale[V_SPOT(second) + owner], best = v_set(FLT_MAX), shift = queue_shift(type, id);

        V_UNROLL
        for (int i = 0; i < 8; i++) {
            x[i] = q->x[V_SPOT(8 * k + i) + owner];
            w[i] = q->w[V_SPOT(8 * k + i) + owner];
        }
        V_ROLLED
        for (int j = tid % threads; j < sl_grid_list_length(entry); j += threads) {
            vf sum = queue_sum_8(queue_iq1(type), list[j], x, w, scale, shift);

            at = sum < best ? j : at;
            best = sum < best ? sum : best;
        }
        if (best < FLT_MAX)
            V_LEAST(&q->least[s], v_pair(queue_rank(best), (uint32_t)at));
    }
}

V_FN void queue_named_8(int type, const struct sl_grid *g, const struct device_queue *q, int tid)
{
    for (int s = tid; s < *q->n_unsure; s += V_COLUMNS) {
        uint16_t *code = &q->code[queue_cell(type, q->unsure[s], q->unsure[s] >> 11)];

        *code = sl_grid_list(g, g->map[*code])[(uint32_t)q->least[s]];
    }
}

V_FN void queue_leave(const struct device_queue *q, int id)
{
    int s = V_COUNT(q->n_unsure);

    q->unsure[s] = (uint16_t)id;
    q->least[s] = v_pair(queue_rank(FLT_MAX), 0);
}

V_FN void queue_end(const struct device_queue *q, bool settled, uint16_t point, int id, uint16_t *code)
{
    if (settled)
        *code = point;
    else
        queue_leave(q, id);
}

/* A thread's part of all searches. */
V_FN void queue_nearest(int type, const struct sl_grid *g, const struct device_queue *q, int tid)
{
    const int ends = queue_trials(type);

    V_ROLLED
    for (int s = tid; s < q->start[QUEUE_LENGTHS]; s += V_COLUMNS) {
        int id = q->order[s], owner = id & 127, k = id >> 7 & 7, settled;
        uint16_t *cell = &q->code[id & QUEUE_CELL], *other = cell + V_SPOT(queue_groups(type));
        uint16_t code[2] = {ends == 1 || id & QUEUE_FIRST ? *cell : *other, 0};
        int32_t entry = g->map[code[0]];
        uint32_t first = ((uint32_t)entry & 0xfffff) * SL_GRID_UNIT;
        vf x[8], w[8], inv[2];

        V_UNROLL
        for (int i = 0; i < 8; i++) {
            x[i] = q->x[V_SPOT(8 * k + i) + owner];
            w[i] = q->w[V_SPOT(8 * k + i) + owner];
        }
        inv[0] = q->inv[owner];
        inv[1] = ends == 1 ? inv[0] : q->inv[V_SPOT(1) + owner];
        settled = queue_settle(ends, queue_reach(type), type == SL_TYPE_IQ1_M, g, first, sl_grid_list_length(entry), x, w,
                               q->scale[owner], inv, queue_shift(type, id), code);
        if (ends == 2)
            q->order[s] = settled == 3 && code[0] == code[1];
        if (ends == 1 || id & QUEUE_FIRST)
            queue_end(q, settled & 1, code[0], id & (ends == 1 ? 0xffff : ~QUEUE_SECOND), cell);
        if (ends == 2 && id & QUEUE_SECOND)
            queue_end(q, settled & 2, code[1], id & ~QUEUE_FIRST, other);
    }
}

#endif
