/* How much of each tensor a type would lose, on a sample of its rows. */
#ifndef SLUICE_WORKER_MEASURE_H
#define SLUICE_WORKER_MEASURE_H

#include "proto/job_spec.h"
#include "kernels/kernels.h"

/* Weights of each tensor that are looked at, in whole rows spread evenly over all its
 * matrices (experts, heads); all of a smaller tensor. */
#define SL_MEASURE_WEIGHTS (1u << 18)

struct measure_opts {
    unsigned threads;        /* 0: as many as usable cores */
    enum sl_backend backend;
    uint64_t weights;        /* of each tensor; 0: SL_MEASURE_WEIGHTS */
    /* Called by the caller's thread a few times a second with sampled weights and bytes
     * read so far. NULL: none. */
    void (*progress)(void *user, uint64_t done, uint64_t total, uint64_t read);
    void *user;
};

struct measure_stats {
    uint64_t read_bytes;     /* asked for from the source's files */
    uint64_t weights;        /* sampled */
    uint64_t tensors;
};

/* Effect: error[i * SL_TYPE_LIMIT + type] = the error of model tensor i in each type whose
 * bit is in types[i]: the mean over the sampled matrices of
 *   sum w (x - y)^2 / sum w x^2,
 * x the weights (rounded as the job says), y what their quantization stands for, w the
 * importance of their columns, 1 without any; the quantizer sees the same w. NaN: the type
 * cannot hold these values. Matrices without energy do not count; 0 when none has any. Only
 * types that are made are measured: what is kept loses nothing. The
 * result depends on neither threads nor backend. job: with checkpoint, model, plan and
 * importance weights, whose plan quantizes every tensor that is asked for. Errors: SL_EUSAGE
 * for a source without weights (a config.json alone), SL_EUNSUPPORTED for rows of more than five million
 * weights, those of reading. */
int measure_errors(struct sl_job_plan *job, const uint64_t *types, const struct measure_opts *o,
                   double *error, struct measure_stats *stats, struct sl_error *e) SL_MUST_USE;

#endif
