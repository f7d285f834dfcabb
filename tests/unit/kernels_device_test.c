/* The GPU kernels' text on a CPU, against the scalar backend; and the GPU itself
 * where there is one. With SLUICE_DEVICE_TEST set all launches are the device's: so
 * that the same cases go through the compiled kernels (tests/tap/ptx.t). */
#include "kernels/gpu.h"
#include "kernels/kernels.h"
#include "written_types.h"
#include "grid_emulator.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROW 768
#define N_MAX (ROW * 24)

static const int types[] = {SL_TYPE_F32, DEVICE_TYPES};
#define N_TYPES (sizeof types / sizeof types[0])

struct data {
    float x[N_MAX], w[2 * ROW], w_rows[N_MAX], means[N_MAX / 32];
    uint8_t bytes[4 * N_MAX + 8], want[4 * N_MAX], got[4 * N_MAX + 16];
    uint32_t status;
    struct emulated_block block;
    uint64_t seed;
};

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

/* Values of usual size, subnormals, ties, few different ones, zeros; by group. Runs of zeros and subnormals beside others: the
 * inverse of a scale is infinite. Values without weight that are so far from the others that codes wrap where parity turns them. */
static float value(uint64_t *s, uint64_t i, bool weighs)
{
    uint32_t u = (uint32_t)next_random(s), kind = (uint32_t)(i / 256 % 8), far = 134 + (u >> 24) % 2, low = 109 + (u >> 24) % 3;

    u = kind == 0 || kind == 5 || (kind == 6 && i / 32 % 2) ? (u & 0x807fffff) | (110 + (u >> 24) % 12) << 23
        : kind == 1 ? u & 0x80ffffff
        : kind == 2 ? (u & 0x80000000) | 0x3f000000
        : kind == 3 ? (u & 0x80700000) | 0x3d000000
        : kind == 6 && u & 0x01000000 ? u & 0x807fffff
        : kind == 7 ? (u & 0x807fffff) | (weighs ? low : far) << 23
        : u & 0x80000000;
    return sl_float(u);
}

static struct data *make_data(void)
{
    struct data *d = calloc(1, sizeof *d);

    assert_non_null(d);
    d->seed = 0x2545f4914f6cdd1d;
    for (uint64_t i = 0; i < 2 * ROW; i++)
        d->w[i] = next_random(&d->seed) % 4 ? ldexpf((float)(next_random(&d->seed) % 1000), -(int)(next_random(&d->seed) % 32)) : 0;
    for (uint64_t i = 0; i < N_MAX; i++)
        d->x[i] = value(&d->seed, i, d->w[i % ROW] > 0 || i % 16);
    return d;
}

/* The scalar backend's bytes of what the launch describes, its values in d->x. */
static void reference(struct data *d, const struct sl_gpu_work *k)
{
    uint64_t bad;

    for (uint64_t i = 0; i < k->elems && k->weighted; i++)
        d->w_rows[i] = d->w[((k->elem0 + i) / k->matrix - k->slice0) * k->row + (k->elem0 + i) % k->row];
    assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, k->type, d->x, k->weighted ? d->w_rows : NULL, k->elems,
                                    k->weighted ? k->row : k->elems, d->want, &bad), 0);
}

static void same_bytes(const struct data *d, const struct sl_gpu_work *k)
{
    uint64_t n = sl_type_bytes(k->type, k->elems);

    for (uint64_t i = 0; i < n; i++)
        if (d->want[i] != d->got[i])
            fail_msg("%s%s, %llu weights: byte %llu is %02x, not %02x", sl_type_info(k->type)->name,
                     k->weighted ? " with weights" : "", (unsigned long long)k->elems, (unsigned long long)i, d->got[i],
                     d->want[i]);
    for (int i = 0; i < 16; i++)
        assert_int_equal(d->got[n + (uint64_t)i], 0x77); /* nothing behind the end */
    assert_int_equal(d->status, 0);
}

