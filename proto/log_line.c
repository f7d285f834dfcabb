#include "proto/log_line.h"

#include "proto/utf8.h"
#include "proto/wire.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX 2047
#define NAME_MAX_BYTES 255

static const char *const level_names[] = {"error", "warning", "notice", "info", "debug"};

/* Text, worker, event, and the rest; one write, which a pipe takes whole. */
_Static_assert(TEXT_MAX + 2 * NAME_MAX_BYTES + 512 < SL_LOG_LINE_MAX, "line too small");
_Static_assert(SL_LOG_LINE_MAX <= PIPE_BUF, "lines of several programs would mix");

const char *sl_log_level_name(enum sl_log_level l)
{
    return level_names[l];
}

/* JOURNAL_STREAM is "DEVICE:INODE" of the stream that systemd made. */
static bool is_journal(int fd)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && fstat(fd, &st) == 0
           && st.st_dev == dev && st.st_ino == ino;
}

void sl_log_open(struct sl_log *l, int fd, enum sl_log_form form, enum sl_log_level level,
                 const char *program)
{
    if (form == SL_LOG_AUTO)
        form = is_journal(fd) ? SL_LOG_JOURNAL : SL_LOG_PLAIN;
    *l = (struct sl_log){.fd = fd, .form = form, .level = level, .program = program};
}

struct line {
    char *buf;
    size_t n;
};

static void add(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct line *l, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(l->buf + l->n, SL_LOG_LINE_MAX - l->n, fmt, ap);
    va_end(ap);
    if (n > 0)
        l->n += (size_t)n;
    if (l->n > SL_LOG_LINE_MAX - 2)
        l->n = SL_LOG_LINE_MAX - 2;
}

/* At most max bytes of the line. Escapes are those of JSON in JSON, else \xNN; quote: '"' and '\' too. */
static void add_text(struct line *l, const char *text, size_t max, bool json, bool quote)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t left = strnlen(text, max + 1), begin = l->n, whole = l->n;

    while (left) {
        size_t n = sl_utf8_shown(s, left);

        if (n == 1 && quote && (*s == '"' || *s == '\\'))
            add(l, "\\%c", *s);
        else if (n)
            add(l, "%.*s", (int)n, (const char *)s);
        else if (json && *s >= 0x80)
            add(l, "\\ufffd");
        else if (json)
            add(l, "\\u%04x", *s);
        else
            add(l, "\\x%02x", *s);
        n += n == 0;
        s += n;
        left -= n;
        if (l->n - begin > max) {
            l->n = whole;
            add(l, "...");
            return;
        }
        if (l->n - begin <= max - 3)
            whole = l->n;
    }
}

static bool is_plain_word(const char *s)
{
    for (; *s; s++)
        if (*s <= ' ' || *s == '"' || *s == '\\' || *s == '=' || *s == ':' || *s == 0x7f)
            return false;
    return true;
}

static void add_time(struct line *l, const struct timespec *now)
{
    struct tm tm;

    if (!gmtime_r(&now->tv_sec, &tm))
        memset(&tm, 0, sizeof tm);
    add(l, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
        tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(now->tv_nsec / 1000000));
}

static void json_field(struct line *l, const char *name, const char *text, size_t max)
{
    add(l, ",\"%s\":\"", name);
    add_text(l, text, max, true, true);
    add(l, "\"");
}

/* A job's own tasks by name, those of its plan by number. */
static void add_task(struct line *l, int64_t task, const char *label, const char *quote)
{
    const char *name = task >= 0 ? sl_task_name((uint64_t)task) : NULL;

    if (name)
        add(l, "%s%s%s%s", label, quote, name, quote);
    else if (task >= 0)
        add(l, "%s%lld", label, (long long)task);
}

static void as_json(struct line *l, const struct sl_log *log, enum sl_log_level level,
                    const struct sl_log_fields *f, const struct timespec *now)
{
    add(l, "{\"time\":\"");
    add_time(l, now);
    add(l, "\",\"level\":\"%s\",\"program\":\"%s\"", sl_log_level_name(level), log->program);
    json_field(l, "event", f->event, NAME_MAX_BYTES);
    if (f->job)
        add(l, ",\"job\":%llu", (unsigned long long)f->job);
    add_task(l, f->task, ",\"task\":", "\"");
    if (f->worker && *f->worker)
        json_field(l, "worker", f->worker, NAME_MAX_BYTES);
    if (f->text && *f->text)
        json_field(l, "text", f->text, TEXT_MAX);
    add(l, "}");
}

static void as_words(struct line *l, const struct sl_log_fields *f)
{
    add_text(l, f->event, NAME_MAX_BYTES, false, false);
    if (f->job)
        add(l, " job=%llu", (unsigned long long)f->job);
    add_task(l, f->task, " task=", "");
    if (f->worker && *f->worker) {
        const char *q = is_plain_word(f->worker) ? "" : "\"";

        add(l, " worker=%s", q);
        add_text(l, f->worker, NAME_MAX_BYTES, false, *q != '\0');
        add(l, "%s", q);
    }
    if (f->text && *f->text) {
        add(l, ": ");
        add_text(l, f->text, TEXT_MAX, false, false);
    }
}

size_t sl_log_format(const struct sl_log *log, enum sl_log_level level,
                     const struct sl_log_fields *f, const struct timespec *now,
                     char buf[SL_LOG_LINE_MAX])
{
    struct line l = {.buf = buf};

    if (log->form == SL_LOG_JSON) {
        as_json(&l, log, level, f, now);
    } else {
        if (log->form == SL_LOG_JOURNAL) {
            add(&l, "<%d>", 3 + (int)level); /* syslog's: 3 is an error, 7 is debug */
        } else {
            add_time(&l, now);
            add(&l, " %s %s ", sl_log_level_name(level), log->program);
        }
        as_words(&l, f);
    }
    buf[l.n++] = '\n';
    buf[l.n] = '\0';
    return l.n;
}

void sl_log_write(const struct sl_log *log, enum sl_log_level level,
                  const struct sl_log_fields *f)
{
    char buf[SL_LOG_LINE_MAX];
    struct timespec now;
    ssize_t r;
    size_t n;

    if (!log || level > log->level)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    n = sl_log_format(log, level, f, &now, buf);
    do
        r = write(log->fd, buf, n);
    while (r < 0 && errno == EINTR);
}

void sl_log_say(const struct sl_log *log, enum sl_log_level level, const char *event,
                const char *fmt, ...)
{
    char text[TEXT_MAX + 1];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sl_log_write(log, level, &(struct sl_log_fields){.event = event, .task = -1, .text = text});
}
