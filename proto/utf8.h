/* UTF-8 in strangers' text. */
#ifndef SLUICE_PROTO_UTF8_H
#define SLUICE_PROTO_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Returns the bytes of the well-formed character at s (RFC 3629) of which n are there, or 0. */
size_t sl_utf8_at(const void *s, size_t n);

/* The same for a line that people read: 0 also for control characters (C0, DEL, C1), line
 * and paragraph separators and the marks that reorder text. */
size_t sl_utf8_shown(const void *s, size_t n);

/* Returns whether a whole text is made of such characters. */
bool sl_utf8_all_shown(const char *text);

/* Whether all of a text is well-formed. */
bool sl_utf8_valid(const char *text);

/* Effect: '?' in place of each byte that is not shown: what a terminal would obey, a line's end, no UTF-8. */
void sl_utf8_disarm(char *text);

#endif
