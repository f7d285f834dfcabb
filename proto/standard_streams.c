#include "proto/standard_streams.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void sl_streams_fill(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0)
            (void)!open("/", O_RDONLY); /* a root without /dev */
}

static bool can_write(int fd)
{
    int how = fcntl(fd, F_GETFL);

    return how >= 0 && (how & O_ACCMODE) != O_RDONLY;
}

/* NFS says at close what it could not store. */
static int close_copy(int fd)
{
    int copy = dup(fd);

    return copy >= 0 && close(copy) != 0 && errno != EINTR ? errno : 0;
}

int sl_stdout_flush(struct sl_error *e)
{
    int err = fflush(stdout) != 0 ? errno : 0;

    if (!err && !ferror(stdout)) {
        err = close_copy(STDOUT_FILENO);
        if (!err)
            return 0;
    }
    if (!can_write(STDOUT_FILENO))
        return sl_fail(e, SL_EFAIL, "standard output cannot be written: it is closed");
    return sl_fail(e, SL_EFAIL, "standard output cannot be written%s%s", err ? ": " : "", err ? strerror(err) : "");
}
