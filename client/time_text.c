#include "client/time_text.h"

#include <stdio.h>
#include <time.h>

const char *time_utc(char buf[32], uint64_t ms)
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    size_t n;

    gmtime_r(&t, &tm);
    n = strftime(buf, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, 32 - n, ".%03uZ", (unsigned)(ms % 1000));
    return buf;
}

const char *time_short(char buf[32], uint64_t ms, uint64_t now_ms)
{
    time_t t = (time_t)(ms / 1000), now = (time_t)(now_ms / 1000);
    struct tm tm, today;

    localtime_r(&t, &tm);
    localtime_r(&now, &today);
    if (tm.tm_year != today.tm_year)
        strftime(buf, 32, "%Y-%m-%d", &tm);
    else if (tm.tm_yday != today.tm_yday)
        strftime(buf, 32, "%b %d %H:%M", &tm);
    else
        strftime(buf, 32, "%H:%M:%S", &tm);
    return buf;
}

const char *time_span(char buf[32], uint64_t ms)
{
    uint64_t s = ms / 1000;
    unsigned h = (unsigned)(s / 3600 % 24), m = (unsigned)(s / 60 % 60), sec = (unsigned)(s % 60);

    if (s >= 86400)
        snprintf(buf, 32, "%llud %02u:%02u:%02u", (unsigned long long)(s / 86400), h, m, sec);
    else if (s >= 3600)
        snprintf(buf, 32, "%u:%02u:%02u", h, m, sec);
    else
        snprintf(buf, 32, "%u:%02u", m, sec);
    return buf;
}

const char *time_left(char buf[32], uint64_t bytes, uint64_t rate)
{
    if (rate == 0 || bytes / rate > 100 * 86400) {
        snprintf(buf, 32, "--:--");
        return buf;
    }
    return time_span(buf, (bytes / rate + (bytes % rate != 0)) * 1000);
}
