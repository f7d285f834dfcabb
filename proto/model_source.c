#include "proto/model_source.h"

#include "proto/cursor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void sl_model_source_size(const struct sl_params *p, const struct sl_tensor_tmpl *t, const struct sl_arrangement *how,
                          uint64_t *rows, uint64_t *cols)
{
    *rows = how->shape[0] ? how->shape[0] * how->shape[1] : how->rows ? how->rows : p->num[t->rows].u;
    *cols = how->shape[0] ? how->shape[2] : p->num[t->cols].u;
}

/* ---- what the checkpoint has ---- */

static bool has_shape(const struct sl_src_tensor *src, const struct sl_tensor_tmpl *t, const struct sl_arrangement *how,
                      uint64_t rows, uint64_t cols)
{
    uint32_t last = src->n_dims - 1;

    if (src->n_dims == 0)
        return false;
    if (how->shape[0])
        return src->n_dims == 3 && memcmp(src->shape, how->shape, sizeof how->shape) == 0;
    if (t->rows == SL_N_NONE && t->transform == SL_FIRST)
        return last == 0 && src->shape[0] >= cols;
    if (t->rows == SL_N_NONE)
        return src->shape[last] == cols && (last == 0 || (last == 1 && src->shape[0] == 1 && (how->row || t->transform == SL_PRODUCT)));
    return src->shape[0] == rows && src->shape[last] == cols &&
           (last == 1 || (last == 2 && src->shape[1] == 1 && how->convolution));
}

static int wrong_shape(const struct sl_src_tensor *src, const struct sl_tensor_tmpl *t, const struct sl_arrangement *how,
                       uint64_t rows, uint64_t cols, struct sl_error *e)
{
    char want[80], found[SL_SHAPE_TEXT];

    if (how->shape[0])
        snprintf(want, sizeof want, "[%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", how->shape[0], how->shape[1], how->shape[2]);
    else if (t->rows == SL_N_NONE)
        snprintf(want, sizeof want, "[%" PRIu64 "]", cols);
    else
        snprintf(want, sizeof want, "[%" PRIu64 ", %" PRIu64 "]", rows, cols);
    return sl_fail(e, SL_ESOURCE, "tensor '%.200s': expected shape %s by config.json, found %s", src->name, want,
                   sl_src_shape_text(src, found));
}

static int wrong_dtype(const struct sl_src_tensor *src, bool ids, struct sl_error *e)
{
    const char *as = ids ? "a list of experts: expected I64 or I32"
                     : src->dtype == SL_DTYPE_I8 ? "weights; as MXFP4 it would have scales in F8_E8M0, as INT8 in F32, BF16 or F16"
                     : src->dtype == SL_DTYPE_U8 ? "weights; as MXFP4 it would have scales in F8_E8M0" : "weights";

    return sl_fail(e, SL_EUNSUPPORTED, "tensor '%.200s' is %s, which cannot be read as %s", src->name,
                   sl_dtype_info(src->dtype)->name, as);
}

int sl_model_source_check(const struct sl_src_tensor *src, const struct sl_tensor_tmpl *t, const struct sl_arrangement *how,
                          uint64_t rows, uint64_t cols, struct sl_error *e)
{
    bool ids = t->transform == SL_IDS;

    if (ids ? src->dtype != SL_DTYPE_I64 && src->dtype != SL_DTYPE_I32 : !sl_dtype_info(src->dtype)->weight)
        return wrong_dtype(src, ids, e);
    return has_shape(src, t, how, rows, cols) ? 0 : wrong_shape(src, t, how, rows, cols, e);
}

/* ---- config.json alone ---- */

/* Bytes of a planned scale, as published models have them: E8M0 for F4, BF16 for integers but INT8 in
 * blocks, F32 for FP8 but in DeepSeek-V4 and in MXFP8. */
static uint32_t planned_width(const struct sl_params *p, const struct sl_checkpoint *ck, enum sl_dtype dtype)
{
    switch (dtype) {
    case SL_DTYPE_F4: return 1;
    case SL_DTYPE_I2: case SL_DTYPE_I4: case SL_DTYPE_UINT8: return 2;
    case SL_DTYPE_INT8: return ck->fp8_block_rows ? 4 : 2;
    default: return p->arch->e8m0 || p->mxfp8 ? 1 : 4;
    }
}

/* Bytes of what integers have besides: zero points, packed as they are, and a number for each column. */
static uint64_t planned_more(const struct sl_checkpoint *ck, const struct sl_model_src *of, uint64_t groups)
{
    uint64_t in_word = 32 / ck->int_bits;

    return (ck->int_zeros ? 4 * groups * sl_ceil_div_u64(of->rows, in_word) : 0) + (ck->int_order ? 4 * of->cols : 0);
}

/* Scales of a planned matrix: in I4, UINT8 and F4 groups of a row; in FP8 and INT8 blocks, or one for each row or for the tensor. */
static struct sl_scale planned_scale(const struct sl_params *p, const struct sl_checkpoint *ck, const struct sl_model_src *of)
{
    bool blocks = ck->fp8_block_rows && ck->fp8_block_cols;
    bool packed = sl_packed_bits(of->dtype);
    uint64_t group = packed ? ck->int_group ? ck->int_group : of->cols
                     : of->dtype != SL_DTYPE_F4 ? 0 : ck->nvfp4 ? SL_NVFP4_GROUP : SL_F4_GROUP;
    struct sl_scale s = {.tensor = SL_NO_TENSOR};

    s.width = planned_width(p, ck, of->dtype);
    s.block_rows = group ? 1 : blocks ? ck->fp8_block_rows : ck->fp8_by_row ? 1 : of->rows;
    s.block_cols = group ? group : blocks ? ck->fp8_block_cols : of->cols;
    s.rows = sl_ceil_div_u64(of->rows, s.block_rows);
    s.cols = sl_ceil_div_u64(of->cols, s.block_cols);
    s.more = packed ? planned_more(ck, of, s.cols) : 0;
    return s;
}

static enum sl_dtype planned_dtype(const struct sl_params *p, const struct sl_checkpoint *ck, enum sl_ship ship, bool ignored)
{
    switch (ship) {
    case SL_SHIP_F32: return SL_DTYPE_F32;
    case SL_SHIP_I64: return SL_DTYPE_I64;
    case SL_SHIP_BASE: return p->dtype;
    case SL_SHIP_EXPERT:
        if (p->fp4_experts)
            return SL_DTYPE_F4;
        break;
    case SL_SHIP_LINEAR: break;
    }
    if (ignored)
        return p->dtype;
    if (ck->int_bits)
        return ck->int_bits == 8 ? SL_DTYPE_UINT8 : ck->int_bits == 4 ? SL_DTYPE_I4 : SL_DTYPE_I2;
    if (ck->mxfp4 || ck->nvfp4)
        return SL_DTYPE_F4;
    return ck->int8 ? SL_DTYPE_INT8 : p->fp8 ? SL_DTYPE_F8_E4M3 : p->dtype;
}

void sl_model_source_plan(const struct sl_params *p, const struct sl_checkpoint *ck, enum sl_ship ship, bool ignored,
                          struct sl_model_src *s)
{
    s->dtype = planned_dtype(p, ck, ship, ignored);
    if (s->dtype == SL_DTYPE_F8_E4M3 || s->dtype == SL_DTYPE_F4 || s->dtype == SL_DTYPE_INT8 || sl_packed_bits(s->dtype))
        s->scale = planned_scale(p, ck, s);
}
