/* GPUs in the engine: opening them, and the thread that keeps one busy. Each device
 * has a few such threads, since hashing what comes back takes a core for every
 * 10 GB/s or so; each thread has a few slots. */
#include "worker/engine_parts.h"

#include <stdlib.h>
#include <string.h>

#include "proto/size_text.h"

#define THREADS_USUAL 4u
#define SLOTS_USUAL 3u
#define SLAB_DEVICE (16 * SL_MIB)
#define VRAM_USUAL (2048 * SL_MIB)

int sl_engine_open_devices(struct sl_engine *en, struct sl_error *e)
{
    unsigned each;

    if (!en->opts.devices || !en->opts.devices->n) {
        strcpy(en->devices.label, "cpu");
        return 0;
    }
    en->gpu = calloc(en->opts.devices->n, sizeof *en->gpu);
    if (!en->gpu)
        return sl_fail(e, SL_EFAIL, "out of memory for %u devices", en->opts.devices->n);
    en->devices = *en->opts.devices;
    for (unsigned i = 0; i < en->devices.n; i++)
        SL_TRY(sl_gpu_open(en->devices.api, en->devices.number[i], &en->gpu[i], e));
    each = en->opts.threads ? en->opts.threads : THREADS_USUAL;
    if (!en->opts.threads && each > sl_usable_cores())
        each = sl_usable_cores();
    en->threads = each * en->devices.n;
    if (en->devices.cores) /* a core of each device feeds it */
        en->spare = sl_usable_cores() > en->devices.n ? sl_usable_cores() - en->devices.n : 1;
    en->slots = SLOTS_USUAL;
    /* A launch of few superblocks leaves a large device idle: larger slabs than a core wants. */
    if (!en->opts.slab_bytes && en->opts.mem_bytes / 2 / SLAB_DEVICE >= 2 * (uint64_t)en->threads * en->slots)
        en->opts.slab_bytes = SLAB_DEVICE;
    return 0;
}

int sl_engine_fit_devices(struct sl_engine *en, struct sl_error *e)
{
    uint64_t slot = sl_gpu_slot_bytes(en->slabs.slab_bytes, en->longest_row), allowed, available;
    unsigned each = en->devices.n ? en->threads / en->devices.n : 0;
    int rc;

    for (unsigned i = 0; i < en->devices.n; i++) {
        rc = en->devices.api->use(en->devices.number[i]);
        if (rc == 0)
            rc = en->devices.api->memory(&available);
        if (rc)
            return sl_gpu_fail(&en->gpu[i], rc, "asking for its memory", e);
        allowed = en->opts.vram_bytes ? en->opts.vram_bytes : VRAM_USUAL;
        if (!en->opts.vram_bytes && allowed > available / 2)
            allowed = available / 2;
        while (en->slots > 1 && slot * en->slots * each > allowed)
            en->slots--;
        while (each > 1 && slot * en->slots * each > allowed)
            each--;
        if (slot * each > allowed)
            return sl_fail(e, SL_EUSAGE, "cuda:%d: device memory of %s is too little for slabs of %s: %s are needed",
                           en->devices.number[i], sl_size_text((char[32]){0}, allowed),
                           sl_size_text((char[32]){0}, en->slabs.slab_bytes), sl_size_text((char[32]){0}, slot));
    }
    if (!en->devices.n)
        return 0;
    en->threads = each * en->devices.n;
    en->vram_bytes = slot * en->slots * each;
    /* Not pinned, copies take a way of their own through the driver: slower, and the same bytes. */
    rc = en->devices.api->pin(en->slabs.base, en->slabs.n * en->slabs.slab_bytes);
    en->pinned = rc == 0;
    en->unpinned = rc ? en->devices.api->words(rc) : NULL;
    return 0;
}

void sl_engine_close_devices(struct sl_engine *en)
{
    if (en->pinned) {
        (void)en->devices.api->use(en->devices.number[en->devices.n - 1]); /* as when they were pinned */
        en->devices.api->unpin(en->slabs.base);
    }
    en->pinned = false;
    for (unsigned i = 0; en->gpu && i < en->devices.n; i++)
        if (en->gpu[i].api)
            sl_gpu_close(&en->gpu[i]);
    free(en->gpu);
    en->gpu = NULL;
}

/* ---- a thread of a device; the lock is held between calls */

/* A device's failure is everybody's: what it did not finish goes back. */
static void lose(struct sl_engine *en, const struct sl_error *why)
{
    if (en->lost.code == 0)
        en->lost = *why;
}

