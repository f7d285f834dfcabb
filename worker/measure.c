#include "worker/measure.h"

#include "worker/deadline.h"
#include "worker/slab.h"
#include "worker/source_rows.h"
#include "worker/synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Weights that are quantized in one go, so that wide backends are full. */
#define BATCH 32768u
#define WAIT_MS 200u
#define MOST_THREADS 256
/* Memory of all threads, and of one for each column of the longest row, beside what its readers keep: its four rows, and what
 * synthetic weights have. */
#define MEMORY (512 * SL_MIB)
#define COLUMN_BYTES 96u

struct place {
    uint32_t tensor, file;
    uint64_t offset;
};

struct measure {
    struct sl_job_plan *job;
    const uint64_t *types;
    const struct measure_opts *o;
    double *error;
    struct place *order; /* tensors to measure, as they lie in the source */
    uint32_t n;
    uint64_t total, widest; /* weights to look at; of a row */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint32_t next;       /* guarded by lock, as all below */
    unsigned running;
    uint64_t done, read;
    int rc;              /* of the first that failed */
    struct sl_error first;
};

/* A thread's own. */
struct worker {
    struct measure *m;
    struct source_rows *rows;
    struct job_weights weights;
    struct sl_engine_weights load;
    float *x, *w, *y;
    uint8_t *packed;
    uint64_t room;
    struct sl_error e;
};

/* Sums over one tensor in one type: of the matrix at hand, and the finished ones' ratios. */
struct tally {
    uint64_t slice, matrices;
    double lost, energy, ratios;
    bool failed;
};

static uint64_t rows_of(const struct sl_out_tensor *t)
{
    return t->elems / t->ne[0];
}

static uint64_t sampled_rows(const struct measure *m, const struct sl_out_tensor *t)
{
    uint64_t want = m->o->weights ? m->o->weights : SL_MEASURE_WEIGHTS, n = (want + t->ne[0] - 1) / t->ne[0];

    return n < rows_of(t) ? n : rows_of(t);
}

static void end_matrix(struct tally *t)
{
    if (t->energy > 0) {
        t->ratios += t->lost / t->energy;
        t->matrices++;
    }
    t->lost = t->energy = 0;
}

static void add_row(struct tally *t, uint64_t slice, const float *x, const float *w, const float *y,
                    uint64_t n)
{
    double lost = 0, energy = 0;

    for (uint64_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)y[i], v = w ? (double)w[i] : 1;

        lost += v * (d * d);
        energy += v * ((double)x[i] * (double)x[i]);
    }
    if (t->slice != slice)
        end_matrix(t);
    t->slice = slice;
    t->lost += lost;
    t->energy += energy;
}

static int room(struct worker *k, uint64_t n)
{
    if (n <= k->room)
        return 0;
    free(k->x);
    free(k->w);
    free(k->y);
    free(k->packed);
    k->x = malloc(n * sizeof *k->x);
    k->w = malloc(n * sizeof *k->w);
    k->y = malloc(n * sizeof *k->y);
    k->packed = malloc(n * sizeof *k->x);
    k->room = k->x && k->w && k->y && k->packed ? n : 0;
    return k->room ? 0 : sl_no_memory(&k->e);
}

/* Sampled rows first .. first + n of a tensor into x, and their weights into w. */
static int load_rows(struct worker *k, uint32_t at, uint64_t first, uint64_t n, uint64_t sampled,
                     bool weighted)
{
    const struct sl_out_tensor *t = &k->m->job->model->tensors[at];
    uint64_t cols = t->ne[0], matrix = t->n_dims > 1 ? t->ne[1] : 1, before = UINT64_MAX;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t row = (uint64_t)((unsigned __int128)(first + i) * rows_of(t) / sampled);
        float *w = k->w + i * cols;

        SL_TRY(source_row(k->rows, t, row, k->x + i * cols, &k->e));
        if (k->m->job->round_bf16)
            sl_round_bf16(k->x + i * cols, cols);
        if (weighted && i && row / matrix == before)
            memcpy(w, w - cols, cols * sizeof *w);
        else if (weighted)
            SL_TRY(k->load.load(k->load.user, at, row / matrix, w, &k->e));
        before = row / matrix;
    }
    return 0;
}