static void launch_on_device(struct data *d, struct sl_gpu_work *k)
{
    static struct sl_gpu_device g; /* for all launches: opening one takes longer than they do */
    struct sl_error e;

    k->in = d->bytes;
    k->w = d->w;
    k->out = d->got;
    if (!g.grids && sl_gpu_open(sl_gpu_api(), 0, &g, &e) < 0)
        fail_msg("%s", e.text);
    if (sl_gpu_quantize(&g, k, sizeof d->bytes, 2 * ROW, &d->status, &e) < 0)
        fail_msg("%s", e.text);
}

static void launch(struct data *d, struct sl_gpu_work *k)
{
    enum sl_grid_id id = sl_gpu_grid_of(k->type);

    memset(d->got, 0x77, sizeof d->got);
    d->status = 0;
    if (getenv("SLUICE_DEVICE_TEST")) {
        launch_on_device(d, k);
        return;
    }
    k->in = d->bytes;
    k->w = d->w;
    k->means = d->means;
    k->out = d->got;
    k->status = &d->status;
    if (id != SL_GRID_COUNT)
        k->grid = *sl_grid_for_writing(id);
    assert_true(emulate_launch(k, (uint32_t)next_random(&d->seed), &d->block));
}

/* One run of F32, as it lies in memory. */
static struct sl_gpu_work plain(struct data *d, int type, bool weighted, uint64_t n)
{
    struct sl_gpu_work k = {.type = type, .dtype = SL_DTYPE_F32, .weighted = weighted, .order = SL_GPU_IN_ORDER,
                            .n_runs = 1, .elems = n, .row = ROW, .matrix = N_MAX};

    memcpy(d->bytes, d->x, n * 4);
    k.run[0] = (struct sl_gpu_run){.data = 0, .scale = UINT64_MAX, .end = n, .cols = ROW};
    return k;
}

/* Every type, with and without weights, sizes around a block of threads. */
static void every_type(void **state)
{
    static const uint64_t rows[] = {1, 5, 6, 11, 22};
    struct data *d = make_data();

    (void)state;
    for (unsigned i = 0; i < N_TYPES; i++)
        for (int weighted = sl_needs_weights(types[i]); weighted < 2; weighted++) {
            if (weighted && (sl_type_info(types[i])->block == 1 || types[i] == SL_TYPE_Q8_0))
                continue;
            for (unsigned r = 0; r < sizeof rows / sizeof rows[0]; r++) {
                struct sl_gpu_work k = plain(d, types[i], weighted, rows[r] * ROW);

                reference(d, &k);
                launch(d, &k);
                same_bytes(d, &k);
            }
        }
    free(d);
}

/* A comparison that sees a wrong byte: without it the others prove nothing. */
static void a_wrong_order_is_seen(void **state)
{
    struct data *d = make_data();
    struct sl_gpu_work k = plain(d, SL_TYPE_Q4_K, false, 4 * ROW);

    (void)state;
    reference(d, &k);
    for (int i = 0; i < 32; i++)
        d->bytes[4 * i + 3] ^= 0x80;
    launch(d, &k);
    assert_memory_not_equal(d->want, d->got, sl_type_bytes(SL_TYPE_Q4_K, k.elems));
    memset(&d->block, 0x5a, sizeof d->block);
    d->block.small[DEVICE_THREADS].words[3] = 1;
    assert_false(emulated_untouched(&d->block.small[DEVICE_THREADS], sizeof d->block.small[0]));
    free(d);
}

