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
 *   unsure  with eight levels: searches that whole numbers did not settle, once more in floats
 *
 * Which thread searches, and in which order, changes no sum. */
#ifndef SLUICE_KERNELS_TEXT_QUEUE_H
#define SLUICE_KERNELS_TEXT_QUEUE_H

#include "kernels/text_device_load.h"
#include "kernels/text_iq1.h"

#define QUEUE_LENGTHS 32

/* In shared memory. A search is its thread | group << 7, and 1 << 10 where iq1's levels are moved down. */
struct device_queue {
    float *x, *w;           /* columns: the values of a thread's sub-block, and what their squares are weighted by */
    float *table;           /* columns: of the thread that searches */
    float *scale, *inv;     /* by thread; inv: of the scale, where queue_settle_4 may use it, else no number */
    uint16_t *code, *order; /* code: by group and thread; once searched for, the point's */
    uint16_t *unsure;       /* searches, n_unsure of them */
    int32_t *count, *start; /* by length, longest first; start[QUEUE_LENGTHS]: all searches */
    int32_t *n_unsure;
};

/* A thread's places in the queue: length | place there << 8, or -1. */
struct device_places {
    int32_t at[8];
};

V_SHAPE bool queue_iq1(int type) { return type == SL_TYPE_IQ1_S || type == SL_TYPE_IQ1_M; }
V_SHAPE int queue_bits(int type) { return type == SL_TYPE_IQ3_XXS || type == SL_TYPE_IQ3_S ? 3 : 2; }
V_SHAPE int queue_values(int type)
{
    return type == SL_TYPE_IQ2_XS || type == SL_TYPE_IQ2_S || type == SL_TYPE_IQ1_M ? 16 : 32;
}
V_SHAPE int queue_groups(int type) { return queue_values(type) / (queue_bits(type) == 2 ? 8 : 4); }

/* Columns of the tables: three levels of eight values; with eight levels of four values there is none. Value i's levels are 1, 4 or 16 columns apart, so that three values' bits are masked where they
 * lie in a code instead of being shifted: the columns of eight values fit into 34, and leave QUEUE_SCALE
 * for what the queue has by thread. */
#define QUEUE_SCALE 5
V_SHAPE int queue_table(int type) { return queue_bits(type) == 2 ? 34 : 2; }
V_FN int queue_column(int i, int level)
{
    return (int)(0x041501031200020dull >> 8 * i & 255) + (level << 2 * (i % 3));
}

/* Columns before the counts, which nothing that comes before the searches may touch. */
V_SHAPE int queue_columns(int type)
{
    int n = 2 * queue_values(type) + queue_table(type);

    return type == SL_TYPE_IQ1_M && n < IQ1M_COLUMNS ? IQ1M_COLUMNS : n;
}

/* Floats of shared memory. */
V_SHAPE int queue_floats(int type)
{
    int n = (queue_columns(type) + queue_groups(type)) * V_COLUMNS + 2 * QUEUE_LENGTHS + 2;

    return queue_bits(type) == 3 ? n + queue_groups(type) * V_COLUMNS / 2 : n;
}

V_FN struct device_queue queue_of(int type, float *pool)
{
    struct device_queue q;

    q.x = pool;
    q.w = q.x + V_SPOT(queue_values(type));
    q.table = q.w + V_SPOT(queue_values(type));
    q.scale = q.table + (queue_bits(type) == 2 ? V_SPOT(QUEUE_SCALE) : 0);
    q.inv = q.scale + V_SPOT(1);
    q.count = (int32_t *)(void *)(pool + V_SPOT(queue_columns(type)));
    q.start = q.count + QUEUE_LENGTHS;
    q.n_unsure = q.start + QUEUE_LENGTHS + 1;
    q.code = (uint16_t *)(void *)(q.n_unsure + 1);
    q.order = q.code + V_SPOT(queue_groups(type));
    q.unsure = q.order + V_SPOT(queue_groups(type));
    return q;
}

