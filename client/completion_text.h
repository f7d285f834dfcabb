/* Completion scripts for shells, made from the verbs' option tables. */
#ifndef SLUICE_CLIENT_COMPLETION_TEXT_H
#define SLUICE_CLIENT_COMPLETION_TEXT_H

#include "proto/error.h"

#include <stdio.h>

/* Effect: prints the script of a shell (bash, zsh, fish). Errors: SL_EUSAGE for
 * another shell. */
int completion_text(FILE *to, const char *shell, struct sl_error *e) SL_MUST_USE;

/* Effect: prints every verb and every option: "verb", a tab, "--long", a tab, "-s"
 * or nothing, a tab, the argument or nothing, a tab, the help. For tests and
 * other tools. */
void completion_list(FILE *to);

#endif
