/* A plan as people look at it: tensor groups, their types, memory on devices. */
#ifndef SLUICE_CLIENT_PLAN_VIEW_H
#define SLUICE_CLIENT_PLAN_VIEW_H

#include "client/plan_devices.h"
#include "worker/output.h"

struct plan_group_type {
    int type;
    uint32_t tensors;
    uint64_t weights, bytes;
};

/* Tensors of one name over all layers: "ffn_down_exps". */
struct plan_group {
    char name[SL_NAME_MAX];
    uint32_t tensors;
    uint64_t weights, bytes;
    struct plan_group_type types[SL_TYPE_LIMIT];
    uint32_t n_types; /* largest share first */
};

struct plan_device_set {
    struct plan_devices devices;
    bool whole_heads;   /* the cache of this row */
    bool paper;         /* as arXiv 2505.02390 counts; otherwise as llama.cpp lays it */
    bool own_layout;    /* llama.cpp's, with the cache that this plan's layout has: one row of a set */
    bool fits;
    struct sl_memory mem; /* on the devices, and of a machine in RAM */
    struct sl_offload offload; /* llama.cpp's; of sets of equal devices `split` is 0 where its own is meant */
    uint64_t longest_ctx; /* that fits a machine, at most the model's own; 0: none */
};

#define PLAN_MAX_DEVICE_SETS 16
#define PLAN_SET_ROWS 3 /* at most, of a set */
struct plan_view {
    const struct sl_job_plan *job;
    struct plan_group *groups; /* most bytes first */
    uint32_t n_groups;
    uint64_t ctx;
    uint32_t ubatch;           /* tokens of a micro-batch */
    struct plan_device_set sets[PLAN_MAX_DEVICE_SETS * PLAN_SET_ROWS];
    uint32_t n_sets;
    const char *out_dir;       /* where the output would go */
    bool out_given;            /* by -o; otherwise it is the current folder */
    uint64_t free_bytes;       /* there; UINT64_MAX: not counted */
    bool config_alone;         /* no files: planned from config.json */
    int unwritable;            /* a type of the plan that cannot be written; -1 */
    const char *needs_imatrix; /* a tensor that needs one; NULL */
    uint32_t requantized;      /* tensors that --allow-requantize is needed for */
    uint32_t grown;            /* tensors that are MXFP4 in the source, in a larger type here */
    uint64_t grown_bytes;      /* that these take more than as they are */
};

/* What is asked of a plan. */
struct plan_question {
    uint64_t ctx;
    uint32_t ubatch;
    struct words devices;      /* texts of sets; none: a common choice for the model's size */
    bool out_given;            /* the place of the output is the user's */
};

/* Effect: computes the view. out: the place of the output. Errors: SL_EUSAGE
 * (devices), SL_EFAIL. Release with plan_view_free in every case. */
int plan_view_make(struct plan_view *v, const struct sl_job_plan *job, const struct plan_question *q,
                   const struct output *out, struct sl_error *e) SL_MUST_USE;
void plan_view_free(struct plan_view *v);

#define PLAN_SERVER_TEXT 512
/* Effect: writes the options with which llama-server lays the model as the set's `offload` has it: "-c 32768 -ngl 99
 * --n-cpu-moe 58". Returns buf. */
const char *plan_view_server(const struct plan_view *v, const struct plan_device_set *s, char buf[PLAN_SERVER_TEXT]);

/* Returns whether a set of equal devices needs --tensor-split. */
bool plan_view_split(const struct plan_device_set *s);

struct cJSON;
/* Effect: prints the view to stdout; as one JSON object with "schema": 1, the fields of
 * `extra` (which it takes; NULL: none) at its end. Errors: SL_EFAIL (memory). */
void plan_view_print(const struct plan_view *v);
int plan_view_json(const struct plan_view *v, struct cJSON *extra, struct sl_error *e) SL_MUST_USE;

#endif
