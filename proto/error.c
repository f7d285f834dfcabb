#include "proto/error.h"

#include "proto/utf8.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

int sl_vfail(struct sl_error *e, int code, const char *fmt, va_list ap)
{
    if (!e)
        return code;
    e->code = code;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    sl_utf8_disarm(e->text);
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
    sl_utf8_disarm(e->text);
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
