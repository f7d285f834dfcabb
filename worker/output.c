#include "worker/output.h"

#include "proto/refusal.h"
#include "proto/size_text.h"
#include "proto/suffix.h"
#include "proto/sync_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RESERVE_STEP (1ull << 30)

static bool is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The same, but no link to one. */
static bool is_dir_itself(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_special(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode);
}

/* A name like "x.bin" or "x.safetensors" asks for another kind of file; one like
 * "R1-v1.0" or "x.Q4_K_M" does not. */
static bool other_kind(const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t n = dot ? strlen(dot + 1) : 0;

    if (n < 2 || n > 11 || dot == name)
        return false;
    for (const char *p = dot + 1; *p; p++)
        if ((*p | 0x20) < 'a' || (*p | 0x20) > 'z')
            return false;
    return true;
}

/* Length of what such a name, or one of what stands beside an output, was made of, without .gguf; 0: it is neither. */
static size_t stem_of_other(const char *name)
{
    static const char *const beside[] = {".partial", ".xxh64", ".sluice-journal", ".sluice-journal-wal", ".sluice-job"};
    char stem[OUTPUT_PATH_BYTES];
    size_t n = other_kind(name) ? (size_t)(strrchr(name, '.') - name) : 0;

    for (unsigned i = 0; i < sizeof beside / sizeof *beside && !n; i++)
        n = sl_stem(name, beside[i]);
    snprintf(stem, sizeof stem, "%.*s", (int)n, name);
    return sl_stem(stem, ".gguf") ? sl_stem(stem, ".gguf") : n;
}

static int take_name(struct output *o, const char *name, struct sl_error *e)
{
    size_t other = stem_of_other(name);

    if (strcmp(name, ".gguf") == 0)
        return sl_fail(e, SL_EUSAGE, "%s: the output's name is missing before .gguf", name);
    o->prefix = strdup(name);
    if (!o->prefix)
        return sl_no_memory(e);
    o->prefix[sl_gguf_stem(o->prefix)] = 0;
    if (!o->prefix[0] || strlen(o->prefix) > 200)
        return sl_fail(e, SL_EUSAGE, "%s: the output's name must have 1 to 200 bytes", name);
    if (strcmp(o->prefix, name) == 0 && other)
        return sl_fail(e, SL_EUSAGE, "%s: the output is a GGUF file; name it %.*s.gguf", name, (int)other, name);
    return 0;
}

/* The folder above, the caller's (free), or NULL. */
static char *parent_of(const char *dir)
{
    const char *slash = strrchr(dir, '/');

    return !slash ? strdup(".") : slash == dir ? strdup("/") : strndup(dir, (size_t)(slash - dir));
}

static int check_folder(struct output *o, bool may_make, struct sl_error *e)
{
    struct stat st;
    int err = stat(o->dir, &st) == 0 ? 0 : errno;
    char *up;

    if (!err && S_ISDIR(st.st_mode))
        return 0;
    up = parent_of(o->dir);
    if (!up)
        return sl_no_memory(e);
    if (may_make && is_dir(up) && lstat(o->dir, &st) != 0 && errno == ENOENT)
        o->new_dir = true;
    free(up);
    if (o->new_dir && sl_stem(o->dir, ".gguf"))
        return sl_fail(e, SL_EUSAGE, "%s/: the slash asks for a folder of that name; leave it out for a file", o->dir);
    if (o->new_dir)
        return 0;
    if (!err)
        return sl_fail(e, SL_EUSAGE, "%s: a file, and a folder is expected there; choose another output", o->dir);
    if (err != ENOENT && err != ENOTDIR)
        return sl_fail(e, SL_EUSAGE, "%s: %s", o->dir, strerror(err));
    return sl_fail(e, SL_EUSAGE, "%s: no such folder; create it first", o->dir);
}

int output_parse(struct output *o, const char *arg, struct sl_error *e)
{
    const char *slash = strrchr(arg, '/');
    size_t n = strlen(arg);
    bool folder;

    memset(o, 0, sizeof *o);
    if (n == 0)
        return sl_fail(e, SL_EUSAGE, "the output name is empty");
    if (strcmp(arg, "-") == 0)
        return sl_fail(e, SL_EUSAGE, "-: the output is not written from its beginning to its end, so that it must be a file or "
                                     "a folder, not standard output");
    if (is_special(arg))
        return sl_fail(e, SL_EUSAGE, "%s: a device, pipe or socket; the output must be a file or a "
                                     "folder (--dry-run writes nothing)", arg);
    folder = arg[n - 1] == '/' || is_dir(arg);
    if (folder) {
        o->dir = strdup(arg);
        for (size_t k = n; o->dir && k > 1 && o->dir[k - 1] == '/'; k--)
            o->dir[k - 1] = 0;
    } else {
        o->dir = slash == arg ? strdup("/") : slash ? strndup(arg, (size_t)(slash - arg)) : strdup(".");
        SL_TRY(take_name(o, slash ? slash + 1 : arg, e));
    }
    if (!o->dir)
        return sl_no_memory(e);
    return check_folder(o, folder, e);
}

