/* The trials of iq3 by a block of GPU threads, in rounds of 32 sub-blocks. A group of four values has the same code, and so the
 * same list of neighbours, over a run of trials, mostly of six or seven. A list is walked once for two trials, first for the ends of
 * a run: two neighbours' sums differ by scale^2 times what is linear in 1 / scale, so that the one that is clearly the least at both
 * ends is the least between. Where the ends have different points, there is a place where these are equal; the two trials about it
 * are searched next, and mostly leave nothing.
 *
 *   codes   the round's values and scales are laid out; what the last round's second move found is taken
 *   runs    by group: where its code changes, and an item for each run
 *   lists   by item: the code; a point of the grid is written, others have a list
 *   starts, place   items in the order of their lists' lengths
 *   nearest items, by any thread; again for what is left of them
 *   collect, unsure  single trials that whole numbers did not settle, in floats; again while there are others
 *   fill    each trial's points
 *   trials  by sub-block and trial: the sums that it is judged by
 *
 * The next turn judges the trials, in their order, and moves groups once more with the scale found, as one trial more. Which
 * thread searches, and in which order, changes no sum. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_RUNS_H
#define SLUICE_KERNELS_TEXT_DEVICE_RUNS_H

/* A column is a sub-block of the round, a cell its group: column + RUNS_COLUMNS * group. Room is for items, for those that have a
 * list, and for searches in floats, which lie behind the latter; what has no room is searched for in floats, in turns. */
enum { RUNS_COLUMNS = 32, RUNS_CELLS = 256, RUNS_ITEMS = 2048, RUNS_LISTS = 1280, RUNS_UNSURE = 2 * (RUNS_ITEMS - RUNS_LISTS) };

/* How often items are searched, and longer lists, which are searched before shorter ones. */
enum { RUNS_PASSES = 5, RUNS_LONG = 12 };

/* An item: cell | first trial << 8 | last << 13 | flags; RUNS_INSIDE and another trial << 18: the points of first and last differ
 * and are known, the other and the one after it are searched. RUNS_WILD: whole numbers are not for it. Lists' lengths << 24. */
enum { RUNS_INSIDE = 1 << 23, RUNS_WILD = 1 << 29 };
#define RUNS_DONE 0xffffffffu

/* A code: that of the trial before. */
#define RUNS_NONE 0xffff

/* What a column is: without anything to search for; as it should be; of numbers whose codes wrap, or far too large or small. */
enum { COLUMN_DEAD, COLUMN_FINE, COLUMN_WILD };

/* How far |e| may go; how far the second move's 1 / scale may be above the last trial's. */
#define RUNS_REACH 8.f
#define RUNS_BEYOND 1.03125f

struct device_runs {
    float *x, *w, *wu;       /* by value of a group, and cell: values, their weights, and the roots of these in a search's units */
    float *inv;              /* 1 / scale, by trial and column; behind the last trial: of the second move */
    float *scale;            /* by column: of the second move */
    uint32_t *state, *here;  /* by column; here: a bit for each group that the second move moves */
    uint32_t *unclear, *off; /* by cell, a bit for each trial: to be searched in floats; no point of the grid */
    uint16_t *code;          /* by trial and cell: the point, or RUNS_NONE */
    uint32_t *list[2];       /* items, from one into the other */
    float *sums;             /* by trial, twice, and column: in the first list's place */
    uint16_t *unsure;        /* cell | trial << 8 */
    int32_t *count, *start;  /* by length */
    int32_t *n, *n_unsure;   /* items of short and of long lists, by turns of three passes; searches in floats, by turns of two */
};

V_SHAPE int runs_trials(int type) { return 2 * grid_kind_of(type).steps + 1; }

/* Bytes that lie where the superblocks' words do, which are not used as long as there are turns. */
V_SHAPE int runs_aside(int type)
{
    int sums = 8 * runs_trials(type) * RUNS_COLUMNS;

    return sums > 4 * RUNS_ITEMS ? sums : 4 * RUNS_ITEMS;
}

