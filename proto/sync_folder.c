#include "proto/sync_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int sync_open(int fd, const char *dir, struct sl_error *e)
{
    int rc = 0;

    /* Some filesystems cannot sync a folder and say so: nothing to do there. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS))
        rc = sl_fail(e, sl_write_code(errno), "%s: cannot sync the folder: %s", dir, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

int sl_sync_folder(const char *dir, struct sl_error *e)
{
    return sync_open(open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir, e);
}

int sl_sync_folder_of(const char *path, struct sl_error *e)
{
    const char *slash = strrchr(path, '/');
    char dir[PATH_MAX];
    int fd;

    snprintf(dir, sizeof dir, "%.*s", !slash || slash == path ? 1 : (int)(slash - path), slash ? path : ".");
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 && errno == EACCES ? 0 : sync_open(fd, dir, e);
}
