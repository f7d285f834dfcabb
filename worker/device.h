/* Which devices a conversion runs on: what --device says, held against what is here. */
#ifndef SLUICE_WORKER_DEVICE_H
#define SLUICE_WORKER_DEVICE_H

#include "kernels/gpu.h"

#define SL_DEVICES_MAX 16
#define SL_DEVICES_LABEL (SL_DEVICES_MAX * 8 + 8)

struct sl_devices {
    const struct sl_gpu_api *api; /* NULL: none in this build */
    unsigned n;                   /* GPUs; 0: the processor's cores */
    bool cores;                   /* the cores beside the GPUs, where the GPUs are behind */
    int number[SL_DEVICES_MAX];   /* as the runtime counts, after CUDA_VISIBLE_DEVICES */
    char label[SL_DEVICES_LABEL]; /* "cpu", "cuda:0", "cuda:0,cuda:2,cpu" */
};

/* Effect: settles `text`: "cpu"; "cuda:N" and "GPU-UUID" or "MIG-UUID" (or its beginning, where
 * only one device has it), several with commas between, "cpu" among them: the cores too, where
 * measurement at work says that they help (engine_spare.c); "auto": every GPU that fits and
 * the cores so, or the cores where there is none. Nothing is opened. Errors: SL_EUSAGE (no such
 * word), SL_EUNSUPPORTED (no such device, saying which there are). */
int sl_devices_choose(const char *text, struct sl_devices *out, struct sl_error *e) SL_MUST_USE;

#endif
