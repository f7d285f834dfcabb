#include "client/convert_run.h"

#include "client/interrupt.h"

struct args {
    struct cli_plan_args plan;
    struct convert_args run;
    const char *output;
};

static int convert(struct args *a, const char *source, struct sl_job_plan *j, struct output *out,
                   struct sl_error *e)
{
    struct convert_opts o;

    a->plan.silent = a->run.quiet || a->run.json;
    SL_TRY(convert_options(&a->run, &o, e));
    SL_TRY(output_parse(out, a->output ? a->output : "./", e));
    SL_TRY(cli_job_open(j, source, false, &a->plan, out->prefix, e));
    if (!a->run.dry_run)
        convert_as_begun(j, out, source, &a->plan, &o);
    if (!a->run.quiet)
        cli_job_notes(j, a->run.json, NULL);
    SL_TRY(output_attach(out, j->plan, e));
    out->sparse = o.sparse;
    if (a->run.dry_run)
        return convert_dry_run(j, out, a->run.force, a->run.json);
    interrupt_install();
    return convert_run(j, out, &o, e);
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct args a = {0};
    struct poptOption plan[CLI_PLAN_TABLE_MAX], conv[CONVERT_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_TEXT("output", 'o', &a.output,
                 "output file, or a folder for a file named by the GGUF convention (default: here); FOLDER/ is made where only its last "
                 "part is missing", "PATH"),
        CLI_TABLE(plan, "What is made:"),
        CLI_TABLE(conv, "How it is made:"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    struct sl_job_plan job = {0};
    struct output out = {0};
    int rc;

    cli_plan_table(&a.plan, plan);
    convert_table(&a.run, conv);
    rc = cli_parse(&args, &cli_convert, argc, argv, table, 1, 1, cli_plan_on_val, &a.plan, e);
    if (rc == 0) {
        rc = convert(&a, args.pos[0], &job, &out, e);
        output_free(&out);
        sl_job_plan_close(&job);
        cli_args_free(&args);
    }
    cli_plan_args_free(&a.plan);
    return rc < 0 ? rc : 0;
}

const struct cli_verb cli_convert = {
    "convert", "CHECKPOINT -o OUT --recipe RECIPE [OPTION...]",
    "Turn a checkpoint into quantized GGUF, streaming; go on where an earlier run stopped", run};
