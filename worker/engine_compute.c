/* The compute threads: convert a unit, and pass converted units on in the
 * task's order, hashing them on the way. */
#include "worker/engine_parts.h"

#include <string.h>
#include <time.h>

uint64_t sl_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void sl_gauge_add(struct sl_gauge *g, int change)
{
    uint64_t now = sl_now_ns();

    if (g->n)
        atomic_fetch_add_explicit(&g->area_ns, g->n * (now - g->since), memory_order_relaxed);
    g->since = now;
    g->n += (unsigned)change;
}

uint64_t sl_thread_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void sl_task_fail(struct sl_engine_task *t, uint64_t unit, int code, const struct sl_error *err)
{
    if (t->code < 0 && t->err_unit <= unit)
        return;
    t->code = code;
    t->err_unit = unit;
    t->err = *err;
    t->err.code = code;
}

void sl_engine_ready(struct sl_engine *en, struct sl_engine_unit *u)
{
    u->next = NULL;
    pthread_mutex_lock(&en->lock);
    *en->ready_tail = u;
    en->ready_tail = &u->next;
    sl_gauge_add(&en->ready_units, 1);
    pthread_cond_signal(&en->work);
    if (en->spare)
        pthread_cond_signal(&en->help);
    pthread_mutex_unlock(&en->lock);
}

struct sl_engine_unit *sl_engine_take(struct sl_engine *en, bool wait)
{
    struct sl_engine_unit *u;

    while (wait && !en->ready && !en->no_more) {
        uint64_t since = en->under_way ? sl_now_ns() : 0;

        pthread_cond_wait(&en->work, &en->lock);
        if (since)
            atomic_fetch_add(&en->read_wait_ns, sl_now_ns() - since);
    }
    u = en->ready;
    if (!u)
        return NULL;
    en->ready = u->next;
    sl_gauge_add(&en->ready_units, -1);
    if (!en->ready)
        en->ready_tail = &en->ready;
    return u;
}

/* Progress in the task's source bytes: its share by elements. Lock held. */
static void count(struct sl_engine *en, struct sl_engine_task *t, uint64_t elems)
{
    uint64_t src = en->env.plan->tasks[t->task].src_bytes, sum;

    t->elems_done += elems;
    sum = t->elems_done == t->elems
              ? src : (uint64_t)((double)src * ((double)t->elems_done / (double)t->elems));
    atomic_fetch_add(&en->members[t->member].source_bytes, sum - t->counted);
    t->counted = sum;
}

static struct sl_engine_unit *take_waiting(struct sl_engine_task *t)
{
    for (struct sl_engine_unit **at = &t->waiting; *at; at = &(*at)->next) {
        struct sl_engine_unit *u = *at;

        if (u->index == t->hashed) {
            *at = u->next;
            return u;
        }
    }
    return NULL;
}

/* The task's checksum is over its items' checksums (engine.h). */
static int hash_unit(struct sl_engine_task *t, const struct sl_engine_unit *u)
{
    uint64_t item;

    SL_TRY(sl_hash_update(t->hash, u->slab + u->u.out_at, u->u.out_bytes));
    if (!u->u.ends_item)
        return 0;
    SL_TRY(sl_hash_final(t->hash, &item, NULL));
    return sl_hash_update(t->sum, &item, sizeof item);
}

static bool all_zeros(const uint8_t *p, uint64_t n)
{
    return n && !p[0] && !memcmp(p, p + 1, n - 1);
}

/* In order. The lock is not held while hashing. */
void sl_engine_pass(struct sl_engine *en, struct sl_engine_unit *u)
{
    struct sl_engine_task *t = u->task;
    bool wake = false;

    u->next = t->waiting;
    t->waiting = u;
    if (t->chain_busy)
        return;
    t->chain_busy = true;
    while ((u = take_waiting(t))) {
        if (u->code < 0)
            sl_task_fail(t, u->index, u->code, &u->err);
        u->drop = t->code < 0;
        if (!u->drop) {
            int rc;

            pthread_mutex_unlock(&en->lock);
            rc = hash_unit(t, u);
            u->zeros = en->members[t->member].sparse && all_zeros(u->slab + u->u.out_at, u->u.out_bytes);
            pthread_mutex_lock(&en->lock);
            if (rc < 0) {
                u->code = sl_fail(&u->err, rc, "cannot hash the output");
                sl_task_fail(t, u->index, rc, &u->err);
                u->drop = true;
            } else {
                count(en, t, u->u.elems);
            }
        }
        t->hashed++;
        wake = wake || !en->back;
        u->next = NULL;
        *en->back_tail = u;
        en->back_tail = &u->next;
    }
    t->chain_busy = false;
    if (wake && en->io_up)
        sl_io_wake(en->io);
}

const struct sl_unit_env *sl_engine_turn(struct sl_engine *en, struct sl_engine_unit *u)
{
    const struct sl_unit_env *env = &en->members[u->task->member].env;

    if (env->group)
        sl_unit_turn(env, &u->u);
    return env;
}

bool sl_engine_wanted(struct sl_engine *en, struct sl_engine_unit *u)
{
    if (u->code == 0 && en->stop)
        u->code = sl_fail(&u->err, SL_EINTERRUPTED, "stopped");
    return u->code == 0 && u->task->code == 0;
}

uint64_t sl_engine_convert(struct sl_compute *me, struct sl_engine_unit *u)
{
    struct sl_engine *en = me->en;
    uint64_t ns = sl_now_ns();

    pthread_mutex_unlock(&en->lock);
    u->code = sl_unit_convert(sl_engine_turn(en, u), &u->u, u->slab, &me->scratch, &u->err);
    ns = sl_now_ns() - ns;
    atomic_fetch_add(&en->compute_ns, ns);
    pthread_mutex_lock(&en->lock);
    return ns;
}

void *sl_engine_compute_thread(void *arg)
{
    struct sl_compute *me = arg;
    struct sl_engine *en = me->en;
    struct sl_engine_unit *u;

    pthread_mutex_lock(&en->lock);
    while ((u = sl_engine_take(en, true))) {
        if (sl_engine_wanted(en, u))
            (void)sl_engine_convert(me, u);
        sl_engine_pass(en, u);
        atomic_store_explicit(&me->cpu_ns, sl_thread_cpu_ns(), memory_order_relaxed);
    }
    pthread_mutex_unlock(&en->lock);
    return NULL;
}
