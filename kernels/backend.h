/* What a backend gives to the dispatcher: one table, from one text. */
#ifndef SLUICE_KERNELS_BACKEND_H
#define SLUICE_KERNELS_BACKEND_H

#include "kernels/kernels.h"

#include <stdbool.h>

struct sl_backend_ops {
    const char *name;
    /* As sl_quantize_on, without the check of the stored scales; returns 1 when it has shown them all
     * to be finite. */
    int (*quantize)(int type, const float *x, const float *w, uint64_t n, uint64_t row, void *out);
    /* Elements of any alignment, times scale; returns whether an out[i] is not
     * finite. For the dtypes with a block of one element. */
    bool (*load)(int dtype, const void *src, uint64_t n, float scale, float *out);
    /* E4M3 under scale[i / run]; returns n, or 0 when an out[i] would not be finite. NULL: none. */
    uint64_t (*load_e4m3)(const uint8_t *src, uint64_t n, const float *scale, uint64_t run, float *out);
    /* Groups of 32 codes of F4 under scale[i / 32]; returns n, or 0 when an out[i] might not be finite. NULL: none. */
    uint64_t (*load_f4)(const uint8_t *src, uint64_t n, const float *scale, float *out);
    /* q8_0 straight from stored elements of any alignment; scale: each block of 32's, or NULL for
     * none. Returns how many blocks were written: all but fewer than 16 at the end. 0 when there is
     * no such way, or when something in them is to be refused. */
    uint64_t (*q8_0)(int dtype, const void *src, const float *scale, uint64_t blocks, void *out);
};

extern const struct sl_backend_ops sl_ops_scalar, sl_ops_portable;
#if defined(__x86_64__)
extern const struct sl_backend_ops sl_ops_avx2, sl_ops_avx512;

/* sl_backend_ops.q8_0 for E4M3 under scales, where sl_e4m3_by_table() and AVX-512 are there. */
bool sl_e4m3_by_table(void);
uint64_t sl_q8_0_of_e4m3(const uint8_t *src, const float *scale, uint64_t blocks, uint8_t *out);
#endif

/* Returns 0, or SL_ESOURCE when a stored scale in n quantized weights is not
 * finite (*bad: index of its block's first weight). */
int sl_check_scales(int type, const uint8_t *out, uint64_t n, uint64_t *bad) SL_MUST_USE;

/* Returns the table of a usable backend (AUTO: the best), or NULL. */
const struct sl_backend_ops *sl_backend_ops(enum sl_backend b);

#endif
