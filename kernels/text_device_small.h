/* A GPU thread's work on a block of 32, on single values, and on a row's mean square.
 * Included by text_device.h. */
#ifndef SLUICE_KERNELS_TEXT_DEVICE_SMALL_H
#define SLUICE_KERNELS_TEXT_DEVICE_SMALL_H

V_FN void small_phase(int type, bool weighted, enum device_phase phase, const struct sl_gpu_work *k, uint64_t block,
                      int tid, struct device_small *s)
{
    uint64_t first = block * DEVICE_THREADS, left = k->elems / 32 - first, at = (first + (uint64_t)tid) * 32;
    int n = left < DEVICE_THREADS ? (int)left : DEVICE_THREADS, bytes = device_bytes(type);
    vi *words = s[tid].words;
    vf x[32], ws[32], *w = weighted ? ws : NULL, sigma2 = v_set(0.f);

    if (phase == DEVICE_STORE)
        device_store(k->out + first * (uint64_t)bytes, n * (bytes / 2), bytes / 2, tid, s->words, (int)(sizeof *s / sizeof(vi)),
                     NULL);
    if (tid >= n)
        return;
    if (phase == DEVICE_BEGIN)
        for (int i = 0; i < 9; i++)
            words[i] = 0;
    if (phase != DEVICE_FIT)
        return;
    if (device_load(k, at, 32, x))
        *k->status = 1;
    if (weighted) {
        const float *from = device_weights(k, at);

        V_UNROLL
        for (int i = 0; i < 32; i++)
            ws[i] = from[i];
        if (device_means(type))
            sigma2 = k->means[at / k->row];
    }
    if (type == SL_TYPE_Q4_0)
        q4_0_block(x, w, sigma2, words);
    else if (type == SL_TYPE_Q4_1)
        q4_1_block(x, w, sigma2, words);
    else if (type == SL_TYPE_Q5_0)
        q5_0_block(x, w, sigma2, words);
    else if (type == SL_TYPE_Q5_1)
        q5_1_block(x, w, sigma2, words);
    else if (type == SL_TYPE_IQ4_NL)
        iq4_nl_block(x, w, sigma2, words);
    else
        q8_0_block(x, (uint8_t *)words);
}

/* Value i, 0 first, as it is stored. */
V_FN void value_put(int type, vf x, int i, vi *words)
{
    uint32_t half;

    if (type == SL_TYPE_F32) {
        words[i] = v_bits(x);
        return;
    }
    half = type == SL_TYPE_F16 ? sl_f16_from_f32(x) : sl_bf16_from_f32(x);
    words[i / 2] = (vi)(i & 1 ? ((uint32_t)words[i / 2] & 0xffff) | half << 16 : half);
}

V_FN void value_phase(int type, enum device_phase phase, const struct sl_gpu_work *k, uint64_t block, int tid,
                      struct device_small *s)
{
    const int bytes = device_bytes(type);
    uint64_t first = block * (uint64_t)device_share(type), left = k->elems - first;
    int n = left < (uint64_t)device_share(type) ? (int)left : device_share(type), at = tid * DEVICE_VALUES;
    vf x[DEVICE_VALUES];

    if (phase == DEVICE_STORE)
        device_store(k->out + first * (uint64_t)bytes, n * (bytes / 2), DEVICE_VALUES * bytes / 2, tid, s->words,
                     (int)(sizeof *s / sizeof(vi)), NULL);
    if (phase != DEVICE_FIT)
        return;
    if (at + DEVICE_VALUES <= n && device_together(k, first + (uint64_t)at, DEVICE_VALUES)) {
        if (device_load(k, first + (uint64_t)at, DEVICE_VALUES, x))
            *k->status = 1;
        V_UNROLL
        for (int i = 0; i < DEVICE_VALUES; i++)
            value_put(type, x[i], i, s[tid].words);
        return;
    }
    V_ROLLED
    for (int i = 0; i < DEVICE_VALUES && at + i < n; i++) {
        if (device_load(k, first + (uint64_t)(at + i), 1, x))
            *k->status = 1;
        value_put(type, x[0], i, s[tid].words);
    }
}

/* The mean square of row `row` of the output, in the values' order. */
V_FN void device_row_mean(const struct sl_gpu_work *k, uint64_t row)
{
    vf sum = v_set(0.f);

    if (row >= k->elems / k->row)
        return;
    for (uint64_t i = 0; i < k->row; i += 32) {
        vf x[32];

        (void)device_load(k, row * k->row + i, 32, x);
        V_UNROLL
        for (int l = 0; l < 32; l++)
            sum = v_add(sum, sqr(x[l]));
    }
    k->means[row] = v_div(sum, (float)k->row);
}

#endif
