#include "client/watch_view.h"

#include "client/cli.h"
#include "client/progress.h"
#include "client/record_fields.h"
#include "client/term.h"
#include "client/time_text.h"
#include "proto/size_text.h"
#include "proto/text_line.h"
#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <string.h>

#define NARROW 76 /* below so many columns the parts of workers' lines do not stand under each other */
#define LINE_MAX_BYTES 1024

struct screen {
    FILE *to;
    int width;
    unsigned n, most; /* lines */
};

static void line(struct screen *s, const char *text)
{
    if (s->n >= s->most)
        return;
    fprintf(s->to, "%.*s\n", (int)term_fit(text, s->width), text);
    s->n++;
}

static const char *text_of(const cJSON *o, const char *field)
{
    const char *text = sl_get_str(o, field);

    return text ? text : "";
}

static double share_of(uint64_t done, uint64_t all)
{
    double v = all ? 100.0 * (double)done / (double)all : 0;

    return v > 100 ? 100 : v;
}

static void job_line(struct screen *s, const cJSON *j)
{
    uint64_t all = sl_get_uint(j, "src_bytes", 0), done = sl_get_uint(j, "done_bytes", 0);
    uint64_t rate = sl_get_uint(j, "rate", 0);
    char buf[LINE_MAX_BYTES], why[LINE_MAX_BYTES], speed[32], left[32], source[CELL_MAX];
    int n;

    record_source_name(j, false, source);
    n = snprintf(buf, sizeof buf, "job %llu  %-10s  %s as %s", (unsigned long long)sl_get_uint(j, "id", 0),
                 text_of(j, "state"), source, text_of(j, "recipe"));
    if (all && n < (int)sizeof buf)
        n += snprintf(buf + n, sizeof buf - (size_t)n, "  %llu/%llu tasks  %d%%",
                      (unsigned long long)sl_get_uint(j, "done", 0),
                      (unsigned long long)sl_get_uint(j, "tasks", 0), (int)share_of(done, all));
    if (rate && n < (int)sizeof buf)
        n += snprintf(buf + n, sizeof buf - (size_t)n, "  %s/s  ETA %s", sl_size_text(speed, rate),
                      time_left(left, all > done ? all - done : 0, rate));
    record_why(j, why, sizeof why);
    if (*why && n < (int)sizeof buf)
        snprintf(buf + n, sizeof buf - (size_t)n, "  %s", why);
    line(s, buf);
}

static void worker_line(struct screen *s, const cJSON *w)
{
    char buf[LINE_MAX_BYTES], speed[32] = "";
    uint64_t rate = sl_get_uint(w, "rate", 0);
    bool busy = strcmp(text_of(w, "state"), "busy") == 0;
    int n;

    if (rate)
        sl_size_text(speed, rate);
    if (s->width < NARROW) /* a busy one shows by its tensor */
        n = snprintf(buf, sizeof buf, "  %s %s%s%s", text_of(w, "name"), text_of(w, "device"),
                     busy ? "" : "  ", busy ? "" : text_of(w, "state"));
    else
        n = snprintf(buf, sizeof buf, "  %-14s %-8s %-9s", text_of(w, "name"), text_of(w, "device"),
                     text_of(w, "state"));
    if (rate && n < (int)sizeof buf)
        n += snprintf(buf + n, sizeof buf - (size_t)n, " %9s/s", speed);
    if (sl_get(w, "job") && n < (int)sizeof buf)
        snprintf(buf + n, sizeof buf - (size_t)n, "  job %llu  %s",
                 (unsigned long long)sl_get_uint(w, "job", 0), text_of(w, "tensor"));
    line(s, buf);
}

static void total_line(struct screen *s, const cJSON *jobs)
{
    uint64_t all = 0, done = 0, rate = 0;
    char buf[LINE_MAX_BYTES], sizes[80], eta[48], a[32], b[32], speed[48], left[32];
    const cJSON *j;

    cJSON_ArrayForEach(j, jobs) {
        all += sl_get_uint(j, "src_bytes", 0);
        done += sl_get_uint(j, "done_bytes", 0);
        rate += sl_get_uint(j, "rate", 0);
    }
    snprintf(sizes, sizeof sizes, "  %s of %s", sl_size_text(a, done), sl_size_text(b, all));
    snprintf(speed, sizeof speed, "  %s/s", sl_size_text(a, rate));
    snprintf(eta, sizeof eta, "  ETA %s", time_left(left, all > done ? all - done : 0, rate));
    bar_line(buf, sizeof buf, &(struct bar_parts){"total", share_of(done, all) / 100, sizes, speed, "", eta}, s->width + 1);
    line(s, buf);
}

/* Whether a worker belongs to what is watched: it holds a task of one of the
 * jobs, or could take one. */
static bool concerns(const cJSON *w, const cJSON *jobs)
{
    uint64_t id = sl_get_uint(w, "job", 0);
    const cJSON *j;

    if (id == 0)
        return true;
    cJSON_ArrayForEach(j, jobs)
        if (sl_get_uint(j, "id", 0) == id)
            return true;
    return false;
}

unsigned watch_screen(const struct cJSON *jobs, const struct cJSON *workers, int width,
                      unsigned lines, char **text)
{
    size_t n;
    struct screen s = {.width = width < 20 ? 20 : width, .most = lines > 4 ? lines - 1 : 3};
    const cJSON *item;

    *text = NULL;
    s.to = open_memstream(text, &n);
    if (!s.to)
        return 0;
    cJSON_ArrayForEach(item, jobs)
        job_line(&s, item);
    cJSON_ArrayForEach(item, workers)
        if (concerns(item, jobs))
            worker_line(&s, item);
    s.most++;
    total_line(&s, jobs);
    return sl_text_close(s.to, text) < 0 ? 0 : s.n;
}

const char *watch_plain(char *buf, size_t cap, const struct cJSON *j)
{
    uint64_t all = sl_get_uint(j, "src_bytes", 0), done = sl_get_uint(j, "done_bytes", 0);
    uint64_t rate = sl_get_uint(j, "rate", 0);
    char a[32], b[32], speed[32], left[32], why[1100];
    int n = snprintf(buf, cap, "job %llu: %s", (unsigned long long)sl_get_uint(j, "id", 0),
                     text_of(j, "state"));

    if (all && n < (int)cap)
        n += snprintf(buf + n, cap - (size_t)n, ", %llu of %llu tasks, %d %%, %s of %s",
                      (unsigned long long)sl_get_uint(j, "done", 0),
                      (unsigned long long)sl_get_uint(j, "tasks", 0), (int)share_of(done, all),
                      sl_size_text(a, done), sl_size_text(b, all));
    if (rate && n < (int)cap)
        n += snprintf(buf + n, cap - (size_t)n, ", %s/s, ETA %s", sl_size_text(speed, rate),
                      time_left(left, all > done ? all - done : 0, rate));
    record_why(j, why, sizeof why);
    if (*text_of(j, "reason") && n < (int)cap)
        snprintf(buf + n, cap - (size_t)n, " (%s)", why);
    return buf;
}

unsigned watch_rows(const char *text, int width)
{
    unsigned rows = 0;

    while (width > 0 && *text) {
        size_t n = strcspn(text, "\n");
        int columns = term_columns(text, n);

        rows += columns > width ? (unsigned)((columns + width - 1) / width) : 1;
        text += n + (text[n] == '\n');
    }
    return rows;
}
