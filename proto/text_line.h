/* Text that grows: a line for messages and notes, the first of many names, a stream for more. */
#ifndef SLUICE_PROTO_TEXT_LINE_H
#define SLUICE_PROTO_TEXT_LINE_H

#include "proto/error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct sl_line {
    char text[900]; /* always ends with a NUL */
    size_t n;       /* characters */
};

/* Effect: puts printf's text behind what is there; what does not fit is left out. */
void sl_line_add(struct sl_line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "a, b and 12 more" */
struct sl_names {
    struct sl_line line;
    uint32_t n, shown; /* names; those that the line has */
};

/* Effect: one name more; the line has the first `most` of them, as far as `room` bytes are enough, of
 * the first one at most 200. */
void sl_names_add(struct sl_names *l, const char *name, uint32_t most, size_t room);

/* Returns the line, "" without names. Once, when all names are there. */
const char *sl_names_text(struct sl_names *l);

/* Effect: closes what open_memstream(text, ...) opened. Returns 0 when *text has all that was
 * written, the caller's (free); else SL_EFAIL (memory), and *text is NULL: fclose alone tells
 * neither of a write that failed before nor of a text that is NULL. */
int sl_text_close(FILE *f, char **text) SL_MUST_USE;

#endif
