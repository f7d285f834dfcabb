/* The plan: a pure function of checkpoint headers, recipe and options. Every
 * output byte has its place before the first weight is read. */
#ifndef SLUICE_PROTO_PLAN_H
#define SLUICE_PROTO_PLAN_H

#include "proto/model.h"
#include "proto/recipe.h"

struct sl_plan_tensor {
    const struct sl_out_tensor *t;
    int type;
    uint64_t bytes;    /* without padding */
    uint32_t segment;
    uint64_t offset;   /* in the segment's data section */
    uint64_t file_offset; /* from the start of the segment file */
};

/* A run of one output tensor: contiguous in the output file. */
struct sl_plan_item {
    uint32_t tensor;
    uint64_t elem0, elems; /* multiples of the type's block; whole sources or whole heads
                              where the transform is not SL_COPY */
};

struct sl_plan_task {
    uint32_t first_item, n_items;
    uint64_t src_bytes, out_bytes;
};

struct sl_plan_segment {
    char *name;              /* base name of the final file */
    uint32_t first_tensor, n_tensors;
    struct sl_kvs kvs;       /* this file's key-values, checksums zero; the model's are borrowed */
    uint64_t header_bytes;   /* of what sl_plan_header makes */
    uint64_t data_bytes;     /* padded to 32 */
    uint64_t file_bytes;     /* header_bytes + data_bytes */
};

/* Hashes (hex) of what a plan depends on, to say what differs between two. The
 * first four are each of one thing that was given, and do not depend on the others. */
struct sl_plan_parts {
    char source[33];  /* files (name, size, mtime) and the tensors in them */
    char recipe[33];  /* recipe's name, text and file type */
    char options[33]; /* of the plan's `options` */
    char version[16]; /* SL_BYTES_VERSION */
    char result[33];  /* what came of them: tensors, types, metadata, files, tasks. It differs
                         alone when config.json, the tokenizer or the model card do */
};

struct sl_plan {
    const struct sl_model *model;
    struct sl_plan_tensor *tensors;   /* model's order */
    uint32_t n_tensors;
    struct sl_plan_segment *segments;
    uint32_t n_segments;
    struct sl_plan_item *items;
    uint32_t n_items;
    struct sl_plan_task *tasks;       /* in the order of the source's shards */
    uint32_t n_tasks;
    uint64_t tensor_bytes;            /* sum of tensors[].bytes */
    uint64_t file_bytes;              /* sum of segments[].file_bytes */
    uint64_t src_bytes;               /* to be read, scales included */
    uint32_t n_fallback;
    char *idle;                       /* lines on rules that decide nothing (sl_recipe_idle); NULL: none */
    char fingerprint[33];             /* hex, of all the parts: the same work, task by task */
    char output_id[33];               /* hex, of everything that decides an output byte: like
                                         fingerprint without mtimes, output names and tasks;
                                         it is what SL_KEY_FINGERPRINT holds */
    struct sl_plan_parts parts;
    char *options;                    /* those that decide the work and are not at their
                                         default, by their names on the command line:
                                         "layout=mla split-max-size=48000000000" */
};

struct sl_plan_opts {
    uint64_t split_max_bytes; /* 0: one file */
    uint64_t split_max_tensors; /* 0: no limit */
    bool no_mtp;              /* for `options`; the model lacks those layers already */
    bool no_tensor_first_split;
    bool keep_split;          /* the GGUF source's files again, a first one without tensors too */
    bool round_bf16;          /* --round-through bf16 */
    uint64_t task_bytes;      /* source bytes of a task aimed at; 0: 256 MB */
    const char *prefix;       /* base name of the output without ".gguf" and split suffix */
    const struct sl_kvs *extra_kvs; /* --override-kv, in order; NULL: none */
    const char *model_name;   /* --model-name, for `options`; NULL: none */
};

/* Raised when a release writes other bytes for the same plan. */
#define SL_BYTES_VERSION "2"

/* Key names that Sluice adds to its files. sluice.checksum.tensors holds the XXH64
 * (seed 0) of each tensor's bytes in this file, in tensor-info order;
 * sluice.checksum.records those of the header's own records, so that damage there
 * can be named (proto/header_seal.h); sluice.checksum.header the XXH64 of this file's header with both checksum
 * values zero. Stitch fills them in; they make a file prove itself. */
#define SL_KEY_RECIPE "sluice.recipe"
#define SL_KEY_RECIPE_TEXT "sluice.recipe.text"
#define SL_KEY_SOURCE "sluice.source"
#define SL_KEY_FINGERPRINT "sluice.fingerprint"
#define SL_KEY_VERSION "sluice.version"
#define SL_KEY_LAYOUT "sluice.layout"               /* deepseek2: "mla" or "legacy" */
#define SL_KEY_ROUND_THROUGH "sluice.round_through" /* "bf16", when set */
#define SL_KEY_SUM_TENSORS "sluice.checksum.tensors"
#define SL_KEY_SUM_RECORDS "sluice.checksum.records"
#define SL_KEY_SUM_HEADER "sluice.checksum.header"

/* Effect: builds the plan. Errors: those of sl_recipe_assign; SL_EFAIL. *out is
 * the caller's (sl_plan_close); model and checkpoint must outlive it.
 * ck may be a config-only checkpoint: then tasks and fingerprint say nothing
 * about files. */
int sl_plan_build(const struct sl_checkpoint *ck, const struct sl_model *m,
                  const struct sl_recipe *r, const struct sl_recipe_opts *ro,
                  const struct sl_plan_opts *o, struct sl_plan **out, struct sl_error *e)
    SL_MUST_USE;
void sl_plan_close(struct sl_plan *p);

/* Effect: *buf (the caller's, free) = the header of a segment, its header_bytes bytes, checksum
 * fields zero. Errors: SL_EFAIL (memory). */
