/* The ordered list of key-values. A list owns what it has not borrowed; each value is
 * one block (strings: pointers and text in one), so that a vocabulary of
 * 129,280 tokens costs three allocations. */
#include "proto/gguf.h"
#include "proto/utf8.h"

#include <stdlib.h>
#include <string.h>

/* The values of a list lie in memory as in the file. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF values are little-endian");

static const struct {
    const char *name;
    size_t size;
} kv_types[SL_KV_TYPE_COUNT] = {
    [SL_KV_U8] = {"u8", 1},   [SL_KV_I8] = {"i8", 1},     [SL_KV_U16] = {"u16", 2},
    [SL_KV_I16] = {"i16", 2}, [SL_KV_U32] = {"u32", 4},   [SL_KV_I32] = {"i32", 4},
    [SL_KV_F32] = {"f32", 4}, [SL_KV_BOOL] = {"bool", 1}, [SL_KV_STR] = {"str", 0},
    [SL_KV_ARR] = {"arr", 0}, [SL_KV_U64] = {"u64", 8},   [SL_KV_I64] = {"i64", 8},
    [SL_KV_F64] = {"f64", 8},
};

size_t sl_gguf_type_size(enum sl_gguf_type t)
{
    return (unsigned)t < SL_KV_TYPE_COUNT ? kv_types[t].size : 0;
}

const char *sl_gguf_type_name(enum sl_gguf_type t)
{
    return (unsigned)t < SL_KV_TYPE_COUNT ? kv_types[t].name : "?";
}

static void kv_free(struct sl_kv *kv)
{
    free(kv->key);
    if (kv->borrowed)
        return;
    free(kv->data);
    free(kv->strs);
    free(kv->str_len);
}

void sl_kvs_free(struct sl_kvs *kvs)
{
    for (uint64_t i = 0; i < kvs->n; i++)
        kv_free(&kvs->kv[i]);
    free(kvs->kv);
    *kvs = (struct sl_kvs){0};
}

const struct sl_kv *sl_kvs_find(const struct sl_kvs *kvs, const char *key)
{
    for (uint64_t i = 0; i < kvs->n; i++)
        if (strcmp(kvs->kv[i].key, key) == 0)
            return &kvs->kv[i];
    return NULL;
}

static void remove_key(struct sl_kvs *kvs, const char *key)
{
    const struct sl_kv *kv = sl_kvs_find(kvs, key);

    if (kv) {
        uint64_t i = (uint64_t)(kv - kvs->kv);

        kv_free(&kvs->kv[i]);
        memmove(&kvs->kv[i], &kvs->kv[i + 1], (kvs->n - i - 1) * sizeof *kvs->kv);
        kvs->n--;
    }
}

void sl_kvs_move(struct sl_kvs *kvs, const char *key, uint64_t to)
{
    const struct sl_kv *kv = sl_kvs_find(kvs, key);
    uint64_t i = kv ? (uint64_t)(kv - kvs->kv) : 0;

    if (i > to) {
        struct sl_kv moved = *kv;

        memmove(&kvs->kv[to + 1], &kvs->kv[to], (i - to) * sizeof moved);
        kvs->kv[to] = moved;
    }
}

int sl_kvs_reserve(struct sl_kvs *kvs)
{
    uint64_t cap = kvs->cap ? kvs->cap * 2 : 16;
    struct sl_kv *grown;

    if (kvs->n < kvs->cap)
        return 0;
    grown = realloc(kvs->kv, cap * sizeof *grown);
    if (!grown)
        return SL_EFAIL;
    kvs->kv = grown;
    kvs->cap = cap;
    return 0;
}

/* Takes over what kv owns, also on failure. The old value of the key goes last,
 * since the new one may have been copied from it. */
static int kvs_append(struct sl_kvs *kvs, struct sl_kv *kv)
{
    if (sl_kvs_reserve(kvs) < 0) {
        kv_free(kv);
        return SL_EFAIL;
    }
    remove_key(kvs, kv->key);
    kvs->kv[kvs->n++] = *kv;
    return 0;
}

static int set_numbers(struct sl_kvs *kvs, const char *key, enum sl_gguf_type type,
                       enum sl_gguf_type elem, const void *v, uint64_t n)
{
    struct sl_kv kv = {.type = type, .elem = elem, .n = n};
    size_t size = sl_gguf_type_size(elem), bytes;

    if (size == 0 || __builtin_mul_overflow(size, n, &bytes))
        return SL_EFAIL;
    kv.key = strdup(key);
    kv.data = malloc(bytes ? bytes : 1);
    if (!kv.key || !kv.data) {
        kv_free(&kv);
        return SL_EFAIL;
    }
    if (bytes)
        memcpy(kv.data, v, bytes);
    return kvs_append(kvs, &kv);
}

/* GGUF's strings are UTF-8, a path or an option's text need not be: U+FFFD in place of each byte
 * that is none. Returns the bytes that it takes; to may be NULL. */
static uint64_t put_text(char *to, const char *text)
{
    uint64_t at = 0;

    for (size_t left = strlen(text), n; left; text += n, left -= n) {
        size_t len = n = sl_utf8_at(text, left);

        if (n == 0)
            len = 3;
        if (to)
            memcpy(to + at, n ? text : "\xef\xbf\xbd", len);
        at += len;
        n += n == 0;
    }
    return at;
}

/* The pointers and the text they point into are one block. len: the lengths of strings that are
 * taken as they are, or NULL for texts that end at their NULs. */
