/* The model that a checkpoint describes: output tensors with their sources,
 * metadata, and the few numbers that recipes need. */
#ifndef SLUICE_PROTO_MODEL_H
#define SLUICE_PROTO_MODEL_H

#include "proto/checkpoint.h"
#include "proto/gguf.h"

#define SL_FINE 4     /* DeepSeek-V4's two ways to compress: tokens to one */
#define SL_COARSE 128
#define SL_WINDOW_PERIOD 4      /* of so many layers the last looks at all tokens, the others at some: Llama-4, K-EXAONE */
#define SL_LLAMA4_CHUNK 8192    /* of Llama-4 at chunks of so many */
#define SL_KEY_PRUNED "sluice.pruned_layers" /* u32s: those of the source that an output lacks */

enum sl_layout { SL_LAYOUT_MLA = 0, SL_LAYOUT_LEGACY = 1 };

/* How an output tensor's elements come from its sources. In every case the
 * output is n_src equal runs, one for each source, but for SL_PRODUCT. */
enum sl_transform {
    SL_COPY = 0,  /* source elements in order (a stack of experts when n_src > 1) */
    SL_PERMUTE,   /* llama Q/K: output row h*d + 2j + t = source row h*d + t*(d/2) + j,
                     d = rows / heads, t in {0, 1} */
    SL_K_B,       /* from kv_b_proj [heads * (nope + v), cols]: out[h][c][r] = src[h*(nope+v) + r][col0 + c],
                     c < lora, r < nope */
    SL_V_B,       /* likewise: out[h][r][c] = src[h*(nope+v) + nope + r][c], r < v */
    SL_INLINE,    /* no source: F32 values in `values` (rope_freqs) */
    SL_IDS,       /* integers as I32; each is below `heads` */
    SL_VIEW,      /* from one source, runs of elements in the order that `view` says */
    SL_FIRST,     /* source elements in order, of which there may be more */
    SL_PRODUCT,   /* two sources, each as long as the output: element times element */
};

#define SL_VIEW_PARTS 3

/* Runs of a source's elements: run q of a part begins at first + q % n[0] * step[0] + q / n[0] % n[1] * step[1]
 * + q / (n[0] * n[1]) * step[2]. */
struct sl_view_part {
    uint64_t elems;        /* of the output: whole runs */
    uint64_t first, run;   /* run: elements of one */
    uint64_t n[2], step[3];
};

/* The output is the parts one after the other. */
struct sl_view {
    uint32_t n_parts;
    struct sl_view_part part[SL_VIEW_PARTS];
    uint64_t period;       /* elements [k * period, (k + 1) * period) of the output are the source's elements of the same
                              numbers, in another order; 0: there is no such period */
};

struct sl_out_tensor {
    char name[SL_NAME_MAX];
    uint32_t n_dims;
    uint64_t ne[4];        /* innermost first */
    uint64_t elems;
    enum sl_transform transform;
    bool keep_f32;         /* the conversion keeps it F32 whatever the recipe says */
    bool keeps_own;        /* it is never quantized, and stays BF16 where the checkpoint has that */
    bool outtype_f32;      /* the converter keeps it F32, but llama-quantize then types it as any other */
    int src_type;          /* ggml type of a GGUF source tensor; I32 of SL_IDS; -1 otherwise */
    uint32_t first_src;    /* into sl_model.src */
    uint32_t n_src;
    uint32_t heads, nope, v_dim; /* for SL_PERMUTE and SL_IDS (heads), SL_K_B, SL_V_B */
    uint64_t lora, col0;         /* col0: of SL_K_B alone, which then has not all columns */
    const struct sl_view *view; /* SL_VIEW: owned by the model */
    enum sl_change change; /* of the values, before they are rounded or quantized */
    const float *values;   /* SL_INLINE: elems values, owned by the model */
    const char *known_as;  /* name in an imatrix where it is another (pruned models); the checkpoint's */
};

struct sl_model_src {
    uint32_t tensor;         /* in the checkpoint; SL_NO_TENSOR when planned from config alone */
    struct sl_scale scale;   /* of FP8, INT8, I4, UINT8 and F4; tensor = SL_NO_TENSOR: none */
    enum sl_dtype dtype;     /* of the weight (from config alone: what such a model ships) */
    uint64_t rows, cols;     /* as a matrix: cols = innermost dimension */
};

