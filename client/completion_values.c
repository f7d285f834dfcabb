#include "client/completion_values.h"

#include "client/record_fields.h"

#include <string.h>

#define QUEUE "sluice queue --parsable -o id 2>/dev/null"
#define HISTORY "sluice history --parsable -o id 2>/dev/null"

static const struct {
    const char *verb, *option; /* NULL: any verb; the verb's own arguments */
    struct completion_values values;
} known[] = {
    {"show", NULL, {NULL, QUEUE "; " HISTORY}},
    {"logs", NULL, {NULL, QUEUE "; " HISTORY}},
    {"wait", NULL, {NULL, QUEUE "; " HISTORY}},
    {"watch", NULL, {NULL, QUEUE "; " HISTORY}},
    {"resume", NULL, {NULL, QUEUE "; " HISTORY}},
    {"cancel", NULL, {NULL, QUEUE}},
    {"hold", NULL, {NULL, QUEUE}},
    {"release", NULL, {NULL, QUEUE}},
    {"set", NULL, {NULL, QUEUE}},
    {"stitch", NULL, {NULL, QUEUE "; " HISTORY}},
    {"retry", NULL, {NULL, HISTORY}},
    {"forget", NULL, {NULL, HISTORY}},
    {"submit", "after", {NULL, QUEUE}},
    {"verify", "job", {NULL, HISTORY}},
    {"drain", NULL, {NULL, "sluice workers --parsable -o name 2>/dev/null"}},
    {NULL, "recipe", {NULL, "sluice recipes 2>/dev/null | cut -d\" \" -f1"}},
    {"completion", NULL, {"bash zsh fish list", NULL}},
    {"config", NULL, {"show files", NULL}},
};

static struct completion_values fields(const char *verb, char buf[COMPLETION_WORDS_MAX])
{
    const struct column *c = strcmp(verb, "workers") == 0 ? worker_columns
                             : strcmp(verb, "logs") == 0  ? event_columns
                                                          : job_columns;
    size_t n = (size_t)snprintf(buf, COMPLETION_WORDS_MAX, "all");

    for (; c->name && n < COMPLETION_WORDS_MAX; c++)
        n += (size_t)snprintf(buf + n, COMPLETION_WORDS_MAX - n, " %s", c->name);
    return (struct completion_values){buf, NULL};
}

static struct completion_values states(char buf[COMPLETION_WORDS_MAX])
{
    size_t n = 0;

    for (const char *const *s = job_states; *s && n < COMPLETION_WORDS_MAX; s++)
        n += (size_t)snprintf(buf + n, COMPLETION_WORDS_MAX - n, "%s%s", n ? " " : "", *s);
    return (struct completion_values){buf, NULL};
}

/* "auto|uring|pread" is its own list; NAME|FILE and the like are not. */
static struct completion_values listed(const char *arg, char buf[COMPLETION_WORDS_MAX])
{
    if (!arg || !strchr(arg, '|') || strpbrk(arg, "ABCDEFGHIJKLMNOPQRSTUVWXYZ%"))
        return (struct completion_values){NULL, NULL};
    snprintf(buf, COMPLETION_WORDS_MAX, "%s", arg);
    for (char *p = buf; *p; p++)
        *p = *p == '|' ? ' ' : *p;
    return (struct completion_values){buf, NULL};
}

struct completion_values completion_values(const struct cli_verb *verb, const struct poptOption *option,
                                           char buf[COMPLETION_WORDS_MAX])
{
    const char *name = option ? option->longName : NULL;

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if ((!known[i].verb || strcmp(known[i].verb, verb->name) == 0) && !known[i].option == !name
            && (!name || strcmp(known[i].option, name) == 0))
            return known[i].values;
    if (name && strcmp(name, "format") == 0 && strcmp(option->argDescrip, "FIELDS") == 0)
        return fields(verb->name, buf);
    if (name && strcmp(name, "state") == 0)
        return states(buf);
    return listed(option ? option->argDescrip : NULL, buf);
}
