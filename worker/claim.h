/* The claim of a service's job on an output: DIR/PREFIX.sluice-job says which
 * plan the unfinished files of that name belong to. Without it, bytes of another
 * plan could stay between the tensors of this one. It gets another name
 * (.sluice-job-ending) before its files are published or removed, so that nobody
 * who is late makes them anew.
 *
 * Its lines: the plan's fingerprint, "job N", a random mark, "epoch N": the lease
 * that made it or took it over last (older releases wrote no mark, or no epoch:
 * 0 then). Who finds a higher epoch there than its own lease's is late and gives
 * way without touching a file: epochs of one queue are never given twice, and a
 * queue made later begins higher (daemon/queue.h).
 *
 * While files are made, renamed or removed their claim is held: locked with
 * flock, which on NFS keeps out other machines too, and looked at again
 * before each such step. A holder that does not go on is not waited for: its
 * claim is replaced by another file, which it will find at its next look. Where a
 * filesystem has no locks, the looks alone remain. What is left open is a process
 * that stands still, for longer than its lease, between a look and the one system
 * call behind it: tasks whose file it then removes fail and are done again. */
#ifndef SLUICE_WORKER_CLAIM_H
#define SLUICE_WORKER_CLAIM_H

#include "worker/output.h"

#include <sys/types.h>

#define CLAIM_WAIT_MS 2000u  /* for a holder that goes on */

/* For whom a claim is made. */
struct claim_lease {
    const char *fingerprint; /* of the job's plan */
    uint64_t job, epoch;
    uint32_t wait_ms;        /* for another holder; then it is taken for lost */
};

/* A claim that is held; the caller keeps o until claim_release. */
struct claim_hold {
    const struct output *o;
    char mark[33];
    bool ending;             /* under its ending name */
    dev_t dev;
    ino_t ino;
    int fd;                  /* has the lock */
};

/* Whether there is, readable, a claim of this plan and this job (of any, when an older release
 * made it), and not under its ending name. */
bool claim_is_of(const struct output *o, const char *fingerprint, uint64_t job);

/* Returns 0 when claim_make would find nothing against it, touching nothing.
 * Errors: SL_EEXISTS: a later lease has the output, or (unless any_plan) another
 * plan; under the ending name that counts while temporary files are there. SL_EFAIL:
 * it is not known, for a claim cannot be read. */
int claim_free(const struct output *o, const struct claim_lease *l, bool any_plan,
               struct sl_error *e) SL_MUST_USE;

/* Effect: makes the claim, or takes over the one that is there, syncs it and holds
 * it. One under the ending name goes. Errors: those of claim_free, SL_ENOSPACE,
 * SL_EFAIL. */
int claim_make(const struct output *o, const struct claim_lease *l, bool any_plan,
               struct claim_hold *h, struct sl_error *e) SL_MUST_USE;

enum claim_found {
    CLAIM_NONE,              /* none is there, or a torn one, to which no files belong */
    CLAIM_HELD,
    CLAIM_OTHERS,            /* another job's, or another plan's */
};
/* Effect: holds the claim of this very job and plan, under whichever name it has, with
 * the lease's epoch from now on. Returns an enum claim_found. Errors: SL_EEXISTS: a
 * later lease has it; SL_ENOSPACE, SL_EFAIL. */
int claim_take(const struct output *o, const struct claim_lease *l, struct claim_hold *h,
               struct sl_error *e) SL_MUST_USE;

/* Returns 0 while the claim is still this hold's. Errors: SL_EINTERRUPTED, SL_EFAIL. */
int claim_check(const struct claim_hold *h, struct sl_error *e) SL_MUST_USE;
/* Effect: gives the held claim its ending name, or with ending false its first one again.
 * Errors: SL_EINTERRUPTED, SL_EFAIL. */
int claim_end(struct claim_hold *h, bool ending, struct sl_error *e) SL_MUST_USE;
/* Effect: removes the claim if it is still this hold's. Errors: SL_EFAIL: it is left. */
int claim_drop(const struct claim_hold *h, struct sl_error *e) SL_MUST_USE;
/* Effect: gives up the lock; the claim stays as it is. */
void claim_release(struct claim_hold *h);

/* Whether there is any claim, a torn one included. */
bool claim_there(const struct output *o);

/* For who is no service: returns 0, or SL_EEXISTS naming the job and what to do
 * when there is a claim under either name. Errors: SL_EFAIL: it cannot be read. */
int claim_absent(const struct output *o, struct sl_error *e) SL_MUST_USE;

#endif
