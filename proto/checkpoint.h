/* A checkpoint as Sluice sees it: files, and named tensors inside them. Made
 * from a Hugging Face folder (safetensors, one file or an index with shards),
 * one .safetensors file, or GGUF file(s); only headers are read. */
#ifndef SLUICE_PROTO_CHECKPOINT_H
#define SLUICE_PROTO_CHECKPOINT_H

#include "proto/error.h"
#include "proto/source_file.h"
#include "proto/types.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define SL_SRC_MAX_DIMS 8
#define SL_SRC_MAX_TENSORS 1000000u /* of a checkpoint; Kimi-K2-Thinking has 208,000. It bounds the memory of a plan */
#define SL_NO_TENSOR UINT32_MAX

struct sl_src_file {
    char *path;       /* openable from the current folder */
    char *name;       /* as the index names it (base name) */
    uint64_t size;    /* bytes, when its header was read */
    int64_t mtime_ns; /* likewise; a change means another source */
    struct sl_source_hole hole; /* of a safetensors file */
};

struct sl_src_tensor {
    const char *name;
    enum sl_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[SL_SRC_MAX_DIMS]; /* outermost first, as safetensors has it */
    uint64_t elems;                  /* product of shape */
    uint32_t file;                   /* index into files */
    uint64_t offset;                 /* of the first byte, from the start of the file */
    uint64_t bytes;
};

#define SL_SHAPE_TEXT (SL_SRC_MAX_DIMS * 22 + 3)

/* Effect: the shape as safetensors has it, "[7168, 2048]". Returns buf. */
const char *sl_src_shape_text(const struct sl_src_tensor *t, char buf[SL_SHAPE_TEXT]);

struct sl_gguf; /* proto/gguf.h */
struct cJSON;
struct sl_roots; /* proto/roots.h */

/* How codes lie in words: along a row; or with rows side by side, as GPTQ has it: in a word the next weights of one row, and behind it the
 * same of the next row; or as AWQ: in a word the same column of the next eight rows. */
enum sl_packing { SL_PACKED_ALONG, SL_PACKED_GPTQ, SL_PACKED_AWQ };

/* Returns the bits of a packed integer's code; 0: the dtype is of none. */
static inline unsigned sl_packed_bits(enum sl_dtype t)
{
    return t == SL_DTYPE_I2 ? 2 : t == SL_DTYPE_I4 ? 4 : t == SL_DTYPE_UINT8 ? 8 : 0;
}

/* Returns how many bits of a word are below the code, or zero point, of a row: of AWQ even rows lie before odd ones. */
static inline unsigned sl_packed_shift(enum sl_packing packing, unsigned bits, uint64_t row)
{
    unsigned in = (unsigned)(row % (32 / bits));

    return bits * (packing == SL_PACKED_AWQ ? in / 2 + in % 2 * 4 : in);
}

#define SL_MORE_BLOCKS 7

/* Effect: of words of 2-bit codes, twice as many words of the same codes in 4 bits; `to` may be `from`. */
static inline void sl_packed_widen(const uint8_t *from, uint64_t words, uint8_t *to)
{
    while (words--) {
        uint32_t w, half[2];

        memcpy(&w, from + 4 * words, 4);
        for (int i = 0; i < 2; i++) {
            half[i] = w >> 16 * i & 0xffff;
            half[i] = (half[i] | half[i] << 8) & 0x00ff00ff;
            half[i] = (half[i] | half[i] << 4) & 0x0f0f0f0f;
            half[i] = (half[i] | half[i] << 2) & 0x33333333;
        }
        memcpy(to + 8 * words, half, 8);
    }
}

