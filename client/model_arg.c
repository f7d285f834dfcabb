/* What a path on the command line means, and text from strangers' files. */
#include "client/model_arg.h"

#include "proto/suffix.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool model_arg_is_part(const char *arg)
{
    return sl_stem(arg, ".safetensors") || sl_stem(arg, ".json");
}

/* The one model among a folder's .gguf files; *path stays NULL without any. *shards: there are some, too. */
static int in_folder(const char *dir, char **path, bool *shards, struct sl_error *e)
{
    DIR *d = opendir(dir);
    struct dirent *ent;
    int rc = 0;

    if (!d)
        return sl_fail(e, SL_ESOURCE, "%s: %s", dir, strerror(errno));
    while (rc == 0 && (errno = 0, ent = readdir(d)) != NULL) {
        uint32_t n;

        *shards |= sl_stem(ent->d_name, ".safetensors") > 0;
        if (!sl_stem(ent->d_name, ".gguf") || sl_gguf_split_count(ent->d_name, &n, NULL) < 0)
            continue;
        if (*path)
            rc = sl_fail(e, SL_EUSAGE, "%s: holds several GGUF models, such as %s and %s; name one of them", dir,
                         strrchr(*path, '/') + 1, ent->d_name);
        else if (asprintf(path, "%s/%s", dir, ent->d_name) < 0)
            *path = NULL, rc = sl_no_memory(e);
    }
    if (rc == 0 && errno)
        rc = sl_fail(e, SL_ESOURCE, "%s: %s", dir, strerror(errno));
    closedir(d);
    if (rc < 0) {
        free(*path);
        *path = NULL;
    }
    return rc;
}

static int not_there(const char *arg, int why, struct sl_error *e)
{
    char partial[PATH_MAX];

    snprintf(partial, sizeof partial, "%s.partial", arg);
    if (why == ENOENT && access(partial, F_OK) == 0)
        return sl_fail(e, SL_ESOURCE, "%s is unfinished (%s); the command that began it goes on with it", arg, partial);
    return sl_fail(e, SL_ESOURCE, "%s: %s; expected a .gguf file, or the folder of a model", arg, strerror(why));
}

static int find_gguf(const char *arg, char **path, bool *shards, struct sl_error *e)
{
    struct stat st;

    *path = NULL;
    if (stat(arg, &st) != 0)
        return not_there(arg, errno, e);
    if (sl_stem(arg, ".gguf.partial") && S_ISREG(st.st_mode))
        return sl_fail(e, SL_ESOURCE, "%s: an unfinished file; the command that began it goes on with it", arg);
    if (S_ISDIR(st.st_mode))
        return in_folder(arg, path, shards, e);
    if (model_arg_is_part(arg))
        return 0;
    *path = strdup(arg);
    return *path ? 0 : sl_no_memory(e);
}

int model_arg_gguf(const char *arg, char **path, struct sl_error *e)
{
    bool shards = false;

    return find_gguf(arg, path, &shards, e);
}

int model_arg_either(const char *arg, char **path, struct sl_error *e)
{
    bool shards = false;

    SL_TRY(find_gguf(arg, path, &shards, e));
    if (!*path || !shards)
        return 0;
    sl_fail(e, SL_EUSAGE, "%s: holds a checkpoint and %s; name that file, or the checkpoint's index or shard", arg,
            strrchr(*path, '/') + 1);
    free(*path);
    *path = NULL;
    return e->code;
}

int gguf_set_open(const char *path, struct gguf_set *s, struct sl_error *e)
{
    char part[PATH_MAX];
    uint32_t n;

    *s = (struct gguf_set){0};
    SL_TRY(sl_gguf_split_count(path, &n, e));
    s->files = calloc(n, sizeof *s->files);
    if (!s->files)
        return sl_no_memory(e);
    for (; s->n < n; s->n++) {
        struct sl_gguf *g;

        SL_TRY(sl_gguf_part_path(part, sizeof part, path, s->n, e));
        SL_TRY(sl_gguf_open(part, &s->files[s->n], e));
        g = s->files[s->n];
        s->n_tensors += g->n_tensors;
        s->bytes += g->file_size;
        for (uint64_t i = 0; i < g->n_tensors; i++)
            s->tensor_bytes += g->tensors[i].bytes;
    }
    return 0;
}

void gguf_set_close(struct gguf_set *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        sl_gguf_close(s->files[i]);
    free(s->files);
    *s = (struct gguf_set){0};
}

uint64_t gguf_elems(const struct sl_gguf_tensor *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

void print_safe(const char *text, uint64_t n, uint64_t max)
{
    const unsigned char *s = (const unsigned char *)text;
    uint64_t i = 0;

    while (i < n && i < max) {
        size_t len = sl_utf8_shown(s + i, n - i);

        if (s[i] == '\n')
            fputs("\\n", stdout);
        else if (len == 0)
            printf("\\x%02x", s[i]);
        else
            fwrite(s + i, 1, len, stdout);
        i += len ? len : 1;
    }
    if (i < n)
        fputs("...", stdout);
}

struct cJSON *json_text(const char *text, uint64_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    char *clean = cJSON_malloc(3 * n + 1), *p = clean;
    cJSON *j;

    if (!clean)
        return NULL;
    for (uint64_t i = 0; i < n;) {
        uint64_t len = s[i] ? sl_utf8_at(s + i, n - i) : 0;

        if (len) {
            memcpy(p, s + i, len);
            p += len;
            i += len;
        } else {
            memcpy(p, "\xef\xbf\xbd", 3);
            p += 3;
            i++;
        }
    }
    *p = '\0';
    j = cJSON_CreateString(clean);
    cJSON_free(clean);
    return j;
}

void json_tensors(struct cJSON *object, uint64_t n)
{
    cJSON_AddNumberToObject(object, "tensors", (double)n);
    cJSON_AddNumberToObject(object, "n_tensors", (double)n);
}