/* What recipes and the memory estimate ask about a model. */
struct sl_hparams {
    uint64_t n_layer, n_head, n_head_kv; /* n_head_kv as the GGUF says, of the first layer */
    uint64_t n_expert, n_layer_dense, n_dense_last; /* dense layers before those with experts, and behind them */
    uint64_t moe_step;    /* layer i has experts where this divides i + 1; 0: in all of the others */
    uint64_t n_embd, n_vocab;
    uint64_t kv_lora, rope_dim, head_k, head_v; /* per head, not the MLA-compressed sizes */
    uint64_t window, n_fine, n_coarse; /* tokens looked at one by one, 0: all; layers that besides look at tokens
                                          compressed SL_FINE or SL_COARSE to one */
    uint64_t n_nextn, index_dim; /* layers of n_layer for multi-token prediction; length of an indexer's key, 0: none */
    bool mla_only;        /* there is no other layout, by the architecture */
    uint64_t n_linear, state; /* layers of linear attention: no cache, but a state of so many F32 values each */
    uint64_t near_window; /* tokens that sl_model.near's layers look at; 0: there are none */
    uint64_t n_head_kv_near, n_head_kv_far; /* heads of keys of those, and of the others */
};

#define SL_VIEWS 8

struct sl_model {
    const char *arch;     /* "deepseek2", "qwen2", "llama", ...; owned by the model's kvs or static */
    enum sl_layout layout;
    struct sl_hparams hp;
    struct sl_out_tensor *tensors; /* in GGUF order: llama-quantize's order (names without
                                      "blk.N." first in byte order, then by layer and byte order) */
    uint32_t n_tensors;
    struct sl_model_src *src;
    uint32_t n_src;
    struct sl_view views[SL_VIEWS];
    uint8_t *near;        /* of each layer, whether it looks at a window of tokens alone; NULL: none does. Owned */
    uint32_t n_vision;    /* tensors of the checkpoint that are of its vision or hearing, and left out */
    uint64_t n_params;    /* weights of all output tensors */
    struct sl_kvs kvs;    /* metadata, in convert's order, without general.file_type,
                             general.quantization_version and split.* */
    char *base_name;      /* "DeepSeek-R1-256x20B"-like prefix for file names */
    char *model_name;     /* general.name */
    bool keeps_q8_0;      /* what is FP8 stays q8_0 where it stays as it is: DeepSeek-V4's converter makes that of it, and with
                             --fp8-as-q8 that of MiMo-V2.6 */
    const char *template_of; /* a checkpoint's kvs lack a chat template, and the converter has one of this model; NULL: not so */
    bool no_tokenizer;    /* kvs lack the tokenizer's keys: good for a plan, not for a file */
    const char *tokenizer_file; /* the one that its tokenizer is in; NULL: tokenizer.json or tiktoken.model */
    bool no_tokenizer_config; /* there is no tokenizer_config.json: kvs lack what it would say */
    void *priv;
};

/* Whether a checkpoint's tensor is NVFP4. */
static inline bool sl_model_src_nvfp4(const struct sl_model_src *s)
{
    return s->dtype == SL_DTYPE_F4 && s->scale.block_cols == SL_NVFP4_GROUP;
}

struct sl_model_opts {
    enum sl_layout layout;
    bool no_mtp;          /* checkpoints: without layers for multi-token prediction */
    const uint32_t *prune; /* GGUF sources: layers left out, ascending; the others are numbered anew */
    uint32_t n_prune;
    bool keep_order;      /* GGUF sources: tensors in file order, not in llama-quantize's */
    const char *model_name; /* overrides general.name; NULL: found out */
    bool tokenizer_optional; /* a folder without a tokenizer gives a model without its keys */
};

/* Effect: builds the model from a checkpoint (safetensors, config alone, or
 * GGUF). Every tensor of the checkpoint is accounted for: missing or surplus
 * names are listed. Errors: SL_EUNSUPPORTED (architecture or tensor name, with
 * what is supported), SL_ESOURCE (missing tensor, wrong shape, bad scale,
 * damaged tokenizer). *out is the caller's (sl_model_close); the checkpoint
 * must outlive it. o NULL: all as in a zeroed one. */
int sl_model_open(const struct sl_checkpoint *ck, const struct sl_model_opts *o,
                  struct sl_model **out, struct sl_error *e) SL_MUST_USE;
void sl_model_close(struct sl_model *m);

/* Returns whether a tensor is MXFP4 in the source: in a GGUF file, or in a checkpoint, each of its sources F4 under a
 * scale for each block. */
bool sl_model_is_mxfp4(const struct sl_model *m, const struct sl_out_tensor *t);

/* Returns whether a checkpoint's tensor is NVFP4 as ggml's blocks hold it: each of its sources F4 under a scale in E4M3 for
 * each 16 weights, in order; or a GGUF file's is. What scales the whole is a tensor of its own beside it. */
bool sl_model_is_nvfp4(const struct sl_model *m, const struct sl_out_tensor *t);

/* Returns whether a tensor is of this type in the source: a GGUF file's own, or MXFP4 or NVFP4. */
bool sl_model_keeps(const struct sl_model *m, const struct sl_out_tensor *t, int type);

/* Returns the source element that output element i of a view is; *len = how many lie there in order from it on. */
uint64_t sl_view_place(const struct sl_view *v, uint64_t i, uint64_t *len);

/* Orders tensor names as llama-quantize writes them; for qsort-like use. */
int sl_tensor_name_cmp(const char *a, const char *b);

#endif