/* Bytes of each dtype at an odd place, with scales of every shape, in two runs. */
static void every_source(void **state)
{
    static const int dtypes[] = {SL_DTYPE_F8_E4M3, SL_DTYPE_F8_E5M2, SL_DTYPE_F16, SL_DTYPE_BF16, SL_DTYPE_F32};
    static const struct { uint64_t rows, cols; } blocks[] = {{0, 0}, {128, 128}, {1, ROW}, {1u << 30, 1u << 30}, {3, 40}};
    struct data *d = make_data();
    uint64_t n = 7 * ROW, cut = 2 * ROW + 512, bad;

    (void)state;
    for (unsigned t = 0; t < 5; t++)
        for (unsigned s = 0; s < 5; s++)
            for (int round = 0; round < 2; round++) {
                uint32_t width = sl_dtype_info(dtypes[t])->bytes;
                uint64_t at = 3 * ROW + 32, per_row = blocks[s].cols ? (ROW - 1) / blocks[s].cols + 1 : 0;
                uint64_t scale_at = (5 + (at + n) * width + 63) / 64 * 64;
                struct sl_source src = {.dtype = (enum sl_dtype)dtypes[t], .data = d->bytes + 5, .first = at, .cols = ROW,
                                        .scale = per_row ? (const float *)(void *)(d->bytes + scale_at) : NULL,
                                        .scale_cols = per_row, .block_rows = per_row ? blocks[s].rows : 1,
                                        .block_cols = per_row ? blocks[s].cols : 1};
                struct sl_gpu_work k = {.type = t % 2 ? SL_TYPE_Q6_K : SL_TYPE_Q8_0, .dtype = dtypes[t],
                                        .round = round, .n_runs = 2, .elems = n, .row = ROW, .matrix = N_MAX};

                for (uint64_t i = 0; i < n * width; i++) /* exponents near 1: no infinity in any format */
                    d->bytes[5 + i] = (uint8_t)(i % width == width - 1 ? 0x28 + next_random(&d->seed) % 20 : next_random(&d->seed));
                for (uint64_t i = 0; i < 200 * (per_row ? per_row : 1) && scale_at + 4 * i + 4 < sizeof d->bytes; i++)
                    memcpy(d->bytes + scale_at + 4 * i, &(float){(float)(i % 50) * (i % 100 ? 0.037f : -0.f)}, 4);
                src.scale_row0 = per_row ? at / ROW / src.block_rows : 0;
                assert_int_equal(sl_load_f32(&src, 0, n, d->x, &bad), 0);
                if (round)
                    sl_round_bf16(d->x, n);
                k.run[0] = (struct sl_gpu_run){.data = 5, .scale = per_row ? scale_at : UINT64_MAX, .end = cut, .first = at,
                                               .cols = ROW, .scale_row0 = src.scale_row0, .scale_cols = per_row,
                                               .block_rows = src.block_rows, .block_cols = src.block_cols};
                k.run[1] = k.run[0];
                k.run[1].data += cut * width;
                k.run[1].first += cut;
                k.run[1].end = n;
                reference(d, &k);
                launch(d, &k);
                same_bytes(d, &k);
            }
    free(d);
}

/* MXFP4, and NVFP4 with its 16 weights to a scale, in two runs, where words are read and where they are not, and a type
 * without blocks that begins and ends inside a byte. */
static void fp4_source(void **state)
{
    static const int each[] = {SL_TYPE_F32, SL_TYPE_Q2_K, SL_TYPE_Q4_K, SL_TYPE_Q8_0, SL_TYPE_IQ2_XXS, SL_TYPE_Q4_1};
    struct data *d = make_data();
    uint64_t n = 7 * ROW, cut = 2 * ROW + 512, bad;

    (void)state;
    for (unsigned t = 0; t < sizeof each / sizeof *each; t++)
        for (int place = 0; place < 9; place += place == 6 ? 2 : 3) {
            uint64_t group = place < 6 ? 32 : 16;
            uint64_t at = 3 * ROW + 32, scale_at = (uint64_t)(place + 63) / 64 * 64 + n, scales = (at + n) / group;
            struct sl_source src = {.dtype = SL_DTYPE_F4, .data = d->bytes + place, .first = at, .cols = ROW,
                                    .scale = (const float *)(void *)(d->bytes + scale_at), .scale_row0 = 3,
                                    .scale_cols = ROW / group, .block_rows = 1, .block_cols = group};
            struct sl_gpu_work k = {.type = each[t], .dtype = SL_DTYPE_F4, .weighted = sl_needs_weights(each[t]) || t == 5,
                                    .round = place == 3, .n_runs = 2, .elems = n, .row = ROW, .matrix = N_MAX};

            for (uint64_t i = 0; i < n; i++)
                d->bytes[i] = (uint8_t)next_random(&d->seed);
            for (uint64_t i = 0; i < scales; i++)
                memcpy(d->bytes + scale_at + 4 * i, &(float){ldexpf(group == 16 ? 1.375f : 1, (int)(next_random(&d->seed) % 16) - 12)}, 4);
            assert_int_equal(sl_load_f32(&src, 0, n, d->x, &bad), 0);
            if (k.round)
                sl_round_bf16(d->x, n);
            k.run[0] = (struct sl_gpu_run){.data = (uint64_t)place, .scale = scale_at, .end = cut, .first = at, .cols = ROW,
                                           .scale_row0 = 3, .scale_cols = ROW / group, .block_rows = 1, .block_cols = group};
            k.run[1] = k.run[0];
            k.run[1].data += cut / 2;
            k.run[1].first += cut;
            k.run[1].end = n;
            if (t == 0)
                k.elems = k.run[1].end = n - 3, k.run[0].end = cut - 2, k.run[1].first -= 2, k.run[1].data -= 1;
            reference(d, &k);
            launch(d, &k);
            same_bytes(d, &k);
        }
    free(d);
}

