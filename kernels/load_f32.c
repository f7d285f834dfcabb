/* Source elements to F32, run by run under one scale; and q8_0 straight from them. */
#include "kernels/backend.h"
#include "kernels/blocks.h"
#include "kernels/half.h"

#include <math.h>
#include <string.h>

#define BLOCK_MAX 256u /* weights */

/* n elements from `at` on of a quantized matrix; neither must be a multiple of the block. */
static bool load_blocks(int type, const uint8_t *data, uint64_t at, uint64_t n, float scale, float *out)
{
    const struct sl_type_info *t = sl_type_info(type);
    float part[BLOCK_MAX];
    bool bad = false;

    while (n) {
        uint64_t in = at % t->block, take = t->block - in < n ? t->block - in : n;
        const uint8_t *from = data + at / t->block * t->bytes;

        if (in == 0 && n >= t->block) {
            take = n / t->block * t->block;
            bad |= sl_dequantize(type, from, take, out) < 0;
        } else {
            bad |= sl_dequantize(type, from, t->block, part) < 0;
            memcpy(out, part + in, take * sizeof *out);
        }
        for (uint64_t i = 0; i < take; i++) {
            out[i] *= scale;
            bad |= !isfinite(out[i]);
        }
        out += take;
        at += take;
        n -= take;
    }
    return bad;
}

static int code_of_i4(const uint8_t *data, uint64_t at)
{
    return data[at / 2] >> 4 * (at % 2) & 15;
}

/* n elements from `at` on; those of whole bytes by loops that compilers turn into vectors. */
static bool load_i4(const uint8_t *data, uint64_t at, uint64_t n, int zero, float scale, float *restrict out)
{
    uint64_t i = 0;
    bool bad = false;

    for (; at % 2 == 0 && i + 32 <= n; i += 32) {
        const uint8_t *from = data + (at + i) / 2;
        int8_t q[32];

        for (int k = 0; k < 16; k++) {
            q[2 * k] = (int8_t)((from[k] & 15) - zero);
            q[2 * k + 1] = (int8_t)((from[k] >> 4) - zero);
        }
        for (int k = 0; k < 32; k++)
            out[i + (uint64_t)k] = (float)q[k] * scale;
    }
    for (; i < n; i++)
        out[i] = (float)(code_of_i4(data, at + i) - zero) * scale;
    for (i = 0; i < n && !(fabsf(scale) < 0x1p120f); i++) /* of others every product is finite */
        bad |= !isfinite(out[i]);
    return bad;
}

/* n codes. */
static bool load_uint8(const uint8_t *data, uint64_t n, int zero, float scale, float *restrict out)
{
    bool bad = false;

    for (uint64_t i = 0; i < n; i++)
        out[i] = (float)(data[i] - zero) * scale;
    for (uint64_t i = 0; i < n && !(fabsf(scale) < 0x1p118f); i++)
        bad |= !isfinite(out[i]);
    return bad;
}

/* n codes. */
static bool load_int8(const uint8_t *data, uint64_t n, float scale, float *restrict out)
{
    bool bad = false;

    for (uint64_t i = 0; i < n; i++)
        out[i] = (float)(int8_t)data[i] * scale;
    for (uint64_t i = 0; i < n && !(fabsf(scale) < 0x1p120f); i++)
        bad |= !isfinite(out[i]);
    return bad;
}

/* n codes from `at` on. */
static bool load_f4(const uint8_t *data, uint64_t at, uint64_t n, float scale, float *restrict out)
{
    static const float values[16] = {SL_E2M1_VALUES};
    bool bad = false;

    for (uint64_t i = 0; i < n; i++, at++)
        out[i] = values[data[at / 2] >> 4 * (at % 2) & 15] * scale;
    for (uint64_t i = 0; i < n && !(fabsf(scale) < SL_E2M1_SAFE); i++)
        bad |= !isfinite(out[i]);
    return bad;
}

/* Where the next element lies under the block scales. */
struct place {
    uint64_t row, col;    /* of the matrix */
    uint64_t rows_left;   /* of the block, this row included */
    uint64_t cols_left;   /* of the block's row, or of the matrix's where that ends first */
    const float *row_scales, *scale;
};

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static struct place place_of(const struct sl_source *s, uint64_t index)
{
    struct place p = {.row = index / s->cols, .col = index % s->cols};

    p.rows_left = s->block_rows - p.row % s->block_rows;
    p.cols_left = least(s->block_cols - p.col % s->block_cols, s->cols - p.col);
    p.row_scales = s->scale + (p.row / s->block_rows - s->scale_row0) * s->scale_cols;
    p.scale = p.row_scales + p.col / s->block_cols;
    return p;
}