static int try_type(struct worker *k, int type, uint32_t at, uint64_t first, uint64_t n,
                    uint64_t sampled, bool weighted, struct tally *sum)
{
    const struct sl_out_tensor *t = &k->m->job->model->tensors[at];
    uint64_t cols = t->ne[0], matrix = t->n_dims > 1 ? t->ne[1] : 1, bad = 0;
    int rc = sl_quantize_on(k->m->o->backend, type, k->x, weighted ? k->w : NULL, n * cols, cols, k->packed, &bad);

    if (rc == SL_ESOURCE)
        sum->failed = true;
    else if (rc == 0)
        rc = sl_dequantize(type, k->packed, n * cols, k->y);
    if (rc < 0 && rc != SL_ESOURCE)
        return sl_fail(&k->e, rc, "tensor '%s': type %s cannot be written", t->name, sl_type_info(type)->name);
    for (uint64_t i = 0; i < n && rc == 0; i++)
        add_row(sum, (uint64_t)((unsigned __int128)(first + i) * rows_of(t) / sampled) / matrix,
                k->x + i * cols, weighted ? k->w + i * cols : NULL, k->y + i * cols, cols);
    return 0;
}

static int measure_tensor(struct worker *k, uint32_t at)
{
    struct measure *m = k->m;
    const struct sl_out_tensor *t = &m->job->model->tensors[at];
    uint64_t sampled = sampled_rows(m, t), batch = BATCH / t->ne[0] ? BATCH / t->ne[0] : 1;
    bool weighted = k->load.has && k->load.has(k->load.user, at);
    struct tally sum[SL_TYPE_LIMIT] = {0};

    SL_TRY(room(k, batch * t->ne[0]));
    for (uint64_t i = 0; i < sampled; i += batch) {
        uint64_t n = sampled - i < batch ? sampled - i : batch;

        SL_TRY(load_rows(k, at, i, n, sampled, weighted));
        for (int type = 0; type < SL_TYPE_LIMIT; type++)
            if (m->types[at] >> type & 1 && !sum[type].failed)
                SL_TRY(try_type(k, type, at, i, n, sampled, weighted, &sum[type]));
    }
    for (int type = 0; type < SL_TYPE_LIMIT; type++) {
        end_matrix(&sum[type]);
        m->error[(size_t)at * SL_TYPE_LIMIT + (size_t)type] =
            sum[type].failed ? (double)NAN : sum[type].matrices ? sum[type].ratios / (double)sum[type].matrices : 0;
    }
    return 0;
}

static uint64_t bytes_read(const struct worker *k)
{
    return source_rows_bytes(k->rows) + (k->weights.synthetic ? synthetic_bytes(k->weights.synthetic) : 0);
}

static void *run(void *arg)
{
    struct worker *k = arg;
    struct measure *m = k->m;
    uint64_t read = 0;
    int rc = 0;

    while (rc == 0) {
        uint32_t at;
        uint64_t now;

        pthread_mutex_lock(&m->lock);
        at = m->rc < 0 || m->next == m->n ? UINT32_MAX : m->order[m->next++].tensor;
        pthread_mutex_unlock(&m->lock);
        if (at == UINT32_MAX)
            break;
        rc = measure_tensor(k, at);
        now = bytes_read(k);
        pthread_mutex_lock(&m->lock);
        if (rc < 0 && m->rc == 0) {
            m->rc = rc;
            m->first = k->e;
        }
        m->done += sampled_rows(m, &m->job->model->tensors[at]) * m->job->model->tensors[at].ne[0];
        m->read += now - read;
        read = now;
        pthread_mutex_unlock(&m->lock);
    }
    pthread_mutex_lock(&m->lock);
    m->running--;
    pthread_cond_signal(&m->ended);
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->tensor < y->tensor ? -1 : 1;
}