static void fail_lost(struct sl_engine *en, struct sl_engine_unit *u)
{
    u->code = sl_fail(&u->err, en->lost.code, "%s", en->lost.text);
}

/* Takes the unit into the slot, or passes it on. Returns whether the slot is taken. */
static bool begin(struct sl_compute *me, unsigned slot, struct sl_engine_unit *u)
{
    struct sl_engine *en = me->en;
    int rc;

    if (sl_engine_wanted(en, u) && en->lost.code < 0)
        fail_lost(en, u);
    if (sl_engine_wanted(en, u)) {
        pthread_mutex_unlock(&en->lock);
        rc = sl_gpu_stage_begin(&me->stage, slot, sl_engine_turn(en, u), &u->u, u->slab, &u->err);
        pthread_mutex_lock(&en->lock);
        if (rc == 1) {
            me->in_slot[slot] = u;
            me->begun_ns[slot] = sl_now_ns();
            en->in_slots++;
            return true;
        }
        if (rc == SL_EDEVICE)
            lose(en, &u->err);
        u->code = rc;
        if (rc == 0)
            (void)sl_engine_convert(me, u);
    }
    sl_engine_pass(en, u);
    return false;
}

/* From the end of the unit before, or its own beginning where there was none. */
static void keep_pace(struct sl_compute *me, const struct sl_engine_unit *u, uint64_t begun_ns)
{
    struct sl_pace *p = sl_engine_pace(me->en, u);
    uint64_t now = sl_now_ns(), since = me->ended_ns > begun_ns ? me->ended_ns : begun_ns;
    float ns = (float)(now - since) / (float)(u->u.elems ? u->u.elems : 1);

    me->ended_ns = now;
    if (p)
        p->device = p->device > 0 ? 0.8f * p->device + 0.2f * ns : ns;
    if (me->en->spare && me->en->ready)
        pthread_cond_signal(&me->en->help);
}

static void end(struct sl_compute *me, unsigned slot)
{
    struct sl_engine *en = me->en;
    struct sl_engine_unit *u = me->in_slot[slot];
    uint64_t since = sl_now_ns();
    int rc;

    me->in_slot[slot] = NULL;
    en->in_slots--;
    pthread_mutex_unlock(&en->lock);
    rc = sl_gpu_stage_end(&me->stage, slot, &en->members[u->task->member].env, &u->u, u->slab, &u->err);
    atomic_fetch_add(&en->compute_ns, sl_now_ns() - since);
    pthread_mutex_lock(&en->lock);
    u->code = rc < 0 ? rc : 0;
    atomic_fetch_add(&en->device_units, rc == 0);
    keep_pace(me, u, me->begun_ns[slot]);
    if (rc == SL_EDEVICE)
        lose(en, &u->err);
    if (rc == 1) {
        (void)sl_engine_convert(me, u);
        if (u->code == 0) { /* the two do not agree: the processor's word is the reference */
            u->code = sl_fail(&u->err, SL_EDEVICE, "GPU cuda:%d (%s): it reported weights that are not finite, and the "
                              "processor finds none; the device is not to be trusted", me->gpu->number,
                              me->gpu->info.name);
            lose(en, &u->err);
        }
    }
    sl_engine_pass(en, u);
}

void *sl_engine_device_thread(void *arg)
{
    struct sl_compute *me = arg;
    struct sl_engine *en = me->en;
    struct sl_error err = {0, ""};
    unsigned oldest = 0, busy = 0;
    int rc = sl_gpu_stage_open(me->gpu, en->slots, en->slabs.slab_bytes, en->longest_row, &me->stage, &err);

    pthread_mutex_lock(&en->lock);
    if (rc < 0)
        lose(en, &err);
    en->stages_up++;
    pthread_cond_broadcast(&en->done);
    for (;;) {
        struct sl_engine_unit *u = NULL;

        if (busy < en->slots)
            u = sl_engine_take(en, busy == 0);
        if (u) {
            busy += begin(me, (oldest + busy) % en->slots, u);
        } else if (busy) {
            end(me, oldest);
            oldest = (oldest + 1) % en->slots;
            busy--;
            atomic_store_explicit(&me->cpu_ns, sl_thread_cpu_ns(), memory_order_relaxed);
        } else {
            break;
        }
    }
    pthread_mutex_unlock(&en->lock);
    sl_gpu_stage_close(&me->stage);
    return NULL;
}
