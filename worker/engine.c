#include "worker/deadline.h"
#include "worker/engine_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 1024u
#define THREAD_BYTES (2 * SL_MIB) /* of a job, for each thread that is not asked for */
#define THREAD_TAKES (128u << 10) /* a compute thread's stack: iq2_xxs takes most */

void sl_task_push(struct sl_task_list *l, struct sl_engine_task *t)
{
    t->next = NULL;
    if (l->head)
        l->last->next = t;
    else
        l->head = t;
    l->last = t;
}

struct sl_engine_task *sl_task_pop(struct sl_task_list *l)
{
    struct sl_engine_task *t = l->head;

    if (t)
        l->head = t->next;
    return t;
}

void sl_task_remove(struct sl_task_list *l, struct sl_engine_task *t)
{
    struct sl_engine_task *before = NULL;

    for (struct sl_engine_task *i = l->head; i && i != t; i = i->next)
        before = i;
    if (before)
        before->next = t->next;
    else
        l->head = t->next;
    if (l->last == t)
        l->last = before;
}

static void free_task(struct sl_engine_task *t)
{
    if (!t)
        return;
    sl_hash_free(t->hash);
    sl_hash_free(t->sum);
    free(t);
}

unsigned sl_usable_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;

    return n > 0 ? (unsigned)n : 1;
}

/* The widths' names are told to people, so AUTO is settled here. */
static enum sl_backend settled(enum sl_backend b)
{
    if (b != SL_BACKEND_AUTO)
        return b;
    for (b = SL_BACKEND_AVX512; b > SL_BACKEND_SCALAR && !sl_backend_usable(b); b--)
        ;
    return b;
}

static int open_member(struct sl_engine *en, unsigned i, struct sl_error *e)
{
    struct sl_member *m = &en->members[i];

    m->env.slab_bytes = en->slabs.slab_bytes;
    m->env.group = en->n_members > 1 ? en->members : NULL;
    m->env.n_group = en->n_members;
    m->segments = calloc(m->env.plan->n_segments + 1, sizeof *m->segments);
    if (!m->segments)
        return sl_fail(e, SL_EFAIL, "out of memory for %u segments", m->env.plan->n_segments);
    for (uint32_t k = 0; k < m->env.plan->n_segments; k++)
        m->segments[k].fd = m->segments[k].direct = -1;
    return 0;
}

/* What is read and written. */
static uint64_t job_bytes(const struct sl_plan *p)
{
    return p->src_bytes + p->tensor_bytes;
}

/* Threads beyond a job's units would wait from begin to end. */
static unsigned threads_for(const struct sl_plan *p)
{
    uint64_t units = job_bytes(p) / THREAD_BYTES + 1;

    return units < sl_usable_cores() ? (unsigned)units : sl_usable_cores();
}

