/* The device text on a CPU, thread by thread, against the scalar backend; and
 * the GPU itself where there is one. */
#include "kernels/cuda.h"
#include "kernels/kernels.h"
#include "kernels/lanes_cuda.h"
#include "kernels/text_device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BLOCKS 37
#define N (BLOCKS * 256)

static const int types[] = {SL_TYPE_Q2_K, SL_TYPE_Q3_K, SL_TYPE_Q4_K, SL_TYPE_Q5_K, SL_TYPE_Q6_K};

struct data {
    float x[N], w[N];
    uint8_t want[N], got[N];
};

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

/* Blocks of usual size, of subnormals, of ties, and empty ones. */
static struct data *make_data(void)
{
    struct data *d = malloc(sizeof *d);
    uint64_t s = 0x2545f4914f6cdd1d;

    assert_non_null(d);
    for (int i = 0; i < N; i++) {
        uint32_t u = (uint32_t)next_random(&s), kind = (uint32_t)i / 256 % 5;

        u = kind == 0 ? (u & 0x807fffff) | (110 + (u >> 24) % 12) << 23
          : kind == 1 ? u & 0x80ffffff
          : kind == 2 ? (u & 0x80000000) | 0x3f000000
          : kind == 3 ? (u & 0x80700000) | 0x3d000000
          : u & 0x80000000;
        d->x[i] = sl_float(u);
        d->w[i] = next_random(&s) % 4 ? (float)(next_random(&s) % 1000) * 0.01f : 0;
    }
    return d;
}

static void emulated_grid(void **state)
{
    struct data *d = make_data();

    (void)state;
    for (int i = 0; i < 5; i++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const struct sl_type_info *t = sl_type_info(types[i]);
            const float *w = weighted ? d->w : NULL;
            uint64_t bad;

            assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, types[i], d->x, w, N, N, d->want, &bad), 0);
            memset(d->got, 0x77, sizeof d->got);
            for (uint64_t k = 0; k < BLOCKS; k++) /* in an order of its own */
                device_superblock(types[i], (int)t->bytes, d->x, w, k * 11 % BLOCKS, d->got);
            assert_memory_equal(d->want, d->got, BLOCKS * t->bytes);
            assert_int_equal(d->got[BLOCKS * t->bytes], 0x77);
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

static void on_a_device(void **state)
{
    struct data *d;
    struct sl_error e;
    uint64_t bad;

    (void)state;
    assert_int_equal(sl_cuda_quantize(0, SL_TYPE_Q4_0, NULL, NULL, 256, NULL, &bad, &e), SL_EUNSUPPORTED);
    assert_true(sl_cuda_devices() >= 0);
    if (sl_cuda_devices() == 0) {
        print_message("%s: the GPU kernels were not run\n", sl_cuda_built() ? "no CUDA device" : "built without CUDA");
        skip();
    }
    d = make_data();
    for (int i = 0; i < 5; i++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const float *w = weighted ? d->w : NULL;

            assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, types[i], d->x, w, N, N, d->want, &bad), 0);
            if (sl_cuda_quantize(0, types[i], d->x, w, N, d->got, &bad, &e))
                fail_msg("%s", e.text);
            assert_memory_equal(d->want, d->got, sl_type_bytes(types[i], N));
        }
    free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(emulated_grid), cmocka_unit_test(not_a_number),
                                       cmocka_unit_test(on_a_device)};

    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
