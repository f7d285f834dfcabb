/* A unit's slab, from source bytes to output bytes: scales to F32, then chunk
 * by chunk in cache: arrange + dequantize, round, quantize. */
#include "worker/unit.h"
#include "worker/unit_packed.h"

#include "kernels/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const struct sl_unit_env *env;
    const struct sl_unit *u;
    const struct sl_out_tensor *t;
    int type;
    const uint8_t *slab;
    struct sl_scratch *s;
    struct sl_source src[SL_UNIT_RUNS];
    struct sl_error *e;
};

static const struct sl_src_tensor *tensor_of(const struct job *j, uint32_t run)
{
    return &j->env->ck->tensors[j->env->plan->model->src[j->u->run[run].src].tensor];
}

/* Matrix index `at` of a run's source holds no usable weight. */
static int bad_element(const struct job *j, uint32_t run, uint64_t at)
{
    const struct sl_src_tensor *st = tensor_of(j, run);
    uint64_t cols = j->env->plan->model->src[j->u->run[run].src].cols;

    return sl_fail(j->e, SL_ESOURCE,
                   "tensor '%s' in '%s': row %llu, column %llu is NaN or infinite (%s); "
                   "the source is damaged", st->name, j->env->ck->files[st->file].path,
                   (unsigned long long)(at / cols), (unsigned long long)(at % cols),
                   sl_dtype_info((int)st->dtype)->name);
}

static int bad_id(const struct job *j, uint32_t run, uint64_t i, int64_t v)
{
    const struct sl_src_tensor *st = tensor_of(j, run);
    uint64_t at = j->u->run[run].first + i, cols = j->src[run].cols;

    return sl_fail(j->e, SL_ESOURCE, "tensor '%s' in '%s': row %llu, column %llu is %lld, expected 0 to %u; the source is damaged",
                   st->name, j->env->ck->files[st->file].path, (unsigned long long)(at / cols), (unsigned long long)(at % cols),
                   (long long)v, j->t->heads - 1);
}

static int bad_scale(const struct job *j, uint32_t run, uint64_t at, double value)
{
    const struct sl_model_src *ms = &j->env->plan->model->src[j->u->run[run].src];
    const struct sl_src_tensor *st = &j->env->ck->tensors[ms->scale.tensor];

    at += j->u->run[run].scale_first;
    return sl_fail(j->e, SL_ESOURCE,
                   "tensor '%s': scale [%llu, %llu] in '%s' ('%s') is %g, expected a finite "
                   "number%s: the source is damaged", tensor_of(j, run)->name,
                   (unsigned long long)(at / ms->scale.cols), (unsigned long long)(at % ms->scale.cols),
                   st->name, j->env->ck->files[st->file].path, value, ms->scale.any_sign ? "" : ", 0 or above");
}

/* Scales as stored, to F32: 2^(e - 127) for E8M0, whose 255 is NaN. */
static int decode_scales(const struct job *j, uint32_t run, uint8_t *slab)
{
    const struct sl_unit_run *r = &j->u->run[run];
    const struct sl_scale *sc = &j->env->plan->model->src[r->src].scale;
    uint32_t tensor = sc->tensor;
    enum sl_dtype dtype = j->env->ck->tensors[tensor].dtype;
    float *out = (float *)(void *)(slab + r->scale_f32);
    uint64_t bad = 0;

    if (dtype == SL_DTYPE_F8_E8M0 || dtype == SL_DTYPE_U8) {
        for (uint64_t i = 0; i < r->n_scales; i++) {
            out[i] = sl_f32_from_e8m0(slab[r->scale_raw + i]);
            if (isnan(out[i]))
                return bad_scale(j, run, i, NAN);
        }
        return 0;
    }
    if (dtype == SL_DTYPE_F32 || dtype == SL_DTYPE_BF16 || dtype == SL_DTYPE_F16 || dtype == SL_DTYPE_F8_E4M3) {
        const struct sl_source s = {.dtype = dtype, .data = slab + r->scale_raw, .cols = r->n_scales,
                                    .block_rows = 1, .block_cols = 1};

        if (sl_load_f32(&s, 0, r->n_scales, out, &bad) < 0)
            return bad_scale(j, run, bad, (double)out[bad]);
        for (uint64_t i = 0; i < r->n_scales && !sc->any_sign; i++) {
            if (!(out[i] >= 0))
                return bad_scale(j, run, i, (double)out[i]);
            if (sc->no_sign)
                out[i] = fabsf(out[i]);
        }
        return 0;
    }
    return sl_fail(j->e, SL_EUNSUPPORTED, "tensor '%s' holds scales as %s",
                   j->env->ck->tensors[tensor].name, sl_dtype_info((int)dtype)->name);
}

