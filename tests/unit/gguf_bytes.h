/* GGUF files built byte by byte for tests, right or wrong. */
#ifndef SLUICE_TESTS_GGUF_BYTES_H
#define SLUICE_TESTS_GGUF_BYTES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bytes {
    uint8_t *p;
    size_t n, cap;
};

static inline void b_put(struct bytes *b, const void *v, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
    }
    if (n)
        memcpy(b->p + b->n, v, n);
    b->n += n;
}

static inline void b_u8(struct bytes *b, uint8_t v) { b_put(b, &v, 1); }
static inline void b_u32(struct bytes *b, uint32_t v) { b_put(b, &v, 4); }
static inline void b_u64(struct bytes *b, uint64_t v) { b_put(b, &v, 8); }

static inline void b_str(struct bytes *b, const char *s)
{
    b_u64(b, strlen(s));
    b_put(b, s, strlen(s));
}

static inline void b_start(struct bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    b->n = 0;
    b_put(b, "GGUF", 4);
    b_u32(b, version);
    b_u64(b, n_tensors);
    b_u64(b, n_kv);
}

static inline void b_key(struct bytes *b, const char *key, uint32_t type)
{
    b_str(b, key);
    b_u32(b, type);
}

static inline void b_tensor(struct bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne,
                            uint32_t type, uint64_t offset)
{
    b_str(b, name);
    b_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims && i < 8; i++)
        b_u64(b, ne[i]);
    b_u32(b, type);
    b_u64(b, offset);
}

static inline void b_zeros(struct bytes *b, size_t n)
{
    while (n--)
        b_u8(b, 0);
}

static inline void b_pad(struct bytes *b, size_t align)
{
    while (b->n % align)
        b_u8(b, 0);
}

static inline int b_write(const struct bytes *b, const char *path)
{
    FILE *f = fopen(path, "wb");
    int ok = f && fwrite(b->p, 1, b->n, f) == b->n;

    if (f && fclose(f) != 0)
        ok = 0;
    return ok ? 0 : -1;
}

#endif
