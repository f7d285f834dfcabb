/* The worker's pipeline: tasks in, committed-to-file results out.
 *
 *   shard --read--> slab --dequantize + quantize--> slab --write--> segment
 *
 * One I/O thread owns the ring (io_uring, or a pread pool behind the same
 * interface) and all slabs; compute threads convert units (bounded runs of one
 * plan item). Slabs are allocated once; their number and size follow from
 * mem_bytes, whatever a tensor's size. */
#ifndef SLUICE_WORKER_ENGINE_H
#define SLUICE_WORKER_ENGINE_H

#include "kernels/kernels.h"
#include "proto/plan.h"
#include "proto/wire.h"
#include "worker/device.h"

enum sl_io_mode { SL_IO_AUTO = 0, SL_IO_URING, SL_IO_PREAD };
enum sl_direct { SL_DIRECT_AUTO = 0, SL_DIRECT_ON, SL_DIRECT_OFF };

/* Importance weights (proto/imatrix_use.h); all NULL: none. Both functions are called by
 * any thread. */
struct sl_engine_weights {
    bool (*has)(void *user, uint32_t plan_tensor);
    /* out[0..ne[0]) = the column weights of matrix `slice` of a tensor that has them */
    int (*load)(void *user, uint32_t plan_tensor, uint64_t slice, float *out, struct sl_error *e);
    void *user;
    uint64_t column_bytes; /* memory that they keep for each column of the longest row, */
    uint64_t bytes;        /* and besides */
};

struct sl_engine_opts {
    unsigned threads;        /* compute threads; 0: as many as usable cores, fewer for a small job */
    uint64_t mem_bytes;      /* resident memory the engine may use (slabs, scratch); 0: 1 GiB */
    uint64_t beside_bytes;   /* of mem_bytes, what the process needs for other things; a fifth, 160 MiB at
                                most, is left to them in any case */
    enum sl_io_mode io;
    enum sl_direct direct;   /* O_DIRECT for source reads, and for writes to large segments */
    enum sl_backend backend;
    bool round_bf16;         /* --round-through bf16 */
    const char *const *segment_paths; /* plan->n_segments files, existing and preallocated */
    bool sparse;             /* units of zeros become holes in their file, where it can have them */
    struct sl_engine_weights weights;
    uint64_t slab_bytes;     /* 0: chosen from mem_bytes; otherwise asked for (tests) */
    struct sl_faults *faults; /* worker/sysio.h; NULL but in tests */
    const struct sl_devices *devices; /* GPUs in place of the cores, or with them; NULL or none: the
                                         cores. Copied. threads: then those of each device, 0: 4 at most */
    uint64_t vram_bytes;     /* device memory that the engine may take of each; 0: 2 GiB, and
                                no more than half of what is free */
};

/* A smaller output is likely to be used from the page cache next. */
#define SL_DIRECT_SEGMENT (UINT64_C(2) << 30)

/* Whether a segment of so many bytes is opened once more, for O_DIRECT. */
static inline bool sl_engine_opens_direct(enum sl_direct direct, uint64_t file_bytes)
{
    return direct == SL_DIRECT_ON || (direct == SL_DIRECT_AUTO && file_bytes >= SL_DIRECT_SEGMENT);
}

struct sl_engine;
struct sl_faults;

#define SL_ENGINE_MEMBERS 64

struct sl_task_result {
    uint32_t task;           /* index into plan->tasks */
    uint32_t member;         /* whose */
    int code;                /* 0, or what is in error */
    /* XXH64 (seed 0) over the XXH64s of the task's items (8 bytes each, little-endian,
     * in item order). An item's XXH64 is over its output bytes in element order. Per
     * item, so that one pass over the finished file can check them all again. */
    uint64_t checksum;
    struct sl_error error;
};

