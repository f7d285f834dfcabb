/* One CUDA thread's work: one superblock. Included after lanes_cuda.h, by the
 * kernels and by the test that runs the same text on a CPU. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_H
#define SLUICE_KERNELS_TEXT_DEVICE_H

#include "kernels/text_kquant.h"
#include "proto/types.h"

/* Writes superblock `index` of a run: `bytes` bytes (an even number). w: NULL
 * or importance weights of the run. Called with constants for type and bytes. */
V_FN void device_superblock(int type, int bytes, const float *x, const float *w, uint64_t index, uint8_t *out)
{
    vf xs[256], ws[256];
    vi words[MAX_WORDS];

    for (int i = 0; i < 256; i++)
        xs[i] = x[index * 256 + (uint64_t)i];
    for (int i = 0; w && i < 256; i++)
        ws[i] = w[index * 256 + (uint64_t)i];
    for (int i = 0; i < MAX_WORDS; i++)
        words[i] = 0;
    if (type == SL_TYPE_Q2_K)
        q2_k_block(xs, w ? ws : NULL, words);
    else if (type == SL_TYPE_Q3_K)
        q3_k_block(xs, w ? ws : NULL, words);
    else if (type == SL_TYPE_Q4_K)
        q4_k_block(xs, w ? ws : NULL, words);
    else if (type == SL_TYPE_Q5_K)
        q5_k_block(xs, w ? ws : NULL, words);
    else
        q6_k_block(xs, w ? ws : NULL, words);
    for (int i = 0; i < bytes / 2; i++) {
        uint16_t half = (uint16_t)((uint32_t)words[i / 2] >> 16 * (i & 1));

        memcpy(out + index * (uint64_t)bytes + 2 * i, &half, 2);
    }
}

#endif