static int allocate(struct sl_engine *en, struct sl_error *e)
{
    uint64_t bytes = 0, weights = 0;
    struct sl_needs all = {0};

    for (unsigned i = 0; i < en->n_members; i++) {
        struct sl_needs n;

        bytes += job_bytes(en->members[i].env.plan);
        sl_unit_needs(&en->members[i].env, &n);
        weights += en->members[i].env.weights.column_bytes * n.row + en->members[i].env.weights.bytes;
        all.slab = n.slab > all.slab ? n.slab : all.slab;
        all.row = n.row > all.row ? n.row : all.row;
        all.band = n.band > all.band ? n.band : all.band;
    }
    en->longest_row = all.row;
    SL_TRY(sl_slabs_choose(en->opts.mem_bytes, en->devices.n ? en->threads * en->slots : en->threads,
                           (en->threads + en->spare) * sl_scratch_bytes(&all) + weights, all.slab, all.band != 0,
                           en->opts.beside_bytes + (uint64_t)(en->threads + en->spare) * THREAD_TAKES, en->opts.slab_bytes,
                           bytes, &en->slabs, e));
    SL_TRY(sl_slabs_open(&en->slabs, e));
    for (unsigned i = 0; i < en->n_members; i++)
        SL_TRY(open_member(en, i, e));
    en->env = en->members[0].env;
    SL_TRY(sl_engine_fit_devices(en, e));
    en->units = calloc(en->slabs.n, sizeof *en->units);
    en->compute = calloc(en->threads + en->spare, sizeof *en->compute);
    if (!en->units || !en->compute)
        return sl_fail(e, SL_EFAIL, "out of memory for %u units", en->slabs.n);
    for (unsigned i = 0; i < en->slabs.n; i++) {
        en->units[i].slab = en->slabs.base + i * en->slabs.slab_bytes;
        en->units[i].next = en->free_units;
        en->free_units = &en->units[i];
    }
    en->n_free = en->slabs.n;
    for (unsigned i = 0; i < en->threads + en->spare; i++) {
        en->compute[i].en = en;
        en->compute[i].gpu = en->devices.n && i < en->threads ? &en->gpu[i % en->devices.n] : NULL;
        SL_TRY(sl_scratch_open(&en->compute[i].scratch, &all, e));
    }
    return 0;
}

static int start_threads(struct sl_engine *en, struct sl_error *e)
{
    int rc = 0;

    while (en->n_compute < en->threads + en->spare &&
           !(rc = pthread_create(&en->compute[en->n_compute].thread, NULL,
                                 !en->devices.n                 ? sl_engine_compute_thread
                                 : en->n_compute < en->threads ? sl_engine_device_thread
                                                               : sl_engine_spare_thread,
                                 &en->compute[en->n_compute])))
        en->n_compute++;
    if (rc || (rc = pthread_create(&en->io_thread, NULL, sl_engine_io_thread, en)))
        return sl_fail_thread(e, rc);
    pthread_mutex_lock(&en->lock);
    en->io_started = true;
    while ((!en->io_up || (en->devices.n && en->stages_up < en->threads)) && !en->broken)
        pthread_cond_wait(&en->done, &en->lock);
    if (en->broken)
        rc = sl_fail(e, en->err.code, "%s", en->err.text);
    else if (en->lost.code < 0)
        rc = sl_fail(e, en->lost.code, "%s", en->lost.text);
    pthread_mutex_unlock(&en->lock);
    return rc;
}

static bool same_sources(const struct sl_model *a, const struct sl_model *b)
{
    if (a->n_src != b->n_src || a->n_tensors != b->n_tensors)
        return false;
    for (uint32_t i = 0; i < a->n_src; i++) {
        const struct sl_model_src *x = &a->src[i], *y = &b->src[i];

        if (x->tensor != y->tensor || x->dtype != y->dtype || x->rows != y->rows || x->cols != y->cols ||
            x->scale.tensor != y->scale.tensor)
            return false;
    }
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        const struct sl_out_tensor *x = &a->tensors[i], *y = &b->tensors[i];

        if (x->transform != y->transform || x->first_src != y->first_src || x->n_src != y->n_src ||
            x->elems != y->elems || x->ne[0] != y->ne[0] || x->heads != y->heads || x->nope != y->nope ||
            x->v_dim != y->v_dim || x->lora != y->lora || x->col0 != y->col0)
            return false;
    }
    return true;
}

bool sl_engine_same_cuts(const struct sl_plan *a, const struct sl_plan *b)
{
    if (strcmp(a->parts.source, b->parts.source) != 0 || a->n_items != b->n_items ||
        a->n_tasks != b->n_tasks || !same_sources(a->model, b->model))
        return false;
    for (uint32_t i = 0; i < a->n_items; i++)
        if (a->items[i].tensor != b->items[i].tensor || a->items[i].elem0 != b->items[i].elem0 ||
            a->items[i].elems != b->items[i].elems)
            return false;
    for (uint32_t i = 0; i < a->n_tasks; i++)
        if (a->tasks[i].first_item != b->tasks[i].first_item || a->tasks[i].n_items != b->tasks[i].n_items)
            return false;
    return true;
}