static int list_tensors(struct measure *m, struct sl_error *e)
{
    const struct sl_model *model = m->job->model;

    m->order = calloc((size_t)model->n_tensors + 1, sizeof *m->order);
    if (!m->order)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const struct sl_out_tensor *t = &model->tensors[i];
        const struct sl_src_tensor *src;

        if (!m->types[i])
            continue;
        if (t->n_src == 0 || model->src[t->first_src].tensor >= m->job->ck->n_tensors)
            return sl_fail(e, SL_EUSAGE, "%s: its weights are not here, and errors are measured on weights: give "
                           "the checkpoint's folder, downloaded", t->name);
        if (t->ne[0] > MEMORY / COLUMN_BYTES)
            return sl_fail(e, SL_EUNSUPPORTED, "tensor '%s': rows of %llu weights are too long to measure errors on: "
                           "write a recipe by hand", t->name, (unsigned long long)t->ne[0]);
        m->widest = t->ne[0] > m->widest ? t->ne[0] : m->widest;
        src = &m->job->ck->tensors[model->src[t->first_src].tensor];
        m->order[m->n++] = (struct place){i, src->file, src->offset};
        m->total += sampled_rows(m, t) * t->ne[0];
    }
    qsort(m->order, m->n, sizeof *m->order, by_place);
    return 0;
}

static int wait_for_all(struct measure *m)
{
    pthread_mutex_lock(&m->lock);
    while (m->running) {
        const struct timespec until = sl_deadline(WAIT_MS);

        pthread_cond_timedwait(&m->ended, &m->lock, &until);
        if (m->o->progress && m->rc == 0)
            m->o->progress(m->o->user, m->done, m->total, m->read);
    }
    pthread_mutex_unlock(&m->lock);
    return m->rc;
}

static void worker_close(struct worker *k)
{
    source_rows_close(k->rows);
    job_weights_close(&k->weights);
    free(k->x);
    free(k->w);
    free(k->y);
    free(k->packed);
}

static unsigned thread_count(const struct measure *m)
{
    unsigned n = m->o->threads ? m->o->threads : sl_usable_cores();
    uint64_t each = m->widest * COLUMN_BYTES + source_rows_kept(m->job->ck, m->job->model) * (m->job->synthetic ? 2 : 1);

    n = n > MOST_THREADS ? MOST_THREADS : n;
    if (each && n > MEMORY / each)
        n = each < MEMORY ? (unsigned)(MEMORY / each) : 1;
    return n > m->n ? m->n : n;
}

static int run_threads(struct measure *m, struct sl_error *e)
{
    unsigned n = thread_count(m), opened = 0, started = 0;
    struct worker *k = calloc(n + 1, sizeof *k);
    pthread_t *id = calloc(n + 1, sizeof *id);
    int rc = k && id ? 0 : sl_no_memory(e);

    for (; rc == 0 && opened < n; opened++) {
        k[opened].m = m;
        rc = source_rows_open(m->job->ck, m->job->model, &k[opened].rows, e);
        if (rc == 0)
            rc = job_weights_open(&k[opened].weights, m->job, &k[opened].load, e);
    }
    m->running = n;
    while (rc == 0 && started < n) {
        int err = pthread_create(&id[started], NULL, run, &k[started]);

        if (err == 0)
            started++;
        else
            rc = sl_fail_thread(e, err);
    }
    pthread_mutex_lock(&m->lock);
    m->running -= n - started;
    if (rc < 0 && m->rc == 0)
        m->rc = rc;
    pthread_mutex_unlock(&m->lock);
    if (wait_for_all(m) < 0 && rc == 0) {
        rc = m->rc;
        *e = m->first;
    }
    for (unsigned i = 0; i < started; i++)
        pthread_join(id[i], NULL);
    for (unsigned i = 0; i < opened; i++)
        worker_close(&k[i]);
    free(k);
    free(id);
    return rc;
}

int measure_errors(struct sl_job_plan *job, const uint64_t *types, const struct measure_opts *o,
                   double *error, struct measure_stats *stats, struct sl_error *e)
{
    struct measure m = {.job = job, .types = types, .o = o, .error = error,
                        .lock = PTHREAD_MUTEX_INITIALIZER};
    int rc = list_tensors(&m, e);

    sl_cond_init(&m.ended);
    if (rc == 0)
        rc = run_threads(&m, e);
    pthread_cond_destroy(&m.ended);
    *stats = (struct measure_stats){m.read, m.done, m.n};
    free(m.order);
    return rc;
}
