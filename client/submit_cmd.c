/* sluice submit: one job, or a sweep of several recipes over one source. */
#include "client/follow.h"
#include "client/progress.h"
#include "client/submit_spec.h"
#include "proto/random_hex.h"
#include "proto/size_text.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <string.h>

struct submit_args {
    struct cli_plan_args plan;
    struct service_args service;
    const char *output, *once;
    int sha256, force, sparse, priority, attempts, hold, manual_stitch, verify, wait, dry_run, json,
        parsable;
    struct words after, labels;
};

enum { VAL_AFTER = 1, VAL_LABEL };

static int on_val(int val, const char *arg, void *user, struct sl_error *e)
{
    struct submit_args *a = user;

    if (val == VAL_AFTER)
        return words_add(&a->after, arg, e);
    if (val == VAL_LABEL)
        return words_add_label(&a->labels, arg, e);
    return cli_plan_on_val(val, arg, &a->plan, e);
}

static int check(const struct submit_args *a, struct sl_error *e)
{
    if (a->priority != UNSET && (a->priority < 0 || a->priority > 100))
        return sl_fail(e, SL_EUSAGE, "--priority: expected 0 to 100");
    if (a->attempts != UNSET && (a->attempts < 1 || a->attempts > 100))
        return sl_fail(e, SL_EUSAGE, "--attempts: expected 1 to 100");
    if (a->once && (!*a->once || strlen(a->once) > 64 || !sl_utf8_all_shown(a->once)))
        return sl_fail(e, SL_EUSAGE, "--once: expected 1 to 64 bytes of UTF-8 without control characters");
    if (a->wait && a->hold)
        return sl_fail(e, SL_EUSAGE, "--wait and --hold: a held job does not end");
    return 0;
}

/* One specification for each recipe of "a,b". */
static int add_specs(const struct submit_args *a, const char *source, bool remote, cJSON *list,
                     struct words *said, struct sl_error *e)
{
    const char *p = a->plan.recipe;

    if (!p)
        return sl_fail(e, SL_EUSAGE,
                       "no recipe given: use --recipe NAME ('sluice recipes' lists them)");
    for (uint32_t n = 0;; n++, p++) {
        size_t len = strcspn(p, ",");
        char name[4096];
        struct cli_plan_args one = a->plan;
        struct submit_spec_args sa = {&one, source, a->output, a->sha256, a->force, a->sparse, remote, a->json, said};
        uint64_t src, out;
        char in_size[32], out_size[32], folder[CLI_SHOWN_BYTES], prefix[CLI_SHOWN_BYTES];
        cJSON *spec;

        if (n == SL_SWEEP_MAX || len >= sizeof name || len == 0)
            return sl_fail(e, SL_EUSAGE, "--recipe: expected 1 to %u recipes with commas between them",
                           SL_SWEEP_MAX);
        memcpy(name, p, len);
        name[len] = 0;
        one.recipe = name;
        one.silent = a->json;
        SL_TRY(submit_spec(&sa, &spec, &src, &out, e));
        if (a->dry_run && a->json) {
            cJSON *o = cJSON_CreateObject();

            cJSON_AddStringToObject(o, "output", sl_get_str(spec, "output"));
            cJSON_AddStringToObject(o, "prefix", sl_get_str(spec, "prefix"));
            cJSON_AddStringToObject(o, "recipe", sl_get_str(spec, "recipe"));
            cJSON_AddNumberToObject(o, "source_bytes", (double)src);
            cJSON_AddNumberToObject(o, "file_bytes", (double)out);
            json_line(o, "dry_run");
        } else if (a->dry_run)
            printf("%s/%s: %s, %s to read, %s to write\n", cli_shown(folder, sl_get_str(spec, "output")),
                   cli_shown(prefix, sl_get_str(spec, "prefix")), sl_get_str(spec, "recipe"), sl_size_text(in_size, src),
                   sl_size_text(out_size, out));
        cJSON_AddItemToArray(list, spec);
        p += len;
        if (!*p)
            return 0;
    }
}

