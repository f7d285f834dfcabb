#include "client/cli.h"

#include "client/other_tools.h"
#include "client/progress.h"
#include "proto/suggest.h"
#include "proto/option_help.h"
#include "proto/size_text.h"
#include "proto/utf8.h"
#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Asks a verb's own call of cli_parse for its table: known by its address, so
 * no text that a user types can be it. */
static const char visit_mark[] = "";

struct visit {
    void (*fn)(void *user, const struct poptOption *option);
    void *user;
};

static void visit_options(const struct poptOption *table, const struct visit *v)
{
    for (const struct poptOption *t = table; !sl_option_is_last(t); t++)
        if ((t->argInfo & POPT_ARG_MASK) != POPT_ARG_INCLUDE_TABLE)
            v->fn(v->user, t);
    for (const struct poptOption *t = table; !sl_option_is_last(t); t++)
        if ((t->argInfo & POPT_ARG_MASK) == POPT_ARG_INCLUDE_TABLE)
            visit_options(t->arg, v);
}

void cli_each_option(const struct cli_verb *verb,
                     void (*fn)(void *user, const struct poptOption *option), void *user)
{
    const struct visit v = {fn, user};
    const char *argv[] = {verb->name, visit_mark, (const char *)&v, NULL};
    struct sl_error e;

    verb->run(3, argv, &e);
}

static void print_help(const struct cli_verb *verb, const struct poptOption *table)
{
    char usage[256], summary[256];

    snprintf(usage, sizeof usage, "sluice %s%s%s", verb->name, *verb->args ? " " : "", verb->args);
    snprintf(summary, sizeof summary, "%s.", verb->summary);
    fputs("Usage: ", stdout);
    sl_print_wrapped(stdout, usage, 7);
    putchar('\n');
    sl_print_wrapped(stdout, summary, 0);
    putchar('\n');
    sl_print_options(table);
}

/* popt hands out copies of string arguments; this gives them back. */
static void free_strings(const struct poptOption *t)
{
    for (; !sl_option_is_last(t); t++) {
        unsigned kind = t->argInfo & POPT_ARG_MASK;

        if (kind == POPT_ARG_INCLUDE_TABLE) {
            free_strings(t->arg);
        } else if (kind == POPT_ARG_STRING && t->arg) {
            char **s = t->arg;

            free(*s);
            *s = NULL;
        }
    }
}

/* What popt blames; for a value, with the option before it. */
static const char *blamed(poptContext ctx, int argc, const char **argv, char *buf, size_t n)
{
    const char *bad = poptBadOption(ctx, 0);

    for (int i = 2; bad && bad[0] != '-' && i < argc; i++)
        if (strcmp(argv[i], bad) == 0 && argv[i - 1][0] == '-') {
            snprintf(buf, n, "%s %s", argv[i - 1], bad);
            return buf;
        }
    return bad ? bad : "";
}

static void try_option(void *user, const struct poptOption *t)
{
    suggest_try(user, t->longName);
}

static int unknown_option(const char *bad, const struct cli_verb *verb, const struct poptOption *table,
                          struct sl_error *e)
{
    char word[64];
    struct suggestion s = {.word = word};
    const struct visit v = {try_option, &s};
    const char *instead;

    snprintf(word, sizeof word, "%.*s", (int)strcspn(bad, "="), bad);
    instead = other_tools_option(verb->name, word);
    if (instead)
        return sl_fail(e, SL_EUSAGE, "%s: no option of 'sluice %s': %s", word, verb->name, instead);
    if (strncmp(word, "--", 2) == 0) {
        memmove(word, word + 2, strlen(word) - 1);
        s.word = other_tools_name(word);
        visit_options(table, &v);
    }
    if (s.best)
        return sl_fail(e, SL_EUSAGE, "%s: unknown option; did you mean --%s? ('sluice %s --help')", bad,
                       s.best, verb->name);
    return sl_fail(e, SL_EUSAGE, "%s: unknown option; see 'sluice %s --help'", bad, verb->name);
}

struct empty_number {
    const char *option, *value; /* as typed */
    bool found;
};

static void find_empty_number(void *user, const struct poptOption *t)
{
    struct empty_number *x = user;
    const char *name = x->option;
    size_t n = strlen(t->longName);

    if ((t->argInfo & POPT_ARG_MASK) != POPT_ARG_INT)
        return;
    if (strncmp(name, "--", 2) == 0 && strncmp(name + 2, t->longName, n) == 0)
        x->found |= name[2 + n] ? strcmp(name + 2 + n, "=") == 0 : x->value && !*x->value;
    else if (t->shortName && name[0] == '-' && name[1] == t->shortName && !name[2])
        x->found |= x->value && !*x->value;
}

/* popt takes an empty number for 0: a script's `-p "$UNSET"` must not become that. */
static int no_empty_numbers(int argc, const char **argv, const struct cli_verb *verb,
                            const struct poptOption *table, struct sl_error *e)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        struct empty_number x = {argv[i], i + 1 < argc ? argv[i + 1] : NULL, false};
        const struct visit v = {find_empty_number, &x};

        visit_options(table, &v);
        if (x.found)
            return sl_fail(e, SL_EUSAGE, "%s: a number is expected, and there is none; see 'sluice %s --help'",
                           argv[i], verb->name);
    }
    return 0;
}

