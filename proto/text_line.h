/* A line of text that grows, for messages and notes. */
#ifndef SLUICE_PROTO_TEXT_LINE_H
#define SLUICE_PROTO_TEXT_LINE_H

#include <stddef.h>

struct sl_line {
    char text[900]; /* always ends with a NUL */
    size_t n;       /* characters */
};

/* Effect: puts printf's text behind what is there; what does not fit is left out. */
void sl_line_add(struct sl_line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
