#include "proto/imatrix_parts.h"
#include "proto/source_file.h"
#include "proto/tensor_hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_PIECE (1u << 20)

static int no_memory(const struct sl_imatrix *im, struct sl_error *e)
{
    return sl_fail(e, SL_EFAIL, "imatrix %s: out of memory", im->path);
}

int sl_imatrix_add(struct sl_imatrix *im, const char *name, uint64_t n,
                   struct sl_imatrix_entry **entry, struct sl_error *e)
{
    struct sl_imatrix_entry *p;
    uint32_t held;

    if (n == 0 || n > SL_IMATRIX_MAX_NAME || memchr(name, 0, n))
        return sl_fail(e, SL_ESOURCE, "imatrix %s: entry %u has no possible tensor name", im->path,
                       im->n_entries);
    if (im->n_entries == SL_IMATRIX_MAX_ENTRIES)
        return sl_fail(e, SL_ESOURCE, "imatrix %s: more than %u entries", im->path, SL_IMATRIX_MAX_ENTRIES);
    if ((im->n_entries & (im->n_entries - 1)) == 0) { /* room grows at powers of two */
        p = realloc(im->entries, (im->n_entries ? 2 * (size_t)im->n_entries : 1) * sizeof *p);
        if (!p)
            return no_memory(im, e);
        im->entries = p;
    }
    p = &im->entries[im->n_entries];
    memset(p, 0, sizeof *p);
    p->name = strndup(name, n);
    if (!p->name)
        return no_memory(im, e);
    im->n_entries++;
    SL_TRY(sl_name_table_add(&im->names, p->name, im->n_entries - 1, &held, e));
    if (held != im->n_entries - 1)
        return sl_fail(e, SL_ESOURCE, "imatrix %s: entry '%s' is there twice", im->path, p->name);
    *entry = p;
    return 0;
}

int sl_imatrix_add_dataset(struct sl_imatrix *im, const char *name, uint64_t n, struct sl_error *e)
{
    char **p = realloc(im->datasets, ((size_t)im->n_datasets + 1) * sizeof *p);

    if (p)
        im->datasets = p;
    if (!p || !(p[im->n_datasets] = strndup(name, n)))
        return no_memory(im, e);
    im->n_datasets++;
    return 0;
}

static int unchanged(const struct sl_imatrix *im, struct sl_error *e)
{
    struct stat st;

    if (fstat(im->fd, &st) != 0 || (uint64_t)st.st_size != im->file_size || sl_source_mtime_ns(&st) != im->mtime_ns)
        return sl_fail(e, SL_ESOURCE, "imatrix %s was changed while it was in use", im->path);
    return 0;
}

int sl_imatrix_stored(const struct sl_imatrix *im, uint32_t i, uint64_t first, uint64_t n,
                      float *out, struct sl_error *e)
{
    const struct sl_imatrix_entry *x = &im->entries[i];

    if (first > x->n || n > x->n - first)
        return sl_fail(e, SL_EFAIL, "imatrix %s: entry '%s' has no values %llu to %llu", im->path,
                       x->name, (unsigned long long)first, (unsigned long long)(first + n));
    SL_TRY(unchanged(im, e));
    return sl_source_read(im->fd, im->path, out, n * sizeof *out, x->offset + first * sizeof *out, e);
}

int sl_imatrix_values(const struct sl_imatrix *im, uint32_t i, uint64_t first, uint64_t n,
                      float *out, struct sl_error *e)
{
    const struct sl_imatrix_entry *x = &im->entries[i];
    uint64_t group = x->n / x->n_counts;

    SL_TRY(sl_imatrix_stored(im, i, first, n, out, e));
    for (uint64_t at = 0; at < n;) {
        uint64_t g = (first + at) / group, end = (g + 1) * group - first;
        float count = x->counts[g];

        for (end = end < n ? end : n; at < end; at++) {
            if (count > 0)
                out[at] /= count;
            else if (im->format == SL_IMATRIX_GGUF)
                out[at] = 1.0f;
        }
    }
    return 0;
}

/* Looks at every value as it will be used. */
static int scan(struct sl_imatrix *im, struct sl_error *e)
{
    float *x = malloc(SL_IMATRIX_PIECE * sizeof *x);
    int rc = x ? 0 : no_memory(im, e);

    for (uint32_t i = 0; rc == 0 && i < im->n_entries; i++) {
        struct sl_imatrix_entry *t = &im->entries[i];

        for (uint64_t at = 0; rc == 0 && at < t->n; at += SL_IMATRIX_PIECE) {
            uint64_t n = t->n - at < SL_IMATRIX_PIECE ? t->n - at : SL_IMATRIX_PIECE;

            rc = sl_imatrix_values(im, i, at, n, x, e);
            for (uint64_t k = 0; rc == 0 && k < n; k++)
                if (!(x[k] >= 0) || isinf(x[k]))
                    t->first_bad = t->bad++ ? t->first_bad : at + k;
        }
    }
    free(x);
    return rc;
}

static int hash_file(struct sl_imatrix *im, struct sl_error *e)
{
    struct sl_hash128 *s = sl_hash128_new();
    uint8_t *buf = malloc(HASH_PIECE);
    int rc = s && buf ? 0 : no_memory(im, e);

    for (uint64_t at = 0; rc == 0 && at < im->file_size; at += HASH_PIECE) {
        size_t n = im->file_size - at < HASH_PIECE ? im->file_size - at : HASH_PIECE;

        rc = sl_source_read(im->fd, im->path, buf, n, at, e);
        if (rc == 0)
            sl_hash128_update(s, buf, n);
    }
    if (rc == 0)
        sl_hash128_final(s, im->hash);
    sl_hash128_free(s);
    free(buf);
    return rc;
}

