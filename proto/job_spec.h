/* A job's specification (record `spec` of PROTOCOL.md) and the way from it to a
 * plan. Client and worker both come this way, so that they mean the same. */
#ifndef SLUICE_PROTO_JOB_SPEC_H
#define SLUICE_PROTO_JOB_SPEC_H

#include "proto/plan.h"

struct cJSON;

/* Everything between a specification and its plan, opened and owned together. */
struct sl_job_plan {
    struct sl_checkpoint *ck;
    struct sl_model *model;
    struct sl_recipe *recipe;
    struct sl_plan *plan;
    bool round_bf16, sha256, force;     /* options that the plan itself does not keep */
    struct sl_type_override *overrides;
    uint32_t n_overrides;
    struct sl_kvs extra_kvs;
    char *prefix;                       /* base name of the output's files */
};

/* Effect: builds the plan of a specification, which sl_record_check("spec") has
 * passed. source: path to open in place of the specification's (a pinned one,
 * proto/roots.h); NULL: the specification's own. *j must be zeroed; release
 * with sl_job_plan_close in every case. Errors: SL_EUSAGE (an option's value, by
 * the option's name), and those of checkpoint, model, recipe and plan. */
int sl_job_plan_open(struct sl_job_plan *j, const struct cJSON *spec, const char *source,
                     struct sl_error *e) SL_MUST_USE;
void sl_job_plan_close(struct sl_job_plan *j);

/* Effect: *out (the caller's, cJSON_Delete) = the plan as a prepare task's result
 * carries it (record `plan`). Errors: SL_EUNSUPPORTED when it has more than
 * SL_TASKS_MAX tasks, saying which --task-size would do. */
int sl_job_plan_record(const struct sl_job_plan *j, struct cJSON **out, struct sl_error *e)
    SL_MUST_USE;

/* The option's texts, shared with the command line. */
int sl_parse_override(const char *origin, const char *pattern, const char *type,
                      struct sl_type_override *out, struct sl_error *e) SL_MUST_USE;
int sl_parse_override_kv(struct sl_kvs *kvs, const char *text, struct sl_error *e) SL_MUST_USE;

#endif