static void same_as_reference(struct data *d, struct sl_gpu_work *k)
{
    reference(d, k);
    launch(d, k);
    same_bytes(d, k);
}

/* Two heads of eight rows, which are paired. */
static void paired_rows(struct data *d, int type, uint64_t cols)
{
    uint64_t pair = 8, heads = 2;
    struct sl_gpu_work k = plain(d, type, false, pair * heads * cols);

    k.order = SL_GPU_PAIRED;
    k.cols = k.run[0].cols = cols;
    k.pair_rows = pair;
    for (uint64_t row = 0; row < pair * heads; row++) {
        uint64_t i = row % pair, from = row - i + i % 2 * (pair / 2) + i / 2;

        memcpy(d->x + row * cols, d->bytes + from * cols * 4, cols * 4);
    }
    same_as_reference(d, &k);
}

/* Two heads of `height` rows and `width` columns, which are transposed. */
static void transposed_heads(struct data *d, int type, uint64_t height, uint64_t width)
{
    uint64_t heads = 2, n = height * width * heads;
    struct sl_gpu_work t = plain(d, type, false, n);

    t.order = SL_GPU_COLUMNS;
    t.width = t.source_width = width;
    t.height = height;
    t.n_runs = (uint32_t)heads;
    for (uint64_t h = 0; h < heads; h++) {
        t.run[h] = (struct sl_gpu_run){.data = h * height * width * 4, .scale = 4 * n, .cols = width, .first = 0,
                                       .block_rows = 5, .block_cols = 48, .scale_cols = 2};
        for (uint64_t c = 0; c < width; c++)
            for (uint64_t r = 0; r < height; r++) {
                float v, scale = (float)(1 + r / 5 * 2 + c / 48);

                memcpy(&v, d->bytes + 4 * (h * height * width + r * width + c), 4);
                d->x[h * height * width + c * height + r] = v * scale;
            }
    }
    for (uint64_t i = 0; i < 2 * (height / 5 + 1); i++)
        memcpy(d->bytes + 4 * n + 4 * i, &(float){(float)(i + 1)}, 4);
    same_as_reference(d, &t);
}

/* Heads of 32 columns: the first of each of three, then the second. */
static void viewed_columns(struct data *d, int type)
{
    uint64_t n = 8 * ROW;
    struct sl_gpu_work k = plain(d, type, false, n);

    k.order = SL_GPU_VIEWED;
    k.run[0].cols = ROW;
    k.view_run = 32;
    k.view_n[0] = 3, k.view_n[1] = ROW / 96;
    k.view_step[0] = ROW / 3, k.view_step[1] = 32, k.view_step[2] = ROW;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t column = i % ROW, head = column / 32;

        memcpy(d->x + i, d->bytes + 4 * (i - column + head % 3 * (ROW / 3) + head / 3 * 32 + column % 32), 4);
    }
    same_as_reference(d, &k);
}

