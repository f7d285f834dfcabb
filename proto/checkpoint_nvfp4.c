/* What scales a whole weight in NVFP4, and its input: two formats' names. */
#include "proto/checkpoint_priv.h"

#include <string.h>

#define OF_2 ".weight_scale_2"           /* ModelOpt's */
#define OF_ALL ".weight_global_scale"    /* compressed-tensors', a reciprocal */

/* F4 under scales in F8_E4M3. */
static bool is_nvfp4(const struct sl_checkpoint *ck, uint32_t weight)
{
    uint32_t scale;

    if (ck->is_gguf || ck->tensors[weight].dtype != SL_DTYPE_F4)
        return false;
    scale = sl_ck_find_scale(ck, ck->tensors[weight].name);
    return scale != SL_NO_TENSOR && ck->tensors[scale].dtype == SL_DTYPE_F8_E4M3;
}

/* Bytes of two weights each, whose scales are not there. */
static int check_scaled(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, struct sl_error *e)
{
    if ((w->dtype != SL_DTYPE_U8 && w->dtype != SL_DTYPE_I8 && w->dtype != SL_DTYPE_F4) ||
        sl_ck_find_scale(ck, w->name) != SL_NO_TENSOR)
        return 0;
    if (sl_checkpoint_is_shard(ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and the scale of '%.160s' is in another; give "
                       "the folder, %s", ck->files[0].path, w->name, ck->dir);
    return sl_fail(e, SL_ESOURCE, "NVFP4 tensor '%.160s' has no scale: expected '%.160s_scale'", w->name, w->name);
}

int sl_ck_own_scale_role(const struct sl_checkpoint *ck, const char *name, struct sl_error *e)
{
    size_t n = sl_stem(name, OF_2);
    uint32_t w;

    if (!n)
        n = sl_stem(name, OF_ALL);
    if (!n)
        return 0;
    w = sl_ck_find_joined(ck, name, n, ".weight");
    if (w != SL_NO_TENSOR && is_nvfp4(ck, w))
        return 1;
    if (w == SL_NO_TENSOR && sl_checkpoint_is_shard(ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and the tensor that '%.160s' scales is in "
                       "another; give the folder, %s", ck->files[0].path, name, ck->dir);
    if (w == SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "scale '%.160s' belongs to no tensor: expected '%.*s.weight' in the checkpoint", name,
                       (int)n, name);
    SL_TRY(check_scaled(ck, &ck->tensors[w], e));
    return sl_fail(e, SL_EUNSUPPORTED, "scale '%.160s' belongs to '%.160s', which is %s: only NVFP4 has one of a whole tensor",
                   name, ck->tensors[w].name, sl_dtype_info(ck->tensors[w].dtype)->name);
}

static int check_number(const struct sl_checkpoint *ck, uint32_t tensor, struct sl_error *e)
{
    const struct sl_src_tensor *t = &ck->tensors[tensor];
    char shape[SL_SHAPE_TEXT];

    if (t->dtype == SL_DTYPE_F32 && t->elems == 1)
        return 0;
    return sl_fail(e, SL_ESOURCE, "scale '%.160s' is %s of shape %s: expected one number in F32", t->name,
                   sl_dtype_info(t->dtype)->name, sl_src_shape_text(t, shape));
}

int sl_checkpoint_own_scale(const struct sl_checkpoint *ck, uint32_t weight, struct sl_own_scale *out, struct sl_error *e)
{
    const char *name = ck->tensors[weight].name;
    size_t n = sl_stem(name, ".weight");
    uint32_t other;

    *out = (struct sl_own_scale){SL_NO_TENSOR, SL_NO_TENSOR, false};
    if (!is_nvfp4(ck, weight))
        return 0;
    n = n ? n : strlen(name);
    out->weight = sl_ck_find_joined(ck, name, n, OF_2);
    other = sl_ck_find_joined(ck, name, n, OF_ALL);
    if (out->weight != SL_NO_TENSOR && other != SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "'%.160s' has two scales of the whole, '%.160s' and '%.160s'; expected one", name,
                       ck->tensors[out->weight].name, ck->tensors[other].name);
    out->reciprocal = other != SL_NO_TENSOR;
    if (out->reciprocal)
        out->weight = other;
    if (out->weight == SL_NO_TENSOR && sl_checkpoint_is_shard(ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and '%.*s" OF_2 "' is in another; give the folder, %s",
                       ck->files[0].path, (int)n, name, ck->dir);
    if (out->weight == SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "NVFP4 tensor '%.160s' has no scale of the whole: expected '%.*s" OF_2 "' or '%.*s" OF_ALL
                       "'", name, (int)n, name, (int)n, name);
    SL_TRY(check_number(ck, out->weight, e));
    out->input = sl_ck_find_joined(ck, name, n, out->reciprocal ? ".input_global_scale" : ".input_scale");
    return out->input == SL_NO_TENSOR ? 0 : check_number(ck, out->input, e);
}