struct sl_engine_stats {
    uint64_t read_bytes, written_bytes; /* of finished I/O */
    uint64_t hole_bytes;     /* became holes instead of being written */
    uint64_t source_bytes;   /* of the tasks' src_bytes, converted so far; a task that fails
                                takes its share back */
    uint64_t read_wait_ns;   /* compute threads waited for data */
    uint64_t slab_wait_ns;   /* I/O thread had no free slab */
    uint64_t compute_ns;     /* summed over threads */
    uint64_t compute_cpu_ns; /* processor time of the compute threads, hashing included */
    uint64_t reading_ns, ready_ns, writing_ns; /* units being read, waiting for a compute thread,
                                and being written, each multiplied by how long: divided by the
                                time that passed it is a queue's mean length */
    uint64_t sync_ns, syncs; /* in sl_engine_sync */
    const char *io_name;     /* "io_uring", "pread" */
    char backend_name[SL_DEVICES_LABEL]; /* the processor's, or the devices; it may outlive the engine */
    bool direct, direct_out; /* O_DIRECT in use for at least one shard, one segment */
    unsigned threads;
    uint64_t slab_bytes;
    unsigned slabs;
    bool registered;         /* io_uring has the slabs pinned once for all */
    const char *unpinned;    /* why the devices' runtime does not have them; NULL: it does, or there is none */
    uint64_t vram_bytes;     /* in use on each device */
    uint64_t open_ns;        /* until the first task could begin: devices, buffers, threads */
    uint64_t device_units, core_units; /* units that GPUs made; that cores beside them made */
};

/* An engine has a member for each recipe of a sweep, mostly one. Each has a plan of its own over the
 * same checkpoint; all plans are cut alike, so that what is read for one of them serves the others in the
 * same slab, one after the other. */

/* Whether the plans have the same items and tasks over the same source tensors. */
bool sl_engine_same_cuts(const struct sl_plan *a, const struct sl_plan *b);

/* Effect: starts threads and allocates all slabs, for n members, at most SL_ENGINE_MEMBERS. o has n
 * elements: of the first all counts, of the others round_bf16, segment_paths, sparse and weights.
 * A segment file is opened when it is first written to and stays open; of source files only a few are
 * open at a time, each held against the checkpoint's size and time before and after it is read. AUTO
 * reads with O_DIRECT where the filesystem takes it and the file is not in the page cache already, and
 * writes so to segments of at least SL_DIRECT_SEGMENT bytes; ON whenever the filesystem takes it.
 * Checkpoint, plans and all that o points to but devices must outlive the engine. Errors:
 * SL_EUNSUPPORTED (io_uring asked for and refused by the system, a backend that this machine cannot
 * run), SL_EUSAGE (plans that are cut differently; mem_bytes or vram_bytes too small, saying what is
 * needed), SL_EDEVICE, SL_EFAIL. */
int sl_engine_open(const struct sl_checkpoint *ck, const struct sl_plan *const *plans,
                   const struct sl_engine_opts *o, unsigned n, struct sl_engine **out,
                   struct sl_error *e) SL_MUST_USE;

/* Source bytes converted for one member: its part of sl_engine_stats.source_bytes. */
uint64_t sl_engine_member_bytes(const struct sl_engine *en, uint32_t member);

/* Effect: queues a task (index into plan->tasks) for those members whose bits are set: one result each. Never
 * blocks. Tasks are worked on in the order in which they were queued. Errors: SL_EFAIL. */
int sl_engine_submit(struct sl_engine *en, uint32_t task, uint64_t members, struct sl_error *e)
    SL_MUST_USE;

/* Effect: waits at most timeout_ms (negative: without limit) for a finished task (all its bytes handed
 * to the file; not yet synced). Returns 1 with *r filled, 0 on time-out or when nothing is under way,
 * negative when the engine itself failed. A task's own failure is in r->code; the engine goes on.
 * SL_EDEVICE there is no fault of the task: a GPU failed, and every later task ends so too. Nothing is
 * wrong with what was finished; the process should end, and its successor begins with a device made new. */
int sl_engine_wait(struct sl_engine *en, struct sl_task_result *r, int timeout_ms,
                   struct sl_error *e) SL_MUST_USE;

/* Effect: fdatasync of every segment of the member that was written to since the last call. After an
 * error nothing written since the last success may be trusted: make those tasks again; the sync is never
 * retried. Any thread, one at a time. Errors: SL_ENOSPACE, SL_EFAIL. */
int sl_engine_sync(struct sl_engine *en, uint32_t member, struct sl_error *e) SL_MUST_USE;

/* The processors that this process may run on; at least 1. */
unsigned sl_usable_cores(void);

/* Effect: ms[i] += the stage sl_stage_name[i] of PROTOCOL.md's record `stages`. */
void sl_engine_add_stages(const struct sl_engine_stats *st, uint64_t ms[SL_STAGES]);

/* Effect: *out = the counters since sl_engine_open, all devices and threads together. Any thread. */
void sl_engine_stats(const struct sl_engine *en, struct sl_engine_stats *out);

/* Effect: drops queued tasks, waits for the I/O under way, frees everything. */
void sl_engine_close(struct sl_engine *en);

#endif