/* Which of the lengths a list has; the last codes of a list that is cut short are repeated ones. */
V_FN int queue_length(int type, int n)
{
    int l = (n - 1) >> (queue_iq1(type) ? 4 : type == SL_TYPE_IQ2_XS ? 3 : 2);

    return l < QUEUE_LENGTHS ? QUEUE_LENGTHS - 1 - l : 0;
}

/* Puts group k's code in; here: whether it is to be moved where it is no point. */
V_FN void queue_put(int type, const struct sl_grid *g, const struct device_queue *q, int tid, int k, vi code, bool here,
                    struct device_places *p)
{
    int32_t entry = here ? g->map[code] : 0;

    q->code[V_SPOT(k) + tid] = (uint16_t)code;
    p->at[k] = -1;
    if (entry < 0) {
        int length = queue_length(type, sl_grid_list_length(entry));

        p->at[k] = length | V_COUNT(&q->count[length]) << 8;
    }
}

V_FN void queue_starts(const struct device_queue *q, int tid)
{
    int32_t sum = 0;

    if (tid > QUEUE_LENGTHS)
        return;
    V_UNROLL
    for (int i = 0; i < QUEUE_LENGTHS; i++)
        sum += i < tid ? q->count[i] : 0;
    q->start[tid] = sum;
}

/* down: iq1's moves by group, or NULL. Empties the counts. */
V_FN void queue_place(int type, const struct device_queue *q, int tid, const vi *down, const struct device_places *p)
{
    if (tid < QUEUE_LENGTHS)
        q->count[tid] = 0;
    if (tid == 0)
        *q->n_unsure = 0;
    V_UNROLL
    for (int k = 0; k < queue_groups(type); k++)
        if (p->at[k] >= 0)
            q->order[q->start[p->at[k] & 255] + (p->at[k] >> 8)] =
                (uint16_t)(tid | k << 7 | (down && down[k] ? 1 << 10 : 0));
}

/* The first point of a list with the least sum of w * (scale * level - x)^2. Where no sum is a number
 * below FLT_MAX: the first. table: eight values' three levels, of all threads. */
V_FN int queue_walk_8(const struct device_words *list, int n, const float *table, int tid)
{
    const uint32_t column = (uint32_t)tid * sizeof(float), step = V_SPOT(1) * sizeof(float);
    vf best = v_set(FLT_MAX);
    int at = 0;

    V_ROLLED
    for (int j = 0; j < n; j += 4) {
        struct device_words codes = list[j / 4];

        V_UNROLL
        for (int c = 0; c < 4; c++) {
            uint32_t code = 0;
            vf sum = v_set(0.f);

            V_UNROLL
            for (int i = 0; i < 8; i++) {
                int bit = 16 * (c & 1) + 2 * i;
                uint32_t place;
                vf term;

                if (i % 3 == 0) /* its bits to those of a column's number, in bytes */
                    code = bit < 9 ? codes.w[c / 2] << (9 - bit) : codes.w[c / 2] >> (bit - 9);
                place = v_masked_or(code, 3 * step << 2 * (i % 3), column) + (uint32_t)queue_column(i, 0) * step;
                term = *(const float *)(const void *)((const char *)table + place);
                sum = i ? v_add(sum, term) : term;
            }
            at = sum < best ? j + c : at;
            best = sum < best ? sum : best;
        }
    }
    return at;
}

/* The same for four values of eight levels. */
V_FN int queue_walk_4(const struct device_words *list, int n, const vf *x, const vf *w, vf scale)
{
    vf best = v_set(FLT_MAX);
    int at = 0;

    V_ROLLED
    for (int j = 0; j < n; j += 4) {
        struct device_words codes = list[j / 4];

        V_UNROLL
        for (int c = 0; c < 4; c++) {
            vf sum = v_set(0.f);

            V_UNROLL
            for (int i = 0; i < 4; i++) {
                vf diff = v_sub(v_mul(scale, v_odd(3, (vi)(codes.w[c / 2] >> 16 * (c & 1)), i)), x[i]);
                vf term = v_mul(v_mul(w[i], diff), diff);

                sum = i ? v_add(sum, term) : term;
            }
            at = sum < best ? j + c : at;
            best = sum < best ? sum : best;
        }
    }
    return at;
}

