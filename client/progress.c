#include "client/progress.h"

#include "client/cli.h"
#include "client/interrupt.h"
#include "client/term.h"
#include "proto/size_text.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

uint64_t now_ms(void)
{
    return now_ns() / 1000000;
}

enum progress_mode progress_mode_for(bool json, bool quiet)
{
    if (json)
        return PROGRESS_JSON;
    if (quiet)
        return PROGRESS_QUIET;
    return term_can_draw(STDERR_FILENO) ? PROGRESS_TTY : PROGRESS_PLAIN;
}

static _Thread_local bool lost;

static void *noting_malloc(size_t n)
{
    void *p = malloc(n);

    lost |= !p;
    return p;
}

void json_note_memory(void)
{
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = noting_malloc, .free_fn = free});
}

bool json_lost(void)
{
    return lost;
}

void json_forgive(bool before)
{
    lost = before;
}

static void put_line(const char *text)
{
    for (size_t left = strlen(text), n; left; text += n, left -= n) {
        n = sl_utf8_at(text, left);
        if (n)
            fwrite(text, 1, n, stdout);
        else
            fputs("\xef\xbf\xbd", stdout);
        n += n == 0;
    }
    putchar('\n');
    fflush(stdout);
}

bool json_print(cJSON *object)
{
    char *text = cJSON_PrintUnformatted(object);
    bool whole = text && !lost;

    if (whole)
        put_line(text);
    cJSON_free(text);
    cJSON_Delete(object);
    return whole;
}

void json_line(cJSON *object, const char *message_type)
{
    time_t t = time(NULL);
    struct tm tm;
    char when[32];

    gmtime_r(&t, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    cJSON_AddStringToObject(object, "message_type", message_type);
    cJSON_AddNumberToObject(object, "schema", 1);
    if (!cJSON_HasObjectItem(object, "time"))
        cJSON_AddStringToObject(object, "time", when);
    (void)json_print(object);
}

void progress_begin(struct progress *p, enum progress_mode mode, const char *phase,
                    uint64_t total, uint64_t done)
{
    memset(p, 0, sizeof *p);
    p->mode = mode;
    p->phase = phase;
    p->total = total;
    p->win_done = done;
    p->t0_ns = p->last_ns = p->win_ns = now_ns();
}

static void eta_text(char *buf, size_t cap, const struct progress *p, uint64_t done)
{
    double s = p->rate > 0 ? (double)(p->total - done) / p->rate : -1;

    if (s < 0 || s > 359999)
        snprintf(buf, cap, "--:--");
    else if (s >= 3600)
        snprintf(buf, cap, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60, (int)s % 60);
    else
        snprintf(buf, cap, "%d:%02d", (int)s / 60, (int)s % 60);
}

#define BAR_LEAST 10
#define BAR_MOST 40

void bar_line(char *line, size_t cap, const struct bar_parts *t, int width)
{
    int head = (int)strlen(t->head), room = 0, full;
    char tail[240], bar[BAR_MOST + 4];

    /* What goes first where there is no room. */
    for (unsigned less = 0; less < 6; less++) {
        snprintf(tail, sizeof tail, " %3d %%%s%s%s%s", (int)(100 * t->share), less < 3 ? t->sizes : "",
                 less < 2 ? t->rate : "", less < 1 ? t->written : "", less < 5 ? t->eta : "");
        room = less < 4 ? width - 1 - head - 3 - (int)strlen(tail) : 0;
        if (less < 4 ? room >= BAR_LEAST : width > head + (int)strlen(tail))
            break;
    }
    room = room < BAR_LEAST ? 0 : room > BAR_MOST ? BAR_MOST : room;
    full = (int)(t->share * room);
    snprintf(bar, sizeof bar, room ? " [%*s]" : "%*s", room, "");
    for (int i = 0; i < room; i++)
        bar[2 + i] = i < full ? '#' : '.';
    snprintf(line, (size_t)width < cap ? (size_t)width : cap, "%s%s%s", t->head, bar, tail);
}

void progress_line(char *line, size_t cap, const struct progress *p, uint64_t done, int width)
{
    char a[32], b[32], sizes[80], in[48], out[48] = "", eta[32] = "  ETA ";
    const struct bar_parts t = {p->phase, p->total ? (double)done / (double)p->total : 1, sizes, in, out, eta};

    snprintf(sizes, sizeof sizes, "  %s of %s", sl_size_text(a, done), sl_size_text(b, p->total));
    snprintf(in, sizeof in, "  read %s/s", sl_size_text(a, (uint64_t)p->read_rate));
    if (p->win_written)
        snprintf(out, sizeof out, "  write %s/s", sl_size_text(a, (uint64_t)p->write_rate));
    eta_text(eta + 6, sizeof eta - 6, p, done);
    bar_line(line, cap, &t, width);
}

static int width_now(void)
{
    int width = term_width(STDERR_FILENO);

    return width > 0 ? width : 80;
}

/* To the beginning of what is on the screen: it has more rows where the terminal became narrower since. */
static void go_back(const struct progress *p, int width)
{
    int up = p->drawn ? (p->drawn - 1) / width : 0;

    if (up)
        fprintf(stderr, "\033[%dA\r\033[J", up);
}

static void draw_bar(struct progress *p, uint64_t done)
{
    int width = width_now();
    char line[300];

    if (interrupt_asked())
        p->phase = "stopping (again: at once)";
    progress_line(line, sizeof line, p, done, width);
    go_back(p, width);
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    p->drawn = (int)strlen(line);
}

static void show_json(const struct progress *p, uint64_t done)
{
    bool before = lost;
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "phase", p->phase);
    cJSON_AddNumberToObject(o, "done_bytes", (double)done);
    cJSON_AddNumberToObject(o, "total_bytes", (double)p->total);
    cJSON_AddNumberToObject(o, "read_bytes_per_second", p->read_rate);
    cJSON_AddNumberToObject(o, "written_bytes_per_second", p->write_rate);
    if (p->rate > 0)
        cJSON_AddNumberToObject(o, "eta_seconds", (double)(p->total - done) / p->rate);
    json_line(o, "progress");
    json_forgive(before); /* the next one comes soon */
}

