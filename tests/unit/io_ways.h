/* The two ways of reading and writing, by turns. Where the system refuses io_uring, as in many
 * containers, the pool has its turn, too; io_backends_test says so. */
#ifndef SLUICE_TESTS_IO_WAYS_H
#define SLUICE_TESTS_IO_WAYS_H

#include "worker/engine.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline enum sl_io_mode uring_here(void)
{
    /* A ring of no entries is an error of its own where rings are allowed. */
    bool refused = syscall(SYS_io_uring_setup, 0, NULL) < 0 && (errno == EPERM || errno == ENOSYS);

    return refused ? SL_IO_PREAD : SL_IO_URING;
}

static inline enum sl_io_mode io_way(unsigned turn) { return turn % 2 ? SL_IO_PREAD : uring_here(); }

#endif
