/* Single rows of output tensors, from wherever they lie in the checkpoint: for
 * samples. Whole tensors go through the engine. */
#ifndef SLUICE_WORKER_SOURCE_ROWS_H
#define SLUICE_WORKER_SOURCE_ROWS_H

#include "proto/model.h"

struct source_rows;

/* Effect: a reader for one thread; a few files are open at a time, each held against the
 * checkpoint's size and time when it is opened. Checkpoint and model must outlive it.
 * Errors: SL_EFAIL. */
int source_rows_open(const struct sl_checkpoint *ck, const struct sl_model *m,
                     struct source_rows **out, struct sl_error *e) SL_MUST_USE;
void source_rows_close(struct source_rows *r);

/* Effect: out[0..ne[0]) = row `row` of an output tensor, counted over all its matrices, in F32:
 * the stored value times its block's scale. Rows in ascending order are read best.
 * Errors: SL_ESOURCE (unreadable, NaN, infinite, a bad scale, a changed file),
 * SL_EUNSUPPORTED (a dtype that holds no weights; rows that span two sources). */
int source_row(struct source_rows *r, const struct sl_out_tensor *t, uint64_t row, float *out,
               struct sl_error *e) SL_MUST_USE;

/* Returns the memory that a reader keeps at most beside its rows: heads, and of a model whose packed rows lie side by side columns. */
uint64_t source_rows_kept(const struct sl_checkpoint *ck, const struct sl_model *m);

/* Returns the bytes read from files so far, scales included. */
uint64_t source_rows_bytes(const struct source_rows *r);

#endif
