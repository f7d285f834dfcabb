#include "proto/roots.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIES 1000

struct root {
    char *path;  /* as configured, without '/' at the end */
    char *real;  /* the same without symlinks, as it was when opened */
    int fd;
};

struct sl_roots {
    struct root root[SL_ROOTS_MAX];
    unsigned n;
};

/* EAGAIN: something was renamed or mounted, anywhere, while the kernel went over a "..". */
static int open_beneath(int dir, const char *path, int flags)
{
    struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    unsigned tries = 0;
    int fd;

    do
        fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && ++tries < TRIES);
    return fd;
}

static int open_root(const char *path, struct root *r, struct sl_error *e)
{
    size_t n = strlen(path);
    int probe;

    if (path[0] != '/')
        return sl_fail(e, SL_EUSAGE, "root '%s': an absolute path is expected", path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    r->fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (r->fd < 0)
        return sl_fail(e, SL_EUSAGE, "root '%s': %s", path, strerror(errno));
    r->path = strndup(path, n);
    r->real = realpath(path, NULL);
    if (!r->path || !r->real)
        return sl_fail(e, SL_EFAIL, "root '%s': out of memory", path);
    probe = open_beneath(r->fd, ".", O_PATH);
    if (probe < 0 && (errno == ENOSYS || errno == EPERM))
        return sl_fail(e, SL_EUNSUPPORTED, "openat2 is refused, without which roots cannot be kept: the kernel is older than Linux 5.6, or a sandbox forbids it "
                       "(RestrictSUIDSGID= of a unit does)");
    if (probe >= 0)
        close(probe);
    return 0;
}

int sl_roots_open(const char *const *paths, unsigned n, struct sl_roots **out, struct sl_error *e)
{
    struct sl_roots *r;
    int rc = 0;

    *out = NULL;
    if (n > SL_ROOTS_MAX)
        return sl_fail(e, SL_EUSAGE, "%u roots; at most %d are possible", n, SL_ROOTS_MAX);
    r = calloc(1, sizeof *r);
    if (!r)
        return sl_no_memory(e);
    for (unsigned i = 0; i < SL_ROOTS_MAX; i++)
        r->root[i].fd = -1;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        rc = open_root(paths[i], &r->root[i], e);
        r->n++;
    }
    if (rc < 0)
        sl_roots_close(r);
    else
        *out = r;
    return rc;
}

void sl_roots_close(struct sl_roots *r)
{
    for (unsigned i = 0; r && i < r->n; i++) {
        free(r->root[i].path);
        free(r->root[i].real);
        if (r->root[i].fd >= 0)
            close(r->root[i].fd);
    }
    free(r);
}

/* The part of path below a root's name, "." for the root itself; NULL: not below it. */
static const char *below(const char *root, const char *path)
{
    size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);

    if (strncmp(root, path, n) != 0 || (path[n] != '/' && path[n] != '\0'))
        return NULL;
    path += n + strspn(path + n, "/");
    return *path ? path : ".";
}

/* Returns the descriptor, or -1 with the reason in *first (0: below no root). */
static int open_below(const struct sl_roots *r, const char *path, int flags, int *first)
{
    *first = 0;
    for (unsigned i = 0; i < r->n; i++) {
        const char *names[2] = {r->root[i].path, r->root[i].real};

        for (unsigned k = 0; k < 2; k++) {
            const char *rest = below(names[k], path);
            int fd = rest ? open_beneath(r->root[i].fd, rest, flags) : -1;

            if (fd >= 0)
                return fd;
            if (rest && (!*first || *first == EXDEV))
                *first = errno;
        }
    }
    return -1;
}

/* A root above path whose name leads to another folder than the one that is open; NULL: none. */
static const char *other_root(const struct sl_roots *r, const char *path)
{
    for (unsigned i = 0; i < r->n; i++) {
        const struct root *root = &r->root[i];
        struct stat now, own;

        if ((below(root->path, path) || below(root->real, path)) && stat(root->path, &now) == 0 &&
            fstat(root->fd, &own) == 0 && (now.st_dev != own.st_dev || now.st_ino != own.st_ino))
            return root->path;
    }
    return NULL;
}

/* Effect: writes that a path is outside, and the roots by name. verb: "lies" or "leads". Returns SL_EUSAGE. */
static int outside(const struct sl_roots *r, const char *path, const char *verb, struct sl_error *e)
{
    char names[400] = "";
    size_t n = 0;

    for (unsigned i = 0; i < r->n && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s %s", i ? "," : "", r->root[i].path);
    if (n >= sizeof names)
        memcpy(names + sizeof names - 4, "...", 4);
    return sl_fail(e, SL_EUSAGE, "%s: %s outside the folders allowed here (--root of sluiced and its workers:%s)", path,
                   verb, r->n ? names : " none");
}

/* A link with an absolute text may lead to a root all the same; the kernel looks again. *first is then the reason there.
 * What is missing (realpath leaves its name) is not opened, though it may have come meanwhile. */
static int open_linked(const struct sl_roots *r, const char *path, int flags, int *first)
{
    char real[PATH_MAX] = "";
    int missing = realpath(path, real) ? 0 : errno, again;
    int fd = open_below(r, real, missing ? O_PATH : flags, &again);

    if (missing && fd >= 0)
        close(fd);
    if (again)
        *first = missing ? missing : again;
    return missing ? -1 : fd;
}

int sl_roots_open_path(const struct sl_roots *r, const char *path, int flags, struct sl_error *e)
{
    const char *other;
    int first, fd;

    if (path[0] != '/')
        return sl_fail(e, SL_EUSAGE, "%s: an absolute path is expected", path);
    fd = open_below(r, path, flags, &first);
    if (fd < 0 && first == EXDEV)
        fd = open_linked(r, path, flags, &first);
    if (fd >= 0)
        return fd;
    if (!first)
        return outside(r, path, "lies", e);
    if (first == EXDEV || first == ELOOP)
        return outside(r, path, "leads", e);
    if (first == ENOENT && (other = other_root(r, path)) != NULL)
        return sl_fail(e, SL_EFAIL, "%s: not found, for the root %s is another folder now than when this program "
                       "began (was it mounted since?); restart the program", path, other);
    return sl_fail(e, first == ENOENT || first == ENOTDIR ? SL_ESOURCE : SL_EFAIL, "%s: %s", path,
                   strerror(first));
}

int sl_roots_check_fd(const struct sl_roots *r, int fd, const char *what, struct sl_error *e)
{
    char link[32], path[PATH_MAX];
    ssize_t n;

    sl_roots_pin(fd, link);
    n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return sl_fail(e, SL_EFAIL, "%s: cannot tell where it lies: %s", what, strerror(errno));
    path[n] = '\0';
    for (unsigned i = 0; i < r->n; i++) {
        char at[PATH_MAX];
        ssize_t len;

        /* The root's own place now: it can have been renamed. */
        sl_roots_pin(r->root[i].fd, link);
        len = readlink(link, at, sizeof at - 1);
        if (len <= 0)
            continue;
        at[len] = '\0';
        if (below(at, path))
            return 0;
    }
    return outside(r, what, "lies", e);
}

void sl_roots_pin(int fd, char path[32])
{
    snprintf(path, 32, "/proc/self/fd/%d", fd);
}
