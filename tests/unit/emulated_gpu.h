/* A table of struct sl_gpu_api that computes on the CPU, for tests: a stream is a thread
 * with a queue, device memory is the heap's. It is linked in place of the program's
 * own table. What a real device would do wrong with is seen: work is done late, so
 * that a buffer used again too early gives other bytes; memory is counted; memory that
 * was not given out, or calls without use(), are errors.
 *
 * SLUICE_EMULATED  words with commas: devices=N, memory=BYTES, and
 *   alloc=N, run=N, wait=N, pin=N  the Nth such call fails (alloc: no memory; pin: not
 *                                  supported; run and wait: the device is lost for good)
 *   old=N                          device N is one that the kernels do not run on
 *   part=N                         device N is an instance of a divided one
 *   count=35                       asking for devices fails: the driver is older than the runtime
 *   count=999                      the same: the driver does not start
 *   flip=N                         the Nth launch ends with one wrong bit
 *   bad=N                          the Nth launch reports an element that is not finite
 *   hang=N                         the Nth launch does not end */
#ifndef SLUICE_TESTS_EMULATED_GPU_H
#define SLUICE_TESTS_EMULATED_GPU_H

#include "grid_emulator.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EMULATED_NO_MEMORY = 2, EMULATED_BAD_CALL = 1, EMULATED_OLD = 35, EMULATED_UNKNOWN = 999, EMULATED_LOST = 700, EMULATED_NOT_SUPPORTED = 801 };
enum { EMULATED_COPY, EMULATED_LAUNCH };

struct emulated_op {
    int kind;
    void *to;
    const void *from;
    size_t n;
    struct sl_gpu_work work;
    struct emulated_op *next;
};

struct emulated_stream {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more, idle;
    struct emulated_op *head, **tail;
    bool busy, stop;
    int err;
    struct emulated_block *block;
    uint32_t seed;
};

static struct {
    _Atomic unsigned allocs, runs, waits, pins, launches, reports, begun;
    _Atomic int lost;
    _Atomic uint64_t used;
} emulated;
static _Thread_local int emulated_current = -1;

static inline uint64_t emulated_setting(const char *name, uint64_t usual)
{
    const char *text = getenv("SLUICE_EMULATED"), *at = text ? strstr(text, name) : NULL;

    return at && at[strlen(name)] == '=' ? strtoull(at + strlen(name) + 1, NULL, 10) : usual;
}

static inline bool emulated_due(const char *name, _Atomic unsigned *count)
{
    return atomic_fetch_add(count, 1) + 1 == emulated_setting(name, 0);
}

static inline int emulated_state(void)
{
    return atomic_load(&emulated.lost) ? EMULATED_LOST : emulated_current < 0 ? EMULATED_BAD_CALL : 0;
}

static int emulated_count(int *n)
{
    *n = (int)emulated_setting("devices", 2);
    return (int)emulated_setting("count", 0);
}

static int emulated_info(int device, struct sl_gpu_info *out)
{
    bool part = emulated_setting("part", 99) == (uint64_t)device;

    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "emulated GPU%s", part ? " MIG 1g.1gb" : "");
    snprintf(out->uuid, sizeof out->uuid, "%s-%d1111111-2222-3333-4444-555555555555", part ? "MIG" : "GPU", device);
    snprintf(out->bus, sizeof out->bus, "0000:%02x:00.0", device);
    out->memory = emulated_setting("memory", 1u << 30);
    out->processors = 1;
    out->major = emulated_setting("old", 99) == (uint64_t)device ? 7 : 9;
    return atomic_load(&emulated.lost) ? EMULATED_LOST : 0;
}

static int emulated_use(int device)
{
    emulated_current = device;
    return emulated_state();
}

static int emulated_memory(uint64_t *available)
{
    uint64_t all = emulated_setting("memory", 1u << 30), used = atomic_load(&emulated.used);

    *available = used < all ? all - used : 0;
    return emulated_state();
}

/* The size lies before the block. */
static int emulated_alloc(size_t n, void **out)
{
    uint64_t *p;

    if (emulated_state())
        return emulated_state();
    if (emulated_due("alloc", &emulated.allocs) ||
        atomic_load(&emulated.used) + n > emulated_setting("memory", 1u << 30))
        return EMULATED_NO_MEMORY;
    p = aligned_alloc(256, (n + 511) / 256 * 256);
    if (!p)
        return EMULATED_NO_MEMORY;
    memset(p, 0xa5, n < 1 << 20 ? n + 256 : 1 << 20); /* not zeros; all of it would take its time */
    *p = n;
    atomic_fetch_add(&emulated.used, n);
    *out = (uint8_t *)p + 256;
    return 0;
}

static int emulated_release(void *p)
{
    uint64_t *at = (uint64_t *)(void *)((uint8_t *)p - 256);

    atomic_fetch_sub(&emulated.used, *at);
    free(at);
    return 0;
}

static int emulated_pin(void *p, size_t n)
{
    (void)p, (void)n;
    return emulated_due("pin", &emulated.pins) ? EMULATED_NOT_SUPPORTED : emulated_state();
}