int sl_engine_open(const struct sl_checkpoint *ck, const struct sl_plan *const *plans,
                   const struct sl_engine_opts *o, unsigned n, struct sl_engine **out, struct sl_error *e)
{
    uint64_t since = sl_now_ns();
    struct sl_engine *en;
    int rc;

    if (n == 0 || n > SL_ENGINE_MEMBERS)
        return sl_fail(e, SL_EUSAGE, "%u recipes at once; 1 to %d are expected", n, SL_ENGINE_MEMBERS);
    for (unsigned i = 1; i < n; i++)
        if (!sl_engine_same_cuts(plans[0], plans[i]))
            return sl_fail(e, SL_EUSAGE, "plans that are cut differently cannot share what is read");
    en = calloc(1, sizeof *en);
    if (!en || !(en->members = calloc(n, sizeof *en->members))) {
        free(en);
        return sl_fail(e, SL_EFAIL, "out of memory for the engine");
    }
    en->opts = *o;
    if (!en->opts.mem_bytes)
        en->opts.mem_bytes = SL_MEM_USUAL;
    en->n_members = n;
    for (unsigned i = 0; i < n; i++) {
        en->members[i].env = (struct sl_unit_env){.ck = ck, .plan = plans[i], .backend = settled(o->backend),
                                                  .round_bf16 = o[i].round_bf16, .weights = o[i].weights};
        en->members[i].segment_paths = o[i].segment_paths;
        en->members[i].sparse = o[i].sparse;
    }
    en->env = en->members[0].env;
    if (!sl_backend_usable(en->env.backend)) {
        free(en->members);
        free(en);
        return sl_fail(e, SL_EUNSUPPORTED, "this machine cannot run the backend '%s'",
                       sl_backend_name(o->backend));
    }
    en->threads = o->threads ? o->threads : threads_for(plans[0]);
    en->threads = en->threads > THREADS_MAX ? THREADS_MAX : en->threads;
    en->ready_tail = &en->ready;
    en->back_tail = &en->back;
    pthread_mutex_init(&en->lock, NULL);
    sl_cond_init(&en->work);
    sl_cond_init(&en->done);
    sl_cond_init(&en->help);
    rc = sl_engine_open_devices(en, e);
    if (rc == 0)
        rc = allocate(en, e);
    if (rc == 0)
        rc = start_threads(en, e);
    if (rc < 0) {
        sl_engine_close(en);
        return rc;
    }
    en->open_ns = sl_now_ns() - since;
    *out = en;
    return 0;
}

static struct sl_engine_task *new_task(struct sl_engine *en, uint32_t task, uint32_t member)
{
    const struct sl_plan *p = en->env.plan;
    struct sl_engine_task *t = calloc(1, sizeof *t);

    if (t) {
        t->hash = sl_hash_new(false);
        t->sum = sl_hash_new(false);
    }
    if (!t || !t->hash || !t->sum) {
        free_task(t);
        return NULL;
    }
    t->task = task;
    t->member = member;
    sl_cut_begin(&t->cut, &p->tasks[task]);
    for (uint32_t i = 0; i < p->tasks[task].n_items; i++)
        t->elems += p->items[p->tasks[task].first_item + i].elems;
    return t;
}

static void free_twins(struct sl_engine_task *t)
{
    while (t) {
        struct sl_engine_task *next = t->twin;

        free_task(t);
        t = next;
    }
}

