#include "worker/sysio.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int sl_fault_check(struct sl_faults *f, enum sl_sys_call call, uint32_t *len, uint32_t unit)
{
    uint32_t nth;

    if (!f)
        return 0;
    nth = atomic_fetch_add(&f->calls[call], 1) + 1;
    for (unsigned i = 0; i < f->n; i++) {
        const struct sl_fault *r = &f->rule[i];

        if (r->call != call || nth < r->first || (r->count && nth - r->first >= r->count))
            continue;
        if (r->err)
            return r->err;
        if (len && unit && *len / 2 >= unit)
            *len = *len / 2 / unit * unit;
    }
    return 0;
}

int sl_sys_open(struct sl_faults *f, const char *path, int flags)
{
    int err = sl_fault_check(f, SL_SYS_OPEN, NULL, 0), fd;

    if (err)
        return -err;
    do
        fd = open(path, flags | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

ssize_t sl_sys_pread(struct sl_faults *f, int fd, void *buf, uint32_t len, uint64_t off,
                     uint32_t unit)
{
    int err = sl_fault_check(f, SL_SYS_READ, &len, unit);
    ssize_t n;

    if (err)
        return -err;
    n = pread(fd, buf, len, (off_t)off);
    return n < 0 ? -errno : n;
}

ssize_t sl_sys_pwrite(struct sl_faults *f, int fd, const void *buf, uint32_t len, uint64_t off,
                      uint32_t unit)
{
    int err = sl_fault_check(f, SL_SYS_WRITE, &len, unit);
    ssize_t n;

    if (err)
        return -err;
    n = pwrite(fd, buf, len, (off_t)off);
    return n < 0 ? -errno : n;
}

int sl_sys_fdatasync(struct sl_faults *f, int fd)
{
    int err = sl_fault_check(f, SL_SYS_FDATASYNC, NULL, 0);

    if (err)
        return -err;
    return fdatasync(fd) ? -errno : 0;
}

int sl_sys_punch(struct sl_faults *f, int fd, uint64_t off, uint64_t len)
{
    int err = sl_fault_check(f, SL_SYS_PUNCH, NULL, 0), rc;

    if (err)
        return -err;
    do
        rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
    while (rc && errno == EINTR);
    return rc ? -errno : 0;
}
