/* The command line of a service (sluiced, sluice-worker): options that give values to keys
 * of the configuration, and --log, --log-level, --config, --version, --help. */
#ifndef SLUICE_PROTO_CONFIG_OPTIONS_H
#define SLUICE_PROTO_CONFIG_OPTIONS_H

#include "proto/config_file.h"

#define SL_CONFIG_OPTIONS 31    /* of a program, the common ones included */
#define SL_CONFIG_OWN (-1)

struct sl_config_option {
    const char *name;           /* "listen" */
    char letter;                /* 0: none */
    int key;                    /* enum sl_config_key, or SL_CONFIG_OWN */
    const char *arg;            /* the name of its value; NULL: it takes none, and means "yes" */
    const char *help;
};

struct sl_config_program {
    const char *name;           /* "sluiced" */
    const char *about;          /* usage and text, before the options of --help */
    const struct sl_config_option *options;
    unsigned n_options;
    /* Takes an option of key SL_CONFIG_OWN; arg is the callee's until it returns. NULL when there is none. */
    int (*own)(void *user, const char *option, const char *arg, struct sl_error *e);
    /* An error whose text it leaves empty has been told. */
    int (*run)(void *user, const struct sl_config *c, struct sl_error *e);
    void *user;
};

/* Effect: answers --help and --version on stdout, or opens the configuration, sets what
 * the command line says and runs the program; says on stderr what went wrong. Returns the
 * exit status. */
int sl_config_main(const struct sl_config_program *p, int argc, const char **argv);

/* NULL in place of "". */
const char *sl_config_text_or_null(const struct sl_config *c, enum sl_config_key k);

#endif