/* Four values of eight levels, in whole numbers. A point whose levels differ from the code's by 2 m[i] has a sum that is
 * larger than the code's by 4 scale^2 sum of w[i] (m[i]^2 + m[i] e[i]), e[i] = level of the code - x[i] / scale.
 * p[i] = w[i] and q[i] = w[i] e[i] are taken in units of which the largest p is just below 2^15 / reach, and rounded: an
 * error of at most sum of m[i]^2. p less 1 makes of it a lower bound of each neighbour's; the winner's own may be higher by
 * twice as much. Sums in floats, whose terms and totals are rounded, are off by less than a unit, since |e| is below
 * reach, 4 or 8.
 * So where the second lowest bound is clearly above the lowest, any sums have that one as their least. In *code: the
 * code, then the point's. Returns false, and leaves the code, where it is not clear, or a number is out of hand.
 * inv: of the scale; no number where that is very large or small. */
V_FN bool queue_settle_4(int reach, const struct device_words *list, int n, const vf *x, const vf *w, vf inv, uint16_t *code)
{
    const int clear = 16; /* in quarters of a unit: places 3, floats 8, roundings of q and e 2 */
    const uint32_t least = 87u << 23, span = 80u << 23; /* weights from 2^-40 to 2^40 */
    uint32_t most = sl_bits(w[0]), p[4], q[4], p01, p23, q01, q23;
    int best = INT_MAX, second = INT_MAX, at = 0, j = 0;
    struct device_words won;
    bool in_hand;
    vf far = v_set(0.f), unit, e[4];

    V_UNROLL
    for (int i = 0; i < 4; i++) {
        e[i] = v_sub(v_odd(3, *code, i), v_mul(x[i], inv));
        far = i ? fmaxf(far, fabsf(e[i])) : fabsf(e[0]);
        most = sl_bits(w[i]) > most ? sl_bits(w[i]) : most; /* what is not above 0, or no number: the largest */
    }
    in_hand = most - least < span && far < (float)reach - 0x1p-6f;
    unit = v_frombits((vi)(((reach == 4 ? 266u : 265u) << 23) - (most & 0x7f800000)));
    V_UNROLL
    for (int i = 0; i < 4; i++) {
        vf wu = v_mul(w[i], unit);

        p[i] = sl_bits(v_add(wu, 12582911.f));
        q[i] = sl_bits(v_add(v_mul(wu, e[i]), 12582912.f));
    }
    p01 = v_halves_of(p[0], p[1]);
    p23 = v_halves_of(p[2], p[3]);
    q01 = v_halves_of(q[0], q[1]);
    q23 = v_halves_of(q[2], q[3]);
    V_ROLLED
    do {
        const struct device_quad *four = (const struct device_quad *)(const void *)(list + (uint32_t)j);
        struct device_quad two[2] = {four[0], four[1]};
        int before = best;

        V_UNROLL
        for (int c = 0; c < 4; c++) {
            uint32_t by = two[c / 2].w[2 * (c & 1)], square = two[c / 2].w[2 * (c & 1) + 1];
            int sum = v_dot2(true, false, p23, square,
                             v_dot2(false, false, p01, square, v_dot2(true, true, q23, by, v_dot2(false, true, q01, by, c))));

            second = v_imin(second, v_imax(best, sum));
            best = v_imin(best, sum);
        }
        at = best < before ? j : at;
        j += 4;
    } while (j < n);
    won = list[(uint32_t)(at | (best & 3))];
    if (!in_hand || second - best <= v_dot2(true, false, 0x20002, won.w[1], v_dot2(false, false, 0x20002, won.w[1], clear)))
        return false;
    *code = (uint16_t)(v_dot2(true, true, 0x2000040, won.w[0], v_dot2(false, true, 0x80001, won.w[0], 4 * *code)) >> 2);
    return true;
}

