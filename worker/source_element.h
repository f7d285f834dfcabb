/* Elements of output tensors straight from the checkpoint, one by one, by the
 * index formulas of enum sl_transform: slow, plain, and sharing no code with
 * the worker's pipeline or the kernels' loaders, since it judges them (but for
 * sl_dequantize, where a GGUF source is quantized). */
#ifndef SLUICE_WORKER_SOURCE_ELEMENT_H
#define SLUICE_WORKER_SOURCE_ELEMENT_H

#include "proto/model.h"

struct source_reader;

/* Effect: a reader with a cache of at most 64 MiB; files are opened when needed.
 * Checkpoint and model must outlive it. Errors: SL_EFAIL. */
int source_reader_open(const struct sl_checkpoint *ck, const struct sl_model *m,
                       struct source_reader **out, struct sl_error *e) SL_MUST_USE;
void source_reader_close(struct source_reader *r);

/* Effect: out[0..n) = elements first .. first + n of the output tensor in F32:
 * the stored value, times its block's scale in one F32 multiply. Errors:
 * SL_ESOURCE (unreadable, NaN or infinite), SL_EUNSUPPORTED (dtype). */
int source_values(struct source_reader *r, const struct sl_out_tensor *t, uint64_t first,
                  uint64_t n, float *out, struct sl_error *e) SL_MUST_USE;

/* Effect: bytes[0..) = n blocks of a GGUF source's tensor from `block` on, as they
 * are stored. Errors: SL_ESOURCE. */
int source_stored(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint64_t n,
                  uint8_t *bytes, struct sl_error *e) SL_MUST_USE;

/* Effect: the same of a checkpoint's integers (SL_IDS), 4 bytes each; one that does not fit is cut off. */
int source_ids(struct source_reader *r, const struct sl_out_tensor *t, uint64_t first, uint64_t n, uint8_t *bytes,
               struct sl_error *e) SL_MUST_USE;

/* Effect: bytes[0..) = n blocks of MXFP4 from `block` on, of a tensor that is that in its checkpoint
 * (sl_model_is_mxfp4). Errors: SL_ESOURCE. */
int source_mxfp4(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint64_t n,
                 uint8_t *bytes, struct sl_error *e) SL_MUST_USE;

/* Effect: the same of NVFP4 (sl_model_is_nvfp4). */
int source_nvfp4(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint64_t n,
                 uint8_t *bytes, struct sl_error *e) SL_MUST_USE;

/* Rounds to BF16 and back, nearest even. */
float source_round_bf16(float x);

#endif
