/* Element types: the ggml types that a GGUF file can hold, and the dtypes that
 * a checkpoint can hold. Ids, names and block sizes are facts of the formats. */
#ifndef SLUICE_PROTO_TYPES_H
#define SLUICE_PROTO_TYPES_H

#include <stdbool.h>
#include <stdint.h>

/* ggml's type ids, as stored in GGUF tensor infos. */
enum sl_type {
    SL_TYPE_F32 = 0, SL_TYPE_F16 = 1,
    SL_TYPE_Q4_0 = 2, SL_TYPE_Q4_1 = 3, SL_TYPE_Q5_0 = 6, SL_TYPE_Q5_1 = 7, SL_TYPE_Q8_0 = 8,
    SL_TYPE_Q2_K = 10, SL_TYPE_Q3_K = 11, SL_TYPE_Q4_K = 12, SL_TYPE_Q5_K = 13, SL_TYPE_Q6_K = 14,
    SL_TYPE_IQ2_XXS = 16, SL_TYPE_IQ2_XS = 17, SL_TYPE_IQ3_XXS = 18, SL_TYPE_IQ1_S = 19,
    SL_TYPE_IQ4_NL = 20, SL_TYPE_IQ3_S = 21, SL_TYPE_IQ2_S = 22, SL_TYPE_IQ4_XS = 23,
    SL_TYPE_I8 = 24, SL_TYPE_I16 = 25, SL_TYPE_I32 = 26, SL_TYPE_I64 = 27, SL_TYPE_F64 = 28,
    SL_TYPE_IQ1_M = 29, SL_TYPE_BF16 = 30, SL_TYPE_TQ1_0 = 34, SL_TYPE_TQ2_0 = 35, SL_TYPE_MXFP4 = 39,
    SL_TYPE_NVFP4 = 40, SL_TYPE_Q1_0 = 41, SL_TYPE_Q2_0 = 42,
    SL_TYPE_LIMIT = 43, /* one past the largest id above */
};

struct sl_type_info {
    const char *name;   /* lower case, as in recipes: "q4_k" */
    uint32_t block;     /* weights in one block */
    uint32_t bytes;     /* bytes of one block */
    bool quantizes;     /* Sluice can write this type */
    const char *advice; /* one line for `sluice types` */
};

/* Returns the facts of a ggml type, or NULL for an id that is not known. */
const struct sl_type_info *sl_type_info(int64_t type);

/* Returns the type with this name (letter case is ignored), or -1. */
int sl_type_by_name(const char *name);

/* Bytes of n weights in this type; n must be a multiple of the block. Returns
 * 0 when it is not, when the type is unknown, or when the product overflows. */
uint64_t sl_type_bytes(int type, uint64_t n);

/* What a checkpoint's tensor can hold. */
enum sl_dtype {
    SL_DTYPE_F8_E4M3, SL_DTYPE_F8_E5M2, SL_DTYPE_F8_E8M0,
    SL_DTYPE_BF16, SL_DTYPE_F16, SL_DTYPE_F32, SL_DTYPE_F64,
    SL_DTYPE_I8, SL_DTYPE_I16, SL_DTYPE_I32, SL_DTYPE_I64,
    SL_DTYPE_U8, SL_DTYPE_U16, SL_DTYPE_U32, SL_DTYPE_U64, SL_DTYPE_BOOL,
    SL_DTYPE_F4, /* E2M1, a byte holds two, the first in its low half; -0 is 0, as in ggml (checkpoint_fp4.c) */
    /* GGUF sources only, in blocks */
    SL_DTYPE_Q8_0, SL_DTYPE_Q4_0, SL_DTYPE_Q4_1, SL_DTYPE_Q5_0, SL_DTYPE_Q5_1,
    SL_DTYPE_Q2_K, SL_DTYPE_Q3_K, SL_DTYPE_Q4_K, SL_DTYPE_Q5_K, SL_DTYPE_Q6_K,
    SL_DTYPE_IQ4_NL, SL_DTYPE_IQ4_XS, SL_DTYPE_IQ3_XXS, SL_DTYPE_IQ3_S, SL_DTYPE_IQ2_XXS,
    SL_DTYPE_IQ2_XS, SL_DTYPE_IQ2_S, SL_DTYPE_IQ1_S, SL_DTYPE_IQ1_M, SL_DTYPE_MXFP4,
    SL_DTYPE_Q1_0, SL_DTYPE_Q2_0, SL_DTYPE_TQ1_0, SL_DTYPE_TQ2_0,
    SL_DTYPE_I4, /* a byte holds two, less 8 or a zero point each, the first in its low half; in safetensors packed (checkpoint_packed.c) */
    SL_DTYPE_NVFP4, /* GGUF sources only */
    SL_DTYPE_INT8, /* what safetensors has as I8, under scales (checkpoint_int8.c) */
    SL_DTYPE_UINT8, /* a byte, less 128 or a zero point; in safetensors packed, four in an I32 (checkpoint_packed.c) */
    SL_DTYPE_I2, /* a byte holds four, less a zero point each, the first in its lowest bits; GPTQ's alone (checkpoint_gptq.c) */
    SL_DTYPE_COUNT,
};

/* What conversion makes of the stored values of some tensors. */
enum sl_change {
    SL_AS_STORED = 0,
    SL_PLUS_ONE,  /* 1 + x */
    SL_MINUS_EXP, /* -exp(x) */
    SL_ABOVE_0,   /* x, a number above 0 */
    SL_RECIPROCAL, /* 1 / x, of a number above 0 */
};

struct sl_dtype_info {
    const char *name; /* as in a safetensors header: "F8_E4M3" */
    uint32_t block;   /* elements in one block: 1, or 2 (I4, F4), or 32 to 256 for the quantized ones */
    uint32_t bytes;   /* bytes of one block */
    bool weight;      /* can be read as F32 weights */
    int type;         /* the ggml type with the same bytes, or -1 */
};

/* Returns the facts of a dtype; NULL outside the enum. */
const struct sl_dtype_info *sl_dtype_info(int dtype);

/* Returns the dtype of a safetensors header with exactly this name, or -1. */
int sl_dtype_by_name(const char *name);

/* Returns the ggml type with the same bytes as a dtype, or -1; and the other way. */
int sl_type_of_dtype(int dtype);
int sl_dtype_of_type(int type);

#endif