static int set_strings(struct sl_kvs *kvs, const char *key, enum sl_gguf_type type,
                       const char *const *v, const uint64_t *len, uint64_t n)
{
    struct sl_kv kv = {.type = type, .elem = SL_KV_STR, .n = n};
    uint64_t bytes = 1; /* an empty list has a block, too */

    for (uint64_t i = 0; i < n; i++)
        if (__builtin_add_overflow(bytes, sizeof(char *) + 1 + (len ? len[i] : put_text(NULL, v[i])), &bytes))
            return SL_EFAIL;
    kv.key = strdup(key);
    kv.strs = malloc(bytes);
    kv.str_len = malloc(n ? n * sizeof *kv.str_len : 1);
    if (!kv.key || !kv.strs || !kv.str_len) {
        kv_free(&kv);
        return SL_EFAIL;
    }
    char *text = (char *)(kv.strs + n);

    for (uint64_t i = 0; i < n; i++) {
        kv.str_len[i] = len ? len[i] : put_text(text, v[i]);
        kv.strs[i] = text;
        if (len)
            memcpy(text, v[i], len[i]);
        text[kv.str_len[i]] = '\0';
        text += kv.str_len[i] + 1;
    }
    return kvs_append(kvs, &kv);
}

int sl_kvs_set_u16(struct sl_kvs *kvs, const char *key, uint16_t v)
{
    return set_numbers(kvs, key, SL_KV_U16, SL_KV_U16, &v, 1);
}

int sl_kvs_set_u32(struct sl_kvs *kvs, const char *key, uint32_t v)
{
    return set_numbers(kvs, key, SL_KV_U32, SL_KV_U32, &v, 1);
}

int sl_kvs_set_i32(struct sl_kvs *kvs, const char *key, int32_t v)
{
    return set_numbers(kvs, key, SL_KV_I32, SL_KV_I32, &v, 1);
}

int sl_kvs_set_u64(struct sl_kvs *kvs, const char *key, uint64_t v)
{
    return set_numbers(kvs, key, SL_KV_U64, SL_KV_U64, &v, 1);
}

int sl_kvs_set_f32(struct sl_kvs *kvs, const char *key, float v)
{
    return set_numbers(kvs, key, SL_KV_F32, SL_KV_F32, &v, 1);
}

int sl_kvs_set_bool(struct sl_kvs *kvs, const char *key, bool v)
{
    uint8_t byte = v;

    return set_numbers(kvs, key, SL_KV_BOOL, SL_KV_BOOL, &byte, 1);
}

int sl_kvs_set_str(struct sl_kvs *kvs, const char *key, const char *v)
{
    return set_strings(kvs, key, SL_KV_STR, &v, NULL, 1);
}

int sl_kvs_set_arr(struct sl_kvs *kvs, const char *key, enum sl_gguf_type elem, const void *v,
                   uint64_t n)
{
    return set_numbers(kvs, key, SL_KV_ARR, elem, v, n);
}

int sl_kvs_set_strs(struct sl_kvs *kvs, const char *key, const char *const *v, uint64_t n)
{
    return set_strings(kvs, key, SL_KV_ARR, v, NULL, n);
}

int sl_kvs_copy(struct sl_kvs *kvs, const struct sl_kv *from)
{
    if (from->elem == SL_KV_STR)
        return set_strings(kvs, from->key, from->type, (const char *const *)from->strs,
                           from->str_len, from->n);
    return set_numbers(kvs, from->key, from->type, from->elem, from->data, from->n);
}

int sl_kvs_borrow(struct sl_kvs *kvs, const struct sl_kv *from)
{
    struct sl_kv kv = *from;

    kv.key = strdup(from->key);
    kv.borrowed = true;
    return kv.key ? kvs_append(kvs, &kv) : SL_EFAIL;
}

static bool get_scalar(const struct sl_kvs *kvs, const char *key, enum sl_gguf_type type, void *v)
{
    const struct sl_kv *kv = sl_kvs_find(kvs, key);

    if (!kv || kv->type != type)
        return false;
    memcpy(v, kv->data, sl_gguf_type_size(type));
    return true;
}

bool sl_kvs_get_u32(const struct sl_kvs *kvs, const char *key, uint32_t *v)
{
    return get_scalar(kvs, key, SL_KV_U32, v);
}

bool sl_kvs_get_u16(const struct sl_kvs *kvs, const char *key, uint16_t *v)
{
    return get_scalar(kvs, key, SL_KV_U16, v);
}

bool sl_kvs_get_str(const struct sl_kvs *kvs, const char *key, const char **v)
{
    const struct sl_kv *kv = sl_kvs_find(kvs, key);

    if (!kv || kv->type != SL_KV_STR)
        return false;
    *v = kv->strs[0];
    return true;
}

bool sl_kvs_get_uint(const struct sl_kvs *kvs, const char *key, uint64_t *v)
{
    const struct sl_kv *kv = sl_kvs_find(kvs, key);
    int64_t s = 0;
    uint64_t u = 0;

    if (!kv || kv->n == 0 || kv->elem == SL_KV_STR)
        return false;
    switch (kv->elem) {
    case SL_KV_U8: case SL_KV_U16: case SL_KV_U32: case SL_KV_U64:
        memcpy(&u, kv->data, sl_gguf_type_size(kv->elem));
        break;
    case SL_KV_I8: s = *(const int8_t *)kv->data; break;
    case SL_KV_I16: s = *(const int16_t *)kv->data; break;
    case SL_KV_I32: s = *(const int32_t *)kv->data; break;
    case SL_KV_I64: s = *(const int64_t *)kv->data; break;
    default: return false;
    }
    if (s < 0)
        return false;
    *v = u | (uint64_t)s;
    return true;
}