int output_parse_far(struct output *o, const char *arg, struct sl_error *e)
{
    const char *slash = strrchr(arg, '/');

    memset(o, 0, sizeof *o);
    if (arg[0] != '/')
        return sl_fail(e, SL_EUSAGE, "%s: for another machine give the absolute path", arg);
    o->dir = slash == arg ? strdup("/") : strndup(arg, (size_t)(slash - arg));
    if (!o->dir)
        return sl_no_memory(e);
    return slash[1] ? take_name(o, slash + 1, e) : 0;
}

int output_make_dir(const struct output *o, struct sl_error *e)
{
    bool made = mkdir(o->dir, 0777) == 0;
    int rc;

    if (!made && errno != EEXIST)
        return sl_fail(e, sl_write_code(errno), "%s: cannot make this folder: %s", o->dir, strerror(errno));
    rc = sl_sync_folder_of(o->dir, e);
    if (rc < 0 && made)
        rmdir(o->dir);
    return rc < 0 ? rc : made;
}

int output_free_space(const struct output *o, uint64_t *bytes, struct sl_error *e)
{
    char *up = o->new_dir && !is_dir(o->dir) ? parent_of(o->dir) : NULL;
    const char *at = up ? up : o->dir;
    struct statvfs fs;
    int rc = 0;

    if (statvfs(at, &fs) != 0)
        rc = sl_fail(e, SL_EFAIL, "%s: cannot ask for its free space: %s", at, strerror(errno));
    else /* what root may use besides keeps systems alive */
        *bytes = fs.f_blocks ? (uint64_t)fs.f_frsize * fs.f_bavail : UINT64_MAX;
    free(up);
    return rc;
}

char *output_journal(const struct output *o, const char *prefix)
{
    char *path;

    return asprintf(&path, "%s/%s.sluice-journal", o->dir, prefix) < 0 ? NULL : path;
}

int output_attach(struct output *o, const struct sl_plan *plan, struct sl_error *e)
{
    o->plan = plan;
    o->final = calloc(plan->n_segments, sizeof *o->final);
    o->partial = calloc(plan->n_segments, sizeof *o->partial);
    if (!o->final || !o->partial)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < plan->n_segments; i++) {
        const char *name = plan->segments[i].name;

        /* What asprintf leaves when it fails is not said. */
        if (asprintf(&o->final[i], "%s/%s", o->dir, name) < 0)
            o->final[i] = NULL;
        if (asprintf(&o->partial[i], "%s/%s.partial", o->dir, name) < 0)
            o->partial[i] = NULL;
        if (!o->final[i] || !o->partial[i])
            return sl_no_memory(e);
    }
    if (!o->prefix) {
        o->prefix = strdup(plan->segments[0].name);
        if (o->prefix)
            o->prefix[sl_gguf_stem(o->prefix)] = 0;
    }
    o->journal = o->prefix ? output_journal(o, o->prefix) : NULL;
    return o->journal ? 0 : sl_no_memory(e);
}

void output_free(struct output *o)
{
    for (uint32_t i = 0; o->plan && i < o->plan->n_segments; i++) {
        if (o->final)
            free(o->final[i]);
        if (o->partial)
            free(o->partial[i]);
    }
    free(o->final);
    free(o->partial);
    free(o->dir);
    free(o->prefix);
    free(o->journal);
    memset(o, 0, sizeof *o);
}

/* Returns 0, or the code with what to do where an attribute forbids every change to a file or in a folder. flags: of statx. */
static int check_immutable(const char *path, int flags, int code, struct sl_error *e)
{
    struct statx st;

    if (statx(AT_FDCWD, path, flags, 0, &st) != 0 ||
        !(st.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)))
        return 0;
    return sl_fail(e, code, "%s is immutable, as 'lsattr -d' shows: 'chattr -i -a' by root ends that; or choose another output", path);
}

/* Removing a folder of that name, which it is not, changes nothing, and is forbidden with EPERM where the
 * rename will be: this process's rights decide, not its user. */
int output_replaceable(const char *path, struct sl_error *e)
{
    struct stat st;

    if (lstat(path, &st) != 0 || S_ISDIR(st.st_mode) || unlinkat(AT_FDCWD, path, AT_REMOVEDIR) == 0 || errno != EPERM)
        return 0;
    SL_TRY(check_immutable(path, AT_SYMLINK_NOFOLLOW, SL_EEXISTS, e));
    return sl_fail(e, SL_EEXISTS, "%s cannot be replaced: it is another user's, in a folder with the sticky bit, or "
                   "immutable; have its owner remove it, or choose another name", path);
}

