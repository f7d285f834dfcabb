/* The reads that a unit takes: weights, then of each run scales and parts. */
#include "worker/unit_packed.h"

static bool reads_scales(const struct sl_unit_run *r)
{
    return r->n_scales && !r->rows;
}

void sl_unit_count_reads(struct sl_unit *u, uint64_t rows)
{
    u->n_plain = u->mode == SL_UNIT_COLUMNS_K ? rows : 0;
    u->n_reads = 0;
    for (uint32_t i = 0; i < u->n_runs; i++) {
        u->n_plain += u->mode != SL_UNIT_COLUMNS_K && !u->run[i].rows;
        u->n_reads += reads_scales(&u->run[i]) + sl_packed_reads(&u->run[i]);
    }
    u->n_reads += u->n_plain;
}

/* Read *i of a unit: which run it belongs to; *i = which of that run's parts, or UINT64_MAX. */
static uint32_t run_of(const struct sl_unit *u, uint64_t *i, bool *scales)
{
    uint64_t left = *i, reads;
    uint32_t k = 0;

    *i = UINT64_MAX;
    *scales = false;
    if (left < u->n_plain) {
        while (u->mode != SL_UNIT_COLUMNS_K && (u->run[k].rows || left))
            left -= !u->run[k++].rows;
        return k;
    }
    for (left -= u->n_plain;; k++) {
        *scales = left == 0 && reads_scales(&u->run[k]);
        if (*scales)
            return k;
        left -= reads_scales(&u->run[k]);
        reads = sl_packed_reads(&u->run[k]);
        if (left < reads)
            break;
        left -= reads;
    }
    *i = left;
    return k;
}

void sl_unit_read(const struct sl_unit_env *env, const struct sl_unit *u, uint64_t i,
                  struct sl_unit_read *r)
{
    uint64_t part = i;
    bool scales;
    const struct sl_unit_run *run = &u->run[run_of(u, &part, &scales)];
    const struct sl_model_src *ms = &env->plan->model->src[run->src];
    const struct sl_src_tensor *st = &env->ck->tensors[scales ? ms->scale.tensor : ms->tensor];
    const struct sl_dtype_info *d = sl_dtype_info((int)st->dtype);
    uint64_t first = run->first, n = run->elems;

    if (part != UINT64_MAX) {
        sl_packed_read(env->ck, run, part, r);
        return;
    }
    r->big = false;
    r->place = run->place;
    if (scales) {
        first = run->scale_first;
        n = run->n_scales;
        r->place = run->scale_raw;
    } else if (u->mode == SL_UNIT_COLUMNS_K) {
        first += i * ms->cols;
        n = u->n_cols;
        r->place += i * sl_elem_bytes(d, n);
    } else {
        r->big = sl_elem_bytes(d, n) >= SL_UNIT_BIG;
    }
    r->tensor = scales ? ms->scale.tensor : ms->tensor;
    r->file = st->file;
    r->off = st->offset + sl_elem_bytes(d, first);
    r->bytes = (uint32_t)sl_elem_bytes(d, n);
}

void sl_unit_placed(struct sl_unit *u, uint64_t i, uint64_t at)
{
    bool scales;
    struct sl_unit_run *run = &u->run[run_of(u, &i, &scales)];

    if (i != UINT64_MAX)
        sl_packed_placed(run, i, at);
    if (i != UINT64_MAX || scales || u->mode == SL_UNIT_COLUMNS_K)
        return;
    run->at = at;
    if (u->raw) /* room for both was made where the run is big */
        u->out_at = u->out_bytes >= SL_UNIT_BIG ? run->place + u->file_at % 4096 : at;
}
