/* The GGUF format of importance matrices. */
#include "proto/imatrix_parts.h"

#include "proto/gguf.h"
#include "proto/source_file.h"
#include "proto/suffix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SUMS ".in_sum2"
#define COUNTS ".counts"
#define KEY_DATASETS "imatrix.datasets"
#define KEY_CHUNKS "imatrix.chunk_count"
#define KEY_CHUNK_SIZE "imatrix.chunk_size"

static int mismatch(const struct sl_imatrix *im, const char *name, const char *what,
                    struct sl_error *e)
{
    return sl_fail(e, SL_ESOURCE, "imatrix %s: tensor '%s': %s", im->path, name, what);
}

static int read_kvs(struct sl_imatrix *im, const struct sl_kvs *kvs, struct sl_error *e)
{
    const struct sl_kv *sets = sl_kvs_find(kvs, KEY_DATASETS);

    if (!sets || sets->type != SL_KV_ARR || sets->elem != SL_KV_STR
        || !sl_kvs_get_u32(kvs, KEY_CHUNKS, &im->n_chunks)
        || !sl_kvs_get_u32(kvs, KEY_CHUNK_SIZE, &im->chunk_size))
        return sl_fail(e, SL_ESOURCE, "%s is a GGUF file, but no imatrix: it needs the keys "
                       KEY_DATASETS " (list of strings), " KEY_CHUNKS " and " KEY_CHUNK_SIZE " (u32)",
                       im->path);
    for (uint64_t i = 0; i < sets->n; i++)
        SL_TRY(sl_imatrix_add_dataset(im, sets->strs[i], sets->str_len[i], e));
    return 0;
}

static int read_counts(struct sl_imatrix *im, const struct sl_gguf *g,
                       const struct sl_gguf_tensor *t, struct sl_imatrix_entry *x,
                       struct sl_error *e)
{
    if (x->n_counts > SL_IMATRIX_MAX_COUNTS - im->n_counts)
        return sl_fail(e, SL_ESOURCE, "imatrix %s: tensor '%s': more than %u counts in all", im->path, t->name,
                       SL_IMATRIX_MAX_COUNTS);
    im->n_counts += x->n_counts;
    x->counts = malloc(t->bytes);
    if (!x->counts)
        return sl_no_memory(e);
    SL_TRY(sl_source_read(im->fd, im->path, x->counts, t->bytes, g->header_bytes + t->offset, e));
    for (uint64_t i = 0; i < x->n_counts; i++) {
        if (!isfinite(x->counts[i]) || x->counts[i] < 0)
            return sl_fail(e, SL_ESOURCE, "imatrix %s: tensor '%s': count %llu is %g; 0 or more was "
                           "expected", im->path, t->name, (unsigned long long)i,
                           (double)x->counts[i]);
        x->counts[i] = roundf(x->counts[i]); /* as llama.cpp reads them */
        x->n_zero += x->counts[i] == 0;
    }
    return 0;
}

/* g's tensors are sums here; their counts are looked up. */
static int read_sums(struct sl_imatrix *im, const struct sl_gguf *g, const struct sl_name_table *names,
                     const struct sl_gguf_tensor *t, size_t n, struct sl_error *e)
{
    struct sl_imatrix_entry *x;
    const struct sl_gguf_tensor *c;
    char name[2 * SL_NAME_MAX];
    uint32_t i;

    snprintf(name, sizeof name, "%.*s" COUNTS, (int)n, t->name);
    i = sl_name_table_find(names, name);
    if (i == SL_NO_NAME)
        return mismatch(im, t->name, "its counts are missing", e);
    c = &g->tensors[i];
    if (t->type != SL_TYPE_F32 || c->type != SL_TYPE_F32)
        return mismatch(im, t->name, "it and its counts must be F32", e);
    SL_TRY(sl_imatrix_add(im, t->name, n, &x, e));
    x->n = t->bytes / sizeof(float);
    x->n_counts = c->bytes / sizeof(float);
    x->offset = g->header_bytes + t->offset;
    if (x->n == 0 || x->n_counts == 0 || x->n % x->n_counts)
        return sl_fail(e, SL_ESOURCE, "imatrix %s: tensor '%s': %llu sums do not go with %llu counts",
                       im->path, t->name, (unsigned long long)x->n, (unsigned long long)x->n_counts);
    return read_counts(im, g, c, x, e);
}

static int read_tensors(struct sl_imatrix *im, const struct sl_gguf *g,
                        const struct sl_name_table *names, struct sl_error *e)
{
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct sl_gguf_tensor *t = &g->tensors[i];
        size_t n = sl_stem(t->name, SUMS), k = sl_stem(t->name, COUNTS);
        char name[2 * SL_NAME_MAX];

        if (n) {
            SL_TRY(read_sums(im, g, names, t, n, e));
        } else if (k) {
            snprintf(name, sizeof name, "%.*s" SUMS, (int)k, t->name);
            if (sl_name_table_find(names, name) == SL_NO_NAME)
                return mismatch(im, t->name, "its sums are missing", e);
        } else {
            im->n_foreign++;
        }
    }
    return 0;
}

