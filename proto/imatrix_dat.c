/* The DAT format. Its numbers are signed, so that every length is asked twice:
 * not negative, and not beyond the file. */
#include "proto/imatrix_parts.h"

#include "proto/source_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DATASET_MOST (1 << 20)

struct reader {
    struct sl_imatrix *im;
    uint64_t at;
    struct sl_error *e;
};

static int ends(const struct reader *r, const char *what)
{
    return sl_fail(r->e, SL_ESOURCE,
                   "imatrix %s: the file ends at byte %llu, inside entry %u (%s); it is cut off, or no "
                   "imatrix", r->im->path, (unsigned long long)r->im->file_size, r->im->n_entries, what);
}

static int number(struct reader *r, const char *what, int32_t *v)
{
    if (r->im->file_size - r->at < sizeof *v)
        return ends(r, what);
    SL_TRY(sl_source_read(r->im->fd, r->im->path, v, sizeof *v, r->at, r->e));
    r->at += sizeof *v;
    if (*v < 0)
        return sl_fail(r->e, SL_ESOURCE, "imatrix %s: byte %llu, entry %u: %s is %d; the file is "
                       "damaged, or no imatrix", r->im->path,
                       (unsigned long long)(r->at - sizeof *v), r->im->n_entries, what, *v);
    return 0;
}

static int tensor_name(struct reader *r, char buf[SL_IMATRIX_MAX_NAME], int32_t *n)
{
    static const char what[] = "length of the name";

    SL_TRY(number(r, what, n));
    if (*n > SL_IMATRIX_MAX_NAME)
        return sl_fail(r->e, SL_ESOURCE, "imatrix %s: byte %llu, entry %u: %s is %d, more than %d; the "
                       "file is damaged, or no imatrix", r->im->path,
                       (unsigned long long)(r->at - sizeof *n), r->im->n_entries, what, *n, SL_IMATRIX_MAX_NAME);
    if ((uint64_t)*n > r->im->file_size - r->at)
        return ends(r, what);
    SL_TRY(sl_source_read(r->im->fd, r->im->path, buf, (size_t)*n, r->at, r->e));
    r->at += (uint64_t)*n;
    return 0;
}

static int entry(struct reader *r)
{
    struct sl_imatrix_entry *x;
    char name[SL_IMATRIX_MAX_NAME];
    int32_t n, ncall, nval;

    SL_TRY(tensor_name(r, name, &n));
    SL_TRY(number(r, "number of calls", &ncall));
    SL_TRY(number(r, "number of values", &nval));
    if ((uint64_t)nval > (r->im->file_size - r->at) / sizeof(float))
        return ends(r, "values");
    if (nval == 0)
        return sl_fail(r->e, SL_ESOURCE, "imatrix %s: entry %u ('%.*s') has no values", r->im->path,
                       r->im->n_entries, n, name);
    SL_TRY(sl_imatrix_add(r->im, name, (uint64_t)n, &x, r->e));
    x->n = (uint64_t)nval;
    x->n_counts = 1;
    r->im->n_counts++;
    x->offset = r->at;
    x->counts = malloc(sizeof *x->counts);
    if (!x->counts)
        return sl_no_memory(r->e);
    x->counts[0] = (float)ncall;
    r->at += x->n * sizeof(float);
    return 0;
}

/* The data set's name, mostly a path. */
static int dataset(struct reader *r)
{
    char *name;
    int32_t n;
    int rc;

    SL_TRY(number(r, "length of the data set's name", &n));
    if ((uint64_t)n > r->im->file_size - r->at)
        return ends(r, "the data set's name");
    if (n > DATASET_MOST)
        return sl_fail(r->e, SL_ESOURCE, "imatrix %s: the data set's name has %d bytes, more than %d; the file is "
                       "damaged, or no imatrix", r->im->path, n, DATASET_MOST);
    if (n == 0)
        return 0;
    name = malloc((size_t)n);
    if (!name)
        return sl_no_memory(r->e);
    rc = sl_source_read(r->im->fd, r->im->path, name, (size_t)n, r->at, r->e);
    if (rc == 0)
        rc = sl_imatrix_add_dataset(r->im, name, strnlen(name, (size_t)n), r->e);
    free(name);
    r->at += (uint64_t)n;
    return rc;
}

/* Chunks and data set; absent in files from before 2024. */
static int trailer(struct reader *r)
{
    int32_t chunks;

    if (r->at == r->im->file_size)
        return 0;
    SL_TRY(number(r, "number of chunks", &chunks));
    r->im->n_chunks = (uint32_t)chunks;
    if (r->at == r->im->file_size)
        return 0;
    SL_TRY(dataset(r));
    if (r->at != r->im->file_size)
        return sl_fail(r->e, SL_ESOURCE, "imatrix %s: %llu bytes follow the data set's name; the file is "
                       "damaged, or no imatrix", r->im->path,
                       (unsigned long long)(r->im->file_size - r->at));
    return 0;
}

