#include "client/model_arg.h"
#include "client/plan_view.h"
#include "client/target.h"
#include "proto/size_text.h"
#include "proto/suffix.h"
#include "proto/sync_folder.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UBATCH_MOST 65536
#define VAL_DEVICES 1

struct plan_cmd {
    struct cli_plan_args plan;
    struct target_args target;
    struct words devices;
    const char *out, *write_recipe;
    int ctx, ubatch, json, measure, quiet;
};

/* A config.json alone; not a checkpoint's index. */
static bool is_config(const char *path)
{
    return sl_stem(path, ".json") && !sl_stem(path, ".index.json");
}

/* The plan of a job that is open, to standard output; takes `extra`. */
static int show(const struct plan_cmd *c, const struct sl_job_plan *job, const struct output *out,
                struct cJSON *extra, struct sl_error *e)
{
    struct plan_question q = {
        .ctx = (uint64_t)c->ctx, .ubatch = (uint32_t)c->ubatch, .devices = c->devices, .out_given = c->out != NULL,
    };
    struct plan_view view = {0};
    int rc = plan_view_make(&view, job, &q, out, e);

    view.requantized = rc == 0 && !c->plan.allow_requantize ? cli_requantized(job) : 0;
    if (rc == 0 && c->json) {
        rc = plan_view_json(&view, extra, e);
        extra = NULL;
    } else if (rc == 0) {
        plan_view_print(&view);
    }
    cJSON_Delete(extra);
    if (rc == 0)
        cli_job_notes(job, false, NULL);
    plan_view_free(&view);
    return rc;
}

/* ---- measured errors */

/* What both kinds of measurement tell. */
static void say_measured(const struct target *t)
{
    char a[32];

    fprintf(stderr, "sluice: errors of %llu tensors measured on %s, %.2f %% of the source, in %.1f s\n",
            (unsigned long long)t->stats.tensors, sl_size_text(a, t->stats.read_bytes),
            100.0 * (double)t->stats.read_bytes / (double)t->probe.plan->src_bytes, t->seconds);
}

static struct cJSON *measure_json(const struct target *t)
{
    cJSON *root = cJSON_CreateObject(), *o = cJSON_AddObjectToObject(root, "measure");

    cJSON_AddNumberToObject(o, "mean_error", t->mean_error);
    json_tensors(o, t->stats.tensors);
    cJSON_AddNumberToObject(o, "read_bytes", (double)t->stats.read_bytes);
    cJSON_AddNumberToObject(o, "seconds", t->seconds);
    return root;
}

static struct cJSON *target_json(const struct target *t)
{
    cJSON *root = measure_json(t), *o = cJSON_AddObjectToObject(root, "target"), *list;

    cJSON_AddNumberToObject(o, "bytes", (double)t->want);
    cJSON_AddStringToObject(o, "counts", t->by_bits ? "tensors" : "files");
    cJSON_AddNumberToObject(o, "least_error", t->bound);
    cJSON_AddBoolToObject(o, "exact", t->exact);
    cJSON_AddBoolToObject(o, "from_stock", t->from_stock);
    if (t->best_stock >= 0)
        cJSON_AddStringToObject(o, "best_stock", t->stock[t->best_stock].name);
    list = cJSON_AddArrayToObject(o, "stock");
    for (uint32_t k = 0; k < t->n_stock; k++) {
        cJSON *s;

        if (!(t->stock[k].error >= 0))
            continue;
        s = cJSON_CreateObject();
        cJSON_AddStringToObject(s, "name", t->stock[k].name);
        cJSON_AddNumberToObject(s, "tensor_bytes", (double)t->stock[k].bytes);
        cJSON_AddNumberToObject(s, "mean_error", t->stock[k].error);
        cJSON_AddItemToArray(list, s);
    }
    cJSON_AddStringToObject(o, "recipe_text", t->text);
    return root;
}

static void say_target(const struct target *t)
{
    char a[32];

    say_measured(t);
    fprintf(stderr, "sluice: mean error %.6g at %s", t->mean_error, sl_size_text(a, t->bytes));
    if (t->exact)
        fprintf(stderr, ", the least there is with these types");
    else
        fprintf(stderr, ", at most %.3f %% above the least there is",
                t->bound > 0 ? 100 * (t->mean_error / t->bound - 1) : 100.0);
    if (t->best_stock >= 0)
        fprintf(stderr, "; best stock recipe within that size: %s, %.6g", t->stock[t->best_stock].name,
                t->stock[t->best_stock].error);
    fputc('\n', stderr);
}

