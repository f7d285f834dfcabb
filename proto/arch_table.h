/* Architectures as tables. config.json is read into a list of numbers; metadata
 * keys, tensor names and tensor shapes are templates over these numbers. What
 * is special about an architecture is its tables and one `derive` function.
 * Names and keys: llama.cpp's, as of August 2026.
 *
 * A new one is a file arch_NAME.c with its struct sl_arch, declared here and listed in arch_config.c. Elsewhere it asks for
 * numbers that no other has (enum sl_num, arch_numbers.c), facts (enum sl_when), tensors that are never quantized
 * (sl_arch_keeps_f32, mixture.c), rules that split texts (tokenizer_pre.c), its class where the text model lies inside another
 * (checkpoint_text.c), and what the memory estimate asks of a GGUF file's keys (model_gguf.c). */
#ifndef SLUICE_PROTO_ARCH_TABLE_H
#define SLUICE_PROTO_ARCH_TABLE_H

#include "proto/model.h"
#include "proto/source_file.h"

#include <stdbool.h>
#include <stdint.h>

struct cJSON;

/* What a config says, and what follows from it. The same number is never both
 * a metadata value in one layout and a shape in another; arch_numbers.c has each one's key and bounds. ..._KEY is there when the
 * number has a key, ..._LATE when its key comes later among the converter's. LINEAR: of linear attention; HC: hyper-connections, V4's streams. */
enum sl_num {
    SL_N_NONE, /* as rows of a template: the tensor is a vector */
    SL_N_LAYER, SL_N_CTX, SL_N_EMBD, SL_N_FF, SL_N_HEAD, SL_N_HEAD_KV, SL_N_VOCAB,
    SL_N_ROPE_FACTOR, SL_N_ROPE_ORIG_CTX, SL_N_YARN_EXT, SL_N_YARN_ATTN, SL_N_YARN_FAST,
    SL_N_YARN_SLOW, SL_N_ROPE_THETA, SL_N_RMS_EPS, SL_N_EXPERT_USED, SL_N_GROUP,
    SL_N_GROUP_USED, SL_N_GATING, SL_N_HEAD_DIM_K, SL_N_HEAD_DIM_V, SL_N_DENSE,
    SL_N_Q_LORA, SL_N_KV_LORA, SL_N_KEY_LEN, SL_N_VALUE_LEN, SL_N_KEY_LEN_MLA,
    SL_N_VALUE_LEN_MLA, SL_N_KEY_LEN_LATE, SL_N_VALUE_LEN_LATE, SL_N_MOE_FF, SL_N_EXPERT, SL_N_SHARED, SL_N_EXPERT_SCALE,
    SL_N_EXPERT_NORM, SL_N_ROPE_DIM, SL_N_YARN_LOG, SL_N_NORM_EPS, SL_N_NO_EXPERT, SL_N_NO_EXPERT_USED,
    SL_N_NEXTN, SL_N_INDEX_HEADS, SL_N_INDEX_DIM, SL_N_INDEX_TOP, SL_N_CAUSAL, SL_N_SHARED_FF_KEY,
    SL_N_WINDOW, SL_N_CLAMP, SL_N_OUT_GROUP, SL_N_OUT_LORA, SL_N_COMPRESS_THETA, SL_N_HC, SL_N_HC_ITER, SL_N_HC_EPS,
    SL_N_HASHED, SL_N_EMBD_OUT, SL_N_GATING_LATE, SL_N_INDEX_BLOCK, SL_N_INDEX_LOCAL,
    SL_N_SECTIONS, SL_N_SECTIONS_LATE, SL_N_CONV, SL_N_LINEAR_DIM, SL_N_LINEAR_KEYS, SL_N_LINEAR_VALUES, SL_N_LINEAR_ROWS,
    SL_N_FULL_EVERY, SL_N_KDA_BOUND, SL_N_LATENT_KEY, SL_N_SITU_BETA, SL_N_SITU_LINEAR_BETA, SL_N_RES_BLOCK,
    SL_N_ROPE_THETA_WINDOW, SL_N_RMS_EPS_LATE, SL_N_VALUE_SCALE, SL_N_MOE_EVERY, SL_N_MOE_STEP, SL_N_CLAMPS, SL_N_CLAMPS_SHARED,
    SL_N_ROPE_FACTOR_LATE, SL_N_ROPE_ORIG_LATE, SL_N_YARN_FAST_LATE, SL_N_YARN_SLOW_LATE, SL_N_TEMPERATURE, SL_N_TEMPERATURE_LENGTH,
    SL_N_DEEPSTACK, SL_N_WINDOW_LIST, SL_N_WINDOW_INTS, SL_N_KDA_DIM, SL_N_RATIOS, SL_N_INDEXERS, SL_N_NO_SCALING,
    /* in no key */
    SL_N_HEAD_KV_SRC, /* num_key_value_heads; SL_N_HEAD_KV is what the GGUF says */
    SL_N_HEAD_DIM, SL_N_NOPE, SL_N_V_DIM, SL_N_Q_ROWS, SL_N_KV_ROWS, SL_N_KV_A_ROWS,
    SL_N_KV_B_ROWS, SL_N_O_COLS, SL_N_SHARED_FF, SL_N_HALF_ROPE, SL_N_INDEX_ROWS, SL_N_TWO_EMBD,
    SL_N_ONE, SL_N_THREE, SL_N_FINE, SL_N_COARSE, SL_N_TWO_HEAD_DIM, SL_N_TWO_INDEX_DIM, SL_N_HC_MIX, SL_N_HC_COLS,
    SL_N_OUT_A_ROWS, SL_N_OUT_A_COLS, SL_N_LINEAR_V_DIM, SL_N_GATED_ROWS, SL_N_LINEAR_QKV, SL_N_LINEAR_PAIRS,
    SL_N_LATENT, SL_N_HEAD_KV_WINDOW, SL_N_V_ROWS, SL_N_QKV_ROWS, SL_N_K_ROWS_WINDOW, SL_N_V_ROWS_WINDOW, SL_N_QKV_ROWS_WINDOW,
    SL_N_HEAD_WINDOW, SL_N_Q_ROWS_WINDOW,
    SL_N_COUNT,
};

