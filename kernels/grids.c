#include "kernels/grids.h"
#include "kernels/grid_points.h"

#include <pthread.h>
#include <string.h>

struct source {
    const uint64_t *places;
    int32_t *map;
    uint16_t *code, *lists;
    int room;    /* of lists, in units */
    int nearest; /* distinct distances in a list */
    int used;
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

static void fill_codes(const struct sl_grid *g, const struct source *s)
{
    int n = 0;

    for (uint32_t place = 0; n < g->points && place < (g->bits == 2 ? 6561u : 4096u); place++)
        if (s->places[place / 64] >> place % 64 & 1)
            s->code[n++] = (uint16_t)code_of_place(g->bits, place);
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

/* Appends the list of one code; returns its entry. */
static int32_t add_list(const struct sl_grid *g, struct source *s, const uint8_t *by_bits, uint32_t code)
{
    int count[256] = {0}, start[256], n = 0, limit = 0, units;
    uint16_t *list = s->lists + s->used * SL_GRID_UNIT;
    uint8_t dist[2048];

    for (int i = 0; i < g->points; i++) {
        dist[i] = (uint8_t)distance(g->bits, by_bits, code, s->code[i]);
        count[dist[i]]++;
    }
    for (int have = 0; limit < 256 && have < s->nearest; limit++) {
        start[limit] = n;
        n += count[limit];
        have += count[limit] > 0;
    }
    units = (n + SL_GRID_UNIT - 1) / SL_GRID_UNIT;
    if (units > s->room - s->used) /* the rooms are exact */
        return 0;
    for (int i = 0; i < g->points; i++)
        if (dist[i] < limit)
            list[start[dist[i]]++] = s->code[i];
    for (int i = n; i < units * SL_GRID_UNIT; i++)
        list[i] = list[0];
    s->used += units;
    return (int32_t)(0x80000000u | (uint32_t)n << 20 | (uint32_t)(s->used - units));
}

static void fill_lists(const struct sl_grid *g, struct source *s)
{
    uint32_t codes = g->bits == 2 ? 65536 : 4096;
    uint8_t by_bits[256];

    fill_distances(by_bits);
    for (uint32_t c = 0; c < codes; c++)
        s->map[c] = -1;
    for (int i = 0; i < g->points; i++)
        s->map[s->code[i]] = i;
    for (uint32_t c = 0; c < codes; c++)
        if (s->map[c] < 0)
            s->map[c] = g->bits == 2 && (c & c >> 1 & 0x5555) ? 0 : add_list(g, s, by_bits, c);
}

/* One grid: its tables, and the two steps that fill them once. */
#define GRID(name, nbits, npoints, distances, units)                                                  \
    static int32_t name##_map[nbits == 2 ? 65536 : 4096];                                             \
    static uint16_t name##_code[npoints], name##_lists[units * SL_GRID_UNIT];                         \
    static struct source name##_source = {points_##name, name##_map, name##_code, name##_lists, units, distances, 0}; \
    static const struct sl_grid name##_grid = {nbits, npoints, name##_code, name##_map, name##_lists}; \
    static pthread_once_t name##_codes_once = PTHREAD_ONCE_INIT, name##_lists_once = PTHREAD_ONCE_INIT; \
    static void name##_fill_codes(void) { fill_codes(&name##_grid, &name##_source); }                 \
    static void name##_fill_lists(void)                                                               \
    {                                                                                                 \
        pthread_once(&name##_codes_once, name##_fill_codes);                                          \
        fill_lists(&name##_grid, &name##_source);                                                     \
    }

GRID(iq1, 2, 2048, 3, 22647)
GRID(iq2_xxs, 2, 256, 2, 10071)
GRID(iq2_xs, 2, 512, 2, 14410)
GRID(iq2_s, 2, 1024, 1, 6286)
GRID(iq3_xxs, 3, 256, 2, 3902)
GRID(iq3_s, 3, 512, 3, 3706)

#define ENTRY(name) \
    {&name##_grid, &name##_source, &name##_codes_once, &name##_lists_once, name##_fill_codes, name##_fill_lists}

static const struct {
    const struct sl_grid *grid;
    const struct source *source;
    pthread_once_t *codes_once, *lists_once;
    void (*fill_codes)(void), (*fill_lists)(void);
} grids[SL_GRID_COUNT] = {
    [SL_GRID_IQ1] = ENTRY(iq1),         [SL_GRID_IQ2_XXS] = ENTRY(iq2_xxs), [SL_GRID_IQ2_XS] = ENTRY(iq2_xs),
    [SL_GRID_IQ2_S] = ENTRY(iq2_s),     [SL_GRID_IQ3_XXS] = ENTRY(iq3_xxs), [SL_GRID_IQ3_S] = ENTRY(iq3_s),
};

const struct sl_grid *sl_grid_for_reading(enum sl_grid_id id)
{
    pthread_once(grids[id].codes_once, grids[id].fill_codes);
    return grids[id].grid;
}

const struct sl_grid *sl_grid_for_writing(enum sl_grid_id id)
{
    pthread_once(grids[id].lists_once, grids[id].fill_lists);
    return grids[id].grid;
}

void sl_grid_room(enum sl_grid_id id, int *used, int *room)
{
    sl_grid_for_writing(id);
    *used = grids[id].source->used;
    *room = grids[id].source->room;
}
