/* The engine's one seam of system calls: everything of its that can fail on a disk
 * goes through here, so that a test can make the n-th call fail. The programs pass
 * no faults (NULL); nothing outside a test can arm one, and no environment
 * variable is read. The io_uring backend asks the same seam before it submits. */
#ifndef SLUICE_WORKER_SYSIO_H
#define SLUICE_WORKER_SYSIO_H

#include "proto/error.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

enum sl_sys_call {
    SL_SYS_OPEN, SL_SYS_READ, SL_SYS_WRITE, SL_SYS_FDATASYNC, SL_SYS_PUNCH,
    SL_SYS_COUNT,
};

/* Calls number first .. first + count - 1 of this kind (from 1; count 0: all
 * from first on) fail with err, or, with err 0, transfer only half. */
struct sl_fault {
    enum sl_sys_call call;
    int err;
    uint32_t first, count;
};

#define SL_FAULTS_MAX 8

/* Armed faults. rule and n are set before the first use and stay as they are;
 * calls counts from all threads. */
struct sl_faults {
    struct sl_fault rule[SL_FAULTS_MAX];
    unsigned n;
    _Atomic uint32_t calls[SL_SYS_COUNT];
};

/* Effect: counts one call of this kind. Returns the errno it has to fail with,
 * or 0. A short transfer halves *len, in steps of `unit` bytes, never to 0. */
int sl_fault_check(struct sl_faults *f, enum sl_sys_call call, uint32_t *len, uint32_t unit);

/* The calls themselves: what the kernel's manual says, but failures come back
 * as -errno. f may be NULL. */
int sl_sys_open(struct sl_faults *f, const char *path, int flags) SL_MUST_USE;
ssize_t sl_sys_pread(struct sl_faults *f, int fd, void *buf, uint32_t len, uint64_t off,
                     uint32_t unit) SL_MUST_USE;
ssize_t sl_sys_pwrite(struct sl_faults *f, int fd, const void *buf, uint32_t len, uint64_t off,
                      uint32_t unit) SL_MUST_USE;
int sl_sys_fdatasync(struct sl_faults *f, int fd) SL_MUST_USE;
/* A hole: the range reads as zeros and holds no space. */
int sl_sys_punch(struct sl_faults *f, int fd, uint64_t off, uint64_t len) SL_MUST_USE;

#endif
