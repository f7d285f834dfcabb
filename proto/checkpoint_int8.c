/* Weights in 8-bit integers, as compressed-tensors ("int-quantized") and SGLang ship them: X of I8, whose codes are times
 * numbers, X_scale or X_scale_inv: one for the tensor, each row or each block. Such an X is one of INT8. */
#include "proto/checkpoint_priv.h"

#include <string.h>

static bool is_number(enum sl_dtype t)
{
    return t == SL_DTYPE_F32 || t == SL_DTYPE_BF16 || t == SL_DTYPE_F16;
}

int sl_ck_take_int8(struct sl_checkpoint *ck, struct sl_error *e)
{
    for (uint32_t i = 0; i < ck->n_tensors && !ck->is_gguf; i++) {
        struct sl_src_tensor *t = &ck->tensors[i];
        uint32_t scale = t->dtype == SL_DTYPE_I8 ? sl_ck_find_scale(ck, t->name) : SL_NO_TENSOR, zeros;

        if (scale == SL_NO_TENSOR || !is_number(ck->tensors[scale].dtype))
            continue;
        zeros = sl_ck_find_joined(ck, t->name, strlen(t->name), "_zero_point");
        if (zeros != SL_NO_TENSOR)
            return sl_fail(e, SL_EUNSUPPORTED, "INT8 tensor '%.160s' has zero points ('%.160s'), which are not supported: give "
                           "an FP8 or BF16 checkpoint of the model", t->name, ck->tensors[zeros].name);
        t->dtype = SL_DTYPE_INT8;
    }
    return 0;
}
