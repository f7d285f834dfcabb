/* The model of a GGUF source; called by sl_model_open. */
#ifndef SLUICE_PROTO_MODEL_GGUF_H
#define SLUICE_PROTO_MODEL_GGUF_H

#include "proto/model.h"

/* Effect: fills m (zeros) from a GGUF checkpoint: its tensors as they are, in
 * the order of the files, and its metadata. m is the caller's also after an
 * error (sl_model_close). Errors: SL_ESOURCE, SL_EFAIL. */
int sl_model_from_gguf(const struct sl_checkpoint *ck, const struct sl_model_opts *o,
                       struct sl_model *m, struct sl_error *e) SL_MUST_USE;

/* Effect: sets m->near and what belongs to it, by the keys of a model that has such layers. Errors: SL_EFAIL. */
int sl_model_set_near(struct sl_model *m, struct sl_error *e) SL_MUST_USE;

#endif