/* Floats of shared memory. */
V_SHAPE int runs_floats(int type)
{
    return 3 * 4 * RUNS_CELLS + (runs_trials(type) + 4) * RUNS_COLUMNS + 2 * RUNS_CELLS + (runs_trials(type) + 1) * RUNS_CELLS / 2 +
           RUNS_LISTS + 2 * QUEUE_LENGTHS + 1 + 6 + 2;
}

V_FN struct device_runs runs_of(int type, float *pool, void *aside)
{
    const int trials = runs_trials(type);
    struct device_runs r;

    r.list[0] = (uint32_t *)aside;
    r.sums = (float *)aside;
    r.unsure = (uint16_t *)(void *)(r.list[0] + RUNS_LISTS);
    r.list[1] = (uint32_t *)(void *)pool;
    r.x = pool + RUNS_LISTS;
    r.w = r.x + 4 * RUNS_CELLS;
    r.wu = r.w + 4 * RUNS_CELLS;
    r.inv = r.wu + 4 * RUNS_CELLS;
    r.scale = r.inv + (trials + 1) * RUNS_COLUMNS;
    r.state = (uint32_t *)(void *)(r.scale + RUNS_COLUMNS);
    r.here = r.state + RUNS_COLUMNS;
    r.unclear = r.here + RUNS_COLUMNS;
    r.off = r.unclear + RUNS_CELLS;
    r.code = (uint16_t *)(void *)(r.off + RUNS_CELLS);
    r.count = (int32_t *)(void *)(r.code + (trials + 1) * RUNS_CELLS);
    r.start = r.count + QUEUE_LENGTHS;
    r.n = r.start + QUEUE_LENGTHS + 1;
    r.n_unsure = r.n + 6;
    return r;
}

/* The trials from first to last, as bits. */
V_FN uint32_t runs_bits(int first, int last) { return (2u << last) - (1u << first); }

/* The four values, or weights, of a cell. */
V_FN void runs_of_cell(const float *from, int cell, vf *out)
{
    V_UNROLL
    for (int i = 0; i < 4; i++)
        out[i] = from[i * RUNS_CELLS + cell];
}

/* ---- a search */

/* grid_code() of a group of values where no rounding wraps and nothing is a NaN: twice each level as a number, put together as
 * numbers, which is exact. level: the odd levels. */
V_FN uint16_t runs_code(bool parity, const vf *x, vf inv, vf *level)
{
    vf code = v_set(0.f);

    V_UNROLL
    for (int i = 3; i >= 0; i--) {
        vf twice = fminf(v_sub(v_mul(x[i], inv), v_set(1.f)), 14.f);

        if (parity) /* values below 0 */
            twice = fmaxf(twice, 0.f);
        twice = v_sub(v_add(twice, v_set(25165824.f)), v_set(25165824.f));
        level[i] = v_add(twice, v_set(1.f));
        code = i < 3 ? v_add(v_mul(code, v_set(8.f)), twice) : twice;
    }
    return (uint16_t)sl_bits(v_add(code, v_set(16777216.f)));
}

/* A group's weights in a search's units, of which the largest weight times the largest |e| is just below 2^15. inv: of no trial
 * a larger one. w: the weights' roots. Returns whether whole numbers are for it. */
V_FN bool runs_units(bool parity, const vf *x, const vf *w, vf inv, vf *wu)
{
    vf most = x[0], least = x[0], far;

    V_UNROLL
    for (int i = 1; i < 4; i++) {
        most = fmaxf(most, x[i]);
        least = fminf(least, x[i]);
    }
    far = fmaxf(v_sub(v_mul(most, inv), v_set(15.f)), 1.f);
    if (parity)
        far = fmaxf(v_sub(v_set(1.f), v_mul(least, inv)), far);
    far = v_add(far, v_set(0x1p-6f));
    return queue_units(3, far, w, wu) && far < RUNS_REACH;
}