static void set_source(struct job *j, uint32_t run)
{
    const struct sl_unit_run *r = &j->u->run[run];
    const struct sl_model_src *ms = &j->env->plan->model->src[r->src];
    struct sl_source *s = &j->src[run];

    *s = (struct sl_source){.dtype = ms->dtype, .data = j->slab + r->at, .first = r->first,
                            .cols = ms->cols, .block_rows = 1, .block_cols = 1};
    if (!r->n_scales)
        return;
    s->scale = (const float *)(const void *)(j->slab + r->scale_f32);
    s->block_rows = ms->scale.block_rows;
    s->block_cols = ms->scale.block_cols;
    s->scale_row0 = r->scale_row0;
    s->scale_cols = ms->scale.cols;
    if (ms->scale.part_rows) { /* of a matrix that begins with the part */
        uint64_t part = r->first / ms->cols / ms->scale.part_rows;

        s->first -= part * ms->scale.part_rows * ms->cols;
        s->scale_row0 -= part * ms->scale.part_blocks;
    }
    if (!r->narrow)
        return;
    /* One row of a matrix without end that begins at the first scale's column. */
    s->first = r->first % ms->cols % ms->scale.block_cols;
    s->cols = UINT64_MAX;
    s->block_rows = 1;
    s->scale_row0 = 0;
    s->scale_cols = r->n_scales;
}

static int load(const struct job *j, uint32_t run, const struct sl_source *s, uint64_t skip,
                uint64_t n, float *x)
{
    uint64_t bad = 0, part_rows = j->env->plan->model->src[j->u->run[run].src].scale.part_rows;
    const struct sl_unit_run *r = &j->u->run[run];
    int rc = r->rows ? sl_packed_load(&j->env->plan->model->src[r->src], r, j->slab, s, skip, n, j->s->band, x, &bad)
                     : sl_load_f32(s, skip, n, x, &bad);

    if (rc == SL_ESOURCE)
        return bad_element(j, run, j->u->run[run].narrow || part_rows
                                       ? bad - s->first + j->u->run[run].first : bad);
    if (rc < 0)
        return sl_fail(j->e, rc, "tensor '%s' holds %s, which are no weights",
                       tensor_of(j, run)->name, sl_dtype_info((int)s->dtype)->name);
    return 0;
}

static int fill_in_order(const struct job *j, uint64_t pos, uint64_t n, float *x)
{
    uint32_t run = 0;

    while (n) {
        uint64_t k;

        while (pos >= j->u->run[run].elems)
            pos -= j->u->run[run++].elems;
        k = j->u->run[run].elems - pos < n ? j->u->run[run].elems - pos : n;
        SL_TRY(load(j, run, &j->src[run], pos, k, x));
        x += k;
        pos += k;
        n -= k;
    }
    return 0;
}

/* Where output element pos of a unit that is permuted or viewed lies in its one run; *len = how many lie there in order. */
static uint64_t place_in_run(const struct job *j, uint64_t pos, uint64_t *len)
{
    uint64_t cols = j->t->n_dims == 1 ? 1 : j->src[0].cols, d, row = pos / cols, i;

    if (j->u->mode == SL_UNIT_VIEWED)
        return sl_view_place(j->t->view, j->u->elem0 + pos, len) - j->u->run[0].first;
    d = j->t->elems / cols / j->t->heads;
    i = row % d;
    *len = cols - pos % cols;
    return (row - i + i % 2 * (d / 2) + i / 2) * cols + pos % cols;
}

static int fill_reordered(const struct job *j, uint64_t pos, uint64_t n, float *x)
{
    while (n) {
        uint64_t k, from = place_in_run(j, pos, &k);

        k = k < n ? k : n;
        SL_TRY(load(j, 0, &j->src[0], from, k, x));
        x += k;
        pos += k;
        n -= k;
    }
    return 0;
}

