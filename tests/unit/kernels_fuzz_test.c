/* Wide backends against the scalar one on hostile numbers: any finite bit
 * pattern, subnormals, huge values, signed zeros, ties, zero weights. */
#include "kernels/half.h"
#include "kernels/kernels.h"
#include "written_types.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROW 1280 /* 5 superblocks: rows and lane groups do not line up */
#define N (5 * ROW)
#define ROUNDS 24

static const int types[] = {WRITTEN_TYPES};
#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

struct data {
    float x[N], w[N];
    uint8_t want[N * 4], got[N * 4];
};

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

enum kind { ANY_BITS, USUAL, SUBNORMAL, SPARSE, AT_EPSILON, COARSE, TIES, ONE_SIGN, WIDE, KINDS };

static float number(enum kind kind, uint64_t *s)
{
    uint64_t r = next_random(s);
    uint32_t u = (uint32_t)r, extra = (uint32_t)(r >> 32);
    float f;

    switch (kind) {
    case USUAL: u = (u & 0x807fffff) | (105 + extra % 20) << 23; break;
    case SUBNORMAL: u &= 0x80ffffff; break;
    case SPARSE: u = extra % 4 ? u & 0x80000000 : (u & 0x807fffff) | 0x3e800000; break;
    case AT_EPSILON: u = (u & 0x807fffff) | (74 + extra % 6) << 23; break;
    case COARSE: u = (u & 0x807f0000) | (120 + extra % 3) << 23; break;
    case TIES: u = (u & 0x80000000) | (extra % 8 ? (uint32_t)(extra % 4 << 20 | 0x3f000000) : 0); break;
    case ONE_SIGN: u = (u & 0x007fffff) | 0xbf000000; break;
    case WIDE: u = (u & 0x807fffff) | (115 + extra % 26) << 23; break;
    default: break;
    }
    memcpy(&f, &u, 4);
    return isfinite(f) ? f : 1.f;
}

static void fill(struct data *d, uint64_t *s)
{
    enum kind kind = next_random(s) % KINDS, weights = next_random(s) % KINDS;
    bool mixed = next_random(s) % 4 == 0, weight_zeros = next_random(s) % 2;

    for (int i = 0; i < N; i++) {
        if (mixed && i % 32 == 0)
            kind = next_random(s) % KINDS;
        d->x[i] = number(kind, s);
        d->w[i] = weight_zeros && next_random(s) % 3 == 0 ? 0 : fabsf(number(weights, s));
    }
    if (weight_zeros)
        memset(d->w + 256 * (next_random(s) % 24), 0, 256 * sizeof(float));
}

/* Returns the first block that differs, or -1. Blocks of a refused run count
 * only for the error and its place. */
static long first_difference(enum sl_backend b, int type, bool weighted, struct data *d)
{
    const struct sl_type_info *t = sl_type_info(type);
    uint64_t bad_want = UINT64_MAX, bad_got = UINT64_MAX;
    int want = sl_quantize_on(SL_BACKEND_SCALAR, type, d->x, weighted ? d->w : NULL, N, ROW, d->want, &bad_want);
    int got = sl_quantize_on(b, type, d->x, weighted ? d->w : NULL, N, ROW, d->got, &bad_got);

    assert_int_equal(want, got);
    assert_true(bad_want == bad_got);
    for (size_t i = 0; i < sl_type_bytes(type, N) && want == 0; i += t->bytes)
        if (memcmp(d->want + i, d->got + i, t->bytes))
            return (long)(i / t->bytes);
    return -1;
}

static void needs(enum sl_backend b)
{
    if (sl_backend_usable(b))
        return;
    print_message("this machine cannot run %s\n", sl_backend_name(b));
    skip();
}

static void equals_scalar(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;
    struct data *d;
    uint64_t seed = 0x9e3779b97f4a7c15;
    int differ = 0;

    needs(b);
    d = malloc(sizeof *d);
    assert_non_null(d);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = seed;

        fill(d, &seed);
        for (int i = 0; i < COUNT(types); i++)
            for (int weighted = sl_needs_weights(types[i]); weighted < 2; weighted++) {
                long at = first_difference(b, types[i], weighted, d);

                if (at >= 0 && !differ++)
                    print_error("%s, %s%s, seed %#llx: block %ld differs\n", sl_backend_name(b),
                                sl_type_info(types[i])->name, weighted ? " with weights" : "",
                                (unsigned long long)start, at);
            }
    }
    free(d);
    assert_int_equal(differ, 0);
}

