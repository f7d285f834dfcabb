#include "worker/gpu_health.h"

#include "worker/deadline.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 1000u /* for a driver that hangs, at the end */

/* NVML's own numbers and names (NVIDIA's NVML reference): a return of 0 is success,
 * temperature sensor 0 is the GPU's. */
struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    void *lib;
    int (*end)(void), (*find)(const char *, void **), (*part)(const char *, void **), (*power)(void *, unsigned *);
    int (*heat)(void *, int, unsigned *), (*room)(void *, struct nvml_memory *);
};

static void nvml_close(struct nvml *n)
{
    if (n->lib && n->end)
        n->end();
    if (n->lib)
        dlclose(n->lib);
    n->lib = NULL;
}

/* Returns whether NVML is there and answers. */
static bool nvml_open(struct nvml *n)
{
    int (*init)(void);

    n->lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->lib)
        return false;
    *(void **)&init = dlsym(n->lib, "nvmlInit_v2");
    *(void **)&n->end = dlsym(n->lib, "nvmlShutdown");
    *(void **)&n->find = dlsym(n->lib, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)&n->part = dlsym(n->lib, "nvmlDeviceGetHandleByUUID");
    *(void **)&n->power = dlsym(n->lib, "nvmlDeviceGetPowerUsage");
    *(void **)&n->heat = dlsym(n->lib, "nvmlDeviceGetTemperature");
    *(void **)&n->room = dlsym(n->lib, "nvmlDeviceGetMemoryInfo");
    if (init && n->end && n->find && n->part && n->power && n->heat && n->room && init() == 0)
        return true;
    n->end = NULL;
    nvml_close(n);
    return false;
}

/* Heat and power are the whole card's, whose memory only root may ask for where it is divided. */
static bool nvml_ask(const struct nvml *n, const struct sl_gpu_info *gpu, struct sl_gpu_health *out)
{
    struct nvml_memory m = {0, 0, 0};
    unsigned milliwatts = 0;
    void *handle = NULL;

    out->watts = out->celsius = 0;
    out->memory_used = 0;
    out->told = n->lib && n->find(gpu->bus, &handle) == 0 && n->heat(handle, 0, &out->celsius) == 0;
    if (out->told && n->power(handle, &milliwatts) == 0)
        out->watts = (milliwatts + 500) / 1000;
    if (out->told && (strncmp(gpu->uuid, "MIG-", 4) != 0 || n->part(gpu->uuid, &handle) == 0) && n->room(handle, &m) == 0)
        out->memory_used = m.used;
    return out->told;
}

bool sl_gpu_health(const struct sl_gpu_info *gpu, struct sl_gpu_health *out)
{
    struct nvml n = {.lib = NULL};
    bool ok;

    (void)nvml_open(&n);
    ok = nvml_ask(&n, gpu, out);
    nvml_close(&n);
    return ok;
}

/* ---- asked again and again, by a thread */

struct sl_gpu_watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop, ended;
    uint32_t every_ms;
    unsigned n;
    struct sl_gpu_info info[SL_DEVICES_MAX];
    struct sl_gpu_health health[SL_DEVICES_MAX];
};

static void *watch_main(void *arg)
{
    struct sl_gpu_watch *w = arg;
    struct nvml n = {.lib = NULL};
    bool open = nvml_open(&n);

    pthread_mutex_lock(&w->lock);
    while (open && !w->stop) {
        struct timespec until = sl_deadline(w->every_ms);

        for (unsigned i = 0; i < w->n && !w->stop; i++) {
            struct sl_gpu_health h = w->health[i];

            pthread_mutex_unlock(&w->lock);
            nvml_ask(&n, &w->info[i], &h);
            pthread_mutex_lock(&w->lock);
            w->health[i] = h;
        }
        while (!w->stop && pthread_cond_timedwait(&w->changed, &w->lock, &until) != ETIMEDOUT)
            ;
    }
    pthread_mutex_unlock(&w->lock);
    nvml_close(&n);
    pthread_mutex_lock(&w->lock);
    w->ended = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void forget(struct sl_gpu_watch *w)
{
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

int sl_gpu_watch_open(const struct sl_devices *devices, uint32_t every_ms, struct sl_gpu_watch **out,
                      struct sl_error *e)
{
    struct sl_gpu_watch *w;
    int err;

    *out = NULL;
    if (!devices->n)
        return 0;
    w = calloc(1, sizeof *w);
    if (!w)
        return sl_no_memory(e);
    w->every_ms = every_ms;
    w->n = devices->n;
    for (unsigned i = 0; i < w->n; i++) {
        struct sl_gpu_info *info = &w->info[i];

        snprintf(w->health[i].device, sizeof w->health[i].device, "cuda:%d", devices->number[i] % 1000);
        if (devices->api->info(devices->number[i], info))
            continue; /* its failure is the engine's to tell */
        memcpy(w->health[i].name, info->name, sizeof w->health[i].name);
        w->health[i].memory = info->memory;
    }
    pthread_mutex_init(&w->lock, NULL);
    sl_cond_init(&w->changed);
    err = pthread_create(&w->thread, NULL, watch_main, w);
    if (err) {
        forget(w);
        return sl_fail_thread(e, err);
    }
    *out = w;
    return 0;
}

void sl_gpu_watch_close(struct sl_gpu_watch *w)
{
    struct timespec until = sl_deadline(PATIENCE_MS);
    bool ended;

    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->changed);
    while (!w->ended && pthread_cond_timedwait(&w->changed, &w->lock, &until) != ETIMEDOUT)
        ;
    ended = w->ended;
    pthread_mutex_unlock(&w->lock);
    if (!ended) { /* it keeps what it uses */
        pthread_detach(w->thread);
        return;
    }
    pthread_join(w->thread, NULL);
    forget(w);
}

unsigned sl_gpu_watch_read(struct sl_gpu_watch *w, struct sl_gpu_health *out)
{
    if (!w)
        return 0;
    pthread_mutex_lock(&w->lock);
    memcpy(out, w->health, w->n * sizeof *out);
    pthread_mutex_unlock(&w->lock);
    return w->n;
}
