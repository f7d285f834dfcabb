/* Bytes from outside: a cursor that never leaves its buffer, and arithmetic
 * that says when it overflows. All functions are pure and return false, with
 * nothing changed, when the bytes are not there or the result does not fit.
 * Integers are little-endian, as GGUF and safetensors store them. */
#ifndef SLUICE_PROTO_CURSOR_H
#define SLUICE_PROTO_CURSOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct sl_cursor {
    const uint8_t *base;
    uint64_t at;  /* next byte to be read; <= len */
    uint64_t len;
};

/* A cursor at the begin of len bytes, which stay the caller's. */
static inline struct sl_cursor sl_cursor(const void *base, uint64_t len)
{
    return (struct sl_cursor){.base = base, .at = 0, .len = len};
}

/* Bytes from the cursor to the end. */
static inline uint64_t sl_cursor_left(const struct sl_cursor *c)
{
    return c->len - c->at;
}

/* n bytes at the cursor, borrowed from its buffer. */
static inline bool sl_cursor_bytes(struct sl_cursor *c, uint64_t n, const uint8_t **p)
{
    if (n > sl_cursor_left(c))
        return false;
    *p = c->base + c->at;
    c->at += n;
    return true;
}

/* The next n bytes, copied to `to`. */
static inline bool sl_cursor_copy(struct sl_cursor *c, void *to, uint64_t n)
{
    const uint8_t *p;

    if (!sl_cursor_bytes(c, n, &p))
        return false;
    if (n)
        memcpy(to, p, (size_t)n);
    return true;
}

/* An unsigned integer of n <= 8 bytes. */
static inline bool sl_cursor_uint(struct sl_cursor *c, uint32_t n, uint64_t *v)
{
    const uint8_t *p;
    uint64_t x = 0;

    if (n > 8 || !sl_cursor_bytes(c, n, &p))
        return false;
    for (uint32_t i = n; i-- > 0;)
        x = x << 8 | p[i];
    *v = x;
    return true;
}

/* The next integer, little-endian; the same with 32 and 64 bits below. */
static inline bool sl_cursor_u8(struct sl_cursor *c, uint8_t *v)
{
    return sl_cursor_copy(c, v, 1);
}

static inline bool sl_cursor_u32(struct sl_cursor *c, uint32_t *v)
{
    uint64_t x;

    if (!sl_cursor_uint(c, 4, &x))
        return false;
    *v = (uint32_t)x;
    return true;
}

static inline bool sl_cursor_u64(struct sl_cursor *c, uint64_t *v)
{
    return sl_cursor_uint(c, 8, v);
}

/* *sum = a + b, if that fits. */
static inline bool sl_add_u64(uint64_t a, uint64_t b, uint64_t *sum)
{
    uint64_t x;

    if (__builtin_add_overflow(a, b, &x))
        return false;
    *sum = x;
    return true;
}

/* *product = a * b, if that fits. */
static inline bool sl_mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
    uint64_t x;

    if (__builtin_mul_overflow(a, b, &x))
        return false;
    *product = x;
    return true;
}

/* Rounds n up to a multiple of the power of two `to`. */
static inline bool sl_align_u64(uint64_t n, uint64_t to, uint64_t *aligned)
{
    uint64_t x;

    if (to == 0 || (to & (to - 1)) || !sl_add_u64(n, to - 1, &x))
        return false;
    *aligned = x & ~(to - 1);
    return true;
}

/* ceil(a / b) without overflow; b must not be 0. */
static inline uint64_t sl_ceil_div_u64(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

#endif
