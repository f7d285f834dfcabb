/* sluice workers, sluice drain. */
#include "client/progress.h"
#include "client/record_fields.h"
#include "client/service_args.h"

#include <cjson/cJSON.h>

static int list_workers(struct daemon_link *l, struct sl_msg *answer, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(SL_M_WORKERS, NULL, &m, e));
    return daemon_link_ask(l, &m, SL_M_WORKER_LIST, answer, e);
}

static int run_workers(int argc, const char **argv, struct sl_error *e)
{
    struct service_args sa = {0};
    struct form_args fa = {0};
    struct poptOption service[SERVICE_TABLE_MAX], form[FORM_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_TABLE(form, "Form:"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct service s = {0};
    struct cli_args args;
    struct columns c;
    struct sl_msg answer;
    int rc;

    service_table(&sa, service);
    form_table(&fa, form);
    rc = cli_parse(&args, &cli_workers, argc, argv, table, 0, 0, NULL, NULL, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = form_columns(&fa, worker_columns, WORKER_COLUMNS_USUAL, &c, e);
    if (rc == 0)
        rc = service_open(&s, &sa, e);
    if (rc == 0)
        rc = list_workers(s.link, &answer, e);
    if (rc == 0) {
        form_print(&fa, &c, sl_get(answer.tree, "workers"), "worker");
        sl_msg_free(&answer);
    }
    service_close(&s);
    cli_args_free(&args);
    return rc;
}

/* name: as it is shown. */
static int drain_one(struct daemon_link *l, const char *which, const char *name, bool json,
                     struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(SL_M_DRAIN_WORKER, NULL, &m, e));
    sl_put_str(m.tree, "worker", which);
    SL_TRY(daemon_link_ask(l, &m, SL_M_DONE, NULL, e));
    if (json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddStringToObject(o, "worker", name);
        json_line(o, "draining");
    } else {
        printf("draining %s\n", name);
    }
    return 0;
}

/* A worker that was lost is listed while its leases run: the others are told all the same. */
static int drain_all(struct daemon_link *l, bool json, struct sl_error *e)
{
    const char *lost = NULL;
    struct sl_msg answer;
    const cJSON *w;
    int rc;

    SL_TRY(list_workers(l, &answer, e));
    if (cJSON_GetArraySize(sl_get(answer.tree, "workers")) == 0)
        fputs("sluice drain: no worker is connected\n", stderr);
    rc = 0;
    cJSON_ArrayForEach(w, sl_get(answer.tree, "workers")) {
        if (rc == 0)
            rc = drain_one(l, sl_get_str(w, "instance"), sl_get_str(w, "name"), json, e);
        if (rc == SL_ENOJOB) {
            lost = sl_get_str(w, "name");
            rc = 0;
        }
    }
    if (rc == 0 && lost)
        rc = sl_fail(e, SL_ENOJOB, "worker '%s' is not connected and was not told; all others were", lost);
    sl_msg_free(&answer);
    return rc;
}

static int run_drain(int argc, const char **argv, struct sl_error *e)
{
    struct service_args sa = {0};
    int all = 0, json = 0;
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_FLAG("all", 'a', &all, "all workers"),
        CLI_FLAG("json", 0, &json, "JSON lines, one for each worker"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct service s = {0};
    struct cli_args args;
    int rc;

    service_table(&sa, service);
    rc = cli_parse(&args, &cli_drain, argc, argv, table, 0, 1000, NULL, NULL, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (all ? args.n_pos > 0 : args.n_pos == 0)
        rc = sl_fail(e, SL_EUSAGE, "expected names of workers ('sluice workers' lists them), or --all");
    if (rc == 0)
        rc = service_open(&s, &sa, e);
    if (rc == 0 && all)
        rc = drain_all(s.link, json, e);
    for (int i = 0; rc == 0 && i < args.n_pos; i++)
        rc = drain_one(s.link, args.pos[i], args.pos[i], json, e);
    service_close(&s);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_workers = {"workers", "[OPTION...]",
                                     "List the workers and what they are at", run_workers};
const struct cli_verb cli_drain = {"drain", "WORKER... [OPTION...]",
                                   "Let workers finish what they hold and end", run_drain};
