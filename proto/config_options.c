#include "proto/config_options.h"

#include "proto/option_help.h"
#include "proto/standard_streams.h"
#include "proto/suggest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beyond SL_CONFIG_OWN. */
enum { THE_FILE = SL_CONFIG_OWN - 1, THE_VERSION = THE_FILE - 1, THE_HELP = THE_VERSION - 1 };

/* What every service takes. */
static const struct sl_config_option common[] = {
    {"log", 0, SL_CONFIG_LOG, "FORM", "form of log lines: plain, json, journal"},
    {"log-level", 0, SL_CONFIG_LOG_LEVEL, "LEVEL", "least important lines: error, warning, notice, info, debug"},
    {"config", 0, THE_FILE, "FILE", "read this configuration file alone"},
    {"version", 'V', THE_VERSION, NULL, "print the version"},
    {"help", 'h', THE_HELP, NULL, "print this"},
};
#define N_COMMON (sizeof common / sizeof *common)

static const struct sl_config_option *option_at(const struct sl_config_program *p, unsigned i)
{
    return i < p->n_options ? &p->options[i] : &common[i - p->n_options];
}

/* popt knows an option by its place and one. */
static void fill_table(const struct sl_config_program *p, struct poptOption *table)
{
    for (unsigned i = 0; i < p->n_options + N_COMMON; i++) {
        const struct sl_config_option *o = option_at(p, i);

        table[i] = (struct poptOption){o->name, o->letter, o->arg ? POPT_ARG_STRING : POPT_ARG_NONE,
                                       NULL, (int)i + 1, o->help, o->arg};
    }
}

/* The last value of --config: the file must be known before the first option is set. */
static const char *path_option(int argc, const char **argv)
{
    const char *path = NULL;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--config=", 9) == 0)
            path = argv[i] + 9;
        else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
            path = argv[++i];
    }
    return path;
}

static int take(const struct sl_config_program *p, struct sl_config *c,
                const struct sl_config_option *o, const char *arg, struct sl_error *e)
{
    char name[64];

    if (o->key == SL_CONFIG_OWN)
        return p->own(p->user, o->name, arg, e);
    snprintf(name, sizeof name, "--%s", o->name);
    return o->key < 0 ? 0 : sl_config_set(c, (enum sl_config_key)o->key, arg ? arg : "yes", name, e);
}

static int bad_option(const struct poptOption *table, const char *bad, int why, struct sl_error *e)
{
    char word[64];
    struct suggestion s = {.word = word};

    snprintf(word, sizeof word, "%.*s", (int)strcspn(bad, "="), bad);
    if (why == POPT_ERROR_BADOPT && strncmp(word, "--", 2) == 0) {
        memmove(word, word + 2, strlen(word) - 1);
        for (; table->longName; table++)
            suggest_try(&s, table->longName);
    }
    if (s.best)
        return sl_fail(e, SL_EUSAGE, "%s: unknown option; did you mean --%s? (see --help)", bad, s.best);
    return sl_fail(e, SL_EUSAGE, "%s: %s; see --help", bad, poptStrerror(why));
}

/* Returns 0 to go on, 1 when all is done. */
static int parse(const struct sl_config_program *p, int argc, const char **argv,
                 struct sl_config **c, struct sl_error *e)
{
    struct poptOption table[SL_CONFIG_OPTIONS + 1] = {POPT_TABLEEND};
    const struct sl_config_opts co = {.path = path_option(argc, argv)};
    poptContext ctx;
    int val = -1, rc = 0;

    if (p->n_options + N_COMMON > SL_CONFIG_OPTIONS)
        return sl_fail(e, SL_EFAIL, "%s: too many options", p->name);
    fill_table(p, table);
    ctx = poptGetContext(p->name, argc, argv, table, 0);
    if (!ctx)
        return sl_no_memory(e);
    while (rc == 0 && (val = poptGetNextOpt(ctx)) > 0) {
        const struct sl_config_option *o = option_at(p, (unsigned)val - 1);
        char *arg = poptGetOptArg(ctx);

        if (o->key == THE_VERSION) {
            printf("%s %s\n", p->name, SLUICE_VERSION);
            rc = 1;
        } else if (o->key == THE_HELP) {
            printf("%s\n", p->about);
            sl_print_options(table);
            rc = 1;
        } else if (!*c) {
            rc = sl_config_open(&co, c, e);
        }
        if (rc == 0)
            rc = take(p, *c, o, arg, e);
        free(arg);
    }
    if (rc == 0 && val < -1)
        rc = bad_option(table, poptBadOption(ctx, 0), val, e);
    if (rc == 0 && poptPeekArg(ctx))
        rc = sl_fail(e, SL_EUSAGE, "%s: no argument is expected; see --help", poptPeekArg(ctx));
    if (rc == 0 && !*c)
        rc = sl_config_open(&co, c, e);
    poptFreeContext(ctx);
    return rc;
}

int sl_config_main(const struct sl_config_program *p, int argc, const char **argv)
{
    struct sl_config *c = NULL;
    struct sl_error e = {0};
    int rc;

    sl_streams_fill();
    rc = parse(p, argc, argv, &c, &e);
    if (rc == 0)
        rc = p->run(p->user, c, &e);
    else if (rc > 0)
        rc = sl_stdout_flush(&e);
    if (rc < 0 && e.text[0])
        fprintf(stderr, "%s: %s\n", p->name, e.text);
    sl_config_close(c);
    return -rc;
}

const char *sl_config_text_or_null(const struct sl_config *c, enum sl_config_key k)
{
    const char *text = sl_config_text(c, k);

    return *text ? text : NULL;
}
