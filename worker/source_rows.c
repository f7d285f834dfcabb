#include "worker/source_rows.h"

#include "kernels/kernels.h"
#include "proto/source_file.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPEN_FILES 8
#define HEAD_KEPT ((uint64_t)1 << 20) /* weights */
#define WINDOW_BYTES ((uint64_t)8 << 20)

struct open_file {
    uint32_t file;
    int fd; /* -1: closed */
    uint64_t used;
};

/* Columns [first, first + n) of a matrix of words or halves whose columns are read, line by line. */
enum { WINDOW_CODES, WINDOW_SCALES, WINDOW_ZEROS, WINDOWS };
struct window {
    uint8_t *data;
    uint64_t room, first, n;
    uint32_t tensor;
};

struct source_rows {
    const struct sl_checkpoint *ck;
    const struct sl_model *m;
    struct open_file files[OPEN_FILES];
    uint64_t calls, bytes;
    uint8_t *raw;          /* stored elements of a piece of a row */
    uint64_t raw_room;
    float *scale;          /* one row of a scale tensor */
    uint64_t scale_room, scale_row;
    uint32_t scale_tensor;
    int16_t *zero;         /* zero points of that row, */
    uint32_t *group;       /* and of each column its group, of packed integers */
    uint64_t zero_room, group_room;
    uint32_t group_tensor;
    struct window window[WINDOWS]; /* of packed integers whose rows lie side by side */
    float *head;           /* a head's K matrix, as stored: nope rows of lora columns */
    uint64_t head_room, head_at;
    const struct sl_out_tensor *head_of;
};

int source_rows_open(const struct sl_checkpoint *ck, const struct sl_model *m,
                     struct source_rows **out, struct sl_error *e)
{
    struct source_rows *r = calloc(1, sizeof *r);

    *out = r;
    if (!r)
        return sl_no_memory(e);
    r->ck = ck;
    r->m = m;
    r->scale_tensor = r->group_tensor = SL_NO_TENSOR;
    for (int i = 0; i < WINDOWS; i++)
        r->window[i].tensor = SL_NO_TENSOR;
    for (int i = 0; i < OPEN_FILES; i++)
        r->files[i].fd = -1;
    return 0;
}

void source_rows_close(struct source_rows *r)
{
    if (!r)
        return;
    for (int i = 0; i < OPEN_FILES; i++)
        if (r->files[i].fd >= 0)
            close(r->files[i].fd);
    for (int i = 0; i < WINDOWS; i++)
        free(r->window[i].data);
    free(r->raw);
    free(r->scale);
    free(r->zero);
    free(r->group);
    free(r->head);
    free(r);
}

uint64_t source_rows_bytes(const struct source_rows *r)
{
    return r->bytes;
}

static int room(void **p, uint64_t *have, uint64_t bytes, struct sl_error *e)
{
    if (bytes <= *have)
        return 0;
    free(*p);
    *p = malloc(bytes);
    *have = *p ? bytes : 0;
    return *p ? 0 : sl_no_memory(e);
}

static int file_of(struct source_rows *r, uint32_t file, int *fd, struct sl_error *e)
{
    const struct sl_src_file *f = &r->ck->files[file];
    struct open_file *o = &r->files[0];
    struct sl_source_stat st;
    int rc = 0;

    r->calls++;
    for (int i = 0; i < OPEN_FILES; i++) {
        if (r->files[i].fd >= 0 && r->files[i].file == file) {
            r->files[i].used = r->calls;
            *fd = r->files[i].fd;
            return 0;
        }
        if (r->files[i].used < o->used)
            o = &r->files[i];
    }
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
    o->file = file;
    SL_TRY(sl_source_open_path(f->path, r->ck->roots, &o->fd, &st, e));
    if (st.size != f->size || st.mtime_ns != f->mtime_ns)
        rc = sl_fail(e, SL_ESOURCE, "%s was changed while it was in use", f->path);
    if (rc < 0) {
        close(o->fd);
        o->fd = -1;
        return rc;
    }
    /* Readahead would bring in far more than the sample. */
    (void)posix_fadvise(o->fd, 0, 0, POSIX_FADV_RANDOM);
    o->used = r->calls;
    *fd = o->fd;
    return 0;
}