#define SL_MAX_LAYER 4096

/* Facts that templates ask about; all bits of a template's `when` must hold. */
enum sl_when {
    SL_W_LAYER = 1 << 0,   /* once in every layer; without it once in the model */
    SL_W_DENSE = 1 << 1,   /* in layers with one feed-forward network */
    SL_W_MOE = 1 << 2,     /* in layers with experts */
    SL_W_QLORA = 1 << 3,   /* q_proj is split in q_a and q_b ... */
    SL_W_NOQLORA = 1 << 4, /* ... or not */
    SL_W_MLA = 1 << 5,     /* layout with attn_k_b and attn_v_b */
    SL_W_LEGACY = 1 << 6,  /* layout with attn_kv_b */
    SL_W_OUTPUT = 1 << 7,  /* has its own output matrix */
    SL_W_BIAS = 1 << 8,    /* q, k, v have biases */
    SL_W_OBIAS = 1 << 9,   /* the attention output has one */
    SL_W_FBIAS = 1 << 10,  /* the feed-forward network has them */
    SL_W_CORR = 1 << 11,   /* the router has a correction bias */
    SL_W_SHARED = 1 << 12, /* has shared experts */
    SL_W_FREQS = 1 << 13,  /* rope_freqs is to be written */
    SL_W_INDEXER = 1 << 14, /* in layers whose attention has an indexer */
    SL_W_NEXTN = 1 << 15,  /* in layers for multi-token prediction */
    SL_W_HEAD_NORM = 1 << 16, /* heads of q and k have norms */
    SL_W_OPTIONAL = 1 << 17, /* no fact: only where the checkpoint has the source */
    SL_W_FINE = 1 << 18,   /* in layers that look at compressed tokens, each of SL_FINE ... */
    SL_W_COARSE = 1 << 19, /* ... or of SL_COARSE */
    SL_W_HASHED = 1 << 20, /* in layers whose experts are chosen by the token's id */
    SL_W_LINEAR = 1 << 21, /* in layers of linear attention ... */
    SL_W_FULL = 1 << 22,   /* ... and in the others, but for those of SL_W_WINDOW */
    SL_W_FUSED = 1 << 23,  /* no facts: where the checkpoint has a layer's experts, or sl_arch.joined, in one tensor, ... */
    SL_W_APART = 1 << 24,  /* ... or each apart */
    SL_W_LATENT = 1 << 25, /* experts live in a space of their own ... */
    SL_W_LATENT_NORM = 1 << 26, /* ... with a norm behind them */
    SL_W_OUT_GATE = 1 << 27, /* the output of full attention has a gate */
    SL_W_WINDOW = 1 << 28, /* in layers that look at a window of tokens alone */
    SL_W_SINKS = 1 << 29,  /* in layers whose attention has a sink for each head */
    SL_W_TRUNK = 1 << 30,  /* in layers that are not for multi-token prediction */
};

