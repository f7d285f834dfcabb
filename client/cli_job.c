#include "client/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Pattern and type of one "REGEX=TYPE"; the pattern is lower-cased, as
 * llama-quantize does. */
static int parse_tensor_type(const char *origin, const char *text, struct sl_type_override *out,
                             struct sl_error *e)
{
    const char *eq = strrchr(text, '=');
    char *pattern;

    if (!eq || eq == text || !eq[1])
        return sl_fail(e, SL_EUSAGE, "%s: '%s': expected REGEX=TYPE, for example attn_v=q6_k",
                       origin, text);
    out->type = sl_type_by_name(eq + 1);
    if (out->type < 0)
        return sl_fail(e, SL_EUSAGE, "%s: '%s' is no type; 'sluice types' lists them", origin,
                       eq + 1);
    pattern = strndup(text, (size_t)(eq - text));
    if (!pattern)
        return sl_fail(e, SL_EFAIL, "out of memory");
    for (char *p = pattern; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    out->pattern = pattern;
    return 0;
}

static int add_override(struct cli_job *j, const char *origin, const char *text,
                        struct sl_error *e)
{
    struct sl_type_override *p =
        realloc(j->overrides, (j->n_overrides + 1) * sizeof *j->overrides);

    if (!p)
        return sl_fail(e, SL_EFAIL, "out of memory");
    j->overrides = p;
    SL_TRY(parse_tensor_type(origin, text, &p[j->n_overrides], e));
    j->n_overrides++;
    return 0;
}

static int read_tensor_types(struct cli_job *j, const char *path, struct sl_error *e)
{
    FILE *f = fopen(path, "re");
    char word[512];
    int rc = 0;

    if (!f)
        return sl_fail(e, SL_EUSAGE, "--tensor-type-file %s: %s", path, strerror(errno));
    while (rc >= 0 && j->n_overrides < 100000 && fscanf(f, "%511s", word) == 1)
        rc = add_override(j, path, word, e);
    fclose(f);
    return rc;
}

static int parse_kv(struct sl_kvs *kvs, const char *text, struct sl_error *e)
{
    const char *eq = strchr(text, '='), *colon = eq ? strchr(eq, ':') : NULL;
    char *key, *end = NULL;
    const char *type, *value;
    int rc = SL_EUSAGE;

    if (!colon || eq == text)
        return sl_fail(e, SL_EUSAGE, "--override-kv '%s': expected KEY=TYPE:VALUE", text);
    type = eq + 1;
    value = colon + 1;
    key = strndup(text, (size_t)(eq - text));
    if (!key)
        return sl_fail(e, SL_EFAIL, "out of memory");
    errno = 0;
    if (strncmp(type, "int:", 4) == 0) {
        long long v = strtoll(value, &end, 10);

        /* llama-quantize writes integers as u32. */
        if (end != value && !*end && !errno && v >= 0 && v <= UINT32_MAX)
            rc = sl_kvs_set_u32(kvs, key, (uint32_t)v);
    } else if (strncmp(type, "float:", 6) == 0) {
        double v = strtod(value, &end);

        if (end != value && !*end)
            rc = sl_kvs_set_f32(kvs, key, (float)v);
    } else if (strncmp(type, "bool:", 5) == 0) {
        if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
            rc = sl_kvs_set_bool(kvs, key, value[0] == 't');
    } else if (strncmp(type, "str:", 4) == 0) {
        if (strlen(value) <= 127)
            rc = sl_kvs_set_str(kvs, key, value);
    }
    free(key);
    if (rc < 0)
        return sl_fail(e, rc, "--override-kv '%s': expected int:N (0 to 4294967295), float:X, "
                              "bool:true|false or str:TEXT (at most 127 bytes)", text);
    return 0;
}

static int type_option(const char *option, const char *text, int *out, struct sl_error *e)
{
    *out = -1;
    if (!text)
        return 0;
    *out = sl_type_by_name(text);
    if (*out < 0)
        return sl_fail(e, SL_EUSAGE, "%s: '%s' is no type; 'sluice types' lists them", option,
                       text);
    return 0;
}

static int one_of(const char *option, const char *text, const char *a, const char *b, bool *is_b,
                  struct sl_error *e)
{
    *is_b = text && strcmp(text, b) == 0;
    if (text && !*is_b && strcmp(text, a) != 0)
        return sl_fail(e, SL_EUSAGE, "%s: '%s': expected %s or %s", option, text, a, b);
    return 0;
}

static int recipe_options(struct cli_job *j, const struct cli_plan_args *a,
                          struct sl_recipe_opts *ro, struct sl_error *e)
{
    memset(ro, 0, sizeof *ro);
    SL_TRY(type_option("--output-tensor-type", a->output_type, &ro->output_type, e));
    SL_TRY(type_option("--token-embedding-type", a->embedding_type, &ro->embedding_type, e));
    SL_TRY(one_of("--rules", a->rules, "2026", "2025", &ro->rules_2025, e));
    for (int i = 0; i < a->n_tensor_type; i++)
        SL_TRY(add_override(j, "--tensor-type", a->tensor_type[i], e));
    if (a->tensor_type_file)
        SL_TRY(read_tensor_types(j, a->tensor_type_file, e));
    ro->overrides = j->overrides;
    ro->n_overrides = j->n_overrides;
    ro->leave_output = a->leave_output;
    ro->pure = a->pure;
    ro->any_type = a->sizes_only;
    if (!a->rules && a->layout && strcmp(a->layout, "legacy") == 0)
        ro->rules_2025 = true; /* that layout ended with those rules */
    return 0;
}

static int plan_options(struct cli_job *j, const struct cli_plan_args *a, struct sl_plan_opts *o,
                        struct sl_error *e)
{
    bool unused;

