/* Cores beside GPUs. A core is slow: a unit in its hands holds up its task's checksum, the slabs
 * behind it and, at a job's end, everybody. So a core takes a unit only where the devices would need
 * longer for what lies before them than the core for this one unit, both as measured at work: then
 * it is done sooner, and nobody waits for it. */
#include "worker/engine_parts.h"

#include "kernels/kernels.h"

#define SAMPLE 8192u /* weights that a core's pace is first measured with */

struct sl_pace *sl_engine_pace(struct sl_engine *en, const struct sl_engine_unit *u)
{
    int type = en->members[u->task->member].env.plan->tensors[u->u.tensor].type;

    return type >= 0 && type < SL_PACES ? &en->pace[u->u.weighted][type] : NULL;
}

/* Whether a core is to take a unit when `backlog` of them are at the devices or wait for them. */
static bool cores_help(const struct sl_pace *p, unsigned backlog, unsigned device_threads)
{
    return p->device > 0 && p->core > 0 && (float)backlog * p->device > p->core * (float)device_threads;
}

/* Nanoseconds an element, by weights that look like a model's; 0: not to be had. */
static float sample(enum sl_backend backend, int type, bool weighted)
{
    float x[SAMPLE], w[SAMPLE];
    uint8_t out[4 * SAMPLE];
    uint64_t since, bad, s = 1;

    for (unsigned i = 0; i < SAMPLE; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        x[i] = ((float)(s >> 40) + (float)(s >> 16 & 0xffffff) - 0x1p24f) * 0x1p-30f;
        w[i] = 1.f + (float)(s >> 60);
    }
    since = sl_now_ns();
    if (sl_quantize_on(backend, type, x, weighted ? w : NULL, SAMPLE, SAMPLE, out, &bad) < 0)
        return 0;
    return (float)(sl_now_ns() - since + 1) / SAMPLE;
}

/* The next unit if a core is to take it; *look: whether to ask again at once. Lock held. */
static struct sl_engine_unit *take(struct sl_engine *en, bool *look)
{
    struct sl_engine_unit *u = en->ready;
    struct sl_pace *p = u && en->lost.code == 0 ? sl_engine_pace(en, u) : NULL;

    *look = false;
    if (!p || p->device <= 0 || p->measuring)
        return NULL;
    if (p->core <= 0) {
        int type = en->members[u->task->member].env.plan->tensors[u->u.tensor].type;
        bool weighted = u->u.weighted;
        float ns;

        p->measuring = true;
        pthread_mutex_unlock(&en->lock);
        ns = sample(en->env.backend, type, weighted);
        pthread_mutex_lock(&en->lock);
        p->measuring = ns <= 0; /* for good, then */
        p->core = ns;
        *look = true;
        return NULL;
    }
    return cores_help(p, en->ready_units.n + en->in_slots, en->threads) ? sl_engine_take(en, false) : NULL;
}

void *sl_engine_spare_thread(void *arg)
{
    struct sl_compute *me = arg;
    struct sl_engine *en = me->en;

    pthread_mutex_lock(&en->lock);
    while (!en->no_more) {
        bool look;
        struct sl_engine_unit *u = take(en, &look);

        if (!u) {
            if (!look)
                pthread_cond_wait(&en->help, &en->lock);
            continue;
        }
        if (sl_engine_wanted(en, u)) {
            struct sl_pace *p = sl_engine_pace(en, u);
            uint64_t ns = sl_engine_convert(me, u);

            atomic_fetch_add(&en->core_units, 1);
            if (p && u->u.elems)
                p->core = 0.8f * p->core + 0.2f * (float)ns / (float)u->u.elems;
        }
        sl_engine_pass(en, u);
        atomic_store_explicit(&me->cpu_ns, sl_thread_cpu_ns(), memory_order_relaxed);
    }
    pthread_mutex_unlock(&en->lock);
    return NULL;
}
