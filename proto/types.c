#include "proto/types.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

static const struct sl_type_info types[SL_TYPE_LIMIT] = {
    [SL_TYPE_F32] = {"f32", 1, 4, true, "exact; norms, routers and biases stay in it"},
    [SL_TYPE_F16] = {"f16", 1, 2, true, "half precision; large values overflow, bf16 does not"},
    [SL_TYPE_BF16] = {"bf16", 1, 2, true, "the usual archive form of a checkpoint"},
    [SL_TYPE_Q8_0] = {"q8_0", 32, 34, true, "8.5 bits; as good as the source in every test known"},
    [SL_TYPE_Q4_0] = {"q4_0", 32, 18, true, "4.5 bits; old and simple, q4_k is better at the same size"},
    [SL_TYPE_Q4_1] = {"q4_1", 32, 20, true, "5 bits; old, q4_k is smaller and better"},
    [SL_TYPE_Q5_0] = {"q5_0", 32, 22, true, "5.5 bits; for rows that 256 does not divide"},
    [SL_TYPE_Q5_1] = {"q5_1", 32, 24, true, "6 bits; for rows that 256 does not divide"},
    [SL_TYPE_Q2_K] = {"q2_k", 256, 84, true, "2.6 bits; for the experts of very large models only"},
    [SL_TYPE_Q3_K] = {"q3_k", 256, 110, true, "3.4 bits; the base of DQ3_K_M"},
    [SL_TYPE_Q4_K] = {"q4_k", 256, 144, true, "4.5 bits; the common choice"},
    [SL_TYPE_Q5_K] = {"q5_k", 256, 176, true, "5.5 bits; when there is room to spare"},
    [SL_TYPE_Q6_K] = {"q6_k", 256, 210, true, "6.6 bits; output and other sensitive tensors"},
    [SL_TYPE_IQ4_NL] = {"iq4_nl", 32, 18, true, "4.5 bits on a curve; small blocks, for rows that 256 does not divide"},
    [SL_TYPE_IQ4_XS] = {"iq4_xs", 256, 136, true, "4.25 bits on a curve; smaller than q4_k, slower on old CPUs"},
    [SL_TYPE_IQ2_XXS] = {"iq2_xxs", 256, 66, true, "2.06 bits; needs an importance matrix"},
    [SL_TYPE_IQ2_XS] = {"iq2_xs", 256, 74, true, "2.3 bits; needs an importance matrix"},
    [SL_TYPE_IQ2_S] = {"iq2_s", 256, 82, true, "2.6 bits; needs an importance matrix"},
    [SL_TYPE_IQ3_XXS] = {"iq3_xxs", 256, 98, true, "3.06 bits; needs an importance matrix"},
    [SL_TYPE_IQ3_S] = {"iq3_s", 256, 110, true, "3.4 bits"},
    [SL_TYPE_IQ1_S] = {"iq1_s", 256, 50, true, "1.6 bits; needs an importance matrix"},
    [SL_TYPE_IQ1_M] = {"iq1_m", 256, 56, true, "1.75 bits; needs an importance matrix"},
    [SL_TYPE_MXFP4] = {"mxfp4", 32, 17, true, "4.25 bits; what the experts of some models ship in, and kept then"},
    [SL_TYPE_NVFP4] = {"nvfp4", 64, 36, false, "4.5 bits; kept where a source has it, not made of others; what scales the whole is beside it"},
    [SL_TYPE_Q1_0] = {"q1_0", 128, 18, true, "1.125 bits, a sign each; for models that were trained so"},
    [SL_TYPE_Q2_0] = {"q2_0", 64, 18, true, "2.25 bits, three levels; for models that were trained so"},
    [SL_TYPE_TQ1_0] = {"tq1_0", 256, 54, true, "1.69 bits, three levels; for models that were trained so"},
    [SL_TYPE_TQ2_0] = {"tq2_0", 256, 66, true, "2.06 bits, three levels; larger and faster than tq1_0, the same values"},
    [SL_TYPE_I8] = {"i8", 1, 1, false, "integer data, copied"},
    [SL_TYPE_I16] = {"i16", 1, 2, false, "integer data, copied"},
    [SL_TYPE_I32] = {"i32", 1, 4, false, "integer data, copied"},
    [SL_TYPE_I64] = {"i64", 1, 8, false, "integer data, copied"},
    [SL_TYPE_F64] = {"f64", 1, 8, false, "double precision data, copied"},
};

