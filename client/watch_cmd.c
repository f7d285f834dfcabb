/* sluice watch, sluice wait. */
#include "client/follow.h"
#include "client/interrupt.h"
#include "client/progress.h"
#include "proto/config_value.h"

#include <string.h>

#define DAY_MS 86400000u

struct args {
    struct service_args service;
    const char *timeout;    /* wait's: of all, not of the daemon's answer alone */
    int json, interval;     /* UNSET: the usual one */
};

/* *ms = 0 without the option. A number alone is seconds, as for the other verbs. */
static int time_limit(const char *text, uint64_t *ms, struct sl_error *e)
{
    char seconds[24];
    bool number;

    *ms = 0;
    if (!text)
        return 0;
    number = text[strspn(text, "0123456789.")] == '\0';
    snprintf(seconds, sizeof seconds, "%.20ss", text);
    if (!sl_parse_duration(number ? seconds : text, ms))
        *ms = 0;
    if (*ms < 1 || *ms > 365 * (uint64_t)DAY_MS)
        return sl_fail(e, SL_EUSAGE, "--timeout '%s': expected a time up to 365d (500ms, 30s, 2min, 1h)", text);
    return 0;
}

/* The time that is left goes to the jobs; the daemon is waited for as long at most. */
static int open_and_follow(const struct args *a, struct follow *f, struct sl_error *e)
{
    struct service_args sa = a->service;
    struct service s = {0};
    uint64_t limit, t0 = now_ms(), passed;
    int rc = time_limit(a->timeout, &limit, e);

    if (limit)
        sa.timeout = limit > DAY_MS ? (int)(DAY_MS / 1000) : (int)((limit + 999) / 1000);
    if (rc == 0)
        rc = service_open(&s, &sa, e);
    passed = now_ms() - t0;
    f->limit_ms = limit > passed ? limit - passed : limit ? 1 : 0;
    f->names = rc == 0 && service_is_local(&s);
    if (rc == 0)
        rc = follow_jobs(s.link, f, e);
    service_close(&s);
    return rc;
}

/* Parses the verb's own and the common options, connects, follows. */
static int follow_verb(const struct cli_verb *verb, const struct poptOption *table,
                       const struct args *a, bool show, int argc, const char **argv,
                       struct sl_error *e)
{
    struct follow f = {.verb = verb->name, .show = show, .plain = stdout};
    struct cli_args args;
    struct ids ids;
    int rc = cli_parse(&args, verb, argc, argv, table, show ? 0 : 1, IDS_MAX, NULL, NULL, e);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    f.json = a->json;
    f.every_ms = a->interval != UNSET ? (unsigned)a->interval * 1000 : a->json ? 1000 : 10000;
    f.ids = &ids;
    rc = ids_parse(args.pos, args.n_pos, &ids, e);
    if (rc == 0 && a->interval != UNSET && (a->interval < 1 || a->interval > 3600))
        rc = sl_fail(e, SL_EUSAGE, "--interval %d: expected 1 to 3600 seconds", a->interval);
    if (rc == 0)
        rc = open_and_follow(a, &f, e);
    cli_args_free(&args);
    if (rc == SL_EINTERRUPTED && show && interrupt_asked()) {
        fprintf(stderr, "sluice %s: detached; the jobs go on\n", verb->name);
        return 0;
    }
    return rc;
}

static int run_watch(int argc, const char **argv, struct sl_error *e)
{
    struct args a = {.interval = UNSET};
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_FLAG("json", 0, &a.json, "events, status and ends as JSON lines"),
        CLI_NUMBER("interval", 'i', &a.interval,
                   "between plain lines, where no bar can be drawn (default 10), or JSON status lines (default 1)", "SECONDS"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };

    service_table(&a.service, service);
    return follow_verb(&cli_watch, table, &a, true, argc, argv, e);
}

static void without_option(struct poptOption *table, const char *name)
{
    for (struct poptOption *t = table; t->longName; t++)
        while (t->longName && strcmp(t->longName, name) == 0)
            for (struct poptOption *u = t; u->longName; u++)
                u[0] = u[1];
}

static int run_wait(int argc, const char **argv, struct sl_error *e)
{
    struct args a = {.interval = UNSET};
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_TEXT("timeout", 0, &a.timeout,
                 "give up after so long with exit code 124, such as 30s, 10min or 2h (a number alone: seconds); the jobs go on", "TIME"),
        CLI_FLAG("json", 0, &a.json, "events, status and ends as JSON lines"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };

    service_table(&a.service, service);
    without_option(service, "timeout");
    return follow_verb(&cli_wait, table, &a, false, argc, argv, e);
}

const struct cli_verb cli_watch = {
    "watch", "[JOB...] [OPTION...]",
    "Watch jobs and workers; ends with the jobs named, with their exit code; Ctrl-C detaches", run_watch};
const struct cli_verb cli_wait = {"wait", "JOB... [OPTION...]",
                                  "Wait until jobs end; exit with their code", run_wait};