/* Every tail length of a lane group, without a write past the end. */
static void tails(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;
    struct data *d;
    uint64_t seed = 12345, bad;

    needs(b);
    d = malloc(sizeof *d);
    assert_non_null(d);
    for (int i = 0; i < N; i++) {
        d->x[i] = number(USUAL, &seed);
        d->w[i] = 1 + (float)(i % 7);
    }
    for (int i = 0; i < COUNT(types); i++) {
        const struct sl_type_info *t = sl_type_info(types[i]);
        const float *w = sl_needs_weights(types[i]) ? d->w : NULL;

        assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, types[i], d->x, w, N, N, d->want, &bad), 0);
        for (uint64_t blocks = 0; blocks <= N / t->block && blocks <= 17; blocks++) {
            memset(d->got, 0x5a, sizeof d->got);
            assert_int_equal(sl_quantize_on(b, types[i], d->x, w, blocks * t->block, t->block, d->got, &bad), 0);
            assert_memory_equal(d->want, d->got, blocks * t->bytes);
            assert_int_equal(d->got[blocks * t->bytes], 0x5a);
        }
    }
    free(d);
}

/* A scale beyond f16 is refused with the place of its block. */
static void refuses_overflow(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;
    struct data *d;
    uint64_t seed = 99, bad;

    needs(b);
    d = malloc(sizeof *d);
    assert_non_null(d);
    for (int i = 0; i < COUNT(types); i++) {
        const struct sl_type_info *t = sl_type_info(types[i]);

        if (types[i] == SL_TYPE_MXFP4) /* no number is too large for it */
            continue;
        for (int k = 0; k < N; k++)
            d->x[k] = number(USUAL, &seed);
        for (int weighted = sl_needs_weights(types[i]); weighted < 2; weighted++) {
            for (int k = 0; k < N; k++)
                d->w[k] = 1;
            /* Above 65504 times every level; above BF16's largest. */
            d->x[2 * ROW + 700] = types[i] == SL_TYPE_BF16 ? 3.4e38f : 1e10f;
            bad = UINT64_MAX;
            assert_int_equal(sl_quantize_on(b, types[i], d->x, weighted ? d->w : NULL, N, ROW, d->got, &bad), SL_ESOURCE);
            assert_int_equal(bad, (2 * ROW + 700) / t->block * t->block);
        }
        d->x[2 * ROW + 700] = 1;
        assert_int_equal(sl_quantize_on(b, types[i], d->x, d->w, N, ROW, d->got, &bad), 0);
    }
    assert_int_equal(sl_quantize_on(b, SL_TYPE_Q4_K, d->x, NULL, 255, 255, d->got, &bad), SL_EUNSUPPORTED);
    assert_int_equal(sl_quantize_on(b, SL_TYPE_I8, d->x, NULL, 256, 256, d->got, &bad), SL_EUNSUPPORTED);
    assert_int_equal(sl_quantize_on(b, SL_TYPE_Q4_K, d->x, d->w, 512, 384, d->got, &bad), SL_EUNSUPPORTED);
    assert_int_equal(sl_quantize_on(b, SL_TYPE_Q4_K, d->x, d->w, 768, 512, d->got, &bad), SL_EUNSUPPORTED);
    assert_int_equal(sl_quantize_on(b, SL_TYPE_IQ2_XS, d->x, NULL, 256, 256, d->got, &bad), SL_EUNSUPPORTED);
    assert_int_equal(sl_quantize_on(b, 1000, d->x, NULL, 256, 256, d->got, &bad), SL_EUNSUPPORTED);
    free(d);
}

/* The last value of a run of any length; the largest that F16 and BF16 hold. */
static void limits_of_halves(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;
    static const struct { int type; float fits, large; } halves[] = {
        {SL_TYPE_F16, -0x1.ffdffep15f, 0x1.ffep15f}, {SL_TYPE_BF16, -0x1.fefffep127f, 0x1.ffp127f}};
    uint64_t bad;

    needs(b);
    for (int i = 0; i < COUNT(halves); i++)
        for (uint64_t n = 1; n < 70; n++) {
            float x[70] = {0};
            uint8_t out[140];

            x[n - 1] = halves[i].fits;
            assert_int_equal(sl_quantize_on(b, halves[i].type, x, NULL, n, n, out, &bad), 0);
            x[n - 1] = halves[i].large;
            bad = UINT64_MAX;
            assert_int_equal(sl_quantize_on(b, halves[i].type, x, NULL, n, n, out, &bad), SL_ESOURCE);
            assert_int_equal(bad, n - 1);
        }
}

