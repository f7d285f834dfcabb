#include "proto/open_files.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>

void sl_open_files_allow(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)!setrlimit(RLIMIT_NOFILE, &l);
    }
}

int sl_open_files_room(unsigned n, struct sl_error *e)
{
    struct rlimit l;
    unsigned room = 0;
    uint64_t advice = 1024;

    if (getrlimit(RLIMIT_NOFILE, &l) != 0)
        return 0;
    for (rlim_t fd = 0; fd < l.rlim_cur && room < n; fd++)
        room += fcntl((int)fd, F_GETFD) < 0;
    while (room < n && advice < l.rlim_cur + n)
        advice *= 2;
    return room == n ? 0
                     : sl_fail(e, SL_EFAIL, "no more than %llu files may be open, which is too few; allow more: "
                               "ulimit -n %llu, or LimitNOFILE=", (unsigned long long)l.rlim_cur,
                               (unsigned long long)advice);
}