int sl_engine_submit(struct sl_engine *en, uint32_t task, uint64_t members, struct sl_error *e)
{
    struct sl_engine_task *first = NULL, **end = &first;
    unsigned n = 0;
    int rc = 0;

    if (task >= en->env.plan->n_tasks)
        return sl_fail(e, SL_EFAIL, "the plan has no task %u", task);
    for (uint32_t m = 0; m < en->n_members; m++) {
        if (!(members >> m & 1))
            continue;
        *end = new_task(en, task, m);
        if (!*end) {
            free_twins(first);
            return sl_fail(e, SL_EFAIL, "out of memory for task %u", task);
        }
        end = &(*end)->twin;
        n++;
    }
    if (!first)
        return sl_fail(e, SL_EFAIL, "task %u for nobody", task);
    pthread_mutex_lock(&en->lock);
    if (en->broken) {
        rc = sl_fail(e, en->err.code, "%s", en->err.text);
        free_twins(first);
    } else {
        bool wake = !en->queue.head;

        sl_task_push(&en->queue, first);
        en->under_way += n;
        if (wake)
            sl_io_wake(en->io);
    }
    pthread_mutex_unlock(&en->lock);
    return rc;
}

/* Sleeps until done is signalled; until NULL: however long. Returns false when the time is up. */
static bool sleep_until(struct sl_engine *en, const struct timespec *until)
{
    if (!until)
        return pthread_cond_wait(&en->done, &en->lock) == 0;
    return pthread_cond_timedwait(&en->done, &en->lock, until) != ETIMEDOUT;
}

int sl_engine_wait(struct sl_engine *en, struct sl_task_result *r, int timeout_ms,
                   struct sl_error *e)
{
    const struct timespec until = sl_deadline(timeout_ms < 0 ? 0 : (uint32_t)timeout_ms);
    struct sl_engine_task *t;
    int rc = 0;

    pthread_mutex_lock(&en->lock);
    while (!en->results.head && !en->broken && en->under_way && sleep_until(en, timeout_ms < 0 ? NULL : &until))
        ;
    t = sl_task_pop(&en->results);
    if (!t && en->broken)
        rc = sl_fail(e, en->err.code, "%s", en->err.text);
    pthread_mutex_unlock(&en->lock);
    if (!t)
        return rc;
    r->task = t->task;
    r->member = t->member;
    r->code = t->code;
    r->checksum = t->code < 0 ? 0 : t->checksum;
    r->error = t->err;
    free_task(t);
    return 1;
}

int sl_engine_sync(struct sl_engine *en, uint32_t member, struct sl_error *e)
{
    uint64_t since = sl_now_ns();
    struct sl_member *m = &en->members[member];
    int rc = 0;

    for (uint32_t i = 0; i < m->env.plan->n_segments; i++) {
        int err;

        if (!atomic_exchange(&m->segments[i].dirty, false))
            continue;
        err = sl_sys_fdatasync(en->opts.faults, m->segments[i].fd);
        /* What the cache still shows is not on the disk, and some filesystems (ext4, where space
         * was reserved) lose for good what is written over such pages again. */
        if (err < 0)
            (void)posix_fadvise(m->segments[i].fd, 0, 0, POSIX_FADV_DONTNEED);
        if (err < 0 && rc == 0)
            rc = sl_fail(e, sl_write_code(-err), "cannot sync '%s': %s; what was written since the "
                         "last sync is lost", m->segment_paths[i], strerror(-err));
    }
    atomic_fetch_add(&en->sync_ns, sl_now_ns() - since);
    atomic_fetch_add(&en->syncs, 1);
    return rc;
}

uint64_t sl_engine_member_bytes(const struct sl_engine *en, uint32_t member)
{
    return atomic_load(&en->members[member].source_bytes);
}

static uint64_t all_bytes(const struct sl_engine *en)
{
    uint64_t sum = 0;

    for (uint32_t m = 0; m < en->n_members; m++)
        sum += sl_engine_member_bytes(en, m);
    return sum;
}