/* Column c, rows [r0, r0 + rows), of a long one. Returns false where that is not so simple, or an element is not finite. */
static bool fill_column(const struct job *j, uint64_t head, uint64_t c, uint64_t r0, uint64_t rows, float *x)
{
    const struct sl_source *s = &j->src[head];
    uint64_t width = sl_dtype_info((int)s->dtype)->bytes, cols = j->u->mode == SL_UNIT_COLUMNS_K ? j->u->n_cols : s->cols, bad;
    const uint8_t *from = (const uint8_t *)s->data + (r0 * cols + c) * width;
    uint8_t *to = (uint8_t *)j->s->t;
    const struct sl_source column = {.dtype = s->dtype, .data = to, .cols = rows, .block_rows = 1, .block_cols = 1};

    if (s->scale || sl_dtype_info((int)s->dtype)->block != 1 || (width != 2 && width != 4))
        return false;
    for (uint64_t r = 0; r < rows; r++, from += cols * width, to += width)
        width == 2 ? memcpy(to, from, 2) : memcpy(to, from, 4);
    return sl_load_f32(&column, 0, rows, x, &bad) == 0;
}

/* Columns [c, c + k), rows [r0, r0 + rows) of a head's matrix, transposed. */
static int fill_columns(const struct job *j, uint64_t head, uint64_t c, uint64_t k, uint64_t r0,
                        uint64_t rows, float *x)
{
    bool strided = j->u->mode == SL_UNIT_COLUMNS_K;
    struct sl_source s = j->src[head];
    uint64_t cols = s.cols;

    if (k == 1 && fill_column(j, head, c, r0, rows, x))
        return 0;
    for (uint64_t r = r0; r < r0 + rows; r++) {
        uint64_t skip = r * cols + c;

        if (strided) {
            uint64_t row = j->u->n_cols / sl_dtype_info((int)s.dtype)->block *
                           sl_dtype_info((int)s.dtype)->bytes;

            s.data = (const uint8_t *)j->src[0].data + r * row;
            s.first = j->src[0].first + r * cols;
            skip = c;
        }
        SL_TRY(load(j, (uint32_t)head, &s, skip, k, j->s->t));
        for (uint64_t i = 0; i < k; i++)
            x[i * rows + r - r0] = j->s->t[i];
    }
    return 0;
}

static int fill_k(const struct job *j, uint64_t pos, uint64_t n, float *x)
{
    uint64_t nope = j->t->nope;
    uint64_t cols = j->u->mode == SL_UNIT_COLUMNS_K ? j->u->n_cols : j->t->lora;

    while (n) {
        uint64_t head = pos / (nope * cols), c = pos / nope % cols, r = pos % nope, k = 1;
        uint64_t rows = nope - r < n ? nope - r : n;

        if (rows == nope)
            k = n / nope < cols - c ? n / nope : cols - c;
        SL_TRY(fill_columns(j, head, c, k, r, rows, x));
        x += k * rows;
        pos += k * rows;
        n -= k * rows;
    }
    return 0;
}

static int infinite(const struct job *j, uint64_t at)
{
    bool factor = j->t->change == SL_ABOVE_0 || j->t->change == SL_RECIPROCAL; /* one number of each source */
    const struct sl_src_tensor *st = tensor_of(j, factor ? (uint32_t)at : 0);

    return sl_fail(j->e, SL_ESOURCE, "tensor '%s' in '%s': element %llu of %s would be %s; the source is damaged",
                   st->name, j->env->ck->files[st->file].path, (unsigned long long)(j->u->elem0 + at), j->t->name,
                   factor ? "0, negative or infinite" : "infinite");
}

static int fill_product(const struct job *j, uint64_t pos, uint64_t n, float *x)
{
    SL_TRY(load(j, 0, &j->src[0], pos, n, x));
    SL_TRY(load(j, 1, &j->src[1], pos, n, j->s->t));
    for (uint64_t i = 0; i < n; i++) {
        x[i] *= j->s->t[i];
        if (!isfinite(x[i]))
            return infinite(j, pos + i);
    }
    return 0;
}

