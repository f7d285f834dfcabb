/* Quantizing on a GPU. A build without nvcc has these functions too; they say
 * that there is no device. */
#ifndef SLUICE_KERNELS_CUDA_H
#define SLUICE_KERNELS_CUDA_H

#include "proto/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Returns the number of CUDA devices; 0 without a driver, without a device, or
 * in a build without CUDA. */
int sl_cuda_devices(void);

/* Returns whether the build contains CUDA kernels. */
int sl_cuda_built(void);

/* Returns whether sl_cuda_quantize writes this type. */
int sl_cuda_has_type(int type);

/* Effect: as sl_quantize (kernels.h), on a device; the same bytes. x, w and out
 * are host memory. Blocks until done. Thread: any; each call is on its own.
 * Errors: those of sl_quantize, and SL_EFAIL with the driver's words in *e. */
int sl_cuda_quantize(int device, int type, const float *x, const float *w, uint64_t n, void *out,
                     uint64_t *bad, struct sl_error *e) SL_MUST_USE;

/* Between cuda.c and quantize_cuda.cu. sl_cuda_run returns NULL, or what went
 * wrong. */
int sl_cuda_device_count(void);
const char *sl_cuda_run(int device, int type, const float *x, const float *w, uint64_t n, void *out, size_t out_bytes);

#ifdef __cplusplus
}
#endif
#endif
