/* Names of split sets: llama.cpp's "%s-%05d-of-%05d.gguf", numbered from 1. */
#include "proto/gguf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define SUFFIX_LEN 20 /* "-00001-of-00007.gguf" */

static bool digits5(const char *s, uint32_t *v)
{
    *v = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *v = *v * 10 + (uint32_t)(s[i] - '0');
    }
    return true;
}

bool sl_gguf_split_suffix(const char *path, uint32_t *no, uint32_t *n)
{
    size_t len = strlen(path);
    const char *s;

    if (len <= SUFFIX_LEN)
        return false;
    s = path + len - SUFFIX_LEN;
    return s[0] == '-' && digits5(s + 1, no) && memcmp(s + 6, "-of-", 4) == 0 &&
           digits5(s + 10, n) && memcmp(s + 15, ".gguf", 5) == 0;
}

size_t sl_gguf_stem(const char *name)
{
    size_t n = strlen(name);
    uint32_t ignored;

    if (n > 5 && memcmp(name + n - 5, ".gguf", 5) == 0)
        n -= 5;
    if (n > 15 && name[n - 15] == '-' && digits5(name + n - 14, &ignored) && memcmp(name + n - 9, "-of-", 4) == 0 &&
        digits5(name + n - 5, &ignored))
        n -= 15;
    return n;
}

int sl_gguf_split_count(const char *path, uint32_t *n, struct sl_error *e)
{
    uint32_t no, count;

    *n = 1;
    if (!sl_gguf_split_suffix(path, &no, &count))
        return 0;
    if (count == 0 || no == 0 || no > count)
        return sl_fail(e, SL_ESOURCE, "%s: the name says part %u of %u, which cannot be", path, no,
                       count);
    if (count > UINT16_MAX)
        return sl_fail(e, SL_ESOURCE, "%s: the name says %u parts; a set has at most %u", path,
                       count, UINT16_MAX);
    if (no != 1)
        return sl_fail(e, SL_EUSAGE, "%s: this is part %u of %u; name the first part, -00001-of-%05u.gguf",
                       path, no, count, count);
    *n = count;
    return 0;
}

static int fits(int written, size_t cap)
{
    return written >= 0 && (size_t)written < cap ? 0 : SL_ESOURCE;
}

int sl_gguf_split_path(char *buf, size_t cap, const char *prefix, uint32_t i, uint32_t n)
{
    if (n <= 1)
        return fits(snprintf(buf, cap, "%s.gguf", prefix), cap);
    if (n > UINT16_MAX || i >= n)
        return SL_ESOURCE;
    return fits(snprintf(buf, cap, "%s-%05u-of-%05u.gguf", prefix, i + 1, n), cap);
}

int sl_gguf_part_path(char *buf, size_t cap, const char *first, uint32_t i, struct sl_error *e)
{
    uint32_t no, n;
    struct stat st;
    bool set = sl_gguf_split_suffix(first, &no, &n);
    int len = set ? snprintf(buf, cap, "%.*s-%05u-of-%05u.gguf", (int)(strlen(first) - SUFFIX_LEN), first, i + 1, n)
                  : snprintf(buf, cap, "%s", first);

    if (i >= (set ? n : 1) || fits(len, cap) < 0)
        return sl_fail(e, SL_ESOURCE, "%s: the path of part %u does not fit", first, i + 1);
    if (set && stat(buf, &st) != 0 && errno == ENOENT)
        return sl_fail(e, SL_ESOURCE, "%s: part %u of %u is missing; all parts of the set must be in this folder", buf,
                       i + 1, n);
    return 0;
}
