/* Arithmetic on blocks: source elements to F32, F32 to a ggml type, and back.
 * Pure functions: no files, no threads, no allocation, no state but the grids'
 * tables (grids.h), which are the same for everyone. Every output byte equals
 * ggml's reference (x86-64 without FMA, August 2026 semantics).
 *
 * Rows matter only for importance weights and for block scales; otherwise an
 * element run is cut anywhere at a multiple of the type's block, so that work
 * is bounded whatever a tensor's shape. */
#ifndef SLUICE_KERNELS_KERNELS_H
#define SLUICE_KERNELS_KERNELS_H

#include "proto/error.h"
#include "proto/types.h"

#include <stddef.h>
#include <stdint.h>

/* A run of elements of one source matrix, as it lies in memory. */
struct sl_source {
    enum sl_dtype dtype;
    const void *data;     /* the run's first element; no alignment is assumed */
    uint64_t first;       /* its index in the matrix, row-major; multiple of the dtype's block */
    uint64_t cols;        /* row length of the matrix */
    const float *scale;   /* block scales in F32, row-major; NULL: none */
    uint64_t scale_row0;  /* the scale row that scale[0] belongs to */
    uint64_t scale_cols;  /* scales in one scale row */
    uint64_t block_rows;  /* rows under one scale (>= 1) */
    uint64_t block_cols;  /* columns under one scale (>= 1) */
    const int16_t *zero;  /* of I4 and UINT8 under scales: for each of them what is taken from the codes; NULL: 8, or 128 */
    const uint32_t *group; /* of I4 and UINT8 under scales: of each column that of its scale; NULL: col / block_cols */
};

/* Effect: out[0..n) = elements [skip, skip + n) of the run, in F32: the stored
 * value, times its block's scale where there is one (one F32 multiply, round
 * to nearest even). Errors: SL_ESOURCE when an element is NaN (an FP8 NaN code
 * included) or infinite, with its matrix index in *bad; SL_EUNSUPPORTED for a
 * dtype that holds no weights. */
int sl_load_f32(const struct sl_source *s, uint64_t skip, uint64_t n, float *out,
                uint64_t *bad) SL_MUST_USE;

/* Effect: changes n values, loaded from a source of that dtype, in place. Results are rounded to F16 where dtype is F16,
 * else to F32, as the converter has its tensors; the exponential comes from F64, the same on every machine. Errors:
 * SL_ESOURCE when one is then infinite, with its index in x in *bad. */
int sl_change_values(enum sl_change change, enum sl_dtype dtype, float *x, uint64_t n, uint64_t *bad) SL_MUST_USE;

/* Effect: rounds each value to BF16 and back (nearest even), in place. */
void sl_round_bf16(float *x, uint64_t n);

/* The quantizers are one text, compiled for several widths. All give the same bytes. */
enum sl_backend { SL_BACKEND_AUTO = 0, SL_BACKEND_SCALAR, SL_BACKEND_PORTABLE, SL_BACKEND_AVX2,
                  SL_BACKEND_AVX512 };

/* Returns the backend's name ("scalar", "avx2", ...), or NULL. */
const char *sl_backend_name(enum sl_backend b);

/* Returns whether this machine can run the backend. */
int sl_backend_usable(enum sl_backend b);

/* Effect: writes n weights in `type` to out (sl_type_bytes(type, n) bytes), on a backend
 * (AUTO: the best usable one).
 * x: n values, all finite. w: NULL, or n importance weights, one for each
 * value (all finite, >= 0). row: the matrix's row length; with w, x must be
 * whole rows, since some types take a mean over the row. Errors:
 * SL_EUNSUPPORTED for a backend that this machine cannot run, for a type that is not written, for one
 * that needs weights and has none, or for an n that is no multiple of its block; SL_ESOURCE when a scale
 * does not fit in F16 (for f16 and bf16: a value in its type; for mxfp4: where ggml's exponent is a NaN,
 * which is where the largest weight is in [2^-126, 2^-125); *bad: index in x of the first weight of that
 * block; out is written all the same). */
int sl_quantize_on(enum sl_backend b, int type, const float *x, const float *w, uint64_t n,
                   uint64_t row, void *out, uint64_t *bad) SL_MUST_USE;

/* Returns whether the type is written with weights only (iq1_s, iq2_xxs, iq2_xs). */
int sl_needs_weights(int type);

/* Effect: out (sl_type_bytes(type, n) bytes) = what sl_load_f32 and then sl_quantize_on without importance
 * weights would give, without values in F32 in memory. Returns 1, or 0 when there is no such way for the type
 * and the source, or when one of the two would refuse something: then out means nothing, and they are to be
 * called. */
int sl_quantize_source(enum sl_backend b, int type, const struct sl_source *s, uint64_t skip,
                       uint64_t n, void *out) SL_MUST_USE;

/* Effect: writes elements [skip, skip + n) of a run of F4 as blocks of MXFP4 (n / 32 * 17 bytes): the same codes, and
 * the exponents of the scales. Errors: SL_ESOURCE as sl_load_f32; SL_EUNSUPPORTED where not each block of 32 is under
 * one scale that is a power of two, or the run, skip or n is not of whole blocks. */
int sl_repack_mxfp4(const struct sl_source *s, uint64_t skip, uint64_t n, void *out, uint64_t *bad) SL_MUST_USE;

/* Effect: the same as blocks of NVFP4 (n / 64 * 36 bytes), of a run whose scales are values that E4M3 has without a sign.
 * Errors: SL_EUNSUPPORTED where not each 16 weights are under one such scale, or the run, skip or n is not of whole blocks. */
int sl_repack_nvfp4(const struct sl_source *s, uint64_t skip, uint64_t n, void *out) SL_MUST_USE;

/* Effect: out[0..n) = the values that n weights in `type` (sl_type_bytes(type, n) bytes, of any alignment) stand for,
 * exactly as ggml's dequantizers give them, but for a NaN where MXFP4's scale is one (255). Errors: SL_EUNSUPPORTED for
 * a type that is not known or not read, or an n that is no multiple of its block. */
int sl_dequantize(int type, const void *in, uint64_t n, float *out) SL_MUST_USE;

#endif
