/* A conversion from plan to published files, in one process: a queue of its own,
 * and the service's coordinator and worker as threads on it (convert_threads.h).
 * Used by `convert` and `quantize`. */
#ifndef SLUICE_CLIENT_CONVERT_RUN_H
#define SLUICE_CLIENT_CONVERT_RUN_H

#include "client/cli.h"
#include "worker/output.h"
#include "client/progress.h"
#include "worker/engine.h"

struct convert_opts {
    int threads;             /* 0: all cores */
    uint64_t mem_bytes;
    enum sl_io_mode io;
    enum sl_direct direct;
    enum sl_backend backend;
    struct sl_devices devices;
    uint64_t vram_bytes;     /* 0: the engine's choice */
    bool force;              /* replace an existing output; drop other unfinished work */
    bool sha256, sparse;
    bool stats;              /* stage times at the end */
    enum progress_mode progress;
};

/* Effect: makes the files of j->plan in out's folder, or goes on where an earlier
 * run stopped. Errors: SL_EEXISTS, SL_ENOSPACE (nothing written), SL_ESOURCE,
 * SL_EINTERRUPTED (the same command goes on), SL_EVERIFY, SL_EFAIL. */
int convert_run(struct sl_job_plan *j, const struct output *out, const struct convert_opts *o,
                struct sl_error *e) SL_MUST_USE;

/* Effect: where unfinished work of this name was begun with an earlier release's text of j's recipe, and is otherwise
 * the same, *j becomes its plan, and a line says so unless quiet. Anything else is as it was, and convert_run's to
 * judge. Before output_attach. */
void convert_as_begun(struct sl_job_plan *j, const struct output *out, const char *source,
                      const struct cli_plan_args *a, const struct convert_opts *o);

/* Options of both verbs: threads, memory, I/O, force and output of messages. */
struct convert_args {
    int threads;
    const char *mem, *io, *direct, *backend, *device, *vram;
    int force, json, quiet, sha256, dry_run, stats, sparse;
};
#define CONVERT_TABLE_MAX 20
void convert_table(struct convert_args *a, struct poptOption table[CONVERT_TABLE_MAX]);
int convert_options(const struct convert_args *a, struct convert_opts *o, struct sl_error *e)
    SL_MUST_USE;

/* Effect: prints where an engine's time went to stderr. cpu_ns: processor time of the
 * process when the engine's work ended. */
void convert_print_stats(const struct sl_engine_stats *st, uint64_t wall_ns, uint64_t cpu_ns);

/* Effect: the same for the check that follows. */
void convert_print_check(uint64_t bytes, uint64_t wall_ns);

/* Effect: prints the files, tensors and types that would be made, and notes what would keep them from being made;
 * json: as one JSON line, message_type "dry_run". Returns 0. */
int convert_dry_run(const struct sl_job_plan *j, const struct output *out, bool force, bool json);

#endif
