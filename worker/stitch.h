/* Sealing segments into a model: one pass over the finished temporary files
 * checks every task's bytes, as the disk has them, against what its worker computed, and gives the
 * checksums that the headers and the manifests carry. No tensor byte is
 * copied. */
#ifndef SLUICE_WORKER_STITCH_H
#define SLUICE_WORKER_STITCH_H

#include "worker/output.h"
#include "proto/plan.h"

struct stitch {
    const struct sl_plan *plan;
    const struct output *out;
    const uint64_t *task_sum; /* plan->n_tasks checksums, as committed */
    bool sha256;              /* also in the manifests */
    /* Filled: tasks whose bytes on disk are not what was committed. */
    uint32_t *bad;
    uint32_t n_bad;
    /* Called with bytes read since the last call; may stop the pass (< 0). */
    int (*progress)(void *user, uint64_t bytes);
    void *user;
};

/* Effect: reads each segment, writes the padding between its tensors anew, its header with its
 * checksums and its manifest ("NAME.gguf.xxh64", llama-gguf-hash's format, still under a temporary
 * name) and syncs them; then holds every task's bytes against task_sum. s->bad is the caller's in
 * every case (free). Errors: SL_EVERIFY with s->bad naming the tasks to be made again, none where a
 * file has another length than the plan says; SL_ENOSPACE,
 * SL_EFAIL, what progress said. */
int stitch_seal(struct stitch *s, struct sl_error *e) SL_MUST_USE;

#endif
