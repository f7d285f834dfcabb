/* Holding a plan item against its tensor, its sources and their files before a
 * byte is read: what units are cut by afterwards is within bounds. */
#include "worker/unit.h"

#include "proto/cursor.h"

static int bad_plan(const struct sl_out_tensor *t, const char *what, struct sl_error *e)
{
    return sl_fail(e, SL_EFAIL, "tensor '%s': the plan does not fit its model (%s); make the plan again",
                   t->name, what);
}

static int check_extent(const struct sl_checkpoint *ck, uint32_t tensor, uint64_t rows,
                        uint64_t cols, struct sl_error *e)
{
    const struct sl_src_tensor *st = &ck->tensors[tensor];
    const struct sl_dtype_info *d = sl_dtype_info((int)st->dtype);
    uint64_t n, bytes, end;

    if (!d || __builtin_mul_overflow(rows, cols, &n) || n != st->elems || cols % d->block || !n ||
        __builtin_mul_overflow(n / d->block, (uint64_t)d->bytes, &bytes) || bytes != st->bytes ||
        st->file >= ck->n_files || __builtin_add_overflow(st->offset, bytes, &end) ||
        end > ck->files[st->file].size)
        return sl_fail(e, SL_ESOURCE, "tensor '%s' does not lie in its file as its shape says", st->name);
    return 0;
}

/* Of integers. */
static int check_packing(const struct sl_checkpoint *ck, const struct sl_model_src *ms, const struct sl_out_tensor *t, struct sl_error *e)
{
    const struct sl_scale *sc = &ms->scale;
    uint64_t bits = sl_packed_bits(ms->dtype), in_word = bits ? 32 / bits : 1;

    if (!sc->zeros && !sc->order && sc->packing == SL_PACKED_ALONG)
        return 0;
    if (!bits || (bits == 2 && sc->packing != SL_PACKED_GPTQ) || sc->rows != ms->rows || sc->block_rows != 1 || (sc->packing != SL_PACKED_ALONG && (!sc->zeros || ms->rows % in_word || ms->cols % 2)) || sc->part_rows ||
        sc->zeros > ck->n_tensors || sc->order > ck->n_tensors)
        return bad_plan(t, "packing", e);
    if (sc->zeros)
        SL_TRY(check_extent(ck, sc->zeros - 1, sl_ceil_div_u64(sc->rows, in_word), sc->cols, e));
    return sc->order ? check_extent(ck, sc->order - 1, 1, ms->cols, e) : 0;
}

static int check_source(const struct sl_unit_env *env, const struct sl_model_src *ms,
                        const struct sl_out_tensor *t, struct sl_error *e)
{
    const struct sl_scale *sc = &ms->scale;
    const struct sl_src_tensor *st;

    if (ms->tensor >= env->ck->n_tensors)
        return bad_plan(t, "no source", e);
    st = &env->ck->tensors[ms->tensor];
    if (st->dtype != ms->dtype)
        return bad_plan(t, "dtype", e);
    SL_TRY(check_extent(env->ck, ms->tensor, ms->rows, ms->cols, e));
    if (sc->tensor == SL_NO_TENSOR)
        return 0;
    if (sc->tensor >= env->ck->n_tensors || !sc->block_rows || !sc->block_cols || (sc->part_rows && !sc->part_blocks))
        return bad_plan(t, "scales", e);
    SL_TRY(check_extent(env->ck, sc->tensor, sc->rows, sc->cols, e));
    SL_TRY(check_packing(env->ck, ms, t, e));
    if (sl_scale_row(sc, ms->rows - 1) >= sc->rows || (ms->cols - 1) / sc->block_cols >= sc->cols)
        return sl_fail(e, SL_ESOURCE, "tensor '%s' has fewer block scales ('%s') than blocks",
                       st->name, env->ck->tensors[sc->tensor].name);
    return 0;
}

/* Every run lies in the source. Where blocks span runs, an item is whole periods. */
static int check_view(const struct sl_out_tensor *t, const struct sl_model_src *ms, uint64_t block, uint64_t *head,
                      struct sl_error *e)
{
    const struct sl_view *v = t->view;
    uint64_t sum = 0;

    if (t->n_src != 1 || !v || v->n_parts < 1 || v->n_parts > SL_VIEW_PARTS)
        return bad_plan(t, "parts", e);
    for (uint32_t i = 0; i < v->n_parts; i++) {
        const struct sl_view_part *p = &v->part[i];
        uint64_t runs = p->run ? p->elems / p->run : 0, last = p->first, n = p->n[0] * p->n[1], k;

        if (!runs || p->elems % p->run || !p->n[0] || !p->n[1] || (n < runs && runs % n))
            return bad_plan(t, "runs", e);
        k = p->n[0] < runs ? p->n[0] : runs;
        last += (k - 1) * p->step[0];
        k = p->n[1] < runs / k ? p->n[1] : runs / k;
        last += (k - 1) * p->step[1] + ((n < runs ? runs / n : 1) - 1) * p->step[2] + p->run;
        if (last > ms->rows * ms->cols)
            return bad_plan(t, "runs beyond the source", e);
        if (p->run % block)
            *head = v->period;
        sum += p->elems;
    }
    return sum == t->elems && *head ? 0 : bad_plan(t, "runs", e);
}

