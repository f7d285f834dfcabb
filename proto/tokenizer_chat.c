/* Chat templates: one, or several by name, in tokenizer_config.json or in files beside it. */
#include "proto/json_file.h"
#include "proto/suffix.h"
#include "proto/tokenizer.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MORE "additional_chat_templates"
#define SUFFIX ".jinja"
#define MAX_TEMPLATES 64 /* beside the default one */

static int set_text(struct sl_kvs *kvs, const char *key, const char *v)
{
    return v && *v ? sl_kvs_set_str(kvs, key, v) : 0;
}

/* The template's name with everything but letters and digits as '_'. */
static bool clean_name(const cJSON *item, char buf[64])
{
    const cJSON *name = sl_get(item, "name");
    size_t n = 0;

    if (!cJSON_IsString(name))
        return false;
    for (const char *c = name->valuestring; *c && n < 63; c++) {
        bool ok = (*c >= '0' && *c <= '9') || ((*c | 32) >= 'a' && (*c | 32) <= 'z');

        if (((unsigned char)*c & 0xc0) != 0x80) /* one '_' for a character */
            buf[n++] = ok ? *c : '_';
    }
    buf[n] = '\0';
    return n > 0;
}

static int set_templates(const cJSON *list, struct sl_kvs *kvs)
{
    int n = cJSON_GetArraySize(list), n_named = 0, rc = 0;
    char (*names)[64] = calloc((size_t)n + 1, sizeof *names);
    const char **pointers = calloc((size_t)n + 1, sizeof *pointers);
    const char *fallback = NULL;

    if (!names || !pointers)
        rc = SL_EFAIL;
    for (const cJSON *x = list->child; x && rc == 0; x = x->next) {
        const cJSON *text = sl_get(x, "template");
        char *name = names[n_named], key[96];
        bool again = false;

        if (!cJSON_IsString(text) || !clean_name(x, name))
            continue;
        if (strcmp(name, "default") == 0) {
            fallback = text->valuestring;
            continue;
        }
        for (int i = 0; i < n_named; i++)
            again = again || strcmp(names[i], name) == 0;
        snprintf(key, sizeof key, "tokenizer.chat_template.%s", name);
        rc = set_text(kvs, key, text->valuestring);
        pointers[n_named] = name;
        n_named += !again;
    }
    if (rc == 0 && n_named)
        rc = sl_kvs_set_strs(kvs, "tokenizer.chat_templates", pointers, (uint64_t)n_named);
    if (rc == 0)
        rc = set_text(kvs, "tokenizer.chat_template", fallback);
    free(names);
    free(pointers);
    return rc;
}

static int set_template(const cJSON *j, const char *file, struct sl_kvs *kvs, struct sl_error *e)
{
    if (cJSON_IsString(j))
        return set_text(kvs, "tokenizer.chat_template", j->valuestring);
    if (!cJSON_IsArray(j))
        return 0;
    if (cJSON_GetArraySize(j) > MAX_TEMPLATES + 1)
        return sl_fail(e, SL_ESOURCE, "%s: chat_template holds %d templates; expected %d at most", file,
                       cJSON_GetArraySize(j), MAX_TEMPLATES + 1);
    return set_templates(j, kvs);
}

/* ---- files ---- */

/* Text as Python reads it: UTF-8, every end of a line one LF. Returns 1, or 0 without the file. */
static int read_template(const struct sl_source_dir *dir, const char *name, char **text, struct sl_error *e)
{
    size_t len;
    int rc = sl_source_text(dir, name, text, &len, e);
    char *to;

    if (rc <= 0)
        return rc;
    for (size_t i = 0, n; i < len; i += n)
        if ((n = sl_utf8_at(*text + i, len - i)) == 0) {
            free(*text);
            return sl_fail(e, SL_ESOURCE, "%s: byte %zu is no UTF-8", name, i);
        }
    to = *text;
    for (const char *s = *text; *s; s++)
        if (*s != '\r' || s[1] != '\n')
            *to++ = *s == '\r' ? '\n' : *s;
    *to = '\0';
    return 1;
}