static int write_recipe(const char *path, const char *text, struct sl_error *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    size_t n = strlen(text), at = 0;
    ssize_t got = 0;
    int rc = 0;

    if (fd < 0)
        return errno == EEXIST ? sl_fail(e, SL_EEXISTS, "%s exists already; choose another name", path)
                               : sl_fail(e, sl_make_code(errno), "%s: cannot be made: %s", path, strerror(errno));
    while (at < n && (got = write(fd, text + at, n - at)) > 0)
        at += (size_t)got;
    if (at < n || fsync(fd) != 0)
        rc = sl_fail(e, sl_write_code(errno), "%s: cannot be written: %s", path, strerror(errno));
    close(fd); /* synced before */
    if (rc == 0)
        rc = sl_sync_folder_of(path, e);
    if (rc < 0)
        unlink(path);
    return rc;
}

/* Whether the file can be made: nobody wants to know that after the measuring. */
static int recipe_place(const char *path, struct sl_error *e)
{
    const char *slash = strrchr(path, '/');
    struct stat st;
    char *dir;
    int no;

    if (lstat(path, &st) == 0) /* a link that leads nowhere is in the way, too */
        return sl_fail(e, SL_EEXISTS, "%s exists already; choose another name", path);
    dir = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (!dir)
        return sl_no_memory(e);
    no = access(dir, W_OK | X_OK) != 0 ? errno : 0;
    free(dir);
    return no ? sl_fail(e, sl_make_code(no), "%s: cannot be made: %s", path, strerror(no)) : 0;
}

/* From a size to a recipe, and to its plan. */
static int make_target(const struct plan_cmd *c, const char *source, const struct output *out,
                       struct sl_error *e)
{
    struct sl_job_plan job = {0};
    struct target t = {0};
    int rc = 0;

    if (c->write_recipe)
        rc = recipe_place(c->write_recipe, e);
    if (rc == 0)
        rc = target_make(&t, source, &c->plan, &c->target, e);
    if (rc == 0 && !c->quiet)
        say_target(&t);
    if (rc == 0)
        rc = cli_job_open_text(&job, source, &c->plan, t.name, t.text, e);
    if (rc == 0 && c->write_recipe)
        rc = write_recipe(c->write_recipe, t.text, e);
    if (rc == 0 && (c->write_recipe || c->json)) {
        rc = show(c, &job, out, target_json(&t), e);
    } else if (rc == 0) {
        fputs(t.text, stdout);
        cli_job_notes(&job, false, NULL);
    }
    sl_job_plan_close(&job);
    target_free(&t);
    return rc;
}

static int show_plan(const struct plan_cmd *c, const char *source, const struct output *out,
                     struct sl_error *e)
{
    struct sl_job_plan job = {0};
    struct target t = {0};
    int rc = 0;

    if (c->measure)
        rc = target_measure(&t, source, &c->plan, &c->target, e);
    if (rc == 0)
        rc = cli_job_open(&job, source, is_config(source), &c->plan, out->prefix, e);
    if (rc == 0)
        rc = show(c, &job, out, c->measure ? measure_json(&t) : NULL, e);
    if (rc == 0 && c->measure && !c->json)
        printf("\nError   %.6g of a product's energy, the mean of %u tensors\n", t.mean_error, t.n_free);
    if (rc == 0 && c->measure && !c->quiet)
        say_measured(&t);
    sl_job_plan_close(&job);
    target_free(&t);
    return rc;
}

static int check_args(const struct plan_cmd *c, const char *source, struct sl_error *e)
{
    bool target = c->target.size || c->target.bpw;
    const char *name = c->target.size ? "--target-size" : "--target-bpw";

    if (c->ctx < 1)
        return sl_fail(e, SL_EUSAGE, "--ctx: expected 1 token or more");
    if (c->ubatch < 1 || c->ubatch > UBATCH_MOST)
        return sl_fail(e, SL_EUSAGE, "--ubatch: expected 1 to %d tokens", UBATCH_MOST);
    if (c->target.threads < 0 || c->target.threads > 1024)
        return sl_fail(e, SL_EUSAGE, "--threads: expected 1 to 1024, or 0 for all cores");
    if (c->target.size && c->target.bpw)
        return sl_fail(e, SL_EUSAGE, "--target-size and --target-bpw cannot be used together");
    if (c->target.threads && !target && !c->measure)
        return sl_fail(e, SL_EUSAGE, "--threads is for measuring: it needs --measure, --target-size or --target-bpw");
    if (target && c->plan.recipe)
        return sl_fail(e, SL_EUSAGE, "%s makes a recipe; it cannot be used with --recipe", name);
    if (target && c->measure)
        return sl_fail(e, SL_EUSAGE, "%s measures anyway; --measure is for --recipe", name);
    if (c->measure && !c->plan.recipe)
        return sl_fail(e, SL_EUSAGE, "--measure measures a recipe: give --recipe NAME ('sluice recipes' lists them)");
    if (!target && (c->target.types || c->write_recipe))
        return sl_fail(e, SL_EUSAGE, "%s needs --target-size or --target-bpw",
                       c->target.types ? "--types" : "--write-recipe");
    if (c->write_recipe && strcmp(c->write_recipe, "-") == 0)
        return sl_fail(e, SL_EUSAGE, "--write-recipe -: the recipe goes to standard output without this option");
    if ((target || c->measure) && is_config(source))
        return sl_fail(e, SL_EUSAGE, "%s has no weights, and errors are measured on weights: give the checkpoint's "
                       "folder, downloaded, or %s", source, target ? "choose a --recipe" : "leave --measure out");
    return 0;
}

