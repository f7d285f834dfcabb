/* Units on a GPU: a stage belongs to one compute thread, and holds a few slots,
 * each with a stream and its device buffers, so that one slot copies in while
 * another computes and a third copies out:
 *
 *   slot:  | input, as in the slab | output | row means | column weights | status |
 */
#ifndef SLUICE_WORKER_GPU_STAGE_H
#define SLUICE_WORKER_GPU_STAGE_H

#include "kernels/gpu.h"
#include "worker/unit.h"

#define SL_GPU_SLOTS_MAX 4

struct sl_gpu_slot {
    void *stream;
    uint8_t *device;         /* one allocation, cut as above */
    float *weights;          /* pinned; what the device's column weights are copied from */
    uint32_t *status;        /* pinned */
};

struct sl_gpu_stage {
    const struct sl_gpu_device *gpu;
    uint64_t slab_bytes, w_floats;
    unsigned n_slots;
    struct sl_gpu_slot slot[SL_GPU_SLOTS_MAX];
};

/* Returns the device memory that one slot takes. */
uint64_t sl_gpu_slot_bytes(uint64_t slab_bytes, uint64_t longest_row);

/* Effect: makes the device the calling thread's, allocates n slots. The stage is used by
 * this thread alone. Errors: SL_EDEVICE. Free with sl_gpu_stage_close in every case, on the same
 * thread. */
int sl_gpu_stage_open(const struct sl_gpu_device *gpu, unsigned n, uint64_t slab_bytes, uint64_t longest_row,
                      struct sl_gpu_stage *out, struct sl_error *e) SL_MUST_USE;
void sl_gpu_stage_close(struct sl_gpu_stage *s);

/* Effect: begins a unit, whose reads are all in its slab, in a free slot. Returns 1, or 0
 * when it is none for a device (copied bytes, the model's own values, dtypes that
 * kernels/gpu.h does not take): sl_unit_convert does it. Errors: SL_EDEVICE, those of
 * sl_unit_convert that do not depend on the weights. */
int sl_gpu_stage_begin(struct sl_gpu_stage *s, unsigned slot, const struct sl_unit_env *env, struct sl_unit *u,
                       uint8_t *slab, struct sl_error *e) SL_MUST_USE;

/* Effect: waits for the slot's unit; its output is in the slab. Returns 0, or 1 when
 * the device met something that is in error: sl_unit_convert says what and where, as it
 * does without a device. Errors: SL_EDEVICE. */
int sl_gpu_stage_end(struct sl_gpu_stage *s, unsigned slot, const struct sl_unit_env *env, const struct sl_unit *u,
                     const uint8_t *slab, struct sl_error *e) SL_MUST_USE;

#endif
