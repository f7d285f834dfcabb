/* The strict reader. Bytes come through one cursor that knows the file's
 * length: nothing is allocated or read before it is known to be there. */
#include "proto/cursor.h"
#include "proto/gguf.h"
#include "proto/source_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW (256u << 10)
#define KEY_MAX 65535u           /* GGUF's own limit on a key's length */
#define KV_MIN_BYTES 14u         /* the shortest key-value: 8 + 1 + 4 + 1 */
#define TENSOR_MIN_BYTES 25u     /* the shortest tensor info: 8 + 1 + 4 + 4 + 8 */

struct cursor {
    int fd;
    const char *path;
    uint64_t size;   /* of the file */
    uint64_t at;     /* next byte */
    uint64_t win_at; /* the file offset of win[0] */
    uint64_t win_n;
    uint8_t *win;
    struct sl_error *e;
};

static uint64_t left(const struct cursor *c)
{
    return c->size - c->at;
}

/* Whether the next n * size bytes reach beyond what a header may have. */
static bool too_long(const struct cursor *c, uint64_t n, uint64_t size)
{
    return c->at > SL_GGUF_MAX_HEADER || n > (SL_GGUF_MAX_HEADER - c->at) / size;
}

static int fail_long(struct cursor *c)
{
    return sl_fail(c->e, SL_ESOURCE, "%s: its header is longer than %u MB, or damaged; no model has so much", c->path,
                   SL_GGUF_MAX_HEADER / 1000000);
}

/* The next n bytes into buf: from the window, or straight from the file when
 * they are many. */
static int take(struct cursor *c, void *buf, uint64_t n)
{
    if (n > left(c))
        return sl_fail(c->e, SL_ESOURCE, "%s: ends inside its header, at byte %llu; is the download complete?", c->path,
                       (unsigned long long)c->size);
    if (too_long(c, n, 1))
        return fail_long(c);
    if (c->at - c->win_at > c->win_n || c->win_n - (c->at - c->win_at) < n) {
        if (n > WINDOW / 2) {
            SL_TRY(sl_source_read(c->fd, c->path, buf, n, c->at, c->e));
            c->at += n;
            return 0;
        }
        c->win_at = c->at;
        c->win_n = left(c) < WINDOW ? left(c) : WINDOW;
        SL_TRY(sl_source_read(c->fd, c->path, c->win, c->win_n, c->win_at, c->e));
    }
    if (n)
        memcpy(buf, c->win + (c->at - c->win_at), n);
    c->at += n;
    return 0;
}

static int take_u32(struct cursor *c, uint32_t *v)
{
    return take(c, v, sizeof *v);
}

static int take_u64(struct cursor *c, uint64_t *v)
{
    return take(c, v, sizeof *v);
}

static int no_memory(struct cursor *c)
{
    return sl_fail(c->e, SL_EFAIL, "%s: out of memory for its header", c->path);
}

static int take_key(struct cursor *c, uint64_t index, char **key)
{
    uint64_t n;

    SL_TRY(take_u64(c, &n));
    if (n == 0 || n > KEY_MAX || n > left(c))
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %llu: length %llu is not possible",
                       c->path, (unsigned long long)index, (unsigned long long)n);
    *key = calloc(1, n + 1);
    if (!*key)
        return no_memory(c);
    SL_TRY(take(c, *key, n));
    if (strlen(*key) != n)
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %llu holds a zero byte", c->path,
                       (unsigned long long)index);
    return 0;
}

/* An array's length is held against the bytes left before it is allocated. */
static int take_numbers(struct cursor *c, struct sl_kv *kv)
{
    size_t size = sl_gguf_type_size(kv->elem);

    if (kv->n > left(c) / size)
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %s: %llu values of type %s do not fit the file; is the "
                       "download complete?", c->path, kv->key, (unsigned long long)kv->n, sl_gguf_type_name(kv->elem));
    if (too_long(c, kv->n, size))
        return fail_long(c);
    kv->data = malloc(kv->n ? kv->n * size : 1);
    if (!kv->data)
        return no_memory(c);
    SL_TRY(take(c, kv->data, kv->n * size));
    if (kv->elem == SL_KV_BOOL)
        for (uint64_t i = 0; i < kv->n; i++)
            if (((const uint8_t *)kv->data)[i] > 1)
                return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %s: a bool is neither 0 nor 1",
                               c->path, kv->key);
    return 0;
}

/* A buffer that grows by doubling, never past what the file has shown. */
struct text {
    char *buf;
    uint64_t n, cap;
};