/* The transform's shapes; block: of the output's type or the source's, the larger; *head: output elements that an item
 * may not cut (1: any). */
static int check_shape(const struct sl_unit_env *env, const struct sl_out_tensor *t, uint64_t block, uint64_t *head,
                       struct sl_error *e)
{
    const struct sl_model_src *ms = &env->plan->model->src[t->first_src];
    uint64_t cols = t->n_dims == 1 ? 1 : ms->cols, rows = t->elems / cols;
    uint64_t part = t->transform == SL_K_B ? t->nope : t->v_dim, n;

    *head = 1;
    if (t->transform == SL_COPY)
        return 0;
    if (t->transform == SL_VIEW)
        return check_view(t, ms, block, head, e);
    if (t->transform == SL_PRODUCT)
        return t->n_src == 2 ? 0 : bad_plan(t, "factors", e);
    if (t->transform == SL_FIRST)
        return t->n_src == 1 && t->elems <= ms->rows * ms->cols ? 0 : bad_plan(t, "elements", e);
    if (t->n_src != 1 || !t->heads)
        return bad_plan(t, "heads", e);
    if (t->transform == SL_IDS)
        return 0;
    if (t->transform == SL_PERMUTE) {
        if (t->elems != ms->rows * ms->cols || rows % t->heads || rows / t->heads % 2 ||
            (t->n_dims > 1 && t->ne[0] != ms->cols))
            return bad_plan(t, "rows of a head", e);
        *head = t->elems / t->heads;
        return 0;
    }
    if (t->lora > ms->cols || t->col0 > ms->cols - t->lora || (t->transform == SL_V_B && ms->cols != t->lora) ||
        __builtin_mul_overflow(t->nope + (uint64_t)t->v_dim, t->heads, &n) ||
        ms->rows != n || !part || __builtin_mul_overflow(part * t->heads, t->lora, &n) ||
        n != t->elems || t->ne[0] != (t->transform == SL_K_B ? t->nope : t->lora))
        return bad_plan(t, "key and value rows", e);
    if (t->transform == SL_K_B)
        *head = part * t->lora;
    return 0;
}

static int check_weights(const struct sl_unit_env *env, uint32_t tensor, struct sl_cut *c,
                         struct sl_error *e)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[tensor];
    const struct sl_out_tensor *t = pt->t;
    uint64_t slice = t->n_dims > 1 ? t->ne[0] * t->ne[1] : t->ne[0];

    c->weighted = env->weights.has && sl_type_info(pt->type)->block > 1
                  && env->weights.has(env->weights.user, tensor);
    if (!c->weighted)
        return 0;
    if (!slice || t->elems % slice)
        return bad_plan(t, "matrices", e);
    c->grain = t->ne[0];
    return 0;
}

int sl_cut_check(const struct sl_unit_env *env, struct sl_cut *c,
                 const struct sl_plan_item *it, struct sl_error *e)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[it->tensor];
    const struct sl_out_tensor *t = pt->t;
    const struct sl_type_info *ti = sl_type_info(pt->type);
    uint64_t head = 1, block = 1;

    if (!ti || it->elem0 > t->elems || it->elems > t->elems - it->elem0 || !t->ne[0] ||
        t->ne[0] % ti->block || sl_type_bytes(pt->type, t->elems) != pt->bytes ||
        pt->segment >= env->plan->n_segments)
        return bad_plan(t, "size", e);
    if (t->transform == SL_INLINE ? !t->values : !t->n_src ||
        t->first_src > env->plan->model->n_src ||
        t->n_src > env->plan->model->n_src - t->first_src)
        return bad_plan(t, "sources", e);
    c->per_src = t->n_src && t->transform != SL_PRODUCT ? t->elems / t->n_src : t->elems;
    for (uint32_t i = 0; i < t->n_src && t->transform != SL_INLINE; i++) {
        const struct sl_model_src *ms = &env->plan->model->src[t->first_src + i];

        SL_TRY(check_source(env, ms, t, e));
        if ((t->transform == SL_COPY || t->transform == SL_IDS || t->transform == SL_PRODUCT) && ms->rows * ms->cols != c->per_src)
            return bad_plan(t, "elements", e);
        if (sl_dtype_info((int)ms->dtype)->block > block)
            block = sl_dtype_info((int)ms->dtype)->block;
    }
    c->grain = ti->block > block ? ti->block : block;
    if (t->transform != SL_INLINE)
        SL_TRY(check_shape(env, t, c->grain, &head, e));
    SL_TRY(check_weights(env, it->tensor, c, e));
    if (it->elem0 % c->grain || it->elems % c->grain || it->elem0 % head || it->elems % head ||
        c->per_src % c->grain ||
        (t->transform != SL_PRODUCT && c->per_src * (t->n_src ? t->n_src : 1) != t->elems))
        return bad_plan(t, "item cut inside a block", e);
    return 0;
}