static int read_file(struct sl_imatrix *im, const char *path, const struct sl_roots *roots, struct sl_error *e)
{
    struct sl_source_stat st;
    char head[24] = "";
    size_t n;

    im->path = strdup(path);
    if (!im->path)
        return sl_no_memory(e);
    SL_TRY(sl_source_open_path(path, roots, &im->fd, &st, e));
    im->file_size = st.size;
    im->mtime_ns = st.mtime_ns;
    n = st.size < sizeof head ? (size_t)st.size : sizeof head;
    SL_TRY(sl_source_read(im->fd, path, head, n, 0, e));
    if (sl_source_is_lfs(head, n))
        return sl_fail(e, SL_ESOURCE, "imatrix %s: %s", path, SL_SOURCE_LFS);
    im->format = memcmp(head, "GGUF", 4) == 0 ? SL_IMATRIX_GGUF : SL_IMATRIX_DAT;
    SL_TRY(sl_name_table_init(&im->names, 1024, e));
    SL_TRY(im->format == SL_IMATRIX_GGUF ? sl_imatrix_read_gguf(im, e) : sl_imatrix_read_dat(im, e));
    if (im->n_entries == 0)
        return sl_fail(e, SL_ESOURCE, "imatrix %s has no entries", path);
    SL_TRY(scan(im, e));
    return hash_file(im, e);
}

int sl_imatrix_open(const char *path, struct sl_imatrix **out, struct sl_error *e)
{
    return sl_imatrix_open_within(path, NULL, out, e);
}

int sl_imatrix_open_within(const char *path, const struct sl_roots *roots, struct sl_imatrix **out,
                           struct sl_error *e)
{
    struct sl_imatrix *im = calloc(1, sizeof *im);
    int rc;

    *out = NULL;
    if (!im)
        return sl_no_memory(e);
    im->fd = -1;
    rc = read_file(im, path, roots, e);
    if (rc < 0) {
        sl_imatrix_close(im);
        return rc;
    }
    *out = im;
    return 0;
}

static void free_entry(struct sl_imatrix_entry *x)
{
    free(x->name);
    free(x->counts);
}

void sl_imatrix_close(struct sl_imatrix *im)
{
    if (!im)
        return;
    for (uint32_t i = 0; i < im->n_entries; i++)
        free_entry(&im->entries[i]);
    for (uint32_t i = 0; i < im->n_datasets; i++)
        free(im->datasets[i]);
    sl_name_table_free(&im->names);
    free(im->entries);
    free(im->datasets);
    free(im->path);
    if (im->fd >= 0)
        close(im->fd);
    free(im);
}

int sl_imatrix_check(const struct sl_imatrix *im, struct sl_error *e)
{
    for (uint32_t i = 0; i < im->n_entries; i++)
        if (im->entries[i].bad)
            return sl_fail(e, SL_ESOURCE,
                           "imatrix %s: entry '%s': value %llu and %llu others are negative, NaN or "
                           "infinite; make the imatrix again, or leave it out with --exclude-weights",
                           im->path, im->entries[i].name,
                           (unsigned long long)im->entries[i].first_bad,
                           (unsigned long long)im->entries[i].bad - 1);
    return 0;
}

int sl_imatrix_filter(struct sl_imatrix *im, const struct sl_weight_words *words, struct sl_error *e)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < im->n_entries; i++)
        if (sl_weight_words_use(words, im->entries[i].name))
            im->entries[kept++] = im->entries[i];
        else
            free_entry(&im->entries[i]);
    im->n_entries = kept;
    sl_name_table_free(&im->names);
    SL_TRY(sl_name_table_init(&im->names, kept, e));
    for (uint32_t i = 0; i < kept; i++)
        SL_TRY(sl_name_table_add(&im->names, im->entries[i].name, i, NULL, e));
    return 0;
}

int64_t sl_imatrix_find(const struct sl_imatrix *im, const char *name)
{
    uint32_t i = sl_name_table_find(&im->names, name);

    return i == SL_NO_NAME ? -1 : (int64_t)i;
}

bool sl_imatrix_is_legacy(const struct sl_imatrix *im)
{
    bool kv_b = false;

    for (uint32_t i = 0; i < im->n_entries; i++) {
        if (strstr(im->entries[i].name, ".attn_k_b."))
            return false;
        kv_b |= strstr(im->entries[i].name, ".attn_kv_b.") != NULL;
    }
    return kv_b;
}

uint64_t sl_imatrix_wanted(const struct sl_out_tensor *t)
{
    uint64_t rows = t->n_dims > 1 ? t->ne[1] : 1;

    return rows ? t->elems / rows : 0;
}

int sl_imatrix_for(const struct sl_imatrix *im, const struct sl_out_tensor *t, uint32_t *entry,
                   struct sl_error *e)
{
    int64_t i = sl_imatrix_find(im, t->known_as ? t->known_as : t->name);
    uint64_t n = i < 0 ? 0 : im->entries[i].n, want = sl_imatrix_wanted(t);
    bool heads = strstr(t->name, ".attn_k_b.") || strstr(t->name, ".attn_v_b.");

    if (i < 0)
        return 0;
    if (n == want) {
        *entry = (uint32_t)i;
        return 1;
    }
    if (strcmp(t->name, "token_embd.weight") == 0)
        return 0;
    return sl_fail(e, SL_EUSAGE, "imatrix %s: tensor '%s' has %llu values there, %llu are expected; %s",
                   im->path, t->name, (unsigned long long)n, (unsigned long long)want,
                   heads && n == t->ne[0]
                       ? "llama.cpp collected this tensor wrongly from April to July 2025: leave it out "
                         "with --exclude-weights attn_k_b --exclude-weights attn_v_b"
                       : "use the imatrix of this model, or leave the tensor out with --exclude-weights");
}