static int take_string(struct cursor *c, const struct sl_kv *kv, uint64_t index, struct text *t)
{
    uint64_t n = kv->str_len[index];

    if (n > left(c))
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %s: string %llu has %llu bytes, the file %llu more",
                       c->path, kv->key, (unsigned long long)index, (unsigned long long)n,
                       (unsigned long long)left(c));
    if (too_long(c, n, 1))
        return fail_long(c);
    if (t->cap - t->n < n + 1) {
        uint64_t cap = t->cap * 2 > t->n + n + 1 ? t->cap * 2 : t->n + n + 1;
        char *grown = realloc(t->buf, cap);

        if (!grown)
            return no_memory(c);
        t->buf = grown;
        t->cap = cap;
    }
    SL_TRY(take(c, t->buf + t->n, n));
    t->n += n;
    t->buf[t->n++] = '\0';
    return 0;
}

/* One block for the pointers and the text, as gguf_kvs.c makes it. */
static int join_strings(struct cursor *c, struct sl_kv *kv, const struct text *t)
{
    char *text;

    kv->strs = malloc(kv->n * sizeof *kv->strs + t->n + 1);
    if (!kv->strs)
        return no_memory(c);
    text = (char *)(kv->strs + kv->n);
    if (t->n)
        memcpy(text, t->buf, t->n);
    for (uint64_t i = 0; i < kv->n; i++) {
        kv->strs[i] = text;
        text += kv->str_len[i] + 1;
    }
    return 0;
}

/* Every string takes 8 bytes at least, which bounds the number of pointers; the
 * text grows with what has been read. */
static int take_strings(struct cursor *c, struct sl_kv *kv)
{
    struct text t = {0};
    int rc = 0;

    if (kv->n > left(c) / 8)
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %s: %llu strings do not fit the file; is the download "
                       "complete?", c->path, kv->key, (unsigned long long)kv->n);
    if (too_long(c, kv->n, 8))
        return fail_long(c);
    kv->str_len = malloc(kv->n ? kv->n * sizeof *kv->str_len : 1);
    if (!kv->str_len)
        return no_memory(c);
    for (uint64_t i = 0; i < kv->n && rc == 0; i++) {
        rc = take_u64(c, &kv->str_len[i]);
        if (rc == 0)
            rc = take_string(c, kv, i, &t);
    }
    if (rc == 0)
        rc = join_strings(c, kv, &t);
    free(t.buf);
    return rc;
}

/* The caller frees *kv, also on failure. */
static int take_kv(struct cursor *c, uint64_t index, struct sl_kv *kv)
{
    uint32_t type, elem;

    SL_TRY(take_key(c, index, &kv->key));
    SL_TRY(take_u32(c, &type));
    kv->n = 1;
    elem = type;
    if (type == SL_KV_ARR) {
        SL_TRY(take_u32(c, &elem));
        SL_TRY(take_u64(c, &kv->n));
        if (elem == SL_KV_ARR)
            return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %s: an array of arrays is not allowed",
                           c->path, kv->key);
    }
    if (elem >= SL_KV_TYPE_COUNT)
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key %s: value type %u does not exist", c->path,
                       kv->key, elem);
    kv->type = (enum sl_gguf_type)type;
    kv->elem = (enum sl_gguf_type)elem;
    return elem == SL_KV_STR ? take_strings(c, kv) : take_numbers(c, kv);
}

