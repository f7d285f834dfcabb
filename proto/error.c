#include "proto/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Length of the valid UTF-8 sequence at s (1 to 4), or 0. */
static int utf8_len(const unsigned char *s)
{
    int n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
            : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

static void make_printable(char *text)
{
    unsigned char *s = (unsigned char *)text;

    while (*s) {
        int n = utf8_len(s);

        if (n == 0 || (n == 1 && (*s < 0x20 || *s == 0x7f))) {
            *s = '?';
            n = 1;
        }
        s += n;
    }
}

int sl_fail(struct sl_error *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return code;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    make_printable(e->text);
    return code;
}

int sl_fail_context(struct sl_error *e, const char *fmt, ...)
{
    char old[sizeof e->text];
    va_list ap;
    int n;

    if (!e)
        return SL_EFAIL;
    memcpy(old, e->text, sizeof old);
    va_start(ap, fmt);
    n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n + 3 < sizeof e->text) {
        memcpy(e->text + n, ": ", 2);
        n += 2;
        memcpy(e->text + n, old, sizeof e->text - (size_t)n);
        e->text[sizeof e->text - 1] = 0;
    }
    make_printable(e->text);
    return e->code;
}
