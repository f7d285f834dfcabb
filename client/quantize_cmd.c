#include "client/convert_run.h"

#include "client/interrupt.h"

#include <stdlib.h>
#include <string.h>

struct args {
    struct cli_plan_args plan;
    struct convert_args run;
};

/* llama-quantize's order of arguments: IN [OUT] TYPE [THREADS]. */
static int positions(struct args *a, const struct cli_args *args, char **out, struct sl_error *e)
{
    int n = args->n_pos;
    const char *in = args->pos[0], *slash = strrchr(in, '/');
    char *end = NULL;
    long threads = strtol(args->pos[n - 1], &end, 10);

    *out = NULL;
    if (n >= 3 && *args->pos[n - 1] && !*end) {
        if (threads < 1 || threads > 1024)
            return sl_fail(e, SL_EUSAGE, "threads: expected 1 to 1024");
        a->run.threads = (int)threads;
        n--;
    }
    if (n > 3)
        return sl_fail(e, SL_EUSAGE, "too many arguments; see 'sluice quantize --help'");
    a->plan.recipe = strdup(args->pos[n - 1]);
    if (n == 3)
        *out = strdup(args->pos[1]);
    else if (asprintf(out, "%.*sggml-model-%s.gguf", slash ? (int)(slash - in) + 1 : 0, in,
                      args->pos[n - 1]) < 0)
        *out = NULL;
    return a->plan.recipe && *out ? 0 : sl_fail(e, SL_EFAIL, "out of memory");
}

static int quantize(struct args *a, const char *source, const char *target, struct sl_job_plan *j,
                    struct output *out, struct sl_error *e)
{
    struct convert_opts o;

    SL_TRY(convert_options(&a->run, &o, e));
    SL_TRY(output_parse(out, target, e));
    if (!a->plan.split_max_size)
        a->plan.split_max_size = strdup("0");
    SL_TRY(cli_job_open(j, source, false, &a->plan, out->prefix, e));
    if (!j->ck->is_gguf)
        return sl_fail(e, SL_EUSAGE, "%s is no GGUF file; use 'sluice convert' for a checkpoint",
                       source);
    if (!a->run.quiet)
        cli_job_notes(j);
    SL_TRY(output_attach(out, j->plan, e));
    if (a->run.dry_run)
        return convert_dry_run(j->plan, out);
    interrupt_install();
    return convert_run(j, out, &o, e);
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct args a = {0};
    struct poptOption plan[CLI_PLAN_TABLE_MAX], conv[CONVERT_TABLE_MAX];
    const struct poptOption table[] = {
        {"keep-split", 0, POPT_ARG_NONE, &a.plan.keep_split, 0, "split the output as the input is",
         NULL},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, plan, 0, "What is made:", NULL},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, conv, 0, "How it is made:", NULL},
        POPT_TABLEEND,
    };
    struct cli_args args;
    struct sl_job_plan job = {0};
    struct output out = {0};
    char *target = NULL;
    int rc;

    cli_plan_table(&a.plan, plan);
    convert_table(&a.run, conv);
    rc = cli_parse(&args, &cli_quantize, argc, argv, table, 2, 4, cli_plan_on_val, &a.plan, e);
    if (rc == 0) {
        rc = positions(&a, &args, &target, e);
        if (rc == 0)
            rc = quantize(&a, args.pos[0], target, &job, &out, e);
        output_free(&out);
        sl_job_plan_close(&job);
        cli_args_free(&args);
        free(target);
    }
    cli_plan_args_free(&a.plan);
    return rc < 0 ? rc : 0;
}

const struct cli_verb cli_quantize = {
    "quantize", "IN.gguf [OUT.gguf] RECIPE [THREADS] [OPTION...]",
    "Quantize a GGUF file (F32, F16, BF16 or Q8_0), as llama-quantize does", run};
