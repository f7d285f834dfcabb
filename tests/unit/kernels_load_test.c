/* Loading source elements: every code of the small formats, block scales at
 * ragged edges, and what is refused. */
#include "kernels/backend.h"
#include "kernels/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* A float format's value by its definition; NaN for infinities and NaNs. */
static double value_of(uint32_t code, int exp_bits, int man_bits, bool only_top_is_nan)
{
    int e = (int)(code >> man_bits) & ((1 << exp_bits) - 1), m = (int)(code & ((1u << man_bits) - 1));
    int bias = (1 << (exp_bits - 1)) - 1, top = (1 << exp_bits) - 1;
    double v;

    if (e == top && (!only_top_is_nan || m == (1 << man_bits) - 1))
        return NAN;
    v = e ? ldexp(1 + ldexp(m, -man_bits), e - bias) : ldexp(m, 1 - bias - man_bits);
    return code >> (exp_bits + man_bits) & 1 ? -v : v;
}

static const struct { enum sl_dtype dtype; int exp_bits, man_bits; bool top; } formats[] = {
    {SL_DTYPE_F8_E4M3, 4, 3, true},
    {SL_DTYPE_F8_E5M2, 5, 2, false},
    {SL_DTYPE_F16, 5, 10, false},
    {SL_DTYPE_BF16, 8, 7, false},
};

static void same_float(float got, float want)
{
    if (memcmp(&got, &want, 4))
        fail_msg("%a, expected %a", (double)got, (double)want);
}

static void every_code(void **state)
{
    (void)state;
    for (int b = SL_BACKEND_SCALAR; b <= SL_BACKEND_AVX512; b++)
        for (int f = 0; f < 4; f++) {
            const struct sl_backend_ops *ops = sl_backend_ops((enum sl_backend)b);
            uint32_t bytes = sl_dtype_info(formats[f].dtype)->bytes, codes = 1u << 8 * bytes;

            for (uint32_t c = 0; c < codes && ops; c++) {
                double v = value_of(c, formats[f].exp_bits, formats[f].man_bits, formats[f].top);
                uint8_t raw[64];
                float out[16];
                bool bad;

                for (int i = 0; i < 16; i++) /* a vector's worth, off alignment */
                    memcpy(raw + 1 + (size_t)i * bytes, &c, bytes);
                bad = ops->load(formats[f].dtype, raw + 1, 16, 1.f, out);
                assert_int_equal(bad, isnan(v));
                for (int i = 0; i < 16 && !bad; i++)
                    same_float(out[i], (float)v);
            }
        }
}

/* What quantize_e4m3_avx512.c's table rests on: 127 v / vmax is 63.5 for v = vmax / 2, and otherwise no
 * nearer to a half than 2^-12 of it. */
static void e4m3_halves(void **state)
{
    (void)state;
    for (uint32_t max = 1; max < 0x7f; max++)
        for (uint32_t c = 1; c <= max; c++) {
            double v = value_of(c, 4, 3, true), m = value_of(max, 4, 3, true), level = 127 * v / m, half = floor(level) + 0.5;

            if (2 * v == m)
                assert_true(level == 63.5);
            else
                assert_true(fabs(level - half) > half * 0x1p-12);
        }
}

static uint64_t next_bits(uint64_t *s)
{
    *s ^= *s << 13, *s ^= *s >> 7, *s ^= *s << 17;
    return *s;
}

