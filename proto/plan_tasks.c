/* Tensors are cut into pieces of about a task's size; the pieces, in the order
 * in which their sources lie in the shards, are gathered into tasks. */
#include "proto/plan_build.h"

#include <stdlib.h>

#define MB 1000000u
#define DEFAULT_TASK (256ull * MB)
#define LEAST_TASK (1ull * MB)
#define LEAST_ASKED 4096u     /* of an explicit task_bytes */
#define WANTED_TASKS 16u
#define MOST_TASKS 1000000u
#define ALIGN_ROWS 128u       /* FP8 scale blocks */
#define ALIGN_ELEMS 256u      /* largest block of a type; a power of two */

struct piece {
    uint64_t file, offset; /* of its first source byte */
    struct sl_plan_item item;
    uint64_t src_bytes;
};

struct cutter {
    const struct sl_plan_input *in;
    struct piece *pieces;
    uint64_t n, cap;
    uint64_t target;
};

static uint64_t scale_bytes(const struct sl_checkpoint *ck, const struct sl_model_src *s)
{
    const struct sl_scale *sc = &s->scale;

    if (s->tensor == SL_NO_TENSOR)
        return sc->rows * sc->cols * sc->width + sc->more;
    if (sc->tensor == SL_NO_TENSOR || sc->tensor >= ck->n_tensors)
        return 0;
    return ck->tensors[sc->tensor].bytes + (sc->zeros ? ck->tensors[sc->zeros - 1].bytes : 0) +
           (sc->order ? ck->tensors[sc->order - 1].bytes : 0);
}

/* Source bytes behind `elems` elements of output tensor t, its share of the scales included. */
static uint64_t src_bytes_of(const struct sl_checkpoint *ck, const struct sl_model *m,
                             const struct sl_out_tensor *t, uint64_t elems)
{
    const struct sl_model_src *s;
    const struct sl_dtype_info *d;
    uint64_t matrix;

    if (t->transform == SL_INLINE || t->n_src == 0)
        return 0;
    s = &m->src[t->first_src];
    if (t->transform == SL_PRODUCT)
        return elems * (sl_dtype_info(s[0].dtype)->bytes + sl_dtype_info(s[1].dtype)->bytes);
    d = sl_dtype_info(s->dtype);
    matrix = s->rows * s->cols;
    return elems / d->block * d->bytes
           + (matrix ? (uint64_t)((double)scale_bytes(ck, s) * (double)elems / (double)matrix + 0.5)
                     : 0);
}

/* Where in the shards the element lies that a piece begins with. */
static void locate(const struct cutter *c, const struct sl_out_tensor *t, struct piece *p)
{
    uint64_t per_src, first, heads = t->heads ? t->heads : 1;
    const struct sl_model_src *s;
    const struct sl_src_tensor *src;
    const struct sl_dtype_info *d;

    p->file = p->offset = 0;
    if (t->n_src == 0)
        return;
    per_src = t->elems / t->n_src;
    s = &c->in->m->src[t->first_src + (uint32_t)(p->item.elem0 / per_src)];
    if (s->tensor == SL_NO_TENSOR)
        return;
    first = p->item.elem0 % per_src;
    if (t->transform == SL_VIEW)
        first = sl_view_place(t->view, first, &(uint64_t){0});
    if (t->transform == SL_K_B || t->transform == SL_V_B)
        first = first / (per_src / heads) * (s->rows / heads) * s->cols
                + (t->transform == SL_V_B ? t->nope * s->cols : t->col0);
    src = &c->in->ck->tensors[s->tensor];
    d = sl_dtype_info(s->dtype);
    p->file = src->file;
    p->offset = src->offset + first / d->block * d->bytes;
}

static int add_piece(struct cutter *c, uint32_t tensor, uint64_t elem0, uint64_t elems)
{
    const struct sl_out_tensor *t = &c->in->m->tensors[tensor];
    struct piece *p;

    if (c->n == c->cap) {
        uint64_t cap = c->cap ? 2 * c->cap : 4096;

        p = realloc(c->pieces, cap * sizeof *p);
        if (!p)
            return SL_EFAIL;
        c->pieces = p;
        c->cap = cap;
    }
    p = &c->pieces[c->n++];
    p->item = (struct sl_plan_item){tensor, elem0, elems};
    p->src_bytes = src_bytes_of(c->in->ck, c->in->m, t, elems);
    locate(c, t, p);
    return 0;
}

/* Effect: cuts `elems` elements from elem0 on into equal pieces at multiples of
 * `grain` elements, each of about the target's bytes. */