/* At the end of a block's row. */
static void next_block(const struct sl_source *s, struct place *p)
{
    if (p->col == s->cols) {
        p->col = 0;
        p->row++;
        if (--p->rows_left == 0) {
            p->rows_left = s->block_rows;
            p->row_scales += s->scale_cols;
        }
        p->scale = p->row_scales;
    }
    p->cols_left = least(s->block_cols, s->cols - p->col);
}

/* Effect: moves on by len <= cols_left elements; no division, since runs are short. */
static void advance(const struct sl_source *s, struct place *p, uint64_t len)
{
    p->col += len;
    p->cols_left -= len;
    if (p->cols_left)
        return;
    p->scale++;
    next_block(s, p);
}

/* Returns how many of the next n elements lie in whole blocks of this row, from here on. */
static uint64_t whole_blocks(const struct sl_source *s, const struct place *p, uint64_t n)
{
    uint64_t row = least(s->cols - p->col, n);

    return p->cols_left == s->block_cols ? row - row % s->block_cols : 0;
}

static void advance_blocks(const struct sl_source *s, struct place *p, uint64_t len)
{
    p->col += len;
    p->scale += len / s->block_cols;
    next_block(s, p);
}

/* n elements of a run from `at` on, all of one scale, number `of` of those at s->scale. */
static bool load_integers(const struct sl_source *s, uint64_t at, uint64_t n, uint64_t of, float *out)
{
    float scale = s->scale ? s->scale[of] : 1;

    if (s->dtype == SL_DTYPE_I4)
        return load_i4(s->data, at, n, s->zero ? s->zero[of] : 8, scale, out);
    return load_uint8((const uint8_t *)s->data + at, n, s->zero ? s->zero[of] : 128, scale, out);
}

/* Which scale it is goes by the column; neighbours of one are loaded together. */
static int load_by_column(const struct sl_source *s, uint64_t skip, uint64_t n, float *out, uint64_t *bad)
{
    for (uint64_t done = 0, len; done < n; done += len) {
        uint64_t at = s->first + skip + done, row = at / s->cols, col = at % s->cols, most = least(s->cols - col, n - done);
        uint32_t group = s->group[col];

        for (len = 1; len < most && s->group[col + len] == group;)
            len++;
        if (load_integers(s, skip + done, len, (row / s->block_rows - s->scale_row0) * s->scale_cols + group, out + done)) {
            while (isfinite(out[done]))
                done++;
            *bad = s->first + skip + done;
            return SL_ESOURCE;
        }
    }
    return 0;
}

int sl_load_f32(const struct sl_source *s, uint64_t skip, uint64_t n, float *out, uint64_t *bad)
{
    const struct sl_backend_ops *ops = sl_backend_ops(SL_BACKEND_AUTO);
    const struct sl_dtype_info *t = sl_dtype_info(s->dtype);
    const uint8_t *data = s->data;
    struct place p = {0};

    if (!t || !t->weight || (s->scale && (!s->cols || !s->block_rows || !s->block_cols)))
        return SL_EUNSUPPORTED;
    if (s->scale && s->group && (s->dtype == SL_DTYPE_I4 || s->dtype == SL_DTYPE_UINT8))
        return load_by_column(s, skip, n, out, bad);
    if (s->scale && n)
        p = place_of(s, s->first + skip);
    for (uint64_t done = 0, len; done < n; done += len) {
        float scale = s->scale ? *p.scale : 1;
        bool broken;

        len = s->scale ? least(p.cols_left, n - done) : n - done;
        if (s->scale && s->dtype == SL_DTYPE_F8_E4M3 && ops->load_e4m3) {
            uint64_t many = whole_blocks(s, &p, n - done);

            if (many && ops->load_e4m3(data + skip + done, many, p.scale, s->block_cols, out + done)) {
                advance_blocks(s, &p, len = many);
                continue;
            }
        }
        if (s->scale && s->dtype == SL_DTYPE_F4 && ops->load_f4 && s->block_cols == 32 && (skip + done) % 2 == 0) {
            uint64_t many = whole_blocks(s, &p, n - done);

            if (many && ops->load_f4(data + (skip + done) / 2, many, p.scale, out + done)) {
                advance_blocks(s, &p, len = many);
                continue;
            }
        }
        if (s->dtype == SL_DTYPE_I4 || s->dtype == SL_DTYPE_UINT8)
            broken = load_integers(s, skip + done, len, s->scale ? (uint64_t)(p.scale - s->scale) : 0, out + done);
        else if (s->dtype == SL_DTYPE_INT8)
            broken = load_int8(data + skip + done, len, scale, out + done);
        else if (s->dtype == SL_DTYPE_F4)
            broken = load_f4(data, skip + done, len, scale, out + done);
        else if (t->block > 1)
            broken = load_blocks(sl_type_of_dtype(s->dtype), data, skip + done, len, scale, out + done);
        else
            broken = ops->load(s->dtype, data + (skip + done) * t->bytes, len, scale, out + done);
        if (broken) {
            uint64_t i = 0;

            while (i + 1 < len && isfinite(out[done + i]))
                i++;
            *bad = s->first + skip + done + i;
            return SL_ESOURCE;
        }
        if (s->scale)
            advance(s, &p, len);
    }
    return 0;
}