static int cmp_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* names: n strings, sorted here. what: "metadata key" or "tensor". */
static int no_duplicates(struct cursor *c, const char **names, uint64_t n, const char *what)
{
    qsort(names, n, sizeof *names, cmp_names);
    for (uint64_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return sl_fail(c->e, SL_ESOURCE, "%s: %s %s is there twice", c->path, what, names[i]);
    return 0;
}

static int take_kvs(struct cursor *c, uint64_t n, struct sl_kvs *kvs)
{
    const char **names;
    int rc;

    if (n > left(c) / KV_MIN_BYTES)
        return sl_fail(c->e, SL_ESOURCE, "%s: %llu metadata keys do not fit a file of %llu bytes",
                       c->path, (unsigned long long)n, (unsigned long long)c->size);
    if (n > SL_GGUF_MAX_KEYS)
        return sl_fail(c->e, SL_ESOURCE, "%s: %llu metadata keys; %u at most are read", c->path, (unsigned long long)n,
                       SL_GGUF_MAX_KEYS);
    for (uint64_t i = 0; i < n; i++) {
        if (sl_kvs_reserve(kvs) < 0)
            return no_memory(c);
        kvs->kv[kvs->n] = (struct sl_kv){0};
        SL_TRY(take_kv(c, i, &kvs->kv[kvs->n++]));
    }
    names = malloc(n ? n * sizeof *names : 1);
    if (!names)
        return no_memory(c);
    for (uint64_t i = 0; i < n; i++)
        names[i] = kvs->kv[i].key;
    rc = no_duplicates(c, names, n, "metadata key");
    free(names);
    return rc;
}

static int find_align(struct cursor *c, const struct sl_kvs *kvs, uint64_t *align)
{
    uint32_t v = SL_GGUF_ALIGN;

    if (sl_kvs_find(kvs, "general.alignment") && !sl_kvs_get_u32(kvs, "general.alignment", &v))
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key general.alignment must be a u32", c->path);
    if (v == 0 || (v & (v - 1)))
        return sl_fail(c->e, SL_ESOURCE, "%s: metadata key general.alignment: %u is not a power of 2",
                       c->path, v);
    *align = v;
    return 0;
}

static int take_tensor_name(struct cursor *c, uint64_t index, struct sl_gguf_tensor *t)
{
    uint64_t n;

    SL_TRY(take_u64(c, &n));
    if (n == 0 || n >= SL_NAME_MAX)
        return sl_fail(c->e, SL_ESOURCE, "%s: tensor %llu: a name of %llu bytes; 1 to %d are allowed",
                       c->path, (unsigned long long)index, (unsigned long long)n, SL_NAME_MAX - 1);
    SL_TRY(take(c, t->name, n));
    if (strlen(t->name) != n)
        return sl_fail(c->e, SL_ESOURCE, "%s: tensor %llu: its name holds a zero byte", c->path,
                       (unsigned long long)index);
    return 0;
}

/* Fills t->bytes; the product of the dimensions must fit 63 bits, as ggml's. */
static int tensor_bytes(struct cursor *c, struct sl_gguf_tensor *t)
{
    const struct sl_type_info *info = sl_type_info(t->type);
    int64_t elems = 1;

    for (int i = 0; i < 4; i++) {
        if (t->ne[i] == 0)
            return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: dimension %d is 0", c->path, t->name, i);
        if (__builtin_mul_overflow(elems, t->ne[i], &elems))
            return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: more elements than 63 bits count",
                           c->path, t->name);
    }
    if (!info)
        return sl_fail(c->e, SL_EUNSUPPORTED, "%s: tensor %s: type %d is not known to Sluice; see `sluice types`",
                       c->path, t->name, t->type);
    if (t->ne[0] % info->block)
        return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: rows of %llu are not whole blocks of %u (%s)",
                       c->path, t->name, (unsigned long long)t->ne[0], info->block, info->name);
    t->bytes = sl_type_bytes(t->type, (uint64_t)elems);
    if (t->bytes == 0)
        return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: more bytes than 64 bits count", c->path,
                       t->name);
    return 0;
}

static int take_tensor(struct cursor *c, uint64_t index, struct sl_gguf_tensor *t)
{
    uint32_t type;

    SL_TRY(take_tensor_name(c, index, t));
    SL_TRY(take_u32(c, &t->n_dims));
    if (t->n_dims > 4)
        return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: %u dimensions; 4 at most are allowed", c->path,
                       t->name, t->n_dims);
    for (uint32_t i = 0; i < 4; i++) {
        t->ne[i] = 1;
        if (i < t->n_dims)
            SL_TRY(take_u64(c, &t->ne[i]));
    }
    if (!t->n_dims)
        t->n_dims = 1; /* a number, as gguf-py writes one; ggml reads and writes it so */
    SL_TRY(take_u32(c, &type));
    t->type = type > INT32_MAX ? -1 : (int)type;
    SL_TRY(take_u64(c, &t->offset));
    return tensor_bytes(c, t);
}

static int take_tensors(struct cursor *c, uint64_t n, struct sl_gguf *g)
{
    uint64_t cap = 0;
    const char **names;
    int rc;

    if (n > left(c) / TENSOR_MIN_BYTES)
        return sl_fail(c->e, SL_ESOURCE, "%s: %llu tensors do not fit a file of %llu bytes", c->path,
                       (unsigned long long)n, (unsigned long long)c->size);
    if (n > SL_GGUF_MAX_TENSORS)
        return sl_fail(c->e, SL_ESOURCE, "%s: %llu tensors; %u at most are read", c->path, (unsigned long long)n,
                       SL_GGUF_MAX_TENSORS);
    for (uint64_t i = 0; i < n; i++) {
        if (i == cap) {
            struct sl_gguf_tensor *grown;

            cap = cap ? cap * 2 : 64;
            grown = realloc(g->tensors, cap * sizeof *grown);
            if (!grown)
                return no_memory(c);
            g->tensors = grown;
        }
        g->tensors[i] = (struct sl_gguf_tensor){0};
        SL_TRY(take_tensor(c, i, &g->tensors[i]));
        g->n_tensors = i + 1;
    }
    names = malloc(n ? n * sizeof *names : 1);
    if (!names)
        return no_memory(c);
    for (uint64_t i = 0; i < n; i++)
        names[i] = g->tensors[i].name;
    rc = no_duplicates(c, names, n, "tensor");
    free(names);
    return rc;
}

