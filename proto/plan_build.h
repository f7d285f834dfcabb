/* Between the files of the plan: plan.c calls these in order. */
#ifndef SLUICE_PROTO_PLAN_BUILD_H
#define SLUICE_PROTO_PLAN_BUILD_H

#include "proto/plan.h"

/* What a plan is made from. */
struct sl_plan_input {
    const struct sl_checkpoint *ck;
    const struct sl_model *m;
    const struct sl_recipe *r;
    const struct sl_plan_opts *o;
    const struct sl_recipe_opts *ro;
};

/* plan_options.c. Effect: sets p->options. Errors: SL_EFAIL (no memory). */
int sl_plan_options(const struct sl_plan_input *in, struct sl_plan *p) SL_MUST_USE;

/* plan_tasks.c. Effect: fills items, tasks and src_bytes of a plan whose
 * tensors are laid out. Errors: SL_EFAIL. */
int sl_plan_make_tasks(const struct sl_plan_input *in, struct sl_plan *p, struct sl_error *e)
    SL_MUST_USE;

/* plan_fingerprint.c. Effect: fills parts, fingerprint and output_id of a plan
 * that has everything but its headers. Errors: SL_EFAIL. */
int sl_plan_fingerprint(const struct sl_plan_input *in, struct sl_plan *p, struct sl_error *e)
    SL_MUST_USE;

/* plan_memory.c. Returns the bytes that a layer caches of one sequence, in a model that has sl_model.near. */
uint64_t sl_plan_layer_cache(const struct sl_model *m, uint64_t layer, uint64_t ctx, uint32_t ubatch);

#endif
