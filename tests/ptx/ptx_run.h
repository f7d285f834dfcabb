/* Inside the machine: a block of threads as it runs. */
#ifndef SLUICE_TESTS_PTX_RUN_H
#define SLUICE_TESTS_PTX_RUN_H

#include "ptx.h"

struct ptx_warp {
    uint32_t *file;                 /* rows */
    uint32_t *set;                  /* lanes that wrote each register that is looked at */
    uint32_t pc[PTX_LANES];
    uint8_t depth[PTX_LANES];
    uint32_t back[PTX_DEPTH][PTX_LANES];
    uint32_t alive, parked;         /* lanes: not yet ended; waiting at their pc for others */
    uint32_t number, meetings;      /* meetings: of all its lanes, counted */
    uint8_t *local, *local_set;     /* each lane's bytes; whether they were written */
};

struct ptx_block {
    struct ptx_launch *launch;
    const struct ptx_module *module;
    struct ptx_warp *warp;
    unsigned n_warps, n_threads;
    uint64_t thread0;               /* number in the launch of the block's first thread */
    uint64_t number;
    uint8_t *shared;
    uint64_t *shadow;               /* of each shared byte */
    uint32_t shared_bytes, static_bytes, epoch;
    uint32_t local_bytes, local_kernel; /* of a lane */
    struct ptx_alloc *last;
    struct ptx_tally *tally;
    bool failed;
    enum ptx_kind kind;
    char finding[900];
};

/* Runs one warp until all its lanes wait or have ended. */
void ptx_run_warp(struct ptx_block *b, struct ptx_warp *w);

/* Memory; false: a finding. */
bool ptx_load(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask);
bool ptx_store(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask);
bool ptx_atomic(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask);
void ptx_shared_epoch(struct ptx_block *b, bool fresh);

/* Notes the first finding. */
bool ptx_finding(struct ptx_block *b, enum ptx_kind kind, const struct ptx_warp *w, unsigned lane, const struct ptx_inst *i,
                 const char *format, ...) __attribute__((format(printf, 6, 7)));

#endif