/* Two jobs of a sweep must not write to one name. */
static int check_names(const cJSON *list, struct sl_error *e)
{
    const cJSON *a, *b;

    cJSON_ArrayForEach(a, list)
        for (b = a->next; b; b = b->next)
            if (strcmp(sl_get_str(a, "prefix"), sl_get_str(b, "prefix")) == 0)
                return sl_fail(e, SL_EUSAGE,
                               "-o: two recipes would both write '%s'; give a folder and different "
                               "recipes", sl_get_str(a, "prefix"));
    return 0;
}

/* The message; specs becomes its own. */
static int build(const struct submit_args *a, const struct ids *after, cJSON *specs,
                 struct sl_msg *m, struct sl_error *e)
{
    char key[33];
    int rc = sl_random_hex(key, e);

    if (rc == 0)
        rc = sl_msg_new(SL_M_SUBMIT, NULL, m, e);
    if (rc < 0) {
        cJSON_Delete(specs);
        return rc;
    }
    sl_put_str(m->tree, "key", a->once ? a->once : key);
    sl_put(m->tree, "specs", specs);
    if (a->priority >= 0)
        sl_put_uint(m->tree, "priority", (uint64_t)a->priority);
    if (after->n)
        sl_put_uints(m->tree, "after", after->id, after->n);
    words_put(m->tree, "labels", &a->labels);
    sl_put_bool(m->tree, "hold", a->hold);
    if (a->attempts > 0)
        sl_put_uint(m->tree, "attempts", (uint64_t)a->attempts);
    sl_put_bool(m->tree, "manual_stitch", a->manual_stitch);
    sl_put_bool(m->tree, "verify", a->verify);
    return 0;
}

static void print_submitted(const struct submit_args *a, const cJSON *specs, const cJSON *answer,
                            struct ids *ids)
{
    const cJSON *job, *spec = specs->child;
    bool again = a->once && sl_get_bool(answer, "again"); /* without: this very one, said once more after a break */

    ids->n = 0;
    cJSON_ArrayForEach(job, sl_get(answer, "jobs")) {
        const char *recipe = spec ? sl_get_str(spec, "recipe") : "";

        if (ids->n < IDS_MAX)
            ids->id[ids->n++] = (uint64_t)job->valuedouble;
        if (a->json) {
            cJSON *o = cJSON_CreateObject();

            cJSON_AddNumberToObject(o, "job", job->valuedouble);
            cJSON_AddStringToObject(o, "recipe", recipe);
            cJSON_AddBoolToObject(o, "again", again);
            json_line(o, "submitted");
        } else if (a->parsable) {
            printf("%.0f\n", job->valuedouble);
        } else {
            printf("%s job %.0f: %s", again ? "known already:" : "submitted", job->valuedouble, recipe);
            if (again)
                printf(", with the settings of its first submit; 'sluice set %.0f' changes priority, labels and attempts, another "
                       "--once makes a new job", job->valuedouble);
            putchar('\n');
        }
        spec = spec ? spec->next : NULL;
    }
    fflush(stdout);
}

static int send_submit(const struct submit_args *a, const struct ids *after, const cJSON *specs,
                       struct sl_error *e)
{
    struct service s;
    struct sl_msg m, answer;
    struct ids ids;
    struct follow f = {.verb = "submit", .ids = &ids, .show = !a->parsable, .json = a->json,
                       .plain = stderr, .every_ms = 10000};
    int rc = service_open(&s, &a->service, e);