    memset(o, 0, sizeof *o);
    SL_TRY(cli_parse_size("--split-max-size", a->split_max_size ? a->split_max_size : "48G",
                          &o->split_max_bytes, e));
    if (a->task_size) {
        SL_TRY(cli_parse_size("--task-size", a->task_size, &o->task_bytes, e));
        if (o->task_bytes < 4096)
            return sl_fail(e, SL_EUSAGE, "--task-size: %s is too small; at least 4096 bytes",
                           a->task_size);
    }
    if (a->split_max_tensors < 0)
        return sl_fail(e, SL_EUSAGE, "--split-max-tensors: expected a number of 0 or more");
    o->split_max_tensors = (uint64_t)a->split_max_tensors;
    o->no_tensor_first_split = a->no_tensor_first_split;
    o->keep_split = a->keep_split;
    SL_TRY(one_of("--round-through", a->round_through, "bf16", "bf16", &unused, e));
    o->round_bf16 = a->round_through != NULL;
    for (int i = 0; i < a->n_override_kv; i++)
        SL_TRY(parse_kv(&j->extra_kvs, a->override_kv[i], e));
    o->extra_kvs = &j->extra_kvs;
    return 0;
}

/* Opens the imatrix and records it in the output's metadata. */
static int job_imatrix(struct cli_job *j, const struct cli_plan_args *a, struct sl_recipe_opts *ro,
                       struct sl_error *e)
{
    bool keep = a->n_include_weights > 0;

    if (!a->imatrix && (a->n_include_weights || a->n_exclude_weights))
        return sl_fail(e, SL_EUSAGE, "--include-weights and --exclude-weights need --imatrix FILE");
    if (!a->imatrix)
        return 0;
    SL_TRY(cli_imatrix_open(a->imatrix, a->include_weights, a->n_include_weights, a->exclude_weights,
                            a->n_exclude_weights, &j->imatrix, e));
    ro->has_imatrix = j->imatrix != NULL;
    ro->imatrix = j->imatrix;
    if (j->imatrix && sl_imatrix_kvs(j->imatrix, keep ? a->include_weights : a->exclude_weights,
                                     (uint32_t)(keep ? a->n_include_weights : a->n_exclude_weights), keep,
                                     &j->extra_kvs) < 0)
        return sl_fail(e, SL_EFAIL, "out of memory");
    return 0;
}

int cli_job_open(struct cli_job *j, const char *source, bool config_only,
                 const struct cli_plan_args *a, const char *out_prefix, struct sl_error *e)
{
    struct sl_model_opts mo = {.model_name = a->model_name};
    struct sl_recipe_opts ro;
    struct sl_plan_opts po;
    bool legacy;

    memset(j, 0, sizeof *j);
    if (!a->recipe)
        return sl_fail(e, SL_EUSAGE,
                       "no recipe given: use --recipe NAME ('sluice recipes' lists them)");
    SL_TRY(one_of("--layout", a->layout, "mla", "legacy", &legacy, e));
    mo.keep_order = a->keep_split;
    mo.layout = legacy ? SL_LAYOUT_LEGACY : SL_LAYOUT_MLA;
    SL_TRY(recipe_options(j, a, &ro, e));
    SL_TRY(plan_options(j, a, &po, e));
    SL_TRY(job_imatrix(j, a, &ro, e));
    SL_TRY(sl_recipe_load(a->recipe, &j->recipe, e));
    SL_TRY(config_only ? sl_checkpoint_open_config(source, &j->ck, e)
                       : sl_checkpoint_open(source, &j->ck, e));
    SL_TRY(sl_model_open(j->ck, &mo, &j->model, e));
    if (out_prefix) {
        j->prefix = strdup(out_prefix);
    } else if (asprintf(&j->prefix, "%s-%s", j->model->base_name,
                        sl_recipe_encoding(j->recipe)) < 0) {
        j->prefix = NULL;
    }
    if (!j->prefix)
        return sl_fail(e, SL_EFAIL, "out of memory");
    po.prefix = j->prefix;
    SL_TRY(sl_plan_build(j->ck, j->model, j->recipe, &ro, &po, &j->plan, e));
    return sl_imatrix_use_make(&j->weights, j->imatrix, j->plan, e);
}

void cli_job_close(struct cli_job *j)
{
    sl_imatrix_use_free(&j->weights);
    sl_imatrix_close(j->imatrix);
    sl_plan_close(j->plan);
    sl_recipe_close(j->recipe);
    sl_model_close(j->model);
    sl_checkpoint_close(j->ck);
    for (uint32_t i = 0; i < j->n_overrides; i++)
        free((char *)(uintptr_t)j->overrides[i].pattern);
    free(j->overrides);
    free(j->prefix);
    sl_kvs_free(&j->extra_kvs);
    memset(j, 0, sizeof *j);
}
