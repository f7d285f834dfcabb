/* What `watch` shows of a `status` message, as text. */
#ifndef SLUICE_CLIENT_WATCH_VIEW_H
#define SLUICE_CLIENT_WATCH_VIEW_H

#include <stddef.h>

struct cJSON;

/* Effect: *text (new memory, the caller's) = one line for each job, one for each
 * worker at work on them (device, tensor, rate), and a bar over all with its
 * ETA; every line is cut at `width` columns and there are at most `lines` of
 * them. Returns the number of lines; 0 when memory is out (*text NULL). */
unsigned watch_screen(const struct cJSON *jobs, const struct cJSON *workers, int width,
                      unsigned lines, char **text);

/* Effect: one plain line about a job. Returns buf. */
const char *watch_plain(char *buf, size_t cap, const struct cJSON *job);

/* Rows that the lines of a screen take up when the terminal has become `width`
 * columns wide, since it wraps what it shows already. */
unsigned watch_rows(const char *text, int width);

#endif
