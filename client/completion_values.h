/* What a shell can offer as an argument, beyond file names. */
#ifndef SLUICE_CLIENT_COMPLETION_VALUES_H
#define SLUICE_CLIENT_COMPLETION_VALUES_H

#include "client/cli.h"

/* Fixed words, or a command that prints them; both NULL: file names. */
struct completion_values {
    const char *words;   /* with spaces between them */
    const char *command; /* for sh, zsh and fish alike; says nothing on stderr */
};

#define COMPLETION_WORDS_MAX 1200

/* Effect: what an option of a verb takes, or the verb's own arguments (option
 * NULL). buf holds the words where they are put together. */
struct completion_values completion_values(const struct cli_verb *verb, const struct poptOption *option,
                                           char buf[COMPLETION_WORDS_MAX]);

#endif
