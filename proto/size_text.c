#include "proto/size_text.h"

#include <stdio.h>
#include <string.h>

const char *sl_size_text(char buf[32], uint64_t bytes)
{
    static const char *const names[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes;
    int i = 0;

    while (v >= 999.95 && i < 6) {
        v /= 1000;
        i++;
    }
    snprintf(buf, 32, i ? "%.1f %s" : "%.0f %s", v, names[i]);
    return buf;
}

#define DECIMALS UINT64_C(1000000) /* at most; so that all products fit */

bool sl_parse_scaled(const char *s, const struct sl_size_unit *u, uint64_t *out)
{
    uint64_t whole = 0, part = 0, scale = 1, n;

    if (*s < '0' || *s > '9')
        return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (__builtin_mul_overflow(whole, 10, &whole)
            || __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
            return false;
    }
    if (*s == '.') {
        s++;
        if (*s < '0' || *s > '9')
            return false;
        for (; *s >= '0' && *s <= '9'; s++, scale *= 10) {
            if (scale == DECIMALS)
                return false;
            part = part * 10 + (uint64_t)(*s - '0');
        }
    }
    while (*u->name && strcmp(u->name, s) != 0)
        u++;
    if (strcmp(u->name, s) != 0 || (scale > 1 && u->factor == 1))
        return false;
    if (__builtin_mul_overflow(whole, u->factor, &n)
        || __builtin_add_overflow(n, part * u->factor / scale, &n))
        return false;
    *out = n;
    return true;
}

bool sl_parse_size(const char *text, uint64_t *bytes)
{
    static const struct sl_size_unit units[] = {
        {"K", 1000}, {"M", 1000000}, {"G", 1000000000}, {"T", UINT64_C(1000000000000)},
        {"Ki", 1024}, {"Mi", 1048576}, {"Gi", 1073741824}, {"Ti", UINT64_C(1) << 40}, {"", 1},
    };
    char plain[64];
    size_t n = strlen(text);
    char *last;

    if (n == 0 || n >= sizeof plain)
        return false;
    memcpy(plain, text, n + 1);
    last = plain + n - 1;
    if (*last == 'B' || *last == 'b')
        *last-- = '\0';
    if (last > plain && *last == 'i')
        last--;
    if (last > plain && (*last == 'k' || *last == 'm' || *last == 'g' || *last == 't'))
        *last = (char)(*last - 32);
    return sl_parse_scaled(plain, units, bytes) && *bytes <= SL_SIZE_MAX;
}
