#include "proto/imatrix_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SINK_BYTES (1u << 20)

static int flush(struct sl_imatrix_sink *s, struct sl_error *e)
{
    for (size_t at = 0; at < s->n;) {
        ssize_t n = write(s->fd, s->buf + at, s->n - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sl_fail(e, sl_write_code(errno), "%s: write error: %s", s->path, strerror(errno));
        at += (size_t)n;
    }
    s->n = 0;
    return 0;
}

int sl_imatrix_put(struct sl_imatrix_sink *s, const void *bytes, size_t n, struct sl_error *e)
{
    const uint8_t *p = bytes;

    while (n) {
        size_t k = SINK_BYTES - s->n < n ? SINK_BYTES - s->n : n;

        memcpy(s->buf + s->n, p, k);
        s->n += k;
        p += k;
        n -= k;
        if (s->n == SINK_BYTES)
            SL_TRY(flush(s, e));
    }
    return 0;
}

struct named {
    const char *name;
    uint32_t i;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* The entries' indices in the order of their names; the caller frees them. */
static uint32_t *sorted(const struct sl_imatrix *im)
{
    struct named *list = malloc(((size_t)im->n_entries + 1) * sizeof *list);
    uint32_t *order = malloc(((size_t)im->n_entries + 1) * sizeof *order);

    if (!list || !order) {
        free(list);
        free(order);
        return NULL;
    }
    for (uint32_t i = 0; i < im->n_entries; i++)
        list[i] = (struct named){im->entries[i].name, i};
    qsort(list, im->n_entries, sizeof *list, by_name);
    for (uint32_t i = 0; i < im->n_entries; i++)
        order[i] = list[i].i;
    free(list);
    return order;
}

static int put_all(const struct sl_imatrix *im, enum sl_imatrix_format format,
                   struct sl_imatrix_sink *s, struct sl_error *e)
{
    uint32_t *order = sorted(im);
    int rc;

    s->buf = malloc(SINK_BYTES);
    if (!order || !s->buf)
        rc = sl_fail(e, SL_EFAIL, "out of memory");
    else
        rc = format == SL_IMATRIX_DAT ? sl_imatrix_put_dat(im, order, s, e)
                                      : sl_imatrix_put_gguf(im, order, s, e);
    if (rc == 0)
        rc = flush(s, e);
    if (rc == 0 && fsync(s->fd) != 0)
        rc = sl_fail(e, SL_EFAIL, "%s: cannot be synced: %s", s->path, strerror(errno));
    free(order);
    free(s->buf);
    return rc;
}

static int exists(const char *path, struct sl_error *e)
{
    return sl_fail(e, SL_EEXISTS, "%s exists already", path);
}

int sl_imatrix_write(const struct sl_imatrix *im, enum sl_imatrix_format format, const char *path,
                     struct sl_error *e)
{
    struct sl_imatrix_sink s = {.path = path};
    char *part;
    int rc;

    if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return exists(path, e);
    if (asprintf(&part, "%s.partial", path) < 0)
        return sl_fail(e, SL_EFAIL, "out of memory");
    unlink(part); /* of a run that was killed; a link is not written through */
    s.fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (s.fd < 0) {
        rc = sl_fail(e, SL_EFAIL, "%s: cannot be made: %s", part, strerror(errno));
        free(part);
        return rc;
    }
    rc = put_all(im, format, &s, e);
    if (close(s.fd) != 0 && rc == 0)
        rc = sl_fail(e, SL_EFAIL, "%s: write error: %s", path, strerror(errno));
    if (rc == 0 && renameat2(AT_FDCWD, part, AT_FDCWD, path, RENAME_NOREPLACE) != 0)
        rc = errno == EEXIST ? exists(path, e)
                             : sl_fail(e, SL_EFAIL, "%s: cannot be renamed: %s", path, strerror(errno));
    if (rc < 0)
        unlink(part);
    free(part);
    return rc;
}