/* Every code under every largest code, under scales of all mantissas, straight to q8_0. */
static void e4m3_to_q8_0(void **state)
{
    enum { BLOCKS = 512, N = 32 * BLOCKS };
    static uint8_t codes[N], want[BLOCKS * 34], got[BLOCKS * 34];
    static float scale[BLOCKS], x[N];
    uint64_t r = 88172645463325252, bad;
    int b = 0, ups = 0;

    (void)state;
    for (uint32_t max = 0; max < 0x7f; max++)
        for (uint32_t first = 0; first <= max; first += 31, b++)
            for (uint32_t i = 0; i < 32; i++)
                codes[32 * b + (int)i] = (uint8_t)((i == 31 ? max : first + i < max ? first + i : max) | (next_bits(&r) & 0x80));
    assert_true(b >= 256 && b <= BLOCKS);
    for (int round = 0; round < 100; round++) {
        struct sl_source s = {SL_DTYPE_F8_E4M3, codes, 0, (uint64_t)b * 32, scale, 0, (uint64_t)b, 1, 32, NULL, NULL};

        for (int i = 0; i < b; i++)
            scale[i] = ldexpf(1 + (float)(next_bits(&r) >> 41) * 0x1p-23f, (int)(next_bits(&r) % 20) - 18);
        for (int i = 0; i < b; i++)
            for (int k = 0; k < 32; k++)
                x[32 * i + k] = (float)value_of(codes[32 * i + k], 4, 3, true) * scale[i];
        assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, SL_TYPE_Q8_0, x, NULL, (uint64_t)b * 32, (uint64_t)b * 32, want, &bad), 0);
        for (int i = 0; i < 34 * b; i++)
            ups += i % 34 > 1 && (want[i] == 64 || want[i] == 192);
        for (int k = SL_BACKEND_AVX2; k <= SL_BACKEND_AVX512; k++) {
            if (!sl_backend_usable((enum sl_backend)k))
                continue;
            assert_int_equal(sl_quantize_source((enum sl_backend)k, SL_TYPE_Q8_0, &s, 0, (uint64_t)b * 32, got), 1);
            assert_memory_equal(got, want, (size_t)b * 34);
        }
    }
    assert_true(ups > 0); /* ties went up in some, down in others */
    for (int i = 0; i < b; i++) { /* scales of 0, with either sign: straight where there is a way, and by way of floats */
        struct sl_source s = {SL_DTYPE_F8_E4M3, codes, 0, (uint64_t)b * 32, scale, 0, (uint64_t)b, 1, 32, NULL, NULL};

        scale[i] = i % 2 ? 0.f : -0.f;
        if (i % 50 && i < b - 1)
            continue;
        assert_int_equal(sl_load_f32(&s, 0, (uint64_t)b * 32, x, &bad), 0);
        for (int k = 0; k < 32 * b; k++)
            same_float(x[k], (float)value_of(codes[k], 4, 3, true) * scale[k / 32]);
        assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, SL_TYPE_Q8_0, x, NULL, (uint64_t)b * 32, (uint64_t)b * 32, want, &bad), 0);
        for (int k = SL_BACKEND_SCALAR; k <= SL_BACKEND_AVX512; k++)
            if (sl_quantize_source((enum sl_backend)k, SL_TYPE_Q8_0, &s, 0, (uint64_t)b * 32, got))
                assert_memory_equal(got, want, (size_t)b * 34);
    }
}

#define ROWS 10
#define COLS 37

static void block_scales(void **state)
{
    static const struct { uint64_t rows, cols; } blocks[] = {{4, 16}, {ROWS, COLS}, {1, COLS}, {3, 1}, {100, 100}};
    uint8_t data[ROWS * COLS];
    float scale[ROWS * COLS], out[ROWS * COLS];
    uint64_t bad;

    (void)state;
    for (int i = 0; i < ROWS * COLS; i++) {
        data[i] = (uint8_t)(i * 7 % 0x7f | (i & 1) << 7);
        scale[i] = 0.001f * (float)(i + 3);
    }
    for (int k = 0; k < 5; k++)
        for (uint64_t first = 0; first < ROWS * COLS; first += 61) {
            uint64_t row0 = first / COLS / blocks[k].rows, sc = (COLS + blocks[k].cols - 1) / blocks[k].cols;
            struct sl_source s = {SL_DTYPE_F8_E4M3, data + first, first, COLS, scale, row0, sc, blocks[k].rows, blocks[k].cols, NULL, NULL};
            uint64_t n = ROWS * COLS - first > 200 ? 200 : ROWS * COLS - first, skip = n > 5 ? 5 : 0;

            assert_int_equal(sl_load_f32(&s, skip, n - skip, out, &bad), 0);
            for (uint64_t i = 0; i < n - skip; i++) {
                uint64_t at = first + skip + i, r = at / COLS / blocks[k].rows - row0, c = at % COLS / blocks[k].cols;

                same_float(out[i], (float)value_of(data[at], 4, 3, true) * scale[r * sc + c]);
            }
        }
}

