#include "kernels/grids.h"
#include "kernels/grid_points.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Tables that are computed once in a process: the only variable of the kernels.
 * A grid's ready says how far it is; lock is taken by those who find it unready. */
enum { NOT_READY, CODES_READY, LISTS_READY };
enum { ROOM_IQ1 = 22647, ROOM_IQ2_XXS = 10071, ROOM_IQ2_XS = 14410, ROOM_IQ2_S = 6286, ROOM_IQ3_XXS = 3902,
       ROOM_IQ3_S = 3706 }; /* units of lists, exactly */

#define TABLES(codes, points, room, words)                                                            \
    struct {                                                                                          \
        int32_t map[codes];                                                                           \
        uint16_t code[points];                                                                        \
        _Alignas(16) uint16_t lists[(room) * SL_GRID_UNIT];                                           \
        uint32_t moves[(words) * SL_GRID_UNIT];                                                       \
    }

static struct {
    pthread_mutex_t lock;
    atomic_int ready[SL_GRID_COUNT];
    int used[SL_GRID_COUNT];
    TABLES(65536, 2048, ROOM_IQ1, ROOM_IQ1) iq1;
    TABLES(65536, 256, ROOM_IQ2_XXS, ROOM_IQ2_XXS) iq2_xxs;
    TABLES(65536, 512, ROOM_IQ2_XS, ROOM_IQ2_XS) iq2_xs;
    TABLES(65536, 1024, ROOM_IQ2_S, ROOM_IQ2_S) iq2_s;
    TABLES(4096, 256, ROOM_IQ3_XXS, 2 * ROOM_IQ3_XXS) iq3_xxs;
    TABLES(4096, 512, ROOM_IQ3_S, 2 * ROOM_IQ3_S) iq3_s;
    atomic_int levels_ready;
    _Alignas(64) uint8_t e4m3_levels[2 * 128 * 128];
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct source {
    struct sl_grid grid;
    const uint64_t *places;
    int32_t *map;
    uint16_t *code, *lists;
    uint32_t *moves;
    int *used, room; /* of lists, in units */
    int nearest;     /* distinct distances in a list */
};

#define SOURCE(id, name, bits, points, room, nearest, moves)                                          \
    [id] = {{bits, points, shared.name.code, shared.name.map, shared.name.lists, moves}, points_##name, \
            shared.name.map, shared.name.code, shared.name.lists, moves, &shared.used[id], room, nearest}

static const struct source sources[SL_GRID_COUNT] = {
    SOURCE(SL_GRID_IQ1, iq1, 2, 2048, ROOM_IQ1, 3, shared.iq1.moves),
    SOURCE(SL_GRID_IQ2_XXS, iq2_xxs, 2, 256, ROOM_IQ2_XXS, 2, shared.iq2_xxs.moves),
    SOURCE(SL_GRID_IQ2_XS, iq2_xs, 2, 512, ROOM_IQ2_XS, 2, shared.iq2_xs.moves),
    SOURCE(SL_GRID_IQ2_S, iq2_s, 2, 1024, ROOM_IQ2_S, 1, shared.iq2_s.moves),
    SOURCE(SL_GRID_IQ3_XXS, iq3_xxs, 3, 256, ROOM_IQ3_XXS, 2, shared.iq3_xxs.moves),
    SOURCE(SL_GRID_IQ3_S, iq3_s, 3, 512, ROOM_IQ3_S, 3, shared.iq3_s.moves),
};

/* Codes of eight values by their places in base 3. */
static uint32_t code_of_place(int bits, uint32_t place)
{
    uint32_t code = 0;

    if (bits == 3)
        return place;
    for (int i = 0; i < 8; i++, place /= 3)
        code |= place % 3 << 2 * i;
    return code;
}

static void fill_codes(const struct source *s)
{
    int n = 0;

    for (uint32_t place = 0; n < s->grid.points && place < (s->grid.bits == 2 ? 6561u : 4096u); place++)
        if (s->places[place / 64] >> place % 64 & 1)
            s->code[n++] = (uint16_t)code_of_place(s->grid.bits, place);
}

/* The squared distance in levels, by the bits in which two codes differ: two
 * levels of 0..2 differ by 1 (01 or 11) or by 2 (10). */
static void fill_distances(uint8_t *by_bits)
{
    static const uint8_t square[4] = {0, 1, 4, 1};

    for (int x = 0; x < 256; x++)
        by_bits[x] = (uint8_t)(square[x & 3] + square[x >> 2 & 3] + square[x >> 4 & 3] + square[x >> 6]);
}

static int distance(int bits, const uint8_t *by_bits, uint32_t a, uint32_t b)
{
    int d = 0;

    if (bits == 2)
        return by_bits[(a ^ b) & 255] + by_bits[(a ^ b) >> 8];
    for (int i = 0; i < 12; i += 3) {
        int diff = (int)(a >> i & 7) - (int)(b >> i & 7);

        d += diff * diff;
    }
    return d;
}

/* The words of place i of the list. */
static void add_move(const struct source *s, int i, uint32_t code, uint32_t point, bool filled_up)
{
    uint32_t *to = s->moves + (*s->used * SL_GRID_UNIT + i) * (s->grid.bits - 1), nibbles = 0, bytes = 0, squares = 0;

    for (int v = 0; v < (s->grid.bits == 2 ? 8 : 4); v++) {
        uint32_t mask = (1u << s->grid.bits) - 1;
        int at = v * s->grid.bits, by = (int)(point >> at & mask) - (int)(code >> at & mask);

        nibbles |= (filled_up ? 5 : (uint32_t)(by + 2)) << 4 * v;
        bytes |= (filled_up ? 0 : (uint32_t)(4 * by) & 255) << 8 * (v & 3);
        squares |= (filled_up ? 255 : (uint32_t)(4 * by * by)) << 8 * (v & 3); /* by is within 5 */
    }
    to[0] = s->grid.bits == 2 ? nibbles : bytes;
    if (s->grid.bits == 3)
        to[1] = squares;
}

/* Appends the list of one code; returns its entry. */
static int32_t add_list(const struct source *s, const uint8_t *by_bits, uint32_t code)
{
    int count[256] = {0}, start[256], n = 0, limit = 0, units;
    uint16_t *list = s->lists + *s->used * SL_GRID_UNIT;
    uint8_t dist[2048];

    for (int i = 0; i < s->grid.points; i++) {
        dist[i] = (uint8_t)distance(s->grid.bits, by_bits, code, s->code[i]);
        count[dist[i]]++;
    }
    for (int have = 0; limit < 256 && have < s->nearest; limit++) {
        start[limit] = n;
        n += count[limit];
        have += count[limit] > 0;
    }
    units = (n + SL_GRID_UNIT - 1) / SL_GRID_UNIT;
    if (units > s->room - *s->used) /* the rooms are exact */
        return 0;
    for (int i = 0; i < s->grid.points; i++)
        if (dist[i] < limit)
            list[start[dist[i]]++] = s->code[i];
    for (int i = n; i < units * SL_GRID_UNIT; i++)
        list[i] = list[0];
    for (int i = 0; i < units * SL_GRID_UNIT; i++)
        add_move(s, i, code, list[i], i >= n);
    *s->used += units;
    return (int32_t)(0x80000000u | (uint32_t)n << 20 | (uint32_t)(*s->used - units));
}

static void fill_lists(const struct source *s)
{
    uint32_t codes = s->grid.bits == 2 ? 65536 : 4096;
    uint8_t by_bits[256];

    fill_distances(by_bits);
    for (uint32_t c = 0; c < codes; c++)
        s->map[c] = -1;
    for (int i = 0; i < s->grid.points; i++)
        s->map[s->code[i]] = i;
    for (uint32_t c = 0; c < codes; c++)
        if (s->map[c] < 0)
            s->map[c] = s->grid.bits == 2 && (c & c >> 1 & 0x5555) ? 0 : add_list(s, by_bits, c);
}

static const struct sl_grid *ready(enum sl_grid_id id, int wanted)
{
    const struct source *s = &sources[id];

    if (atomic_load_explicit(&shared.ready[id], memory_order_acquire) >= wanted)
        return &s->grid;
    pthread_mutex_lock(&shared.lock);
    if (atomic_load_explicit(&shared.ready[id], memory_order_relaxed) == NOT_READY) {
        fill_codes(s);
        atomic_store_explicit(&shared.ready[id], CODES_READY, memory_order_release);
    }
    if (atomic_load_explicit(&shared.ready[id], memory_order_relaxed) < wanted) {
        fill_lists(s);
        atomic_store_explicit(&shared.ready[id], LISTS_READY, memory_order_release);
    }
    pthread_mutex_unlock(&shared.lock);
    return &s->grid;
}

const struct sl_grid *sl_grid_for_reading(enum sl_grid_id id) { return ready(id, CODES_READY); }
const struct sl_grid *sl_grid_for_writing(enum sl_grid_id id) { return ready(id, LISTS_READY); }

void sl_grid_room(enum sl_grid_id id, int *used, int *room)
{
    ready(id, LISTS_READY);
    *used = *sources[id].used;
    *room = sources[id].room;
}

/* An E4M3 magnitude in units of 2^-9. */
static uint32_t e4m3_units(uint32_t code) { return code < 8 ? code : (8 + (code & 7)) << ((code >> 3) - 1); }

static void fill_levels(uint8_t *level)
{
    for (uint32_t up = 0; up < 2; up++)
        for (uint32_t max = 1; max < 0x7f; max++)
            for (uint32_t c = 0; c <= max; c++) {
                uint32_t v = e4m3_units(c), m = e4m3_units(max);

                level[up << 14 | max << 7 | c] = (uint8_t)(2 * v == m && !up ? 63 : (254 * v + m) / (2 * m));
            }
}

const uint8_t *sl_e4m3_levels(void)
{
    if (atomic_load_explicit(&shared.levels_ready, memory_order_acquire))
        return shared.e4m3_levels;
    pthread_mutex_lock(&shared.lock);
    if (!atomic_load_explicit(&shared.levels_ready, memory_order_relaxed)) {
        fill_levels(shared.e4m3_levels);
        atomic_store_explicit(&shared.levels_ready, 1, memory_order_release);
    }
    pthread_mutex_unlock(&shared.lock);
    return shared.e4m3_levels;
}