/* A search for two scales: queue_walk's result. entry: of the code, which is in point[0]; level: its levels.
 * In quarters of a unit, places are 3. Let u be 2^-24, m differences from the code, of which a point has 10 in all and 5 at most:
 * e is off by u (30 + 3 |e|), which makes 5.2 for two points, and products' roundings 0.2. A sum in floats is off by u p (30 D + 7 D^2)
 * for each value at most, D = |2 m + e|: for |e| = 1, p = 2^15 and two values that are 5 levels away 4.8, so 9.6 for two points. */
V_FN int runs_settle(const struct sl_grid *g, int32_t entry, const vf *level, const vf *x, const vf *wu, vf first, vf second,
                     uint16_t *point, vf *part)
{
    const int clear = 18;
    struct queue_pairs f;
    vf e[4];

    queue_factors(3, wu, f.p);
    queue_errors(3, level, x, first, e);
    queue_products(3, wu, e, f.q[0]);
    queue_errors(3, level, x, second, e);
    queue_products(3, wu, e, f.q[1]);
    return queue_walk(3, 2, clear, false, true, g, ((uint32_t)entry & 0xfffff) * (2 * SL_GRID_UNIT), sl_grid_list_length(entry), &f, x,
                      wu, v_set(0.f), v_set(0.f), point, part);
}

/* ---- items */

/* Items of a cell's runs, each beginning at a bit. */
V_FN void runs_items(const struct device_runs *r, int cell, uint32_t bits, int last, uint32_t flags)
{
    int place = V_MORE(&r->n[0], v_bits_set(bits));

    V_ROLLED
    while (bits) {
        int first = v_last_bit(bits);

        if (place < RUNS_ITEMS)
            r->list[0][place++] = (uint32_t)(cell | first << 8 | last << 13) | flags;
        else
            r->unclear[cell] |= runs_bits(first, last);
        last = first - 1;
        bits ^= 1u << first;
    }
}

/* A thread's part of the items: of those that are points, the points. */
V_FN void runs_lists(int type, const struct sl_grid *g, int turn, int tid, const struct device_runs *r)
{
    const bool parity = grid_kind_of(type).parity;
    int n = v_imin(r->n[0], RUNS_ITEMS);

    V_ROLLED
    for (int i = tid; i < n; i += V_COLUMNS) {
        uint32_t item = r->list[0][i];
        int cell = item & 255, first = item >> 8 & 31, last = item >> 13 & 31, length;
        vf x[4], level[4], inv = r->inv[first * RUNS_COLUMNS + cell % RUNS_COLUMNS];
        int32_t entry;
        vi code;

        runs_of_cell(r->x, cell, x);
        code = item & RUNS_WILD ? grid_code(3, 7, x, inv) : runs_code(parity, x, inv, level);
        entry = g->map[code];
        length = queue_length(type, sl_grid_list_length(entry));
        if (entry < 0 && !(turn & 1))
            V_OR(&r->off[cell], runs_bits(first, last));
        if (entry >= 0)
            r->code[first * RUNS_CELLS + cell] = (uint16_t)code;
        else if (item & RUNS_WILD)
            V_OR(&r->unclear[cell], runs_bits(first, last));
        else
            V_COUNT(&r->count[length]);
        r->list[0][i] = entry >= 0 || item & RUNS_WILD ? RUNS_DONE : item | (uint32_t)length << 24;
    }
}

/* The others, in order. */
V_FN void runs_place(int tid, const struct device_runs *r)
{
    int n = v_imin(r->n[0], RUNS_ITEMS);

    if (tid < QUEUE_LENGTHS)
        r->count[tid] = 0;
    V_ROLLED
    for (int i = tid; i < n; i += V_COLUMNS) {
        uint32_t item = r->list[0][i];
        int place;

        if (item == RUNS_DONE)
            continue;
        place = V_COUNT(&r->start[item >> 24]);
        if (place < RUNS_LISTS)
            r->list[1][place] = item & 0xffffff;
        else
            V_OR(&r->unclear[item & 255], runs_bits(item >> 8 & 31, item >> 13 & 31));
    }
}

/* What a search leaves: trials for the floats, as bits, and items or 0. */
struct runs_left {
    uint32_t bits, item[2];
};

