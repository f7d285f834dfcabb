/* An importance matrix at the tensors of one plan. */
#ifndef SLUICE_PROTO_IMATRIX_USE_H
#define SLUICE_PROTO_IMATRIX_USE_H

#include "proto/imatrix.h"
#include "proto/plan.h"

#define SL_KEY_IMATRIX "sluice.imatrix"                 /* hash of the imatrix file, or: */
#define SL_IMATRIX_SYNTHETIC "synthetic-1"              /* column energies, by the rule of RECIPES.md */
#define SL_KEY_IMATRIX_INCLUDE "sluice.imatrix.include" /* --include-weights, a list */
#define SL_KEY_IMATRIX_EXCLUDE "sluice.imatrix.exclude"

struct sl_imatrix_use {
    const struct sl_imatrix *im; /* NULL: none, or synthetic */
    bool nothing_left;           /* one was given, but the words take all its entries out */
    bool synthetic;              /* weights are made from the source (worker/synthetic.h) */
    const struct sl_plan *plan;
    uint32_t *entry;             /* for each plan tensor; SL_NO_NAME: none */
    uint32_t n_with, n_without;  /* quantized tensors with data and without */
    uint32_t n_zero_tensors;     /* tensors with matrices that have no data, */
    uint64_t n_zero;             /* and how many these are */
};

/* Effect: looks up every plan tensor that is quantized (a type with blocks, other than its
 * source's; mxfp4 that is kept counts as that). im may be NULL. *u is the caller's (sl_imatrix_use_free) in every case.
 * im and plan must outlive it. Errors: those of sl_imatrix_for; SL_EUSAGE when im
 * names no tensor of the plan, and some are quantized; SL_EFAIL. */
int sl_imatrix_use_make(struct sl_imatrix_use *u, const struct sl_imatrix *im,
                        const struct sl_plan *plan, struct sl_error *e) SL_MUST_USE;
/* Effect: the same for synthetic weights, which every quantized tensor has that the words
 * leave. Errors: SL_EFAIL. */
int sl_imatrix_use_synthetic(struct sl_imatrix_use *u, const struct sl_plan *plan,
                             const struct sl_weight_words *words, struct sl_error *e) SL_MUST_USE;
void sl_imatrix_use_free(struct sl_imatrix_use *u);

/* Returns whether plan tensor i takes weights. user: the use. */
bool sl_imatrix_use_has(void *user, uint32_t i);

/* Effect: out[0..ne[0]) = the column weights of matrix `slice` of plan tensor i. Any
 * thread. Errors: those of sl_imatrix_values. */
int sl_imatrix_use_load(void *user, uint32_t i, uint64_t slice, float *out, struct sl_error *e)
    SL_MUST_USE;

/* Effect: calls say(line) for what a user should know: tensors without data, matrices
 * without data, a layout that does not go with the imatrix. */
void sl_imatrix_use_notes(const struct sl_imatrix_use *u, void (*say)(void *user, const char *line),
                          void *user);

/* Effect: sets llama-quantize's quantize.imatrix.* keys as it does, then Sluice's own.
 * im NULL: those of a synthetic one. Errors: SL_EFAIL. */
int sl_imatrix_kvs(const struct sl_imatrix *im, const struct sl_weight_words *words,
                   struct sl_kvs *kvs) SL_MUST_USE;

#endif
