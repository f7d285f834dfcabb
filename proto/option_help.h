/* The options of --help, from the table that parses them. */
#ifndef SLUICE_PROTO_OPTION_HELP_H
#define SLUICE_PROTO_OPTION_HELP_H

#include <popt.h>
#include <stdbool.h>
#include <stdio.h>

/* Effect: prints text and a newline, wrapped at spaces to the terminal's width (60 to 96 columns;
 * 96 elsewhere); the cursor is at `column`, and further lines begin there. */
void sl_print_wrapped(FILE *to, const char *text, int column);

/* Effect: prints the options of a table to stdout, a line each or wrapped, then the
 * tables in it, each under its description. */
void sl_print_options(const struct poptOption *table);

/* The entry that ends a table. */
bool sl_option_is_last(const struct poptOption *t);

#endif