/* Both halves of every byte, at any place in rows of whole groups, under scales of either sign. */
static void packed_integers(void **state)
{
    enum { WIDTH = 320, HEIGHT = 6, N = WIDTH * HEIGHT };
    static const uint64_t groups[] = {8, 32, 64, 40, 320};
    static uint8_t data[N / 2];
    static float scale[N / 8], out[N];
    uint64_t r = 88172645463325252, bad;

    (void)state;
    for (int i = 0; i < N / 2; i++)
        data[i] = (uint8_t)(i * 77);
    for (int i = 0; i < N / 8; i++)
        scale[i] = i % 9 ? ldexpf((float)(int64_t)next_bits(&r), -70) : i % 2 ? 0.f : 3.0e37f;
    for (int k = 0; k < 5; k++)
        for (int turn = 0; turn < 300; turn++) {
            uint64_t first = turn ? next_bits(&r) % (N / 2) * 2 : 0, skip = turn ? next_bits(&r) % (N - first) : 0;
            uint64_t n = turn ? 1 + next_bits(&r) % (N - first - skip) : N, row0 = first / WIDTH;
            struct sl_source s = {SL_DTYPE_I4, data + first / 2, first, WIDTH, scale + row0 * (WIDTH / groups[k]), row0,
                                  WIDTH / groups[k], 1, groups[k], NULL, NULL};

            assert_int_equal(sl_load_f32(&s, skip, n, out, &bad), 0);
            for (uint64_t i = 0; i < n; i++) {
                uint64_t at = first + skip + i;
                int nibble = at % 2 ? data[at / 2] / 16 : data[at / 2] % 16;

                same_float(out[i], (float)(nibble - 8) * scale[at / groups[k]]);
            }
        }
}

/* Integers of 4 and 8 bits, less zero points or halves of their range; and columns whose groups are in no order, or some together. */
static void packed_zeros(void **state)
{
    enum { WIDTH = 320, HEIGHT = 6, N = WIDTH * HEIGHT, GROUP = 32, GROUPS = WIDTH / GROUP };
    static uint8_t data[N];
    static float scale[HEIGHT * GROUPS], out[N];
    static int16_t zero[HEIGHT * GROUPS];
    static uint32_t group[WIDTH];
    uint64_t r = 88172645463325252, bad;

    (void)state;
    for (int i = 0; i < N; i++)
        data[i] = (uint8_t)(i * 77);
    for (int i = 0; i < HEIGHT * GROUPS; i++)
        scale[i] = i % 9 ? ldexpf((float)(int64_t)next_bits(&r), -70) : 0.f;
    for (int turn = 0; turn < 2000; turn++) {
        bool four = turn % 2, zeros = turn / 2 % 2, order = turn / 4 % 2;
        uint64_t first = next_bits(&r) % (N / 2) * 2, skip = next_bits(&r) % (N - first), n = 1 + next_bits(&r) % (N - first - skip);
        uint64_t row0 = first / WIDTH;
        struct sl_source s = {.dtype = four ? SL_DTYPE_I4 : SL_DTYPE_UINT8, .data = data + (four ? first / 2 : first), .first = first,
                              .cols = WIDTH, .scale = scale + row0 * GROUPS, .scale_row0 = row0, .scale_cols = GROUPS, .block_rows = 1,
                              .block_cols = GROUP, .zero = zeros ? zero + row0 * GROUPS : NULL, .group = order ? group : NULL};

        for (int i = 0; i < HEIGHT * GROUPS; i++)
            zero[i] = (int16_t)(next_bits(&r) % (four ? 17 : 257));
        for (int i = 0; i < WIDTH; i++)
            group[i] = i && turn / 8 % 4 ? group[i - 1] : (uint32_t)(next_bits(&r) % GROUPS);
        for (int i = 0; i < WIDTH && turn / 8 % 4 == 1; i++)
            group[i] = (uint32_t)i / GROUP;
        assert_int_equal(sl_load_f32(&s, skip, n, out, &bad), 0);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t at = first + skip + i, of = at / WIDTH * GROUPS + (order ? group[at % WIDTH] : at % WIDTH / GROUP);
            int code = four ? at % 2 ? data[at / 2] / 16 : data[at / 2] % 16 : data[at];

            same_float(out[i], (float)(code - (zeros ? zero[of] : four ? 8 : 128)) * scale[of]);
        }
    }
}

