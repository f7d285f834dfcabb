/* sluice show, sluice logs: one job in full, and what happened. */
#include "client/interrupt.h"
#include "client/progress.h"
#include "client/record_fields.h"
#include "client/service_args.h"
#include "client/term.h"
#include "client/time_text.h"
#include "proto/clock.h"

#include <cjson/cJSON.h>
#include <string.h>

#define PAGE 1000
#define FOLLOW_MS 1000

/* A letter for each task, a hundred on a line. */
static void print_map(const char *map)
{
    size_t n = map ? strlen(map) : 0;

    for (size_t i = 0; i < n; i += 100)
        printf("  %6zu  %.100s\n", i, map + i);
}

/* A task's number; of one beside the plan's its name. */
static const char *task_text(char buf[24], uint64_t task)
{
    snprintf(buf, 24, "%llu", (unsigned long long)task);
    return sl_task_name(task) ? sl_task_name(task) : buf;
}

static void print_failures(const cJSON *failures)
{
    const cJSON *f;

    cJSON_ArrayForEach(f, failures) {
        char when[32], task[24];

        printf("  %s  task %s on %s, code %llu: %s\n",
               time_short(when, sl_get_uint(f, "time", 0), sl_wall_ms()),
               task_text(task, sl_get_uint(f, "task", 0)), sl_get_str(f, "worker"),
               (unsigned long long)sl_get_uint(f, "code", 0), sl_get_str(f, "text"));
    }
}

static void print_job(const cJSON *tree, bool tasks)
{
    const cJSON *job = sl_get(tree, "job"), *failures = sl_get(tree, "failures"), *option;
    const char *print = sl_get_str(tree, "fingerprint");
    char cell[CELL_MAX];

    for (const struct column *c = job_columns; c->name; c++) {
        column_cell(c, job, false, cell);
        if (!cell[0])
            continue;
        printf("%-12s ", c->name);
        column_print(stdout, c, job, false);
        putchar('\n');
    }
    if (print)
        printf("%-12s %s\n", "fingerprint", print);
    cJSON_ArrayForEach(option, sl_get(sl_get(tree, "spec"), "options")) {
        char *text = cJSON_PrintUnformatted(option);

        printf("%-12s %s = %s\n", "option", option->string, text ? text : "?");
        cJSON_free(text);
    }
    if (cJSON_GetArraySize(failures) > 0) {
        printf("failures, newest first:\n");
        print_failures(failures);
    }
    if (tasks) {
        printf("tasks (. ready, l leased, d done, q quarantined):\n");
        print_map(sl_get_str(tree, "map"));
    }
}

struct show_args {
    struct service_args service;
    int json, tasks, recipe;
};

static int show_one(const struct service *s, const struct show_args *a, uint64_t id,
                    struct sl_error *e)
{
    struct sl_msg m, answer;

    SL_TRY(sl_msg_new(SL_M_SHOW, NULL, &m, e));
    sl_put_uint(m.tree, "job", id);
    SL_TRY(daemon_link_ask(s->link, &m, SL_M_JOB, &answer, e));
    if (a->recipe) {
        term_print(sl_get_str(sl_get(answer.tree, "spec"), "recipe_text"));
    } else if (a->json) {
        static const char *const envelope[] = {"v", "m", "id", "re"};
        cJSON *copy = record_json(answer.tree);

        for (size_t i = 0; i < sizeof envelope / sizeof envelope[0]; i++)
            cJSON_DeleteItemFromObjectCaseSensitive(copy, envelope[i]);
        json_line(copy, "job_detail");
    } else {
        if (service_is_local(s))
            record_name_users(sl_get(answer.tree, "job"));
        record_disarm(answer.tree);
        print_job(answer.tree, a->tasks);
    }
    sl_msg_free(&answer);
    return 0;
}

