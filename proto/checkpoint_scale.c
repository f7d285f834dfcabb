/* Which tensor is the scale of which weight, and whether its dtype and shape are right: of FP8 and INT8 one for each block, row or
 * tensor; of I4, UINT8 and F4 (packed integers, MXFP4, NVFP4) one for each group of a row. */
#include "proto/checkpoint_priv.h"
#include "proto/cursor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for a tensor name and a suffix. */
#define NAME_BUF (SL_SRC_MAX_NAME + 32)

/* Under a scale for each group of a row. */
static bool is_grouped(enum sl_dtype t)
{
    return sl_packed_bits(t) || t == SL_DTYPE_F4;
}

static bool is_integer(enum sl_dtype t)
{
    return sl_packed_bits(t) || t == SL_DTYPE_INT8;
}

/* With scales by groups, then rows. */
static bool is_packed(const struct sl_checkpoint *ck, enum sl_dtype t)
{
    return ck->int_packing != SL_PACKED_ALONG && sl_packed_bits(t);
}

static bool has_scale(enum sl_dtype t)
{
    return t == SL_DTYPE_F8_E4M3 || t == SL_DTYPE_F8_E5M2 || t == SL_DTYPE_INT8 || is_grouped(t);
}

/* For errors. */
static const char *kind(enum sl_dtype t)
{
    return is_grouped(t) || is_integer(t) ? sl_dtype_info(t)->name : "FP8";
}

uint32_t sl_ck_find_joined(const struct sl_checkpoint *ck, const char *name, size_t n, const char *suffix)
{
    char buf[NAME_BUF];

    if (n + strlen(suffix) >= sizeof buf)
        return SL_NO_TENSOR;
    memcpy(buf, name, n);
    strcpy(buf + n, suffix);
    return sl_checkpoint_find(ck, buf);
}

uint32_t sl_ck_find_scale(const struct sl_checkpoint *ck, const char *weight)
{
    size_t base = sl_stem(weight, ".weight");
    uint32_t t = sl_ck_find_joined(ck, weight, strlen(weight), "_scale_inv");

    if (t == SL_NO_TENSOR)
        t = sl_ck_find_joined(ck, weight, strlen(weight), "_scale");
    if (t == SL_NO_TENSOR && base)
        t = sl_ck_find_joined(ck, weight, base, ck->int_packing == SL_PACKED_ALONG ? ".scale" : ".scales");
    return t;
}

static uint64_t group_of(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, enum sl_dtype scale)
{
    if (w->dtype != SL_DTYPE_F4)
        return ck->int_group ? ck->int_group : w->shape[1] ? w->shape[1] : 1;
    return scale == SL_DTYPE_F8_E4M3 ? SL_NVFP4_GROUP : SL_F4_GROUP;
}

/* One for each group of a row, which holds whole ones (the converter reads no others). */
static bool match_groups(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, const struct sl_src_tensor *s,
                         struct sl_scale *out)
{
    uint64_t group = group_of(ck, w, s->dtype);

    out->rows = w->shape[0];
    out->block_rows = 1;
    if (is_packed(ck, w->dtype)) {
        out->cols = s->shape[0];
        out->block_cols = sl_ceil_div_u64(w->shape[1], out->cols ? out->cols : 1);
        return s->n_dims == 2 && out->cols && s->shape[1] == out->rows && (ck->int_order || w->shape[1] % out->cols == 0);
    }
    out->cols = w->shape[1] / group;
    out->block_cols = group;
    out->no_sign = w->dtype == SL_DTYPE_F4 && s->dtype == SL_DTYPE_F8_E4M3;
    return w->n_dims == 2 && w->shape[1] % group == 0 && s->n_dims == 2 && s->shape[0] == out->rows && s->shape[1] == out->cols;
}

/* [rows, cols], or with ones between as ModelOpt has it. */
static bool is_grid(const struct sl_src_tensor *s, uint64_t rows, uint64_t cols)
{
    return (s->n_dims == 2 && s->shape[0] == rows && s->shape[1] == cols) ||
           (s->n_dims == 4 && s->shape[0] == rows && s->shape[1] == 1 && s->shape[2] == cols && s->shape[3] == 1);
}

/* Returns in how many ways the scale is that of blocks which config.json tells of; *found: the first. Blocks as large as the matrix
 * or larger mean the same. */