static int cut_run(struct cutter *c, uint32_t tensor, uint64_t elem0, uint64_t elems,
                   uint64_t grain)
{
    uint64_t bytes = src_bytes_of(c->in->ck, c->in->m, &c->in->m->tensors[tensor], elems);
    uint64_t grains = (elems + grain - 1) / grain;
    uint64_t n = (bytes + c->target - 1) / c->target, per;

    n = n < 1 ? 1 : n > grains ? grains : n;
    per = (grains + n - 1) / n * grain;
    for (uint64_t at = 0; at < elems; at += per)
        SL_TRY(add_piece(c, tensor, elem0 + at, elems - at < per ? elems - at : per));
    return 0;
}

/* Whole rows that end on a block of every type; on a row of scales too, when
 * that is not too coarse. */
static uint64_t row_grain(const struct cutter *c, uint32_t tensor)
{
    const struct sl_out_tensor *t = &c->in->m->tensors[tensor];
    uint64_t cols = t->ne[0], rows = 1, more;

    while (rows * cols % ALIGN_ELEMS)
        rows *= 2;
    more = rows < ALIGN_ROWS ? ALIGN_ROWS : rows;
    if (src_bytes_of(c->in->ck, c->in->m, t, more * cols) <= c->target / 2)
        rows = more;
    return rows * cols;
}

static int cut_tensor(struct cutter *c, uint32_t tensor)
{
    const struct sl_out_tensor *t = &c->in->m->tensors[tensor];
    uint64_t bytes = src_bytes_of(c->in->ck, c->in->m, t, t->elems);
    uint64_t per_src = t->n_src ? t->elems / t->n_src : t->elems;

    if (bytes <= c->target)
        return add_piece(c, tensor, 0, t->elems);
    if (t->transform != SL_COPY && t->transform != SL_IDS && t->transform != SL_VIEW)
        return cut_run(c, tensor, 0, t->elems, t->heads ? t->elems / t->heads : t->elems);
    if (t->n_src > 1 && bytes / t->n_src <= c->target)
        return cut_run(c, tensor, 0, t->elems, per_src);
    for (uint32_t i = 0; i < t->n_src; i++)
        SL_TRY(cut_run(c, tensor, i * per_src, per_src, row_grain(c, tensor)));
    return 0;
}

static int by_source(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->item.tensor != y->item.tensor)
        return x->item.tensor < y->item.tensor ? -1 : 1;
    return x->item.elem0 < y->item.elem0 ? -1 : x->item.elem0 > y->item.elem0;
}

/* A task is full at the target; a small one may grow to twice that, so that no
 * task is tiny because a large piece follows. */
static bool fits(const struct sl_plan_task *t, uint64_t bytes, uint64_t target)
{
    uint64_t sum = t->src_bytes + bytes;

    return t->n_items == 0 || sum <= target || (t->src_bytes < target / 4 && sum <= 2 * target);
}

static void gather(const struct cutter *c, struct sl_plan *p)
{
    struct sl_plan_task *t = p->tasks;

    for (uint64_t i = 0; i < c->n; i++) {
        const struct piece *x = &c->pieces[i];

        if (i == 0 || !fits(t, x->src_bytes, c->target)) {
            t = &p->tasks[p->n_tasks++];
            t->first_item = (uint32_t)i;
        }
        t->n_items++;
        t->src_bytes += x->src_bytes;
        t->out_bytes += sl_type_bytes(p->tensors[x->item.tensor].type, x->item.elems);
        p->items[p->n_items++] = x->item;
        p->src_bytes += x->src_bytes;
    }
}

static uint64_t task_target(const struct sl_plan_input *in)
{
    uint64_t total = 0, target = in->o->task_bytes;

    for (uint32_t i = 0; i < in->m->n_tensors; i++)
        total += src_bytes_of(in->ck, in->m, &in->m->tensors[i], in->m->tensors[i].elems);
    if (target == 0) {
        target = total / WANTED_TASKS < DEFAULT_TASK ? total / WANTED_TASKS : DEFAULT_TASK;
        target = target < LEAST_TASK ? LEAST_TASK : target;
    }
    target = target < LEAST_ASKED ? LEAST_ASKED : target;
    return target < total / MOST_TASKS ? total / MOST_TASKS : target;
}

int sl_plan_make_tasks(const struct sl_plan_input *in, struct sl_plan *p, struct sl_error *e)
{
    struct cutter c = {.in = in, .target = task_target(in)};
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < in->m->n_tensors; i++)
        rc = cut_tensor(&c, i);
    if (rc == 0 && c.n) {
        p->items = calloc(c.n, sizeof *p->items);
        p->tasks = calloc(c.n, sizeof *p->tasks);
        if (p->items && p->tasks) {
            qsort(c.pieces, c.n, sizeof *c.pieces, by_source);
            gather(&c, p);
        } else {
            rc = SL_EFAIL;
        }
    }
    free(c.pieces);
    return rc < 0 ? sl_no_memory(e) : 0;
}
