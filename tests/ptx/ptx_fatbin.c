/* The PTX inside a fat binary: a head of 16 bytes (magic, version, length of the head, bytes behind
 * it), then entries, each with its own head: kind (1: PTX), length of the head, bytes behind it,
 * compressed bytes at 16, flags at 40 (0x2000: LZ4, 0x8000: zstd), decompressed bytes at 56. */
#include "ptx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define FATBIN_MAGIC 0xba55ed50u
#define FLAG_LZ4 0x2000u
#define FLAG_ZSTD 0x8000u

/* A block of LZ4: tokens of literals and of copies from before. Returns bytes made, or 0. */
static size_t lz4(const uint8_t *in, size_t n, uint8_t *out, size_t room)
{
    size_t at = 0, made = 0;

    while (at < n) {
        unsigned token = in[at++];
        size_t literals = token >> 4, copy = token & 15, back;

        while (literals >= 15 && at < n && (token >> 4) == 15) {
            literals += in[at];
            if (in[at++] != 255)
                break;
        }
        if (literals > n - at || literals > room - made)
            return 0;
        memcpy(out + made, in + at, literals);
        made += literals;
        at += literals;
        if (at == n)
            break;
        if (n - at < 2)
            return 0;
        back = in[at] | (size_t)in[at + 1] << 8;
        at += 2;
        while (copy >= 15 && at < n && (token & 15) == 15) {
            copy += in[at];
            if (in[at++] != 255)
                break;
        }
        copy += 4;
        if (back == 0 || back > made || copy > room - made)
            return 0;
        for (; copy; copy--, made++)
            out[made] = out[made - back];
    }
    return made;
}

static uint64_t field(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    memcpy(&v, p, n);
    return v;
}

static char *text_of(const uint8_t *entry, uint64_t head, uint64_t size, char *error, size_t n_error)
{
    uint64_t packed = field(entry + 16, 4), flags = field(entry + 40, 8), whole = field(entry + 56, 8), made;
    char *text;

    if (!(flags & (FLAG_LZ4 | FLAG_ZSTD)))
        return strndup((const char *)entry + head, size);
    if (packed > size || whole > 1u << 30 || !(text = malloc(whole + 1))) {
        snprintf(error, n_error, "a fat binary whose PTX has %llu bytes", (unsigned long long)whole);
        return NULL;
    }
    if (flags & FLAG_ZSTD)
        made = ZSTD_decompress(text, whole, entry + head, packed);
    else
        made = lz4(entry + head, packed, (uint8_t *)text, whole);
    if (made != whole) {
        snprintf(error, n_error, "PTX in a fat binary that cannot be decompressed (flags 0x%llx)", (unsigned long long)flags);
        free(text);
        return NULL;
    }
    text[whole] = 0;
    return text;
}

char *ptx_of_fatbin(const void *data, char *error, size_t n_error)
{
    const uint8_t *p = data, *end;
    uint64_t head;

    if (field(p, 4) != FATBIN_MAGIC || (head = field(p + 6, 2)) < 16) {
        snprintf(error, n_error, "not a fat binary that is known here");
        return NULL;
    }
    end = p + head + field(p + 8, 8);
    for (p += head; end - p >= 64;) {
        uint64_t n = field(p + 4, 4), size = field(p + 8, 8);

        if (n < 64 || n > (uint64_t)(end - p) || size > (uint64_t)(end - p) - n)
            break;
        if (field(p, 2) == 1)
            return text_of(p, n, size, error, n_error);
        p += n + size;
    }
    snprintf(error, n_error, "a fat binary without PTX");
    return NULL;
}
