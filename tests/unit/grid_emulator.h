/* A launch of the GPU kernels on a CPU: the device text, block of threads after
 * block of threads, phase after phase, and within a phase thread after thread in
 * an order that changes with the seed. What the shared memory held before is
 * garbage; a phase that needed another thread's work of the same phase, or memory
 * that nobody wrote, gives other bytes. */
#ifndef SLUICE_TESTS_GRID_EMULATOR_H
#define SLUICE_TESTS_GRID_EMULATOR_H

#include "kernels/lanes_cuda.h"
#include "kernels/text_device.h"

#include <string.h>

struct emulated_block {
    _Alignas(16) struct device_super super[DEVICE_THREADS / 8 + 1];
    struct device_small small[DEVICE_THREADS + 1];
    struct device_thread thread[DEVICE_THREADS];
    _Alignas(16) float pool[16384];
};

/* Steps that visit each of a power of two of threads once. */
static inline int emulated_order(uint32_t seed, int i)
{
    return (int)(((uint32_t)i * (2 * (seed >> 8) + 1) + seed) & (DEVICE_THREADS - 1));
}

static inline void emulated_phase(const struct sl_gpu_work *k, uint64_t block, enum device_phase phase, int turn,
                                  uint32_t seed, struct emulated_block *b)
{
    int subs = device_subs(k->type);

    for (int i = 0; i < DEVICE_THREADS; i++) {
        int tid = emulated_order(seed + (uint32_t)phase * 977 + (uint32_t)turn * 311, i);

        if (subs > 1)
            super_phase(k->type, k->weighted, phase, turn, k, block, tid, &b->thread[tid], b->super, b->pool);
        else if (subs == 1)
            small_phase(k->type, k->weighted, phase, k, block, tid, b->small);
        else
            value_phase(k->type, phase, k, block, tid, b->small);
    }
}

/* The searches' turns, as the kernels have them. */
static inline void emulated_turn(const struct sl_gpu_work *k, uint64_t block, int turn, uint32_t seed, struct emulated_block *b)
{
    for (int p = DEVICE_CODES; p < DEVICE_NEAREST; p++)
        emulated_phase(k, block, (enum device_phase)p, turn, seed, b);
    for (int pass = 0; pass < device_passes(k->type, turn); pass++)
        emulated_phase(k, block, DEVICE_NEAREST, turn, seed + (uint32_t)pass * 61, b);
    do
        for (int p = DEVICE_COLLECT; p <= DEVICE_NAMED; p++)
            emulated_phase(k, block, (enum device_phase)p, turn, seed, b);
    while (device_more(k->type, &b->thread[0], b->super, b->pool));
    emulated_phase(k, block, DEVICE_FILL, turn, seed, b);
    emulated_phase(k, block, DEVICE_TRIALS, turn, seed, b);
}

static inline bool emulated_untouched(const void *p, size_t n)
{
    const uint8_t *b = (const uint8_t *)p;

    while (n && b[n - 1] == 0x5a)
        n--;
    return n == 0;
}

/* Effect: does the launch; b is scratch. Returns false when it wrote over the end of
 * its shared memory. */
static inline bool emulate_launch(const struct sl_gpu_work *k, uint32_t seed, struct emulated_block *b)
{
    uint64_t blocks = device_blocks(k), means = device_mean_blocks(k);
    int pool = device_pool(k->type, k->weighted);

    for (uint64_t row = means * DEVICE_THREADS; row > 0; row--)
        device_row_mean(k, row - 1);
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t block = seed & 1 ? blocks - 1 - i : i;

        memset(b, 0x5a, sizeof *b);
        for (int phase = 0; phase < DEVICE_PHASES; phase++) {
            if (phase == DEVICE_CODES)
                for (int turn = 0; turn < device_turns(k->type); turn++)
                    emulated_turn(k, block, turn, seed, b);
            if (phase < DEVICE_CODES || phase > DEVICE_TRIALS)
                emulated_phase(k, block, (enum device_phase)phase, 0, seed, b);
        }
        if (!emulated_untouched(&b->super[DEVICE_THREADS / 8], sizeof b->super[0]) ||
            !emulated_untouched(&b->pool[pool], sizeof b->pool - (size_t)pool * sizeof(float)) ||
            !emulated_untouched(&b->small[DEVICE_THREADS], sizeof b->small[0]))
            return false;
    }
    return true;
}

#endif