static int fill(const struct job *j, uint64_t pos, uint64_t n, float *x)
{
    switch (j->u->mode) {
    case SL_UNIT_PRODUCT:
        return fill_product(j, pos, n, x);
    case SL_UNIT_PERMUTED:
    case SL_UNIT_VIEWED:
        return fill_reordered(j, pos, n, x);
    case SL_UNIT_HEADS_K:
    case SL_UNIT_COLUMNS_K:
        return fill_k(j, pos, n, x);
    case SL_UNIT_VALUES:
        memcpy(x, j->t->values + j->u->elem0 + pos, n * sizeof *x);
        return 0;
    case SL_UNIT_IN_ORDER:
    case SL_UNIT_IDS:
        break;
    }
    return fill_in_order(j, pos, n, x);
}

/* Effect: s->w = importance weights of n output elements from `at` on, whole rows: the
 * matrix's column weights, repeated for each row. */
static int set_weights(const struct job *j, uint64_t at, uint64_t n)
{
    uint64_t row = j->t->ne[0], matrix = j->t->n_dims > 1 ? row * j->t->ne[1] : row;
    uint64_t slice = at / matrix, rows = n / row, same = (matrix - at % matrix) / row, i = 0;
    struct sl_scratch *s = j->s;

    if (s->w_plan == j->env->plan && s->w_tensor == j->u->tensor && s->w_slice == slice)
        i = s->w_rows < same ? s->w_rows : same;
    s->w_rows = i;
    s->w_plan = j->env->plan;
    s->w_tensor = j->u->tensor;
    s->w_slice = slice;
    for (; i < rows; i++) {
        uint64_t of = (at + i * row) / matrix;

        if (i && of == (at + (i - 1) * row) / matrix)
            memcpy(s->w + i * row, s->w + (i - 1) * row, row * sizeof *s->w);
        else
            SL_TRY(j->env->weights.load(j->env->weights.user, j->u->tensor, of, s->w + i * row, j->e));
        if (of == slice)
            s->w_rows = i + 1;
    }
    return 0;
}

/* Blocks of zeros (pruned experts, padding) are all the same block, and need no search.
 * Returns whether x was zeros; anything else is seen at its first weight. */
static bool quantize_zeros(const struct job *j, uint64_t n, uint8_t *out)
{
    const struct sl_type_info *ti = sl_type_info(j->type);
    struct sl_scratch *s = j->s;
    uint64_t bad, bytes = n / ti->block * ti->bytes;

    /* By bits: -0 is another block in some types. */
    if (ti->bytes > sizeof s->zero_block || ti->block > n || memcmp(s->x, &(float){0}, sizeof(float)) ||
        memcmp(s->x, s->x + 1, (n - 1) * sizeof(float)))
        return false;
    if (s->zero_type != j->type + 1) {
        if (sl_quantize_on(j->env->backend, j->type, s->x, NULL, ti->block, ti->block, s->zero_block, &bad) < 0)
            return false;
        s->zero_type = j->type + 1;
    }
    memcpy(out, s->zero_block, ti->bytes);
    for (uint64_t done = ti->bytes; done < bytes; done *= 2)
        memcpy(out + done, out, bytes - done < done ? bytes - done : done);
    return true;
}

/* Finite weights from output element `at` on whose scale the type cannot hold (mxfp4: one of 2^-128), or a weight
 * that BF16 cannot, when it is rounded: the source is well, the choice is not. */
static int out_of_range(const struct job *j, uint64_t at, bool rounded)
{
    const struct sl_plan *p = j->env->plan;
    const struct sl_checkpoint *ck = j->env->ck;
    const char *type = sl_type_info(j->type)->name, *from = "its values", *file = "config.json";
    uint64_t row = j->t->ne[0], each = j->t->n_src ? j->t->elems / j->t->n_src : 0;
    char advice[SL_NAME_MAX + 64];

    if (rounded)
        snprintf(advice, sizeof advice, "bf16; leave --round-through bf16 out");
    else
        snprintf(advice, sizeof advice, "%s; give it a wider type: --tensor-type %s=%s", type, j->t->name,
                 j->type == SL_TYPE_BF16 ? "f32" : "bf16");
    if (each && at / each < j->t->n_src) {
        const struct sl_src_tensor *st =
            &ck->tensors[p->model->src[j->t->first_src + at / each].tensor];

        from = st->name;
        file = ck->files[st->file].path;
    }
    return sl_fail(j->e, SL_EUNSUPPORTED,
                   "tensor '%s' (from '%s' in '%s'): the weights from row %llu, column %llu on are too "
                   "%s for %s", j->t->name, from, file,
                   (unsigned long long)(at / row), (unsigned long long)(at % row),
                   j->type == SL_TYPE_MXFP4 && !rounded ? "small" : "large", advice);
}

