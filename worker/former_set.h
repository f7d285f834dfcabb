/* Parts that an earlier conversion left under the same name with another number
 * of files: beside the new ones they would look like one set. */
#ifndef SLUICE_WORKER_FORMER_SET_H
#define SLUICE_WORKER_FORMER_SET_H

#include "worker/output.h"

/* A part is a regular file DIR/PREFIX-NNNNN-of-MMMMM.gguf whose header says
 * part NNNNN of MMMMM, with another MMMMM than the plan has. The source's own
 * files are none. */

/* Returns 0, or SL_EEXISTS naming the parts that are there, with force the first that
 * this process may not remove, and what to do. Errors: SL_EFAIL (the folder cannot be read). */
int former_set_absent(const struct output *o, bool force, const struct sl_checkpoint *ck,
                      struct sl_error *e) SL_MUST_USE;

/* Effect: *n = how many there are. Errors: SL_EFAIL. */
int former_set_count(const struct output *o, const struct sl_checkpoint *ck, uint32_t *n,
                     struct sl_error *e) SL_MUST_USE;

/* Effect: removes the parts with their manifests and syncs the folder; to be
 * called when the new files have their final names. Can be done again after a
 * crash. Errors: SL_EFAIL. */
int former_set_remove(const struct output *o, const struct sl_checkpoint *ck, struct sl_error *e)
    SL_MUST_USE;

#endif