/* Bytes of a checkpoint tensor, which has them. */
static int stored_bytes(struct source_rows *r, uint32_t tensor, uint64_t from, uint64_t bytes, void *to, struct sl_error *e)
{
    const struct sl_src_tensor *t = &r->ck->tensors[tensor];
    int fd = -1;

    SL_TRY(file_of(r, t->file, &fd, e));
    r->bytes += bytes;
    return sl_source_read(fd, r->ck->files[t->file].path, to, bytes, t->offset + from, e);
}

/* Elements first .. first + n of a checkpoint tensor, as stored. */
static int stored(struct source_rows *r, uint32_t tensor, uint64_t first, uint64_t n, void *to,
                  struct sl_error *e)
{
    const struct sl_src_tensor *t = &r->ck->tensors[tensor];
    const struct sl_dtype_info *d = sl_dtype_info((int)t->dtype);

    if (first > t->elems || n > t->elems - first || first % d->block || n % d->block)
        return sl_fail(e, SL_EUNSUPPORTED, "tensor '%s': rows do not fit its blocks", t->name);
    return stored_bytes(r, tensor, first / d->block * d->bytes, n / d->block * d->bytes, to, e);
}

/* Has the window hold column `at` of a tensor that is `lines` of `cols` words or halves, and as many beside it as there is room for. */
static int look_at(struct source_rows *r, struct window *w, uint32_t tensor, uint64_t width, uint64_t cols, uint64_t lines, uint64_t at,
                   struct sl_error *e)
{
    uint64_t most = WINDOW_BYTES / width / lines, n = most < cols ? most : cols;

    if (w->tensor == tensor && at >= w->first && at - w->first < w->n)
        return 0;
    n = n ? n : 1;
    w->tensor = SL_NO_TENSOR;
    SL_TRY(room((void **)&w->data, &w->room, n * lines * width, e));
    w->first = at / n * n;
    w->n = n < cols - w->first ? n : cols - w->first;
    if (w->n == cols)
        SL_TRY(stored_bytes(r, tensor, 0, lines * cols * width, w->data, e));
    for (uint64_t i = 0; i < lines && w->n < cols; i++)
        SL_TRY(stored_bytes(r, tensor, (i * cols + w->first) * width, w->n * width, w->data + i * w->n * width, e));
    w->tensor = tensor;
    return 0;
}

/* What a window onto that matrix takes. */
static uint64_t window_bytes(uint64_t width, uint64_t cols, uint64_t lines)
{
    uint64_t all = width * cols * lines, least = width * lines;

    return all < WINDOW_BYTES ? all : least > WINDOW_BYTES ? least : WINDOW_BYTES;
}

/* Weights of a head that stays in memory; 0: none does, or it is too large. */
static uint64_t head_kept(const struct sl_out_tensor *t, const struct sl_model_src *s)
{
    uint64_t n = (uint64_t)t->nope * t->lora;

    return t->transform == SL_K_B && s->cols == t->lora && n <= HEAD_KEPT ? n : 0;
}

uint64_t source_rows_kept(const struct sl_checkpoint *ck, const struct sl_model *m)
{
    uint64_t most[WINDOWS] = {0}, head = 0, sum;

    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].n_src && head_kept(&m->tensors[i], &m->src[m->tensors[i].first_src]) > head)
            head = head_kept(&m->tensors[i], &m->src[m->tensors[i].first_src]);
    sum = head * sizeof(float);
    for (uint64_t i = 0; i < m->n_src; i++) {
        const struct sl_model_src *s = &m->src[i];
        const struct sl_scale *sc = &s->scale;
        uint64_t bits = sl_packed_bits(s->dtype), in_word = bits ? 32 / bits : 1, bytes[WINDOWS];

        if (sc->packing == SL_PACKED_ALONG || sc->tensor == SL_NO_TENSOR)
            continue;
        bytes[WINDOW_CODES] = sc->packing == SL_PACKED_AWQ ? window_bytes(sizeof(uint32_t), s->rows / in_word, s->cols)
                                                           : window_bytes(sizeof(uint32_t), s->rows, s->cols / in_word);
        bytes[WINDOW_SCALES] = window_bytes(sl_dtype_info((int)ck->tensors[sc->tensor].dtype)->bytes, sc->rows, sc->cols);
        bytes[WINDOW_ZEROS] = window_bytes(sizeof(uint32_t), sc->rows / in_word, sc->cols);
        for (int k = 0; k < WINDOWS; k++)
            most[k] = bytes[k] > most[k] ? bytes[k] : most[k];
    }
    for (int k = 0; k < WINDOWS; k++)
        sum += most[k];
    return sum;
}