/* What BF16 has no number for is refused here: not every type's scale would tell of it. BF16 itself does. */
static int round_bf16(const struct job *j, uint64_t pos, uint64_t n)
{
    sl_round_bf16(j->s->x, n);
    for (uint64_t i = 0; i < n && j->type != SL_TYPE_BF16; i++)
        if (!isfinite(j->s->x[i]))
            return out_of_range(j, j->u->elem0 + pos + i, true);
    return 0;
}

static int quantize(const struct job *j, uint64_t pos, uint64_t n, uint8_t *out)
{
    uint64_t row = j->t->ne[0], bad = 0, at = j->u->elem0 + pos;
    int rc;

    if (j->u->weighted)
        SL_TRY(set_weights(j, at, n));
    else if (quantize_zeros(j, n, out))
        return 0;
    rc = sl_quantize_on(j->env->backend, j->type, j->s->x, j->u->weighted ? j->s->w : NULL, n, row, out,
                        &bad);
    if (rc < 0)
        at += bad;
    if (rc == SL_ESOURCE)
        return out_of_range(j, at, false);
    if (rc < 0)
        return sl_fail(j->e, rc, "tensor '%s': type %s cannot be written", j->t->name,
                       sl_type_info(j->type)->name);
    return 0;
}

/* Returns whether the n elements from pos on went straight from the slab to out. */
static bool straight(const struct job *j, uint64_t pos, uint64_t n, uint8_t *out)
{
    uint32_t run = 0;

    if (j->u->mode != SL_UNIT_IN_ORDER || j->u->weighted || j->u->round || j->t->change)
        return false;
    while (pos >= j->u->run[run].elems)
        pos -= j->u->run[run++].elems;
    return j->u->run[run].elems - pos >= n && !j->u->run[run].rows && sl_quantize_source(j->env->backend, j->type, &j->src[run], pos, n, out);
}

/* F4 as blocks of MXFP4 or NVFP4; BF16 holds all their values, so that rounding through it is nothing. */
static int repack_run(const struct job *j, uint32_t run, uint64_t skip, uint64_t n, uint8_t *out)
{
    const struct sl_unit_run *r = &j->u->run[run];
    uint64_t bad = 0;
    int rc = j->type == SL_TYPE_NVFP4 ? sl_repack_nvfp4(&j->src[run], skip, n, out) : sl_repack_mxfp4(&j->src[run], skip, n, out, &bad);

    if (rc == SL_ESOURCE)
        return bad_element(j, run, r->narrow ? bad - j->src[run].first + r->first : bad);
    if (rc < 0)
        return sl_fail(j->e, rc, "tensor '%s': type %s cannot be written of %s", j->t->name, sl_type_info(j->type)->name,
                       sl_dtype_info((int)j->src[run].dtype)->name);
    return 0;
}

static int repack(const struct job *j, uint8_t *out)
{
    uint64_t k;

    if (j->u->mode == SL_UNIT_IN_ORDER) {
        for (uint32_t run = 0; run < j->u->n_runs; out += sl_type_bytes(j->type, j->u->run[run++].elems))
            SL_TRY(repack_run(j, run, 0, j->u->run[run].elems, out));
        return 0;
    }
    for (uint64_t pos = 0; pos < j->u->elems; pos += k, out += sl_type_bytes(j->type, k)) {
        uint64_t from = place_in_run(j, pos, &k);

        k = k < j->u->elems - pos ? k : j->u->elems - pos;
        SL_TRY(repack_run(j, 0, from, k, out));
    }
    return 0;
}

static uint64_t chunk_of(const struct job *j)
{
    uint64_t row = j->t->ne[0], n = SL_CHUNK;

    if (j->u->weighted)
        n = row > SL_CHUNK ? row : SL_CHUNK / row * row;
    else if (j->u->mode == SL_UNIT_HEADS_K || j->u->mode == SL_UNIT_COLUMNS_K)
        n = row > SL_CHUNK ? SL_CHUNK : SL_CHUNK / row * row;
    return n;
}

