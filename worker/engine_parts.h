/* The engine's inside. A unit's way through the threads:
 *
 *   I/O thread        compute threads              I/O thread
 *   cut, read  --ready-->  convert, hash in order  --back-->  write, free
 *
 * Every unit that was issued goes this way, failed or not, so that a task's
 * first error is its lowest unit's and no slab is lost. In a group the unit goes
 * from "back" to "ready" again, for the next member, until all have had it. One lock guards what
 * threads share; nobody holds it while reading, converting, hashing or writing. */
#ifndef SLUICE_WORKER_ENGINE_PARTS_H
#define SLUICE_WORKER_ENGINE_PARTS_H

#include "proto/tensor_hash.h"
#include "worker/engine.h"
#include "worker/gpu_stage.h"
#include "worker/io.h"
#include "worker/slab.h"
#include "worker/srcfile.h"
#include "worker/unit.h"

#include <pthread.h>
#include <stdatomic.h>

#define SL_UNIT_OPS (2 * SL_UNIT_RUNS)

struct sl_engine_unit;

struct sl_engine_op {
    struct sl_io_op io;       /* first: sl_io_wait gives its address */
    struct sl_engine_unit *unit;
    uint64_t read;            /* which of the unit's reads */
    uint32_t file;            /* source file, or segment of a write */
    uint32_t tensor;          /* of the checkpoint */
};

struct sl_engine_task;

/* A slab and the unit that is in it. */
struct sl_engine_unit {
    struct sl_unit u;
    struct sl_engine_task *task;
    uint64_t index;           /* in the task */
    uint8_t *slab;
    uint64_t reads_begun;     /* I/O thread's, like pending */
    unsigned pending;         /* reads, later writes, under way */
    struct sl_engine_op op[SL_UNIT_OPS];
    int code;                 /* its failure, or 0 */
    int read_code;            /* the same of its reads, for every member */
    bool drop;                /* nothing is written */
    bool zeros;               /* its output is all zeros, and sparse is asked for */
    struct sl_error err;
    struct sl_engine_unit *next;
};

struct sl_engine_task {
    uint32_t task, member;
    struct sl_engine_task *twin;  /* the same task of the next member */
    struct sl_cut cut;        /* I/O thread's, like the next two; the first member's alone */
    uint64_t issued, settled;
    bool cut_done;
    uint64_t elems;           /* of all items */
    struct sl_hash *hash;     /* of the item's bytes; whoever has chain_busy, like sum */
    struct sl_hash *sum;      /* of the items' hashes */
    uint64_t hashed;          /* units whose turn has come; under the lock, like all below */
    struct sl_engine_unit *waiting;
    bool chain_busy;
    int code;
    uint64_t err_unit;        /* lowest failed unit */
    struct sl_error err;
    uint64_t elems_done, counted; /* counted: part of stats.source_bytes */
    uint64_t checksum;
    struct sl_engine_task *next;  /* queue, current tasks, or results */
};

struct sl_task_list {
    struct sl_engine_task *head, *last;
};

#define SL_NO_DIRECT (-2)

struct sl_segment {
    int fd;                   /* -1: not opened; set by the I/O thread before dirty */
    int direct;               /* the same file with O_DIRECT; -1: not opened, SL_NO_DIRECT: cannot be */
    bool refused;             /* a direct write was */
    _Atomic bool dirty;       /* written to since the last sync */
};

/* How many there are, and the sum of that over time. One thread at a time changes it. */
struct sl_gauge {
    unsigned n;
    uint64_t since;
    _Atomic uint64_t area_ns;
};

struct sl_member {
    struct sl_unit_env env;
    const char *const *segment_paths;
    bool sparse;
    struct sl_segment *segments;
    _Atomic uint64_t source_bytes;
};

/* Nanoseconds an element, 0: not known: of a device's thread between two units, while it has
 * work; of a core. */
#define SL_PACES 64
struct sl_pace {
    float device, core;
    bool measuring;
};

struct sl_compute {
    struct sl_engine *en;
    _Atomic uint64_t cpu_ns;
    struct sl_scratch scratch;
    pthread_t thread;
    const struct sl_gpu_device *gpu; /* NULL: the thread converts by itself */
    struct sl_gpu_stage stage;
    struct sl_engine_unit *in_slot[SL_GPU_SLOTS_MAX];
    uint64_t begun_ns[SL_GPU_SLOTS_MAX], ended_ns;
};

struct sl_engine {
    struct sl_unit_env env;       /* the first member's */
    struct sl_member *members;
    unsigned n_members;
    struct sl_engine_opts opts;
    unsigned threads;
    struct sl_slabs slabs;
    struct sl_devices devices;
    struct sl_gpu_device *gpu;    /* devices.n of them */
    unsigned slots;               /* of each thread of a device */
    unsigned spare;               /* threads of cores beside the devices, after those of the devices */
    uint64_t longest_row;         /* with weights */
    uint64_t vram_bytes, open_ns;
    bool pinned;
    const char *unpinned;         /* the runtime's words, where it does not pin */
    struct sl_engine_unit *units;