/* Lines from .. from + n of that column. */
static int column(struct source_rows *r, int window, uint32_t tensor, uint64_t cols, uint64_t lines, uint64_t at, uint64_t from, uint64_t n,
                  uint8_t *to, struct sl_error *e)
{
    enum sl_dtype dtype = r->ck->tensors[tensor].dtype;
    uint64_t width = window == WINDOW_SCALES ? sl_dtype_info((int)dtype)->bytes : sizeof(uint32_t);
    struct window *w = &r->window[window];

    SL_TRY(look_at(r, w, tensor, width, cols, lines, at, e));
    for (uint64_t i = 0; i < n; i++)
        memcpy(to + i * width, w->data + ((from + i) * w->n + at - w->first) * width, width);
    return 0;
}

/* r->zero = the zero points of a row; bits: of one. */
static int load_zeros(struct source_rows *r, const struct sl_scale *s, unsigned bits, uint64_t row, struct sl_error *e)
{
    unsigned in_word = 32 / bits;
    uint64_t bytes = s->cols * sizeof(uint32_t);
    uint32_t word;

    SL_TRY(room((void **)&r->zero, &r->zero_room, s->cols * sizeof *r->zero, e));
    SL_TRY(room((void **)&r->raw, &r->raw_room, bytes, e));
    if (s->packing == SL_PACKED_ALONG)
        SL_TRY(stored(r, s->zeros - 1, row / in_word * s->cols, s->cols, r->raw, e));
    else
        SL_TRY(column(r, WINDOW_ZEROS, s->zeros - 1, s->rows / in_word, s->cols, row / in_word, 0, s->cols, r->raw, e));
    for (uint64_t i = 0; i < s->cols; i++) {
        memcpy(&word, r->raw + i * sizeof word, sizeof word);
        r->zero[i] = (int16_t)((word >> sl_packed_shift(s->packing, bits, row) & ((1u << bits) - 1)) + s->zero_plus);
    }
    return 0;
}

/* r->scale = scale row `row` of a weight's scales; where there are zero points, these too, of so many bits. */
static int load_scales(struct source_rows *r, const struct sl_scale *s, unsigned bits, uint64_t row, struct sl_error *e)
{
    const struct sl_src_tensor *t = &r->ck->tensors[s->tensor];
    uint64_t bytes = s->cols * sizeof *r->scale, bad = 0;
    struct sl_source src = {.dtype = t->dtype, .cols = s->cols, .block_rows = 1, .block_cols = 1};
    bool exponents = t->dtype == SL_DTYPE_F8_E8M0 || t->dtype == SL_DTYPE_U8;

    if (r->scale_tensor == s->tensor && r->scale_row == row)
        return 0;
    r->scale_tensor = SL_NO_TENSOR;
    SL_TRY(room((void **)&r->scale, &r->scale_room, bytes, e));
    SL_TRY(room((void **)&r->raw, &r->raw_room, bytes, e));
    if (s->packing == SL_PACKED_ALONG)
        SL_TRY(stored(r, s->tensor, row * s->cols, s->cols, r->raw, e));
    else
        SL_TRY(column(r, WINDOW_SCALES, s->tensor, s->rows, s->cols, row, 0, s->cols, r->raw, e));
    src.data = r->raw;
    if (!exponents && sl_load_f32(&src, 0, s->cols, r->scale, &bad) == SL_EUNSUPPORTED)
        return sl_fail(e, SL_EUNSUPPORTED, "tensor '%s' holds scales as %s", t->name,
                       sl_dtype_info((int)t->dtype)->name);
    for (uint64_t i = 0; i < s->cols; i++) {
        if (exponents)
            r->scale[i] = r->raw[i] == 255 ? NAN : ldexpf(1.0f, (int)r->raw[i] - 127);
        if (!isfinite(r->scale[i]) || (!s->any_sign && r->scale[i] < 0))
            return sl_fail(e, SL_ESOURCE, "tensor '%s': scale [%llu, %llu] is %g, expected a finite "
                           "number%s: the source is damaged", t->name, (unsigned long long)row, (unsigned long long)i,
                           (double)r->scale[i], s->any_sign ? "" : ", 0 or above");
    }
    if (s->zeros)
        SL_TRY(load_zeros(r, s, bits, row, e));
    r->scale_tensor = s->tensor;
    r->scale_row = row;
    return 0;
}