static int plan_and_show(struct plan_cmd *c, const char *source, struct sl_error *e)
{
    const char *slash = strrchr(source, '/');
    struct output out = {0};
    char command[240];
    int rc = check_args(c, source, e);

    while (slash > source && !slash[1]) /* "folder/" */
        slash = memrchr(source, '/', (size_t)(slash - source));
    snprintf(command, sizeof command, "%.100s %s %.60s%s%s", slash ? slash + 1 : source,
             c->target.size ? "--target-size" : "--target-bpw", c->target.size ? c->target.size
             : c->target.bpw ? c->target.bpw : "", c->plan.no_mtp ? " --no-mtp" : "",
             c->plan.layout && strcmp(c->plan.layout, "legacy") == 0 ? " --layout legacy" : "");
    sl_utf8_disarm(command); /* it becomes a recipe's text; a folder's name may be none, or is cut */
    c->plan.silent = c->quiet || c->json;
    c->target.command = command;
    c->target.file = c->write_recipe;
    c->target.progress = progress_mode_for(false, c->quiet);
    if (rc == 0)
        rc = output_parse(&out, c->out ? c->out : "./", e);
    if (rc == 0)
        rc = c->target.size || c->target.bpw ? make_target(c, source, &out, e) : show_plan(c, source, &out, e);
    output_free(&out);
    return rc;
}

static int on_val(int val, const char *arg, void *user, struct sl_error *e)
{
    struct plan_cmd *c = user;

    return val == VAL_DEVICES ? words_add(&c->devices, arg, e) : cli_plan_on_val(val, arg, &c->plan, e);
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct plan_cmd c = {.plan = {.sizes_only = 1}, .ctx = 32768, .ubatch = SL_UBATCH};
    struct poptOption plan_table[CLI_PLAN_TABLE_MAX];
    struct poptOption table[] = {
        CLI_TEXT("target-size", 0, &c.target.size,
                 "make a recipe: the least measured error in files of this size in all, such as 281G or 262GiB", "SIZE"),
        CLI_TEXT("target-bpw", 0, &c.target.bpw, "the same by bits a weight, such as 3.5", "BITS"),
        CLI_TEXT("types", 0, &c.target.types, "types that such a recipe may use (default: all that are worth it)", "TYPE,..."),
        CLI_TEXT("write-recipe", 0, &c.write_recipe, "file for that recipe, and show its plan (default: the recipe to stdout)", "FILE"),
        CLI_FLAG("measure", 0, &c.measure, "measure the error of --recipe on a sample of the weights"),
        CLI_NUMBER("threads", 't', &c.target.threads, "threads that measure (default: all cores)", "N"),
        CLI_TABLE(plan_table, "Plan options:"),
        CLI_TEXT("output", 'o', &c.out, "where the output would go: its free space is shown (default: here)", "PATH"),
        CLI_NUMBER("ctx", 'c', &c.ctx, "context of the memory estimate (default 32768)", "TOKENS"),
        CLI_NUMBER("ubatch", 0, &c.ubatch, "micro-batch of that estimate, llama.cpp's -ub (default 512)", "TOKENS"),
        CLI_CALL("devices", 0, VAL_DEVICES,
                 "devices that the model should fit: 8x80G,8x64G, or a machine, such as 1x24G+512G with RAM, or 24G,16G,12G", "NxSIZE[+RAM],..."),
        CLI_FLAG("json", 0, &c.json, "one JSON object on stdout"),
        CLI_FLAG("quiet", 'q', &c.quiet, "no progress, no summary of what was measured"),
        POPT_TABLEEND,
    };
    struct cli_args a;
    int rc;

    cli_plan_table(&c.plan, plan_table);
    rc = cli_parse(&a, &cli_plan, argc, argv, table, 1, 1, on_val, &c, e);
    if (rc == 0) {
        rc = plan_and_show(&c, a.pos[0], e);
        cli_args_free(&a);
    }
    words_free(&c.devices);
    cli_plan_args_free(&c.plan);
    return rc < 0 ? rc : 0;
}

const struct cli_verb cli_plan = {
    "plan", "CHECKPOINT|config.json --recipe NAME|--target-size SIZE [OPTION...]",
    "Show what a conversion would give: sizes, types, files, tasks, memory; or make a recipe for a size",
    run,
};