    f.names = rc == 0 && service_is_local(&s);
    if (rc == 0)
        rc = build(a, after, cJSON_Duplicate(specs, 1), &m, e);
    if (rc == 0)
        rc = daemon_link_ask(s.link, &m, SL_M_SUBMITTED, &answer, e);
    if (rc == 0) {
        print_submitted(a, specs, answer.tree, &ids);
        sl_msg_free(&answer);
        if (a->wait)
            rc = follow_jobs(s.link, &f, e);
    }
    service_close(&s);
    return rc;
}

static int submit(const struct submit_args *a, const char *source, struct sl_error *e)
{
    struct sl_config *c;
    struct words said = {0};
    struct ids after;
    cJSON *specs;
    bool remote;
    int rc;

    SL_TRY(check(a, e));
    SL_TRY(ids_parse(a->after.word, a->after.n, &after, e));
    SL_TRY(service_config(&a->service, &c, e));
    remote = strncmp(sl_config_text(c, SL_CONFIG_ENDPOINT), "tcp:", 4) == 0;
    sl_config_close(c);
    specs = cJSON_CreateArray();
    rc = add_specs(a, source, remote, specs, &said, e);
    words_free(&said);
    if (rc == 0)
        rc = check_names(specs, e);
    if (rc == 0 && !a->dry_run)
        rc = send_submit(a, &after, specs, e);
    cJSON_Delete(specs);
    return rc;
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct submit_args a = {.priority = UNSET, .attempts = UNSET};
    struct poptOption plan[CLI_PLAN_TABLE_MAX], service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_TEXT("output", 'o', &a.output, "output file, or a folder for files named by the GGUF convention (default: here)", "PATH"),
        CLI_FLAG("wait", 'w', &a.wait, "show progress and wait for the end; exit with the job's code; Ctrl-C detaches"),
        CLI_FLAG("hold", 0, &a.hold, "wait for 'sluice release'"),
        CLI_CALL("after", 0, VAL_AFTER, "start when these jobs have succeeded; may be repeated", "JOB"),
        CLI_NUMBER("priority", 'p', &a.priority, "0 to 100, default 50; ten more is twice the share", "N"),
        CLI_CALL("label", 'l', VAL_LABEL, "a label to find it by; may be repeated", "LABEL"),
        CLI_FLAG("verify", 0, &a.verify, "afterwards make blocks again from the source and compare"),
        CLI_FLAG("manual-stitch", 0, &a.manual_stitch, "wait for 'sluice stitch' when all tensors are done"),
        CLI_NUMBER("attempts", 0, &a.attempts, "failures of a task before it is quarantined (default: the daemon's)", "N"),
        CLI_TEXT("once", 0, &a.once, "a name for this submit: the same one again gives the same jobs", "KEY"),
        CLI_FLAG("force", 'f', &a.force, "replace an existing output"),
        CLI_FLAG("sha256", 0, &a.sha256, "SHA-256 in the manifest too"),
        CLI_FLAG("sparse", 0, &a.sparse, "zeros of the output take no room: nothing is reserved, and long runs become holes"),
        CLI_FLAG("dry-run", 'n', &a.dry_run, "check and show, submit nothing"),
        CLI_FLAG("json", 0, &a.json, "JSON lines"),
        CLI_FLAG("parsable", 0, &a.parsable, "print the jobs' numbers alone"),
        CLI_TABLE(plan, "What is made (several recipes, with commas between them, read the source once):"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    int rc;

    cli_plan_table(&a.plan, plan);
    service_table(&a.service, service);
    rc = cli_parse(&args, &cli_submit, argc, argv, table, 1, 1, on_val, &a, e);
    if (rc == 0) {
        rc = submit(&a, args.pos[0], e);
        cli_args_free(&args);
    }
    cli_plan_args_free(&a.plan);
    words_free(&a.after);
    words_free(&a.labels);
    return rc < 0 ? rc : 0;
}

const struct cli_verb cli_submit = {
    "submit", "CHECKPOINT -o OUT --recipe RECIPE[,RECIPE...] [OPTION...]",
    "Queue a conversion, or several recipes over one source, for the workers", run};