/* r->group = the groups of columns. */
static int load_groups(struct source_rows *r, const struct sl_scale *s, uint64_t cols, struct sl_error *e)
{
    uint32_t tensor = s->order - 1;

    if (r->group_tensor == tensor)
        return 0;
    r->group_tensor = SL_NO_TENSOR;
    SL_TRY(room((void **)&r->group, &r->group_room, cols * sizeof *r->group, e));
    SL_TRY(stored(r, tensor, 0, cols, r->group, e));
    for (uint64_t i = 0; i < cols; i++)
        if (r->group[i] >= s->cols)
            return sl_fail(e, SL_ESOURCE, "tensor '%s': column %llu is of group %d, expected 0 to %llu: the source is damaged",
                           r->ck->tensors[tensor].name, (unsigned long long)i, (int)r->group[i], (unsigned long long)s->cols - 1);
    r->group_tensor = tensor;
    return 0;
}

static int codes_of_awq(struct source_rows *r, const struct sl_model_src *s, uint64_t row, uint64_t col, uint64_t n, struct sl_source *src,
                        struct sl_error *e)
{
    uint8_t *words = r->raw + n; /* of the room for eight bytes each */
    uint32_t word;

    src->first = col / 2 * 2;
    SL_TRY(column(r, WINDOW_CODES, s->tensor, s->rows / 8, s->cols, row / 8, col, n, words, e));
    memset(r->raw, 0, n / 2 + 1);
    for (uint64_t i = 0; i < n; i++) {
        memcpy(&word, words + i * sizeof word, sizeof word);
        r->raw[(col + i - src->first) / 2] |= (uint8_t)((word >> sl_packed_shift(SL_PACKED_AWQ, 4, row) & 15) << (col + i) % 2 * 4);
    }
    return 0;
}

/* n elements of a row from col on, as stored, to where src then has them; of rows that lie side by side the words with them. */
static int codes(struct source_rows *r, const struct sl_model_src *s, uint64_t row, uint64_t col, uint64_t n, struct sl_source *src,
                 struct sl_error *e)
{
    uint64_t bits = sl_packed_bits(s->dtype), in_word = bits ? 32 / bits : 1, word = col / in_word, words = (col + n - 1) / in_word - word + 1;

    src->data = r->raw;
    if (s->scale.packing == SL_PACKED_ALONG)
        return stored(r, s->tensor, row * s->cols + col, n, r->raw, e);
    if (s->scale.packing == SL_PACKED_AWQ)
        return codes_of_awq(r, s, row, col, n, src, e);
    src->first = word * in_word;
    SL_TRY(column(r, WINDOW_CODES, s->tensor, s->rows, s->cols / in_word, row, word, words, r->raw, e));
    if (bits == 2)
        sl_packed_widen(r->raw, words, r->raw);
    return 0;
}

/* Elements first .. first + n of a source's matrix, row-major. */
static int elements(struct source_rows *r, const struct sl_model_src *s, uint64_t first, uint64_t n,
                    float *out, struct sl_error *e)
{
    const struct sl_src_tensor *t = &r->ck->tensors[s->tensor];

    if (s->cols == 0)
        return sl_fail(e, SL_EFAIL, "tensor '%s' has no columns", t->name);
    while (n) {
        uint64_t row = first / s->cols, col = first % s->cols, bad = 0;
        uint64_t take = s->cols - col < n ? s->cols - col : n;
        struct sl_source src = {.dtype = s->dtype == SL_DTYPE_I2 ? SL_DTYPE_I4 : s->dtype, .cols = s->cols, .first = col, .block_rows = 1,
                                .block_cols = 1};
        int rc;

        if (s->scale.tensor != SL_NO_TENSOR) {
            SL_TRY(load_scales(r, &s->scale, sl_packed_bits(s->dtype), sl_scale_row(&s->scale, row), e));
            src.scale = r->scale;
            src.zero = s->scale.zeros ? r->zero : NULL;
            src.scale_cols = s->scale.cols;
            src.block_cols = s->scale.block_cols;
        }
        if (s->scale.order) {
            SL_TRY(load_groups(r, &s->scale, s->cols, e));
            src.group = r->group;
        }
        SL_TRY(room((void **)&r->raw, &r->raw_room, take * 8 + 32, e));
        SL_TRY(codes(r, s, row, col, take, &src, e));
        rc = sl_load_f32(&src, col - src.first, take, out, &bad);
        if (rc == SL_ESOURCE)
            return sl_fail(e, rc, "tensor '%s' in '%s': row %llu, column %llu is NaN or infinite; the "
                           "source is damaged", t->name, r->ck->files[t->file].path,
                           (unsigned long long)row, (unsigned long long)bad);
        if (rc < 0)
            return sl_fail(e, rc, "tensor '%s' holds %s, which are no weights", t->name,
                           sl_dtype_info((int)s->dtype)->name);
        first += take;
        out += take;
        n -= take;
    }
    return 0;
}