static void show_plain(const struct progress *p, uint64_t done)
{
    char eta[24], out[48] = "", a[32], b[32], c[32];

    eta_text(eta, sizeof eta, p, done);
    if (p->win_written)
        snprintf(out, sizeof out, ", write %s/s", sl_size_text(a, (uint64_t)p->write_rate));
    fprintf(stderr, "%s: %.0f %%, %s of %s, read %s/s%s, ETA %s\n", p->phase,
            p->total ? 100.0 * (double)done / (double)p->total : 100.0, sl_size_text(a, done), sl_size_text(b, p->total),
            sl_size_text(c, (uint64_t)p->read_rate), out, eta);
}

/* A rate with s more seconds; work that is taken back, or counted anew, is none. */
static double blend(double old, uint64_t now, uint64_t before, double s)
{
    double fresh = now > before ? (double)(now - before) / s : 0;

    return old > 0 ? 0.7 * old + 0.3 * fresh : fresh;
}

void progress_update(struct progress *p, uint64_t done, uint64_t read_bytes, uint64_t written)
{
    static const uint64_t interval[] = {[PROGRESS_PLAIN] = 10 * SECOND,
                                        [PROGRESS_TTY] = SECOND / 5,
                                        [PROGRESS_JSON] = SECOND,
                                        [PROGRESS_QUIET] = UINT64_MAX};
    uint64_t now = now_ns();

    if (done > p->total)
        done = p->total;
    if (now - p->win_ns >= SECOND / 2) {
        double s = (double)(now - p->win_ns) / 1e9;

        p->rate = blend(p->rate, done, p->win_done, s);
        p->read_rate = blend(p->read_rate, read_bytes, p->win_read, s);
        p->write_rate = blend(p->write_rate, written, p->win_written, s);
        p->win_ns = now;
        p->win_done = done;
        p->win_read = read_bytes;
        p->win_written = written;
    }
    if (now - p->last_ns < interval[p->mode])
        return;
    p->last_ns = now;
    if (p->mode == PROGRESS_TTY)
        draw_bar(p, done);
    else if (p->mode == PROGRESS_JSON)
        show_json(p, done);
    else
        show_plain(p, done);
}

void progress_end(struct progress *p)
{
    if (!p->drawn)
        return;
    go_back(p, width_now());
    fputs("\r\033[K", stderr);
    p->drawn = 0;
}
