/* What GPUs say of themselves through NVML (NVIDIA's management library, a part of the
 * driver), which is opened at run time: names come from the CUDA runtime without it. */
#ifndef SLUICE_WORKER_GPU_HEALTH_H
#define SLUICE_WORKER_GPU_HEALTH_H

#include "worker/device.h"

struct sl_gpu_health {
    char device[16], name[128];  /* "cuda:0", "NVIDIA H200" */
    uint64_t memory, memory_used; /* bytes; used: by everybody; of an instance, its own */
    unsigned watts, celsius;
    bool told;                   /* NVML answered; else memory_used, watts and celsius are 0 */
};

/* Effect: asks once about a device, and closes NVML again; sets all but device, name and
 * memory. Returns whether it answered. It may take a second, or hang with a device that is
 * lost. */
bool sl_gpu_health(const struct sl_gpu_info *gpu, struct sl_gpu_health *out);

struct sl_gpu_watch;

/* Effect: starts a thread that asks about the devices every `every_ms`, so that nobody waits
 * for them. devices is copied; none of them: *out is NULL, which the calls below take.
 * Errors: SL_EFAIL. */
int sl_gpu_watch_open(const struct sl_devices *devices, uint32_t every_ms, struct sl_gpu_watch **out,
                      struct sl_error *e) SL_MUST_USE;
/* Effect: ends the thread; one that hangs in the driver is left to itself after a second. */
void sl_gpu_watch_close(struct sl_gpu_watch *w);

/* Returns how many devices there are in out (SL_DEVICES_MAX of room): as they were last seen. */
unsigned sl_gpu_watch_read(struct sl_gpu_watch *w, struct sl_gpu_health *out);

#endif
