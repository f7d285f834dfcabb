#include "proto/header_seal.h"

#include "proto/cursor.h"
#include "proto/plan.h"
#include "proto/tensor_hash.h"

#include <stdlib.h>

/* Bytes of the key-value's record before its value. */
static uint64_t bytes_before(const struct sl_kv *kv)
{
    return 8 + strlen(kv->key) + 4 + (kv->type == SL_KV_ARR ? 12 : 0);
}

static uint64_t value_bytes(const struct sl_kv *kv)
{
    uint64_t n = kv->n * (kv->elem == SL_KV_STR ? 8 : sl_gguf_type_size(kv->elem));

    for (uint64_t i = 0; kv->elem == SL_KV_STR && i < kv->n; i++)
        n += kv->str_len[i];
    return n;
}

static int seal_kvs(struct sl_cursor *c, const struct sl_kvs *kvs, uint64_t *out)
{
    for (uint64_t i = 0; i < kvs->n; i++) {
        const struct sl_kv *kv = &kvs->kv[i];
        uint64_t before = bytes_before(kv), all = before + value_bytes(kv);
        bool own = strcmp(kv->key, SL_KEY_SUM_RECORDS) == 0 || strcmp(kv->key, SL_KEY_SUM_HEADER) == 0;
        const uint8_t *bytes;

        if (!sl_cursor_bytes(c, all, &bytes))
            return SL_EFAIL;
        out[i] = sl_xxh64(bytes, own ? before : all);
    }
    return 0;
}

static int seal_tensors(struct sl_cursor *c, uint64_t n, uint64_t *out)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = c->at, name;
        const uint8_t *bytes;
        uint32_t dims;

        if (!sl_cursor_u64(c, &name) || !sl_cursor_bytes(c, name, &bytes) || !sl_cursor_u32(c, &dims)
            || !sl_cursor_bytes(c, 8 * (uint64_t)dims + 12, &bytes))
            return SL_EFAIL;
        out[i] = sl_xxh64(c->base + start, c->at - start);
    }
    return 0;
}

int sl_gguf_seal_header(uint8_t *header, uint64_t len, const struct sl_kvs *kvs, const uint64_t *sums,
                        uint64_t n_tensors)
{
    const struct sl_kv *records = sl_kvs_find(kvs, SL_KEY_SUM_RECORDS);
    struct sl_cursor c = sl_cursor(header, len);
    uint64_t at_tensors, at_records, at_header, sum;

    SL_TRY(sl_gguf_value_offset(kvs, SL_KEY_SUM_TENSORS, &at_tensors));
    SL_TRY(sl_gguf_value_offset(kvs, SL_KEY_SUM_HEADER, &at_header));
    if (len < 8 || at_header > len - 8 || at_tensors > len || n_tensors > (len - at_tensors) / 8)
        return SL_EFAIL;
    memcpy(header + at_tensors, sums, 8 * n_tensors);
    if (records) {
        uint64_t *out;
        int rc;

        SL_TRY(sl_gguf_value_offset(kvs, SL_KEY_SUM_RECORDS, &at_records));
        if (records->n != kvs->n + n_tensors || at_records > len || records->n > (len - at_records) / 8)
            return SL_EFAIL;
        out = malloc(8 * records->n);
        if (!out)
            return SL_EFAIL;
        c.at = 24; /* behind magic, version and counts */
        rc = seal_kvs(&c, kvs, out);
        if (rc == 0)
            rc = seal_tensors(&c, n_tensors, out + kvs->n);
        if (rc == 0)
            memcpy(header + at_records, out, 8 * records->n);
        free(out);
        SL_TRY(rc);
    }
    SL_TRY(sl_gguf_header_checksum(header, len, at_header, at_tensors, n_tensors, &sum));
    memcpy(header + at_header, &sum, 8);
    return 0;
}