static void other_orders(void **state)
{
    struct data *d = make_data();

    (void)state;
    paired_rows(d, SL_TYPE_Q5_0, ROW);
    transposed_heads(d, SL_TYPE_IQ4_NL, 96, 64);
    for (unsigned i = 0; i < N_TYPES; i++)
        if (!sl_needs_weights(types[i]))
            viewed_columns(d, types[i]);
    free(d);
}

/* Values without blocks: runs, rows and columns end anywhere. */
static void single_values(void **state)
{
    static const int each[] = {SL_TYPE_F32, SL_TYPE_F16, SL_TYPE_BF16};
    struct data *d = make_data();

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        for (uint64_t n = 1; n < 5000; n = 2 * n + 1) {
            struct sl_gpu_work k = plain(d, each[i], false, n);

            memcpy(d->x, d->bytes, 4 * n);
            if (n > 9) {
                k.n_runs = 3;
                k.run[1] = k.run[2] = k.run[0];
                k.run[0].end = n / 2 - 3;
                k.run[1].data = 4 * (n + 7), k.run[1].end = n / 2; /* elsewhere: what stays in between is no run's */
                k.run[2].data = 4 * (n / 2);
                memcpy(d->bytes + 4 * (n + 7), d->bytes + 4 * (n / 2 - 3), 12);
                memset(d->bytes + 4 * (n / 2 - 3), 0x11, 12);
            }
            same_as_reference(d, &k);
        }
        paired_rows(d, each[i], 201);
        transposed_heads(d, each[i], 37, 41);
    }
    free(d);
}

/* Two slices of weights under one launch that begins inside the first. */
static void weights_of_slices(void **state)
{
    struct data *d = make_data();

    (void)state;
    for (unsigned i = 0; i < N_TYPES; i++) {
        struct sl_gpu_work k = plain(d, types[i], true, 9 * ROW);

        if (sl_type_info(types[i])->block == 1 || types[i] == SL_TYPE_Q8_0)
            continue;
        k.matrix = 5 * ROW;
        k.elem0 = 3 * k.matrix + ROW;
        k.slice0 = 3;
        reference(d, &k);
        launch(d, &k);
        same_bytes(d, &k);
    }
    free(d);
}

/* Weights below 0, which no file of weights may have: sums of iq1's searches below 0. */
static void weights_below_zero(void **state)
{
    struct data *d = make_data();

    (void)state;
    for (int i = 0; i < 2 * ROW; i++)
        d->w[i] *= next_random(&d->seed) % 3 ? 1.f : -1.f;
    for (int i = 0; i < 2; i++) {
        struct sl_gpu_work k = plain(d, i ? SL_TYPE_IQ1_M : SL_TYPE_IQ1_S, true, 22 * ROW);

        same_as_reference(d, &k);
    }
    free(d);
}

/* A NaN code, an infinity, a product that overflows, what rounding makes infinite: one of them is enough. */
static void not_finite_is_told(void **state)
{
    struct data *d = make_data();

    (void)state;
    for (unsigned i = 0; i < N_TYPES; i++) {
        uint64_t n = 3 * ROW, at = n - 1;
        struct sl_gpu_work k = plain(d, types[i], sl_needs_weights(types[i]), n);

        k.dtype = SL_DTYPE_F8_E4M3;
        for (uint64_t b = 0; b < n; b++)
            d->bytes[b] = (uint8_t)(0x20 + next_random(&d->seed) % 32);
        launch(d, &k);
        assert_int_equal(d->status, 0);
        d->bytes[at] = 0xff;
        launch(d, &k);
        assert_int_equal(d->status, 1);
        d->bytes[at] = 0x7e;
        k.run[0].scale = n;
        k.run[0].scale_cols = k.run[0].block_rows = 1;
        k.run[0].block_rows = k.run[0].block_cols = ROW * 100;
        memcpy(d->bytes + n, &(float){1e37f}, 4);
        launch(d, &k);
        assert_int_equal(d->status, 1);
        k = plain(d, types[i], sl_needs_weights(types[i]), n);
        memcpy(d->bytes + 4 * at, &(float){-3.4e38f}, 4); /* BF16 has no such number */
        launch(d, &k);
        assert_int_equal(d->status, 0);
        k.round = true;
        launch(d, &k);
        assert_int_equal(d->status, 1);
    }
    free(d);
}

