#include "worker/gpu_stage.h"

#include "kernels/backend.h"

#include <string.h>

/* Slices of weights under one unit: more than this only with tiny matrices, which
 * the processor then takes. */
#define SLICES 16u
#define STATUS_BYTES 256u

static uint64_t up(uint64_t n)
{
    return (n + 255) / 256 * 256;
}

/* A row has 32 weights at least, and no source element has less than half a byte. */
static uint64_t means_bytes(uint64_t slab_bytes) { return up(slab_bytes / 16 * sizeof(float)); }

uint64_t sl_gpu_slot_bytes(uint64_t slab_bytes, uint64_t longest_row)
{
    return 2 * up(slab_bytes) + means_bytes(slab_bytes) + up(SLICES * longest_row * sizeof(float)) + STATUS_BYTES;
}

static int open_slot(struct sl_gpu_stage *s, struct sl_gpu_slot *slot, uint64_t bytes)
{
    const struct sl_gpu_api *api = s->gpu->api;
    void *p = NULL;
    int rc = api->stream_new(&slot->stream);

    if (rc == 0 && (rc = api->alloc(bytes, &p)) == 0)
        slot->device = p;
    if (rc == 0 && (rc = api->host_alloc(STATUS_BYTES, &p)) == 0)
        slot->status = p;
    if (rc == 0 && s->w_floats && (rc = api->host_alloc(s->w_floats * sizeof(float), &p)) == 0)
        slot->weights = p;
    return rc;
}

int sl_gpu_stage_open(const struct sl_gpu_device *gpu, unsigned n, uint64_t slab_bytes, uint64_t longest_row,
                      struct sl_gpu_stage *out, struct sl_error *e)
{
    int rc = gpu->api->use(gpu->number);

    memset(out, 0, sizeof *out);
    out->gpu = gpu;
    out->slab_bytes = up(slab_bytes);
    out->w_floats = SLICES * longest_row;
    out->n_slots = n < SL_GPU_SLOTS_MAX ? n : SL_GPU_SLOTS_MAX;
    for (unsigned i = 0; i < out->n_slots && rc == 0; i++)
        rc = open_slot(out, &out->slot[i], sl_gpu_slot_bytes(slab_bytes, longest_row));
    return rc ? sl_gpu_fail(gpu, rc, "allocating its buffers", e) : 0;
}

void sl_gpu_stage_close(struct sl_gpu_stage *s)
{
    const struct sl_gpu_api *api = s->gpu ? s->gpu->api : NULL;

    for (unsigned i = 0; i < s->n_slots; i++) {
        struct sl_gpu_slot *slot = &s->slot[i];

        if (slot->stream) { /* the device no longer writes to the slab after that */
            (void)api->wait(slot->stream);
            api->stream_free(slot->stream);
        }
        if (slot->device)
            api->release(slot->device);
        if (slot->weights)
            api->host_release(slot->weights);
        if (slot->status)
            api->host_release(slot->status);
    }
    memset(s, 0, sizeof *s);
}

/* The unit's runs, as offsets in the slab; [*lo, *hi): what of the slab they take. */
static void describe_runs(const struct sl_unit_env *env, const struct sl_unit *u, const struct sl_source *src,
                          const uint8_t *slab, struct sl_gpu_work *k, uint64_t *lo, uint64_t *hi)
{
    uint64_t end = 0;

    *lo = UINT64_MAX;
    *hi = 0;
    for (uint32_t i = 0; i < u->n_runs; i++) {
        const struct sl_unit_run *r = &u->run[i];
        const struct sl_model_src *ms = &env->plan->model->src[r->src];
        const struct sl_dtype_info *d = sl_dtype_info((int)ms->dtype);
        uint64_t stop = r->at + r->elems / d->block * d->bytes;

        end += r->elems;
        k->run[i] = (struct sl_gpu_run){
            .data = r->at, .scale = UINT64_MAX, .end = end, .first = src[i].first, .cols = src[i].cols,
            .scale_row0 = src[i].scale_row0, .scale_cols = src[i].scale_cols,
            .block_rows = src[i].block_rows, .block_cols = src[i].block_cols};
        if (src[i].scale) {
            k->run[i].scale = (uint64_t)((const uint8_t *)(const void *)src[i].scale - slab);
            stop = k->run[i].scale + r->n_scales * sizeof(float);
        }
        *lo = r->at < *lo ? r->at : *lo;
        *hi = stop > *hi ? stop : *hi;
    }
    k->n_runs = u->n_runs;
}

