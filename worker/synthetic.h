/* --imatrix synthetic: importance weights made from the weights themselves, where no
 * matrix of real inputs is to be had. The rule is in proto/RECIPES.md. */
#ifndef SLUICE_WORKER_SYNTHETIC_H
#define SLUICE_WORKER_SYNTHETIC_H

#include "proto/job_spec.h"
#include "worker/engine.h"

/* Rows of a matrix that are looked at; all of a matrix that has fewer. Of DeepSeek-R1's
 * experts they are 2.4 %, read beside the one pass over the source. */
#define SL_SYNTHETIC_ROWS 64u

struct synthetic;

/* Effect: *out = the maker of column weights (synthetic_close in every case). Checkpoint and model must
 * outlive it. Errors: SL_EFAIL. */
int synthetic_open(const struct sl_checkpoint *ck, const struct sl_model *m, struct synthetic **out,
                   struct sl_error *e) SL_MUST_USE;
void synthetic_close(struct synthetic *s);

/* Effect: out[0..ne[0]) = the column weights of matrix `slice` of tensor t; the last few are
 * remembered. Any thread; one at a time reads. Errors: those of source_row. */
int synthetic_columns(struct synthetic *s, const struct sl_out_tensor *t, uint64_t slice, float *out,
                      struct sl_error *e) SL_MUST_USE;

/* Returns the bytes read so far. */
uint64_t synthetic_bytes(struct synthetic *s);

/* A job's importance weights, whatever they come from, as the engine takes them. */
struct job_weights {
    struct sl_imatrix_use *use;
    struct synthetic *synthetic; /* NULL: from a file, or none */
};
/* Effect: binds *w and fills *out: no functions when the job has no weights. Both structs and
 * the job must outlive their use. Release with job_weights_close in every case. */
int job_weights_open(struct job_weights *w, struct sl_job_plan *j, struct sl_engine_weights *out,
                     struct sl_error *e) SL_MUST_USE;
void job_weights_close(struct job_weights *w);

#endif