/* A CUDA NaN (all ones) and an x86 NaN are both level 0; infinities wrap. */
static void not_a_number(void **state)
{
    (void)state;
    assert_int_equal(nearest(sl_float(0x7fffffff)), 0);
    assert_int_equal(nearest(sl_float(0xffc00000)), 0);
    assert_int_equal(nearest(sl_float(0x7f800000)), -0x400000);
    assert_int_equal(nearest(4194303.f), 4194303);
    assert_int_equal(nearest(-2.5f), -2);
    assert_int_equal(nearest(8388608.f), -0x400000 + 0x200000);
}

static void what_is_taken(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_TYPES; i++)
        assert_true(sl_gpu_takes(types[i], SL_DTYPE_F8_E4M3) && sl_gpu_takes(types[i], SL_DTYPE_F4));
    assert_false(sl_gpu_takes(SL_TYPE_I32, SL_DTYPE_F32));
    assert_false(sl_gpu_takes(SL_TYPE_Q4_K, SL_DTYPE_F64));
    assert_false(sl_gpu_takes(SL_TYPE_Q4_K, SL_DTYPE_Q8_0));
    assert_false(sl_gpu_takes(SL_TYPE_MXFP4, SL_DTYPE_F4)); /* repacked by the processor, and made by it */
    assert_false(sl_gpu_takes(SL_TYPE_MXFP4, SL_DTYPE_F8_E4M3));
    assert_false(sl_gpu_takes(SL_TYPE_Q1_0, SL_DTYPE_F32) || sl_gpu_takes(SL_TYPE_Q2_0, SL_DTYPE_F32));
    assert_false(sl_gpu_takes(SL_TYPE_TQ1_0, SL_DTYPE_F32) || sl_gpu_takes(SL_TYPE_TQ2_0, SL_DTYPE_F32));
    assert_false(sl_gpu_takes(-1, SL_DTYPE_F32));
}

static void on_a_device(void **state)
{
    const struct sl_gpu_api *api = sl_gpu_api();
    struct sl_gpu_device g;
    struct sl_error e;
    struct data *d;

    (void)state;
    assert_int_equal(sl_gpu_open(api, 1 << 20, &g, &e), SL_EUNSUPPORTED);
    if (sl_gpu_count(api) == 0) {
        print_message("%s: the GPU kernels were not run\n", api ? "no CUDA device" : "built without CUDA");
        skip();
    }
    if (sl_gpu_open(api, 0, &g, &e) < 0)
        fail_msg("%s", e.text);
    d = make_data();
    for (unsigned i = 0; i < N_TYPES; i++)
        for (int weighted = sl_needs_weights(types[i]); weighted < 2; weighted++) {
            struct sl_gpu_work k = plain(d, types[i], weighted, 22 * ROW);

            if (weighted && (sl_type_info(types[i])->block == 1 || types[i] == SL_TYPE_Q8_0))
                continue;
            reference(d, &k);
            memset(d->got, 0x77, sizeof d->got);
            k.in = d->bytes;
            k.w = d->w;
            k.out = d->got;
            if (sl_gpu_quantize(&g, &k, k.elems * 4, weighted ? 2 * ROW : 0, &d->status, &e) < 0)
                fail_msg("%s", e.text);
            same_bytes(d, &k);
        }
    sl_gpu_close(&g);
    free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type), cmocka_unit_test(a_wrong_order_is_seen), cmocka_unit_test(weights_below_zero), cmocka_unit_test(every_source), cmocka_unit_test(fp4_source),
        cmocka_unit_test(other_orders), cmocka_unit_test(single_values), cmocka_unit_test(weights_of_slices),
        cmocka_unit_test(not_finite_is_told), cmocka_unit_test(not_a_number), cmocka_unit_test(what_is_taken),
        cmocka_unit_test(on_a_device)};

    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
