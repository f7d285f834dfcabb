/* Cutting a task into units. A unit is a run of one plan item's elements that
 * fits a slab with everything it needs: source bytes, block scales, output. */
#ifndef SLUICE_WORKER_UNIT_H
#define SLUICE_WORKER_UNIT_H

#include "worker/engine.h"

#define SL_UNIT_RUNS 16
/* Reads of at least this size may use O_DIRECT; their place has room for the enclosing pages. */
#define SL_UNIT_BIG (64u << 10)

enum sl_unit_mode {
    SL_UNIT_IN_ORDER, /* output = the runs one after the other */
    SL_UNIT_PERMUTED, /* one run: whole heads, rows to be interleaved */
    SL_UNIT_VIEWED,   /* one run: whole periods of a view, to be brought into its order */
    SL_UNIT_HEADS_K,  /* each run is a head's matrix, to be transposed */
    SL_UNIT_COLUMNS_K,/* one run: columns [col0, col0 + n_cols) of a head, its rows read one by one */
    SL_UNIT_VALUES,   /* no source: the model's own values */
    SL_UNIT_PRODUCT,  /* two runs, element times element */
    SL_UNIT_IDS,      /* as SL_UNIT_IN_ORDER, integers that are to be I32 */
};

/* What packed integers need besides, and these themselves where they are not packed along rows: a line or several at equal
 * distances. */
enum { SL_PART_ZEROS, SL_PART_ORDER, SL_PART_CODES, SL_PART_SCALES, SL_UNIT_PARTS };
struct sl_unit_part {
    uint32_t tensor;         /* of the checkpoint */
    uint64_t from, step, n;  /* byte of the tensor at which the first line begins; from one to the next; lines, 0: nothing */
    uint64_t bytes;          /* of a line */
    uint64_t place, at;      /* slab offset of the room for the first, the others follow it; of the first, once read */
};

/* A run of elements of one source matrix, and where they lie in the slab. */
struct sl_unit_run {
    uint32_t src;            /* index into model->src */
    uint64_t first, elems;   /* in the matrix */
    uint64_t at;             /* slab offset of the first element, once read */
    uint64_t place;          /* slab offset of the room for it */
    uint64_t scale_first;    /* in the scale tensor */
    uint64_t n_scales;       /* contiguous there; 0: none */
    uint64_t scale_raw;      /* slab offset of the scales as read */
    uint64_t scale_f32;      /* slab offset of the scales in F32 */
    uint64_t scale_row0;     /* scale row of the first */
    bool narrow;             /* the run lies in one row, the scales are those over it only */
    struct sl_unit_part part[SL_UNIT_PARTS];
    uint64_t zeros;          /* slab offset of the zero points, an int16_t for each scale */
    uint64_t row0, rows;     /* of codes that are not packed along rows: those that are read, whole words */
};

struct sl_unit {
    uint32_t tensor;         /* plan tensor */
    uint64_t elem0, elems;   /* of the output */
    bool ends_item;          /* the last unit of its plan item */
    enum sl_unit_mode mode;
    uint32_t n_runs;
    struct sl_unit_run run[SL_UNIT_RUNS];
    uint64_t col0, n_cols;
    uint64_t n_plain, n_reads; /* reads of weights; of all: sl_unit_read's i runs below this */
    bool raw;                /* output bytes = source bytes */
    bool round;              /* round through BF16 */
    bool weighted;           /* the tensor has importance weights */
    uint64_t out_at;         /* slab offset (raw: known once read), in large slabs with the same
                                place in its page as file_at */
    uint64_t out_bytes;
    uint64_t file_at;        /* offset in the segment's file */
};

/* What cutting and converting need to know; constant while the engine lives. */
struct sl_unit_env {
    const struct sl_checkpoint *ck;
    const struct sl_plan *plan;
    uint64_t slab_bytes;
    enum sl_backend backend;
    bool round_bf16;
    struct sl_engine_weights weights;
    const struct sl_member *group; /* all members, when there are several: units fit each */
    unsigned n_group;
};

/* Where the cutting of a task stands. */
struct sl_cut {
    const struct sl_plan_task *task;
    uint32_t item;           /* of the task */
    uint64_t pos;            /* elements of the item that are cut off already */
    bool checked;            /* the item's tensor is consistent with its sources */
    uint64_t per_src;        /* output elements from one source */
    uint64_t grain;          /* units are multiples of it */
    bool weighted;
};

/* Effect: *c = the begin of the task, which must outlive it. */
void sl_cut_begin(struct sl_cut *c, const struct sl_plan_task *task);

