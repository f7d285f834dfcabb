/* Weights in MXFP4 as DeepSeek-V4's experts: X.weight, by its dtype bytes (I8, U8) of two weights each, the
 * first in the low half, and X.scale or X.weight_scale (F8_E8M0, U8), one for 32 weights of a row; or in NVFP4 as ModelOpt
 * writes it: X.weight_scale (F8_E4M3), one for 16. Such an X.weight is one of F4, with twice as many columns; what a header
 * calls F4 has them already. */
#include "proto/checkpoint_priv.h"
#include "proto/cursor.h"

#define IN_A_BYTE 2u /* weights */

/* Bytes under exponents or E4M3 can be nothing else; under bytes they are where the shapes say so. */
static bool is_fp4(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, uint64_t *elems)
{
    const struct sl_src_tensor *s;
    uint32_t at;

    if ((t->dtype != SL_DTYPE_I8 && t->dtype != SL_DTYPE_U8) || t->n_dims != 2 || !sl_stem(t->name, ".weight") ||
        !sl_mul_u64(t->elems, IN_A_BYTE, elems))
        return false;
    at = sl_ck_find_scale(ck, t->name);
    if (at == SL_NO_TENSOR)
        return false;
    s = &ck->tensors[at];
    return s->dtype == SL_DTYPE_F8_E8M0 || s->dtype == SL_DTYPE_F8_E4M3 ||
           (s->dtype == SL_DTYPE_U8 && s->n_dims == 2 && s->shape[0] == t->shape[0] &&
            t->shape[1] % (SL_F4_GROUP / IN_A_BYTE) == 0 && s->shape[1] == t->shape[1] / (SL_F4_GROUP / IN_A_BYTE));
}

void sl_ck_take_fp4(struct sl_checkpoint *ck)
{
    uint64_t elems;

    for (uint32_t i = 0; i < ck->n_tensors && !ck->is_gguf; i++) {
        struct sl_src_tensor *t = &ck->tensors[i];

        if (!is_fp4(ck, t, &elems))
            continue;
        t->dtype = SL_DTYPE_F4;
        t->shape[1] *= IN_A_BYTE;
        t->elems = elems;
    }
}