/* --output=~/x: shells expand ~ at the beginning of a word alone. */
static int no_tildes(int argc, const char **argv, struct sl_error *e)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *eq = strncmp(argv[i], "--", 2) == 0 ? strchr(argv[i], '=') : NULL;

        if (eq && strncmp(eq, "=~/", 3) == 0)
            return sl_fail(e, SL_EUSAGE, "%s: shells leave ~ as it is there; write %.*s %s", argv[i], (int)(eq - argv[i]), argv[i],
                           eq + 1);
    }
    return 0;
}

static int next_options(poptContext ctx, const struct cli_verb *verb, const struct poptOption *table,
                        int argc, const char **argv,
                        int (*on_val)(int, const char *, void *, struct sl_error *), void *user,
                        struct sl_error *e)
{
    char buf[256];
    int val;

    SL_TRY(no_empty_numbers(argc, argv, verb, table, e));
    SL_TRY(no_tildes(argc, argv, e));
    while ((val = poptGetNextOpt(ctx)) > 0) {
        char *arg;
        int rc;

        if (val == 'h')
            return 1;
        arg = poptGetOptArg(ctx);
        rc = on_val ? on_val(val, arg, user, e) : 0;
        free(arg);
        SL_TRY(rc);
    }
    if (val == POPT_ERROR_BADOPT)
        return unknown_option(blamed(ctx, argc, argv, buf, sizeof buf), verb, table, e);
    if (val < -1)
        return sl_fail(e, SL_EUSAGE, "%s: %s; see 'sluice %s --help'",
                       blamed(ctx, argc, argv, buf, sizeof buf), poptStrerror(val), verb->name);
    return 0;
}

static int check_positions(const struct cli_args *a, const struct cli_verb *verb, int min_pos, int max_pos, struct sl_error *e)
{
    char what[CLI_SHOWN_BYTES] = "an argument is missing";

    for (int i = 0; i < a->n_pos; i++)
        if (!*a->pos[i])
            return sl_fail(e, SL_EUSAGE, "argument %d is empty; see 'sluice %s --help'", i + 1, verb->name);
    if (a->n_pos >= min_pos && a->n_pos <= max_pos)
        return 0;
    if (a->n_pos > max_pos)
        snprintf(what, sizeof what, "too many arguments ('%s')", a->pos[max_pos]);
    return sl_fail(e, SL_EUSAGE, "%s: usage: sluice %s%s%s; see 'sluice %s --help'", what, verb->name, *verb->args ? " " : "",
                   verb->args, verb->name);
}

int cli_parse(struct cli_args *a, const struct cli_verb *verb, int argc, const char **argv,
              const struct poptOption *table, int min_pos, int max_pos,
              int (*on_val)(int val, const char *arg, void *user, struct sl_error *e),
              void *user, struct sl_error *e)
{
    struct poptOption all[] = {
        CLI_TABLE((void *)table, "Options:"),
        {"help", 'h', POPT_ARG_NONE, NULL, 'h', "show this text", NULL},
        POPT_TABLEEND,
    };
    char name[64];
    int rc;

    memset(a, 0, sizeof *a);
    if (argc == 3 && argv[1] == visit_mark) {
        visit_options(all, (const struct visit *)(const void *)argv[2]);
        return 1;
    }
    snprintf(name, sizeof name, "sluice %s", verb->name);
    a->ctx = poptGetContext(name, argc, argv, all, 0);
    if (!a->ctx)
        return sl_no_memory(e);
    rc = next_options(a->ctx, verb, all, argc, argv, on_val, user, e);
    if (rc == 1)
        print_help(verb, all);
    if (rc == 0) {
        a->pos = poptGetArgs(a->ctx);
        while (a->pos && a->pos[a->n_pos])
            a->n_pos++;
        rc = check_positions(a, verb, min_pos, max_pos, e);
    }
    if (rc != 0) {
        free_strings(table);
        a->ctx = poptFreeContext(a->ctx);
    }
    a->table = table;
    return rc;
}

void cli_args_free(struct cli_args *a)
{
    if (!a->ctx)
        return;
    free_strings(a->table);
    a->ctx = poptFreeContext(a->ctx);
}

int words_add(struct words *w, const char *text, struct sl_error *e)
{
    const char **p = realloc(w->word, (size_t)(w->n + 1) * sizeof *p);

    if (p)
        w->word = p;
    if (!p || !(p[w->n] = strdup(text)))
        return sl_no_memory(e);
    w->n++;
    return 0;
}

void words_free(struct words *w)
{
    for (int i = 0; i < w->n; i++)
        free((char *)(uintptr_t)w->word[i]);
    free(w->word);
    *w = (struct words){0};
}

void words_put(struct cJSON *object, const char *field, const struct words *w)
{
    if (w->n)
        sl_put(object, field, cJSON_CreateStringArray(w->word, w->n));
}

int cli_parse_size(const char *option, const char *text, uint64_t *out, struct sl_error *e)
{
    if (sl_parse_size(text, out))
        return 0;
    return sl_fail(e, SL_EUSAGE,
                   "%s: '%s' is no size; write a number with K, M, G or T (powers of 1000) or "
                   "Ki, Mi, Gi or Ti (powers of 1024), for example 48G",
                   option, text);
}

const char *cli_shown(char line[CLI_SHOWN_BYTES], const char *text)
{
    snprintf(line, CLI_SHOWN_BYTES, "%s", text);
    sl_utf8_disarm(line);
    return line;
}

int cli_print_json(cJSON *object, struct sl_error *e)
{
    return json_print(object) ? 0 : sl_no_memory(e);
}