/* Each scale alone: a minimum beyond F16 beside a scale of zero, and a scale near F16's end. */
static void limits_of_scales(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;
    static const int with_minimum[] = {SL_TYPE_Q4_1, SL_TYPE_Q5_1, SL_TYPE_Q2_K, SL_TYPE_Q4_K, SL_TYPE_Q5_K};
    float x[1024], w[1024];
    uint8_t out[4096];
    uint64_t bad;
    uint16_t top;

    needs(b);
    for (int weighted = 0; weighted < 2; weighted++) {
        for (int i = 0; i < COUNT(with_minimum); i++) {
            for (int k = 0; k < 1024; k++) {
                x[k] = k < 512 ? 0.25f * (float)(k % 5 - 2) : -1e7f;
                w[k] = 1;
            }
            bad = UINT64_MAX;
            assert_int_equal(sl_quantize_on(b, with_minimum[i], x, weighted ? w : NULL, 1024, 256, out, &bad), SL_ESOURCE);
            assert_int_equal(bad, 512);
        }
        for (int k = 0; k < 1024; k++)
            x[k] = k % 3 ? 2e5f : -2e5f;
        assert_int_equal(sl_quantize_on(b, SL_TYPE_IQ1_M, x, weighted ? w : NULL, 1024, 256, out, &bad), 0);
        memcpy(&top, out + 54, 2); /* the upper bits of d: 2^13 or more */
        assert_int_equal(top & 0x7000, 0x7000);
    }
}

/* iq2_xxs where a first fit's sums are both infinite: ggml goes on with its NaN, and finds
 * a scale by later ones. The bytes are ggml's. */
static void goes_on_after_a_nan(void **state)
{
    const enum sl_backend *b = *state;
    float x[256], w[256];
    uint8_t out[66], want[66] = {0x32, 0x2c};
    uint64_t bad;

    for (int i = 0; i < 256; i++) {
        x[i] = 2 + 0.01f * (float)(i % 7);
        w[i] = 7e35f;
    }
    for (int i = 0; i < 8; i++)
        want[9 + 8 * i] = 0xf0;
    needs(*b);
    assert_int_equal(sl_quantize_on(*b, SL_TYPE_IQ2_XXS, x, w, 256, 256, out, &bad), 0);
    assert_memory_equal(out, want, sizeof want);
}

/* iq2_xxs where a magnitude that parity has made negative is so large that its level wraps to one above zero: cut to the
 * highest level it counts against the sub-block. Where nothing else has a weight the first fit's scale is below zero, and the
 * sub-block is zeros as in ggml; where another value has a little, it is not, and would be with the level that was not cut. */
static void fit_below_zero(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;
    uint8_t out[66], other[66], zeros[8] = {0};
    uint64_t bad;

    needs(b);
    for (int at = 0; at < 256; at += 32) {
        float x[256], w[256];

        for (int i = 0; i < 256; i++) {
            x[i] = i / 32 == at / 32 ? 0.1f : (float)(1 + i % 5) * 1e5f;
            w[i] = i / 32 == at / 32 && i % 32 > 7 ? 0 : 1;
        }
        x[at] = 1.25e6f; /* 5e6 at four levels for 1: beyond 2^22 */
        w[at] = 1e-20f;  /* the one that matters least of eight with one sign */
        x[at + 1] = -x[at + 1];
        x[at + 8] = 1;
        assert_int_equal(sl_quantize_on(b, SL_TYPE_IQ2_XXS, x, w, 256, 256, out, &bad), 0);
        assert_memory_equal(out + 2 + at / 4, zeros, 8);
        w[at + 8] = 1e-12f;
        assert_int_equal(sl_quantize_on(b, SL_TYPE_IQ2_XXS, x, w, 256, 256, other, &bad), 0);
        assert_memory_not_equal(other + 2 + at / 4, zeros, 8);
        memcpy(other + 2 + at / 4, zeros, 8);
        assert_memory_equal(out, other, sizeof out);
    }
}

/* mxfp4 of 32 values the slow way: the exponent from a double's logarithm, rounded to a float; the nearest level by its
 * distance, the lower one where two are as near. */
