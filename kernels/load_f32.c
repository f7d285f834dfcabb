/* Source elements to F32, run by run under one scale. */
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

/* Elements of row `row` from column `col` on that share a scale. */
static uint64_t run_length(const struct sl_source *s, uint64_t col, uint64_t n)
{
    uint64_t end = s->cols - col, block = s->block_cols - col % s->block_cols;

    end = block < end ? block : end;
    return end < n ? end : n;
}

int sl_load_f32(const struct sl_source *s, uint64_t skip, uint64_t n, float *out, uint64_t *bad)
{
    const struct sl_backend_ops *ops = sl_backend_ops(SL_BACKEND_AUTO);
    const struct sl_dtype_info *t = sl_dtype_info(s->dtype);
    const uint8_t *data = s->data;

    if (!t || !t->weight || (s->scale && (!s->cols || !s->block_rows || !s->block_cols)))
        return SL_EUNSUPPORTED;
    for (uint64_t done = 0; done < n;) {
        uint64_t len = n - done, index = s->first + skip + done;
        float scale = 1;
        bool broken;

        if (s->scale) {
            uint64_t row = index / s->cols, col = index % s->cols;

            len = run_length(s, col, len);
            scale = s->scale[(row / s->block_rows - s->scale_row0) * s->scale_cols + col / s->block_cols];
        }
        if (t->block > 1)
            broken = load_blocks(sl_type_of_dtype(s->dtype), data, skip + done, len, scale, out + done);
        else
            broken = ops->load(s->dtype, data + (skip + done) * t->bytes, len, scale, out + done);
        if (broken) {
            uint64_t i = 0;

            while (i + 1 < len && isfinite(out[done + i]))
                i++;
            *bad = index + i;
            return SL_ESOURCE;
        }
        done += len;
    }
    return 0;
}

void sl_round_bf16(float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = sl_f32_from_bf16(sl_bf16_from_f32(x[i]));
}
