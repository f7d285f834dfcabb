#include "proto/imatrix_parts.h"
#include "proto/rename_new.h"
#include "proto/sync_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
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

static int by_name(const void *a, const void *b, void *entries)
{
    const struct sl_imatrix_entry *x = entries;

    return strcmp(x[*(const uint32_t *)a].name, x[*(const uint32_t *)b].name);
}

/* The entries' indices in the order of their names; the caller frees them. */
static uint32_t *sorted(const struct sl_imatrix *im)
{
    uint32_t *order = malloc(((size_t)im->n_entries + 1) * sizeof *order);

    for (uint32_t i = 0; order && i < im->n_entries; i++)
        order[i] = i;
    if (order)
        qsort_r(order, im->n_entries, sizeof *order, by_name, im->entries);
    return order;
}

static int put_all(const struct sl_imatrix *im, enum sl_imatrix_format format,
                   struct sl_imatrix_sink *s, struct sl_error *e)
{
    uint32_t *order = sorted(im);
    int rc;

    s->buf = malloc(SINK_BYTES);
    if (!order || !s->buf)
        rc = sl_no_memory(e);
    else
        rc = format == SL_IMATRIX_DAT ? sl_imatrix_put_dat(im, order, s, e)
                                      : sl_imatrix_put_gguf(im, order, s, e);
    if (rc == 0)
        rc = flush(s, e);
    if (rc == 0 && fsync(s->fd) != 0)
        rc = sl_fail(e, sl_write_code(errno), "%s: cannot be synced: %s", s->path, strerror(errno));
    free(order);
    free(s->buf);
    return rc;
}

static int exists(const char *path, struct sl_error *e)
{
    return sl_fail(e, SL_EEXISTS, "%s exists already; choose another name", path);
}

/* Whether the file is at `part`, and no other run has it locked. Where a filesystem has no locks,
 * nobody has; where it has none for what is open for reading alone (NFS), somebody may. */
static bool is_own(int fd, const char *part)
{
    struct stat own, there;

    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EBADF))
        return false;
    return fstat(fd, &own) == 0 && lstat(part, &there) == 0 && own.st_dev == there.st_dev &&
           own.st_ino == there.st_ino;
}

static int another_run(const char *part, struct sl_error *e)
{
    return sl_fail(e, SL_EEXISTS, "%s: another run is writing this file; wait for it, or choose another name",
                   part);
}

/* A new file, locked, so that two runs at once do not write into each other's. What a killed run
 * left goes; a link there is not written through. */
static int open_part(const char *part, int *fd, struct sl_error *e)
{
    for (int again = 0; again < 2; again++) {
        bool made, own;

        *fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        made = *fd >= 0;
        if (!made && errno != EEXIST)
            break;
        if (!made)
            *fd = open(part, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (*fd < 0 && errno == EACCES) /* another user's */
            *fd = open(part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        own = *fd < 0 ? errno != EACCES : is_own(*fd, part);
        if (made && own)
            return 0;
        if (own)
            unlink(part);
        if (*fd >= 0)
            close(*fd);
        if (!own)
            return another_run(part, e);
        errno = EEXIST;
    }
    return sl_fail(e, sl_make_code(errno), "%s: cannot be made: %s", part, strerror(errno));
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
        return sl_no_memory(e);
    rc = open_part(part, &s.fd, e);
    if (rc < 0) {
        free(part);
        return rc;
    }
    rc = put_all(im, format, &s, e);
    if (rc == 0 && !is_own(s.fd, part))
        rc = another_run(part, e);
    if (rc == 0 && sl_rename_new(part, path) != 0)
        rc = errno == EEXIST ? exists(path, e)
                             : sl_fail(e, sl_write_code(errno), "%s: cannot be renamed: %s", path, strerror(errno));
    if (rc < 0 && is_own(s.fd, part))
        unlink(part);
    if (rc == 0)
        rc = sl_sync_folder_of(path, e);
    close(s.fd); /* synced before; the lock goes with it */
    free(part);
    return rc;
}
