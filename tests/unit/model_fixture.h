/* A folder of its own for a test, and small checkpoints in it. */
#ifndef SLUICE_TESTS_MODEL_FIXTURE_H
#define SLUICE_TESTS_MODEL_FIXTURE_H

#include "proto/model.h"

#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static inline int fx_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline int fx_setup(void **state)
{
    char *dir = strdup("/tmp/sluice-model-XXXXXX");

    *state = dir ? mkdtemp(dir) : NULL;
    return *state ? 0 : -1;
}

static inline int fx_teardown(void **state)
{
    nftw(*state, fx_remove, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return 0;
}

static inline void fx_write(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void fx_text(const char *dir, const char *name, const char *text)
{
    fx_write(dir, name, text, strlen(text));
}

/* A whole file as text, malloc'ed. */
static inline char *fx_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text;
    long n;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    n = ftell(f);
    rewind(f);
    text = calloc(1, (size_t)n + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    fclose(f);
    return text;
}

/* One BF16 tensor of a small checkpoint; cols 0: a vector of `rows`; between: a dimension there, of three. */
struct fx_tensor {
    const char *name;
    unsigned rows, cols, between;
};

/* Writes dir/model.safetensors with these tensors, all zeros. */
static inline void fx_safetensors(const char *dir, const struct fx_tensor *t, size_t n)
{
    char *head = calloc(1, 200 * n + 64);
    uint8_t *file;
    uint64_t at = 0, off = 0, len;

    assert_non_null(head);
    at += (uint64_t)sprintf(head, "{");
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = 2ull * t[i].rows * (t[i].between ? t[i].between : 1) * (t[i].cols ? t[i].cols : 1);

        at += (uint64_t)sprintf(head + at, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%u", i ? "," : "",
                                t[i].name, t[i].rows);
        if (t[i].between)
            at += (uint64_t)sprintf(head + at, ",%u", t[i].between);
        if (t[i].cols)
            at += (uint64_t)sprintf(head + at, ",%u", t[i].cols);
        at += (uint64_t)sprintf(head + at, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", off,
                                off + bytes);
        off += bytes;
    }
    at += (uint64_t)sprintf(head + at, "}");
    len = 8 + at + off;
    file = calloc(1, len);
    assert_non_null(file);
    memcpy(file, &at, 8);
    memcpy(file + 8, head, at);
    fx_write(dir, "model.safetensors", file, len);
    free(file);
    free(head);
}

/* Opens the model of dir (or of a config alone); returns sl_model_open's code.
 * *ck and *m are NULL after an error. */
static inline int fx_open(const char *path, enum sl_layout layout, struct sl_checkpoint **ck,
                          struct sl_model **m, struct sl_error *e)
{
    struct sl_model_opts o = {.layout = layout};
    size_t n = strlen(path);
    int rc = n > 5 && strcmp(path + n - 5, ".json") == 0 ? sl_checkpoint_open_config(path, ck, e)
                                                         : sl_checkpoint_open(path, ck, e);

    *m = NULL;
    if (rc < 0) {
        *ck = NULL;
        return rc;
    }
    rc = sl_model_open(*ck, &o, m, e);
    if (rc < 0) {
        sl_checkpoint_close(*ck);
        *ck = NULL;
    }
    return rc;
}

/* The same, which must succeed. */
static inline void fx_must_open(const char *path, enum sl_layout layout, struct sl_checkpoint **ck, struct sl_model **m)
{
    struct sl_error e;

    if (fx_open(path, layout, ck, m, &e) < 0)
        fail_msg("%s", e.text);
}

/* The same of a published config of tests/data with these entries behind its own, which then count. */
static inline void fx_open_with(const char *dir, const char *name, const char *more, struct sl_checkpoint **ck, struct sl_model **m)
{
    char path[512], *text, *all;

    snprintf(path, sizeof path, "tests/data/%s", name);
    text = fx_read(path);
    all = malloc(strlen(text) + strlen(more) + 8);
    assert_non_null(all);
    *strrchr(text, '}') = '\0';
    sprintf(all, "%s%s%s}", text, *more ? "," : "", more);
    fx_text(dir, "config.json", all);
    free(text);
    free(all);
    snprintf(path, sizeof path, "%s/config.json", dir);
    fx_must_open(path, SL_LAYOUT_MLA, ck, m);
}

static inline void fx_close(struct sl_checkpoint *ck, struct sl_model *m)
{
    sl_model_close(m);
    sl_checkpoint_close(ck);
}

static inline const struct sl_out_tensor *fx_tensor(const struct sl_model *m, const char *name)
{
    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i].name, name) == 0)
            return &m->tensors[i];
    return NULL;
}

/* "u32 61", "f32 0.6", "str \"x\"", "arr[i32] 3 4 ..." of a key-value. */
static inline void fx_kv_text(const struct sl_kv *kv, char *buf, size_t cap)
{
    size_t at = (size_t)snprintf(buf, cap, kv->type == SL_KV_ARR ? "arr[%s] n=%" PRIu64 : "%s",
                                 sl_gguf_type_name(kv->elem), kv->n);

    for (uint64_t i = 0; i < kv->n && i < 4 && at < cap; i++) {
        const char *d = kv->data;
        uint32_t u = 0;
        float f = 0;

        if (kv->strs) {
            at += (size_t)snprintf(buf + at, cap - at, " '%s'", kv->strs[i]);
        } else if (kv->elem == SL_KV_BOOL) {
            at += (size_t)snprintf(buf + at, cap - at, " %s", d[i] ? "true" : "false");
        } else if (kv->elem == SL_KV_F32) {
            memcpy(&f, d + 4 * i, 4);
            at += (size_t)snprintf(buf + at, cap - at, " %.9g", (double)f);
        } else {
            memcpy(&u, d + 4 * i, 4);
            at += (size_t)snprintf(buf + at, cap - at, " %" PRId32, (int32_t)u);
        }
    }
}

/* Text of a key's value ("-" when it is absent), in a buffer of the caller. */
static inline const char *fx_value(const struct sl_kvs *kvs, const char *key, char *buf, size_t cap)
{
    const struct sl_kv *kv = sl_kvs_find(kvs, key);

    if (kv)
        fx_kv_text(kv, buf, cap);
    else
        snprintf(buf, cap, "-");
    return buf;
}

/* The keys have these values, and stand one behind the other. */
static inline void fx_keys_are(const struct sl_model *m, const char *const (*want)[2], size_t n)
{
    const struct sl_kv *first = sl_kvs_find(&m->kvs, want[0][0]);
    char buf[128];

    for (size_t i = 0; i < n; i++) {
        assert_string_equal(fx_value(&m->kvs, want[i][0], buf, sizeof buf), want[i][1]);
        assert_ptr_equal(sl_kvs_find(&m->kvs, want[i][0]), first + i);
    }
}

#endif
