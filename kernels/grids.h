/* The grids of iq1, iq2 and iq3. A code is the levels of a group of values,
 * `bits` bits each, the first value lowest. What is computed from the formats'
 * points is made once in a process, at the first use of each grid, and never
 * changes after that; any thread may ask first. */
#ifndef SLUICE_KERNELS_GRIDS_H
#define SLUICE_KERNELS_GRIDS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* iq1_s and iq1_m share a grid. */
enum sl_grid_id { SL_GRID_IQ1, SL_GRID_IQ2_XXS, SL_GRID_IQ2_XS, SL_GRID_IQ2_S, SL_GRID_IQ3_XXS, SL_GRID_IQ3_S,
                  SL_GRID_COUNT };

/* Lists start at multiples of this many codes and are filled up to it. */
#define SL_GRID_UNIT 16
#define SL_GRID_LONGEST 0x7ff /* codes in a list, at most */

struct sl_grid {
    int bits;              /* 2: eight values of levels 0..2; 3: four values of levels 0..7 */
    int points;
    const uint16_t *code;  /* by a point's index, ascending */
    /* By code: the index of a point, or where it is none, a negative entry for
     * the two functions below. A code with a level 3 of two bits is never asked for. */
    const int32_t *map;
    /* The points nearest to each code that is none: all those at the first so many
     * distinct distances, by distance, then index; filled up with the first one. */
    const uint16_t *lists;
    /* By place in the lists: how the neighbour's levels differ from its code's. Three bits: two words, a byte each value:
     * four times the difference (signed); four times its square. Two bits: a word, four bits each value: 2 + the
     * difference. Places that are filled up: 0 and 255; 5. */
    const uint32_t *moves;
};

#ifdef __CUDACC__
#define SL_GRID_FN static inline __host__ __device__
#else
#define SL_GRID_FN static inline
#endif
SL_GRID_FN int sl_grid_list_length(int32_t entry) { return entry >> 20 & SL_GRID_LONGEST; }
SL_GRID_FN const uint16_t *sl_grid_list(const struct sl_grid *g, int32_t entry)
{
    return g->lists + (entry & 0xfffff) * SL_GRID_UNIT;
}

/* Returns the grid with its codes only, which is all that reading needs. */
const struct sl_grid *sl_grid_for_reading(enum sl_grid_id id);

/* Returns the whole grid. The first call for a grid takes some 10 ms. */
const struct sl_grid *sl_grid_for_writing(enum sl_grid_id id);

/* Units of 16 codes that the grid's lists take, and the room they have: for tests. */
void sl_grid_room(enum sl_grid_id id, int *used, int *room);

/* Returns q8_0's levels under each largest E4M3 code: [2][128][128] bytes, aligned to 64; 127 v / vmax
 * rounded half up, but 63.5 to 63 in the first half of the table and to 64 in the second. Made at the
 * first call. */
const uint8_t *sl_e4m3_levels(void);

#ifdef __cplusplus
}
#endif
#endif
