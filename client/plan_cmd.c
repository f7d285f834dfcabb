#include "client/plan_view.h"

#include <string.h>

struct plan_cmd {
    struct cli_plan_args plan;
    const char *devices, *out;
    int ctx, json;
};

/* A config.json alone; not a checkpoint's index. */
static bool is_config(const char *path)
{
    size_t n = strlen(path);

    return n > 5 && strcmp(path + n - 5, ".json") == 0
           && !(n > 11 && strcmp(path + n - 11, ".index.json") == 0);
}

static int plan_and_show(const struct plan_cmd *c, const char *source, struct sl_error *e)
{
    struct output out = {0};
    struct sl_job_plan job = {0};
    struct plan_view view = {0};
    bool rules_2025;
    int rc;

    rc = output_parse(&out, c->out ? c->out : "./", e);
    if (rc == 0)
        rc = cli_job_open(&job, source, is_config(source), &c->plan, out.prefix, e);
    if (rc == 0) {
        rules_2025 = c->plan.rules ? strcmp(c->plan.rules, "2025") == 0
                                   : job.model->layout == SL_LAYOUT_LEGACY;
        rc = plan_view_make(&view, &job, (uint64_t)c->ctx, c->devices, &out, c->out != NULL, rules_2025,
                            e);
    }
    if (rc == 0 && c->json)
        rc = plan_view_json(&view, e);
    else if (rc == 0)
        plan_view_print(&view);
    if (rc == 0)
        cli_job_notes(&job);
    plan_view_free(&view);
    sl_job_plan_close(&job);
    output_free(&out);
    return rc;
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct plan_cmd c = {.plan = {.sizes_only = 1}, .ctx = 32768};
    struct poptOption plan_table[CLI_PLAN_TABLE_MAX];
    struct poptOption table[] = {
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, plan_table, 0, "Plan options:", NULL},
        {"output", 'o', POPT_ARG_STRING, &c.out, 0,
         "where the output would go: its free space is shown (default: here)", "PATH"},
        {"ctx", 'c', POPT_ARG_INT, &c.ctx, 0, "context of the memory estimate (default 32768)",
         "TOKENS"},
        {"devices", 0, POPT_ARG_STRING, &c.devices, 0,
         "sets of devices that the model should fit, for example 8x80G,8x64G", "NxSIZE,..."},
        {"json", 0, POPT_ARG_NONE, &c.json, 0, "one JSON object on stdout", NULL},
        POPT_TABLEEND,
    };
    struct cli_args a;
    int rc;

    cli_plan_table(&c.plan, plan_table);
    rc = cli_parse(&a, &cli_plan, argc, argv, table, 1, 1, cli_plan_on_val, &c.plan, e);
    if (rc == 0) {
        if (c.ctx < 1)
            rc = sl_fail(e, SL_EUSAGE, "--ctx: expected 1 token or more");
        else
            rc = plan_and_show(&c, a.pos[0], e);
        cli_args_free(&a);
    }
    cli_plan_args_free(&c.plan);
    return rc < 0 ? rc : 0;
}

const struct cli_verb cli_plan = {
    "plan", "CHECKPOINT|config.json --recipe NAME [OPTION...]",
    "Show what a conversion would give: sizes, types, files, tasks, memory; nothing is written",
    run,
};
