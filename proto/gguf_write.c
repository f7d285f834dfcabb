/* Header bytes. One text writes and measures: a sink without a buffer counts,
 * which gives sizes and places of values before anything is allocated. */
#include "proto/gguf.h"

#include <stdlib.h>
#include <string.h>

/* Bytes put one after another; without a buffer they are only counted. */
struct sink {
    uint8_t *buf;
    uint64_t at;
};

static void put(struct sink *s, const void *bytes, uint64_t n)
{
    if (s->buf && n)
        memcpy(s->buf + s->at, bytes, n);
    s->at += n;
}

static void put_u32(struct sink *s, uint32_t v)
{
    put(s, &v, sizeof v);
}

static void put_u64(struct sink *s, uint64_t v)
{
    put(s, &v, sizeof v);
}

static void put_str(struct sink *s, const char *text, uint64_t n)
{
    put_u64(s, n);
    put(s, text, n);
}

static void put_counts(struct sink *s, uint64_t n_tensors, uint64_t n_kv)
{
    put(s, "GGUF", 4);
    put_u32(s, 3);
    put_u64(s, n_tensors);
    put_u64(s, n_kv);
}

/* Returns where the value begins. */
static uint64_t put_kv(struct sink *s, const struct sl_kv *kv)
{
    uint64_t value;

    put_str(s, kv->key, strlen(kv->key));
    put_u32(s, kv->type);
    if (kv->type == SL_KV_ARR) {
        put_u32(s, kv->elem);
        put_u64(s, kv->n);
    }
    value = s->at;
    if (kv->elem == SL_KV_STR)
        for (uint64_t i = 0; i < kv->n; i++)
            put_str(s, kv->strs[i], kv->str_len[i]);
    else
        put(s, kv->data, kv->n * sl_gguf_type_size(kv->elem));
    return value;
}

uint32_t sl_gguf_dims(const uint64_t ne[4])
{
    uint32_t n = 4;

    while (n > 1 && ne[n - 1] == 1)
        n--;
    return n;
}

static void put_tensor(struct sink *s, const struct sl_gguf_tensor *t)
{
    put_str(s, t->name, strnlen(t->name, SL_NAME_MAX));
    put_u32(s, t->n_dims);
    for (uint32_t i = 0; i < t->n_dims && i < 4; i++)
        put_u64(s, t->ne[i]);
    put_u32(s, (uint32_t)t->type);
    put_u64(s, t->offset);
}

static void put_header(struct sink *s, const struct sl_kvs *kvs,
                       const struct sl_gguf_tensor *tensors, uint64_t n_tensors)
{
    put_counts(s, n_tensors, kvs->n);
    for (uint64_t i = 0; i < kvs->n; i++)
        put_kv(s, &kvs->kv[i]);
    for (uint64_t i = 0; i < n_tensors; i++)
        put_tensor(s, &tensors[i]);
}

int sl_gguf_header(const struct sl_kvs *kvs, const struct sl_gguf_tensor *tensors,
                   uint64_t n_tensors, uint8_t **buf, uint64_t *len)
{
    struct sink s = {0};
    uint32_t align;

    if (sl_kvs_find(kvs, "general.alignment") &&
        (!sl_kvs_get_u32(kvs, "general.alignment", &align) || align != SL_GGUF_ALIGN))
        return SL_EFAIL;
    put_header(&s, kvs, tensors, n_tensors);
    *len = sl_gguf_padded(s.at);
    if (!buf)
        return 0;
    s.buf = calloc(1, *len);
    if (!s.buf)
        return SL_EFAIL;
    s.at = 0;
    put_header(&s, kvs, tensors, n_tensors);
    *buf = s.buf;
    return 0;
}

int sl_gguf_value_offset(const struct sl_kvs *kvs, const char *key, uint64_t *off)
{
    struct sink s = {0};

    put_counts(&s, 0, 0);
    for (uint64_t i = 0; i < kvs->n; i++) {
        uint64_t value = put_kv(&s, &kvs->kv[i]);

        if (strcmp(kvs->kv[i].key, key) == 0) {
            *off = value;
            return 0;
        }
    }
    return SL_EFAIL;
}
