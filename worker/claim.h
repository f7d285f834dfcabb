/* The claim of a service's job on an output: DIR/PREFIX.sluice-job says which
 * plan the unfinished files of that name belong to. Without it, bytes of another
 * plan could stay between the tensors of this one. It gets another name
 * (.sluice-job-ending) before its files go, so that nobody who is late makes
 * them anew. Its lines: the fingerprint, "job N", and the mark of the prepare
 * that made it or took it over last: who finds another mark there is late and
 * must leave the files alone. */
#ifndef SLUICE_WORKER_CLAIM_H
#define SLUICE_WORKER_CLAIM_H

#include "worker/output.h"

/* Copies the fingerprint in the claim, "" when there is none. ending: of the
 * claim on files that are just being published or removed. */
void claim_read(const struct output *o, bool ending, char fingerprint[33]);
/* Effect: makes the claim of this job and syncs it; *mark gets its mark. With
 * `over` it replaces what is there, which must be one of the same plan; without,
 * nothing may be there. Errors: SL_ENOSPACE, SL_EFAIL. */
int claim_write(const struct output *o, const char *fingerprint, uint64_t job, bool over,
                char mark[33], struct sl_error *e) SL_MUST_USE;
/* Whether the claim is there with this mark. */
bool claim_is_mine(const struct output *o, const char mark[33]);
/* Whether there is any claim, a torn one included. */
bool claim_there(const struct output *o);
/* Effect: gives the claim its ending name. */
void claim_end(const struct output *o);
/* Effect: removes it under both names. */
void claim_drop(const struct output *o);

/* For who is no service: returns 0, or SL_EEXISTS naming the job and what to do
 * when there is a claim under either name. */
int claim_absent(const struct output *o, struct sl_error *e) SL_MUST_USE;

#endif
