#include "worker/publish.h"

#include "proto/rename_new.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void manifest_of(char buf[OUTPUT_PATH_BYTES], const struct output *o, uint32_t i, bool partial)
{
    snprintf(buf, OUTPUT_PATH_BYTES, "%s.xxh64%s", o->final[i], partial ? ".partial" : "");
}

/* Returns 1, or 0 where it is not. */
static int is_whole(const struct output *o, uint32_t i, const char *path, struct sl_error *e)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : sl_fail(e, SL_EFAIL, "%s: %s", path, strerror(errno));
    return S_ISREG(st.st_mode) && (uint64_t)st.st_size == o->plan->segments[i].file_bytes;
}

/* Whether the file under the final name is part i of this very output, by its own header. */
static bool is_published(const struct output *o, uint32_t i)
{
    struct sl_gguf *g = NULL;
    struct sl_error ignored;
    const char *id = NULL;
    uint16_t no = 0;
    bool yes;

    if (is_whole(o, i, o->final[i], &ignored) <= 0 || sl_gguf_open(o->final[i], &g, &ignored) < 0)
        return false;
    sl_kvs_get_str(&g->kvs, SL_KEY_FINGERPRINT, &id);
    yes = id && strcmp(id, o->plan->output_id) == 0 &&
          (o->plan->n_segments == 1 || (sl_kvs_get_u16(&g->kvs, "split.no", &no) && no == i));
    sl_gguf_close(g);
    return yes;
}

static int not_ours(const char *path, const char *go_on, struct sl_error *e)
{
    return sl_fail(e, SL_EEXISTS, "%s: a file that is not this job's has the name of the finished one; move it "
                   "away, and %s", path, go_on);
}

static int in_the_way(const char *path, bool force, const char *go_on, struct sl_error *e)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return 0;
    if (S_ISDIR(st.st_mode))
        return sl_fail(e, SL_EEXISTS, "%s: a folder has the name of the finished file; move it away, and %s", path,
                       go_on);
    return force ? 0 : not_ours(path, go_on, e);
}

static int missing(const struct output *o, uint32_t i, struct sl_error *e)
{
    return sl_fail(e, SL_EVERIFY, "%s: the finished file is not there any more", o->partial[i]);
}

int publish_check(const struct output *o, bool force, const char *go_on, struct sl_error *e)
{
    char manifest[OUTPUT_PATH_BYTES];
    int whole;

    for (uint32_t i = 0; i < o->plan->n_segments; i++) {
        manifest_of(manifest, o, i, false);
        SL_TRY(in_the_way(manifest, true, go_on, e));
        SL_TRY(whole = is_whole(o, i, o->partial[i], e));
        if (whole)
            SL_TRY(in_the_way(o->final[i], force, go_on, e));
        else if (!is_published(o, i))
            return missing(o, i, e);
    }
    return 0;
}

static int not_renamed(const char *from, const char *to, struct sl_error *e)
{
    return sl_fail(e, errno == EEXIST ? SL_EEXISTS : sl_write_code(errno), "%s: cannot be renamed to %s: %s", from,
                   strrchr(to, '/') + 1, strerror(errno));
}

static int give_name(const char *from, const char *to, bool replace, struct sl_error *e)
{
    return (replace ? rename(from, to) : sl_rename_new(from, to)) == 0 ? 0 : not_renamed(from, to, e);
}

/* What has the temporary name of a part that is published already may be anybody's: it stays
 * where it is. The manifest goes first; beside a file that is not this job's it has no place. */
static int publish_part(const struct output *o, uint32_t i, bool force, const char *go_on, struct sl_error *e)
{
    char from[OUTPUT_PATH_BYTES], to[OUTPUT_PATH_BYTES];
    struct stat st;
    bool manifest;
    int rc;

    SL_TRY(rc = is_whole(o, i, o->partial[i], e));
    if (!rc)
        return is_published(o, i) ? 0 : missing(o, i, e);
    manifest_of(from, o, i, true);
    manifest_of(to, o, i, false);
    manifest = rename(from, to) == 0;
    if (!manifest && errno != ENOENT)
        return not_renamed(from, to, e);
    rc = give_name(o->partial[i], o->final[i], force, e);
    /* NFS may say of a rename that it did that there is no such file. */
    if (rc < 0 && lstat(o->partial[i], &st) != 0 && is_published(o, i))
        return 0;
    if (rc < 0 && manifest)
        (void)!sl_rename_new(to, from);
    return rc == SL_EEXISTS ? not_ours(o->final[i], go_on, e) : rc;
}

int publish_files(const struct output *o, bool force, const char *go_on, const struct output_watch *watch,
                  struct sl_error *e)
{
    for (uint32_t i = 0; i < o->plan->n_segments; i++) {
        SL_TRY(output_step(watch, 0));
        SL_TRY(publish_part(o, i, force, go_on, e));
    }
    return output_sync_dir(o, e);
}

bool publish_is_done(const struct output *o)
{
    bool yes = true;

    for (uint32_t i = 0; yes && i < o->plan->n_segments; i++)
        yes = is_published(o, i);
    return yes;
}

int publish_undo(const struct output *o, const struct output_watch *watch, struct sl_error *e)
{
    char from[OUTPUT_PATH_BYTES], to[OUTPUT_PATH_BYTES];
    struct stat st;

    for (uint32_t i = 0; i < o->plan->n_segments; i++) {
        SL_TRY(output_step(watch, 0));
        if (lstat(o->partial[i], &st) != 0 && is_published(o, i))
            SL_TRY(give_name(o->final[i], o->partial[i], true, e));
        manifest_of(from, o, i, false);
        manifest_of(to, o, i, true);
        if (lstat(to, &st) != 0 && lstat(o->final[i], &st) != 0 && lstat(from, &st) == 0 && S_ISREG(st.st_mode))
            SL_TRY(give_name(from, to, true, e));
    }
    return output_sync_dir(o, e);
}
