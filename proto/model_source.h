/* One source of an output tensor: held against the checkpoint, or as such models ship it. */
#ifndef SLUICE_PROTO_MODEL_SOURCE_H
#define SLUICE_PROTO_MODEL_SOURCE_H

#include "proto/arch_table.h"

/* Effect: *rows and *cols = what the template's source has, as a matrix. */
void sl_model_source_size(const struct sl_params *p, const struct sl_tensor_tmpl *t, const struct sl_arrangement *how,
                          uint64_t *rows, uint64_t *cols);

/* Errors: SL_EUNSUPPORTED when src's dtype cannot be what the template is made of; SL_ESOURCE when its shape is not that
 * of rows x cols (sl_model_source_size), in the forms in which checkpoints have it: convolutions as [rows, cols] or
 * [rows, 1, cols], factors as vectors or matrices of one row, and of what SL_FIRST takes there may be more. */
int sl_model_source_check(const struct sl_src_tensor *src, const struct sl_tensor_tmpl *t, const struct sl_arrangement *how,
                          uint64_t rows, uint64_t cols, struct sl_error *e) SL_MUST_USE;

/* Effect: dtype and scale of a source that config.json alone tells of; s->rows and cols are filled in. ignored: it is not
 * quantized, where others are. */
void sl_model_source_plan(const struct sl_params *p, const struct sl_checkpoint *ck, enum sl_ship ship, bool ignored,
                          struct sl_model_src *s);

/* Effect: where the output tensor's sources are NVFP4, appends what scales each of them as a whole, and its input where the
 * checkpoint has that; m->tensors and m->src have room for them. Errors: SL_EUNSUPPORTED (some of the sources alone; one
 * whose scale llama.cpp does not apply), SL_ESOURCE (proto/model_nvfp4.c). */
int sl_model_add_own_scales(struct sl_model *m, const struct sl_checkpoint *ck, const struct sl_arch *arch,
                            const struct sl_out_tensor *o, struct sl_error *e) SL_MUST_USE;

#endif
