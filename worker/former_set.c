#include "worker/former_set.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMED_MAX 3 /* parts that a message names */
#define MANIFEST_BYTES (OUTPUT_PATH_BYTES + sizeof ".xxh64")

/* Whether the file's own header says that it is this part of that many. Errors: SL_EFAIL (memory, files open). */
static int says_so(const char *path, uint32_t no, uint32_t count, struct sl_error *e)
{
    struct sl_gguf *g = NULL;
    uint16_t k = 0, n = 0;
    int rc = sl_gguf_open(path, &g, e);
    bool ok;

    if (rc < 0)
        return rc == SL_EFAIL ? rc : 0;
    ok = sl_kvs_get_u16(&g->kvs, "split.no", &k) && sl_kvs_get_u16(&g->kvs, "split.count", &n) &&
         k + 1u == no && n == count;
    sl_gguf_close(g);
    return ok;
}

/* Calls fn for each part; it may remove the file. */
static int each_part(const struct output *o, const struct sl_checkpoint *ck,
                     int (*fn)(void *user, const char *path), void *user, struct sl_error *e)
{
    DIR *d = opendir(o->dir);
    size_t n = strlen(o->prefix);
    struct dirent *ent;
    char path[OUTPUT_PATH_BYTES];
    int rc = 0;

    if (!d)
        return sl_fail(e, SL_EFAIL, "%s: %s", o->dir, strerror(errno));
    while (rc == 0 && (errno = 0, ent = readdir(d)) != NULL) {
        uint32_t no, count;
        struct stat st;

        if (strncmp(ent->d_name, o->prefix, n) != 0 || sl_gguf_stem(ent->d_name) != n ||
            !sl_gguf_split_suffix(ent->d_name, &no, &count) || no < 1 || no > count ||
            (o->plan->n_segments > 1 && count == o->plan->n_segments))
            continue;
        snprintf(path, sizeof path, "%s/%s", o->dir, ent->d_name);
        if (lstat(path, &st) != 0)
            rc = errno == ENOENT ? 0 : sl_fail(e, SL_EFAIL, "%s: %s", path, strerror(errno));
        else if (S_ISREG(st.st_mode) && !output_is_source(&st, ck) && (rc = says_so(path, no, count, e)) == 1)
            rc = fn(user, path);
    }
    if (rc == 0 && errno)
        rc = sl_fail(e, SL_EFAIL, "%s: %s", o->dir, strerror(errno));
    closedir(d);
    return rc;
}

struct named {
    char *path[NAMED_MAX];
    uint32_t n;
    struct sl_error *e;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Keeps the first few in the order of their names. */
static int note(void *user, const char *path)
{
    struct named *named = user;
    uint32_t kept = named->n < NAMED_MAX ? named->n : NAMED_MAX;
    char *copy = strdup(path);

    if (!copy)
        return sl_no_memory(named->e);
    named->n++;
    if (kept < NAMED_MAX) {
        named->path[kept++] = copy;
    } else if (strcmp(copy, named->path[NAMED_MAX - 1]) < 0) {
        free(named->path[NAMED_MAX - 1]);
        named->path[NAMED_MAX - 1] = copy;
    } else {
        free(copy);
    }
    qsort(named->path, kept, sizeof named->path[0], by_text);
    return 0;
}

static void manifest_of(char buf[MANIFEST_BYTES], const char *path)
{
    snprintf(buf, MANIFEST_BYTES, "%s.xxh64", path);
}

static int check_removable(void *user, const char *path)
{
    char manifest[MANIFEST_BYTES];

    manifest_of(manifest, path);
    SL_TRY(output_replaceable(path, user));
    return output_replaceable(manifest, user);
}

int former_set_absent(const struct output *o, bool force, const struct sl_checkpoint *ck, struct sl_error *e)
{
    struct named named = {.e = e};
    char list[700], more[40] = "";
    int at = 0, rc = force ? each_part(o, ck, check_removable, e, e) : each_part(o, ck, note, &named, e);

    for (uint32_t i = 0; i < named.n && i < NAMED_MAX; i++) {
        if (at >= 0 && (size_t)at < sizeof list)
            at += snprintf(list + at, sizeof list - (size_t)at, "%s%s", i ? ", " : "",
                           named.path[i]);
        free(named.path[i]);
    }
    if (rc < 0 || named.n == 0)
        return rc;
    if (named.n > NAMED_MAX)
        snprintf(more, sizeof more, " and %u more", named.n - NAMED_MAX);
    return sl_fail(e, SL_EEXISTS, "%s%s: part%s of another set of this name; --force removes %s when "
                   "the new output is complete, or choose another name", list, more,
                   named.n == 1 ? "" : "s", named.n == 1 ? "it" : "them");
}

static int count(void *user, const char *path)
{
    (void)path;
    ++*(uint32_t *)user;
    return 0;
}

int former_set_count(const struct output *o, const struct sl_checkpoint *ck, uint32_t *n,
                     struct sl_error *e)
{
    *n = 0;
    return each_part(o, ck, count, n, e);
}

struct removal {
    uint32_t n;
    struct sl_error *e;
};

static int remove_file(const char *path, struct sl_error *e)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return 0;
    return sl_fail(e, SL_EFAIL, "%s: this file of the former set cannot be removed: %s", path, strerror(errno));
}

/* The manifest first: a part that is left shows what is to be done. */
static int remove_part(void *user, const char *path)
{
    struct removal *r = user;
    char manifest[MANIFEST_BYTES];
    struct stat st;

    manifest_of(manifest, path);
    if (lstat(manifest, &st) != 0 ? errno != ENOENT : S_ISREG(st.st_mode))
        SL_TRY(remove_file(manifest, r->e));
    SL_TRY(remove_file(path, r->e));
    r->n++;
    return 0;
}

int former_set_remove(const struct output *o, const struct sl_checkpoint *ck, struct sl_error *e)
{
    struct removal r = {0, e};
    int rc = each_part(o, ck, remove_part, &r, e);

    return rc == 0 && r.n ? output_sync_dir(o, e) : rc;
}
