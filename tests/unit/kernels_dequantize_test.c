/* Dequantizers on the golden files, and the size of the quantization error. */
#include "kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <xxhash.h>

#define N (6 * 1024)
#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static const char *const dists[] = {"gauss", "fp8_block", "outlier", "heavy_tail", "constant",
                                    "sparse", "tiny", "huge", "onesided", "ramp"};

/* hash: XXH64, seed 0, of the F32 values that the to_float functions of ggml
 * d99724f2 (2026-08-21; default flags for x86-64) give for the plain golden
 * files (where there are none: those with weights) in the order of dists. rmse: the range in which the relative error of
 * "gauss" must lie. */
static const struct { int type; uint64_t hash; double least, most; } table[] = {
    {SL_TYPE_F16, 0xdaa50b9e5496f1a3, 1e-4, 4e-4},  {SL_TYPE_BF16, 0x3600cd76f46bdea9, 1e-3, 3e-3},
    {SL_TYPE_Q8_0, 0xf667ab5c5bb8c354, 2e-3, 8e-3}, {SL_TYPE_Q4_0, 0xece7d73513cecd9f, 0.05, 0.11},
    {SL_TYPE_Q4_1, 0x8a590469da5a2980, 0.05, 0.1},  {SL_TYPE_Q5_0, 0x1bb7f91f5a027bbd, 0.03, 0.06},
    {SL_TYPE_Q5_1, 0x426ce7f84cd6a174, 0.02, 0.05}, {SL_TYPE_Q2_K, 0x49cc065ee2e8d21b, 0.2, 0.35},
    {SL_TYPE_Q3_K, 0x0c8235b5847f04c0, 0.1, 0.2},   {SL_TYPE_Q4_K, 0x98155d2165986092, 0.05, 0.09},
    {SL_TYPE_Q5_K, 0x7bf394c82a73ee19, 0.02, 0.05}, {SL_TYPE_Q6_K, 0x49c57fb35da86e6e, 0.01, 0.03},
    {SL_TYPE_IQ4_NL, 0xf4c9bd2617fad0a6, 0.05, 0.1}, {SL_TYPE_IQ4_XS, 0xcd1fc4d93e58278d, 0.05, 0.1},
    {SL_TYPE_IQ1_S, 0xdcf5167b6bf6b220, 0.4, 0.55}, {SL_TYPE_IQ1_M, 0x32d539fee3b8c1f9, 0.38, 0.52},
    {SL_TYPE_IQ2_XXS, 0x7514907fcbe63fd2, 0.28, 0.4}, {SL_TYPE_IQ2_XS, 0xded1250ef74c4fda, 0.25, 0.35},
    {SL_TYPE_IQ2_S, 0x0bdee078b029a900, 0.2, 0.32}, {SL_TYPE_IQ3_XXS, 0x1ed51924aeb0104a, 0.17, 0.26},
    {SL_TYPE_IQ3_S, 0xe20323fc5e6ef325, 0.12, 0.2}, {SL_TYPE_Q1_0, 0xac9c11729dba0105, 0.55, 0.65},
    {SL_TYPE_Q2_0, 0x3f1b88680df85bd0, 0.65, 0.8}, {SL_TYPE_TQ1_0, 0x84d10388c0e85dbd, 0.75, 0.9},
    {SL_TYPE_TQ2_0, 0x84d10388c0e85dbd, 0.75, 0.9},
};

static void slurp(const char *dist, const char *name, void *buf, size_t bytes)
{
    const char *root = getenv("SLUICE_TESTS");
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/golden/%s/%s", root ? root : "tests", dist, name);
    f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s; run from the repository's root or set SLUICE_TESTS", path);
    assert_int_equal(fread(buf, 1, bytes, f), bytes);
    fclose(f);
}

/* Of these there are golden files with an importance matrix only. */
static bool weighted_only(int type)
{
    return type == SL_TYPE_IQ1_S || type == SL_TYPE_IQ1_M || type == SL_TYPE_IQ2_XXS || type == SL_TYPE_IQ2_XS;
}

