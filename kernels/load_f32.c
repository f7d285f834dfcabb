/* Source elements to F32, run by run under one scale; and q8_0 straight from them. */
#include "kernels/backend.h"
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

/* Effect: moves on by len <= cols_left elements; no division, since runs are short. */
static void advance(const struct sl_source *s, struct place *p, uint64_t len)
{
    p->col += len;
    p->cols_left -= len;
    if (p->cols_left)
        return;
    p->scale++;
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

int sl_load_f32(const struct sl_source *s, uint64_t skip, uint64_t n, float *out, uint64_t *bad)
{
    const struct sl_backend_ops *ops = sl_backend_ops(SL_BACKEND_AUTO);
    const struct sl_dtype_info *t = sl_dtype_info(s->dtype);
    const uint8_t *data = s->data;
    struct place p;

    if (!t || !t->weight || (s->scale && (!s->cols || !s->block_rows || !s->block_cols)))
        return SL_EUNSUPPORTED;
    if (s->scale && n)
        p = place_of(s, s->first + skip);
    for (uint64_t done = 0, len; done < n; done += len) {
        float scale = s->scale ? *p.scale : 1;
        bool broken;

        len = s->scale ? least(p.cols_left, n - done) : n - done;
        if (t->block > 1)
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

/* Effect: scale[i] = the scale of the i-th block of 32 from *p on. Returns false where one has two. */
static bool block_scales(const struct sl_source *s, struct place *p, uint64_t blocks, float *scale)
{
    for (uint64_t i = 0; i < blocks;) {
        uint64_t run = least(p->cols_left / 32, blocks - i);

        if (p->cols_left % 32)
            return false;
        for (uint64_t k = 0; k < run; k++)
            scale[i++] = *p->scale;
        advance(s, p, 32 * run);
    }
    return true;
}

int sl_quantize_source(enum sl_backend b, int type, const struct sl_source *s, uint64_t skip, uint64_t n, void *out)
{
    const struct sl_backend_ops *ops = sl_backend_ops(b);
    const struct sl_dtype_info *t = sl_dtype_info(s->dtype);
    const uint8_t *data = s->data;
    const uint64_t bytes = sl_type_bytes(SL_TYPE_Q8_0, 32);
    uint64_t blocks = n / 32, bad;
    float scale[PIECE], x[32 * REST];
    uint8_t *to = out;
    struct place p;

    if (type != SL_TYPE_Q8_0 || n % 32 || !ops || !t || !t->weight || t->block > 1 ||
        (s->scale && (!s->cols || !s->block_rows || !s->block_cols)))
        return 0;
    if (s->scale && n)
        p = place_of(s, s->first + skip);
    for (uint64_t i = 0; !s->scale && i < PIECE; i++)
        scale[i] = 1;
    for (uint64_t done = 0, k; done < blocks; done += k) {
        bool scaled = s->scale || s->dtype == SL_DTYPE_F8_E4M3;

        k = least(PIECE, blocks - done);
        if (s->scale && !block_scales(s, &p, k, scale))
            return 0;
        k = ops->q8_0(s->dtype, data + (skip + 32 * done) * t->bytes, scaled ? scale : NULL, k, to + done * bytes);
        if (k)
            continue;
        k = blocks - done;
        if (k >= REST || sl_load_f32(s, skip + 32 * done, 32 * k, x, &bad) < 0 ||
            sl_quantize_on(b, type, x, NULL, 32 * k, 32, to + done * bytes, &bad) < 0)
            return 0;
    }
    return 1;
}

void sl_round_bf16(float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = sl_f32_from_bf16(sl_bf16_from_f32(x[i]));
}
