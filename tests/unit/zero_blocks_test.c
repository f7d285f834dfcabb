/* worker/convert_unit.c makes runs of zeros by repeating one block: for every type and
 * on every backend that must be what the quantizer itself makes of them. */
#include "kernels/kernels.h"
#include "proto/types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 8192u

static void zeros_are_one_block_repeated(void **state)
{
    float *x = calloc(N, sizeof *x);
    uint8_t *out = malloc(N * 8), one[512];
    unsigned types = 0;

    (void)state;
    assert_non_null(x);
    assert_non_null(out);
    for (int b = SL_BACKEND_SCALAR; b <= SL_BACKEND_AVX512; b++) {
        for (int type = 0; type < 64; type++) {
            const struct sl_type_info *ti = sl_type_info(type);
            uint64_t bad;

            if (!sl_backend_usable((enum sl_backend)b) || !ti || ti->bytes > sizeof one || N % ti->block ||
                sl_quantize_on((enum sl_backend)b, type, x, NULL, N, N, out, &bad) < 0)
                continue;
            types++;
            assert_int_equal(sl_quantize_on((enum sl_backend)b, type, x, NULL, ti->block, ti->block, one, &bad), 0);
            for (uint64_t i = 0; i < N / ti->block; i++)
                if (memcmp(out + i * ti->bytes, one, ti->bytes) != 0)
                    fail_msg("%s: block %llu of zeros is another", ti->name, (unsigned long long)i);
        }
    }
    assert_true(types >= 15);
    free(x);
    free(out);
}

/* The reason why zeros are told by their bits. */
static void minus_zero_counts(void **state)
{
    float x[256] = {0};
    uint8_t plus[512], minus[512];
    const struct sl_type_info *ti = sl_type_info(SL_TYPE_F32);
    uint64_t bad;

    (void)state;
    assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, SL_TYPE_F32, x, NULL, 1, 1, plus, &bad), 0);
    x[0] = -0.0f;
    assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, SL_TYPE_F32, x, NULL, 1, 1, minus, &bad), 0);
    assert_memory_not_equal(plus, minus, ti->bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros_are_one_block_repeated),
        cmocka_unit_test(minus_zero_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
