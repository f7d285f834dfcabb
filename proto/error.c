#include "proto/error.h"

#include "proto/utf8.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define WHOLE_BYTES 9000 /* two paths of the longest, and words */

/* Of what is too long the middle goes: the end says why. */
static void put_text(struct sl_error *e, const char *whole)
{
    size_t n = strlen(whole), tail = sizeof e->text / 2;

    if (n < sizeof e->text)
        memcpy(e->text, whole, n + 1);
    else
        snprintf(e->text, sizeof e->text, "%.*s...%s", (int)(sizeof e->text - tail - 4), whole, whole + n - tail);
    sl_utf8_disarm(e->text);
}

int sl_vfail(struct sl_error *e, int code, const char *fmt, va_list ap)
{
    char whole[WHOLE_BYTES];

    if (!e)
        return code;
    e->code = code;
    vsnprintf(whole, sizeof whole, fmt, ap);
    put_text(e, whole);
    return code;
}

int sl_fail(struct sl_error *e, int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    sl_vfail(e, code, fmt, ap);
    va_end(ap);
    return code;
}

int sl_no_memory(struct sl_error *e)
{
    return sl_fail(e, SL_EFAIL, "out of memory");
}

int sl_fail_context(struct sl_error *e, const char *fmt, ...)
{
    char whole[WHOLE_BYTES];
    va_list ap;
    int n;

    if (!e)
        return SL_EFAIL;
    va_start(ap, fmt);
    n = vsnprintf(whole, sizeof whole, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof whole)
        snprintf(whole + n, sizeof whole - (size_t)n, ": %s", e->text);
    put_text(e, whole);
    return e->code;
}

int sl_fail_in(struct sl_error *e, const char *path)
{
    size_t n = strlen(path);

    if (e && strncmp(e->text, path, n) == 0 && e->text[n] && strchr("/: ", e->text[n]))
        return e->code;
    return sl_fail_context(e, "%s", path);
}

int sl_fail_thread(struct sl_error *e, int err)
{
    return sl_fail(e, SL_EFAIL, "cannot start a thread: %s%s", strerror(err),
                   err == EAGAIN ? "; allow more processes (ulimit -u, TasksMax=, the container's limit) and address space "
                                   "(ulimit -v), or give sluice and sluice-worker fewer --threads" : "");
}

int sl_source_code(int err)
{
    return err == EMFILE || err == ENFILE || err == ENOMEM ? SL_EFAIL : SL_ESOURCE;
}

int sl_write_code(int err)
{
    return err == ENOSPC || err == EDQUOT ? SL_ENOSPACE : SL_EFAIL;
}

int sl_make_code(int err)
{
    return err == ENOENT || err == ENOTDIR ? SL_EUSAGE : sl_write_code(err);
}
