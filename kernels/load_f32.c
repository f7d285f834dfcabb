/* Source elements to F32, run by run under one scale. */
#include "kernels/backend.h"
#include "kernels/blocks.h"
#include "kernels/half.h"

#include <math.h>
#include <string.h>

static bool load_q8_0(const uint8_t *data, uint64_t at, uint64_t n, float scale, float *out)
{
    bool bad = false;

    for (uint64_t i = 0; i < n; i++, at++) {
        const uint8_t *blk = data + at / 32 * sizeof(struct blk_q8_0);
        uint16_t h;

        memcpy(&h, blk, 2);
        out[i] = (float)(int8_t)blk[2 + at % 32] * sl_f32_from_f16(h) * scale;
        bad |= !isfinite(out[i]);
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
        if (s->dtype == SL_DTYPE_Q8_0)
            broken = load_q8_0(data, skip + done, len, scale, out + done);
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