struct sl_checkpoint {
    char *dir;  /* folder with config and tokenizer; NULL for GGUF sources */
    const struct sl_roots *roots; /* which its files must not leave; NULL: none are set */
    bool is_gguf;
    struct sl_src_file *files;     /* in index or split order (sorted by name) */
    uint32_t n_files;
    struct sl_src_tensor *tensors; /* sorted by (file, offset) */
    uint32_t n_tensors;
    struct sl_gguf *gguf;          /* metadata of a GGUF source (first split) */
    struct cJSON *config;          /* config.json; NULL for GGUF sources, and for a single
                                    * .safetensors file without one beside it */
    uint64_t fp8_block_rows;       /* quantization_config.weight_block_size, or what it says otherwise; 0: not given */
    uint64_t fp8_block_cols;
    struct sl_block { uint64_t rows, cols; } fp8_more[SL_MORE_BLOCKS]; /* those of other layers, where blocks are of several sizes */
    unsigned n_fp8_more;
    bool fp8_by_row;               /* it tells of one scale for each row (compressed-tensors' strategy "channel"); these
                                    * all are of INT8 as well */
    bool int8;                     /* it tells of 8-bit integers */
    bool fp8_method;               /* quant_method is fp8 */
    unsigned int_bits;             /* quantization_config tells of packed integers of so many bits, 2, 4 or 8; 0: it does not */
    uint64_t int_group;            /* weights of a row under one scale of these; 0: the whole row */
    bool int_zeros, int_order;     /* they have zero points; columns have groups by a list */
    enum sl_packing int_packing;
    uint8_t int_zero_plus;         /* as sl_scale's */
    bool mxfp4, nvfp4;             /* quantization_config tells of weights packed as MXFP4; as NVFP4, or a weight is that */
    void *priv;                    /* name table and arenas */
};

/* Effect: reads the headers of the checkpoint at path (a folder, a
 * .safetensors file, a model.safetensors.index.json, or a GGUF file, which
 * may be the first of a split set and may have any name) and cross-checks them. Nothing is trusted
 * before it is held against the file's length. In a folder, symbolic links are
 * followed only to files inside it or in a Hugging Face cache (sl_source_open). *out is the caller's; free it
 * with sl_checkpoint_close. Errors: SL_ESOURCE (damaged or missing, naming the
 * file and tensor), SL_EUNSUPPORTED (dtype, format). */
int sl_checkpoint_open(const char *path, struct sl_checkpoint **out, struct sl_error *e)
    SL_MUST_USE;

/* Told of each file whose header was read, while a checkpoint is opened; an error of its ends that. */
struct sl_header_watch {
    int (*step)(void *user, struct sl_error *e);
    void *user;
};

/* Effect: the same for a process that reads for others: what a link leads to
 * must lie below one of the roots as well, which must outlive the checkpoint. watch: NULL: nobody is told.
 * Errors: SL_EUSAGE besides, and the watch's. */
int sl_checkpoint_open_within(const char *path, const struct sl_roots *roots, const struct sl_header_watch *watch,
                              struct sl_checkpoint **out, struct sl_error *e) SL_MUST_USE;

/* Effect: the same from a config.json alone (before anything is downloaded):
 * no files, no tensors, only config and what it says of scales. */
int sl_checkpoint_open_config(const char *path, struct sl_checkpoint **out, struct sl_error *e)
    SL_MUST_USE;

/* Returns config.json, with the entries of its text_config in their place where the model's class has
 * its text model there (Kimi-K2.5, K3, Llama-4, MiniMax-M3, Qwen3.5, Qwen3-VL). Borrowed; NULL where there is none. */
const struct cJSON *sl_checkpoint_config(const struct sl_checkpoint *ck);

/* Effect: has an error about the source begin with its path, as it was given; one of SL_ESOURCE and
 * SL_EUNSUPPORTED alone. */
void sl_checkpoint_fail(const struct sl_checkpoint *ck, struct sl_error *e);

/* Frees everything; NULL is allowed. */
void sl_checkpoint_close(struct sl_checkpoint *ck);

/* Returns the index of the tensor with this name, or SL_NO_TENSOR. O(1). */
uint32_t sl_checkpoint_find(const struct sl_checkpoint *ck, const char *name);

#define SL_F4_GROUP 32u /* weights of a row under one scale: MXFP4's block; ... */
#define SL_NVFP4_GROUP 16u /* ... NVFP4's */

/* The scales of a weight in FP8, INT8, I4, UINT8 or F4. */
struct sl_scale {
    uint32_t tensor;     /* the scale tensor; SL_NO_TENSOR: the weight has none */
    uint64_t rows, cols; /* of the scale matrix */
    uint64_t block_rows; /* weight rows under one scale */
    uint64_t block_cols; /* weight columns under one scale */
    uint64_t part_rows;  /* weight rows after which blocks begin anew; 0: they do not ... */
    uint64_t part_blocks; /* ... and the rows of scales of so many */
    uint32_t width;      /* bytes of one as stored, when planned from config.json alone; ... */
    uint64_t more;       /* ... and those of zero points and order */
    uint32_t zeros, order; /* of packed integers: 1 + the tensor of zero points, of each column's group; 0: none */
    enum sl_packing packing; /* of these; but for SL_PACKED_ALONG scales and zero points lie by groups, then rows */
    uint8_t zero_plus;   /* what a zero point is more than as stored */
    bool any_sign;       /* of integers: negative scales mean what they say; of FP8, F4 they are damage */
    bool no_sign;        /* of NVFP4's groups: of a 0 the sign is lost, as in ggml's blocks */
};

