/* The fields of jobs, workers and events that lists can show. */
#ifndef SLUICE_CLIENT_RECORD_FIELDS_H
#define SLUICE_CLIENT_RECORD_FIELDS_H

#include "client/columns.h"

extern const struct column job_columns[], worker_columns[], event_columns[];

#define JOB_COLUMNS_USUAL "id,state,priority,recipe,name,user,progress,rate,eta,reason"
#define HISTORY_COLUMNS_USUAL "id,state,code,recipe,name,user,submitted,elapsed,file_bytes,reason"
#define WORKER_COLUMNS_USUAL "name,host,device,state,held,job,rate,done,done_bytes,celsius,watts,seen,tensor"

/* What a narrow terminal shows first without. */
#define JOB_COLUMNS_DROP "priority,user,rate,elapsed,code,name,file_bytes,eta,submitted"
#define WORKER_COLUMNS_DROP "host,done_bytes,held,done,seen,watts,celsius,rate"

/* What a job's state may be; NULL ends them. */
extern const char *const job_states[];

struct cJSON;

/* Effect: a copy of a record for JSON lines, with those in it: times in RFC 3339, names as other verbs' JSON and the
 * columns have them (source_bytes, done_bytes). The caller's (cJSON_Delete); NULL when memory is out. */
struct cJSON *record_json(const struct cJSON *record);

/* Effect: buf = why a job is not further, and the verb that lets it go on when a user holds it;
 * else why it failed. */
void record_why(const struct cJSON *job, char *buf, size_t cap);

/* Writes the last part of the path of a job's source, as a column does. */
void record_source_name(const struct cJSON *job, bool raw, char out[CELL_MAX]);

/* Effect: in a job, worker or event, or an array of them, "uid:1000" of this machine becomes
 * its name, for people to read: the user, who holds a job, who changed one. */
void record_name_users(struct cJSON *record);

/* Effect: all texts in a record, or an array of them, are fit for a terminal (sl_utf8_disarm). */
void record_disarm(struct cJSON *record);

#endif
