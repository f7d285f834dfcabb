/* Text that grows: a line for messages and notes, a stream for more. */
#ifndef SLUICE_PROTO_TEXT_LINE_H
#define SLUICE_PROTO_TEXT_LINE_H

#include "proto/error.h"

#include <stddef.h>
#include <stdio.h>

struct sl_line {
    char text[900]; /* always ends with a NUL */
    size_t n;       /* characters */
};

/* Effect: puts printf's text behind what is there; what does not fit is left out. */
void sl_line_add(struct sl_line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Effect: closes what open_memstream(text, ...) opened. Returns 0 when *text has all that was
 * written, the caller's (free); else SL_EFAIL (memory), and *text is NULL: fclose alone tells
 * neither of a write that failed before nor of a text that is NULL. */
int sl_text_close(FILE *f, char **text) SL_MUST_USE;

#endif
