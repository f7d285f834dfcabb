#include "client/submit_spec.h"

#include "client/model_arg.h"
#include "proto/suffix.h"
#include "proto/utf8.h"
#include "proto/wire.h"
#include "worker/output.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A message is UTF-8. */
static int put_name(cJSON *o, const char *field, const char *name, struct sl_error *e)
{
    if (!sl_utf8_valid(name))
        return sl_fail(e, SL_EUSAGE, "%s: the service takes names in UTF-8 alone; rename it, or use 'sluice convert'",
                       name);
    sl_put_str(o, field, name);
    return 0;
}

/* Whether a name says what the file is. */
static bool says_kind(const char *path)
{
    return model_arg_is_part(path) || sl_stem(path, ".gguf");
}

/* The absolute path, the caller's (free), without links; but a file's own name stays where the link leads to a name that
 * does not say what it is, as into a Hugging Face cache: by the name its other parts are found. NULL: errno says why. */
static char *absolute(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *full = realpath(path, NULL), *folder, *dir, *own = NULL;

    if (!full || !says_kind(path) || says_kind(full))
        return full;
    free(full);
    folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    dir = folder ? realpath(folder, NULL) : NULL;
    if (dir && asprintf(&own, "%s/%s", dir[1] ? dir : "", name) < 0)
        own = NULL;
    free(folder);
    free(dir);
    return own;
}

/* Sets a field to the absolute form of a path. missing: code when it is not there. */
static int put_path(cJSON *o, const char *field, const char *path, int missing, struct sl_error *e)
{
    char *full = absolute(path);
    int rc;

    if (!full)
        return sl_fail(e, missing, "%s: %s", path, strerror(errno));
    rc = put_name(o, field, full, e);
    free(full);
    return rc;
}

static void put_number(cJSON *o, const char *field, uint64_t v)
{
    if (v)
        sl_put_uint(o, field, v);
}

static int put_options(cJSON *spec, const struct submit_spec_args *a,
                       const struct sl_job_plan *j, struct sl_error *e)
{
    const struct cli_plan_args *p = a->plan;
    cJSON *o = cJSON_CreateObject();
    struct sl_job_options jo;
    cJSON *types = NULL;

    sl_put(spec, "options", o);
    SL_TRY(cli_job_options(p, &jo, e));
    if (jo.model_name && (strlen(jo.model_name) > 255 || !sl_utf8_all_shown(jo.model_name)))
        return sl_fail(e, SL_EUSAGE, "--model-name '%.255s': expected at most 255 bytes of UTF-8 without control "
                       "characters", jo.model_name);
    sl_put_str(o, "layout", jo.layout);
    sl_put_bool(o, "no_mtp", jo.no_mtp);
    sl_put_str(o, "round_through", jo.round_through);
    sl_put_str(o, "rules", jo.rules);
    sl_put_uint(o, "split_max_bytes", jo.split_max_bytes);
    put_number(o, "split_max_tensors", jo.split_max_tensors);
    sl_put_bool(o, "no_tensor_first_split", jo.no_tensor_first_split);
    sl_put_bool(o, "keep_split", jo.keep_split);
    put_number(o, "task_bytes", jo.task_bytes);
    sl_put_str(o, "model_name", jo.model_name);
    sl_put_str(o, "output_type", jo.output_type);
    sl_put_str(o, "embedding_type", jo.embedding_type);
    for (uint32_t i = 0; i < j->n_overrides; i++) {
        cJSON *rule;

        types = types ? types : sl_put_array(o, "tensor_types");
        rule = sl_add_object(types);
        sl_put_str(rule, "pattern", j->overrides[i].pattern);
        sl_put_str(rule, "type", sl_type_info(j->overrides[i].type)->name);
    }
    words_put(o, "override_kv", &p->override_kv);
    sl_put_bool(o, "synthetic_imatrix", jo.synthetic);
    if (jo.imatrix)
        SL_TRY(put_path(o, "imatrix", p->imatrix, SL_ESOURCE, e));
    words_put(o, "include_weights", &p->include_weights);
    words_put(o, "exclude_weights", &p->exclude_weights);
    sl_put_bool(o, "leave_output", jo.leave_output);
    sl_put_bool(o, "pure", jo.pure);
    sl_put_bool(o, "allow_requantize", jo.allow_requantize);
    sl_put_bool(o, "sha256", a->sha256);
    sl_put_bool(o, "force", a->force);
    sl_put_bool(o, "sparse", a->sparse);
    return 0;
}