/* Every code under a number's two signs and 0, in blocks that end within the codes. */
static void int8_values(void **state)
{
    static const float scale[] = {0x1.fffffep-9f, -3.3f, 0, -0.f, 1e-44f, 0x1.8p119f};
    float out[6 * 250];
    uint8_t codes[6 * 250];
    struct sl_source s = {SL_DTYPE_INT8, codes, 0, 500, scale, 0, 2, 1, 250, NULL, NULL};
    uint64_t bad;

    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < 1500; i++)
            codes[i] = (uint8_t)(i % 250 + 128 * turn);
        assert_int_equal(sl_load_f32(&s, 7, 1493, out, &bad), 0);
        for (int i = 7; i < 1500; i++) {
            int code = (i % 250 + 128 * turn) % 256;

            same_float(out[i - 7], (float)(code < 128 ? code : code - 256) * scale[i / 250]);
        }
    }
}

/* ggml's values, bit by bit: twice a code's under half of 2^(e - 127), for every code and every scale, and that
 * a run of F4 and a block of MXFP4 stand for the same. */
static void fp4_values(void **state)
{
    static const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    uint8_t codes[16], block[17];
    float out[32], scale;
    uint64_t bad;

    (void)state;
    for (uint32_t i = 0; i < 16; i++) {
        codes[i] = (uint8_t)(2 * i % 16 | (2 * i + 1) % 16 << 4);  /* 0, 1 ... 15, 0, 1 ... */
        block[1 + i] = (uint8_t)(i | i << 4);
    }
    for (uint32_t e = 0; e < 256; e++) {
        uint32_t half = e < 2 ? 0x00200000u << e : (e - 1) << 23, whole = e ? e << 23 : 0x00400000;
        int first = 32;
        float d;

        memcpy(&d, &half, 4);
        memcpy(&scale, &whole, 4);
        for (int i = 31; i >= 0; i--)
            first = isfinite((float)twice[i % 16] * d) ? first : i;
        for (int turn = 0; turn < 2; turn++) {
            struct sl_source s = {SL_DTYPE_F4, codes, 32, 32, &scale, 1, 1, 1, 32, NULL, NULL};

            block[0] = (uint8_t)e;
            if (turn)
                s = (struct sl_source){.dtype = SL_DTYPE_MXFP4, .data = block, .first = 32, .cols = 32};
            else if (e == 255)
                continue;
            bad = 31;
            assert_int_equal(sl_load_f32(&s, 0, 32, out, &bad), e == 255 || first < 32 ? SL_ESOURCE : 0);
            assert_int_equal(bad, e == 255 ? 32 : first < 32 ? 32 + first : 31);
            for (int i = 0; i < first && e < 255; i++)
                same_float(out[i], (float)twice[i % 16] * d);
        }
    }
}

/* Codes at any place in rows of whole groups, under any scales. */
static void fp4_groups(void **state)
{
    enum { WIDTH = 320, HEIGHT = 6, N = WIDTH * HEIGHT };
    static const float values[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6};
    static uint8_t data[N / 2];
    static float scale[N / 32], out[N];
    uint64_t r = 88172645463325252, bad;

    (void)state;
    for (int i = 0; i < N / 2; i++)
        data[i] = (uint8_t)(i * 77);
    for (int i = 0; i < N / 32; i++)
        scale[i] = i % 9 ? ldexpf((float)(int64_t)next_bits(&r), -70) : i % 2 ? 0x1p-127f : 5.0e37f;
    for (int turn = 0; turn < 600; turn++) {
        uint64_t first = turn ? next_bits(&r) % (N / 2) * 2 : 0, skip = turn ? next_bits(&r) % (N - first) : 0;
        uint64_t n = turn ? 1 + next_bits(&r) % (N - first - skip) : N, row0 = first / WIDTH;
        struct sl_source s = {SL_DTYPE_F4, data + first / 2, first, WIDTH, scale + row0 * (WIDTH / 32), row0, WIDTH / 32, 1, 32, NULL, NULL};

        assert_int_equal(sl_load_f32(&s, skip, n, out, &bad), 0);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t at = first + skip + i;

            same_float(out[i], values[at % 2 ? data[at / 2] / 16 : data[at / 2] % 16] * scale[at / 32]);
        }
    }
    for (int b = SL_BACKEND_SCALAR; b <= SL_BACKEND_AVX512; b++) { /* those with a way of their own for whole groups */
        const struct sl_backend_ops *ops = sl_backend_ops((enum sl_backend)b);

        if (!ops || !ops->load_f4)
            continue;
        for (int i = 0; i < N / 32; i++)
            scale[i] = fminf(fmaxf(scale[i], -4.0e37f), 4.0e37f);
        assert_int_equal(ops->load_f4(data, N, scale, out), N);
        for (uint64_t i = 0; i < N; i++)
            same_float(out[i], values[i % 2 ? data[i / 2] / 16 : data[i / 2] % 16] * scale[i / 32]);
        scale[7] = NAN;
        assert_int_equal(ops->load_f4(data, N, scale, out), 0);
        scale[7] = -0x1p125f;
        assert_int_equal(ops->load_f4(data, N, scale, out), 0);
    }
}

