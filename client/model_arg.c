/* What a path on the command line means, and text from strangers' files. */
#include "client/model_arg.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n > m && strcmp(s + n - m, end) == 0;
}

/* The one model among a folder's .gguf files; *path stays NULL without any. */
static int in_folder(const char *dir, char **path, struct sl_error *e)
{
    DIR *d = opendir(dir);
    struct dirent *ent;
    int rc = 0;

    if (!d)
        return sl_fail(e, SL_ESOURCE, "%s: %s", dir, strerror(errno));
    while (rc == 0 && (ent = readdir(d)) != NULL) {
        uint32_t n;

        if (!ends_with(ent->d_name, ".gguf") || sl_gguf_split_count(ent->d_name, &n, NULL) < 0)
            continue;
        if (*path)
            rc = sl_fail(e, SL_EUSAGE, "%s: holds several GGUF models; name one of them", dir);
        else if (asprintf(path, "%s/%s", dir, ent->d_name) < 0)
            *path = NULL, rc = sl_fail(e, SL_EFAIL, "out of memory");
    }
    closedir(d);
    if (rc < 0) {
        free(*path);
        *path = NULL;
    }
    return rc;
}

int model_arg_gguf(const char *arg, char **path, struct sl_error *e)
{
    struct stat st;

    *path = NULL;
    if (stat(arg, &st) != 0)
        return sl_fail(e, SL_ESOURCE, "%s: %s", arg, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return in_folder(arg, path, e);
    if (ends_with(arg, ".safetensors") || ends_with(arg, ".json"))
        return 0;
    *path = strdup(arg);
    return *path ? 0 : sl_fail(e, SL_EFAIL, "out of memory");
}

int gguf_set_open(const char *path, struct gguf_set *s, struct sl_error *e)
{
    char part[PATH_MAX];
    uint32_t n;

    *s = (struct gguf_set){0};
    SL_TRY(sl_gguf_split_count(path, &n, e));
    s->files = calloc(n, sizeof *s->files);
    if (!s->files)
        return sl_fail(e, SL_EFAIL, "out of memory");
    for (; s->n < n; s->n++) {
        struct sl_gguf *g;

        if (sl_gguf_part_path(part, sizeof part, path, s->n) < 0)
            return sl_fail(e, SL_ESOURCE, "%s: path too long", path);
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

/* Bytes of the UTF-8 character at s (n bytes left), or 0. */
static uint64_t utf8_at(const unsigned char *s, uint64_t n)
{
    uint64_t len = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                   : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

    if (len == 0 || len > n)
        return 0;
    for (uint64_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

/* C0, DEL, C1, and the marks that reorder text. */
static bool is_control(const unsigned char *s, uint64_t len)
{
    if (len == 1)
        return s[0] < 0x20 || s[0] == 0x7f;
    if (len == 2)
        return s[0] == 0xc2 && s[1] < 0xa0;
    return len == 3 && s[0] == 0xe2 &&
           ((s[1] == 0x80 && (s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xa8 && s[2] <= 0xae))) ||
            (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9));
}

void print_safe(const char *text, uint64_t n, uint64_t max)
{
    const unsigned char *s = (const unsigned char *)text;
    uint64_t i = 0;

    while (i < n && i < max) {
        uint64_t len = utf8_at(s + i, n - i);

        if (s[i] == '\n') {
            fputs("\\n", stdout);
            len = 1;
        } else if (len == 0 || is_control(s + i, len)) {
            len = len ? len : 1;
            for (uint64_t k = 0; k < len; k++)
                printf("\\x%02x", s[i + k]);
        } else {
            fwrite(s + i, 1, len, stdout);
        }
        i += len;
    }
    if (i < n)
        fputs("...", stdout);
}

struct cJSON *json_text(const char *text, uint64_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    char *clean = malloc(3 * n + 1), *p = clean;
    cJSON *j;

    if (!clean)
        return NULL;
    for (uint64_t i = 0; i < n;) {
        uint64_t len = s[i] ? utf8_at(s + i, n - i) : 0;

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
    free(clean);
    return j;
}
