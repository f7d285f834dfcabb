/* The tasks of a job beside those of its plan: prepare, stitch, publish, verify,
 * discard (PROTOCOL.md, "Words"). Each can be done again after any crash. */
#ifndef SLUICE_WORKER_TASK_SPECIAL_H
#define SLUICE_WORKER_TASK_SPECIAL_H

#include "worker/job_cache.h"

struct cJSON;

/* What was granted: one task. */
struct sl_work {
    uint64_t job, epoch;
    uint32_t task;
    uint64_t group;          /* sweep; 0: none */
    uint32_t with;           /* so many tasks of the same number came with it, of other jobs of the sweep */
    uint64_t came_ms;        /* the lane's */
    struct cJSON *spec;      /* owned */
    char fingerprint[33];    /* "" for prepare */
    uint64_t granted_ms, lease_ms; /* CLOCK_BOOTTIME; how long the lease lasts, 0: not known */
    char *sums;              /* stitch: 16 digits for each task; owned */
    struct sl_work *next;
};
void sl_work_free(struct sl_work *w);

enum sl_outcome_kind { SL_OUTCOME_RESULT, SL_OUTCOME_FAIL, SL_OUTCOME_GIVEBACK };

/* What came of it; plan, files and bad are the holder's (sl_outcome_free). */
struct sl_outcome {
    uint64_t job, epoch;
    uint32_t task;
    enum sl_outcome_kind kind;
    struct sl_error error;   /* fail */
    uint64_t bytes;          /* of output; discard: 1 when there were files of the job */
    uint64_t checksum;
    bool has_checksum;       /* a plan's task */
    struct cJSON *plan;      /* prepare */
    struct cJSON *files;     /* publish: array of strings, SL_FILES_MAX at most */
    uint64_t *bad;           /* stitch: tasks to be made again */
    uint32_t n_bad;
    struct sl_outcome *next;
};
void sl_outcome_free(struct sl_outcome *o);

struct sl_special_hooks {
    /* n more bytes read, checked, made again or reserved. A negative result stops the task,
     * which is then given back. */
    int (*progress)(void *user, uint64_t n);
    void *user;
};

/* Effect: does w, whose task is a special one, and fills *out (zeroed before)
 * with its result or failure. */
void sl_special_run(struct sl_job_cache *c, const struct sl_work *w,
                    const struct sl_special_hooks *h, struct sl_outcome *out);

#endif
