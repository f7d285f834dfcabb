#include "proto/source_file.h"

#include "proto/refusal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NONBLOCK: a FIFO with a good name must not hang the program. */
#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
#define HOLE_BYTES (1u << 20)
#define HOLES_SEEN 1000 /* smaller ones before it */
#define MAX_TEXT (128u << 20) /* the largest tokenizer.json that is known has 35 MB */

bool sl_source_plain_name(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > 255 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return true;
}

char *sl_source_join(const char *dir, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

bool sl_source_exists(const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    return (size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path || lstat(path, &st) == 0 ||
           (errno != ENOENT && errno != ENOTDIR);
}

/* Whether the resolved path lies below the resolved folder. */
static bool is_below(const char *folder, size_t n, const char *path)
{
    while (n > 0 && folder[n - 1] == '/')
        n--;
    return strncmp(folder, path, n) == 0 && path[n] == '/';
}

/* Whether `real` is R/blobs/<name> for the R of folder = R/snapshots/<revision>[/...]. */
static bool is_cache_blob(const char *folder, const char *real)
{
    static const char snapshots[] = "/snapshots/", blobs[] = "/blobs/";
    const char *at = strstr(folder, snapshots), *next;
    size_t n;

    while (at && (next = strstr(at + 1, snapshots)) != NULL)
        at = next;
    if (!at || at[sizeof snapshots - 1] == '\0')
        return false;
    n = (size_t)(at - folder);
    return strncmp(folder, real, n) == 0 && strncmp(real + n, blobs, sizeof blobs - 1) == 0 &&
           strchr(real + n + sizeof blobs - 1, '/') == NULL;
}

/* Whether `real` is .../models--NAME/blobs/<SHA-1 or SHA-256>: content that a
 * Hugging Face cache holds, whoever links to it. */
static bool is_hub_blob(const char *real)
{
    static const char blobs[] = "/blobs/", model[] = "models--";
    const char *name = strrchr(real, '/'), *at;
    size_t n = name ? strlen(++name) : 0;

    if ((n != 40 && n != 64) || strspn(name, "0123456789abcdef") != n ||
        name - real < (ptrdiff_t)sizeof blobs)
        return false;
    at = name - (sizeof blobs - 1);
    if (strncmp(at, blobs, sizeof blobs - 1) != 0)
        return false;
    while (at > real && at[-1] != '/')
        at--;
    return strncmp(at, model, sizeof model - 1) == 0;
}

/* The part of a path before its end, without slashes around it. */
static const char *last_part(const char *path, size_t end, size_t *n)
{
    size_t from;

    while (end && path[end - 1] == '/')
        end--;
    for (from = end; from && path[from - 1] != '/'; from--)
        ;
    *n = end - from;
    return path + from;
}

const char *sl_source_folder_name(const char *dir, size_t *n)
{
    static const char model[] = "models--", between[] = "--";
    const char *name = last_part(dir, strlen(dir), n), *up, *repo;
    size_t up_n, repo_n;

    up = last_part(dir, (size_t)(name - dir), &up_n);
    repo = last_part(dir, (size_t)(up - dir), &repo_n);
    if (up_n != 9 || strncmp(up, "snapshots", 9) != 0 || repo_n <= sizeof model - 1 ||
        strncmp(repo, model, sizeof model - 1) != 0)
        return name;
    *n = repo_n;
    for (const char *p = repo; p + 2 < repo + repo_n; p++)
        if (strncmp(p, between, 2) == 0) {
            *n = repo_n - (size_t)(p + 2 - repo);
            name = p + 2;
        }
    return name;
}

int sl_source_full_name(const char *dir, char **name, struct sl_error *e)
{
    char real[PATH_MAX];
    const char *own;
    size_t n;

    if (!realpath(dir, real))
        return sl_fail(e, sl_source_code(errno), "%s: its full path, which names the model, cannot be found out: %s", dir,
                       strerror(errno));
    own = sl_source_folder_name(real, &n);
    *name = strndup(own, n);
    return *name ? 0 : sl_fail(e, SL_EFAIL, "%s: out of memory", dir);
}

/* Opens the target of the link at path, if the folder may hold such a link. */
static int open_link(const char *dir, const char *path, struct sl_error *e)
{
    char folder[PATH_MAX], real[PATH_MAX];
    int fd;

    if (!realpath(dir, folder) || !realpath(path, real))
        return sl_fail(e, SL_ESOURCE, "%s: is a symbolic link that leads nowhere: %s", path,
                       strerror(errno));
    if (!is_below(folder, strlen(folder), real) && !is_cache_blob(folder, real) && !is_hub_blob(real))
        return sl_fail(e, SL_ESOURCE, "%s: is a symbolic link to %s, outside the checkpoint's folder"
                       " and no Hugging Face cache; put the file itself there", path, real);
    fd = open(real, OPEN_FLAGS | O_NOFOLLOW);
    return fd < 0 ? sl_fail(e, sl_source_code(errno), "%s: %s", real, sl_refusal((char[128]){0}, errno)) : fd;
}

int64_t sl_source_mtime_ns(const struct stat *s)
{
    return (int64_t)((uint64_t)s->st_mtim.tv_sec * 1000000000u + (uint64_t)s->st_mtim.tv_nsec);
}

/* Some programs give a file its whole size before its bytes are there, and keep a file beside it until they are. */
static int check_downloaded(const char *path, struct sl_error *e)
{
    static const char *const beside[] = {".aria2", ".st"}; /* aria2's, axel's */
    char name[PATH_MAX];
    struct stat s;

    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
        if ((size_t)snprintf(name, sizeof name, "%s%s", path, beside[i]) < sizeof name && lstat(name, &s) == 0)
            return sl_fail(e, SL_ESOURCE, "%s: its download has not ended, for %s is there; go on with it, or remove the latter "
                           "if the file is whole", path, strrchr(name, '/') ? strrchr(name, '/') + 1 : name);
    return 0;
}

static int check_regular(int fd, const char *path, struct sl_source_stat *st, struct sl_error *e)
{
    struct stat s;

    if (fstat(fd, &s) < 0)
        return sl_fail(e, sl_source_code(errno), "%s: %s", path, sl_refusal((char[128]){0}, errno));
    if (!S_ISREG(s.st_mode))
        return sl_fail(e, SL_ESOURCE, "%s: not a regular file", path);
    SL_TRY(check_downloaded(path, e));
    st->size = (uint64_t)s.st_size;
    st->mtime_ns = sl_source_mtime_ns(&s);
    return 0;
}

int sl_source_open(const struct sl_source_dir *dir, const char *name, int *fd,
                   struct sl_source_stat *st, struct sl_error *e)
{
    char *path = sl_source_join(dir->path, name);
    int f, rc;

    if (!path)
        return sl_fail(e, SL_EFAIL, "%s: out of memory", name);
    f = open(path, OPEN_FLAGS | O_NOFOLLOW);
    if (f < 0)
        f = errno == ELOOP ? open_link(dir->path, path, e)
                           : sl_fail(e, sl_source_code(errno), "%s: %s", path, sl_refusal((char[128]){0}, errno));
    rc = f < 0 ? f : check_regular(f, path, st, e);
    if (rc == 0 && dir->roots)
        rc = sl_roots_check_fd(dir->roots, f, path, e);
    if (rc < 0 && f >= 0)
        close(f);
    free(path);
    if (rc == 0)
        *fd = f;
    return rc;
}

int sl_source_open_path(const char *path, const struct sl_roots *roots, int *fd, struct sl_source_stat *st,
                        struct sl_error *e)
{
    int f = open(path, OPEN_FLAGS), rc;

    if (f < 0)
        return sl_fail(e, sl_source_code(errno), "%s: %s", path, sl_refusal((char[128]){0}, errno));
    rc = check_regular(f, path, st, e);
    if (rc == 0 && roots)
        rc = sl_roots_check_fd(roots, f, path, e);
    if (rc < 0)
        close(f);
    else
        *fd = f;
    return rc;
}

bool sl_source_is_lfs(const void *head, size_t n)
{
    static const char lfs[] = "version https://git-lfs";

    return n >= sizeof lfs - 1 && memcmp(head, lfs, sizeof lfs - 1) == 0;
}

size_t sl_source_shown(const void *head, size_t n)
{
    const unsigned char *s = head;
    size_t i = 0;

    while (i < n && s[i] >= 0x20 && s[i] != 0x7f)
        i++;
    return i;
}

bool sl_source_is_text(const void *head, size_t n)
{
    const unsigned char *s = head;

    for (size_t i = 0; i < n; i++)
        if (s[i] >= 0x7f || (s[i] < 0x20 && (!s[i] || !strchr("\t\n\r", s[i]))))
            return false;
    return true;
}

struct sl_source_hole sl_source_first_hole(int fd, uint64_t size)
{
    struct sl_source_hole none = {0}, h;
    off_t at = 0, end;

    for (int i = 0; i < HOLES_SEEN && (at = lseek(fd, at, SEEK_HOLE)) >= 0 && (uint64_t)at < size; i++) {
        end = lseek(fd, at, SEEK_DATA);
        if (end < 0 && errno != ENXIO)
            return none;
        h = (struct sl_source_hole){(uint64_t)at, (end < 0 ? size : (uint64_t)end) - (uint64_t)at};
        if (h.bytes >= HOLE_BYTES)
            return h;
        if (end < 0)
            return none;
        at = end;
    }
    return none;
}

int sl_source_read(int fd, const char *label, void *to, size_t n, uint64_t offset,
                   struct sl_error *e)
{
    size_t got = 0;

    while (got < n) {
        ssize_t r = pread(fd, (char *)to + got, n - got, (off_t)(offset + got));

        if (r > 0)
            got += (size_t)r;
        else if (r == 0)
            return sl_fail(e, SL_ESOURCE, "%s: became shorter while it was read", label);
        else if (errno != EINTR)
            return sl_fail(e, sl_source_code(errno), "%s: cannot be read: %s", label, strerror(errno));
    }
    return 0;
}

int sl_source_head(const struct sl_source_dir *dir, const char *name, size_t most, char **text, size_t *n,
                   struct sl_error *e)
{
    struct sl_source_stat st;
    struct stat s;
    char path[PATH_MAX];
    int fd, rc;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir->path, name) < sizeof path &&
        (stat(path, &s) == 0 ? !S_ISREG(s.st_mode) : errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return 0;
    SL_TRY(sl_source_open(dir, name, &fd, &st, e));
    *n = st.size < most ? (size_t)st.size : most;
    *text = malloc(*n + 1);
    rc = *text ? sl_source_read(fd, name, *text, *n, 0, e) : sl_fail(e, SL_EFAIL, "out of memory for %s", name);
    close(fd);
    if (rc < 0) {
        free(*text);
        return rc;
    }
    (*text)[*n] = '\0';
    return 1;
}

int sl_source_text(const struct sl_source_dir *dir, const char *name, char **text, size_t *len,
                   struct sl_error *e)
{
    struct sl_source_stat st;
    int fd, rc;

    if (!sl_source_exists(dir->path, name))
        return 0;
    SL_TRY(sl_source_open(dir, name, &fd, &st, e));
    if (st.size > MAX_TEXT) {
        close(fd);
        return sl_fail(e, SL_ESOURCE, "%s has %" PRIu64 " bytes: expected at most %u", name, st.size,
                       MAX_TEXT);
    }
    *len = (size_t)st.size;
    *text = malloc(*len + 1);
    rc = *text ? sl_source_read(fd, name, *text, *len, 0, e)
               : sl_fail(e, SL_EFAIL, "out of memory for %s", name);
    close(fd);
    if (rc == 0 && memchr(*text, 0, *len))
        rc = sl_fail(e, SL_ESOURCE, "%s holds NUL bytes: it is no text", name);
    if (rc == 0 && sl_source_is_lfs(*text, *len))
        rc = sl_fail(e, SL_ESOURCE, "%s: %s", name, SL_SOURCE_LFS);
    if (rc < 0) {
        free(*text);
        return rc;
    }
    (*text)[*len] = '\0';
    return 1;
}
