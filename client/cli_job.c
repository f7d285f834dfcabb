#include "client/cli.h"

#include "client/waiting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TENSOR_TYPES_MAX 100000u

/* One "REGEX=TYPE". */
static int add_tensor_type(struct sl_job_plan *j, const char *origin, const char *text,
                           struct sl_error *e)
{
    const char *eq = strrchr(text, '=');
    char *pattern;
    int rc;

    if (!eq || eq == text || !eq[1])
        return sl_fail(e, SL_EUSAGE, "%s: '%s': expected REGEX=TYPE, for example attn_v=q6_k",
                       origin, text);
    pattern = strndup(text, (size_t)(eq - text));
    if (!pattern)
        return sl_no_memory(e);
    rc = sl_job_add_override(j, origin, pattern, eq + 1, e);
    free(pattern);
    return rc;
}

static int read_tensor_types(struct sl_job_plan *j, const char *path, struct sl_error *e)
{
    static const char bom[] = "\xef\xbb\xbf"; /* some editors begin a file with it */
    FILE *f = fopen(path, "re");
    char word[512], *begin;
    int rc = 0, from = 0, to = 0;

    if (!f)
        return sl_fail(e, SL_EUSAGE, "--tensor-type-file %s: %s", path, strerror(errno));
    for (bool first = true; rc == 0 && fscanf(f, " %n%511s%n", &from, word, &to) == 1; first = false) {
        if (strlen(word) != (size_t)(to - from))
            rc = sl_fail(e, SL_EUSAGE, "--tensor-type-file %s: a NUL byte; expected text in UTF-8", path);
        begin = word + (first && strncmp(word, bom, 3) == 0 ? 3 : 0);
        if (rc == 0 && *begin)
            rc = j->n_overrides < TENSOR_TYPES_MAX ? add_tensor_type(j, path, begin, e)
                 : sl_fail(e, SL_EUSAGE, "--tensor-type-file %s: more than %u pairs", path, TENSOR_TYPES_MAX);
    }
    if (rc == 0 && ferror(f))
        rc = sl_fail(e, SL_EUSAGE, "--tensor-type-file %s: %s", path, strerror(errno));
    fclose(f);
    return rc;
}

int cli_job_options(const struct cli_plan_args *a, struct sl_job_options *o, struct sl_error *e)
{
    bool synthetic = a->imatrix && strcmp(a->imatrix, "synthetic") == 0;

    *o = (struct sl_job_options){
        .layout = a->layout, .no_mtp = a->no_mtp, .round_through = a->round_through, .rules = a->rules,
        .model_name = a->model_name, .output_type = a->output_type,
        .embedding_type = a->embedding_type, .no_tensor_first_split = a->no_tensor_first_split,
        .keep_split = a->keep_split, .leave_output = a->leave_output, .pure = a->pure,
        .allow_requantize = a->allow_requantize, .prune = a->prune, .n_prune = a->n_prune,
        .imatrix = synthetic ? NULL : a->imatrix, .synthetic = synthetic,
        .include_weights = a->include_weights.word, .n_include_weights = (uint32_t)a->include_weights.n,
        .exclude_weights = a->exclude_weights.word, .n_exclude_weights = (uint32_t)a->exclude_weights.n,
        .split_max_bytes = SL_SPLIT_DEFAULT, .any_type = a->sizes_only,
    };
    if (a->split_max_size)
        SL_TRY(cli_parse_size("--split-max-size", a->split_max_size, &o->split_max_bytes, e));
    if (a->task_size) {
        SL_TRY(cli_parse_size("--task-size", a->task_size, &o->task_bytes, e));
        if (o->task_bytes == 0) /* which to a job means the usual size */
            return sl_fail(e, SL_EUSAGE, "--task-size: 0 is too small; at least %u bytes", SL_TASK_BYTES_MIN);
    }
    if (a->split_max_tensors < 0)
        return sl_fail(e, SL_EUSAGE, "--split-max-tensors: expected a number of 0 or more");
    o->split_max_tensors = (uint64_t)a->split_max_tensors;
    return 0;
}

/* Everything before the recipe and the plan; o's prefix and config_only stay as they are. */
static int open_options(struct sl_job_plan *j, const struct cli_plan_args *a, struct sl_job_options *o,
                        struct sl_error *e)
{
    const struct sl_job_options given = *o;

    memset(j, 0, sizeof *j);
    SL_TRY(cli_job_options(a, o, e));
    o->prefix = given.prefix;
    o->config_only = given.config_only;
    for (int i = 0; i < a->tensor_type.n; i++) {
        const char *word = a->tensor_type.word[i];

        SL_TRY(*word == CLI_PAIRS ? read_tensor_types(j, word + 1, e) : add_tensor_type(j, "--tensor-type", word + 1, e));
    }
    for (int i = 0; i < a->override_kv.n; i++)
        SL_TRY(sl_parse_override_kv(&j->extra_kvs, a->override_kv.word[i], e));
    return 0;
}

static int open_named(struct sl_job_plan *j, const char *source, const struct cli_plan_args *a,
                      struct sl_job_options *o, struct sl_error *e)
{
    SL_TRY(open_options(j, a, o, e));
    SL_TRY(sl_recipe_load(a->recipe, &j->recipe, e));
    return sl_job_plan_make(j, source, o, e);
}

int cli_job_open(struct sl_job_plan *j, const char *source, bool config_only,
                 const struct cli_plan_args *a, const char *out_prefix, struct sl_error *e)
{
    struct sl_job_options o = {.config_only = config_only, .prefix = out_prefix};
    struct waiting w;
    int rc;

    memset(j, 0, sizeof *j);
    if (!a->recipe)
        return sl_fail(e, SL_EUSAGE,
                       "no recipe given: use --recipe NAME ('sluice recipes' lists them)");
    waiting_begin(&w, a->silent, "planning", source);
    rc = open_named(j, source, a, &o, e);
    waiting_end(&w);
    return rc;
}

int cli_job_open_text(struct sl_job_plan *j, const char *source, const struct cli_plan_args *a,
                      const char *name, const char *text, struct sl_error *e)
{
    struct sl_job_options o = {.prefix = NULL};
    struct waiting w;
    int rc;

    waiting_begin(&w, a->silent, "planning", source);
    rc = open_options(j, a, &o, e);
    if (rc == 0)
        rc = sl_recipe_parse(name, name, text, &j->recipe, e);
    if (rc == 0)
        rc = sl_job_plan_make(j, source, &o, e);
    waiting_end(&w);
    return rc;
}

/* Checkpoint and model go to the one that stays. */
int cli_job_go_back(struct sl_job_plan *j, const char *source, const struct cli_plan_args *a, const char *recipe,
                    const char *text, const char *fingerprint, struct sl_error *e)
{
    struct sl_job_options o = {.prefix = j->prefix};
    struct sl_job_plan then, other;
    bool same = false;
    int rc = open_options(&then, a, &o, e);

    if (rc == 0)
        rc = sl_recipe_earlier(j->recipe, recipe, text, &then.recipe, e);
    if (rc == 1) {
        then.ck = j->ck;
        then.model = j->model;
        rc = sl_job_plan_make(&then, source, &o, e);
        same = rc == 0 && strcmp(then.plan->fingerprint, fingerprint) == 0;
    }
    other = same ? *j : then;
    if (same)
        *j = then;
    other.ck = NULL;
    other.model = NULL;
    sl_job_plan_close(&other);
    return rc < 0 ? rc : same;
}
