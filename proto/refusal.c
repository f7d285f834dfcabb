#include "proto/refusal.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char *sl_refusal(char buf[128], int err)
{
    char room[1024];
    struct passwd p, *found = NULL;
    int kept = errno;

    if (err != EACCES)
        snprintf(buf, 128, "%s", strerror(err));
    else if (getpwuid_r(geteuid(), &p, room, sizeof room, &found) == 0 && found)
        snprintf(buf, 128, "%s (user %.64s)", strerror(err), p.pw_name);
    else
        snprintf(buf, 128, "%s (user id %u)", strerror(err), (unsigned)geteuid());
    errno = kept;
    return buf;
}
