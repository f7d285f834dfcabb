/* The byte-level alphabet: 188 bytes are the character of their own number, the
 * other 68 (controls, space, U+007F to U+00A0, U+00AD) follow from U+0100 on. */
#include "proto/tokenizer.h"
#include "proto/utf8.h"

#include <stdlib.h>
#include <string.h>

static bool is_itself(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

/* The byte that a character stands for, or -1. */
static int byte_of(unsigned c)
{
    unsigned n = 0x100;

    if (c < 0x100)
        return is_itself(c) ? (int)c : -1;
    for (unsigned b = 0; b < 0x100; b++)
        if (!is_itself(b) && n++ == c)
            return (int)b;
    return -1;
}

/* The character that begins at *s, of one or two bytes (more: 0, which is no
 * byte's character); *s moves behind it. */
static unsigned next_char(const unsigned char **s)
{
    unsigned c = *(*s)++;

    if (c < 0x80)
        return c;
    if (c < 0xc0 || c > 0xdf || ((*s)[0] & 0xc0) != 0x80)
        return 0;
    return (c & 0x1f) << 6 | (*(*s)++ & 0x3f);
}

/* How many bytes of what is no character one U+FFFD stands for: as many as one could
 * begin with, 1 at least. */
static size_t bad_length(const unsigned char *s, size_t n)
{
    size_t k = 1;

    for (; k < 3 && k < n; k++) {
        unsigned char whole[4] = {0x80, 0x80, 0x80, 0x80};

        memcpy(whole, s, k + 1);
        if (sl_utf8_at(whole, sizeof whole) <= k + 1)
            break;
    }
    return k;
}

static void put_utf8(const unsigned char *bytes, size_t n, char *to)
{
    for (size_t i = 0; i < n;) {
        size_t len = sl_utf8_at(bytes + i, n - i);

        memcpy(to, len ? (const char *)bytes + i : "\xef\xbf\xbd", len ? len : 3);
        to += len ? len : 3;
        i += len ? len : bad_length(bytes + i, n - i);
    }
    *to = '\0';
}

size_t sl_byte_level_encode(const uint8_t *bytes, size_t n, char *to)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned c = bytes[i];

        if (!is_itself(c)) {
            c = 0x100;
            for (unsigned b = 0; b < bytes[i]; b++)
                c += !is_itself(b);
        }
        if (c >= 0x80)
            to[at++] = (char)(0xc0 | c >> 6);
        to[at++] = (char)(c < 0x80 ? c : 0x80 | (c & 0x3f));
    }
    to[at] = '\0';
    return at;
}

bool sl_byte_level_decode(const char *text, char **out)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t n = strlen(text), at = 0;
    unsigned char *bytes = malloc(n + 1);
    bool all = true;

    *out = bytes ? malloc(3 * n + 1) : NULL;
    if (!*out) {
        free(bytes);
        return true;
    }
    while (*s && all) {
        int b = byte_of(next_char(&s));

        all = b > 0; /* a NUL byte has no place in a token's text */
        bytes[at++] = (unsigned char)b;
    }
    if (all)
        put_utf8(bytes, at, *out);
    free(bytes);
    if (all && strcmp(*out, text) != 0)
        return true;
    free(*out);
    *out = NULL;
    return false;
}
