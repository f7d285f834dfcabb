/* sluice queue, sluice history: lists of jobs. */
#include "client/record_fields.h"
#include "client/service_args.h"
#include "proto/suggest.h"
#include "proto/text_line.h"

#include <cjson/cJSON.h>
#include <string.h>

struct queue_args {
    struct service_args service;
    struct form_args form;
    const char *states;
    struct words labels;
    int limit;
};

enum { VAL_LABEL = 1 };

static int on_val(int val, const char *arg, void *user, struct sl_error *e)
{
    struct queue_args *a = user;

    return val == VAL_LABEL ? words_add_label(&a->labels, arg, e) : 0;
}

static int no_state(const char *word, size_t n, struct sl_error *e)
{
    char typed[24];
    struct suggestion s = {.word = typed};
    struct sl_line known = {.n = 0};

    snprintf(typed, sizeof typed, "%.*s", (int)n, word);
    for (const char *const *state = job_states; *state; state++) {
        suggest_try(&s, *state);
        sl_line_add(&known, "%s%s", known.n ? ", " : "", *state);
    }
    return sl_fail(e, SL_EUSAGE, "--state: '%s' is no state of a job; %s%s%sthere are: %s", typed,
                   s.best ? "did you mean " : "", s.best ? s.best : "", s.best ? "? " : "", known.text);
}

static int check_states(const char *text, struct sl_error *e)
{
    for (const char *p = text; p; p++) {
        size_t n = strcspn(p, ",");
        const char *const *state = job_states;

        while (*state && (strlen(*state) != n || strncmp(*state, p, n) != 0))
            state++;
        if (!*state)
            return no_state(p, n, e);
        p += n;
        if (!*p || !p[1]) /* a comma at the end says no more, here as in put_words */
            return 0;
    }
    return 0;
}

/* One page of jobs with numbers below `before` (0: all), newest first, added to
 * list: a history reads from the newest, a queue from the oldest. */
static int page(struct daemon_link *l, const struct queue_args *a, enum sl_message_id kind,
                uint64_t *before, int left, cJSON *list, bool *more, struct sl_error *e)
{
    struct sl_msg m, answer;
    cJSON *jobs, *job;

    SL_TRY(sl_msg_new(kind, NULL, &m, e));
    put_words(m.tree, "states", a->states);
    words_put(m.tree, "labels", &a->labels);
    if (*before)
        sl_put_uint(m.tree, "before", *before);
    sl_put_uint(m.tree, "limit", left && (uint64_t)left < SL_JOBS_MAX ? (uint64_t)left : SL_JOBS_MAX);
    SL_TRY(daemon_link_ask(l, &m, SL_M_JOBS, &answer, e));
    jobs = sl_get(answer.tree, "jobs");
    *more = sl_get_bool(answer.tree, "more") && cJSON_GetArraySize(jobs) > 0;
    while ((job = cJSON_DetachItemFromArray(jobs, 0)) != NULL) {
        uint64_t id = sl_get_uint(job, "id", 0);

        if (*before == 0 || id < *before)
            *before = id;
        if (kind == SL_M_HISTORY)
            cJSON_AddItemToArray(list, job);
        else
            cJSON_InsertItemInArray(list, 0, job);
    }
    sl_msg_free(&answer);
    return 0;
}

static int list_jobs(const struct queue_args *a, enum sl_message_id kind, const struct columns *c,
                     struct sl_error *e)
{
    cJSON *list = cJSON_CreateArray();
    struct service s;
    uint64_t before = 0;
    bool more = true;
    int rc = service_open(&s, &a->service, e);

    while (rc == 0 && more) {
        int have = cJSON_GetArraySize(list);

        if (a->limit && have >= a->limit)
            break;
        rc = page(s.link, a, kind, &before, a->limit ? a->limit - have : 0, list, &more, e);
    }
    if (rc == 0 && !a->form.json && !a->form.parsable && service_is_local(&s))
        record_name_users(list);
    if (rc == 0)
        form_print(&a->form, c, list, "job");
    cJSON_Delete(list);
    service_close(&s);
    return rc;
}

static int list_verb(const struct cli_verb *verb, enum sl_message_id kind, int limit,
                     const char *usual, int argc, const char **argv, struct sl_error *e)
{
    struct queue_args a = {.limit = limit};
    struct poptOption service[SERVICE_TABLE_MAX], form[FORM_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_TEXT("state", 's', &a.states, "only jobs in these states, names with commas between them", "STATES"),
        CLI_CALL("label", 'l', VAL_LABEL, "only jobs with this label; may be repeated: with all of them", "LABEL"),
        CLI_NUMBER("limit", 'n', &a.limit,
                   kind == SL_M_HISTORY ? "so many at most (default 100; 0: all)" : "so many at most (default: all)", "N"),
        CLI_TABLE(form, "Form:"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    struct columns c;
    int rc;

    service_table(&a.service, service);
    form_table(&a.form, form);
    rc = cli_parse(&args, verb, argc, argv, table, 0, 0, on_val, &a, e);
    if (rc == 0) {
        rc = a.limit < 0 ? sl_fail(e, SL_EUSAGE, "--limit: expected 0 or more")
                         : form_columns(&a.form, job_columns, usual, &c, e);
        if (rc == 0)
            rc = check_states(a.states, e);
        if (rc == 0)
            rc = list_jobs(&a, kind, &c, e);
        cli_args_free(&args);
    }
    words_free(&a.labels);
    return rc < 0 ? rc : 0;
}

static int run_queue(int argc, const char **argv, struct sl_error *e)
{
    return list_verb(&cli_queue, SL_M_LIST, 0, JOB_COLUMNS_USUAL, argc, argv, e);
}

static int run_history(int argc, const char **argv, struct sl_error *e)
{
    return list_verb(&cli_history, SL_M_HISTORY, 100, HISTORY_COLUMNS_USUAL, argc, argv, e);
}

const struct cli_verb cli_queue = {"queue", "[OPTION...]",
                                   "List the jobs that have not ended, and why they wait", run_queue};
const struct cli_verb cli_history = {"history", "[OPTION...]",
                                     "List the jobs that have ended, newest first", run_history};