#define PIECE 256u /* blocks of 32 */
#define REST 16u   /* blocks that a backend may leave */
#define FLOATS 1024u

/* Effect: scale[i] = the scale of the i-th block of 32 from *p on. Returns false where one has two. */
static bool block_scales(const struct sl_source *s, struct place *p, uint64_t blocks, float *scale)
{
    for (uint64_t i = 0; i < blocks;) {
        uint64_t many = s->block_cols == 128 ? whole_blocks(s, p, 32 * (blocks - i)) : 0, run;

        for (uint64_t k = 0; k < many / 128; k++, i += 4)
            scale[i] = scale[i + 1] = scale[i + 2] = scale[i + 3] = p->scale[k];
        if (many) {
            advance_blocks(s, p, many);
            continue;
        }
        if (p->cols_left % 32)
            return false;
        run = least(p->cols_left / 32, blocks - i);
        for (uint64_t k = 0; k < run; k++)
            scale[i++] = *p->scale;
        advance(s, p, 32 * run);
    }
    return true;
}

static int q8_0_of_source(enum sl_backend b, const struct sl_source *s, uint64_t skip, uint64_t n, uint8_t *out)
{
    const struct sl_backend_ops *ops = sl_backend_ops(b);
    const uint64_t bytes = sl_type_bytes(SL_TYPE_Q8_0, 32), width = sl_dtype_info(s->dtype)->bytes;
    bool scaled = s->scale || s->dtype == SL_DTYPE_F8_E4M3;
    uint64_t blocks = n / 32, bad;
    float scale[PIECE], x[32 * REST];
    struct place p = {0};

    if (s->scale && n)
        p = place_of(s, s->first + skip);
    for (uint64_t i = 0; !s->scale && i < PIECE; i++)
        scale[i] = 1;
    for (uint64_t done = 0, k; done < blocks; done += k) {
        k = least(PIECE, blocks - done);
        if (s->scale && !block_scales(s, &p, k, scale))
            return 0;
        k = ops->q8_0(s->dtype, (const uint8_t *)s->data + (skip + 32 * done) * width, scaled ? scale : NULL, k, out + done * bytes);
        if (k)
            continue;
        k = blocks - done;
        if (k >= REST || sl_load_f32(s, skip + 32 * done, 32 * k, x, &bad) < 0 ||
            sl_quantize_on(b, SL_TYPE_Q8_0, x, NULL, 32 * k, 32, out + done * bytes, &bad) < 0)
            return 0;
    }
    return 1;
}

/* By pieces, so that reading and writing memory take turns often enough to overlap. */
static int floats_of_source(enum sl_backend b, int type, const struct sl_source *s, uint64_t skip, uint64_t n, uint8_t *out)
{
    uint64_t bad, bytes = sl_type_bytes(type, 1);
    float x[FLOATS];

    if (type == SL_TYPE_F32 && (uintptr_t)out % _Alignof(float) == 0)
        return sl_load_f32(s, skip, n, (float *)(void *)out, &bad) == 0;
    for (uint64_t done = 0, k; done < n; done += k) {
        k = least(FLOATS, n - done);
        if (sl_load_f32(s, skip + done, k, x, &bad) < 0 || sl_quantize_on(b, type, x, NULL, k, k, out + done * bytes, &bad) < 0)
            return 0;
    }
    return 1;
}