static void slow_mxfp4(const float *x, uint8_t *out)
{
    static const double levels[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    float top = 0;

    for (int i = 0; i < 32; i++)
        top = fmaxf(top, fabsf(x[i]));
    memset(out, 0, 17);
    out[0] = top > 0 ? (uint8_t)((int)floorf((float)log2((double)top)) - 2 + 127) : 0;
    for (int i = 0; i < 32; i++) {
        double a = fabs((double)x[i]), least = a;
        int best = 0;

        for (int k = 1; k < 8; k++) {
            double level = ldexp(levels[k], out[0] - 127);

            if (level > 0x1.fffffep127 || fabs(level - a) >= least)
                continue;
            best = k;
            least = fabs(level - a);
        }
        out[1 + i % 16] |= (uint8_t)((x[i] < 0 && best ? best + 8 : best) << i / 16 * 4);
    }
}

/* Where log2f rounds up to a whole number, and all around it; refused where the exponent is none. */
static void powers_of_two(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;
    struct data *d;
    uint64_t seed = 7;

    needs(b);
    d = malloc(sizeof *d);
    assert_non_null(d);
    for (int k = -149; k <= 128; k++) {
        uint64_t bad = UINT64_MAX, refused = UINT64_MAX;
        int n = 0;

        for (int64_t j = -66; j < 40; j++) {
            int64_t bits = k < -126 ? (INT64_C(1) << (k + 149)) + j : ((int64_t)k + 127) * 0x800000 + j;

            if (bits < 0 || bits >= 0x7f800000)
                continue;
            for (int i = 0; i < 32; i++) { /* at the middles and beside them, and anywhere */
                int64_t near = (bits & 0x7f800000) - (int64_t)(next_random(&seed) % 4) * 0x800000 +
                               (int64_t)(next_random(&seed) % 4) * 0x200000 + (int64_t)(next_random(&seed) % 3) - 1;
                int64_t u = next_random(&seed) % 2 ? near : (int64_t)(next_random(&seed) % (uint64_t)(bits + 1));

                u = u < 0 || u > bits || i == (j + 66) % 32 ? bits : u;
                d->x[n + i] = sl_float((uint32_t)u | (next_random(&seed) % 2 ? 0x80000000u : 0));
            }
            slow_mxfp4(d->x + n, d->want + n / 32 * 17);
            if (d->want[n / 32 * 17] == 255 && refused == UINT64_MAX)
                refused = (uint64_t)n;
            n += 32;
        }
        assert_int_equal(sl_quantize_on(b, SL_TYPE_MXFP4, d->x, NULL, (uint64_t)n, (uint64_t)n, d->got, &bad),
                         refused == UINT64_MAX ? 0 : SL_ESOURCE);
        assert_int_equal(bad, refused);
        assert_memory_equal(d->got, d->want, (size_t)n / 32 * 17);
    }
    free(d);
}

int main(void)
{
    static enum sl_backend b[] = {SL_BACKEND_PORTABLE, SL_BACKEND_AVX2, SL_BACKEND_AVX512, SL_BACKEND_SCALAR};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(goes_on_after_a_nan, &b[3]), cmocka_unit_test_prestate(goes_on_after_a_nan, &b[0]),
        cmocka_unit_test_prestate(goes_on_after_a_nan, &b[1]), cmocka_unit_test_prestate(goes_on_after_a_nan, &b[2]),
        cmocka_unit_test_prestate(fit_below_zero, &b[3]),   cmocka_unit_test_prestate(fit_below_zero, &b[0]),
        cmocka_unit_test_prestate(fit_below_zero, &b[1]),   cmocka_unit_test_prestate(fit_below_zero, &b[2]),
        cmocka_unit_test_prestate(equals_scalar, &b[0]),    cmocka_unit_test_prestate(equals_scalar, &b[1]),
        cmocka_unit_test_prestate(equals_scalar, &b[2]),    cmocka_unit_test_prestate(tails, &b[0]),
        cmocka_unit_test_prestate(tails, &b[1]),            cmocka_unit_test_prestate(tails, &b[2]),
        cmocka_unit_test_prestate(refuses_overflow, &b[3]), cmocka_unit_test_prestate(refuses_overflow, &b[0]),
        cmocka_unit_test_prestate(refuses_overflow, &b[1]), cmocka_unit_test_prestate(refuses_overflow, &b[2]),
        cmocka_unit_test_prestate(powers_of_two, &b[3]),    cmocka_unit_test_prestate(powers_of_two, &b[0]),
        cmocka_unit_test_prestate(powers_of_two, &b[1]),    cmocka_unit_test_prestate(powers_of_two, &b[2]),
        cmocka_unit_test_prestate(limits_of_halves, &b[3]), cmocka_unit_test_prestate(limits_of_halves, &b[0]),
        cmocka_unit_test_prestate(limits_of_halves, &b[1]), cmocka_unit_test_prestate(limits_of_halves, &b[2]),
        cmocka_unit_test_prestate(limits_of_scales, &b[3]), cmocka_unit_test_prestate(limits_of_scales, &b[0]),
        cmocka_unit_test_prestate(limits_of_scales, &b[1]), cmocka_unit_test_prestate(limits_of_scales, &b[2]),
    };

    return cmocka_run_group_tests_name("kernels fuzz", tests, NULL, NULL);
}
