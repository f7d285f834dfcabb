#include "worker/synthetic.h"

#include "worker/source_rows.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Each compute thread works on one matrix at a time, mostly the same or its neighbour. */
#define REMEMBERED 16
#define COLUMN_BYTES ((REMEMBERED + 2) * sizeof(float) + sizeof(double)) /* with row, sum and source_rows' own */

struct columns {
    const struct sl_out_tensor *t; /* NULL: empty */
    uint64_t slice, used;
    float *w;
};

struct synthetic {
    pthread_mutex_t lock;
    struct source_rows *rows;
    struct columns kept[REMEMBERED];
    uint64_t calls;
    float *row;
    double *sum;
    uint64_t room; /* columns */
};

int synthetic_open(const struct sl_checkpoint *ck, const struct sl_model *m, struct synthetic **out,
                   struct sl_error *e)
{
    struct synthetic *s = calloc(1, sizeof *s);

    *out = s;
    if (!s)
        return sl_no_memory(e);
    pthread_mutex_init(&s->lock, NULL);
    return source_rows_open(ck, m, &s->rows, e);
}

void synthetic_close(struct synthetic *s)
{
    if (!s)
        return;
    source_rows_close(s->rows);
    for (int i = 0; i < REMEMBERED; i++)
        free(s->kept[i].w);
    free(s->row);
    free(s->sum);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int room(struct synthetic *s, uint64_t n, struct sl_error *e)
{
    if (n <= s->room)
        return 0;
    free(s->row);
    free(s->sum);
    s->row = malloc(n * sizeof *s->row);
    s->sum = malloc(n * sizeof *s->sum);
    s->room = s->row && s->sum ? n : 0;
    return s->room ? 0 : sl_no_memory(e);
}

/* The mean square of each column over rows spread evenly; 1 everywhere when all are zero. */
static int make(struct synthetic *s, const struct sl_out_tensor *t, uint64_t slice, float *w,
                struct sl_error *e)
{
    uint64_t cols = t->ne[0], rows = t->n_dims > 1 ? t->ne[1] : 1;
    uint64_t n = rows < SL_SYNTHETIC_ROWS ? rows : SL_SYNTHETIC_ROWS;
    bool any = false;

    SL_TRY(room(s, cols, e));
    for (uint64_t c = 0; c < cols; c++)
        s->sum[c] = 0;
    for (uint64_t i = 0; i < n; i++) {
        SL_TRY(source_row(s->rows, t, slice * rows + i * rows / n, s->row, e));
        for (uint64_t c = 0; c < cols; c++)
            s->sum[c] += (double)s->row[c] * (double)s->row[c];
    }
    for (uint64_t c = 0; c < cols; c++) {
        w[c] = (float)(s->sum[c] / (double)n);
        any |= w[c] > 0;
    }
    for (uint64_t c = 0; !any && c < cols; c++)
        w[c] = 1.0f;
    return 0;
}

static int find_or_make(struct synthetic *s, const struct sl_out_tensor *t, uint64_t slice, float *out,
                        struct sl_error *e)
{
    struct columns *at = &s->kept[0];

    s->calls++;
    for (int i = 0; i < REMEMBERED; i++) {
        struct columns *k = &s->kept[i];

        if (k->t == t && k->slice == slice) {
            k->used = s->calls;
            memcpy(out, k->w, t->ne[0] * sizeof *out);
            return 0;
        }
        if (k->used < at->used)
            at = k;
    }
    SL_TRY(make(s, t, slice, out, e));
    free(at->w);
    *at = (struct columns){.t = t, .slice = slice, .used = s->calls, .w = malloc(t->ne[0] * sizeof *out)};
    if (at->w)
        memcpy(at->w, out, t->ne[0] * sizeof *out);
    else
        at->t = NULL;
    return 0;
}

int synthetic_columns(struct synthetic *s, const struct sl_out_tensor *t, uint64_t slice, float *out,
                      struct sl_error *e)
{
    int rc;

    pthread_mutex_lock(&s->lock);
    rc = find_or_make(s, t, slice, out, e);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

uint64_t synthetic_bytes(struct synthetic *s)
{
    uint64_t n;

    pthread_mutex_lock(&s->lock);
    n = source_rows_bytes(s->rows);
    pthread_mutex_unlock(&s->lock);
    return n;
}

static bool has(void *user, uint32_t i)
{
    const struct job_weights *w = user;

    return sl_imatrix_use_has(w->use, i);
}

static int load(void *user, uint32_t i, uint64_t slice, float *out, struct sl_error *e)
{
    struct job_weights *w = user;

    if (!w->synthetic)
        return sl_imatrix_use_load(w->use, i, slice, out, e);
    return synthetic_columns(w->synthetic, w->use->plan->tensors[i].t, slice, out, e);
}

int job_weights_open(struct job_weights *w, struct sl_job_plan *j, struct sl_engine_weights *out,
                     struct sl_error *e)
{
    *w = (struct job_weights){.use = &j->weights};
    *out = (struct sl_engine_weights){0};
    if (j->synthetic)
        SL_TRY(synthetic_open(j->ck, j->model, &w->synthetic, e));
    if (j->synthetic || j->imatrix)
        *out = (struct sl_engine_weights){.has = has, .load = load, .user = w};
    if (j->synthetic) {
        out->column_bytes = COLUMN_BYTES;
        out->bytes = source_rows_kept(j->ck, j->model);
    }
    return 0;
}

void job_weights_close(struct job_weights *w)
{
    synthetic_close(w->synthetic);
    w->synthetic = NULL;
}
