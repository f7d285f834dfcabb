/* Verbs that change jobs and are answered by `done`. */
#include "client/progress.h"
#include "client/service_args.h"

#include <cjson/cJSON.h>
#include <string.h>

struct change_args {
    struct service_args service;
    int parsable, json, discard, priority, attempts;
    struct words add, remove;
};

enum { VAL_ADD = 1, VAL_REMOVE };

static int on_val(int val, const char *arg, void *user, struct sl_error *e)
{
    struct change_args *a = user;

    if (val == VAL_ADD)
        return words_add_label(&a->add, arg, e);
    return val == VAL_REMOVE ? words_add(&a->remove, arg, e) : 0;
}

static void print_job(const struct change_args *a, const char *what, double id)
{
    if (a->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddNumberToObject(o, "job", id);
        json_line(o, what);
    } else if (a->parsable) {
        printf("%.0f\n", id);
    } else {
        printf("%s job %.0f%s\n", what, id, a->discard ? "; its unfinished files are being removed" : "");
    }
}

/* A job with which nothing was left to do: it is as it was asked for. */
static void print_nothing(const struct change_args *a, enum sl_message_id kind, uint64_t id, const char *what)
{
    printf("job %llu ", (unsigned long long)id);
    if (kind == SL_M_RETRY)
        printf("has not ended: nothing to retry\n");
    else if (kind == SL_M_RELEASE)
        printf("is not held: nothing to release\n");
    else
        printf("was %s before%s\n", what, a->discard ? "; its unfinished files are gone or about to go" : "");
}

/* jobs: those that it was done to; NULL: all. */
static void print_jobs(const struct change_args *a, enum sl_message_id kind, const cJSON *jobs, const struct ids *ids,
                       const char *what)
{
    for (unsigned i = 0; i < ids->n; i++) {
        const cJSON *job;
        bool did = !jobs;

        cJSON_ArrayForEach(job, jobs)
            did |= (uint64_t)job->valuedouble == ids->id[i];
        if (did || a->json || a->parsable)
            print_job(a, what, (double)ids->id[i]);
        else
            print_nothing(a, kind, ids->id[i], what);
    }
}

/* Sends what `m` holds for these jobs and says what was done. */
static int ask_done(struct daemon_link *l, const struct change_args *a, struct sl_msg *m,
                    const struct ids *ids, bool single, const char *what, struct sl_error *e)
{
    struct sl_msg answer;

    if (single)
        sl_put_uint(m->tree, "job", ids->id[0]);
    else
        sl_put_uints(m->tree, "jobs", ids->id, ids->n);
    SL_TRY(daemon_link_ask(l, m, SL_M_DONE, &answer, e));
    print_jobs(a, m->id, sl_get(answer.tree, "jobs"), ids, what);
    sl_msg_free(&answer);
    return 0;
}

static int ask_simple(struct daemon_link *l, const struct change_args *a, enum sl_message_id kind,
                      const struct ids *ids, bool single, const char *what, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(kind, NULL, &m, e));
    sl_put_bool(m.tree, "discard", a->discard);
    if (a->priority >= 0)
        sl_put_uint(m.tree, "priority", (uint64_t)a->priority);
    if (a->attempts > 0)
        sl_put_uint(m.tree, "attempts", (uint64_t)a->attempts);
    words_put(m.tree, "add_labels", &a->add);
    words_put(m.tree, "remove_labels", &a->remove);
    return ask_done(l, a, &m, ids, single, what, e);
}

/* Whatever stopped a job: a held one is released, an ended one retried. */
static int resume_one(struct daemon_link *l, const struct change_args *a, uint64_t id,
                      struct sl_error *e)
{
    struct ids one = {.id = {id}, .n = 1};
    struct sl_msg m, answer;
    char state[17];

    SL_TRY(sl_msg_new(SL_M_SHOW, NULL, &m, e));
    sl_put_uint(m.tree, "job", id);
    SL_TRY(daemon_link_ask(l, &m, SL_M_JOB, &answer, e));
    snprintf(state, sizeof state, "%s", sl_get_str(sl_get(answer.tree, "job"), "state"));
    sl_msg_free(&answer);
    if (strcmp(state, "held") == 0)
        return ask_simple(l, a, SL_M_RELEASE, &one, false, "released", e);
    if (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0
        || strcmp(state, "interrupted") == 0)
        return ask_simple(l, a, SL_M_RETRY, &one, false, "retried", e);
    fprintf(stderr, "sluice resume: job %llu %s %s: nothing to resume\n", (unsigned long long)id,
            strcmp(state, "succeeded") == 0 ? "has" : "is", state);
    return 0;
}

struct change {
    const struct cli_verb *verb;
    enum sl_message_id kind;
    bool single;
    const char *what;
};

