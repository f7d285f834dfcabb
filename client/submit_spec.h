/* From `sluice submit`'s arguments to a job's specification. */
#ifndef SLUICE_CLIENT_SUBMIT_SPEC_H
#define SLUICE_CLIENT_SUBMIT_SPEC_H

#include "client/cli.h"

struct cJSON;

struct submit_spec_args {
    const struct cli_plan_args *plan; /* recipe: exactly one */
    const char *source, *output;      /* as typed */
    bool sha256, force, sparse;
    bool remote;                      /* the source may be out of reach here */
    bool json;                        /* warnings as JSON lines too */
    struct words *said;               /* warnings that were said before, of other recipes */
};

/* Effect: *spec (the caller's, cJSON_Delete) = record `spec`. The plan is built
 * here first, so that what is wrong with it is said at once; *src_bytes and
 * *file_bytes are its sizes, 0 when the source is out of reach. Errors: SL_EUSAGE,
 * SL_ESOURCE, and those of the plan. */
int submit_spec(const struct submit_spec_args *a, struct cJSON **spec, uint64_t *src_bytes,
                uint64_t *file_bytes, struct sl_error *e) SL_MUST_USE;

#endif