/* Where the data section starts, and that every tensor lies in it in turn. */
static int place_tensors(struct cursor *c, struct sl_gguf *g)
{
    uint64_t expect = 0;

    if (!sl_align_u64(c->at, g->align, &g->header_bytes) || g->header_bytes > c->size) {
        if (g->n_tensors)
            return sl_fail(c->e, SL_ESOURCE, "%s: ends before its tensor data begin", c->path);
        g->header_bytes = c->at;
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct sl_gguf_tensor *t = &g->tensors[i];
        uint64_t room = c->size - g->header_bytes;

        if (t->offset != expect)
            return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: offset %llu, expected %llu", c->path,
                           t->name, (unsigned long long)t->offset, (unsigned long long)expect);
        if (t->offset > room || t->bytes > room - t->offset)
            return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: its data end past the end of the file; the file is truncated or damaged",
                           c->path, t->name);
        if (!sl_align_u64(t->offset + t->bytes, g->align, &expect))
            return sl_fail(c->e, SL_ESOURCE, "%s: tensor %s: offset overflow", c->path, t->name);
    }
    g->data_bytes = expect;
    return 0;
}

/* Magic, version, counts. A big-endian version 3 reads as 0x03000000. */
static int take_prefix(struct cursor *c, struct sl_gguf *g, uint64_t *n_tensors, uint64_t *n_kv)
{
    uint8_t magic[4];

    SL_TRY(take(c, magic, 4));
    if (sl_source_is_lfs(c->win, c->win_n))
        return sl_fail(c->e, SL_ESOURCE, "%s: %s", c->path, SL_SOURCE_LFS);
    if (memcmp(magic, "GGUF", 4) != 0 && sl_source_is_text(magic, 4))
        return sl_fail(c->e, SL_ESOURCE, "%s: not a GGUF file: begins with '%.4s', expected \"GGUF\"", c->path,
                       (const char *)magic);
    if (memcmp(magic, "GGUF", 4) != 0)
        return sl_fail(c->e, SL_ESOURCE, "%s: not a GGUF file: begins with %02x %02x %02x %02x, expected \"GGUF\"",
                       c->path, magic[0], magic[1], magic[2], magic[3]);
    SL_TRY(take_u32(c, &g->version));
    if ((g->version & 0xffff) == 0)
        return sl_fail(c->e, SL_EUNSUPPORTED, "%s: a big-endian GGUF file; convert it to little-endian first",
                       c->path);
    if (g->version != 2 && g->version != 3)
        return sl_fail(c->e, SL_EUNSUPPORTED, "%s: GGUF version %u; Sluice reads 2 and 3", c->path,
                       g->version);
    SL_TRY(take_u64(c, n_tensors));
    return take_u64(c, n_kv);
}

static int read_all(struct cursor *c, struct sl_gguf *g)
{
    uint64_t n_tensors, n_kv;

    SL_TRY(take_prefix(c, g, &n_tensors, &n_kv));
    SL_TRY(take_kvs(c, n_kv, &g->kvs));
    SL_TRY(find_align(c, &g->kvs, &g->align));
    SL_TRY(take_tensors(c, n_tensors, g));
    return place_tensors(c, g);
}

static int read_file(struct cursor *c, const struct sl_source_stat *st, struct sl_gguf *g)
{
    c->size = st->size;
    g->file_size = st->size;
    g->mtime_ns = st->mtime_ns;
    g->path = strdup(c->path);
    c->win = malloc(WINDOW);
    if (!g->path || !c->win)
        return no_memory(c);
    return read_all(c, g);
}

int sl_gguf_read(int fd, const struct sl_source_stat *st, const char *path, struct sl_gguf **out, struct sl_error *e)
{
    struct cursor c = {.fd = fd, .path = path, .e = e};
    struct sl_gguf *g = calloc(1, sizeof *g);
    int rc = g ? read_file(&c, st, g) : no_memory(&c);

    free(c.win);
    if (rc < 0) {
        sl_gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int sl_gguf_open(const char *path, struct sl_gguf **out, struct sl_error *e)
{
    struct sl_source_stat st;
    int fd, rc;

    SL_TRY(sl_source_open_path(path, NULL, &fd, &st, e));
    rc = sl_gguf_read(fd, &st, path, out, e);
    close(fd);
    return rc;
}

void sl_gguf_close(struct sl_gguf *g)
{
    if (!g)
        return;
    sl_kvs_free(&g->kvs);
    free(g->tensors);
    free(g->path);
    free(g);
}