void sl_engine_stats(const struct sl_engine *en, struct sl_engine_stats *out)
{
    *out = (struct sl_engine_stats){
        .read_bytes = atomic_load(&en->read_bytes),
        .written_bytes = atomic_load(&en->written_bytes),
        .hole_bytes = atomic_load(&en->hole_bytes),
        .source_bytes = all_bytes(en),
        .read_wait_ns = atomic_load(&en->read_wait_ns),
        .slab_wait_ns = atomic_load(&en->slab_wait_ns),
        .compute_ns = atomic_load(&en->compute_ns),
        .io_name = en->io_name,
        .reading_ns = atomic_load(&en->reading.area_ns),
        .ready_ns = atomic_load(&en->ready_units.area_ns),
        .writing_ns = atomic_load(&en->writing.area_ns),
        .sync_ns = atomic_load(&en->sync_ns),
        .syncs = atomic_load(&en->syncs),
        .direct = atomic_load(&en->direct),
        .direct_out = atomic_load(&en->direct_out),
        .threads = en->threads,
        .slab_bytes = en->slabs.slab_bytes,
        .slabs = en->slabs.n,
        .registered = en->registered,
        .unpinned = en->unpinned,
        .vram_bytes = en->vram_bytes,
        .open_ns = en->open_ns,
        .device_units = atomic_load(&en->device_units),
        .core_units = atomic_load(&en->core_units),
    };
    snprintf(out->backend_name, sizeof out->backend_name, "%s", en->devices.n ? en->devices.label : sl_backend_name(en->env.backend));
    for (unsigned i = 0; i < en->threads + en->spare; i++)
        out->compute_cpu_ns += atomic_load(&en->compute[i].cpu_ns);
}

void sl_engine_add_stages(const struct sl_engine_stats *st, uint64_t ms[SL_STAGES])
{
    const uint64_t ns[SL_STAGES] = {st->compute_ns, st->read_wait_ns, st->slab_wait_ns, st->sync_ns,
                                    st->reading_ns, st->ready_ns, st->writing_ns};

    for (unsigned i = 0; i < SL_STAGES; i++)
        ms[i] += ns[i] / 1000000;
}

static void free_tasks(struct sl_task_list *l)
{
    struct sl_engine_task *t;

    while ((t = sl_task_pop(l)))
        free_task(t);
}

void sl_engine_close(struct sl_engine *en)
{
    if (!en)
        return;
    pthread_mutex_lock(&en->lock);
    en->stop = true;
    if (!en->io_started)
        en->no_more = true;
    if (en->io_up)
        sl_io_wake(en->io);
    pthread_cond_broadcast(&en->work);
    pthread_cond_broadcast(&en->help);
    pthread_mutex_unlock(&en->lock);
    if (en->io_started)
        pthread_join(en->io_thread, NULL);
    for (unsigned i = 0; i < en->n_compute; i++)
        pthread_join(en->compute[i].thread, NULL);
    for (struct sl_engine_task *t = en->queue.head; t; t = t->next)
        free_twins(t->twin);
    free_tasks(&en->queue);
    free_tasks(&en->current);
    free_tasks(&en->results);
    for (unsigned m = 0; m < en->n_members; m++) {
        struct sl_segment *seg = en->members[m].segments;

        for (uint32_t i = 0; seg && i < en->members[m].env.plan->n_segments; i++) {
            if (seg[i].fd >= 0)
                close(seg[i].fd);
            if (seg[i].direct >= 0)
                close(seg[i].direct);
        }
        free(seg);
    }
    for (unsigned i = 0; en->compute && i < en->threads + en->spare; i++)
        sl_scratch_close(&en->compute[i].scratch);
    free(en->compute);
    free(en->members);
    free(en->units);
    sl_engine_close_devices(en);
    sl_slabs_close(&en->slabs);
    pthread_cond_destroy(&en->work);
    pthread_cond_destroy(&en->help);
    pthread_cond_destroy(&en->done);
    pthread_mutex_destroy(&en->lock);
    free(en);
}
