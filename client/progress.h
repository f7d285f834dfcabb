/* Progress of a long run: a bar on a terminal (stderr), one plain line each
 * interval elsewhere, JSON lines on stdout with --json. Rates come from work
 * done, not from a timer. */
#ifndef SLUICE_CLIENT_PROGRESS_H
#define SLUICE_CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;

enum progress_mode { PROGRESS_PLAIN = 0, PROGRESS_TTY, PROGRESS_JSON, PROGRESS_QUIET };

struct progress {
    enum progress_mode mode;
    const char *phase;       /* "convert", "check" */
    uint64_t total;          /* bytes of work in all */
    uint64_t t0_ns, last_ns; /* when the phase began, when something was shown */
    uint64_t win_ns, win_done, win_read, win_written; /* start of the rate window; nothing written, no such rate */
    double rate, read_rate, write_rate;               /* bytes per second */
    int drawn;               /* columns of the bar that is on the screen; 0: none */
};

/* The mode for this process: JSON or quiet as asked, a bar when stderr is a
 * terminal that can move its cursor (TERM=dumb can't). */
enum progress_mode progress_mode_for(bool json, bool quiet);

/* Effect: starts a phase of `total` bytes of which `done` are done already. */
void progress_begin(struct progress *p, enum progress_mode mode, const char *phase,
                    uint64_t total, uint64_t done);

/* Effect: tells how far the phase is; shows it when it is time to. */
void progress_update(struct progress *p, uint64_t done, uint64_t read_bytes, uint64_t written);

/* A line with a bar. The texts begin with two spaces, or are empty. */
struct bar_parts {
    const char *head;
    double share;            /* 0 to 1 */
    const char *sizes, *rate, *written, *eta;
};

/* Effect: writes it for a terminal of so many columns, one less at most: a line that wraps could not
 * be drawn over. Rates, sizes, the bar itself and eta go, in this order, where there is no room. */
void bar_line(char *line, size_t cap, const struct bar_parts *t, int width);

/* Effect: the line of a phase. */
void progress_line(char *line, size_t cap, const struct progress *p, uint64_t done, int width);

/* Effect: removes the bar. */
void progress_end(struct progress *p);

/* Effect: from here on cJSON's want of memory is noted; before anything uses it. */
void json_note_memory(void);
/* Whether memory was denied to this thread's JSON: it may lack a field, and the verb fails. */
bool json_lost(void);
/* Effect: what was denied since json_lost() said `before` matters to nobody. */
void json_forgive(bool before);

/* Effect: prints object on a line of its own on standard output, unless something is lost, with U+FFFD
 * for what is no UTF-8 (paths need not be), and deletes it. Returns whether it was printed. */
bool json_print(struct cJSON *object);

/* Effect: the same, with message_type, schema and time (RFC 3339, UTC; unless it has one) added. */
void json_line(struct cJSON *object, const char *message_type);

/* Nanoseconds, milliseconds of CLOCK_MONOTONIC. */
uint64_t now_ns(void);
uint64_t now_ms(void);

#endif