static uint64_t hash_of(int type, int flip)
{
    static uint8_t q[N * 4];
    static float out[N];
    XXH64_state_t *s = XXH64_createState();
    uint64_t h;

    assert_non_null(s);
    XXH64_reset(s, 0);
    for (int d = 0; d < COUNT(dists); d++) {
        char name[32];

        snprintf(name, sizeof name, "%s%s.bin", sl_type_info(type)->name, weighted_only(type) ? ".imatrix" : "");
        slurp(dists[d], name, q, sl_type_bytes(type, N));
        if (flip >= 0 && d == 0)
            q[flip] ^= 0x40;
        assert_int_equal(sl_dequantize(type, q, N, out), 0);
        XXH64_update(s, out, sizeof out);
    }
    h = XXH64_digest(s);
    XXH64_freeState(s);
    return h;
}

static void equals_ggml(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(table); i++) {
        if (hash_of(table[i].type, -1) != table[i].hash)
            fail_msg("%s: the values are not ggml's", sl_type_info(table[i].type)->name);
        assert_int_not_equal(hash_of(table[i].type, 20), table[i].hash);
    }
}

/* Every code under every scale; the sign is not looked at, and one NaN is 0. */
static void nvfp4_equals_ggml(void **state)
{
    static const float level[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

    (void)state;
    for (int scale = 0; scale < 256; scale++) {
        int m = scale & 7, x = scale >> 3 & 15;
        float d = scale == 127 ? 0 : ldexpf((float)(x ? 8 + m : m), x ? x - 10 : -9), out[64];
        uint8_t block[36] = {0x08, 0x38, (uint8_t)scale, 0x7e};

        for (int i = 0; i < 8; i++)
            block[4 + 16 + i] = (uint8_t)(i | (8 + i) << 4);
        assert_int_equal(sl_dequantize(SL_TYPE_NVFP4, block, 64, out), 0);
        for (int i = 0; i < 16; i++)
            if (out[32 + i] != (i < 8 ? d * level[i] : -d * level[i - 8]))
                fail_msg("scale %d, code %d: %g", scale, i, (double)out[32 + i]);
    }
}

static void error_is_plausible(void **state)
{
    static float x[N], w[N], out[N];
    static uint8_t q[N * 4];
    uint64_t bad;

    (void)state;
    slurp("gauss", "x.f32", x, sizeof x);
    for (int i = 0; i < N; i++)
        w[i] = 1;
    for (int i = 0; i < COUNT(table); i++) {
        double err = 0, power = 0, rel;

        assert_int_equal(sl_quantize_on(SL_BACKEND_AUTO, table[i].type, x, weighted_only(table[i].type) ? w : NULL, N, 1024, q,
                                        &bad), 0);
        assert_int_equal(sl_dequantize(table[i].type, q, N, out), 0);
        for (int k = 0; k < N; k++) {
            err += (double)(out[k] - x[k]) * (double)(out[k] - x[k]);
            power += (double)x[k] * (double)x[k];
        }
        rel = sqrt(err / power);
        if (!(rel >= table[i].least && rel <= table[i].most))
            fail_msg("%s: relative error %g", sl_type_info(table[i].type)->name, rel);
    }
}

static void refuses(void **state)
{
    uint8_t q[256] = {0};
    float out[256];

    (void)state;
    assert_int_equal(sl_dequantize(SL_TYPE_Q4_K, q, 255, out), SL_EUNSUPPORTED);
    assert_int_equal(sl_dequantize(SL_TYPE_I32, q, 32, out), SL_EUNSUPPORTED);
    assert_int_equal(sl_dequantize(-1, q, 32, out), SL_EUNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_ggml), cmocka_unit_test(nvfp4_equals_ggml), cmocka_unit_test(error_is_plausible),
                                       cmocka_unit_test(refuses)};

    return cmocka_run_group_tests_name("dequantize", tests, NULL, NULL);
}
