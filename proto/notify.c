#include "proto/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static int positive(const char *name, uint64_t *out, struct sl_error *e)
{
    const char *text = getenv(name);
    uint64_t v = 0;

    *out = 0;
    if (!text)
        return 0;
    for (const char *s = text; *s; s++)
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10, &v)
            || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return sl_fail(e, SL_EUSAGE, "%s: expected a number, not '%s'", name, text);
    if (!*text || v == 0)
        return sl_fail(e, SL_EUSAGE, "%s: expected a number over 0, not '%s'", name, text);
    *out = v;
    return 0;
}

int sl_notify_open(struct sl_notify *n, struct sl_error *e)
{
    const struct timeval patience = {.tv_sec = 2};
    const char *path = getenv("NOTIFY_SOCKET");
    uint64_t usec, pid;
    size_t len;

    memset(n, 0, sizeof *n);
    n->fd = -1;
    if (!path || !*path)
        return 0;
    len = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof n->to.sun_path)
        return sl_fail(e, SL_EUSAGE, "NOTIFY_SOCKET: expected a path or @name of at most %zu bytes, "
                       "not '%s'", sizeof n->to.sun_path - 1, path);
    n->to.sun_family = AF_UNIX;
    memcpy(n->to.sun_path, path, len);
    n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (path[0] == '@')
        n->to.sun_path[0] = '\0';
    else
        n->to_len++;
    SL_TRY(positive("WATCHDOG_USEC", &usec, e));
    SL_TRY(positive("WATCHDOG_PID", &pid, e));
    if (usec && (pid == 0 || pid == (uint64_t)getpid()))
        n->watchdog_ms = usec < 1000 ? 1 : usec / 1000;
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (n->fd < 0)
        return sl_fail(e, SL_EFAIL, "NOTIFY_SOCKET: no socket: %s", strerror(errno));
    if (setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) {
        int bad = errno;

        sl_notify_close(n);
        return sl_fail(e, SL_EFAIL, "NOTIFY_SOCKET: %s", strerror(bad));
    }
    return 0;
}

void sl_notify_close(struct sl_notify *n)
{
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
}

/* Returns 0 or the errno. */
static int say(const struct sl_notify *n, const char *text, int flags)
{
    ssize_t r;

    do {
        r = sendto(n->fd, text, strlen(text), flags | MSG_NOSIGNAL,
                   (const struct sockaddr *)&n->to, n->to_len);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? errno : 0;
}

/* "assignments\nSTATUS=line" */
static const char *with_status(char buf[1024], const char *assignments, const char *status)
{
    size_t at = (size_t)snprintf(buf, 1024, "%s\nSTATUS=", assignments);

    snprintf(buf + at, 1024 - at, "%s", status);
    for (char *s = buf + at; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
    return buf;
}

int sl_notify_ready(const struct sl_notify *n, const char *status, struct sl_error *e)
{
    char head[64], buf[1024];
    int bad;

    if (n->fd < 0)
        return 0;
    snprintf(head, sizeof head, "READY=1\nMAINPID=%ld", (long)getpid());
    bad = say(n, with_status(buf, head, status), 0);
    if (bad)
        return sl_fail(e, SL_EFAIL, "systemd cannot be told that this service is ready: %s",
                       strerror(bad));
    return 0;
}

void sl_notify_stopping(const struct sl_notify *n, const char *status)
{
    char buf[1024];

    if (n->fd >= 0)
        (void)say(n, with_status(buf, "STOPPING=1", status), 0);
}

void sl_notify_progress(struct sl_notify *n, uint64_t now_ms)
{
    if (n->fd < 0 || n->watchdog_ms == 0
        || (n->fed_ms && now_ms - n->fed_ms < n->watchdog_ms / 3))
        return;
    /* What the socket did not take is tried again in the next turn. */
    if (say(n, "WATCHDOG=1", MSG_DONTWAIT) == 0)
        n->fed_ms = now_ms;
}

void sl_notify_extend(struct sl_notify *n, uint64_t now_ms, uint64_t ms)
{
    char buf[64];

    if (n->fd < 0 || (n->extended_ms && now_ms - n->extended_ms < 1000))
        return;
    snprintf(buf, sizeof buf, "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)ms * 1000);
    if (say(n, buf, MSG_DONTWAIT) == 0)
        n->extended_ms = now_ms;
}
