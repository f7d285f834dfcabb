#include "worker/srcfile.h"

#include "proto/roots.h"
#include "proto/source_file.h"
#include "worker/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct sl_srcfiles {
    const struct sl_checkpoint *ck;
    enum sl_direct direct;
    struct sl_faults *faults;
    struct sl_srcfile *file; /* ck->n_files */
    unsigned n_open;
    uint64_t clock;
};

int sl_srcfiles_open(const struct sl_checkpoint *ck, enum sl_direct direct, struct sl_faults *faults,
                     struct sl_srcfiles **out, struct sl_error *e)
{
    struct sl_srcfiles *s = calloc(1, sizeof *s);

    if (s)
        s->file = calloc(ck->n_files ? ck->n_files : 1, sizeof *s->file);
    if (!s || !s->file) {
        free(s);
        return sl_fail(e, SL_EFAIL, "out of memory for %u source files", ck->n_files);
    }
    s->ck = ck;
    s->direct = direct;
    s->faults = faults;
    for (uint32_t i = 0; i < ck->n_files; i++)
        s->file[i].fd = s->file[i].direct = -1;
    *out = s;
    return 0;
}

/* Whether at least three quarters of the file are in the page cache. Unknown
 * (a kernel before 6.5, no permission) counts as not. */
static bool cached(int fd, uint64_t size)
{
#ifndef SYS_cachestat
    const long number = 451; /* on every architecture */
#else
    const long number = SYS_cachestat;
#endif
    struct { uint64_t off, len; } range = {0, 0};
    struct { uint64_t cache, dirty, writeback, evicted, recently; } st = {0};
    long page = sysconf(_SC_PAGESIZE);

    return page > 0 && syscall(number, fd, &range, &st, 0) == 0 &&
           st.cache >= size / (uint64_t)page / 4 * 3;
}

/* Whether the filesystem takes direct reads at SL_IO_ALIGN. */
static bool takes_direct(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && st.stx_mask & STATX_DIOALIGN)
        return st.stx_dio_offset_align && SL_IO_ALIGN % st.stx_dio_offset_align == 0 &&
               SL_IO_ALIGN % st.stx_dio_mem_align == 0;
#endif
    (void)fd;
    return true;
}

int sl_srcfile_unchanged(struct sl_srcfiles *s, uint32_t i, struct sl_error *e)
{
    const struct sl_src_file *f = &s->ck->files[i];
    struct stat st;

    if (fstat(s->file[i].fd, &st))
        return sl_fail(e, SL_ESOURCE, "'%s': %s", f->path, strerror(errno));
    if ((uint64_t)st.st_size < f->size)
        return sl_fail(e, SL_ESOURCE, "'%s' got shorter: %llu bytes, %llu when the plan was made; "
                       "restore it, or begin anew (convert and submit: with --force)", f->path,
                       (unsigned long long)st.st_size, (unsigned long long)f->size);
    if ((uint64_t)st.st_size != f->size || sl_source_mtime_ns(&st) != f->mtime_ns)
        return sl_fail(e, SL_ESOURCE, "'%s' has changed since the plan was made; begin anew (convert and "
                       "submit: with --force)", f->path);
    return 0;
}

static void close_file(struct sl_srcfiles *s, struct sl_srcfile *f)
{
    if (f->direct >= 0)
        close(f->direct);
    if (f->fd >= 0) {
        close(f->fd);
        s->n_open--;
    }
    f->fd = f->direct = -1;
}

static void make_room(struct sl_srcfiles *s)
{
    struct sl_srcfile *oldest = NULL;

    if (s->n_open < SL_SRCFILES_OPEN)
        return;
    for (uint32_t i = 0; i < s->ck->n_files; i++) {
        struct sl_srcfile *f = &s->file[i];

        if (f->fd >= 0 && !f->refs && (!oldest || f->used < oldest->used))
            oldest = f;
    }
    if (oldest)
        close_file(s, oldest);
}

/* The name may lead elsewhere than when the plan was made, while the size and time of
 * what is there are what its owner wants them to be: the roots are asked again. */
static int open_again(struct sl_srcfiles *s, uint32_t i, int flags, struct sl_error *e)
{
    const struct sl_src_file *sf = &s->ck->files[i];
    int fd = sl_sys_open(s->faults, sf->path, O_RDONLY | O_NONBLOCK | flags), rc = 0;

    if (fd < 0)
        return sl_fail(e, sl_source_code(-fd), "cannot open '%s': %s", sf->path, strerror(-fd));
    if (s->ck->roots)
        rc = sl_roots_check_fd(s->ck->roots, fd, sf->path, e);
    /* Only the opening must not wait (for a FIFO's other end). */
    if (rc == 0 && fcntl(fd, F_SETFL, flags) != 0)
        rc = sl_fail(e, SL_ESOURCE, "'%s': %s", sf->path, strerror(errno));
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

static bool same_file(int a, int b)
{
    struct stat x, y;

    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int open_file(struct sl_srcfiles *s, uint32_t i, struct sl_error *e)
{
    const struct sl_src_file *sf = &s->ck->files[i];
    struct sl_srcfile *f = &s->file[i];
    struct sl_error ignored;
    int rc;

    make_room(s);
    f->fd = open_again(s, i, 0, e);
    if (f->fd < 0) {
        rc = f->fd;
        f->fd = -1;
        return rc;
    }
    s->n_open++;
    rc = sl_srcfile_unchanged(s, i, e);
    if (rc < 0) {
        close_file(s, f);
        return rc;
    }
    f->drop = false;
    if (s->direct == SL_DIRECT_ON || (s->direct == SL_DIRECT_AUTO && !cached(f->fd, sf->size))) {
        if (takes_direct(f->fd))
            f->direct = open_again(s, i, O_DIRECT, &ignored);
        if (f->direct >= 0 && !same_file(f->fd, f->direct)) {
            close(f->direct);
            f->direct = -1;
        }
        if (f->direct < 0)
            sl_srcfile_refuse_direct(s, i);
    }
    if (f->direct < 0)
        posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

int sl_srcfile_get(struct sl_srcfiles *s, uint32_t i, struct sl_srcfile **out, struct sl_error *e)
{
    struct sl_srcfile *f = &s->file[i];

    if (f->fd < 0)
        SL_TRY(open_file(s, i, e));
    f->refs++;
    f->used = ++s->clock;
    *out = f;
    return 0;
}

struct sl_srcfile *sl_srcfile_held(struct sl_srcfiles *s, uint32_t i)
{
    return &s->file[i];
}

void sl_srcfile_put(struct sl_srcfiles *s, uint32_t i)
{
    s->file[i].refs--;
}

void sl_srcfile_refuse_direct(struct sl_srcfiles *s, uint32_t i)
{
    s->file[i].drop = true;
}

void sl_srcfiles_close(struct sl_srcfiles *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->ck->n_files; i++)
        close_file(s, &s->file[i]);
    free(s->file);
    free(s);
}