V_FN void queue_nearest_8(bool iq1, const struct device_queue *q, int tid, int id, const uint16_t *list, int n, int *at)
{
    int owner = id & 127, k = id >> 7 & 7, down = id >> 10;
    float *t = q->table + tid;
    vf scale = q->scale[owner], level[3];

    for (int l = 0; l < 3; l++)
        level[l] = v_mul(scale, iq1 ? (float)(l - 1) + (down ? -0.125f : 0.125f) : (float)(2 * l + 1));
    V_UNROLL
    for (int i = 0; i < 8; i++) {
        vf x = q->x[V_SPOT(8 * k + i) + owner], w = q->w[V_SPOT(8 * k + i) + owner];

        V_UNROLL
        for (int l = 0; l < 3; l++) {
            vf diff = v_sub(level[l], x);

            t[V_SPOT(queue_column(i, l))] = v_mul(v_mul(w, diff), diff);
        }
    }
    *at = queue_walk_8((const struct device_words *)(const void *)list, n, q->table, tid);
}

V_FN void queue_four(const struct device_queue *q, int id, vf *x, vf *w)
{
    int owner = id & 127, k = id >> 7 & 7;

    V_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = q->x[V_SPOT(4 * k + i) + owner];
        w[i] = q->w[V_SPOT(4 * k + i) + owner];
    }
}

/* Where signs have a parity, one value of eight may be far below 0. */
V_FN void queue_nearest_4(int type, const struct sl_grid *g, const struct device_queue *q, int id, int32_t entry, uint16_t *code)
{
    const struct sl_grid_moves *list = g->moves + (size_t)((uint32_t)entry & 0xfffff) * SL_GRID_UNIT;
    vf x[4], w[4];

    queue_four(q, id, x, w);
    if (!queue_settle_4(type == SL_TYPE_IQ3_XXS ? 8 : 4, (const struct device_words *)(const void *)list,
                        sl_grid_list_length(entry), x, w, q->inv[id & 127], code))
        q->unsure[V_COUNT(q->n_unsure)] = (uint16_t)id;
}

/* A thread's part of what whole numbers did not settle. */
V_FN void queue_unsure(const struct sl_grid *g, const struct device_queue *q, int tid)
{
    V_ROLLED
    for (int s = tid; s < *q->n_unsure; s += V_COLUMNS) {
        uint16_t *code = &q->code[q->unsure[s] & 1023];
        int32_t entry = g->map[*code];
        const uint16_t *list = sl_grid_list(g, entry);
        vf x[4], w[4];

        queue_four(q, q->unsure[s], x, w);
        *code = list[queue_walk_4((const struct device_words *)(const void *)list, sl_grid_list_length(entry), x, w,
                                  q->scale[q->unsure[s] & 127])];
    }
}

/* A thread's part of all searches. */
V_FN void queue_nearest(int type, const struct sl_grid *g, const struct device_queue *q, int tid)
{
    V_ROLLED
    for (int s = tid; s < q->start[QUEUE_LENGTHS]; s += V_COLUMNS) {
        int id = q->order[s], at;
        uint16_t *code = &q->code[id & 1023];
        int32_t entry = g->map[*code];

        if (queue_bits(type) == 2) {
            const uint16_t *list = sl_grid_list(g, entry);

            queue_nearest_8(queue_iq1(type), q, tid, id, list, sl_grid_list_length(entry), &at);
            *code = list[at];
        } else {
            queue_nearest_4(type, g, q, id, entry, code);
        }
    }
}

#endif
