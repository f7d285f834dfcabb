#include "proto/utf8.h"

#include <string.h>

size_t sl_utf8_at(const void *text, size_t n)
{
    const unsigned char *s = text;
    size_t len;

    if (n == 0)
        return 0;
    len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong, surrogates, past the last. */
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

size_t sl_utf8_shown(const void *text, size_t n)
{
    const unsigned char *s = text;
    size_t len = sl_utf8_at(text, n);

    if (len == 1)
        return s[0] >= 0x20 && s[0] != 0x7f;
    if (len == 2)
        return (s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xd8 && s[1] == 0x9c) ? 0 : 2;
    if (len == 3 && s[0] == 0xe2 && s[1] == 0x80)
        return s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xa8 && s[2] <= 0xae) ? 0 : 3;
    if (len == 3 && s[0] == 0xe2 && s[1] == 0x81)
        return s[2] >= 0xa6 && s[2] <= 0xa9 ? 0 : 3;
    return len;
}

bool sl_utf8_all_shown(const char *text)
{
    size_t left = strlen(text), n;

    while (left && (n = sl_utf8_shown(text, left)) != 0) {
        text += n;
        left -= n;
    }
    return left == 0;
}

bool sl_utf8_valid(const char *text)
{
    size_t left = strlen(text), n;

    while (left && (n = sl_utf8_at(text, left)) != 0) {
        text += n;
        left -= n;
    }
    return left == 0;
}

void sl_utf8_disarm(char *text)
{
    for (size_t left = strlen(text); left;) {
        size_t n = sl_utf8_shown(text, left);

        if (n == 0) {
            *text = '?';
            n = 1;
        }
        text += n;
        left -= n;
    }
}
