/* Log lines of daemon and worker: one line for each event that an operator
 * needs, in one of three forms.
 *
 *   plain    2026-11-21T04:00:43.123Z warning sluiced lease-expired job=7 task=12 worker=gpu-a: text
 *   json     {"time":"...","level":"warning","program":"sluiced","event":"lease-expired",
 *             "job":7,"task":12,"worker":"gpu-a","text":"text"}
 *   journal  <4>lease-expired job=7 task=12 worker=gpu-a: text
 *
 * Names and texts come from strangers: control characters (C1 ones too) and
 * bytes that are no UTF-8 are shown escaped, so a line stays one line and
 * cannot steer a terminal. A line is one write(2): threads need no lock. */
#ifndef SLUICE_PROTO_LOG_LINE_H
#define SLUICE_PROTO_LOG_LINE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Both in the order of the choices of config_file.h. */
enum sl_log_form { SL_LOG_AUTO, SL_LOG_PLAIN, SL_LOG_JSON, SL_LOG_JOURNAL };
enum sl_log_level { SL_LOG_ERROR, SL_LOG_WARNING, SL_LOG_NOTICE, SL_LOG_INFO, SL_LOG_DEBUG };

struct sl_log {
    int fd;                     /* usually 2 */
    enum sl_log_form form;      /* as chosen: never SL_LOG_AUTO */
    enum sl_log_level level;    /* the least important one that is written */
    const char *program;
};

#define SL_LOG_LINE_MAX 4096    /* bytes; a text that takes over 2047 of them is cut */

struct sl_log_fields {
    const char *event;          /* fixed names: "job-submitted" */
    uint64_t job;               /* 0: none */
    int64_t task;               /* -1: none; a job's own (wire.h) are shown by name, "task=prepare" */
    const char *worker;         /* NULL or "": none */
    const char *text;           /* NULL or "": none */
};

/* "error", "warning", "notice", "info", "debug". */
const char *sl_log_level_name(enum sl_log_level l);

/* Effect: fills *l. auto becomes journal where fd is the journal's stream
 * (JOURNAL_STREAM names its device and inode), else plain. */
void sl_log_open(struct sl_log *l, int fd, enum sl_log_form form, enum sl_log_level level,
                 const char *program);

/* Effect: writes the line, newline and NUL into buf. Returns its length. */
size_t sl_log_format(const struct sl_log *l, enum sl_log_level level,
                     const struct sl_log_fields *f, const struct timespec *now,
                     char buf[SL_LOG_LINE_MAX]);

/* Effect: one line, if its level is to be written; none where log is NULL. A log that cannot be
 * written is no reason to stop. */
void sl_log_write(const struct sl_log *l, enum sl_log_level level, const struct sl_log_fields *f);

/* The same for an event of the program itself, with a formatted text. */
void sl_log_say(const struct sl_log *l, enum sl_log_level level, const char *event,
                const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