/* How many parts a matrix may have of which each has blocks of its own: queries, keys and values in one, as MiMo-V2.5 ships them. */
enum { SL_SCALE_PARTS = 2 };
extern const uint8_t sl_scale_parts[SL_SCALE_PARTS];

/* Returns the row of scales of a weight's row. */
static inline uint64_t sl_scale_row(const struct sl_scale *s, uint64_t row)
{
    return s->part_rows ? row / s->part_rows * s->part_blocks + row % s->part_rows / s->block_rows : row / s->block_rows;
}

/* Returns the i-th size of blocks of FP8 and INT8 in config.json, 0 x 0 behind the last. */
static inline struct sl_block sl_checkpoint_block(const struct sl_checkpoint *ck, unsigned i)
{
    if (!ck->fp8_block_rows || !ck->fp8_block_cols || i > ck->n_fp8_more)
        return (struct sl_block){0, 0};
    return i ? ck->fp8_more[i - 1] : (struct sl_block){ck->fp8_block_rows, ck->fp8_block_cols};
}

/* Effect: finds the scale tensor of the weight (names "X.weight_scale_inv", "X.weight_scale", "X.scale" for "X.weight")
 * and checks its dtype and shape. Of FP8 (F32, BF16, F16, F8_E8M0, U8 as E8M0): one value for the tensor, one for each
 * row, or ceil(rows / block_rows) x ceil(cols / block_cols), which tells the blocks where config.json has several sizes; of INT8 (F32, BF16, F16) the same; of I4 and UINT8 (F32, BF16, F16) and F4 (F8_E8M0, U8; F8_E4M3: NVFP4):
 * one for each group of a row, of the former two also zero points ("X.weight_zero_point": I32, packed as the weights but down a column), and
 * a list that has for each column its group ("X.weight_g_idx"); of GPTQ "X.scales", "X.qzeros" and "X.g_idx", of AWQ the first two. Queries, keys and values in one matrix ("X.self_attn.qkv_proj.weight", where quant_method is fp8)
 * have blocks that begin anew with each of 8 or 4 parts. Other weights have none. Errors: SL_ESOURCE when it is missing, or of another dtype or shape;
 * SL_EUNSUPPORTED (a weight of four dimensions or more; of three where scales are those of groups). Several FP8 or INT8
 * matrices in one tensor of three, with a scale for each or a matrix of scales for each, are one of all their rows. */
int sl_checkpoint_scale(const struct sl_checkpoint *ck, uint32_t weight, struct sl_scale *out,
                        struct sl_error *e) SL_MUST_USE;

/* What scales a whole weight in NVFP4, one number each, by the names of two formats: "X.weight_scale_2" and "X.input_scale"
 * (ModelOpt's), or "X.weight_global_scale" and "X.input_global_scale" (compressed-tensors'), which are reciprocals. */
struct sl_own_scale {
    uint32_t weight, input; /* SL_NO_TENSOR: the weight is no NVFP4; it has none of its input */
    bool reciprocal;
};

/* Effect: *out = those of a weight. Errors: SL_ESOURCE when the weight's is missing, or one is not a number in F32. */
int sl_checkpoint_own_scale(const struct sl_checkpoint *ck, uint32_t weight, struct sl_own_scale *out, struct sl_error *e)
    SL_MUST_USE;

/* Returns whether this tensor only scales another one (or is an activation
 * scale, or the shape of a packed weight, that conversion drops): it is no weight of the model. */
bool sl_checkpoint_is_scale(const struct sl_checkpoint *ck, uint32_t tensor);

/* Returns 1 when quantization_config says that the linear layer with this weight is not quantized ("ignore" and what other methods call it),
 * or 0: for plans from config.json alone. Errors: SL_EFAIL (out of memory), SL_EUNSUPPORTED (its lists are too long, or take so). */
int sl_checkpoint_ignores(const struct sl_checkpoint *ck, const char *name, struct sl_error *e) SL_MUST_USE;

/* Returns whether the source is a single file named as one shard of several
 * (NAME-00001-of-00003.safetensors); ck->dir is then its folder. */
bool sl_checkpoint_is_shard(const struct sl_checkpoint *ck);

#endif
