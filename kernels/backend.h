/* What a backend gives to the dispatcher: one table, from one text. */
#ifndef SLUICE_KERNELS_BACKEND_H
#define SLUICE_KERNELS_BACKEND_H

#include "kernels/kernels.h"

#include <stdbool.h>

struct sl_backend_ops {
    const char *name;
    /* As sl_quantize, without the check of the stored scales. */
    int (*quantize)(int type, const float *x, const float *w, uint64_t n, uint64_t row, void *out);
    /* Elements of any alignment, times scale; returns whether an out[i] is not
     * finite. For the dtypes with a block of one element. */
    bool (*load)(int dtype, const void *src, uint64_t n, float scale, float *out);
};

extern const struct sl_backend_ops sl_ops_scalar, sl_ops_portable;
#if defined(__x86_64__)
extern const struct sl_backend_ops sl_ops_avx2, sl_ops_avx512;
#endif

/* Returns 0, or SL_ESOURCE when a stored scale in n quantized weights is not
 * finite (*bad: index of its block's first weight). */
int sl_check_scales(int type, const uint8_t *out, uint64_t n, uint64_t *bad) SL_MUST_USE;

/* Returns the table of a usable backend (AUTO: the best), or NULL. */
const struct sl_backend_ops *sl_backend_ops(enum sl_backend b);

#endif