int sl_imatrix_read_dat(struct sl_imatrix *im, struct sl_error *e)
{
    struct reader r = {.im = im, .e = e};
    int32_t n;

    SL_TRY(number(&r, "number of entries", &n));
    if ((uint64_t)n > (im->file_size - r.at) / (3 * sizeof n))
        return sl_fail(e, SL_ESOURCE, "imatrix %s: %d entries in %llu bytes; the file is damaged, or no "
                       "imatrix", im->path, n, (unsigned long long)im->file_size);
    for (int32_t i = 0; i < n; i++)
        SL_TRY(entry(&r));
    return trailer(&r);
}

static int put_number(struct sl_imatrix_sink *s, uint64_t v, const char *what, struct sl_error *e)
{
    int32_t x = (int32_t)v;

    if (v > INT32_MAX)
        return sl_fail(e, SL_EUSAGE, "%s: the dat format cannot hold %llu %s", s->path,
                       (unsigned long long)v, what);
    return sl_imatrix_put(s, &x, sizeof x, e);
}

/* llama.cpp's ncall for sums with counts is the largest count in chunks, rounded up; here
 * the power of two at or above it, by which multiplying and dividing is exact. */
static uint32_t ncall_of(const struct sl_imatrix *im, const struct sl_imatrix_entry *x)
{
    float most = 0, chunk = (float)(im->chunk_size ? im->chunk_size : SL_IMATRIX_CHUNK);
    uint32_t n = 1;

    if (im->format == SL_IMATRIX_DAT)
        return (uint32_t)x->counts[0];
    for (uint64_t i = 0; i < x->n_counts; i++)
        most = x->counts[i] > most ? x->counts[i] : most;
    while (n < 1u << 30 && (float)n * chunk < most)
        n *= 2;
    return n;
}

/* Values at .. at + n of entry i as a dat file has them: those of one call times the calls. */
static int dat_values(const struct sl_imatrix *im, uint32_t i, uint64_t at, uint64_t n, uint32_t ncall,
                      float *out, const struct sl_imatrix_sink *s, struct sl_error *e)
{
    if (im->format == SL_IMATRIX_DAT)
        return sl_imatrix_stored(im, i, at, n, out, e);
    SL_TRY(sl_imatrix_values(im, i, at, n, out, e));
    for (uint64_t k = 0; k < n; k++) {
        out[k] *= (float)ncall;
        if (isinf(out[k]))
            return sl_fail(e, SL_EUSAGE, "%s: a value of entry '%s' is too large for the dat format", s->path,
                           im->entries[i].name);
    }
    return 0;
}

int sl_imatrix_put_dat(const struct sl_imatrix *im, const uint32_t *order, struct sl_imatrix_sink *s,
                       struct sl_error *e)
{
    const char *dataset = im->n_datasets ? im->datasets[0] : "";
    float piece[SL_IMATRIX_PIECE / 4];

    if (strlen(dataset) > DATASET_MOST)
        return sl_fail(e, SL_EUSAGE, "%s: the data set's name has %zu bytes; at most %d are read from a dat file", s->path,
                       strlen(dataset), DATASET_MOST);
    SL_TRY(put_number(s, im->n_entries, "entries", e));
    for (uint32_t k = 0; k < im->n_entries; k++) {
        const struct sl_imatrix_entry *x = &im->entries[order[k]];
        uint32_t ncall = ncall_of(im, x);
        uint64_t most = sizeof piece / sizeof *piece;

        SL_TRY(put_number(s, strlen(x->name), "bytes of a name", e));
        SL_TRY(sl_imatrix_put(s, x->name, strlen(x->name), e));
        SL_TRY(put_number(s, ncall, "calls", e));
        SL_TRY(put_number(s, x->n, "values of one entry", e));
        for (uint64_t at = 0; at < x->n; at += most) {
            uint64_t n = x->n - at < most ? x->n - at : most;

            SL_TRY(dat_values(im, order[k], at, n, ncall, piece, s, e));
            SL_TRY(sl_imatrix_put(s, piece, n * sizeof *piece, e));
        }
    }
    SL_TRY(put_number(s, im->n_chunks, "chunks", e));
    SL_TRY(put_number(s, strlen(dataset), "bytes of a data set's name", e));
    return sl_imatrix_put(s, dataset, strlen(dataset), e);
}