/* A search of an item's ends. */
V_FN void runs_ends(const struct device_runs *r, uint32_t item, int settled, const uint16_t *point, vf part, struct runs_left *left)
{
    int cell = item & 255, first = item >> 8 & 31, last = item >> 13 & 31;
    bool same = settled == 3 && point[0] == point[1];

    if (settled & 1)
        r->code[first * RUNS_CELLS + cell] = point[0];
    if (settled & 2 && !same)
        r->code[last * RUNS_CELLS + cell] = point[1];
    if (settled == 3) {
        int at = v_imin((int)v_mul(part, v_set((float)(last - first))), last - first - 1);

        if (!same && last > first + 1)
            left->item[0] = item | RUNS_INSIDE | (uint32_t)(first + at) << 18;
    } else if (settled == 0) {
        left->bits = runs_bits(first, last);
    } else {
        left->bits = 1u << (settled == 1 ? last : first);
        if (last > first + 1)
            left->item[0] = settled == 1 ? item - (1 << 13) : item + (1 << 8);
    }
}

/* One side of a search inside an item: the point of its trial `known` is known. Returns an item, or 0. */
V_FN uint32_t runs_side(const struct device_runs *r, int cell, int known, int at, bool settled, uint16_t point, struct runs_left *left)
{
    int first = v_imin(known, at), last = v_imax(known, at);

    if (at == known)
        return 0;
    if (!settled) {
        left->bits |= 1u << at;
        first += at < known;
        last -= at > known;
        return first < last ? (uint32_t)(cell | first << 8 | last << 13) : 0;
    }
    r->code[at * RUNS_CELLS + cell] = point;
    if (point == r->code[known * RUNS_CELLS + cell] || last == first + 1)
        return 0;
    return (uint32_t)(cell | first << 8 | last << 13 | RUNS_INSIDE | (first + last) / 2 << 18);
}

/* Puts an item in: longer lists into the second half. */
V_FN void runs_push(const struct device_runs *r, uint32_t *list, int32_t *n, bool is_long, uint32_t item)
{
    int place, first = item >> 8 & 31, last = item >> 13 & 31;

    if (item == 0)
        return;
    place = V_COUNT(n + is_long);
    if (place < RUNS_LISTS / 2)
        list[(is_long ? RUNS_LISTS / 2 : 0) + place] = item;
    else
        V_OR(&r->unclear[item & 255], item & RUNS_INSIDE ? runs_bits(first + 1, last - 1) : runs_bits(first, last));
}

/* A thread's part of the items. */
V_FN void runs_nearest(int type, const struct sl_grid *g, int tid, struct device_thread *t, const struct device_runs *r)
{
    const bool parity = grid_kind_of(type).parity;
    const uint32_t *list = t->pass & 1 ? r->list[0] : r->list[1];
    uint32_t *to = t->pass & 1 ? r->list[1] : r->list[0];
    int32_t *n = r->n + 2 * (t->pass % 3), *n_to = r->n + 2 * ((t->pass + 1) % 3), *n_next = r->n + 2 * ((t->pass + 2) % 3);
    int shorts = t->pass ? v_imin(n[0], RUNS_LISTS / 2) : v_imin(r->start[QUEUE_LENGTHS], RUNS_LISTS);
    int longs = t->pass ? v_imin(n[1], RUNS_LISTS / 2) : 0;

    if (tid < 2)
        n_next[tid] = t->pass == RUNS_PASSES - 2 ? RUNS_LISTS : 0; /* no room: what the last pass leaves is for floats */
    t->pass++;
    V_ROLLED
    for (int i = tid; i < shorts + longs; i += V_COLUMNS) {
        uint32_t item = list[i < longs ? RUNS_LISTS / 2 + i : i - longs];
        int cell = item & 255, column = cell % RUNS_COLUMNS, first = item >> 8 & 31, last = item >> 13 & 31, settled;
        bool inside = item & RUNS_INSIDE;
        int one = inside ? (int)(item >> 18 & 31) : first, two = inside ? one + 1 : last;
        struct runs_left left = {0, {0, 0}};
        vf x[4], wu[4], level[4], part = v_set(0.f), inv = r->inv[one * RUNS_COLUMNS + column];
        uint16_t point[2];
        int32_t entry;

        runs_of_cell(r->x, cell, x);
        runs_of_cell(r->wu, cell, wu);
        point[0] = point[1] = runs_code(parity, x, inv, level);
        entry = g->map[point[0]];
        settled = runs_settle(g, entry, level, x, wu, inv, r->inv[two * RUNS_COLUMNS + column], point, &part);
        if (inside) {
            left.item[0] = runs_side(r, cell, first, one, settled & 1, point[0], &left);
            left.item[1] = runs_side(r, cell, last, two, settled & 2, point[1], &left);
        } else {
            runs_ends(r, item, settled, point, part, &left);
        }
        if (left.bits)
            V_OR(&r->unclear[cell], left.bits);
        runs_push(r, to, n_to, sl_grid_list_length(entry) > RUNS_LONG, left.item[0]);
        runs_push(r, to, n_to, sl_grid_list_length(entry) > RUNS_LONG, left.item[1]);
    }
}

