#include "worker/engine_parts.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MEM_USUAL (1024 * SL_MIB)
#define THREADS_MAX 1024u
#define THREAD_BYTES (2 * SL_MIB) /* of a job, for each thread that is not asked for */

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

void sl_task_free(struct sl_engine_task *t)
{
    if (!t)
        return;
    sl_hash_free(t->hash);
    sl_hash_free(t->sum);
    free(t);
}

static unsigned usable_cores(void)
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

/* What is read and written. */
static uint64_t job_bytes(const struct sl_plan *p)
{
    return p->src_bytes + p->tensor_bytes;
}

/* Threads beyond a job's units would wait from begin to end. */
static unsigned threads_for(const struct sl_plan *p)
{
    uint64_t units = job_bytes(p) / THREAD_BYTES + 1;

    return units < usable_cores() ? (unsigned)units : usable_cores();
}

static int allocate(struct sl_engine *en, struct sl_error *e)
{
    uint64_t least, row, mem = en->opts.mem_bytes ? en->opts.mem_bytes : MEM_USUAL;

    sl_unit_needs(&en->env, &least, &row);
    SL_TRY(sl_slabs_choose(mem, en->threads, en->threads * 3 * sizeof(float) * (row > 8192 ? row : 8192),
                           least, en->opts.slab_bytes, job_bytes(en->env.plan), &en->slabs, e));
    SL_TRY(sl_slabs_open(&en->slabs, e));
    en->env.slab_bytes = en->slabs.slab_bytes;
    en->units = calloc(en->slabs.n, sizeof *en->units);
    en->segments = calloc(en->env.plan->n_segments + 1, sizeof *en->segments);
    en->compute = calloc(en->threads, sizeof *en->compute);
    if (!en->units || !en->segments || !en->compute)
        return sl_fail(e, SL_EFAIL, "out of memory for %u units", en->slabs.n);
    for (uint32_t i = 0; i < en->env.plan->n_segments; i++)
        en->segments[i].fd = -1;
    for (unsigned i = 0; i < en->slabs.n; i++) {
        en->units[i].slab = en->slabs.base + i * en->slabs.slab_bytes;
        en->units[i].next = en->free_units;
        en->free_units = &en->units[i];
    }
    en->n_free = en->slabs.n;
    for (unsigned i = 0; i < en->threads; i++) {
        en->compute[i].en = en;
        SL_TRY(sl_scratch_open(&en->compute[i].scratch, row, e));
    }
    return 0;
}

static int start_threads(struct sl_engine *en, struct sl_error *e)
{
    int rc = 0;

    while (en->n_compute < en->threads &&
           !(rc = pthread_create(&en->compute[en->n_compute].thread, NULL, sl_engine_compute_thread,
                                 &en->compute[en->n_compute])))
        en->n_compute++;
    if (rc || (rc = pthread_create(&en->io_thread, NULL, sl_engine_io_thread, en)))
        return sl_fail(e, SL_EFAIL, "cannot start %u threads: %s", en->threads + 1, strerror(rc));
    pthread_mutex_lock(&en->lock);
    en->io_started = true;
    while (!en->io_up && !en->broken)
        pthread_cond_wait(&en->done, &en->lock);
    if (en->broken)
        rc = sl_fail(e, en->err.code, "%s", en->err.text);
    pthread_mutex_unlock(&en->lock);
    return rc;
}

int sl_engine_open(const struct sl_checkpoint *ck, const struct sl_plan *plan,
                   const struct sl_engine_opts *o, struct sl_engine **out, struct sl_error *e)
{
    struct sl_engine *en = calloc(1, sizeof *en);
    pthread_condattr_t attr;
    int rc;

    if (!en)
        return sl_fail(e, SL_EFAIL, "out of memory for the engine");
    en->opts = *o;
    en->env = (struct sl_unit_env){.ck = ck, .plan = plan, .backend = settled(o->backend),
                                   .round_bf16 = o->round_bf16, .weights = o->weights};
    if (!sl_backend_usable(en->env.backend)) {
        free(en);
        return sl_fail(e, SL_EUNSUPPORTED, "this machine cannot run the backend '%s'",
                       sl_backend_name(o->backend));
    }
    en->threads = o->threads ? o->threads : threads_for(plan);
    en->threads = en->threads > THREADS_MAX ? THREADS_MAX : en->threads;
    en->ready_tail = &en->ready;
    en->back_tail = &en->back;
    pthread_mutex_init(&en->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&en->work, &attr);
    pthread_cond_init(&en->done, &attr);
    pthread_condattr_destroy(&attr);
    rc = allocate(en, e);
    if (rc == 0)
        rc = start_threads(en, e);
    if (rc < 0) {
        sl_engine_close(en);
        return rc;
    }
    *out = en;
    return 0;
}

