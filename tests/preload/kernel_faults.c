/* Preloaded into a real program: what the kernel answers is forced, nothing else.
 *
 * KERNEL_FAULTS names a file that tests map into every such process and change
 * while it runs (tests/lib/KernelFaults.pm writes it):
 *   clock      seconds added to CLOCK_REALTIME
 *   read, write, sync, shut   errno for pread, pwrite and write, fsync and fdatasync, close; 0: none
 *   left       how many calls fail; below 0: all
 *   delay_ms   pause before space is reserved (fallocate), and before a read of a file's beginning
 *   stop       the process stops itself (SIGSTOP) when such a folder is opened for the stop-th
 *              time; 0: never
 *   path       part of the name of the files that this is about; its end, behind which comes a '$'
 *   from       reads and writes before this offset are as they were
 *   slept      seconds added to CLOCK_BOOTTIME
 *   hold       reads wait while it is not 0
 *   held       written here: how many reads have come to wait
 * io_uring goes past this: such tests use --io pread. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct faults {
    _Atomic int64_t clock;
    _Atomic int32_t read, write, sync, shut, left, delay_ms, stop;
    _Atomic int64_t from, slept;
    char path[256];
    _Atomic int32_t hold, held;
};

static struct faults *table(void)
{
    static _Atomic(struct faults *) known;
    struct faults *f = atomic_load(&known);
    const char *name;
    void *at;
    int fd;

    if (f)
        return f;
    name = getenv("KERNEL_FAULTS");
    fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    at = fd >= 0 ? mmap(NULL, sizeof *f, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0)
        close(fd);
    if (at == MAP_FAILED)
        return NULL;
    atomic_store(&known, at);
    return at;
}

static int is_meant(const struct faults *f, int fd)
{
    char link[64], path[4096];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 2);
    if (n < 0)
        return 0;
    path[n++] = '$';
    path[n] = '\0';
    return strstr(path, f->path) != NULL;
}

/* The errno that this call gets, or 0 for the kernel's own answer. */
static int fault(struct faults *f, const _Atomic int32_t *kind, int fd, off_t at)
{
    int saved = errno, err = f ? atomic_load(kind) : 0;
    int32_t left;

    if (err && ((at >= 0 && at < atomic_load(&f->from)) || !is_meant(f, fd)))
        err = 0;
    if (err) {
        left = atomic_load(&f->left);
        while (left > 0 && !atomic_compare_exchange_weak(&f->left, &left, left - 1))
            ;
        if (left == 0)
            err = 0;
    }
    errno = err ? err : saved;
    return err;
}

static void wait_held(struct faults *f, int fd, off_t at)
{
    if (!f || !atomic_load(&f->hold) || at < atomic_load(&f->from) || !is_meant(f, fd))
        return;
    atomic_fetch_add(&f->held, 1);
    while (atomic_load(&f->hold))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

#define NEXT(type, name) ((type)(uintptr_t)dlsym(RTLD_NEXT, name))
#define FAULT(kind, fd, at) (table() && fault(table(), &table()->kind, fd, at))

typedef ssize_t (*pread_fn)(int, void *, size_t, off_t);
typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);
typedef ssize_t (*write_fn)(int, const void *, size_t);
typedef int (*sync_fn)(int);
typedef int (*fallocate_fn)(int, int, off_t, off_t);
typedef int (*clock_fn)(clockid_t, struct timespec *);
typedef DIR *(*opendir_fn)(const char *);

static void dawdle(int fd)
{
    const struct faults *f = table();
    int ms = f && is_meant(f, fd) ? atomic_load(&f->delay_ms) : 0;
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

    if (ms > 0)
        nanosleep(&t, NULL);
}

static void before_read(int fd, off_t at)
{
    if (at == 0)
        dawdle(fd);
    wait_held(table(), fd, at);
}

ssize_t pread(int fd, void *buf, size_t n, off_t at)
{
    before_read(fd, at);
    return FAULT(read, fd, at) ? -1 : NEXT(pread_fn, "pread")(fd, buf, n, at);
}

ssize_t pread64(int fd, void *buf, size_t n, off_t at)
{
    before_read(fd, at);
    return FAULT(read, fd, at) ? -1 : NEXT(pread_fn, "pread64")(fd, buf, n, at);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
    return FAULT(write, fd, at) ? -1 : NEXT(pwrite_fn, "pwrite")(fd, buf, n, at);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off_t at)
{
    return FAULT(write, fd, at) ? -1 : NEXT(pwrite_fn, "pwrite64")(fd, buf, n, at);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    return FAULT(write, fd, -1) ? -1 : NEXT(write_fn, "write")(fd, buf, n);
}

int fsync(int fd)
{
    return FAULT(sync, fd, -1) ? -1 : NEXT(sync_fn, "fsync")(fd);
}

int fdatasync(int fd)
{
    return FAULT(sync, fd, -1) ? -1 : NEXT(sync_fn, "fdatasync")(fd);
}

int close(int fd)
{
    int err = FAULT(shut, fd, -1) ? errno : 0, rc = NEXT(sync_fn, "close")(fd);

    if (!err)
        return rc;
    errno = err;
    return -1;
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    dawdle(fd);
    return NEXT(fallocate_fn, "fallocate")(fd, mode, at, n);
}

int fallocate64(int fd, int mode, off_t at, off_t n)
{
    dawdle(fd);
    return NEXT(fallocate_fn, "fallocate64")(fd, mode, at, n);
}

DIR *opendir(const char *path)
{
    DIR *d = NEXT(opendir_fn, "opendir")(path);
    struct faults *f = table();

    if (d && f && atomic_load(&f->stop) > 0 && is_meant(f, dirfd(d)) && atomic_fetch_sub(&f->stop, 1) == 1)
        raise(SIGSTOP);
    return d;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = NEXT(clock_fn, "clock_gettime")(id, t);
    const struct faults *f = table();

    if (rc == 0 && id == CLOCK_REALTIME && f)
        t->tv_sec += (time_t)atomic_load(&f->clock);
    if (rc == 0 && id == CLOCK_BOOTTIME && f)
        t->tv_sec += (time_t)atomic_load(&f->slept);
    return rc;
}
