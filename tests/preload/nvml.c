/* The part of NVIDIA's NVML that Sluice asks for, so that what a worker tells of its GPUs
 * can be tested on a machine that has none: tests/tap/gpu_worker.t puts it where the dynamic
 * linker finds it as libnvidia-ml.so.1. It is no proof that the real one answers like this.
 *
 * NVML_FAKE: a file that is read at every question; its words are power in milliwatts, degrees,
 * and bytes in use; no file: nothing is answered. A device is its PCI address's bus number, an
 * instance of a divided one its UUID's first digit. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, LOST = 15 };

#define INSTANCES 100 /* handles of instances are above; device 1 is divided where NVML_DIVIDED is set */

struct memory {
    unsigned long long total, free, used;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **out);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out);
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts);
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius);
int nvmlDeviceGetMemoryInfo(void *device, struct memory *m);

static int ask(unsigned long long v[3])
{
    const char *path = getenv("NVML_FAKE");
    FILE *f = path ? fopen(path, "r") : NULL;
    int n = f ? fscanf(f, "%llu %llu %llu", &v[0], &v[1], &v[2]) : 0;

    if (f)
        fclose(f);
    return n == 3 ? OK : LOST;
}

int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **out)
{
    unsigned domain, number;

    if (sscanf(bus, "%x:%x:", &domain, &number) != 2)
        return NOT_FOUND;
    *out = (void *)(uintptr_t)(number + 1);
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **out)
{
    unsigned number;

    if (sscanf(uuid, "MIG-%1x", &number) != 1)
        return NOT_FOUND;
    *out = (void *)(uintptr_t)(INSTANCES + number);
    return OK;
}

static int instance(const void *device) { return (uintptr_t)device >= INSTANCES; }

/* The second device is a degree warmer, and so on. */
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius)
{
    unsigned long long v[3];
    int rc = ask(v);

    if (instance(device))
        return NOT_SUPPORTED;
    if (rc == OK)
        *celsius = (unsigned)v[1] + (unsigned)(uintptr_t)device - 1;
    return sensor == 0 ? rc : NOT_FOUND;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts)
{
    unsigned long long v[3];
    int rc = instance(device) ? NOT_SUPPORTED : ask(v);

    if (rc == OK)
        *milliwatts = (unsigned)v[0];
    return rc;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *m)
{
    unsigned long long v[3];
    int rc = ask(v);

    if (getenv("NVML_DIVIDED") && (uintptr_t)device == 2)
        return NO_PERMISSION;
    if (instance(device))
        v[2] /= 4;
    if (rc == OK)
        *m = (struct memory){v[2] * 4, v[2] * 3, v[2]};
    return rc;
}
