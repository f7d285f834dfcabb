/* Bytes and values of a side's tensors, in pieces of SIDE_WEIGHTS weights, so
 * that memory does not depend on a tensor's size. */
#include "client/compare_side.h"
#include "kernels/kernels.h"
#include "proto/source_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int by_name(const void *a, const void *b)
{
    const struct side_tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static void add_gguf(struct side *s)
{
    for (uint32_t f = 0; f < s->set.n; f++)
        for (uint64_t i = 0; i < s->set.files[f]->n_tensors; i++) {
            const struct sl_gguf_tensor *t = &s->set.files[f]->tensors[i];

            s->tensors[s->n_tensors++] = (struct side_tensor){
                .name = t->name, .ne = t->ne, .elems = gguf_elems(t), .type = t->type,
                .type_name = sl_type_info(t->type)->name, .file = f,
                .weight_bytes = (double)t->bytes / (double)gguf_elems(t),
                .offset = s->set.files[f]->header_bytes + t->offset};
        }
}

static void add_checkpoint(struct side *s)
{
    for (uint32_t i = 0; i < s->model->n_tensors; i++) {
        const struct sl_out_tensor *t = &s->model->tensors[i];
        const struct sl_dtype_info *d = sl_dtype_info(
            t->transform == SL_INLINE ? SL_DTYPE_F32 : (int)s->model->src[t->first_src].dtype);

        s->tensors[s->n_tensors++] = (struct side_tensor){
            .name = t->name, .ne = t->ne, .elems = t->elems, .type = t->transform == SL_IDS ? t->src_type : -1,
            .type_name = t->transform == SL_IDS ? sl_type_info(t->src_type)->name : d->name,
            .weight_bytes = (double)d->bytes / d->block, .out = t};
    }
}

static int fill(struct side *s, uint64_t n, struct sl_error *e)
{
    s->tensors = calloc(n + 1, sizeof *s->tensors);
    s->raw = malloc(SIDE_WEIGHTS * sizeof(double));
    if (!s->tensors || !s->raw)
        return sl_no_memory(e);
    if (s->model)
        add_checkpoint(s);
    else
        add_gguf(s);
    qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
    for (uint64_t i = 1; i < s->n_tensors; i++)
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0)
            return sl_fail(e, SL_ESOURCE, "%s: tensor %s is there twice", s->arg, s->tensors[i].name);
    return 0;
}

int side_is_checkpoint(const char *arg, struct sl_error *e)
{
    char *path;

    SL_TRY(model_arg_either(arg, &path, e));
    free(path);
    return path == NULL;
}

int side_open(struct side *s, const char *arg, enum sl_layout layout, struct sl_error *e)
{
    struct sl_model_opts o = {.layout = layout};
    char *path;
    int rc;

    *s = (struct side){.arg = arg, .fd = -1};
    SL_TRY(model_arg_either(arg, &path, e));
    if (path) {
        rc = gguf_set_open(path, &s->set, e);
        free(path);
        return rc < 0 ? rc : fill(s, s->set.n_tensors, e);
    }
    SL_TRY(sl_checkpoint_open(arg, &s->ck, e));
    SL_TRY(sl_model_open(s->ck, &o, &s->model, e));
    SL_TRY(source_reader_open(s->ck, s->model, &s->reader, e));
    return fill(s, s->model->n_tensors, e);
}

void side_close(struct side *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s->tensors);
    free(s->raw);
    gguf_set_close(&s->set);
    source_reader_close(s->reader);
    sl_model_close(s->model);
    sl_checkpoint_close(s->ck);
    *s = (struct side){.fd = -1};
}

enum sl_layout side_layout(const struct side *s)
{
    for (uint64_t i = 0; i < s->n_tensors; i++)
        if (strstr(s->tensors[i].name, ".attn_kv_b.weight"))
            return SL_LAYOUT_LEGACY;
    return SL_LAYOUT_MLA;
}

const struct sl_kvs *side_kvs(const struct side *s)
{
    return s->model ? &s->model->kvs : &s->set.files[0]->kvs;
}

int side_bytes(struct side *s, const struct side_tensor *t, uint64_t first, uint64_t n,
               const uint8_t **bytes, struct sl_error *e)
{
    uint64_t off = t->offset + sl_type_bytes(t->type, first), want = sl_type_bytes(t->type, n);
    const char *path;

    *bytes = s->raw;
    if (t->out)
        return source_ids(s->reader, t->out, first, n, s->raw, e);
    path = s->set.files[t->file]->path;
    if (s->fd >= 0 && s->file != t->file) {
        close(s->fd);
        s->fd = -1;
    }
    if (s->fd < 0)
        s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0)
        return sl_fail(e, sl_source_code(errno), "%s: %s", path, strerror(errno));
    s->file = t->file;
    return sl_source_read(s->fd, path, s->raw, want, off, e);
}

int side_values(struct side *s, const struct side_tensor *t, uint64_t first, uint64_t n, float *out,
                struct sl_error *e)
{
    const uint8_t *bytes;

    if (t->out)
        return source_values(s->reader, t->out, first, n, out, e);
    SL_TRY(side_bytes(s, t, first, n, &bytes, e));
    if (sl_dequantize(t->type, bytes, n, out) < 0)
        return sl_fail(e, SL_EUNSUPPORTED, "tensor %s: %s cannot be dequantized", t->name, t->type_name);
    return 0;
}