int sl_plan_header(const struct sl_plan *p, uint32_t segment, uint8_t **buf) SL_MUST_USE;

/* Writes "name (hash)" to buf: the name for people, the hash (12 digits) for comparisons. */
void sl_plan_label(char buf[256], const char *name, const char *hash);

/* Writes the first option in which two plans' `options` differ to buf: "--layout
 * (then mla, now legacy)". Values that only hashes stand for are left out.
 * Returns buf, or NULL when the texts are no such lists or are equal. */
const char *sl_plan_option_difference(const char *then, const char *now, char *buf, size_t cap);

#define SL_UBATCH 512u /* tokens of a micro-batch, unless said */
/* Returns the bytes of llama.cpp's cache for one sequence of ctx tokens, in micro-batches of `ubatch`: F16 values for each
 * token and layer, for deepseek2 with whole_heads (the legacy layout, as in arXiv 2505.02390) n_head x (head_k + head_v), else
 * kv_lora + rope_dim; for other models n_head_kv x (head_k + head_v). A layer with an indexer has its key besides (and head_v
 * more where there is no kv_lora), one of linear attention a state in F32 instead; one that looks at a window alone has its
 * tokens and a micro-batch's; in models with any of them, layers for multi-token prediction have nothing. */
uint64_t sl_plan_cache(const struct sl_plan *p, uint64_t ctx, bool whole_heads, uint32_t ubatch);

/* Memory at inference, bytes. */
struct sl_memory {
    uint64_t weights, kv_cache, buffers, total;
    uint64_t per_device; /* the most on one device */
};
/* Effect: *out = what arXiv 2505.02390 counts for deepseek2 with a cache of whole heads, for one sequence of ctx tokens in
 * micro-batches of `ubatch` on so many devices, at least 1.
 *   weights     the plan's tensors
 *   kv_cache    sl_plan_cache's, of whole heads
 *   buffers     of each device attention scores of a micro-batch in F16 (n_head x ctx x ubatch x 2), its logits in F32
 *               (n_vocab x ubatch x 4), and 0.3 GiB for the runtime
 *   total       the sum of these; per_device: its even share
 * Of 8 devices and SL_UBATCH the totals are those of its table 1 ("GB" there is GiB) within 0.5 %. llama.cpp takes more on the
 * fullest device: sl_plan_alike. */
void sl_plan_paper(const struct sl_plan *p, uint64_t ctx, uint32_t ubatch, uint32_t devices, struct sl_memory *out);

#define SL_MAX_GPUS 16
#define SL_GPUS_MOST 15u /* that llama.cpp takes beside the processor */
#define SL_HOST_UNKNOWN UINT64_MAX
/* GPUs in the order in which llama.cpp has them. */
struct sl_machine {
    uint64_t gpu[SL_MAX_GPUS]; /* bytes of each */
    uint32_t gpus;
    uint64_t host;             /* bytes of the host's memory; SL_HOST_UNKNOWN: all layers have to be on GPUs */
};
struct sl_place {
    uint64_t weights, kv_cache, buffers, total;
};
/* Where llama.cpp lays a model that GPUs and the host's memory share. */
struct sl_offload {
    struct sl_place gpu[SL_MAX_GPUS], host;
    uint32_t split[SL_MAX_GPUS]; /* layers on each GPU, as --tensor-split takes them; the output counts as one. 0 of a
                                    set that fits: llama.cpp has to leave this GPU out */
    uint32_t cpu_moe;            /* --n-cpu-moe: the routed experts of so many layers, the first ones, are in host memory */
    uint32_t gpu_layers, layers; /* -ngl: so many of all, the last ones and the output */
    bool fits;
};
/* Effect: *out = an estimate for one sequence of ctx tokens in micro-batches of `ubatch` on a machine, in the plan's
 * layout. With routed experts all layers are on the GPUs, and cpu_moe is the least that fits; otherwise gpu_layers is the
 * most. Layers are spread so that the fullest GPU, by its size, is as empty as it can be, and the others evenly; one that
 * is too small for a layer, or for which there is none, is left out, as is the smallest of 16: llama.cpp takes 15. What
 * does not fit is on the last GPU, or in host memory, past its size.
 *   weights     token_embd is in host memory; a head that shares it is on the last GPU besides. Layers for multi-token
 *               prediction are not loaded, but for parts of Step-3.5's
 *   kv_cache    as sl_plan_cache has it, in even shares of the layers, where they are
 *   buffers     llama.cpp's compute buffers for a micro-batch: the mask, what is widest of a layer, the logits, copies of
 *               what goes from GPU to GPU; where weights are in host memory, their largest tensor on the first GPU, where
 *               batches are computed, or two of a layer that is on another GPU. Scores of attention (F32) where CUDA has no
 *               flash attention for the form of the heads. Of MiniMax-M3, whose grow, when the context is full. And 1 GiB of
 *               each for what else is there, as llama.cpp's --fit leaves
 * Errors: SL_EFAIL (memory). */
int sl_plan_offload(const struct sl_plan *p, const struct sl_machine *m, uint64_t ctx, uint32_t ubatch,
                    struct sl_offload *out) SL_MUST_USE;
/* Effect: *out = the same of a machine of equal GPUs, all layers on them, with either form of cache, whatever the plan's layout
 * is. Where they fit as llama.cpp spreads them by itself, as many on each, or do not fit at all, `split` is 0. Otherwise it is
 * sl_plan_offload's, which --tensor-split has to say. Errors: SL_EFAIL (memory). */
int sl_plan_alike(const struct sl_plan *p, const struct sl_machine *m, bool whole_heads, uint64_t ctx, uint32_t ubatch,
                  struct sl_offload *out) SL_MUST_USE;

#endif