static unsigned find_grid(const struct sl_checkpoint *ck, const struct sl_src_tensor *s, uint64_t rows, uint64_t cols, struct sl_block *found)
{
    struct sl_block b, first = {0, 0};
    unsigned n = 0;

    for (unsigned i = 0; (b = sl_checkpoint_block(ck, i)).rows; i++) {
        struct sl_block own = {b.rows < rows ? b.rows : rows, b.cols < cols ? b.cols : cols};

        if (!is_grid(s, sl_ceil_div_u64(rows, b.rows), sl_ceil_div_u64(cols, b.cols)) || (n && own.rows == first.rows && own.cols == first.cols))
            continue;
        if (n++ == 0) {
            first = own;
            *found = b;
        }
    }
    return n;
}

/* Whether a matrix is not larger than a block. */
static bool in_a_block(const struct sl_checkpoint *ck, uint64_t rows, uint64_t cols)
{
    struct sl_block b;

    for (unsigned i = 0; (b = sl_checkpoint_block(ck, i)).rows; i++)
        if (rows <= b.rows && cols <= b.cols)
            return true;
    return false;
}

/* The three shapes that an FP8 or INT8 weight's scale may have; false when it has none of them, or blocks of several sizes fit. Where
 * there are blocks, one scale is that of one block. */
static bool match_shape(const struct sl_checkpoint *ck, const struct sl_src_tensor *s,
                        uint64_t rows, uint64_t cols, bool matrix, struct sl_scale *out)
{
    bool blocks = ck->fp8_block_rows && ck->fp8_block_cols;
    struct sl_block block;
    unsigned n = matrix ? find_grid(ck, s, rows, cols, &block) : 0;

    if (n) {
        out->rows = sl_ceil_div_u64(rows, block.rows);
        out->cols = sl_ceil_div_u64(cols, block.cols);
        out->block_rows = block.rows;
        out->block_cols = block.cols;
        return n == 1;
    }
    out->cols = 1;
    out->block_cols = cols ? cols : 1;
    if (s->elems == 1 && (!matrix || !blocks || in_a_block(ck, rows, cols))) {
        out->rows = 1;
        out->block_rows = rows ? rows : 1;
        return true;
    }
    out->rows = rows;
    out->block_rows = 1;
    return matrix && s->elems == rows && s->n_dims >= 1 && s->n_dims <= 2 && s->shape[0] == rows;
}

const uint8_t sl_scale_parts[SL_SCALE_PARTS] = {8, 4}; /* the first that fits, as the converter has it */

/* Whether the weight is of those that may come in parts. */
static bool has_parts(const struct sl_checkpoint *ck, const struct sl_src_tensor *w)
{
    return ck->fp8_method && ck->fp8_block_rows && ck->fp8_block_cols && w->n_dims == 2 && sl_stem(w->name, ".self_attn.qkv_proj.weight");
}

/* Blocks of several sizes may be as many of a part. */
static bool match_parts(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, const struct sl_src_tensor *s, struct sl_scale *out)
{
    out->block_rows = ck->fp8_block_rows;
    out->block_cols = ck->fp8_block_cols;
    for (int i = 0; i < SL_SCALE_PARTS && s->n_dims == 2 && !ck->n_fp8_more; i++) {
        uint64_t n = sl_scale_parts[i];

        out->part_rows = w->shape[0] / n;
        out->part_blocks = sl_ceil_div_u64(out->part_rows, out->block_rows);
        out->rows = s->shape[0];
        out->cols = s->shape[1];
        if (out->part_rows && w->shape[0] % n == 0 && out->rows == n * out->part_blocks && out->cols == sl_ceil_div_u64(w->shape[1], out->block_cols))
            return true;
    }
    return false;
}

/* The same of several matrices in one tensor, which are one of all their rows where no block is of two. */
static bool match_stack(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, const struct sl_src_tensor *s,
                        struct sl_scale *out)
{
    struct sl_src_tensor first = *s;
    uint64_t n = w->shape[0], rows;

    if (s->elems == 1 && !ck->fp8_block_rows && sl_mul_u64(n, w->shape[1], &rows))
        return match_shape(ck, s, rows, w->shape[2], false, out);
    if (!n || !s->n_dims || s->shape[0] != n)
        return false;
    first.n_dims--;
    memmove(first.shape, s->shape + 1, first.n_dims * sizeof *s->shape);
    first.elems = s->elems / n;
    return match_shape(ck, &first, w->shape[1], w->shape[2], true, out) && w->shape[1] % out->block_rows == 0 &&
           sl_mul_u64(out->rows, n, &out->rows);
}