static int load_one(enum sl_dtype t, const void *raw, const float *scale, uint64_t n, float *out, uint64_t *bad)
{
    struct sl_source s = {t, raw, 640, 128, scale, 5, 1, 1, 128, NULL, NULL};

    *bad = UINT64_MAX;
    return sl_load_f32(&s, 0, n, out, bad);
}

static void wide_types(void **state)
{
    double d[4] = {1 + 0x1p-24, 1 + 0x3p-24, -0x1.8p-149, 1e300};
    float f[3] = {1.5f, -0.f, 0x1p-149f}, out[96], two = 2;
    uint8_t q[102] = {0};
    uint64_t bad;

    (void)state;
    assert_int_equal(load_one(SL_DTYPE_F64, d, NULL, 3, out, &bad), 0);
    same_float(out[0], 1.f); /* ties to even */
    same_float(out[1], 1 + 0x1p-22f);
    same_float(out[2], -0x1p-148f);
    assert_int_equal(load_one(SL_DTYPE_F64, d, NULL, 4, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 643);
    assert_int_equal(load_one(SL_DTYPE_F32, f, &two, 3, out, &bad), 0);
    same_float(out[0], 3.f);
    same_float(out[1], -0.f);
    same_float(out[2], 0x1p-148f);
    for (int b = 0; b < 3; b++) {
        q[34 * b + 1] = (uint8_t)(0x3c + 4 * b); /* d = 1, 2, 4 */
        for (int i = 0; i < 32; i++)
            q[34 * b + 2 + i] = (uint8_t)(i - 16);
    }
    assert_int_equal(load_one(SL_DTYPE_Q8_0, q, &two, 96, out, &bad), 0);
    for (int i = 0; i < 96; i++)
        same_float(out[i], (float)((i % 32 - 16) * (2 << i / 32)));
    q[34] = 0, q[35] = 0x7c; /* an infinite d */
    assert_int_equal(load_one(SL_DTYPE_Q8_0, q, NULL, 96, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 640 + 32);
}

static void refused(void **state)
{
    uint8_t e4m3[100], e5m2[100];
    uint16_t bf16[40];
    float out[100], big = 3e38f, inf = INFINITY;
    uint64_t bad;

    (void)state;
    memset(e4m3, 0x38, sizeof e4m3);
    memset(e5m2, 0x3c, sizeof e5m2);
    e4m3[77] = 0xff;
    assert_int_equal(load_one(SL_DTYPE_F8_E4M3, e4m3, NULL, 77, out, &bad), 0);
    assert_int_equal(load_one(SL_DTYPE_F8_E4M3, e4m3, NULL, 100, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 640 + 77);
    e4m3[77] = 0x7f;
    assert_int_equal(load_one(SL_DTYPE_F8_E4M3, e4m3, NULL, 100, out, &bad), SL_ESOURCE);
    e4m3[77] = 0x7e; /* 448, the largest */
    assert_int_equal(load_one(SL_DTYPE_F8_E4M3, e4m3, NULL, 100, out, &bad), 0);
    assert_int_equal(load_one(SL_DTYPE_F8_E4M3, e4m3, &big, 100, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 640 + 77);
    e5m2[99] = 0x7c;
    assert_int_equal(load_one(SL_DTYPE_F8_E5M2, e5m2, NULL, 100, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 640 + 99);
    for (int i = 0; i < 40; i++)
        bf16[i] = 0x3f80;
    bf16[0] = 0x7f80;
    assert_int_equal(load_one(SL_DTYPE_BF16, bf16, NULL, 40, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 640);
    assert_int_equal(load_one(SL_DTYPE_F32, &inf, NULL, 1, out, &bad), SL_ESOURCE);
    memset(e4m3, 0x99, sizeof e4m3);
    e4m3[38] = 0x19; /* -7 times 2^126 is beyond F32, 1 is not */
    big = 0x1p126f;
    assert_int_equal(load_one(SL_DTYPE_I4, e4m3, &big, 77, out, &bad), 0);
    assert_int_equal(load_one(SL_DTYPE_I4, e4m3, &big, 100, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 640 + 77);
    memset(e4m3, 3, sizeof e4m3);
    e4m3[77] = 0x80; /* -128 times 2^121 is beyond F32 */
    big = 0x1p121f;
    assert_int_equal(load_one(SL_DTYPE_INT8, e4m3, &big, 77, out, &bad), 0);
    assert_int_equal(load_one(SL_DTYPE_INT8, e4m3, &big, 100, out, &bad), SL_ESOURCE);
    assert_int_equal(bad, 640 + 77);
    memset(e4m3, 127, sizeof e4m3);
    e4m3[77] = 0; /* -128 again, and by its column */
    for (int i = 0; i < 2; i++) {
        uint32_t group[400] = {0};
        struct sl_source s = {.dtype = SL_DTYPE_UINT8, .data = e4m3, .cols = 400, .scale = &big, .scale_cols = 1, .block_rows = 1,
                              .block_cols = 400, .group = i ? group : NULL};

        assert_int_equal(sl_load_f32(&s, 0, 77, out, &bad), 0);
        assert_int_equal(sl_load_f32(&s, 0, 100, out, &bad), SL_ESOURCE);
        assert_int_equal(bad, 77);
    }
    assert_int_equal(load_one(SL_DTYPE_I8, e4m3, NULL, 1, out, &bad), SL_EUNSUPPORTED);
    assert_int_equal(load_one(SL_DTYPE_I32, e4m3, NULL, 1, out, &bad), SL_EUNSUPPORTED);
    assert_int_equal(load_one(SL_DTYPE_F8_E8M0, e4m3, NULL, 1, out, &bad), SL_EUNSUPPORTED);
    assert_int_equal(load_one((enum sl_dtype)99, e4m3, NULL, 1, out, &bad), SL_EUNSUPPORTED);
}

static void bf16_rounding(void **state)
{
    float x[] = {1 + 0x1p-8f, 1 + 0x3p-8f, 1 + 0x1.02p-8f, -0.f, 0x1p-149f, 0x1.8p-133f};
    const float want[] = {1, 1 + 0x1p-6f, 1 + 0x1p-7f, -0.f, 0, 0x1p-132f};

    (void)state;
    sl_round_bf16(x, 6);
    for (int i = 0; i < 6; i++)
        same_float(x[i], want[i]);
}

/* Every scale that E4M3 has without a sign; blocks stand for what sl_load_f32 gives; and what is no such run. */
static void repacks_nvfp4(void **state)
{
    static uint8_t codes[127 * 32], blocks[127 * 36];
    static float scale[127 * 4], want[127 * 64], got[127 * 64];
    struct sl_source s = {.dtype = SL_DTYPE_F4, .data = codes, .scale = scale, .cols = 64, .scale_cols = 4, .block_rows = 1, .block_cols = 16};
    uint64_t bad;

    (void)state;
    for (int i = 0; i < 127 * 4; i++) {
        int code = (i * 5 + i / 127) % 127, m = code & 7, x = code >> 3;

        scale[i] = ldexpf((float)(x ? 8 + m : m), x ? x - 10 : -9);
    }
    for (size_t i = 0; i < sizeof codes; i++)
        codes[i] = (uint8_t)(i * 37 + i / 256);
    assert_int_equal(sl_load_f32(&s, 0, 127 * 64, want, &bad), 0);
    assert_int_equal(sl_repack_nvfp4(&s, 0, 127 * 64, blocks), 0);
    assert_int_equal(sl_dequantize(SL_TYPE_NVFP4, blocks, 127 * 64, got), 0);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(sl_repack_nvfp4(&s, 64, 64, blocks + 36), 0);
    assert_int_equal(sl_dequantize(SL_TYPE_NVFP4, blocks, 127 * 64, got), 0);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(sl_repack_nvfp4(&s, 0, 32, blocks), SL_EUNSUPPORTED);
    s.block_cols = 32;
    assert_int_equal(sl_repack_nvfp4(&s, 0, 64, blocks), SL_EUNSUPPORTED);
    s.block_cols = 16;
    for (int i = 0; i < 5; i++) { /* beyond its range, and between its values */
        scale[3] = (const float[]){449, NAN, 0.3f, 0x1.1p-9f, 440}[i];
        assert_int_equal(sl_repack_nvfp4(&s, 0, 64, blocks), SL_EUNSUPPORTED);
    }
}

/* Every BF16 but infinities and NaNs, against the exact exponential; sums are rounded once, in F16 a second time. */
static void changed(void **state)
{
    uint64_t bad = 9;

    (void)state;
    for (uint32_t code = 0; code < 1 << 16; code++) {
        float x = sl_f32_from_bf16((uint16_t)code), y = x, sum = x, exact = -(float)expl((long double)x);

        if (!isfinite(x))
            continue;
        assert_int_equal(sl_change_values(SL_MINUS_EXP, SL_DTYPE_BF16, &y, 1, &bad), isfinite(exact) ? 0 : SL_ESOURCE);
        assert_int_equal(bad, 0);
        assert_memory_equal(&y, &exact, sizeof y);
        assert_int_equal(sl_change_values(SL_PLUS_ONE, SL_DTYPE_BF16, &sum, 1, &bad), 0);
        exact = 1.0f + x;
        assert_memory_equal(&sum, &exact, sizeof sum);
    }
    for (int recip = 0; recip < 2; recip++) { /* what must be above 0 */
        static const float odd[5] = {0, -0.f, -1, NAN, INFINITY};
        enum sl_change change = recip ? SL_RECIPROCAL : SL_ABOVE_0;
        float x[3] = {3, 0x1p-140f, 7};

        assert_int_equal(sl_change_values(change, SL_DTYPE_F32, x, 1, &bad), 0);
        assert_true(x[0] == (recip ? 1.0f / 3 : 3));
        assert_int_equal(sl_change_values(change, SL_DTYPE_F32, x, 2, &bad), recip ? SL_ESOURCE : 0); /* beyond F32 */
        for (int i = 0; i < 4 + !recip; i++) {
            x[0] = x[1] = 1, x[2] = odd[i];
            assert_int_equal(sl_change_values(change, SL_DTYPE_F32, x, 3, &bad), SL_ESOURCE);
            assert_int_equal(bad, 2);
        }
    }
    {
        float x[3] = {0.5f, 0x1p-11f, 0x1.8p-10f}, e[2] = {1, 12};

        assert_int_equal(sl_change_values(SL_PLUS_ONE, SL_DTYPE_F16, x, 3, &bad), 0);
        assert_true(x[0] == 1.5f && x[1] == 1.0f && x[2] == 1 + 0x1p-9f);
        assert_int_equal(sl_change_values(SL_MINUS_EXP, SL_DTYPE_F16, e, 2, &bad), SL_ESOURCE); /* beyond F16 */
        assert_int_equal(bad, 1);
        assert_true(e[0] == -0x1.5cp+1f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_code),   cmocka_unit_test(block_scales),
                                       cmocka_unit_test(packed_integers), cmocka_unit_test(packed_zeros), cmocka_unit_test(int8_values), cmocka_unit_test(fp4_values), cmocka_unit_test(fp4_groups), cmocka_unit_test(repacks_nvfp4),
                                       cmocka_unit_test(wide_types),   cmocka_unit_test(refused),
                                       cmocka_unit_test(bf16_rounding), cmocka_unit_test(e4m3_halves),
                                       cmocka_unit_test(e4m3_to_q8_0), cmocka_unit_test(changed)};

    return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