static int emulated_unpin(void *p)
{
    (void)p;
    return 0;
}

static int emulated_host_alloc(size_t n, void **out)
{
    *out = malloc(n);
    return *out ? emulated_state() : EMULATED_NO_MEMORY;
}

static int emulated_host_release(void *p)
{
    free(p);
    return 0;
}

static void *emulated_stream_main(void *arg)
{
    struct emulated_stream *s = arg;
    struct emulated_op *op;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->head && !s->stop)
            pthread_cond_wait(&s->more, &s->lock);
        if (!(op = s->head))
            break;
        s->head = op->next;
        if (!s->head)
            s->tail = &s->head;
        pthread_mutex_unlock(&s->lock);
        if (op->kind == EMULATED_LAUNCH && emulated_due("hang", &emulated.begun))
            for (;;)
                pause();
        if (op->kind == EMULATED_COPY)
            memcpy(op->to, op->from, op->n);
        else if (!emulate_launch(&op->work, s->seed += 7919, s->block))
            s->err = EMULATED_LOST;
        if (op->kind == EMULATED_LAUNCH && emulated_due("flip", &emulated.launches))
            op->work.out[0] ^= 1;
        if (op->kind == EMULATED_LAUNCH && emulated_due("bad", &emulated.reports))
            *op->work.status = 1;
        free(op);
        pthread_mutex_lock(&s->lock);
        s->busy = s->head != NULL;
        if (!s->busy)
            pthread_cond_broadcast(&s->idle);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int emulated_stream_new(void **out)
{
    struct emulated_stream *s = calloc(1, sizeof *s);

    if (!s || !(s->block = calloc(1, sizeof *s->block))) {
        free(s);
        return EMULATED_NO_MEMORY;
    }
    s->tail = &s->head;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    pthread_cond_init(&s->idle, NULL);
    if (pthread_create(&s->thread, NULL, emulated_stream_main, s)) {
        free(s->block);
        free(s);
        return EMULATED_NO_MEMORY;
    }
    *out = s;
    return emulated_state();
}

static int emulated_wait(void *stream)
{
    struct emulated_stream *s = stream;

    pthread_mutex_lock(&s->lock);
    while (s->busy)
        pthread_cond_wait(&s->idle, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (emulated_due("wait", &emulated.waits))
        atomic_store(&emulated.lost, 1);
    return atomic_load(&emulated.lost) ? EMULATED_LOST : s->err;
}

static int emulated_stream_free(void *stream)
{
    struct emulated_stream *s = stream;

    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    free(s->block);
    free(s);
    return 0;
}

static int emulated_put(void *stream, struct emulated_op op)
{
    struct emulated_stream *s = stream;
    struct emulated_op *copy = malloc(sizeof *copy);

    if (!copy)
        return EMULATED_NO_MEMORY;
    *copy = op;
    pthread_mutex_lock(&s->lock);
    *s->tail = copy;
    s->tail = &copy->next;
    s->busy = true;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int emulated_copy(void *stream, void *to, const void *from, size_t n)
{
    if (emulated_state())
        return emulated_state();
    return emulated_put(stream, (struct emulated_op){.kind = EMULATED_COPY, .to = to, .from = from, .n = n});
}

static int emulated_run(void *stream, const struct sl_gpu_work *w)
{
    if (emulated_due("run", &emulated.runs))
        atomic_store(&emulated.lost, 1);
    if (emulated_state())
        return emulated_state();
    if (!sl_gpu_takes(w->type, w->dtype))
        return EMULATED_BAD_CALL;
    return emulated_put(stream, (struct emulated_op){.kind = EMULATED_LAUNCH, .work = *w});
}

static enum sl_gpu_fault emulated_fault(int err)
{
    return err == EMULATED_NO_MEMORY ? SL_GPU_FAULT_MEMORY
           : err == EMULATED_LOST    ? SL_GPU_FAULT_LOST
           : err == EMULATED_OLD     ? SL_GPU_FAULT_DRIVER
           : err == EMULATED_UNKNOWN ? SL_GPU_FAULT_START
                                     : SL_GPU_FAULT_CALL;
}

static const char *emulated_words(int err)
{
    return err == EMULATED_NO_MEMORY       ? "out of memory (emulated)"
           : err == EMULATED_LOST          ? "uncorrectable ECC error encountered (emulated)"
           : err == EMULATED_OLD           ? "no NVIDIA driver here, or one older than is needed (emulated)"
           : err == EMULATED_NOT_SUPPORTED ? "operation not supported (emulated)"
                                           : "invalid call (emulated)";
}

static inline const struct sl_gpu_api *emulated_api(void)
{
    static const struct sl_gpu_api api = {
        emulated_count, emulated_info, emulated_use, emulated_memory, emulated_alloc, emulated_release,
        emulated_pin, emulated_unpin, emulated_host_alloc, emulated_host_release, emulated_stream_new,
        emulated_stream_free, emulated_copy, emulated_copy, emulated_run, emulated_wait, emulated_fault, emulated_words};

    return &api;
}

#endif
