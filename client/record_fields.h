/* The fields of jobs, workers and events that lists can show. */
#ifndef SLUICE_CLIENT_RECORD_FIELDS_H
#define SLUICE_CLIENT_RECORD_FIELDS_H

#include "client/columns.h"

extern const struct column job_columns[], worker_columns[], event_columns[];

#define JOB_COLUMNS_USUAL "id,state,priority,recipe,name,user,progress,rate,eta,reason"
#define HISTORY_COLUMNS_USUAL "id,state,code,recipe,name,user,submitted,elapsed,size,reason"
#define WORKER_COLUMNS_USUAL "name,host,device,state,held,job,rate,done,bytes,celsius,watts,seen,tensor"

struct cJSON;

/* Effect: a copy of a record for JSON lines: its times, and those of records in
 * it, in RFC 3339. The caller's (cJSON_Delete); NULL when memory is out. */
struct cJSON *record_json(const struct cJSON *record);

#endif