/* What such a tensor is shipped as, for plans from config.json alone. */
enum sl_ship {
    SL_SHIP_BASE,  /* torch_dtype */
    SL_SHIP_LINEAR, /* FP8, INT8, I4, UINT8 or F4 with scales where quantization_config says so, else torch_dtype */
    SL_SHIP_F32,
    SL_SHIP_I64,
    SL_SHIP_EXPERT, /* F4 where config.json says so of experts, else as SL_SHIP_LINEAR */
};

/* A source of rows x cols; {i} = layer, {e} = expert. With {e} the output is
 * the stack of all experts. {f} = "norm" and "proj", the sources of SL_PRODUCT. */
struct sl_tensor_tmpl {
    const char *out;     /* GGUF name */
    const char *src;     /* Hugging Face name; NULL for SL_INLINE */
    uint32_t when;       /* enum sl_when */
    enum sl_num rows, cols;
    enum sl_transform transform;
    enum sl_ship ship;
    enum sl_num heads;   /* of SL_PERMUTE, SL_K_B and SL_V_B; of SL_IDS what they are below */
};
/* In order, any; a vector as shipped without scales, a matrix with. Numbers and ships by their names without SL_N_ and SL_SHIP_. */
#define SL_TENSOR(out, src, when, rows, cols, ship) {out, src, when, SL_N_##rows, SL_N_##cols, 0, SL_SHIP_##ship, 0}
#define SL_VECTOR(out, src, when, n) {out, src, when, SL_N_NONE, SL_N_##n, 0, SL_SHIP_BASE, 0}
#define SL_MATRIX(out, src, when, rows, cols) {out, src, when, SL_N_##rows, SL_N_##cols, 0, SL_SHIP_LINEAR, 0}
/* A feed-forward network's three by their usual names; of: "", "_exps" or "_shexp". */
#define SL_GATED(of, src, when, ff, embd, ship)                                                                                       \
    {"blk.{i}.ffn_gate" of ".weight", src "gate_proj.weight", when, SL_N_##ff, SL_N_##embd, 0, SL_SHIP_##ship, 0},                     \
    {"blk.{i}.ffn_up" of ".weight", src "up_proj.weight", when, SL_N_##ff, SL_N_##embd, 0, SL_SHIP_##ship, 0},                         \
    {"blk.{i}.ffn_down" of ".weight", src "down_proj.weight", when, SL_N_##embd, SL_N_##ff, 0, SL_SHIP_##ship, 0}
#define SL_END_TENSORS {NULL, NULL, 0, 0, 0, 0, 0, 0}

/* Keys that an architecture has besides those of all, in the converter's order, by their numbers (arch_numbers.c): each is
 * written when the model has the number. One of all's that is named here stands here. */
#define SL_KEYS(...) (const enum sl_num[]){__VA_ARGS__, SL_N_NONE}

/* Ids without a token are given names, so that vocab_size alone decides on memory: 0.1 GB here. Four
 * times the largest vocabulary of a large language model. */
#define SL_MAX_VOCAB (1 << 20)

/* Of one number, whatever the architecture (arch_numbers.c): an integer (U32), a number (F32) or true or false (BOOL), from min to max. */
struct sl_bounds {
    enum sl_gguf_type type;
    double min, max;
};
const struct sl_bounds *sl_num_bounds(enum sl_num n);

/* One entry of config.json. Of several with one number the last counts that is there. */
struct sl_field {
    enum sl_num num;
    const char *name;
    bool needed;      /* without the number there is no model */
    bool by_class;    /* `otherwise` is what a configuration class takes for an entry that is not there at all; null: none */
    double otherwise; /* when absent or null; NAN: stays absent */
    double min, max;  /* max 0: as all have it */
};
/* Needed, or not; another number where it is absent or null, or absent. The names are joined here at once: files have such of their own. */
#define SL_FIELD(num, name, needed, by_class, otherwise, min, max) {SL_N_##num, name, needed, by_class, otherwise, min, max}
#define SL_NEED(num, name) {SL_N_##num, name, true, false, NAN, 0, 0}
#define SL_MAY(num, name) {SL_N_##num, name, false, false, NAN, 0, 0}
#define SL_ELSE(num, name, otherwise) {SL_N_##num, name, false, false, otherwise, 0, 0}
#define SL_CLASS(num, name, otherwise) {SL_N_##num, name, false, true, otherwise, 0, 0}
#define SL_CLASS_NEED(num, name, otherwise) {SL_N_##num, name, true, true, otherwise, 0, 0}
#define SL_END_FIELDS {SL_N_NONE, NULL, false, false, 0, 0, 0}

/* Tables of them, and of tensors, and what else an architecture lists. */
#define SL_FIELDS(...) (const struct sl_field *const[]){__VA_ARGS__, NULL}
#define SL_TENSORS(...) (const struct sl_tensor_tmpl *const[]){__VA_ARGS__, NULL}
#define SL_CLASSES(...) (const char *const[]){__VA_ARGS__, NULL}

/* An entry of config.json that must be as llama.cpp's model is, of which no key tells; so is one that is not there. */
struct sl_fact {
    const char *name;
    bool must;
    const char *has; /* what that model has */
};
#define SL_FACTS(...) (const struct sl_fact[]){__VA_ARGS__, {NULL, false, NULL}}
#define SL_OWN_HEAD {"tie_word_embeddings", false, "a head of its own"}

struct sl_number {
    bool have;
    uint64_t u; /* integers and bools */
    double f;   /* the same, or the float */
};

/* Bits of what one layer is. */
enum sl_layer_kind { SL_LAYER_WINDOW = 1, SL_LAYER_DENSE = 2, SL_LAYER_SINKS = 4 };

struct sl_params {
    const struct sl_arch *arch;
    const char *hf_class;
    const struct cJSON *config;
    enum sl_layout layout;
    bool no_mtp;            /* layers for multi-token prediction are dropped in every architecture */
    uint32_t when;          /* facts of the whole model */
    bool fp8;               /* quantization_config tells of FP8 */
    bool mxfp8;             /* and of exponents as its scales */
    bool tied;              /* tie_word_embeddings */
    bool vision;            /* has a vision_config */
    bool fp4_experts;       /* config.json tells of experts in MXFP4, whatever the others are */
    enum sl_dtype dtype;    /* torch_dtype */
    const char *rope_type;  /* "yarn", "linear", "llama3" or NULL */
    const struct cJSON *rope; /* rope_parameters or rope_scaling, or NULL */
    uint32_t n_indexer_types; /* layers that config.json calls full or shared; 0: it does not, all are full */
    uint8_t indexer_full[SL_MAX_LAYER];
    uint32_t n_ratios;      /* entries of compress_ratios; 0: there is no such list */
    int32_t ratios[2 * SL_MAX_LAYER]; /* tokens under one compressed; 0: none are compressed */
    int32_t sections[4];    /* of the rotary embedding, by kinds of position */
    struct sl_view views[SL_VIEWS]; /* sl_arch.arrange's */
    uint32_t n_linear;      /* layers of linear attention, where config.json lists the others */
    uint8_t linear[SL_MAX_LAYER];
    bool has_kinds;         /* config.json tells of each layer what it is */
    uint8_t kinds[SL_MAX_LAYER]; /* enum sl_layer_kind */
    float clamps[2][SL_MAX_LAYER]; /* bounds of activations, of experts and of shared ones; 0: none */
    bool joined;            /* config.json alone: sl_arch.joined is one tensor */
    float *values;          /* of SL_INLINE, malloc'ed; taken over by the model */
    struct sl_number num[SL_N_COUNT];
};

/* What is special about an architecture's tokenizer. */
enum sl_tokens {
    SL_TOKENS_USUAL,
    SL_TOKENS_GLM,     /* its pre-tokenizer, and its names of special tokens */
    SL_TOKENS_SOLAR,   /* the same of Solar-Open, whose rules are Qwen2's */
    SL_TOKENS_MINIMAX, /* the one with MiniMax-M2's pre-tokenizer */
    SL_TOKENS_TEKKEN,  /* Mistral's own file */
    SL_TOKENS_LING,    /* Ling's pre-tokenizer has the name of Ling 2.0's */
    SL_TOKENS_LLAMA4,  /* one with the same rules as MiniMax-M2's */
    SL_TOKENS_HUNYUAN, /* Hunyuan-A13B's own file */
    SL_TOKENS_HY3,     /* Hy3's pre-tokenizer has V3's rules under another name */
    SL_TOKENS_PIECES,  /* SentencePiece's */
    SL_TOKENS_V4,      /* V3's pre-tokenizer has another name where no token stands before every text */
};

/* What is special about one tensor. */
struct sl_arrangement {
    const struct sl_view *view; /* of sl_params.views; NULL: as the template says */
    enum sl_change change;
    uint64_t shape[3];          /* the source's; shape[0] 0: the template's rows and columns ... */
    uint64_t rows;              /* ... but for these rows, 0: no others */
    const struct sl_view *of_parts; /* of a source whose scales begin anew with each part: one for each of sl_scale_parts; NULL: it
                                       has no such form */
    bool stack;                 /* the output is a stack of all experts, of which each has the template's rows */
    bool columns;               /* with `stack`: each expert's matrix lies transposed, its rows are columns of the source from ... */
    uint64_t col0;              /* ... this one on */
    bool row;                   /* of a vector: the source may be a matrix of one row */
    bool convolution;           /* the output has a dimension of 1 between columns and rows, and the source may have it */
};

struct sl_arch {
    const char *name;                /* general.architecture */
    const char *const *classes;      /* SL_CLASSES, of config.json's "architectures" */
    const struct sl_field *const *fields;        /* SL_FIELDS */
    const struct sl_tensor_tmpl *const *tensors; /* SL_TENSORS */
    const struct sl_fact *facts;     /* SL_FACTS; NULL: none */
    const enum sl_num *keys;         /* SL_KEYS; NULL: none */
    /* Effect: fills derived numbers, facts, and values of inline tensors. */
    int (*derive)(struct sl_params *p, struct sl_error *e);
    /* Effect: *a, which is zeroed, = what is special about the template's tensors; NULL: nothing is. */
    void (*arrange)(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a);
    /* Returns whether a tensor is dropped; NULL: as sl_arch_drops says of names that begin with "model.layers.". */
    bool (*drops)(const struct sl_params *p, const char *name);
    enum sl_tokens tokens;
    double theta;           /* what the configuration class takes for rope_theta; 0: 10000 */
    const char *mtp_prefix; /* of layers for multi-token prediction, which count from 0; NULL: "model.layers.", as others */
    const char *mtp_sign; /* with mtp_prefix: a tensor that is there when they are */
    bool drops_mtp;       /* layers from num_hidden_layers on are dropped */
    bool mla_only;        /* llama.cpp runs no other layout */
    bool adds_bos;        /* add_bos_token is true: the converter takes no other tokenizer */
    bool config_eos;      /* the token at a text's end is config.json's, whatever the tokenizer says */
    bool e8m0;            /* ships FP8 under scales in E8M0 */
    const char *template_of; /* the model of which the converter has a chat template, for checkpoints without; NULL: none */
    bool template_first;  /* it comes before all, and a checkpoint's takes its place */
    bool own_types;       /* the converter goes by the checkpoint's types, whatever --outtype: BF16 stays in routers too */
    bool joins_experts;   /* where they are not FP8, it ships a layer's experts in one tensor */
    const char *joined;   /* the source that SL_W_FUSED asks for; NULL: a layer's experts */
    bool shares_heads;    /* layers for multi-token prediction ship without embedding and head */
    bool shares_embedding; /* without the former */
    bool layer_thetas;    /* rope_theta is a list, of a number for each layer */
    bool output_if_there; /* a tied model's lm_head.weight is kept when it is there */
    bool sentencepiece;   /* the converter prefers tokenizer.model where it exists */
    bool space_prefix;    /* writes tokenizer.ggml.add_space_prefix */
    /* tensors, each between spaces, whose products llama.cpp multiplies by a scale of the whole beside them; NULL: none */
    const char *own_scales;
    bool embeds, ranks;   /* the converter looks for signs of another task (arch_task.c) */
};

extern const struct sl_arch sl_arch_deepseek2, sl_arch_deepseek32, sl_arch_deepseek4, sl_arch_kimi_k3, sl_arch_exaone_moe,
    sl_arch_glm_dsa, sl_arch_glm4_moe, sl_arch_solar_open, sl_arch_glm_flash, sl_arch_mimo2, sl_arch_minimax_m2, sl_arch_minimax_m3,
    sl_arch_qwen2, sl_arch_qwen3, sl_arch_qwen3moe, sl_arch_qwen3vl, sl_arch_qwen3vlmoe, sl_arch_qwen3next, sl_arch_qwen35,
    sl_arch_qwen35moe, sl_arch_step35, sl_arch_llama, sl_arch_bailing2, sl_arch_mistral_large3, sl_arch_llama4, sl_arch_hunyuan_moe,
    sl_arch_hy_v3, sl_arch_ernie45_moe;

/* Effect: finds the architecture of a config.json and reads it. p->values is
 * the caller's (free) also after an error. Errors: SL_EUNSUPPORTED
 * (architecture, quantization method, rope type) with what is supported;
 * SL_EUSAGE (a layout that the architecture lacks); SL_ESOURCE (an absent or absurd value). */
int sl_params_read(const struct cJSON *config, enum sl_layout layout, bool no_mtp, struct sl_params *p,
                   struct sl_error *e) SL_MUST_USE;

/* Errors: SL_EUNSUPPORTED when the folder's files, or its name, say that the checkpoint is of a model for
 * embeddings or for ranking, for which the converter does otherwise; dir->path may be NULL. SL_ESOURCE
 * (modules.json is damaged). */
int sl_arch_check_task(const struct sl_params *p, const struct sl_source_dir *dir, struct sl_error *e) SL_MUST_USE;

/* Errors: SL_EUNSUPPORTED, as sl_params_read's but for "config.json: ", when a config names a class that is not known. */
int sl_arch_check_class(const struct cJSON *config, struct sl_error *e) SL_MUST_USE;

/* What a quantization_config of ModelOpt's says that weights are; NONE: it is not ModelOpt's, or they are not read. */
enum sl_modelopt {
    SL_MODELOPT_NONE,
    SL_MODELOPT_FP8,
    SL_MODELOPT_FP8_BLOCKS, /* of 128 x 128 */
    SL_MODELOPT_MXFP8,
    SL_MODELOPT_MXFP4,
    SL_MODELOPT_NVFP4,
};
enum sl_modelopt sl_arch_modelopt(const struct cJSON *quantization);

/* Returns whether a quantization_config is AMD Quark's with weights of this dtype. */
bool sl_arch_quark(const struct cJSON *quantization, const char *dtype);

/* Errors: SL_EUNSUPPORTED when a config's weights are quantized by a method, or an algorithm of ModelOpt's, that is not read. */
int sl_arch_check_method(const struct cJSON *config, struct sl_error *e) SL_MUST_USE;

/* Setters, and products that must stay below 2^53. */
void sl_num_set(struct sl_params *p, enum sl_num n, uint64_t v);
void sl_num_set_f(struct sl_params *p, enum sl_num n, double v);
int sl_num_mul(struct sl_params *p, enum sl_num to, uint64_t a, uint64_t b, struct sl_error *e)
    SL_MUST_USE;

/* Returns a true/false entry of config.json (absent or another type: otherwise). */
bool sl_config_bool(const struct cJSON *config, const char *name, bool otherwise);
/* Returns a string entry or NULL. */
const char *sl_config_str(const struct cJSON *config, const char *name);
/* Effect: a float entry of an object, for errors called where.name; absent or
 * null: *v is left alone. Errors: SL_ESOURCE when it is no finite number. */
int sl_config_float(const struct cJSON *object, const char *where, const char *name, double *v,
                    struct sl_error *e) SL_MUST_USE;

/* Effect: a float entry that may stand beside the others or, which counts then, in rope_parameters; as sl_config_float. */
int sl_rope_float(const struct sl_params *p, const char *name, double *v, struct sl_error *e) SL_MUST_USE;
/* Errors: SL_EUNSUPPORTED when rope_scaling is of type llama3. */
int sl_arch_no_llama3(const struct sl_params *p, struct sl_error *e) SL_MUST_USE;
/* Errors: SL_EUNSUPPORTED when partial_rotary_factor is not 1. */
int sl_arch_whole_rope(const struct sl_params *p, struct sl_error *e) SL_MUST_USE;
/* Effect: the base for layers of a window, where config.json has one of their own (arch_mimo.c). Errors: SL_ESOURCE. */
int sl_arch_window_theta(struct sl_params *p, struct sl_error *e) SL_MUST_USE;
/* Errors: SL_ESOURCE when config.json has no rope_theta. */
int sl_arch_need_theta(const struct sl_params *p, struct sl_error *e) SL_MUST_USE;
/* Effect: the rows of a head that are rotated, by their part of all. Errors: SL_ESOURCE (an odd number, or none). */
int sl_arch_part_rope(struct sl_params *p, double part, struct sl_error *e) SL_MUST_USE;
/* Effect: the rows of a head that are rotated, a half where partial_rotary_factor does not say. Errors: SL_EUNSUPPORTED (type
 * llama3), SL_ESOURCE (an odd number, or none). */
int sl_arch_half_rope(struct sl_params *p, struct sl_error *e) SL_MUST_USE;
/* Effect: numbers that stand in an object of config.json. Errors: SL_ESOURCE (an absent or absurd value). */
int sl_arch_read_fields(struct sl_params *p, const struct cJSON *object, const struct sl_field *f, struct sl_error *e)
    SL_MUST_USE;
/* Returns the name by which config.json has a number of sl_arch's fields (of several the one that counts), or the first. */
const char *sl_arch_field_name(const struct sl_params *p, enum sl_num n);
/* Errors: SL_ESOURCE when an integer that is read as optional is 0 or not there. */
int sl_arch_need(const struct sl_params *p, enum sl_num n, struct sl_error *e) SL_MUST_USE;
/* Effect: what a configuration class takes for an entry that is not there at all; null means that there is none. */
void sl_field_default(struct sl_params *p, enum sl_num n, double v);

/* Facts of config.json: of every model, and where attention has plain heads (arch_tensors.c). */
extern const struct sl_field sl_arch_model_fields[], sl_arch_plain_fields[];

/* Arranges a layer's experts that ship in one tensor each for gate with up and for down (SL_W_FUSED), transposed: of each expert a
 * row for each input, and gate's columns before up's (arch_tensors.c). */
void sl_arch_transposed_experts(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a);

/* Tensors that several architectures have (arch_tensors.c): those of every model; attention with plain heads; the norm
 * behind it by its usual name; feed-forward networks, dense and, as DeepSeek-V3 has them, of experts; what joins a layer for
 * multi-token prediction to the layer before it, where nothing of it ships in FP8. */
extern const struct sl_tensor_tmpl sl_arch_common_tensors[], sl_arch_attention_tensors[], sl_arch_norm_tensors[],
    sl_arch_dense_tensors[], sl_arch_expert_tensors[], sl_arch_nextn_tensors[];

/* Latent attention: its tensors, and what follows from config.json. Errors: SL_ESOURCE (arch_deepseek2.c). */
extern const struct sl_tensor_tmpl sl_arch_latent_attention_tensors[];
int sl_arch_latent_attention(struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* Tensors, facts of config.json and keys of DeepSeek-V3's form, and what follows from them; indexer
 * and layers for multi-token prediction are described, and left to the caller (arch_deepseek2.c). */
extern const struct sl_tensor_tmpl *const sl_arch_latent_tensors[];
extern const struct sl_field sl_arch_latent_fields[];
extern const enum sl_num sl_arch_latent_keys[];
int sl_arch_latent_derive(struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* Errors: SL_ESOURCE when there are 0 experts, or when they, their groups or the dense layers before them are more than there can be
 * (arch_deepseek2.c). */
int sl_arch_check_experts(const struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* Tensors whose scale of the whole llama.cpp applies, where there is an indexer (arch_deepseek32.c). */
extern const char sl_arch_latent_own_scales[];

/* What an indexer and layers for multi-token prediction that are kept add to these (arch_deepseek32.c). */
extern const struct sl_field sl_arch_indexed_fields[];
int sl_arch_indexed_derive(struct sl_params *p, struct sl_error *e) SL_MUST_USE;
/* Effect: counts layers for multi-token prediction, unless they are not wanted, among the others (arch_deepseek32.c). */
void sl_arch_keep_mtp(struct sl_params *p);

/* Effect: rows of q and of k and v for attention with plain heads, and the keys of a head's size where config.json
 * tells of it (arch_llama.c). Errors: SL_ESOURCE when heads do not divide. */
int sl_arch_plain_attention(struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* rope_scaling of type llama3; old: the context before scaling. */
struct sl_llama3 {
    double factor, low, high, old;
};
/* Effect: reads it, and makes room for a number for each two of a head's rows, which the caller fills. Errors: SL_ESOURCE
 * (absurd values), SL_EFAIL (arch_llama.c). */
int sl_arch_llama3(struct sl_params *p, struct sl_llama3 *s, struct sl_error *e) SL_MUST_USE;
/* Effect: where rope_scaling is of that type, rope_freqs as Llama has them (arch_llama.c). Errors: the same. */
int sl_arch_llama3_freqs(struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* Returns config.json's word for how experts are scored, NULL: none; *name = its entry, the first of the names that the converter knows. */
const char *sl_arch_scoring(const struct sl_params *p, const char **name);

/* Effect: how experts are scored, by config.json's word for it in the entry of that name. Errors: SL_EUNSUPPORTED (another
 * word). */
int sl_arch_gating(struct sl_params *p, const char *name, const char *func, struct sl_error *e) SL_MUST_USE;

/* Errors: SL_EUNSUPPORTED when an entry is another word than this one; where it is needed, also when there is none. */
int sl_arch_only(const struct sl_params *p, const char *name, const char *word, bool needed, struct sl_error *e) SL_MUST_USE;

/* Effect: marks the layers for which a list of 0 and 1, an entry for each, has v. Errors: SL_ESOURCE (no such list). */
int sl_arch_layer_list(struct sl_params *p, const char *name, enum sl_layer_kind kind, int v, struct sl_error *e) SL_MUST_USE;

/* Effect: appends the architecture's keys ("deepseek2.block_count" ...) in the
 * converter's order. */
int sl_arch_keys(const struct sl_params *p, struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Qwen3's attention, whose heads of q and k have norms. Errors: SL_EUNSUPPORTED (rope_scaling), SL_ESOURCE (arch_qwen.c). */
extern const struct sl_fact sl_arch_normed_facts[];
int sl_arch_normed_attention(struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* Facts of Qwen's config.json where there are experts. Errors: SL_EUNSUPPORTED when it tells of layers without some
 * (arch_qwen.c). */
extern const struct sl_field sl_arch_qwen_moe_fields[];
int sl_arch_all_have_experts(const struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* Effect: the sections of the rotary embedding by kinds of position, from rope's mrope_section. Returns whether that is there
 * (1 or 0). Errors: SL_ESOURCE (arch_qwen35.c). */
int sl_arch_sections(struct sl_params *p, struct sl_error *e) SL_MUST_USE;

/* Qwen's experts and their router: of an expert several tensors, or one of all experts of a layer. For the latter two views
 * must be filled, which are the last ones, and the templates arranged (arch_qwen.c). */
enum { SL_VIEW_GATE = SL_VIEWS - 2, SL_VIEW_UP };
extern const struct sl_tensor_tmpl sl_arch_qwen_moe_tensors[];
void sl_arch_qwen_moe_views(struct sl_params *p);
void sl_arch_qwen_moe_arrange(const struct sl_params *p, const struct sl_tensor_tmpl *t, struct sl_arrangement *a);

/* Facts of layer i, for `when`. */
uint32_t sl_arch_layer_facts(const struct sl_params *p, uint64_t i);

/* Effect: template with {i} and {e} filled in. Returns false when it does not
 * fit in cap bytes. */
bool sl_arch_name(char *buf, size_t cap, const char *tmpl, uint64_t i, uint64_t e);

/* Returns whether a name begins with prefix and a layer's number, *i; *rest = what stands behind it. */
bool sl_arch_in_layer(const char *name, const char *prefix, uint64_t *i, const char **rest);

/* Returns whether a checkpoint tensor of this name is dropped by conversion. */
bool sl_arch_drops(const struct sl_params *p, const char *name);

/* Returns whether a checkpoint tensor of this name is of the model's vision, or of its hearing, for which llama.cpp has
 * a file of its own. */
bool sl_arch_sees(const struct sl_params *p, const char *name);

/* Returns whether conversion keeps a tensor of this GGUF name F32. */
bool sl_arch_keeps_f32(const char *name, uint32_t n_dims);
/* Returns whether only the converter keeps it F32 (struct sl_out_tensor's outtype_f32). */
bool sl_arch_outtype_f32(const char *name);
/* Returns whether it is the router's matrix. */
bool sl_arch_is_router(const char *name);

#endif