int sl_quantize_source(enum sl_backend b, int type, const struct sl_source *s, uint64_t skip, uint64_t n, void *out)
{
    const struct sl_dtype_info *t = sl_dtype_info(s->dtype);

    if (!sl_backend_usable(b) || !t || !t->weight || t->block > 1 || s->dtype == SL_DTYPE_UINT8 ||
        (s->scale && (!s->cols || !s->block_rows || !s->block_cols)))
        return 0;
    if (type == SL_TYPE_Q8_0 && n % 32 == 0)
        return q8_0_of_source(b, s, skip, n, out);
    if (type == SL_TYPE_F16 || type == SL_TYPE_BF16 || type == SL_TYPE_F32)
        return floats_of_source(b, type, s, skip, n, out);
    return 0;
}

/* Codes 2i and 2i + 1 of a byte go to two; the lower 16 of a block's 32 to the low halves. */
static void repack_block(const uint8_t *codes, uint8_t e, uint8_t *out)
{
    out[0] = e;
    for (int i = 0; i < 8; i++) {
        out[1 + 2 * i] = (uint8_t)((codes[i] & 15) | codes[8 + i] << 4);
        out[2 + 2 * i] = (uint8_t)(codes[i] >> 4 | (codes[8 + i] & 0xf0));
    }
}

int sl_repack_mxfp4(const struct sl_source *s, uint64_t skip, uint64_t n, void *out, uint64_t *bad)
{
    const uint8_t *codes = (const uint8_t *)s->data + skip / 2;
    struct place p;
    float x[32];

    if (s->dtype != SL_DTYPE_F4 || !s->scale || !s->cols || s->block_rows != 1 || s->block_cols != 32 || n % 32 ||
        skip % 32 || s->first % 32)
        return SL_EUNSUPPORTED;
    p = place_of(s, s->first + skip);
    for (uint64_t done = 0; done < n; done += 32, codes += 16) {
        uint32_t e = sl_bits(*p.scale) >> 23;

        if (p.cols_left != 32 || e > 254 || sl_bits(*p.scale) != sl_bits(sl_f32_from_e8m0((uint8_t)e)))
            return SL_EUNSUPPORTED;
        if (e > 252) /* 6 times it is infinite */
            SL_TRY(sl_load_f32(s, skip + done, 32, x, bad));
        repack_block(codes, (uint8_t)e, (uint8_t *)out + done / 32 * sizeof(struct blk_mxfp4));
        advance(s, &p, 32);
    }
    return 0;
}

/* *code: of a value that E4M3 has without a sign. Returns whether it has this one. */
static bool to_ue4m3(float x, uint8_t *code)
{
    uint32_t bits = sl_bits(x);

    if (!(x >= 0 && x <= 448))
        return false;
    *code = x < 0x1p-6f ? (uint8_t)(x * 512) : (uint8_t)((bits >> 20) - (120 << 3));
    return x < 0x1p-6f ? (float)*code == x * 512 : bits << 12 == 0;
}

int sl_repack_nvfp4(const struct sl_source *s, uint64_t skip, uint64_t n, void *out)
{
    const uint8_t *codes = (const uint8_t *)s->data + skip / 2;
    struct blk_nvfp4 *to = out;
    struct place p;

    if (s->dtype != SL_DTYPE_F4 || !s->scale || !s->cols || s->block_rows != 1 || s->block_cols != 16 || n % 64 ||
        skip % 64 || s->first % 64)
        return SL_EUNSUPPORTED;
    p = place_of(s, s->first + skip);
    for (uint64_t done = 0; done < n; done += 16, codes += 8) {
        uint64_t k = done / 16 % 4;

        if (p.cols_left != 16 || !to_ue4m3(*p.scale, &to[done / 64].d[k]))
            return SL_EUNSUPPORTED;
        for (int i = 0; i < 4; i++) {
            to[done / 64].qs[8 * k + 2 * (uint64_t)i] = (uint8_t)((codes[i] & 15) | codes[4 + i] << 4);
            to[done / 64].qs[8 * k + 2 * (uint64_t)i + 1] = (uint8_t)(codes[i] >> 4 | (codes[4 + i] & 0xf0));
        }
        advance(s, &p, 16);
    }
    return 0;
}

void sl_round_bf16(float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = sl_f32_from_bf16(sl_bf16_from_f32(x[i]));
}