/* ---- in floats */

/* The first point of a list with the least sum of w * (scale * level - x)^2, of four values of eight levels. Where no
 * sum is a number below FLT_MAX: the first. */
V_FN int runs_walk(const struct device_words *list, int n, const vf *x, const vf *w, vf scale)
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

/* Trials to search for, as many as there is room for. */
V_FN void runs_collect(int tid, struct device_thread *t, const struct device_runs *r)
{
    if (tid == 0)
        r->n_unsure[~t->call & 1] = 0;
    V_ROLLED
    for (int cell = tid; cell < RUNS_CELLS; cell += V_COLUMNS) {
        uint32_t left = r->unclear[cell];
        int n = v_bits_set(left), place;

        if (n == 0)
            continue;
        place = V_MORE(&r->n_unsure[t->call & 1], n);
        n = v_imin(n, RUNS_UNSURE - place);
        V_ROLLED
        for (int end = place + n; place < end; place++) {
            int trial = v_last_bit(left);

            r->unsure[place] = (uint16_t)(cell | trial << 8);
            left ^= 1u << trial;
        }
        r->unclear[cell] = left;
    }
    t->call++;
}

/* Whether there are others. */
V_FN bool runs_more(const struct device_thread *t, const struct device_runs *r) { return r->n_unsure[~t->call & 1] > RUNS_UNSURE; }

/* A thread's part of those collected. Some may have no item, since there was no room, and so may be points. */
V_FN void runs_unsure(int type, const struct sl_grid *g, int tid, const struct device_thread *t, const struct device_runs *r)
{
    int n = v_imin(r->n_unsure[~t->call & 1], RUNS_UNSURE);

    V_ROLLED
    for (int i = tid; i < n; i += V_COLUMNS) {
        int cell = r->unsure[i] & 255, trial = r->unsure[i] >> 8;
        vf x[4], w[4], inv = r->inv[trial * RUNS_COLUMNS + cell % RUNS_COLUMNS];
        int32_t entry;
        vi code;

        runs_of_cell(r->x, cell, x);
        runs_of_cell(r->w, cell, w);
        V_UNROLL
        for (int j = 0; j < 4; j++)
            w[j] = v_sqrt(w[j]);
        code = grid_code(3, 7, x, inv);
        entry = g->map[code];
        if (entry < 0) {
            const uint16_t *list = sl_grid_list(g, entry);
            vf scale = trial == runs_trials(type) ? r->scale[cell % RUNS_COLUMNS] : v_div(v_set(1.f), inv);

            code = list[runs_walk((const struct device_words *)(const void *)list, sl_grid_list_length(entry), x, w, scale)];
            if (trial < runs_trials(type))
                V_OR(&r->off[cell], 1u << trial);
        }
        r->code[trial * RUNS_CELLS + cell] = (uint16_t)code;
    }
}

#endif