/* The scales that blocks of each size would have, as "[2, 2] or [4, 4]". */
static void grids_text(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, char *buf, size_t cap)
{
    struct sl_block b;
    size_t at = 0;

    for (unsigned i = 0; (b = sl_checkpoint_block(ck, i)).rows && at < cap; i++)
        at += (size_t)snprintf(buf + at, cap - at, "%s[%" PRIu64 ", %" PRIu64 "]", i ? " or " : "", sl_ceil_div_u64(w->shape[0], b.rows),
                               sl_ceil_div_u64(w->shape[1], b.cols));
}

static int several_fit(const struct sl_src_tensor *w, const struct sl_src_tensor *s, struct sl_error *e)
{
    char ws[SL_SHAPE_TEXT], ss[SL_SHAPE_TEXT];

    return sl_fail(e, SL_EUNSUPPORTED, "scale '%.120s' of shape %s fits '%.120s' of shape %s with blocks of more than one size that config.json's "
                   "config_groups have, and does not tell which: give an FP8 checkpoint with blocks of one size, or a BF16 one", s->name,
                   sl_src_shape_text(s, ss), w->name, sl_src_shape_text(w, ws));
}

static int wrong_shape(const struct sl_checkpoint *ck, const struct sl_src_tensor *w,
                       const struct sl_src_tensor *s, struct sl_error *e)
{
    char ws[SL_SHAPE_TEXT], ss[SL_SHAPE_TEXT], want[300] = "[] or [1]";
    struct sl_block block;

    if (!is_grouped(w->dtype) && w->n_dims == 2 && find_grid(ck, s, w->shape[0], w->shape[1], &block) > 1)
        return several_fit(w, s, e);
    if (is_packed(ck, w->dtype))
        snprintf(want, sizeof want, "[n, %" PRIu64 "]%s", w->shape[0], ck->int_order ? "" : ", whole groups of columns");
    else if (is_grouped(w->dtype))
        snprintf(want, sizeof want, "[%" PRIu64 ", n], %" PRIu64 " weights for each", w->shape[0],
                 group_of(ck, w, s->dtype));
    else if (w->n_dims == 3 && ck->n_fp8_more)
        snprintf(want, sizeof want, "matrices of whole blocks of one size that config.json has");
    else if (w->n_dims == 3 && ck->fp8_block_rows && ck->fp8_block_cols && w->shape[1] % ck->fp8_block_rows)
        snprintf(want, sizeof want, "matrices of whole blocks, whose %" PRIu64 " rows divide %" PRIu64, ck->fp8_block_rows, w->shape[1]);
    else if (w->n_dims == 3 && ck->fp8_block_rows && ck->fp8_block_cols)
        snprintf(want, sizeof want, "[%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", w->shape[0], w->shape[1] / ck->fp8_block_rows,
                 sl_ceil_div_u64(w->shape[2], ck->fp8_block_cols));
    else if (w->n_dims == 3)
        snprintf(want, sizeof want, "[1], [%" PRIu64 "] or [%" PRIu64 ", %" PRIu64 ", 1]", w->shape[0], w->shape[0], w->shape[1]);
    else if (has_parts(ck, w))
        snprintf(want, sizeof want, "blocks of %s8 or of 4 parts of its rows", ck->n_fp8_more ? "one size, and of " : "");
    else if (w->n_dims == 2 && ck->fp8_block_rows && ck->fp8_block_cols)
        grids_text(ck, w, want, sizeof want);
    else if (w->n_dims == 2)
        snprintf(want, sizeof want, "[1] or [%" PRIu64 ", 1] (config.json gives no "
                 "weight_block_size; is it of this model?)", w->shape[0]);
    return sl_fail(e, SL_ESOURCE, "scale '%.120s' of shape %s does not fit '%.120s' of shape %s: "
                   "expected %s", s->name, sl_src_shape_text(s, ss), w->name, sl_src_shape_text(w, ws), want);
}

/* Whether weights of one dtype may have scales of another. */
static bool scales(enum sl_dtype weight, enum sl_dtype scale)
{
    bool exponent = scale == SL_DTYPE_F8_E8M0 || scale == SL_DTYPE_U8;
    bool number = scale == SL_DTYPE_F32 || scale == SL_DTYPE_BF16 || scale == SL_DTYPE_F16;

    return (exponent && !is_integer(weight)) || (number && weight != SL_DTYPE_F4) ||
           (weight == SL_DTYPE_F4 && scale == SL_DTYPE_F8_E4M3);
}

