/* What a terminal can show: width, colour, moving the cursor. */
#ifndef SLUICE_CLIENT_TERM_H
#define SLUICE_CLIENT_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Columns of the terminal behind fd; 0 when it is none. */
int term_width(int fd);

/* Whether lines may be drawn again: a terminal other than TERM=dumb. */
bool term_can_draw(int fd);

/* Whether to colour standard output: as term_can_draw, unless NO_COLOR is set; always with
 * CLICOLOR_FORCE. */
bool term_can_colour(void);

/* Whether standard output is a pipe that nobody reads any more. */
bool term_reader_gone(void);

/* Columns that n bytes of UTF-8 take up (each character one). */
int term_columns(const char *text, size_t n);

/* Bytes of text that fit into so many columns, ending at a whole character. */
size_t term_fit(const char *text, int columns);

/* Effect: prints text, which begins at a column of its line, and a newline. Where a terminal of
 * `width` columns (0: none) has no room, it goes on below, at that column; words stay whole. */
void term_fold(FILE *to, const char *text, int column, int width);

/* Prints a file's text on standard output: as it is, but on a terminal with '?' in place of what that would obey. */
void term_print(const char *text);

#endif