static int change(const struct change *k, const struct change_args *a, const struct cli_args *args,
                  struct sl_error *e)
{
    struct service s = {0};
    struct ids ids;
    int rc;

    SL_TRY(ids_parse(args->pos, args->n_pos, &ids, e));
    if (k->single && ids.n != 1)
        return sl_fail(e, SL_EUSAGE, "one job at a time");
    if (a->priority != UNSET && (a->priority < 0 || a->priority > 100))
        return sl_fail(e, SL_EUSAGE, "--priority: expected 0 to 100");
    if (a->attempts != UNSET && (a->attempts < 1 || a->attempts > 100))
        return sl_fail(e, SL_EUSAGE, "--attempts: expected 1 to 100");
    if (k->kind == SL_M_SET && a->priority == UNSET && a->attempts == UNSET && !a->add.n && !a->remove.n)
        return sl_fail(e, SL_EUSAGE, "nothing to set; see 'sluice set --help'");
    rc = service_open(&s, &a->service, e);
    if (rc == 0 && k->kind == SL_M_SHOW)
        for (unsigned i = 0; rc == 0 && i < ids.n; i++)
            rc = resume_one(s.link, a, ids.id[i], e);
    else if (rc == 0)
        rc = ask_simple(s.link, a, k->kind, &ids, k->single, k->what, e);
    service_close(&s);
    return rc;
}

static int change_verb(const struct change *k, int argc, const char **argv, struct sl_error *e)
{
    struct change_args a = {.priority = UNSET, .attempts = UNSET};
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption discard = {
        "discard", 0, POPT_ARG_NONE, &a.discard, 0,
        "also remove the partial files, those of jobs cancelled before as well: nothing is left "
        "for retry", NULL};
    const struct poptOption sets[] = {
        CLI_NUMBER("priority", 'p', &a.priority, "0 to 100; ten more is twice the share", "N"),
        CLI_CALL("add-label", 'l', VAL_ADD, "add a label; may be repeated", "LABEL"),
        CLI_CALL("remove-label", 0, VAL_REMOVE, "take a label away; may be repeated", "LABEL"),
        CLI_NUMBER("attempts", 0, &a.attempts, "failures of a task before it is quarantined", "N"),
        POPT_TABLEEND,
    };
    const struct poptOption common[] = {
        CLI_FLAG("json", 0, &a.json, "JSON lines, one for each job"),
        CLI_FLAG("parsable", 0, &a.parsable, "print the jobs' numbers alone"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct poptOption table[12];
    size_t n = 0;
    struct cli_args args;
    int rc;

    if (k->kind == SL_M_CANCEL)
        table[n++] = discard;
    for (size_t i = 0; k->kind == SL_M_SET && sets[i].longName; i++)
        table[n++] = sets[i];
    memcpy(table + n, common, sizeof common);
    service_table(&a.service, service);
    rc = cli_parse(&args, k->verb, argc, argv, table, 1, IDS_MAX, on_val, &a, e);
    if (rc == 0) {
        rc = change(k, &a, &args, e);
        cli_args_free(&args);
    }
    words_free(&a.add);
    words_free(&a.remove);
    return rc < 0 ? rc : 0;
}

/* A verb whose whole work is one kind of message. */
#define VERB(name, kind, single, what, args, summary)                                       \
    static int run_##name(int argc, const char **argv, struct sl_error *e)                  \
    {                                                                                       \
        const struct change k = {&cli_##name, kind, single, what};                          \
                                                                                            \
        return change_verb(&k, argc, argv, e);                                              \
    }                                                                                       \
    const struct cli_verb cli_##name = {#name, args, summary, run_##name};

VERB(cancel, SL_M_CANCEL, false, "cancelled", "JOB... [OPTION...]",
     "End jobs; what they have done stays for 'retry'")
VERB(hold, SL_M_HOLD, false, "held", "JOB... [OPTION...]", "Give jobs no more work until 'release'")
VERB(release, SL_M_RELEASE, false, "released", "JOB... [OPTION...]", "Let held jobs go on")
VERB(resume, SL_M_SHOW, false, "resumed", "JOB... [OPTION...]",
     "Let jobs go on, whatever stopped them: 'release' or 'retry'")
VERB(retry, SL_M_RETRY, false, "retried", "JOB... [OPTION...]",
     "Start failed or cancelled jobs again; only what is missing is done")
VERB(set, SL_M_SET, false, "changed", "JOB... [OPTION...]",
     "Change priority, labels or attempts of jobs")
VERB(stitch, SL_M_STITCH, true, "stitching", "JOB [OPTION...]",
     "Stitch a job by hand: one that waits for it, or failed in it")
VERB(forget, SL_M_FORGET, false, "forgotten", "JOB... [OPTION...]",
     "Take ended jobs out of queue and history; no file is touched")