static int add_template(cJSON *list, const char *name, const char *text, struct sl_error *e)
{
    cJSON *item = cJSON_CreateObject();

    if (cJSON_AddStringToObject(item, "name", name) && cJSON_AddStringToObject(item, "template", text)
        && cJSON_AddItemToArray(list, item))
        return 0;
    cJSON_Delete(item);
    return sl_fail(e, SL_EFAIL, "out of memory for chat templates");
}

static int is_template(const struct dirent *d)
{
    return sl_ends_with(d->d_name, SUFFIX);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* One template; its name is the file's without the suffix. */
static int read_more(const struct sl_source_dir *folder, const char *file, cJSON *list, struct sl_error *e)
{
    size_t n = sl_stem(file, SUFFIX);
    char name[256], *text;
    int rc = read_template(folder, file, &text, e);

    if (rc <= 0)
        return rc;
    snprintf(name, sizeof name, "%.*s", n ? (int)n : (int)sizeof name - 1, file);
    rc = add_template(list, name, text, e);
    free(text);
    return rc;
}

/* All of the folder, a real one: a link could show what is elsewhere. Their order is that of
 * their names; the converter's is the file system's. */
static int read_folder(const char *path, const struct sl_roots *roots, cJSON *list, struct sl_error *e)
{
    const struct sl_source_dir folder = {path, roots};
    struct dirent **files;
    struct stat st;
    int n, rc = 0;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : sl_fail(e, sl_source_code(errno), "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return sl_fail(e, SL_ESOURCE, "%s: expected a folder", path);
    n = scandir(path, &files, is_template, by_name);
    if (n < 0)
        return sl_fail(e, sl_source_code(errno), "%s: %s", path, strerror(errno));
    if (n > MAX_TEMPLATES)
        rc = sl_fail(e, SL_ESOURCE, "%s: %d templates; expected %d at most", path, n, MAX_TEMPLATES);
    for (int i = 0; i < n; i++) {
        if (rc == 0)
            rc = read_more(&folder, files[i]->d_name, list, e);
        free(files[i]);
    }
    free(files);
    return rc;
}

/* chat_template.jinja and, where that is, the templates of a folder beside it. */
static int set_files(const struct sl_source_dir *dir, const char *text, struct sl_kvs *kvs, struct sl_error *e)
{
    char *path = sl_source_join(dir->path, MORE);
    cJSON *list = cJSON_CreateArray();
    int rc = path && list ? add_template(list, "default", text, e)
                          : sl_fail(e, SL_EFAIL, "out of memory for chat templates");

    if (rc == 0)
        rc = read_folder(path, dir->roots, list, e);
    if (rc == 0)
        rc = set_templates(list, kvs);
    cJSON_Delete(list);
    free(path);
    return rc;
}

int sl_tokenizer_chat(const struct sl_source_dir *dir, const cJSON *config, struct sl_kvs *kvs,
                      struct sl_error *e)
{
    const cJSON *j = sl_get(config, "chat_template");
    cJSON *file = NULL;
    char *text;
    size_t len;
    int rc;

    if (j)
        return set_template(j, "tokenizer_config.json", kvs, e);
    rc = read_template(dir, "chat_template.jinja", &text, e);
    if (rc > 0) {
        rc = set_files(dir, text, kvs, e);
        free(text);
        return rc;
    }
    if (rc == 0)
        rc = sl_source_text(dir, "chat_template.json", &text, &len, e);
    if (rc <= 0)
        return rc;
    rc = sl_json_parse_python("chat_template.json", text, len, &file, e);
    free(text);
    if (rc == 0)
        rc = set_template(sl_get(file, "chat_template"), "chat_template.json", kvs, e);
    cJSON_Delete(file);
    return rc;
}