/* Paths of a machine that is not this one must be absolute. */
static int put_remote_path(cJSON *o, const char *field, const char *path, struct sl_error *e)
{
    if (path[0] != '/')
        return sl_fail(e, SL_ESOURCE, "%s: not here; for another machine give the absolute path",
                       path);
    return put_name(o, field, path, e);
}

/* Neither source nor output can be looked at. */
static bool far_away(const struct submit_spec_args *a, bool here)
{
    return a->remote && !here;
}

/* The whole specification, from a plan (or, out of reach, from the arguments). */
static int fill(cJSON *spec, const struct submit_spec_args *a, const struct sl_job_plan *j,
                const struct output *out, bool here, struct sl_error *e)
{
    const char *prefix = here ? j->prefix : out->prefix;

    SL_TRY(here ? put_path(spec, "source", a->source, SL_ESOURCE, e)
                : put_remote_path(spec, "source", a->source, e));
    SL_TRY(far_away(a, here) ? put_remote_path(spec, "output", out->dir, e)
                             : put_path(spec, "output", out->dir, SL_EUSAGE, e));
    if (!prefix)
        return sl_fail(e, SL_EUSAGE, "%s is not here, so its name is not known: give -o FOLDER/NAME",
                       a->source);
    SL_TRY(put_name(spec, "prefix", prefix, e));
    sl_put_str(spec, "recipe", sl_recipe_name(j->recipe));
    sl_put_str(spec, "recipe_text", sl_recipe_text(j->recipe));
    SL_TRY(put_options(spec, a, j, e));
    return sl_record_check("spec", spec, e);
}

int submit_spec(const struct submit_spec_args *a, struct cJSON **spec, uint64_t *src_bytes,
                uint64_t *file_bytes, struct sl_error *e)
{
    bool here = access(a->source, F_OK) == 0;
    struct sl_job_plan j = {0};
    struct output out = {0};
    int rc;

    *src_bytes = *file_bytes = 0;
    *spec = cJSON_CreateObject();
    if (far_away(a, here))
        rc = a->output ? output_parse_far(&out, a->output, e)
             : sl_fail(e, SL_ESOURCE, "%s: not here; for another machine give absolute paths, that of the output by -o FOLDER/NAME",
                       a->source);
    else
        rc = output_parse(&out, a->output ? a->output : "./", e);
    if (rc == 0 && out.new_dir)
        rc = sl_fail(e, SL_EUSAGE, "%s: no such folder; create it first: the workers write there, who may be "
                                   "another user", out.dir);
    if (rc == 0) {
        rc = cli_job_open(&j, a->source, false, a->plan, out.prefix, e);
        /* The recipe and the options' texts have been read by then. */
        if (rc == SL_ESOURCE && !here && a->remote && j.recipe)
            rc = 0;
    }
    if (rc == 0 && j.plan) {
        struct sl_checkpoint *ck = j.ck;

        cli_job_notes(&j, a->json, a->said);
        rc = output_attach(&out, j.plan, e);
        if (rc == 0)
            rc = output_not_source(&out, ck, e);
        *src_bytes = j.plan->src_bytes;
        *file_bytes = j.plan->file_bytes;
    }
    if (rc == 0)
        rc = fill(*spec, a, &j, &out, here, e);
    if (rc < 0) {
        cJSON_Delete(*spec);
        *spec = NULL;
    }
    output_free(&out);
    sl_job_plan_close(&j);
    return rc;
}
