/* One side of a comparison: a GGUF model (one file or a split set) or a
 * checkpoint, as tensors whose values can be read in pieces. */
#ifndef SLUICE_CLIENT_COMPARE_SIDE_H
#define SLUICE_CLIENT_COMPARE_SIDE_H

#include "client/model_arg.h"
#include "worker/source_element.h"

struct side_tensor {
    const char *name;
    const uint64_t *ne; /* 4 */
    uint64_t elems;
    int type;           /* ggml type; -1 for a checkpoint's, but of integers */
    const char *type_name;
    double weight_bytes; /* bytes of one weight as stored */
    uint32_t file;      /* GGUF: index of the file */
    uint64_t offset;    /* GGUF: of the first byte in it */
    const struct sl_out_tensor *out; /* checkpoint */
};

struct side {
    const char *arg;
    struct gguf_set set;           /* GGUF */
    int fd;                        /* of set.files[file], -1: none is open */
    uint32_t file;
    struct sl_checkpoint *ck;      /* checkpoint */
    struct sl_model *model;
    struct source_reader *reader;
    struct side_tensor *tensors;   /* sorted by name */
    uint64_t n_tensors;
    uint8_t *raw;                  /* SIDE_WEIGHTS weights in any type */
};

#define SIDE_WEIGHTS 65536u /* most weights of one call; a multiple of every block */

/* Effect: opens arg. layout: of a checkpoint's tensors. Release with side_close
 * in every case. Errors: those of the readers; SL_ESOURCE for a tensor that is
 * in two files. */
int side_open(struct side *s, const char *arg, enum sl_layout layout, struct sl_error *e) SL_MUST_USE;
void side_close(struct side *s);

/* Returns whether arg is a checkpoint (no GGUF file). Errors: as model_arg_either. */
int side_is_checkpoint(const char *arg, struct sl_error *e) SL_MUST_USE;

/* Returns the layout that a GGUF side has, by its tensors' names. */
enum sl_layout side_layout(const struct side *s);

/* The metadata: of a GGUF set's first file, or of the model. */
const struct sl_kvs *side_kvs(const struct side *s);

/* Effect: *bytes = n weights of the tensor from weight `first` on, as stored
 * (GGUF only; valid until the next call). first and n: whole blocks, n <=
 * SIDE_WEIGHTS. */
int side_bytes(struct side *s, const struct side_tensor *t, uint64_t first, uint64_t n,
               const uint8_t **bytes, struct sl_error *e) SL_MUST_USE;

/* Effect: out[0..n) = the same weights in F32. Errors: SL_EUNSUPPORTED for a
 * type that cannot be dequantized. */
int side_values(struct side *s, const struct side_tensor *t, uint64_t first, uint64_t n, float *out,
                struct sl_error *e) SL_MUST_USE;

#endif