/* Fills in all but pointers. Returns whether a device can make this unit. */
static bool describe(const struct sl_unit_env *env, const struct sl_unit *u, struct sl_gpu_work *k)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[u->tensor];
    const struct sl_out_tensor *t = pt->t;
    uint64_t block = sl_type_info(pt->type)->block, cols;

    if (u->raw || u->mode == SL_UNIT_VALUES || u->mode == SL_UNIT_IDS || u->mode == SL_UNIT_PRODUCT ||
        u->n_runs == 0 || t->change)
        return false;
    *k = (struct sl_gpu_work){.type = pt->type, .dtype = (int)env->plan->model->src[u->run[0].src].dtype,
                              .weighted = u->weighted && block > 1 && pt->type != SL_TYPE_Q8_0, .round = u->round,
                              .elems = u->elems, .elem0 = u->elem0, .row = t->ne[0],
                              .matrix = t->n_dims > 1 ? t->ne[0] * t->ne[1] : t->ne[0]};
    if (!sl_gpu_takes(k->type, k->dtype) || (sl_needs_weights(k->type) && !k->weighted))
        return false;
    for (uint32_t i = 0; i < u->n_runs; i++)
        if ((int)env->plan->model->src[u->run[i].src].dtype != k->dtype)
            return false;
    if (k->dtype == SL_DTYPE_F4 && u->mode != SL_UNIT_IN_ORDER)
        return false;
    switch (u->mode) {
    case SL_UNIT_IN_ORDER:
        for (uint32_t i = 0; i < u->n_runs; i++)
            if (u->run[i].elems % block)
                return false;
        k->order = SL_GPU_IN_ORDER;
        return true;
    case SL_UNIT_PERMUTED:
        cols = t->n_dims == 1 ? 1 : env->plan->model->src[u->run[0].src].cols;
        k->order = SL_GPU_PAIRED;
        k->cols = cols;
        k->pair_rows = t->elems / cols / t->heads;
        return cols % block == 0;
    case SL_UNIT_VIEWED:
        k->order = SL_GPU_VIEWED;
        k->view_run = t->view->part[0].run;
        memcpy(k->view_n, t->view->part[0].n, sizeof k->view_n);
        memcpy(k->view_step, t->view->part[0].step, sizeof k->view_step);
        return k->view_run % (block < SL_GPU_LOAD ? block : SL_GPU_LOAD) == 0;
    default:
        k->order = SL_GPU_COLUMNS;
        k->height = t->nope;
        k->source_width = env->plan->model->src[u->run[0].src].cols;
        k->width = u->mode == SL_UNIT_COLUMNS_K ? u->n_cols : t->lora;
        return t->nope % block == 0;
    }
}

/* Column weights of every slice that the unit lies in, to the slot's pinned memory.
 * Returns their number, 0 when they are too many. */
static int load_weights(struct sl_gpu_stage *s, struct sl_gpu_slot *slot, const struct sl_unit_env *env,
                        const struct sl_unit *u, struct sl_gpu_work *k, uint64_t *floats, struct sl_error *e)
{
    uint64_t last = (k->elem0 + k->elems - 1) / k->matrix;

    k->slice0 = k->elem0 / k->matrix;
    *floats = (last - k->slice0 + 1) * k->row;
    if (*floats > s->w_floats)
        return 0;
    for (uint64_t i = k->slice0; i <= last; i++)
        SL_TRY(env->weights.load(env->weights.user, u->tensor, i, slot->weights + (i - k->slice0) * k->row, e));
    return 1;
}

int sl_gpu_stage_begin(struct sl_gpu_stage *s, unsigned n, const struct sl_unit_env *env, struct sl_unit *u,
                       uint8_t *slab, struct sl_error *e)
{
    const struct sl_gpu_api *api = s->gpu->api;
    struct sl_gpu_slot *slot = &s->slot[n];
    struct sl_source src[SL_UNIT_RUNS];
    uint8_t *at = slot->device;
    uint64_t lo, hi, floats = 0;
    struct sl_gpu_work k;
    int rc;

    if (!describe(env, u, &k))
        return 0;
    SL_TRY(sl_unit_sources(env, u, slab, src, e));
    describe_runs(env, u, src, slab, &k, &lo, &hi);
    if (k.weighted && (rc = load_weights(s, slot, env, u, &k, &floats, e)) <= 0)
        return rc;
    k.in = at;
    k.out = at += s->slab_bytes;
    k.means = (float *)(void *)(at += s->slab_bytes);
    k.w = (const float *)(const void *)(at += means_bytes(s->slab_bytes));
    k.status = (uint32_t *)(void *)(at + up(s->w_floats * sizeof(float)));
    if (sl_gpu_grid_of(k.type) != SL_GRID_COUNT)
        k.grid = s->gpu->grid[sl_gpu_grid_of(k.type)];
    *slot->status = 0;
    rc = api->copy_in(slot->stream, slot->device + lo, slab + lo, hi - lo);
    if (rc == 0)
        rc = api->copy_in(slot->stream, k.status, slot->status, sizeof *slot->status);
    if (rc == 0 && floats)
        rc = api->copy_in(slot->stream, (void *)(uintptr_t)k.w, slot->weights, floats * sizeof(float));
    if (rc == 0)
        rc = api->run(slot->stream, &k);
    if (rc == 0)
        rc = api->copy_out(slot->stream, slab + u->out_at, k.out, u->out_bytes);
    if (rc == 0)
        rc = api->copy_out(slot->stream, slot->status, k.status, sizeof *slot->status);
    if (rc) {
        (void)api->wait(slot->stream); /* nothing may write to the slab any more */
        return sl_gpu_fail(s->gpu, rc, "starting work", e);
    }
    return 1;
}

int sl_gpu_stage_end(struct sl_gpu_stage *s, unsigned n, const struct sl_unit_env *env, const struct sl_unit *u,
                     const uint8_t *slab, struct sl_error *e)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[u->tensor];
    int rc = s->gpu->api->wait(s->slot[n].stream);
    uint64_t bad;

    if (rc)
        return sl_gpu_fail(s->gpu, rc, "converting", e);
    if (*s->slot[n].status || sl_check_scales(pt->type, slab + u->out_at, u->elems, &bad) < 0)
        return 1;
    return 0;
}
