/* A GPU thread's values from the source: runs, pairs of rows and transposed heads as the
 * launch describes them, block scales, and elements of any dtype at any address. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_LOAD_H
#define SLUICE_KERNELS_TEXT_DEVICE_LOAD_H

#include "kernels/gpu.h"
#include "kernels/text_values.h"

/* A place in the source, and the scale that holds for the next `left` elements. */
struct device_cursor {
    const struct sl_gpu_run *run;
    const uint8_t *p;
    uint64_t step, row, col;
    uint64_t left, span;
    float scale;
    bool down, odd; /* odd: of F4 the byte's second code */
};

/* Of F4 two. */
V_FN uint32_t device_width(int dtype)
{
    return dtype == SL_DTYPE_F32 ? 4 : dtype == SL_DTYPE_F16 || dtype == SL_DTYPE_BF16 ? 2 : 1;
}

/* No alignment is assumed. */
V_FN float device_value(int dtype, const uint8_t *p, bool odd)
{
    uint32_t e = p[0];

    if (dtype == SL_DTYPE_F4)
        return from_e2m1(odd ? e >> 4 : e & 15);
    if (dtype == SL_DTYPE_F8_E4M3)
        return from_e4m3(e);
    if (dtype == SL_DTYPE_F8_E5M2)
        return from_e5m2(e);
    e |= (uint32_t)p[1] << 8;
    if (dtype == SL_DTYPE_F16)
        return from_half(e);
    if (dtype == SL_DTYPE_BF16)
        return sl_float(e << 16);
    return sl_float(e | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}

/* The scale at the cursor, and how far it goes. */
V_CALL void device_span(const struct sl_gpu_work *k, struct device_cursor *c)
{
    const struct sl_gpu_run *r = c->run;
    uint64_t right;

    if (r->scale == UINT64_MAX) {
        c->left = c->span = UINT64_MAX;
        c->scale = 1.f;
        return;
    }
    if (c->down) {
        c->row += c->span;
        c->span = r->block_rows - c->row % r->block_rows;
    } else {
        c->col += c->span;
        if (c->col >= r->cols) {
            c->col = 0;
            c->row++;
        }
        right = r->block_cols - c->col % r->block_cols;
        c->span = r->cols - c->col < right ? r->cols - c->col : right;
    }
    c->left = c->span;
    c->scale = ((const float *)(const void *)(k->in + r->scale))[(c->row / r->block_rows - r->scale_row0) * r->scale_cols +
                                                  c->col / r->block_cols];
}

/* Sets the cursor to output element `at`. */
V_CALL void device_seek(const struct sl_gpu_work *k, uint64_t at, struct device_cursor *c)
{
    uint64_t in = at, place, run = 0, width = device_width(k->dtype);

    c->step = width;
    c->down = k->order == SL_GPU_COLUMNS;
    if (k->order == SL_GPU_IN_ORDER) {
        while (at >= k->run[run].end)
            run++;
        in -= run ? k->run[run - 1].end : 0;
        place = in;
    } else if (k->order == SL_GPU_PAIRED) {
        uint64_t row = at / k->cols, i = row % k->pair_rows;

        in = (row - i + i % 2 * (k->pair_rows / 2) + i / 2) * k->cols + at % k->cols;
        place = in;
    } else if (k->order == SL_GPU_VIEWED) {
        uint64_t q = at / k->view_run;

        in = q % k->view_n[0] * k->view_step[0] + q / k->view_n[0] % k->view_n[1] * k->view_step[1] +
             q / (k->view_n[0] * k->view_n[1]) * k->view_step[2] + at % k->view_run;
        place = in;
    } else {
        uint64_t column = at / k->height % k->width, row = at % k->height;

        run = at / (k->height * k->width);
        place = row * k->width + column;
        in = row * k->source_width + column;
        c->step = k->width * width;
    }
    c->run = &k->run[run];
    c->odd = false;
    if (k->dtype == SL_DTYPE_F4) { /* from the middle of a byte no words are read */
        c->odd = place % 2;
        c->step = !c->odd;
        place /= 2;
    }
    c->p = k->in + c->run->data + place * width;
    c->row = (c->run->first + in) / c->run->cols;
    c->col = (c->run->first + in) % c->run->cols;
    c->span = 0;
    device_span(k, c);
}

/* Whether n output elements from `at` on, which are there, lie in one run, row or column. */
V_FN bool device_together(const struct sl_gpu_work *k, uint64_t at, int n)
{
    uint64_t run = 0, row = k->order == SL_GPU_PAIRED ? k->cols : k->order == SL_GPU_VIEWED ? k->view_run : k->height;

    if (k->order != SL_GPU_IN_ORDER)
        return at % row + (uint64_t)n <= row;
    while (at >= k->run[run].end)
        run++;
    return at + (uint64_t)n <= k->run[run].end;
}

/* The value at the cursor, which moves on; no alignment is assumed. */
V_CALL float device_next(const struct sl_gpu_work *k, struct device_cursor *c)
{
    float x;

    if (c->left == 0)
        device_span(k, c);
    x = v_mul(device_value(k->dtype, c->p, c->odd), c->scale);
    if (k->dtype == SL_DTYPE_F4) {
        c->p += c->odd;
        c->odd = !c->odd;
    } else {
        c->p += c->step;
    }
    c->left--;
    return x;
}

struct device_words {
    uint32_t w[2];
} __attribute__((aligned(8)));
struct device_quad {
    uint32_t w[4];
} __attribute__((aligned(16)));

/* n values that lie side by side at p and share a scale; dtype and n are constants where this
 * is called. FP8: the code's bits are a float's, but for its exponent's bias. */
V_FN bool device_run_of(int dtype, const uint8_t *p, float scale, int n, vf *x)
{
    const struct device_words *from = (const struct device_words *)(const void *)p;
    const int width = (int)device_width(dtype), each = 4 / width;
    uint32_t bad = 0;

    V_UNROLL
    for (int i = 0; i < n / (2 * each); i++) {
        struct device_words d = from[i];

        V_UNROLL
        for (int h = 0; h < 2; h++)
            V_UNROLL
            for (int b = 0; b < each; b++) {
                uint32_t u = d.w[h] << (24 - 8 * b) % 32;
                int at = (2 * i + h) * each + b;

                if (dtype == SL_DTYPE_F8_E4M3) {
                    x[at] = v_mul(v_mul(sl_float((u & 0x80000000) | (u >> 4 & 0x07f00000)), 0x1p120f), scale);
                } else if (dtype == SL_DTYPE_F8_E5M2) {
                    x[at] = v_mul(v_mul(sl_float((u & 0x80000000) | (u >> 3 & 0x0fe00000)), 0x1p112f), scale);
                } else if (width == 2) {
                    u = b ? d.w[h] & 0xffff0000 : d.w[h] << 16;
                    x[at] = v_mul(dtype == SL_DTYPE_F16 ? from_half(u >> 16) : sl_float(u), scale);
                } else {
                    x[at] = v_mul(sl_float(d.w[h]), scale);
                }
                if (dtype != SL_DTYPE_F8_E4M3)
                    bad |= (sl_bits(x[at]) & 0x7f800000) == 0x7f800000;
            }
        if (dtype == SL_DTYPE_F8_E4M3) /* the code of a NaN, four at a time */
            bad |= (((d.w[0] & 0x7f7f7f7f) + 0x01010101) | ((d.w[1] & 0x7f7f7f7f) + 0x01010101)) & 0x80808080;
        if (dtype == SL_DTYPE_F8_E5M2)
            bad |= (((d.w[0] & 0x7f7f7f7f) + 0x04040404) | ((d.w[1] & 0x7f7f7f7f) + 0x04040404)) & 0x80808080;
    }
    return bad != 0;
}

/* The same of F4, n a multiple of 16; there is no NaN. A code's bits are a float's in the same way, and the sum
 * makes -0 a 0. */
V_FN void device_run_f4(const uint8_t *p, float scale, int n, vf *x)
{
    const struct device_words *from = (const struct device_words *)(const void *)p;

    V_UNROLL
    for (int i = 0; i < n / 16; i++) {
        struct device_words d = from[i];

        V_UNROLL
        for (int b = 0; b < 16; b++) {
            uint32_t u = d.w[b / 8] << (28 - b % 8 * 4);
            vf v = sl_float((u & 0x80000000) | (u >> 6 & 0x01c00000));

            x[16 * i + b] = v_mul(v_add(v_mul(v, 0x1p126f), 0.f), scale);
        }
    }
}

/* x[0..n) = output elements from `at` on, n a constant. Returns whether one is not finite, as it is or rounded. */
V_FN bool device_load(const struct sl_gpu_work *k, uint64_t at, int n, vf *x)
{
    struct device_cursor c;
    bool bad = false;

    device_seek(k, at, &c);
    /* Finite values of FP8 and F4 stay so with such a scale. */
    if (n >= 16 && c.left >= (uint64_t)n && c.step == device_width(k->dtype) && ((uintptr_t)c.p & 7) == 0 && c.scale < 0x1p100f) {
        if (k->dtype == SL_DTYPE_F8_E4M3)
            bad = device_run_of(SL_DTYPE_F8_E4M3, c.p, c.scale, n, x);
        else if (k->dtype == SL_DTYPE_BF16)
            bad = device_run_of(SL_DTYPE_BF16, c.p, c.scale, n, x);
        else if (k->dtype == SL_DTYPE_F32)
            bad = device_run_of(SL_DTYPE_F32, c.p, c.scale, n, x);
        else if (k->dtype == SL_DTYPE_F16)
            bad = device_run_of(SL_DTYPE_F16, c.p, c.scale, n, x);
        else if (k->dtype == SL_DTYPE_F4)
            device_run_f4(c.p, c.scale, n, x);
        else
            bad = device_run_of(SL_DTYPE_F8_E5M2, c.p, c.scale, n, x);
    } else {
        V_UNROLL
        for (int i = 0; i < n; i++) {
            x[i] = device_next(k, &c);
            bad |= (sl_bits(x[i]) & 0x7f800000) == 0x7f800000;
        }
    }
    if (k->round) {
        V_UNROLL
        for (int i = 0; i < n; i++) {
            x[i] = sl_f32_from_bf16(sl_bf16_from_f32(x[i]));
            bad |= (sl_bits(x[i]) & 0x7f800000) == 0x7f800000;
        }
    }
    return bad;
}

#endif
