/* A job's specification (record `spec` of PROTOCOL.md) and the way from it to a
 * plan. Client and worker both come this way, so that they mean the same. */
#ifndef SLUICE_PROTO_JOB_SPEC_H
#define SLUICE_PROTO_JOB_SPEC_H

#include "proto/imatrix_use.h"
#include "proto/plan.h"

struct cJSON;

#define SL_SPLIT_DEFAULT 48000000000u  /* bytes of tensors in one output file, unless said */
#define SL_TASK_BYTES_MIN 4096u

/* Everything between a specification and its plan, opened and owned together. */
struct sl_job_plan {
    /* The caller may lend those of another job with the same source and options; it sets them to NULL
     * again before sl_job_plan_close, which closes what is there. */
    struct sl_checkpoint *ck;
    struct sl_model *model;
    struct sl_recipe *recipe;
    struct sl_plan *plan;
    bool round_bf16, sha256, force, sparse;     /* options that the plan itself does not keep */
    bool rules_2025;                    /* the recipe goes by llama.cpp's rules of that year */
    struct sl_type_override *overrides;
    uint32_t n_overrides;
    struct sl_kvs extra_kvs;
    const struct sl_roots *roots;       /* the source must not leave them; set before. NULL: none */
    const struct sl_header_watch *watch; /* of the source's headers, for as long as it is opened; set before. NULL: none */
    char *prefix;                       /* base name of the output's files */
    struct sl_imatrix *imatrix;         /* NULL: none, or synthetic */
    bool synthetic;                     /* --imatrix synthetic */
    struct sl_imatrix_use weights;
};

/* Options as texts and numbers, from a command line or a specification. A
 * zeroed one is `sluice convert` without options, apart from split_max_bytes. */
struct sl_job_options {
    const char *layout, *round_through, *rules, *model_name; /* NULL: not given */
    const char *output_type, *embedding_type;
    uint64_t split_max_bytes, split_max_tensors, task_bytes;
    bool no_mtp, no_tensor_first_split, keep_split, leave_output, pure, allow_requantize;
    const uint32_t *prune;   /* layers to leave out of a GGUF source, ascending */
    uint32_t n_prune;
    const char *imatrix;
    bool synthetic;          /* in place of imatrix: weights made from the source */
    const char *const *include_weights, *const *exclude_weights;
    uint32_t n_include_weights, n_exclude_weights;
    const char *prefix;      /* NULL: from the model's name and the recipe */
    const char *source_name; /* path that names the source in the output; NULL: where it is */
    bool config_only;        /* the source is a config.json alone */
    bool any_type;           /* as in struct sl_recipe_opts; and a tokenizer may be missing */
};

/* Effect: opens what is missing of source, model and imatrix and builds the plan.
 * j->recipe, j->overrides and j->extra_kvs are the caller's doing. Release with
 * sl_job_plan_close in every case. Errors: SL_EUSAGE (an option's value, by the
 * option's name), and those of checkpoint, model, imatrix, recipe and plan. */
int sl_job_plan_make(struct sl_job_plan *j, const char *source, const struct sl_job_options *o,
                     struct sl_error *e) SL_MUST_USE;

/* Effect: builds the plan of a specification, which sl_record_check("spec") has
 * passed. source: path to open in place of the specification's (a pinned one,
 * proto/roots.h); NULL: the specification's own. *j must be zeroed, but for roots and watch, and for
 * checkpoint and model where they are there already; release with sl_job_plan_close in every case. Errors: as sl_job_plan_make. */
int sl_job_plan_open(struct sl_job_plan *j, const struct cJSON *spec, const char *source,
                     struct sl_error *e) SL_MUST_USE;
void sl_job_plan_close(struct sl_job_plan *j);

/* Return about how many bytes of memory checkpoint and model take, and all the rest of j. */
uint64_t sl_job_plan_model_bytes(const struct sl_job_plan *j);
uint64_t sl_job_plan_bytes(const struct sl_job_plan *j);

/* Effect: *out (the caller's, cJSON_Delete) = the plan as a prepare task's result
 * carries it (record `plan`). Errors: SL_EUNSUPPORTED when it has more than
 * SL_TASKS_MAX tasks, saying which --task-size would do. */
int sl_job_plan_record(const struct sl_job_plan *j, struct cJSON **out, struct sl_error *e)
    SL_MUST_USE;

/* Effect: *ro = how a recipe is assigned under these options with the job's imatrix, which
 * is open. Errors: SL_EUSAGE. */
int sl_job_recipe_opts(const struct sl_job_plan *j, const struct sl_job_options *o,
                       struct sl_recipe_opts *ro, struct sl_error *e) SL_MUST_USE;

/* job_copy.c. Effect: a copy keeps the GGUF source's general.file_type; where that has none it
 * gets 1024 (guessed) and the number of what most of its tensors are, as llama-quantize's COPY
 * writes. --override-kv goes before both. Errors: SL_EUSAGE (no GGUF source), SL_EFAIL. */
int sl_job_copy_file_type(struct sl_job_plan *j, struct sl_error *e) SL_MUST_USE;

/* Effect: opens an imatrix and takes entries out of it, as --include-weights or
 * --exclude-weights say. *out is NULL when none are left. Errors: SL_EUSAGE (both
 * lists), those of sl_imatrix_open_within and sl_imatrix_check. */
int sl_job_imatrix_open(const struct sl_job_options *o, const struct sl_roots *roots, struct sl_imatrix **out,
                        struct sl_error *e) SL_MUST_USE;

/* The options' texts, shared with the command line. */

/* Effect: appends PATTERN=TYPE to j->overrides; the pattern is copied and lower-cased, as llama-quantize does.
 * origin names the option in errors. Errors: SL_EUSAGE (no such type), SL_EFAIL. */
int sl_job_add_override(struct sl_job_plan *j, const char *origin, const char *pattern,
                        const char *type, struct sl_error *e) SL_MUST_USE;
/* Effect: sets a key from KEY=TYPE:VALUE, as llama-quantize writes it (int: u32). Errors: SL_EUSAGE (another form, a
 * value out of range, a key that describes the file itself), SL_EFAIL. */
int sl_parse_override_kv(struct sl_kvs *kvs, const char *text, struct sl_error *e) SL_MUST_USE;
/* Effect: *e = no type has this name, and which one nearly has. Returns SL_EUSAGE. */
int sl_no_type(const char *origin, const char *text, struct sl_error *e) SL_MUST_USE;

#endif