static int open_sources(struct job *j, uint8_t *slab)
{
    for (uint32_t i = 0; i < j->u->n_runs; i++) {
        sl_packed_arrange(j->env, &j->u->run[i], slab);
        if (j->u->run[i].n_scales)
            SL_TRY(decode_scales(j, i, slab));
        set_source(j, i);
        SL_TRY(sl_packed_unpack(j->env, &j->u->run[i], slab, &j->src[i], j->e));
    }
    return 0;
}

int sl_unit_sources(const struct sl_unit_env *env, const struct sl_unit *u, uint8_t *slab,
                    struct sl_source *src, struct sl_error *e)
{
    struct job j = {.env = env, .u = u, .slab = slab, .e = e};

    SL_TRY(open_sources(&j, slab));
    memcpy(src, j.src, u->n_runs * sizeof *src);
    return 0;
}

/* A copy goes to the place in its page that it has in the file. */
static void place_copy(const struct sl_unit *u, uint8_t *slab)
{
    if (u->raw && u->out_at != u->run[0].at)
        memmove(slab + u->out_at, slab + u->run[0].at, u->out_bytes);
}

/* The run's integers as I32, each below the number of what they count. */
static int convert_ids(const struct job *j, uint32_t run, uint8_t *out)
{
    bool wide = j->src[run].dtype == SL_DTYPE_I64;
    const uint8_t *from = j->src[run].data;

    for (uint64_t i = 0; i < j->u->run[run].elems; i++, out += sizeof(int32_t)) {
        int64_t v;
        int32_t id;

        if (wide) {
            memcpy(&v, from + i * sizeof v, sizeof v);
        } else {
            memcpy(&id, from + i * sizeof id, sizeof id);
            v = id;
        }
        if (v < 0 || v >= j->t->heads)
            return bad_id(j, run, i, v);
        id = (int32_t)v;
        memcpy(out, &id, sizeof id);
    }
    return 0;
}

static int convert_all_ids(const struct job *j, uint8_t *out)
{
    for (uint32_t run = 0; run < j->u->n_runs; run++) {
        SL_TRY(convert_ids(j, run, out));
        out += j->u->run[run].elems * sizeof(int32_t);
    }
    return 0;
}

static int change(const struct job *j, uint64_t pos, uint64_t n, float *x)
{
    uint64_t bad = 0;

    return sl_change_values(j->t->change, j->src[0].dtype, x, n, &bad) == 0 ? 0 : infinite(j, pos + bad);
}

int sl_unit_convert(const struct sl_unit_env *env, struct sl_unit *u, uint8_t *slab,
                    struct sl_scratch *s, struct sl_error *e)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[u->tensor];
    struct job j = {.env = env, .u = u, .t = pt->t, .type = pt->type, .slab = slab, .s = s, .e = e};
    uint64_t chunk = chunk_of(&j);

    if (chunk > s->floats)
        return sl_fail(e, SL_EUNSUPPORTED, "tensor '%s': rows of %llu weights are too long for an "
                       "importance matrix", j.t->name, (unsigned long long)j.t->ne[0]);
    SL_TRY(open_sources(&j, slab));
    for (unsigned i = 0; i < SL_BANDS; i++)
        s->band[i].run = NULL;
    if (u->mode == SL_UNIT_IDS)
        return convert_all_ids(&j, slab + u->out_at);
    /* Copied bytes are loaded too: a NaN must not pass. Integers have none. */
    if (u->raw && !sl_dtype_info((int)j.src[0].dtype)->weight) {
        place_copy(u, slab);
        return 0;
    }
    if (!u->raw && pt->t->src_type < 0 && sl_model_keeps(env->plan->model, pt->t, j.type))
        return repack(&j, slab + u->out_at);
    for (uint64_t pos = 0; pos < u->elems; pos += chunk) {
        uint64_t n = u->elems - pos < chunk ? u->elems - pos : chunk;
        uint8_t *out = slab + u->out_at + pos / sl_type_info(j.type)->block * sl_type_info(j.type)->bytes;

        if (!u->raw && straight(&j, pos, n, out))
            continue;
        SL_TRY(fill(&j, pos, n, s->x));
        SL_TRY(change(&j, pos, n, s->x));
        if (u->raw)
            continue;
        if (u->round)
            SL_TRY(round_bf16(&j, pos, n));
        SL_TRY(quantize(&j, pos, n, out));
    }
    place_copy(u, slab);
    return 0;
}
