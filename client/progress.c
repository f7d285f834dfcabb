#include "client/progress.h"

#include "client/cli.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

enum progress_mode progress_mode_for(bool json, bool quiet)
{
    const char *term = getenv("TERM");

    if (json)
        return PROGRESS_JSON;
    if (quiet)
        return PROGRESS_QUIET;
    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0 ? PROGRESS_TTY
                                                                     : PROGRESS_PLAIN;
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

static void draw_bar(struct progress *p, uint64_t done, const char *eta)
{
    struct winsize ws = {0};
    char size[32], all[32], in[32], out[32], tail[200], bar[512];
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : 80;
    double share = p->total ? (double)done / (double)p->total : 1;
    int room, full, rest; /* a line that wraps could not be drawn over */

    snprintf(tail, sizeof tail, " %3.0f %%  %s of %s  read %s/s  write %s/s  ETA %s", 100 * share,
             cli_size(size, done), cli_size(all, p->total), cli_size(in, (uint64_t)p->read_rate),
             cli_size(out, (uint64_t)p->write_rate), eta);
    room = width - 1 - (int)strlen(tail) - (int)strlen(p->phase) - 3;
    if (room > 40)
        room = 40;
    if (room < 0)
        room = 0;
    full = (int)(share * room);
    for (int i = 0; i < room; i++)
        bar[i] = i < full ? '#' : '.';
    bar[room] = 0;
    rest = width - 1 - room - (int)strlen(p->phase) - 3;
    fprintf(stderr, "\r%s [%s]%.*s\033[K", p->phase, bar, rest > 0 ? rest : 0, tail);
    fflush(stderr);
    p->drawn = true;
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
    char eta[24], a[32], b[32], c[32], d[32];

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
    eta_text(eta, sizeof eta, p, done);
    if (p->mode == PROGRESS_TTY)
        draw_bar(p, done, eta);
    else if (p->mode == PROGRESS_JSON)
        show_json(p, done);
    else
        fprintf(stderr, "%s: %.0f %%, %s of %s, read %s/s, write %s/s, ETA %s\n", p->phase,
                p->total ? 100.0 * (double)done / (double)p->total : 100.0, cli_size(a, done),
                cli_size(b, p->total), cli_size(c, (uint64_t)p->read_rate),
                cli_size(d, (uint64_t)p->write_rate), eta);
}

void progress_end(struct progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}
