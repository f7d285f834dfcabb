#include "daemon/accept_spare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic int spare = -1; /* accept4 has no context */

void sl_accept_spare(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), none = -1;

    if (fd >= 0 && !atomic_compare_exchange_strong(&spare, &none, fd))
        close(fd);
}

int accept4(int fd, struct sockaddr *address, socklen_t *n, int flags)
{
    int got = (int)syscall(SYS_accept4, fd, address, n, flags), kept;

    if (got >= 0 || (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS))
        return got;
    kept = atomic_exchange(&spare, -1);
    if (kept >= 0) {
        close(kept);
        got = (int)syscall(SYS_accept4, fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (got >= 0)
            close(got);
    }
    sl_accept_spare();
    errno = ECONNABORTED;
    return -1;
}
