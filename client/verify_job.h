/* `sluice verify --job`: the service proves a finished job's files itself. */
#ifndef SLUICE_CLIENT_VERIFY_JOB_H
#define SLUICE_CLIENT_VERIFY_JOB_H

#include "client/service_args.h"

/* Effect: has a worker verify a succeeded job's files against its source, and
 * waits for the verdict. Errors: the job's exit code (SL_EVERIFY), SL_ENOJOB,
 * SL_EUSAGE (the job has not succeeded), SL_EUNREACHABLE, SL_EINTERRUPTED. */
int verify_job(const struct service_args *a, const char *job, bool json, bool quiet,
               struct sl_error *e) SL_MUST_USE;

#endif
