/* sluice watch, sluice wait. */
#include "client/follow.h"
#include "client/interrupt.h"

struct args {
    struct service_args service;
    int json, interval;
};

/* Parses the verb's own and the common options, connects, follows. */
static int follow_verb(const struct cli_verb *verb, const struct poptOption *table,
                       const struct args *a, bool show, int argc, const char **argv,
                       struct sl_error *e)
{
    struct follow f = {.verb = verb->name, .show = show, .plain = stdout};
    struct service s = {0};
    struct cli_args args;
    struct ids ids;
    int rc = cli_parse(&args, verb, argc, argv, table, show ? 0 : 1, IDS_MAX, NULL, NULL, e);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    f.json = a->json;
    f.every_ms = a->interval > 0 ? (unsigned)a->interval * 1000 : a->json ? 1000 : 10000;
    f.ids = &ids;
    rc = ids_parse(args.pos, args.n_pos, &ids, e);
    if (rc == 0 && (a->interval < 0 || a->interval > 3600))
        rc = sl_fail(e, SL_EUSAGE, "--interval: expected 1 to 3600 seconds");
    if (rc == 0)
        rc = service_open(&s, &a->service, e);
    if (rc == 0)
        rc = follow_jobs(s.link, &f, e);
    service_close(&s);
    cli_args_free(&args);
    if (rc == SL_EINTERRUPTED && show && interrupt_asked()) {
        fprintf(stderr, "sluice %s: detached; the jobs go on\n", verb->name);
        return 0;
    }
    return rc;
}

static int run_watch(int argc, const char **argv, struct sl_error *e)
{
    struct args a = {0};
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        {"json", 0, POPT_ARG_NONE, &a.json, 0, "events, status and ends as JSON lines", NULL},
        {"interval", 'i', POPT_ARG_INT, &a.interval, 0,
         "between plain lines, where no bar can be drawn (default 10), or JSON status lines "
         "(default 1)", "SECONDS"},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, service, 0, "Which daemon:", NULL},
        POPT_TABLEEND,
    };

    service_table(&a.service, service);
    return follow_verb(&cli_watch, table, &a, true, argc, argv, e);
}

static int run_wait(int argc, const char **argv, struct sl_error *e)
{
    struct args a = {0};
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        {"json", 0, POPT_ARG_NONE, &a.json, 0, "events, status and ends as JSON lines", NULL},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, service, 0, "Which daemon:", NULL},
        POPT_TABLEEND,
    };

    service_table(&a.service, service);
    return follow_verb(&cli_wait, table, &a, false, argc, argv, e);
}

const struct cli_verb cli_watch = {
    "watch", "[JOB...] [OPTION...]",
    "Watch jobs and workers; ends with the jobs, with their exit code; Ctrl-C detaches", run_watch};
const struct cli_verb cli_wait = {"wait", "JOB... [OPTION...]",
                                  "Wait until jobs end; exit with their code", run_wait};