/* Effect: cuts the next unit. Returns 1 with *u filled, 0 at the task's end.
 * Errors: SL_ESOURCE (a tensor that does not fit its file's entry),
 * SL_EUNSUPPORTED (a row, head or scale row that fits no slab), SL_EFAIL (a
 * plan at odds with its model). */
int sl_cut_next(const struct sl_unit_env *env, struct sl_cut *c, struct sl_unit *u,
                struct sl_error *e) SL_MUST_USE;

/* Effect: checks the item's tensor and sources, and fills what c keeps of them. */
int sl_cut_check(const struct sl_unit_env *env, struct sl_cut *c, const struct sl_plan_item *it,
                 struct sl_error *e) SL_MUST_USE;

/* Effect: makes a unit that is read the next member's: its type, its place for the
 * output. In a group, before every sl_unit_convert. */
void sl_unit_turn(const struct sl_unit_env *env, struct sl_unit *u);

static inline uint64_t sl_elem_bytes(const struct sl_dtype_info *d, uint64_t n)
{
    return n / d->block * d->bytes;
}

/* Effect: sets n_plain and n_reads of a unit that is cut; rows: of a head, of which SL_UNIT_COLUMNS_K reads each by itself. */
void sl_unit_count_reads(struct sl_unit *u, uint64_t rows);

/* One read of a unit. */
struct sl_unit_read {
    uint32_t file;
    uint64_t off;
    uint32_t bytes;
    uint64_t place;          /* slab offset; a multiple of 4096 when big */
    bool big;                /* the enclosing pages may be read instead */
    uint32_t tensor;         /* of the checkpoint, for messages */
};
/* Effect: *r = read i of the unit, 0 to n_reads - 1. */
void sl_unit_read(const struct sl_unit_env *env, const struct sl_unit *u, uint64_t i,
                  struct sl_unit_read *r);

/* Effect: tells the unit at which slab offset read i put its first wanted byte. */
void sl_unit_placed(struct sl_unit *u, uint64_t i, uint64_t at);

struct sl_needs {
    uint64_t slab; /* bytes that the plan's longest indivisible piece takes (a row with importance weights, rows of packed integers) */
    uint64_t row;  /* the longest row with importance weights */
    uint64_t band; /* bytes of a band of rows of packed integers that lie side by side; 0: none do */
};
/* Effect: *n = what the plan needs. */
void sl_unit_needs(const struct sl_unit_env *env, struct sl_needs *n);

#define SL_CHUNK 8192u       /* weights that are converted at a time, where rows are not longer */
#define SL_ZERO_BLOCK_MAX 512 /* bytes of the largest block of a type */

/* Some rows of a run whose rows lie side by side, one after the other; two, since rows that are permuted come from two places. */
#define SL_BANDS 2
struct sl_band {
    uint8_t *data;
    const struct sl_unit_run *run; /* NULL: nothing is in it */
    uint64_t row, rows;            /* of the matrix */
};

/* Scratch of one compute thread: three arrays of `floats`. w_rows rows at the start
 * of w are the weights of one matrix of a tensor, kept for the next chunk. */
struct sl_scratch {
    uint64_t floats;
    float *x, *w, *t;
    const struct sl_plan *w_plan;
    uint32_t w_tensor;
    uint64_t w_slice, w_rows;
    int zero_type;           /* the type of zero_block + 1; 0: none yet */
    uint8_t zero_block[SL_ZERO_BLOCK_MAX]; /* what that type makes of a block of zeros */
    struct sl_band band[SL_BANDS]; /* the one used last is the first */
};
/* Returns the memory that sl_scratch_open takes. */
uint64_t sl_scratch_bytes(const struct sl_needs *n);
/* Effect: room for the longest row, or a chunk, whichever is more, and for bands. Errors: SL_EFAIL. Free with
 * sl_scratch_close. */
int sl_scratch_open(struct sl_scratch *s, const struct sl_needs *n, struct sl_error *e) SL_MUST_USE;
void sl_scratch_close(struct sl_scratch *s);

/* Effect: turns the scales of a unit, whose reads are all in its slab, into F32 there,
 * and fills src[0..n_runs). Errors: SL_ESOURCE, naming the scale. */
int sl_unit_sources(const struct sl_unit_env *env, const struct sl_unit *u, uint8_t *slab,
                    struct sl_source *src, struct sl_error *e) SL_MUST_USE;

/* Effect: converts a unit whose reads are all in its slab; the output lies at
 * u->out_at. Errors: SL_ESOURCE with tensor, row and column or scale, and
 * file; SL_EUNSUPPORTED. */
int sl_unit_convert(const struct sl_unit_env *env, struct sl_unit *u, uint8_t *slab,
                    struct sl_scratch *s, struct sl_error *e) SL_MUST_USE;

#endif