/* Those dtypes, for errors. */
static const char *scale_dtypes(enum sl_dtype weight)
{
    return weight == SL_DTYPE_F4 ? "F8_E8M0, U8 or F8_E4M3" : is_integer(weight) ? "F32, BF16 or F16"
                                 : "F32, BF16, F16, F8_E8M0 or U8";
}

int sl_checkpoint_scale(const struct sl_checkpoint *ck, uint32_t weight, struct sl_scale *out,
                        struct sl_error *e)
{
    const struct sl_src_tensor *w, *s;
    uint64_t rows, cols;

    *out = (struct sl_scale){.tensor = SL_NO_TENSOR};
    if (weight >= ck->n_tensors)
        return sl_fail(e, SL_EFAIL, "tensor number %" PRIu32 " of %" PRIu32, weight, ck->n_tensors);
    w = &ck->tensors[weight];
    if (!has_scale(w->dtype) || sl_checkpoint_is_scale(ck, weight))
        return 0;
    out->tensor = sl_ck_find_scale(ck, w->name);
    if (out->tensor == SL_NO_TENSOR && sl_checkpoint_is_shard(ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and the scale of '%.160s' is in another; give "
                       "the folder, %s", ck->files[0].path, w->name, ck->dir);
    if (out->tensor == SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "%s tensor '%.160s' has no scale: expected '%.160s_scale%s'",
                       kind(w->dtype), w->name, w->name, is_grouped(w->dtype) ? "" : "_inv");
    if (w->n_dims > (is_grouped(w->dtype) ? 2 : 3))
        return sl_fail(e, SL_EUNSUPPORTED, "%s tensor '%.160s' has %" PRIu32 " dimensions; only "
                       "matrices and vectors are supported", kind(w->dtype), w->name, w->n_dims);
    s = &ck->tensors[out->tensor];
    if (!scales(w->dtype, s->dtype))
        return sl_fail(e, SL_ESOURCE, "scale '%.160s' of '%.160s' is %s: expected %s", s->name, w->name,
                       sl_dtype_info(s->dtype)->name, scale_dtypes(w->dtype));
    out->any_sign = is_integer(w->dtype);
    if (is_grouped(w->dtype) && !match_groups(ck, w, s, out))
        return wrong_shape(ck, w, s, e);
    if (is_grouped(w->dtype))
        return w->dtype == SL_DTYPE_F4 ? 0 : sl_ck_match_packing(ck, w, out, e);
    if (w->n_dims == 3)
        return match_stack(ck, w, s, out) ? 0 : wrong_shape(ck, w, s, e);
    if (has_parts(ck, w))
        return match_parts(ck, w, s, out) ? 0 : wrong_shape(ck, w, s, e);
    rows = w->n_dims == 2 ? w->shape[0] : 1;
    cols = w->n_dims == 2 ? w->shape[1] : w->elems;
    if (!match_shape(ck, s, rows, cols, w->n_dims == 2, out))
        return wrong_shape(ck, w, s, e);
    return 0;
}

bool sl_checkpoint_is_scale(const struct sl_checkpoint *ck, uint32_t tensor)
{
    const struct sl_ck_priv *p = sl_ck_priv(ck);

    return tensor < ck->n_tensors && p->role && p->role[tensor] != SL_ROLE_WEIGHT;
}

/* ---- the whole checkpoint ---- */

static bool is_activation_scale(const char *name)
{
    static const char *const suffixes[] = {
        ".activation_scale", "_activation_scale", ".input_scale", "_input_scale", ".input_global_scale",
        ".input_scale_ub", ".input_zero_point",
        ".output_scale", "_output_scale", ".q_scale", ".k_scale", ".v_scale", ".kv_scale",
    };

    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (sl_stem(name, suffixes[i]))
            return true;
    return false;
}

/* The name of the weight that a tensor of this name would scale, in buf; false
 * when the name is not a scale's. *sure: it can be nothing else than a scale. */
static bool weight_name(const struct sl_checkpoint *ck, const char *name, char buf[NAME_BUF], bool *sure)
{
    size_t n = sl_stem(name, "_scale_inv");
    const char *suffix = "";

    *sure = true;
    if (!n && sl_stem(name, ".weight_scale"))
        n = sl_stem(name, "_scale");
    if (!n) {
        *sure = false;
        n = sl_stem(name, "_scale");
    }
    if (!n) {
        n = sl_stem(name, ck->int_packing == SL_PACKED_ALONG ? ".scale" : ".scales");
        suffix = ".weight";
    }
    if (!n || n + strlen(suffix) >= NAME_BUF)
        return false;
    memcpy(buf, name, n);
    strcpy(buf + n, suffix);
    return true;
}

/* As a layer's experts in one tensor of NVFP4: no FP8 tensor of its own. */
static bool scales_bytes(const struct sl_checkpoint *ck, uint32_t weight, uint32_t scale)
{
    enum sl_dtype w = ck->tensors[weight].dtype, s = ck->tensors[scale].dtype;

    return (w == SL_DTYPE_U8 || w == SL_DTYPE_I8) && (s == SL_DTYPE_F8_E4M3 || s == SL_DTYPE_F8_E8M0);
}

/* A name such as "x.scale" is a scale only beside a weight "x.weight" in FP8, INT8, I4, UINT8 or F4;
 * "x.weight_scale" and "..._scale_inv" must have one. */
static int find_role(const struct sl_checkpoint *ck, uint32_t i, struct sl_error *e)
{
    const char *name = ck->tensors[i].name;
    char weight[NAME_BUF], shape[SL_SHAPE_TEXT];
    bool sure;
    uint32_t w;
    int rc;

    if (is_activation_scale(name))
        return SL_ROLE_ACTIVATION;
    SL_TRY(rc = sl_ck_own_scale_role(ck, name, e));
    if (rc == 1)
        return SL_ROLE_SCALE;
    if (sl_ck_is_packing(ck, name))
        return SL_ROLE_PACKING;
    if (!weight_name(ck, name, weight, &sure))
        return SL_ROLE_WEIGHT;
    w = sl_checkpoint_find(ck, weight);
    if (w != SL_NO_TENSOR && has_scale(ck->tensors[w].dtype)) {
        uint32_t used = sl_ck_find_scale(ck, weight);

        if (used == i)
            return SL_ROLE_SCALE;
        return sl_fail(e, SL_ESOURCE, "'%.160s' has two scales, '%.160s' and '%.160s'; expected one",
                       weight, used == SL_NO_TENSOR ? "" : ck->tensors[used].name, name);
    }
    if (!sure && !(w != SL_NO_TENSOR && scales_bytes(ck, w, i)))
        return SL_ROLE_WEIGHT;
    if (w == SL_NO_TENSOR && sl_checkpoint_is_shard(ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and the tensor that '%.160s' scales is in "
                       "another; give the folder, %s", ck->files[0].path, name, ck->dir);
    if (w == SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "scale '%.160s' belongs to no tensor: expected '%.160s' in the "
                       "checkpoint", name, weight);
    return sl_fail(e, SL_EUNSUPPORTED, "scale '%.160s' belongs to '%.160s', which is %s of shape %s: only matrices in FP8, "
                   "INT8, MXFP4, NVFP4 and packed integers with scales are supported", name, weight,
                   sl_dtype_info(ck->tensors[w].dtype)->name, sl_src_shape_text(&ck->tensors[w], shape));
}

/* NVFP4's are FP8; what scaled them would be left out unseen. */
static int check_unscaled(const struct sl_checkpoint *ck, const struct sl_src_tensor *scale, struct sl_error *e)
{
    uint32_t own = has_scale(scale->dtype) ? sl_ck_find_scale(ck, scale->name) : SL_NO_TENSOR;

    return own == SL_NO_TENSOR ? 0 : sl_fail(e, SL_EUNSUPPORTED, "scale '%.160s' belongs to '%.160s', which is a scale itself",
                                             ck->tensors[own].name, scale->name);
}

int sl_ck_check_scales(struct sl_checkpoint *ck, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    struct sl_own_scale own;
    struct sl_scale scale;

    p->role = calloc((size_t)ck->n_tensors + 1, 1);
    if (!p->role)
        return sl_fail(e, SL_EFAIL, "out of memory for %" PRIu32 " tensors", ck->n_tensors);
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        int role = find_role(ck, i, e);

        if (role < 0)
            return role;
        p->role[i] = (uint8_t)role;
    }
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        if (p->role[i] == SL_ROLE_SCALE)
            SL_TRY(check_unscaled(ck, &ck->tensors[i], e));
        SL_TRY(sl_checkpoint_scale(ck, i, &scale, e));
        SL_TRY(sl_checkpoint_own_scale(ck, i, &own, e));
        ck->nvfp4 |= own.weight != SL_NO_TENSOR;
        if (scale.tensor != SL_NO_TENSOR && p->role[scale.tensor] != SL_ROLE_SCALE)
            return sl_fail(e, SL_ESOURCE, "'%.160s' is both a weight and the scale of '%.160s'",
                           ck->tensors[scale.tensor].name, ck->tensors[i].name);
    }
    return 0;
}