/* One that ggml has too, with the same bytes. */
#define BOTH(x, block, bytes, weight) [SL_DTYPE_##x] = {#x, block, bytes, weight, SL_TYPE_##x}
static const struct sl_dtype_info dtypes[SL_DTYPE_COUNT] = {
    [SL_DTYPE_F8_E4M3] = {"F8_E4M3", 1, 1, true, -1},
    [SL_DTYPE_F8_E5M2] = {"F8_E5M2", 1, 1, true, -1},
    [SL_DTYPE_F8_E8M0] = {"F8_E8M0", 1, 1, false, -1},
    BOTH(BF16, 1, 2, true), BOTH(F16, 1, 2, true), BOTH(F32, 1, 4, true), BOTH(F64, 1, 8, true),
    BOTH(I8, 1, 1, false), BOTH(I16, 1, 2, false), BOTH(I32, 1, 4, false), BOTH(I64, 1, 8, false),
    [SL_DTYPE_U8] = {"U8", 1, 1, false, -1}, [SL_DTYPE_U16] = {"U16", 1, 2, false, -1},
    [SL_DTYPE_U32] = {"U32", 1, 4, false, -1}, [SL_DTYPE_U64] = {"U64", 1, 8, false, -1},
    [SL_DTYPE_BOOL] = {"BOOL", 1, 1, false, -1}, [SL_DTYPE_F4] = {"F4", 2, 1, true, -1},
    BOTH(Q8_0, 32, 34, true), BOTH(Q4_0, 32, 18, true), BOTH(Q4_1, 32, 20, true),
    BOTH(Q5_0, 32, 22, true), BOTH(Q5_1, 32, 24, true), BOTH(Q2_K, 256, 84, true),
    BOTH(Q3_K, 256, 110, true), BOTH(Q4_K, 256, 144, true), BOTH(Q5_K, 256, 176, true),
    BOTH(Q6_K, 256, 210, true), BOTH(IQ4_NL, 32, 18, true), BOTH(IQ4_XS, 256, 136, true),
    BOTH(IQ3_XXS, 256, 98, true), BOTH(IQ3_S, 256, 110, true), BOTH(IQ2_XXS, 256, 66, true),
    BOTH(IQ2_XS, 256, 74, true), BOTH(IQ2_S, 256, 82, true), BOTH(IQ1_S, 256, 50, true),
    BOTH(IQ1_M, 256, 56, true), BOTH(MXFP4, 32, 17, true),
    BOTH(Q1_0, 128, 18, true), BOTH(Q2_0, 64, 18, true), BOTH(TQ1_0, 256, 54, true), BOTH(TQ2_0, 256, 66, true),
    [SL_DTYPE_I4] = {"I4", 2, 1, true, -1}, BOTH(NVFP4, 64, 36, true),
    [SL_DTYPE_INT8] = {"INT8", 1, 1, true, -1}, [SL_DTYPE_UINT8] = {"UINT8", 1, 1, true, -1},
    [SL_DTYPE_I2] = {"I2", 4, 1, true, -1},
};

const struct sl_type_info *sl_type_info(int64_t type)
{
    return type >= 0 && type < SL_TYPE_LIMIT && types[type].name ? &types[type] : NULL;
}

int sl_type_by_name(const char *name)
{
    for (int i = 0; i < SL_TYPE_LIMIT; i++)
        if (types[i].name && strcasecmp(types[i].name, name) == 0)
            return i;
    return -1;
}

uint64_t sl_type_bytes(int type, uint64_t n)
{
    const struct sl_type_info *t = sl_type_info(type);
    uint64_t bytes;

    if (!t || n % t->block || __builtin_mul_overflow(n / t->block, (uint64_t)t->bytes, &bytes))
        return 0;
    return bytes;
}

const struct sl_dtype_info *sl_dtype_info(int dtype)
{
    return dtype >= 0 && dtype < SL_DTYPE_COUNT ? &dtypes[dtype] : NULL;
}

int sl_dtype_by_name(const char *name)
{
    for (int i = 0; i < SL_DTYPE_Q8_0; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return i;
    return -1;
}

int sl_type_of_dtype(int dtype)
{
    const struct sl_dtype_info *d = sl_dtype_info(dtype);

    return d ? d->type : -1;
}

int sl_dtype_of_type(int type)
{
    for (int i = 0; i < SL_DTYPE_COUNT && type >= 0; i++)
        if (dtypes[i].type == type)
            return i;
    return -1;
}