bool output_has(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

int output_absent(const struct output *o, bool force, struct sl_error *e)
{
    struct stat st;

    for (uint32_t i = 0; i < o->plan->n_segments; i++) {
        char manifest[OUTPUT_PATH_BYTES], unfinished[OUTPUT_PATH_BYTES];
        const char *names[] = {o->final[i], manifest, o->partial[i], unfinished};

        snprintf(manifest, sizeof manifest, "%s.xxh64", o->final[i]);
        snprintf(unfinished, sizeof unfinished, "%s.xxh64.partial", o->final[i]);
        for (unsigned k = 0; k < 4; k++)
            if (is_dir_itself(names[k]))
                return sl_fail(e, SL_EEXISTS, "%s: a folder has the name of the output%s; move it away or choose "
                               "another name", names[k], k < 2 ? "" : " while it is unfinished");
        if (!force && lstat(o->final[i], &st) == 0)
            return sl_fail(e, SL_EEXISTS, "%s exists already; --force replaces it", o->final[i]);
        for (unsigned k = 0; k < 2; k++)
            SL_TRY(output_replaceable(names[k], e));
    }
    return 0;
}

bool output_is_source(const struct stat *st, const struct sl_checkpoint *ck)
{
    struct stat s;

    for (uint32_t k = 0; k < ck->n_files; k++)
        if (stat(ck->files[k].path, &s) == 0 && s.st_dev == st->st_dev && s.st_ino == st->st_ino)
            return true;
    return false;
}

int output_not_source(const struct output *o, const struct sl_checkpoint *ck, struct sl_error *e)
{
    struct stat st;

    for (uint32_t i = 0; i < o->plan->n_segments; i++) {
        bool there = stat(o->final[i], &st) == 0;

        if (!there && errno != ENOENT)
            return sl_fail(e, SL_EFAIL, "%s: %s", o->final[i], strerror(errno));
        if (there && output_is_source(&st, ck))
            return sl_fail(e, SL_EUSAGE, "%s is the source itself; choose another output name", o->final[i]);
    }
    return 0;
}

int output_check_space(const struct output *o, struct sl_error *e)
{
    uint64_t need = 1 << 20, have;
    char a[32], b[32], said[128];

    for (uint32_t i = 0; !o->sparse && i < o->plan->n_segments; i++) {
        struct stat st;
        uint64_t bytes = o->plan->segments[i].file_bytes;
        uint64_t got = stat(o->partial[i], &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;

        need += bytes > got ? bytes - got : 0;
    }
    SL_TRY(check_immutable(o->dir, 0, SL_EFAIL, e));
    if (access(o->dir, W_OK | X_OK) != 0)
        return sl_fail(e, SL_EFAIL, "%s: no file can be made in this folder: %s", o->dir, sl_refusal(said, errno));
    SL_TRY(output_free_space(o, &have, e));
    if (have < need)
        return sl_fail(e, SL_ENOSPACE, "%s: %s needed, %s free; free %s or choose another folder",
                       o->dir, sl_size_text(a, need), sl_size_text(b, have),
                       sl_size_text((char[32]){0}, need - have));
    return 0;
}

int output_step(const struct output_watch *w, uint64_t n)
{
    return w ? w->step(w->user, n) : 0;
}

/* Space for a file, in pieces, so that whoever watches sees it grow. */
static int reserve_space(int fd, const char *path, uint64_t bytes, bool sparse,
                         const struct output_watch *watch, struct sl_error *e)
{
    bool counted = sparse;
    int err = ftruncate(fd, (off_t)bytes) == 0 ? 0 : errno;

    for (uint64_t at = 0; err == 0 && at < bytes;) {
        uint64_t n = !counted && bytes - at > RESERVE_STEP ? RESERVE_STEP : bytes - at;

        if (!counted && fallocate(fd, 0, (off_t)at, (off_t)n) != 0) {
            if (errno == EINTR)
                continue;
            err = errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
            counted = true;
            continue;
        }
        at += n;
        SL_TRY(output_step(watch, n));
    }
    if (err == 0)
        return 0;
    return sl_fail(e, err == EFBIG ? SL_ENOSPACE : sl_write_code(err),
                   "%s: cannot reserve %llu bytes: %s; %schoose another folder", path,
                   (unsigned long long)bytes, strerror(err),
                   err == EFBIG                           ? "make smaller files with --split-max-size or "
                   : sl_write_code(err) == SL_ENOSPACE ? "free some space or " : "");
}

/* A file that was made here. */
struct made {
    bool here;
    dev_t dev;
    ino_t ino;
};

static int cannot_make(const char *path, int err, struct sl_error *e)
{
    if (err == EEXIST || err == EPERM) /* of an earlier conversion, and it could not be removed; or it stands there to go on with */
        SL_TRY(output_replaceable(path, e));
    if (err == EEXIST)
        return sl_fail(e, SL_EEXISTS, "%s: somebody else has made it just now", path);
    return sl_fail(e, sl_write_code(err), "%s: %s", path, strerror(err));
}

static int reserve_one(const struct output *o, uint32_t i, bool fresh, bool *kept, struct made *made,
                       const struct output_watch *watch, struct sl_error *e)
{
    const char *path = o->partial[i];
    uint64_t bytes = o->plan->segments[i].file_bytes;
    struct stat st;
    int fd, rc;

    SL_TRY(output_step(watch, 0));
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (fresh ? O_EXCL : 0), 0666);
    if (fd < 0) {
        rc = cannot_make(path, errno, e);
    } else if (fstat(fd, &st) != 0) {
        rc = sl_fail(e, sl_write_code(errno), "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        rc = sl_fail(e, SL_EFAIL, "%s: not a regular file", path);
    } else {
        *made = (struct made){fresh, st.st_dev, st.st_ino};
        *kept = !fresh && (uint64_t)st.st_size == bytes;
        rc = reserve_space(fd, path, bytes, o->sparse, watch, e);
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Somebody else's file of the same name stays. */
static void unmake(const struct output *o, const struct made *made)
{
    struct stat st;

    for (uint32_t i = 0; i < o->plan->n_segments; i++)
        if (made[i].here && lstat(o->partial[i], &st) == 0 && st.st_dev == made[i].dev &&
            st.st_ino == made[i].ino)
            unlink(o->partial[i]);
}

int output_reserve(const struct output *o, bool fresh, bool *kept, const struct output_watch *watch,
                   struct sl_error *e)
{
    struct made *made = calloc(o->plan->n_segments, sizeof *made);
    int rc = made ? 0 : sl_no_memory(e);

    for (uint32_t i = 0; rc == 0 && i < o->plan->n_segments; i++)
        rc = reserve_one(o, i, fresh, &kept[i], &made[i], watch, e);
    if (rc == 0)
        rc = output_sync_dir(o, e);
    if (rc == 0)
        rc = output_step(watch, 0);
    if (rc < 0 && made)
        unmake(o, made);
    free(made);
    return rc;
}

/* Whether `tail`, behind the prefix, is that of a temporary file. */
static bool is_temporary(const char *tail)
{
    if (tail[0] == '-' && strspn(tail + 1, "0123456789") == 5 && strncmp(tail + 6, "-of-", 4) == 0 &&
        strspn(tail + 10, "0123456789") == 5)
        tail += 15;
    return strcmp(tail, ".gguf.partial") == 0 || strcmp(tail, ".gguf.xxh64.partial") == 0 ||
           strcmp(tail, ".sluice-job.partial") == 0;
}

bool output_unfinished(const struct output *o)
{
    DIR *d = opendir(o->dir);
    size_t n = strlen(o->prefix);
    struct dirent *ent;
    bool yes = !d && errno != ENOENT;

    while (d && !yes && (errno = 0, ent = readdir(d)) != NULL) {
        yes = strncmp(ent->d_name, o->prefix, n) == 0 && is_temporary(ent->d_name + n) &&
              sl_stem(ent->d_name, ".gguf.partial");
    }
    yes |= d && errno != 0;
    if (d)
        closedir(d);
    return yes;
}

int output_remove(const struct output *o, const struct output_watch *watch, struct sl_error *e)
{
    DIR *d = opendir(o->dir);
    size_t n = strlen(o->prefix);
    struct dirent *ent;
    int rc = d || errno == ENOENT ? 0 : sl_fail(e, SL_EFAIL, "%s: %s", o->dir, strerror(errno)), stays = 0;

    while (d && rc == 0 && (errno = 0, ent = readdir(d)) != NULL) {
        if (strncmp(ent->d_name, o->prefix, n) != 0 || !is_temporary(ent->d_name + n))
            continue;
        rc = output_step(watch, 0);
        if (rc == 0 && unlinkat(dirfd(d), ent->d_name, 0) == 0)
            rc = output_step(watch, 1);
        else if (rc == 0 && errno != ENOENT)
            stays = sl_fail(e, SL_EFAIL, "%s/%s: cannot be removed: %s", o->dir, ent->d_name, strerror(errno));
    }
    if (d && rc == 0 && errno)
        rc = sl_fail(e, SL_EFAIL, "%s: %s", o->dir, strerror(errno));
    if (d)
        closedir(d);
    return rc < 0 ? rc : stays;
}

void output_discard(const struct output *o)
{
    struct sl_error ignored;

    (void)!output_remove(o, NULL, &ignored);
}

int output_sync_dir(const struct output *o, struct sl_error *e)
{
    return sl_sync_folder(o->dir, e);
}