static int run_show(int argc, const char **argv, struct sl_error *e)
{
    struct show_args a = {0};
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_FLAG("json", 0, &a.json, "JSON lines, one for each job"),
        CLI_FLAG("tasks", 0, &a.tasks, "also a letter for each task"),
        CLI_FLAG("recipe", 0, &a.recipe, "print the text of the job's recipe, nothing else"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    struct service s = {0};
    struct ids ids;
    int rc;

    service_table(&a.service, service);
    rc = cli_parse(&args, &cli_show, argc, argv, table, 1, IDS_MAX, NULL, NULL, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = a.recipe && (a.json || a.tasks)
             ? sl_fail(e, SL_EUSAGE, "--recipe prints the recipe's text alone; it goes without --json and --tasks")
             : ids_parse(args.pos, args.n_pos, &ids, e);
    if (rc == 0)
        rc = service_open(&s, &a.service, e);
    for (unsigned i = 0; rc == 0 && i < ids.n; i++) {
        if (i && !a.json)
            putchar('\n');
        rc = show_one(&s, &a, ids.id[i], e);
    }
    service_close(&s);
    cli_args_free(&args);
    return rc;
}

struct log_args {
    struct service_args service;
    struct form_args form;
    int follow, since;
};

static void print_events(const struct log_args *a, cJSON *events, bool names)
{
    const cJSON *ev;
    struct columns c;
    struct sl_error e;

    if (a->form.json || a->form.parsable || a->form.fields) {
        if (form_columns(&a->form, event_columns, "all", &c, &e) == 0)
            form_print(&a->form, &c, events, "event");
        return;
    }
    if (names)
        record_name_users(events);
    record_disarm(events);
    cJSON_ArrayForEach(ev, events) {
        char when[32], task[24];
        const char *worker = sl_get_str(ev, "worker");

        printf("%s  ", time_utc(when, sl_get_uint(ev, "time", 0)));
        if (sl_get(ev, "job"))
            printf("job %llu  ", (unsigned long long)sl_get_uint(ev, "job", 0));
        if (sl_get(ev, "task"))
            printf("task %s  ", task_text(task, sl_get_uint(ev, "task", 0)));
        if (worker && *worker)
            printf("%s  ", worker);
        printf("%s: %s\n", sl_get_str(ev, "kind"), sl_get_str(ev, "text"));
    }
    fflush(stdout);
}

/* All events after *since; moves it. */
static int read_log(const struct service *s, const struct log_args *a, uint64_t job, uint64_t *since,
                    struct sl_error *e)
{
    bool more = true;

    while (more) {
        struct sl_msg m, answer;
        const cJSON *ev;
        cJSON *events;

        SL_TRY(sl_msg_new(SL_M_LOGS, NULL, &m, e));
        if (job)
            sl_put_uint(m.tree, "job", job);
        sl_put_uint(m.tree, "since", *since);
        sl_put_uint(m.tree, "limit", PAGE);
        SL_TRY(daemon_link_ask(s->link, &m, SL_M_LOG, &answer, e));
        events = sl_get(answer.tree, "events");
        cJSON_ArrayForEach(ev, events)
            *since = sl_get_uint(ev, "id", *since);
        more = sl_get_bool(answer.tree, "more") && cJSON_GetArraySize(events) > 0;
        if (cJSON_GetArraySize(events) > 0)
            print_events(a, events, service_is_local(s));
        sl_msg_free(&answer);
        SL_TRY(output_alive(e));
    }
    return 0;
}

static int show_log(const struct log_args *a, uint64_t job, struct sl_error *e)
{
    struct service s;
    uint64_t since = (uint64_t)a->since;
    bool patient = a->service.timeout == UNSET, away = false;
    int rc = service_open(&s, &a->service, e);

    if (rc == 0)
        rc = read_log(&s, a, job, &since, e);
    while (rc == 0 && a->follow && !interrupt_asked()) {
        struct sl_msg m;

        rc = daemon_link_next(s.link, FOLLOW_MS, &m, e);
        if (rc == DAEMON_LINK_MESSAGE)
            sl_msg_free(&m);
        if (rc >= 0)
            rc = rc == DAEMON_LINK_LOST && patient ? SL_EUNREACHABLE : read_log(&s, a, job, &since, e);
        if (rc == SL_EUNREACHABLE && patient && !away)
            fprintf(stderr, "sluice logs: the daemon at %s is away; waiting for it\n", daemon_link_endpoint(s.link));
        away = rc == SL_EUNREACHABLE && patient;
        if (away)
            rc = output_alive(e);
        if (rc == SL_EINTERRUPTED)
            rc = 0;
    }
    service_close(&s);
    return rc;
}

static int run_logs(int argc, const char **argv, struct sl_error *e)
{
    struct log_args a = {0};
    struct poptOption service[SERVICE_TABLE_MAX], form[FORM_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_FLAG("follow", 'f', &a.follow, "go on with what happens, until Ctrl-C"),
        CLI_NUMBER("since", 0, &a.since, "only events with numbers above this one", "EVENT"),
        CLI_TABLE(form, "Form:"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    struct columns c;
    struct ids ids;
    int rc;

    service_table(&a.service, service);
    form_table(&a.form, form);
    rc = cli_parse(&args, &cli_logs, argc, argv, table, 0, 1, NULL, NULL, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = ids_parse(args.pos, args.n_pos, &ids, e);
    if (rc == 0 && (ids.n > 1 || a.since < 0))
        rc = sl_fail(e, SL_EUSAGE, ids.n > 1 ? "one job, or none for all"
                                             : "--since: expected 0 or more");
    if (rc == 0)
        rc = form_columns(&a.form, event_columns, "all", &c, e);
    if (rc == 0)
        rc = show_log(&a, ids.n ? ids.id[0] : 0, e);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_show = {"show", "JOB... [OPTION...]",
                                  "Show jobs in detail: options, progress, failures", run_show};
const struct cli_verb cli_logs = {"logs", "[JOB] [OPTION...]",
                                  "Show what happened to a job, or to all", run_logs};