int sl_imatrix_read_gguf(struct sl_imatrix *im, struct sl_error *e)
{
    struct sl_name_table names = {.n = 0};
    const struct sl_source_stat st = {im->file_size, im->mtime_ns};
    struct sl_gguf *g;
    int rc;

    SL_TRY(sl_gguf_read(im->fd, &st, im->path, &g, e));
    rc = read_kvs(im, &g->kvs, e);
    if (rc == 0)
        rc = sl_name_table_init(&names, g->n_tensors, e);
    for (uint64_t i = 0; rc == 0 && i < g->n_tensors; i++)
        rc = sl_name_table_add(&names, g->tensors[i].name, (uint32_t)i, NULL, e);
    if (rc == 0)
        rc = read_tensors(im, g, &names, e);
    sl_name_table_free(&names);
    sl_gguf_close(g);
    return rc;
}

static int put_kvs(const struct sl_imatrix *im, struct sl_kvs *kvs)
{
    SL_TRY(sl_kvs_set_str(kvs, "general.type", "imatrix"));
    SL_TRY(sl_kvs_set_strs(kvs, KEY_DATASETS, (const char *const *)im->datasets, im->n_datasets));
    SL_TRY(sl_kvs_set_u32(kvs, KEY_CHUNKS, im->n_chunks));
    return sl_kvs_set_u32(kvs, KEY_CHUNK_SIZE, im->chunk_size ? im->chunk_size : SL_IMATRIX_CHUNK);
}

static int name_tensor(struct sl_gguf_tensor *t, const char *name, const char *suffix, uint64_t ne0,
                       uint64_t ne1, uint64_t *offset)
{
    int n = snprintf(t->name, sizeof t->name, "%s%s", name, suffix);

    t->n_dims = 2;
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->type = SL_TYPE_F32;
    t->bytes = ne0 * ne1 * sizeof(float);
    t->offset = *offset;
    *offset += sl_gguf_padded(t->bytes);
    return n < 0 || (size_t)n >= sizeof t->name ? SL_EUSAGE : 0;
}

static int put_header(const struct sl_imatrix *im, const uint32_t *order, struct sl_imatrix_sink *s,
                      struct sl_error *e)
{
    struct sl_gguf_tensor *t = calloc((size_t)im->n_entries * 2 + 1, sizeof *t);
    struct sl_kvs kvs = {0};
    uint64_t offset = 0, len = 0;
    uint8_t *header = NULL;
    int rc = t ? 0 : SL_EFAIL;

    for (uint32_t k = 0; rc == 0 && k < im->n_entries; k++) {
        const struct sl_imatrix_entry *x = &im->entries[order[k]];

        rc = name_tensor(&t[2 * k], x->name, SUMS, x->n / x->n_counts, x->n_counts, &offset);
        if (rc == 0)
            rc = name_tensor(&t[2 * k + 1], x->name, COUNTS, 1, x->n_counts, &offset);
        if (rc < 0)
            sl_fail(e, rc, "%s: the name of entry '%s' is too long for GGUF", s->path, x->name);
    }
    if (rc == 0)
        rc = put_kvs(im, &kvs);
    if (rc == 0)
        rc = sl_gguf_header(&kvs, t, 2 * (uint64_t)im->n_entries, &header, &len);
    if (rc == SL_EFAIL)
        sl_fail(e, rc, "out of memory");
    if (rc == 0)
        rc = sl_imatrix_put(s, header, len, e);
    sl_kvs_free(&kvs);
    free(header);
    free(t);
    return rc;
}

static int pad(struct sl_imatrix_sink *s, uint64_t bytes, struct sl_error *e)
{
    static const uint8_t zeros[SL_GGUF_ALIGN];

    return sl_imatrix_put(s, zeros, sl_gguf_padded(bytes) - bytes, e);
}

/* Sums and counts of one entry; those of DAT as if its calls were chunks. */
static int put_entry(const struct sl_imatrix *im, uint32_t i, struct sl_imatrix_sink *s,
                     struct sl_error *e)
{
    const struct sl_imatrix_entry *x = &im->entries[i];
    float piece[SL_IMATRIX_PIECE / 4], factor = im->format == SL_IMATRIX_DAT ? SL_IMATRIX_CHUNK : 1;
    uint64_t most = sizeof piece / sizeof *piece;

    for (uint64_t at = 0; at < x->n; at += most) {
        uint64_t n = x->n - at < most ? x->n - at : most;

        SL_TRY(sl_imatrix_stored(im, i, at, n, piece, e));
        for (uint64_t k = 0; k < n; k++) {
            piece[k] *= factor;
            if (isinf(piece[k]))
                return sl_fail(e, SL_EUSAGE, "%s: a value of entry '%s' is too large for sums", s->path,
                               x->name);
        }
        SL_TRY(sl_imatrix_put(s, piece, n * sizeof *piece, e));
    }
    SL_TRY(pad(s, x->n * sizeof *piece, e));
    for (uint64_t k = 0; k < x->n_counts; k++) {
        float count = x->counts[k];

        if (im->format == SL_IMATRIX_DAT)
            count = (count > 0 ? count : 1) * factor;
        SL_TRY(sl_imatrix_put(s, &count, sizeof count, e));
    }
    return pad(s, x->n_counts * sizeof(float), e);
}

int sl_imatrix_put_gguf(const struct sl_imatrix *im, const uint32_t *order, struct sl_imatrix_sink *s,
                        struct sl_error *e)
{
    SL_TRY(put_header(im, order, s, e));
    for (uint32_t k = 0; k < im->n_entries; k++)
        SL_TRY(put_entry(im, order[k], s, e));
    return 0;
}
