/* Quantizing on a GPU: what one launch does, and the runtime calls that a
 * pipeline needs, as a table. There is one table in the program (gpu_api.c: the
 * CUDA runtime, or none where nvcc was not there); tests link one of their own
 * that computes on the CPU. No CUDA type appears here. */
#ifndef SLUICE_KERNELS_GPU_H
#define SLUICE_KERNELS_GPU_H

#include "kernels/grids.h"
#include "proto/error.h"
#include "proto/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SL_GPU_RUNS 16 /* of a launch, at most */
#define SL_GPU_LOAD 32 /* elements of a block that are loaded at once, at most */

/* A run of elements of one source matrix, as struct sl_source (kernels.h) has it;
 * data and scale are offsets in the launch's input. */
struct sl_gpu_run {
    uint64_t data, scale;     /* scale: of its F32 scales; UINT64_MAX: none */
    uint64_t end;             /* SL_GPU_IN_ORDER: output elements up to its end */
    uint64_t first, cols, scale_row0, scale_cols, block_rows, block_cols;
};

enum sl_gpu_order {
    SL_GPU_IN_ORDER, /* the runs one after the other */
    SL_GPU_PAIRED,   /* one run; rows of a head are interleaved from its two halves */
    SL_GPU_COLUMNS,  /* each run is a head, `height` rows of it, transposed */
    SL_GPU_VIEWED,   /* one run; pieces of `view_run` elements of it, piece q from q % n[0] * step[0] +
                        q / n[0] % n[1] * step[1] + q / (n[0] * n[1]) * step[2] on */
};

/* One launch. Pointers are the device's. */
struct sl_gpu_work {
    int type, dtype;
    bool weighted, round;     /* round: through BF16 */
    enum sl_gpu_order order;
    uint32_t n_runs;
    uint64_t elems;           /* of the output; whole blocks, with weights whole rows */
    uint64_t elem0;           /* of the tensor: where the output begins in it */
    uint64_t row, matrix;     /* elements of an output row, and of one slice of weights */
    uint64_t slice0;          /* w[0] belongs to this slice */
    uint64_t cols, pair_rows; /* SL_GPU_PAIRED: row length, rows of a head */
    uint64_t width, height;   /* SL_GPU_COLUMNS: columns of a head here, rows taken of it */
    uint64_t source_width;    /* columns of the source matrix */
    uint64_t view_run;        /* SL_GPU_VIEWED: a multiple of SL_GPU_LOAD or of the type's block */
    uint64_t view_n[2], view_step[3];
    const uint8_t *in;
    const float *w;           /* `row` column weights of each slice */
    float *means;             /* room for one value a row: q4_0 to q5_1 with weights */
    uint8_t *out;
    uint32_t *status;         /* set to 1 where an element is not finite; never cleared */
    struct sl_grid grid;      /* with the device's pointers, for types on grids */
    struct sl_gpu_run run[SL_GPU_RUNS];
};

/* Returns whether a launch can make the type from elements of the dtype. */
bool sl_gpu_takes(int type, int dtype);

/* Returns the grid of a type, or SL_GRID_COUNT. */
enum sl_grid_id sl_gpu_grid_of(int type);

struct sl_gpu_info {
    char name[128], uuid[48]; /* uuid: "GPU-..."; of an instance of a divided GPU "MIG-..." */
    uint64_t memory;          /* bytes */
    int major, minor, processors;
    char bus[32];             /* PCI address */
};

enum sl_gpu_fault {
    SL_GPU_FAULT_CALL,   /* a call was wrong: a bug */
    SL_GPU_FAULT_DRIVER, /* there is none, or it is older than the runtime */
    SL_GPU_FAULT_NONE,   /* there is no device that this process may use */
    SL_GPU_FAULT_MEMORY, /* no device memory was left; the device goes on */
    SL_GPU_FAULT_START,  /* the driver or the device does not take this process */
    SL_GPU_FAULT_LOST,   /* nothing more can be had of the device in this process */
};

/* Functions return 0 or an error number for fault() and words(). A stream is a
 * queue: what is put into one is done in order, beside the others. A device
 * belongs to the calling thread after use(). */
struct sl_gpu_api {
    int (*count)(int *n);
    int (*info)(int device, struct sl_gpu_info *out);
    int (*use)(int device);
    int (*memory)(uint64_t *available);
    int (*alloc)(size_t n, void **out);
    int (*release)(void *p);
    int (*pin)(void *p, size_t n);       /* host memory that is mapped already */
    int (*unpin)(void *p);
    int (*host_alloc)(size_t n, void **out); /* pinned */
    int (*host_release)(void *p);
    int (*stream_new)(void **out);
    int (*stream_free)(void *stream);
    int (*copy_in)(void *stream, void *device, const void *host, size_t n);
    int (*copy_out)(void *stream, void *host, const void *device, size_t n);
    int (*run)(void *stream, const struct sl_gpu_work *w);
    int (*wait)(void *stream);           /* until the stream is empty; tells of what failed in it */
    enum sl_gpu_fault (*fault)(int err);
    const char *(*words)(int err);
};

/* Returns the program's table, or NULL in a build without CUDA. */
const struct sl_gpu_api *sl_gpu_api(void);

/* A device with what all its launches share. */
struct sl_gpu_device {
    const struct sl_gpu_api *api;
    int number;
    struct sl_gpu_info info;
    struct sl_grid grid[SL_GRID_COUNT]; /* the device's pointers */
    void *grids;
};

/* Returns whether the kernels run on such a device: compute capability 8.0, for which the oldest
 * of them is compiled, and later. */
bool sl_gpu_fits(const struct sl_gpu_info *info);

/* Returns the number of devices; 0 without a driver or in a build without CUDA. */
int sl_gpu_count(const struct sl_gpu_api *api);

/* Returns why there is no device, in words that follow a colon; NULL where there is one. */
const char *sl_gpu_absence(const struct sl_gpu_api *api);

/* Effect: makes the device the thread's, and uploads the grids (some 7 MB).
 * Errors: SL_EUNSUPPORTED (no such device, or one that does not fit), SL_EDEVICE. Free with sl_gpu_close. */
int sl_gpu_open(const struct sl_gpu_api *api, int device, struct sl_gpu_device *out, struct sl_error *e) SL_MUST_USE;
void sl_gpu_close(struct sl_gpu_device *d);

/* Effect: *e names the device, what was tried, and the runtime's words for err. Returns SL_EDEVICE. */
int sl_gpu_fail(const struct sl_gpu_device *d, int err, const char *what, struct sl_error *e);

/* Effect: one launch, blocking. w's in (in_bytes), w (w_floats) and out are host memory, copied from and to the
 * device; its grid, means and status are not looked at. *status as in struct sl_gpu_work, from 0. For checks and
 * benchmarks; a worker keeps its buffers. Errors: SL_EDEVICE. */
int sl_gpu_quantize(const struct sl_gpu_device *d, const struct sl_gpu_work *w, size_t in_bytes, size_t w_floats,
                    uint32_t *status, struct sl_error *e) SL_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