int sl_engine_submit(struct sl_engine *en, uint32_t task, struct sl_error *e)
{
    const struct sl_plan *p = en->env.plan;
    struct sl_engine_task *t;
    int rc = 0;

    if (task >= p->n_tasks || p->tasks[task].first_item > p->n_items ||
        p->tasks[task].n_items > p->n_items - p->tasks[task].first_item)
        return sl_fail(e, SL_EFAIL, "the plan has no task %u", task);
    t = calloc(1, sizeof *t);
    if (t) {
        t->hash = sl_hash_new(false);
        t->sum = sl_hash_new(false);
    }
    if (!t || !t->hash || !t->sum) {
        sl_task_free(t);
        return sl_fail(e, SL_EFAIL, "out of memory for task %u", task);
    }
    t->task = task;
    sl_cut_begin(&t->cut, &p->tasks[task]);
    for (uint32_t i = 0; i < p->tasks[task].n_items; i++)
        t->elems += p->items[p->tasks[task].first_item + i].elems;
    pthread_mutex_lock(&en->lock);
    if (en->broken) {
        rc = sl_fail(e, en->err.code, "%s", en->err.text);
        sl_task_free(t);
    } else {
        bool wake = !en->queue.head;

        sl_task_push(&en->queue, t);
        en->under_way++;
        if (wake)
            sl_io_wake(en->io);
    }
    pthread_mutex_unlock(&en->lock);
    return rc;
}

/* Sleeps until done is signalled. Returns false when the time is up. */
static bool sleep_until(struct sl_engine *en, uint64_t until)
{
    const struct timespec at = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};

    if (!until)
        return pthread_cond_wait(&en->done, &en->lock) == 0;
    return pthread_cond_timedwait(&en->done, &en->lock, &at) != ETIMEDOUT;
}

int sl_engine_wait(struct sl_engine *en, struct sl_task_result *r, int timeout_ms,
                   struct sl_error *e)
{
    uint64_t until = timeout_ms < 0 ? 0 : sl_now_ns() + (uint64_t)timeout_ms * 1000000u;
    struct sl_engine_task *t;
    int rc = 0;

    pthread_mutex_lock(&en->lock);
    while (!en->results.head && !en->broken && en->under_way && sleep_until(en, until))
        ;
    t = sl_task_pop(&en->results);
    if (!t && en->broken)
        rc = sl_fail(e, en->err.code, "%s", en->err.text);
    pthread_mutex_unlock(&en->lock);
    if (!t)
        return rc;
    r->task = t->task;
    r->code = t->code;
    r->checksum = t->code < 0 ? 0 : t->checksum;
    r->error = t->err;
    sl_task_free(t);
    return 1;
}

int sl_engine_sync(struct sl_engine *en, struct sl_error *e)
{
    int rc = 0;

    for (uint32_t i = 0; i < en->env.plan->n_segments; i++) {
        int err;

        if (!atomic_exchange(&en->segments[i].dirty, false))
            continue;
        err = sl_sys_fdatasync(en->opts.faults, en->segments[i].fd);
        if (err < 0 && rc == 0)
            rc = sl_fail(e, sl_sys_write_code(-err), "cannot sync '%s': %s; what was written since the "
                         "last sync is lost", en->opts.segment_paths[i], strerror(-err));
    }
    return rc;
}

void sl_engine_stats(const struct sl_engine *en, struct sl_engine_stats *out)
{
    *out = (struct sl_engine_stats){
        .read_bytes = atomic_load(&en->read_bytes),
        .written_bytes = atomic_load(&en->written_bytes),
        .source_bytes = atomic_load(&en->source_bytes),
        .read_wait_ns = atomic_load(&en->read_wait_ns),
        .slab_wait_ns = atomic_load(&en->slab_wait_ns),
        .compute_ns = atomic_load(&en->compute_ns),
        .io_name = en->io_name,
        .backend_name = sl_backend_name(en->env.backend),
        .direct = atomic_load(&en->direct),
        .threads = en->threads,
        .slab_bytes = en->slabs.slab_bytes,
        .slabs = en->slabs.n,
        .registered = en->registered,
    };
}

static void free_tasks(struct sl_task_list *l)
{
    struct sl_engine_task *t;

    while ((t = sl_task_pop(l)))
        sl_task_free(t);
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
    pthread_mutex_unlock(&en->lock);
    if (en->io_started)
        pthread_join(en->io_thread, NULL);
    for (unsigned i = 0; i < en->n_compute; i++)
        pthread_join(en->compute[i].thread, NULL);
    free_tasks(&en->queue);
    free_tasks(&en->current);
    free_tasks(&en->results);
    for (uint32_t i = 0; en->segments && i < en->env.plan->n_segments; i++)
        if (en->segments[i].fd >= 0)
            close(en->segments[i].fd);
    for (unsigned i = 0; en->compute && i < en->threads; i++)
        sl_scratch_close(&en->compute[i].scratch);
    free(en->compute);
    free(en->segments);
    free(en->units);
    sl_slabs_close(&en->slabs);
    pthread_cond_destroy(&en->work);
    pthread_cond_destroy(&en->done);
    pthread_mutex_destroy(&en->lock);
    free(en);
}
