/* Numbers of an output that no dequantizer can use are found, and told once for each tensor. */
#include "tests/unit/verify_file.h"
#include "proto/types.h"

static void numbers_must_be_finite(void **state)
{
    static const struct {
        int type;
        uint64_t ne;
        uint32_t at, n;
        uint8_t bad[8], fine[8]; /* infinite or no number; the largest number or nearly so */
    } cases[] = {
        {SL_TYPE_F32, 4, 8, 4, {0, 0, 0x80, 0x7f}, {0xff, 0xff, 0x7f, 0x7f}},
        {SL_TYPE_F32, 4, 12, 4, {1, 0, 0x80, 0xff}, {0, 0, 0x80, 0xfe}},
        {SL_TYPE_F64, 4, 8, 8, {0, 0, 0, 0, 0, 0, 0xf0, 0x7f}, {0, 0, 0, 0, 0, 0, 0xef, 0x7f}},
        {SL_TYPE_F64, 4, 24, 8, {1, 0, 0, 0, 0, 0, 0xf0, 0xff}, {0, 0, 0, 0, 0, 0, 0xf0, 0xfe}},
        {SL_TYPE_F16, 4, 2, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_BF16, 4, 2, 2, {0x80, 0x7f}, {0x7f, 0x7f}},
        {SL_TYPE_BF16, 4, 2, 2, {0x81, 0xff}, {0x80, 0xfe}},
        {SL_TYPE_Q8_0, 64, 34, 2, {0, 0xfc}, {0xff, 0xfb}},
        {SL_TYPE_Q5_1, 32, 2, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_Q2_K, 512, 84 + 82, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_Q3_K, 256, 108, 2, {0, 0x7e}, {0xff, 0x7b}},
        {SL_TYPE_Q6_K, 256, 208, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_Q4_K, 256, 2, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_IQ1_M, 256, 53, 3, {0xc0, 0, 0x70}, {0xb0, 0, 0x70}},
        {SL_TYPE_Q1_0, 256, 18, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_Q2_0, 128, 18, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_TQ1_0, 512, 54 + 52, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_TQ2_0, 512, 66 + 64, 2, {0, 0x7c}, {0xff, 0x7b}},
        {SL_TYPE_MXFP4, 64, 17, 1, {255}, {254}},
        {SL_TYPE_NVFP4, 64, 0, 4, {0}, {0xff, 0x7f, 0xff, 0x7f}},
        {SL_TYPE_I8, 32, 0, 4, {0}, {0xff, 0x7f, 0xff, 0x7f}},
    };
    struct bytes b = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t data;

        b_start(&b, 3, 1, 0);
        b_tensor(&b, "bad.weight", 1, &cases[i].ne, (uint32_t)cases[i].type, 0);
        b_pad(&b, 32);
        data = b.n;
        b_zeros(&b, sl_type_bytes(cases[i].type, cases[i].ne));
        b_pad(&b, 32);
        memcpy(b.p + data + cases[i].at, cases[i].fine, cases[i].n);
        assert_int_equal(b_write(&b, path), 0);
        assert_int_equal(verify(path), 0);
        if (cases[i].type == SL_TYPE_I8 || cases[i].type == SL_TYPE_NVFP4)
            continue;
        memcpy(b.p + data + cases[i].at, cases[i].bad, cases[i].n);
        refused(&b, "tensor bad.weight: block ");
    }
    free(b.p);
}

/* A bad value is found wherever a 4 MiB piece ends: 110-byte blocks straddle. */
static void blocks_straddle_pieces(void **state)
{
    uint64_t ne = 256 * 50000, data;
    struct bytes b = {0};

    (void)state;
    b_start(&b, 3, 1, 0);
    b_tensor(&b, "t", 1, &ne, SL_TYPE_Q3_K, 0);
    b_pad(&b, 32);
    data = b.n;
    b_zeros(&b, 110 * 50000);
    b_pad(&b, 32);
    /* Block 38130 begins 4 bytes before a piece's end. */
    b.p[data + (4u << 20) / 110 * 110 + 109] = 0x7c;
    refused(&b, "block 38130:");
    free(b.p);
}

/* Two values of each of two tensors. */
static void each_tensor_is_told_once(void **state)
{
    const uint64_t ne = 8;
    const uint8_t bad[] = {0, 0, 0x80, 0x7f};
    struct bytes b = {0};
    size_t data;

    (void)state;
    b_start(&b, 3, 2, 0);
    b_tensor(&b, "first", 1, &ne, SL_TYPE_F32, 0);
    b_tensor(&b, "second", 1, &ne, SL_TYPE_F32, 32);
    b_pad(&b, 32);
    data = b.n;
    b_zeros(&b, 64);
    for (unsigned i = 0; i < 4; i++)
        memcpy(b.p + data + i * 16, bad, 4);
    refused(&b, "tensor first: block 0: a value is infinite or not a number");
    assert_int_equal(told, 2);
    free(b.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_must_be_finite),
        cmocka_unit_test(blocks_straddle_pieces),
        cmocka_unit_test(each_tensor_is_told_once),
    };
    int rc;

    snprintf(path, sizeof path, "/tmp/sluice-gguf-numbers-%ld", (long)getpid());
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
