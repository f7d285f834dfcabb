/* Giving the finished files of an output their final names, part by part, and
 * taking those names back. Whoever calls holds the claim (worker/claim.h), or
 * the journal of `sluice convert`. */
#ifndef SLUICE_WORKER_PUBLISH_H
#define SLUICE_WORKER_PUBLISH_H

#include "worker/output.h"

/* Effect: looks whether publish_files can end well, before the first name is given: each
 * part is there under one of its names, and nothing has a final name that would be lost
 * (force: files may). go_on: what the user does when that is out of the way. Errors:
 * SL_EVERIFY: a part is missing, the output must be stitched again; SL_EEXISTS:
 * something has a final name. */
int publish_check(const struct output *o, bool force, const char *go_on, struct sl_error *e) SL_MUST_USE;

/* Effect: gives each part's manifest and then the part its final name, and syncs the
 * folder. A part that has it already is left alone; a file that has come since the look is
 * replaced with force alone (where the filesystem cannot tell in the rename itself: unless
 * it comes in that very moment). watch may be NULL. Errors: SL_EVERIFY: a part has gone
 * meanwhile; SL_EEXISTS, SL_EFAIL, SL_ENOSPACE, what watch said; what has its name then keeps it, and the
 * same call goes on. */
int publish_files(const struct output *o, bool force, const char *go_on, const struct output_watch *watch,
                  struct sl_error *e) SL_MUST_USE;

/* Whether every part of this very output has its final name: a complete, checked set. */
bool publish_is_done(const struct output *o);

/* Effect: the parts of this very output that have their final names, and no temporary one,
 * get their temporary names back, their manifests too. watch may be NULL. Errors: SL_EFAIL,
 * SL_ENOSPACE, what watch said. */
int publish_undo(const struct output *o, const struct output_watch *watch, struct sl_error *e) SL_MUST_USE;

#endif
