#include "proto/checkpoint_priv.h"
#include "proto/gguf.h"
#include "proto/source_file.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int take_tensor(const struct sl_gguf *g, const struct sl_gguf_tensor *from,
                       struct sl_src_tensor *to, char *name, struct sl_error *e)
{
    const struct sl_type_info *info = sl_type_info(from->type);
    int dtype = sl_dtype_of_type(from->type);

    if (dtype < 0)
        return sl_fail(e, SL_EUNSUPPORTED, "%s: tensor '%s' is %s, which Sluice cannot read", g->path,
                       from->name, info ? info->name : "of an unknown type");
    strcpy(name, from->name);
    to->name = name;
    to->dtype = (enum sl_dtype)dtype;
    to->n_dims = from->n_dims;
    to->elems = 1;
    for (uint32_t d = 0; d < from->n_dims; d++) {
        to->shape[from->n_dims - 1 - d] = from->ne[d];
        to->elems *= from->ne[d]; /* checked by the GGUF reader */
    }
    to->offset = g->header_bytes + from->offset;
    to->bytes = from->bytes;
    return 0;
}

static int add_file(struct sl_checkpoint *ck, const struct sl_gguf *g, struct sl_error *e)
{
    struct sl_src_tensor *tensors = calloc(g->n_tensors + 1, sizeof *tensors);
    char *names = malloc((g->n_tensors + 1) * SL_NAME_MAX);
    int rc = 0;

    if (!tensors || !names)
        rc = sl_fail(e, SL_EFAIL, "%s: out of memory for %" PRIu64 " tensors", g->path, g->n_tensors);
    for (uint64_t i = 0; i < g->n_tensors && rc == 0; i++)
        rc = take_tensor(g, &g->tensors[i], &tensors[i], names + i * SL_NAME_MAX, e);
    if (rc == 0)
        rc = sl_ck_add_file(ck, NULL, g->path, g->file_size, g->mtime_ns, tensors,
                            (uint32_t)g->n_tensors, names, e);
    else
        free(names);
    free(tensors);
    return rc;
}

/* 0 where there is none. */
static uint64_t number(const struct sl_gguf *g, const char *key)
{
    uint64_t v;

    return sl_kvs_get_uint(&g->kvs, key, &v) ? v : 0;
}

/* The split keys of part i of n against the file names and the first part. */
static int check_part(const struct sl_gguf *g, const struct sl_gguf *first, uint32_t i, uint32_t n,
                      struct sl_error *e)
{
    uint64_t count = number(g, "split.count"), no = number(g, "split.no");
    uint64_t total = number(g, "split.tensors.count");

    if (n == 1 && count <= 1)
        return 0;
    if (n == 1)
        return sl_fail(e, SL_ESOURCE, "%s: is part %" PRIu64 " of %" PRIu64 " (split.no, split.count), "
                       "but its name does not end in -%05" PRIu64 "-of-%05" PRIu64 ".gguf", g->path, no + 1, count, no + 1, count);
    if (count != n)
        return sl_fail(e, SL_ESOURCE, "%s: split.count is %" PRIu64 ", its name says %" PRIu32,
                       g->path, count, n);
    if (no != i)
        return sl_fail(e, SL_ESOURCE, "%s: split.no is %" PRIu64 ", its name says %" PRIu32, g->path,
                       no, i);
    if (total != number(first, "split.tensors.count"))
        return sl_fail(e, SL_ESOURCE, "%s: split.tensors.count is %" PRIu64 ", the first part has %"
                       PRIu64, g->path, total, number(first, "split.tensors.count"));
    return 0;
}

static int add_part(struct sl_checkpoint *ck, const char *path, uint32_t i, uint32_t n,
                    struct sl_error *e)
{
    struct sl_gguf *g = NULL;
    struct sl_source_stat st;
    int fd, rc;

    SL_TRY(sl_source_open_path(path, ck->roots, &fd, &st, e));
    rc = sl_gguf_read(fd, &st, path, &g, e);
    close(fd);
    SL_TRY(rc);
    if (i == 0)
        ck->gguf = g;
    rc = check_part(g, ck->gguf, i, n, e);
    if (rc == 0)
        rc = add_file(ck, g, e);
    if (i > 0)
        sl_gguf_close(g);
    return rc;
}

int sl_ck_open_gguf(struct sl_checkpoint *ck, const char *path, struct sl_error *e)
{
    char part[PATH_MAX];
    uint64_t total;
    uint32_t n = 0;

    ck->is_gguf = true;
    SL_TRY(sl_gguf_split_count(path, &n, e));
    SL_TRY(sl_ck_reserve_files(ck, n, e));
    if (n == 1)
        return add_part(ck, path, 0, 1, e);
    for (uint32_t i = 0; i < n; i++) {
        SL_TRY(sl_gguf_part_path(part, sizeof part, path, i, e));
        SL_TRY(add_part(ck, part, i, n, e));
    }
    total = number(ck->gguf, "split.tensors.count");
    if (total != ck->n_tensors)
        return sl_fail(e, SL_ESOURCE, "%s: split.tensors.count is %" PRIu64 ", the %" PRIu32
                       " parts hold %" PRIu32 " tensors", path, total, n, ck->n_tensors);
    return 0;
}