/* Row [c] of a head's transposed K matrix; the head stays in memory for the next, but for a large one, as an expert's. */
static int k_row(struct source_rows *r, const struct sl_out_tensor *t, const struct sl_model_src *s,
                 uint64_t row, float *out, struct sl_error *e)
{
    uint64_t head = row / t->lora, c = row % t->lora, n = t->nope * t->lora;
    uint64_t first = head * (t->nope + t->v_dim) * s->cols + t->col0;

    if (!head_kept(t, s)) {
        for (uint64_t i = 0; i < t->nope; i++)
            SL_TRY(elements(r, s, first + i * s->cols + c, 1, out + i, e));
        return 0;
    }
    if (r->head_of != t || r->head_at != head) {
        r->head_of = NULL;
        SL_TRY(room((void **)&r->head, &r->head_room, n * sizeof *r->head, e));
        SL_TRY(elements(r, s, first, n, r->head, e));
        r->head_of = t;
        r->head_at = head;
    }
    for (uint64_t i = 0; i < t->nope; i++)
        out[i] = r->head[i * t->lora + c];
    return 0;
}

static int viewed(struct source_rows *r, const struct sl_view *v, const struct sl_model_src *s, uint64_t first, uint64_t n,
                  float *out, struct sl_error *e)
{
    while (n) {
        uint64_t len, from = sl_view_place(v, first, &len);

        len = len < n ? len : n;
        SL_TRY(elements(r, s, from, len, out, e));
        first += len;
        out += len;
        n -= len;
    }
    return 0;
}

static int row_as_stored(struct source_rows *r, const struct sl_out_tensor *t, uint64_t row, float *out, struct sl_error *e)
{
    uint64_t n = t->ne[0], first = row * n, run = t->n_src ? t->elems / t->n_src : 0, in, d;
    const struct sl_model_src *s;

    if (n == 0 || row >= t->elems / n)
        return sl_fail(e, SL_EFAIL, "tensor %s: no row %llu", t->name, (unsigned long long)row);
    if (t->transform == SL_INLINE) {
        memcpy(out, t->values + first, n * sizeof *out);
        return 0;
    }
    if (t->transform == SL_PRODUCT || t->transform == SL_FIRST)
        return sl_fail(e, SL_EUNSUPPORTED, "tensor %s: its rows cannot be read one by one", t->name);
    if (run == 0 || first % run + n > run)
        return sl_fail(e, SL_EUNSUPPORTED, "tensor %s: a row spans two tensors of the source", t->name);
    s = &r->m->src[t->first_src + first / run];
    in = first % run / n;
    switch (t->transform) {
    case SL_VIEW:
        return viewed(r, t->view, s, first, n, out, e);
    case SL_PERMUTE:
        d = t->heads ? run / n / t->heads : 0;
        if (t->n_dims < 2 || d < 2)
            break;
        in = in / d * d + in % d % 2 * (d / 2) + in % d / 2;
        return elements(r, s, in * n, n, out, e);
    case SL_K_B:
        if (n == t->nope && t->lora)
            return k_row(r, t, s, in, out, e);
        break;
    case SL_V_B:
        if (n == t->lora && t->v_dim)
            return elements(r, s, (in / t->v_dim * (t->nope + t->v_dim) + t->nope + in % t->v_dim) * n, n,
                            out, e);
        break;
    default:
        return elements(r, s, in * n, n, out, e);
    }
    return sl_fail(e, SL_EUNSUPPORTED, "tensor %s: its rows cannot be read one by one", t->name);
}

int source_row(struct source_rows *r, const struct sl_out_tensor *t, uint64_t row, float *out,
               struct sl_error *e)
{
    uint64_t bad;

    SL_TRY(row_as_stored(r, t, row, out, e));
    if (!t->change || sl_change_values(t->change, r->m->src[t->first_src].dtype, out, t->ne[0], &bad) == 0)
        return 0;
    return sl_fail(e, SL_ESOURCE, "tensor %s: column %llu would be infinite; the source is damaged", t->name, (unsigned long long)bad);
}