    pthread_t io_thread;
    struct sl_compute *compute;
    unsigned n_compute;           /* started */
    struct sl_io *io;             /* made and freed by the I/O thread */

    pthread_mutex_t lock;
    pthread_cond_t work, done;    /* done: also that the I/O thread is up */
    pthread_cond_t help;          /* what spare threads wait for */
    struct sl_task_list queue, results; /* submitted; finished */
    struct sl_engine_unit *ready, **ready_tail;
    struct sl_engine_unit *back, **back_tail;
    unsigned under_way;           /* tasks submitted and not in results */
    bool io_started, io_up;       /* the thread exists; io can be woken */
    const char *io_name;          /* set before io_up, like registered */
    bool registered;
    bool stop, no_more;           /* stop: close was called; no_more: compute threads end */
    unsigned stages_up;           /* threads of devices that have begun, well or not */
    struct sl_error lost;         /* the first failure of a device; code 0: none */
    struct sl_pace pace[2][SL_PACES]; /* by weights or none, type */
    unsigned in_slots;            /* units at devices */
    bool broken;
    struct sl_error err;          /* why it is broken, or why the I/O thread did not start */

    struct sl_engine_unit *free_units; /* I/O thread's, like all up to files */
    unsigned n_free;
    struct sl_task_list current;  /* taken from the queue, not finished */
    struct sl_engine_task *cutting; /* the last of them, while units are cut off it */
    struct sl_srcfiles *files;

    _Atomic uint64_t read_bytes, written_bytes, hole_bytes, read_wait_ns, slab_wait_ns, compute_ns, sync_ns, syncs;
    _Atomic uint64_t device_units, core_units; /* the latter: beside devices */
    struct sl_gauge reading, writing; /* units; the I/O thread's */
    struct sl_gauge ready_units;      /* under the lock */
    _Atomic bool direct, direct_out;
};

/* A list of tasks, linked by next: appends; takes the first (NULL: none); takes t out, which
 * must be in it. */
void sl_task_push(struct sl_task_list *l, struct sl_engine_task *t);
struct sl_engine_task *sl_task_pop(struct sl_task_list *l);
void sl_task_remove(struct sl_task_list *l, struct sl_engine_task *t);

/* Effect: notes a task's failure at this unit, unless a lower unit failed. Lock held. */
void sl_task_fail(struct sl_engine_task *t, uint64_t unit, int code, const struct sl_error *err);

/* Effect: hands a unit to the compute threads, whatever its state. I/O thread. */
void sl_engine_ready(struct sl_engine *en, struct sl_engine_unit *u);

/* CLOCK_MONOTONIC; this thread's processor time. */
uint64_t sl_now_ns(void);
uint64_t sl_thread_cpu_ns(void);
/* Effect: the gauge's number goes up or down, after what it was has been added to its sum over time. */
void sl_gauge_add(struct sl_gauge *g, int change);

/* The threads' functions; the argument is the engine, or a struct sl_compute. */
void *sl_engine_io_thread(void *arg);
void *sl_engine_compute_thread(void *arg);
void *sl_engine_device_thread(void *arg);
void *sl_engine_spare_thread(void *arg);

/* All three with the lock held. The next unit to convert, or NULL: when the engine closes, or
 * (with no wait) when there is none now. Converting it on a core, without the lock; sets its code and
 * returns the nanoseconds. Passing on a converted unit and those it held up. */
struct sl_engine_unit *sl_engine_take(struct sl_engine *en, bool wait);
uint64_t sl_engine_convert(struct sl_compute *me, struct sl_engine_unit *u);
void sl_engine_pass(struct sl_engine *en, struct sl_engine_unit *u);
/* The plan that the unit is to be converted for now; in a group the unit is made that one's. */
const struct sl_unit_env *sl_engine_turn(struct sl_engine *en, struct sl_engine_unit *u);
/* Whether the unit is still to be converted; sets its code where the engine stops. */
bool sl_engine_wanted(struct sl_engine *en, struct sl_engine_unit *u);

/* engine_spare.c. The unit's place in `pace`, or NULL. */
struct sl_pace *sl_engine_pace(struct sl_engine *en, const struct sl_engine_unit *u);

/* engine_device.c. Effect: opens the devices of opts; chooses threads and slots for them. */
int sl_engine_open_devices(struct sl_engine *en, struct sl_error *e) SL_MUST_USE;
/* Effect: holds the slots against vram_bytes, once slabs are chosen; pins the slabs. */
int sl_engine_fit_devices(struct sl_engine *en, struct sl_error *e) SL_MUST_USE;
void sl_engine_close_devices(struct sl_engine *en);

#endif
