/* Weights as programs for GPTQ and AWQ pack them: what they become, and what is refused, in headers of any shapes. */
#include "tests/unit/checkpoint_world.h"

#define CONFIG "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":%u,\"group_size\":32%s}}"

static void write_config(const char *dir, unsigned bits, const char *more)
{
    char text[500];

    snprintf(text, sizeof text, CONFIG, bits, more);
    maker_write(dir, "config.json", text);
}

/* dtype and shape of x.qweight, x.scales, x.qzeros and x.g_idx; NULL: not there. */
struct parts {
    const char *is[4][2];
    const char *extra; /* a tensor of this name */
};

static uint64_t bytes_of(const char *dtype, const char *shape)
{
    uint64_t n = 1;

    for (const char *p = shape; *p; p++)
        if (*p == '[' || *p == ',')
            n *= p[1] == ']' ? 1 : strtoull(p + 1, NULL, 10);
    return n * (strstr(dtype, "16") ? 2 : strstr(dtype, "64") ? 8 : strstr(dtype, "8") ? 1 : 4);
}

static void write_parts(const char *dir, const char *file, const struct parts *p)
{
    static const char *const names[] = {"x.qweight", "x.scales", "x.qzeros", "x.g_idx"};
    struct maker_file f = {.end = 0};

    for (int i = 0; i < 4; i++)
        if (p->is[i][0])
            maker_tensor(&f, names[i], p->is[i][0], p->is[i][1], bytes_of(p->is[i][0], p->is[i][1]));
    if (p->extra)
        maker_tensor(&f, p->extra, "I32", "[1,1]", 4);
    maker_finish(&f, dir, file, 0);
}

#define QWEIGHT {"I32", "[8,24]"} /* 64 columns of 4 bits, 24 rows */
#define SCALES {"F16", "[2,24]"}
#define QZEROS {"I32", "[2,3]"}
#define ORDER {"I32", "[64]"}

static const struct parts good = {{QWEIGHT, SCALES, QZEROS, ORDER}, NULL};

static void becomes_a_weight(void **state)
{
    static const struct { const char *more; unsigned plus; } forms[] = {
        {"", 1}, {",\"checkpoint_format\":\"gptq\"", 1}, {",\"checkpoint_format\":null,\"pack_dtype\":\"int32\"", 1},
        {",\"checkpoint_format\":\"gptq_v2\"", 0}, {",\"group_size\":-1", 1},
    };

    write_parts(*state, "model.safetensors", &good);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct sl_checkpoint *ck;
        struct sl_scale s;
        struct sl_error e;

        write_config(*state, 4, forms[i].more);
        ck = open_ok(*state);
        assert_int_equal(sl_checkpoint_find(ck, "x.weight"), 0);
        assert_int_equal(sl_checkpoint_find(ck, "x.qweight"), SL_NO_TENSOR);
        assert_true(ck->tensors[0].dtype == SL_DTYPE_I4 && ck->tensors[0].elems == 24 * 64 && ck->tensors[0].bytes == 24 * 32);
        assert_true(ck->tensors[0].shape[0] == 24 && ck->tensors[0].shape[1] == 64);
        assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
        assert_true(s.tensor == 1 && s.zeros == 3 && s.order == 4 && s.packing == SL_PACKED_GPTQ && s.zero_plus == forms[i].plus);
        assert_true(s.rows == 24 && s.cols == 2 && s.block_rows == 1 && s.block_cols == 32 && s.any_sign);
        for (uint32_t t = 1; t < 4; t++)
            assert_true(sl_checkpoint_is_scale(ck, t));
        sl_checkpoint_close(ck);
    }
    write_config(*state, 8, "");
    write_parts(*state, "model.safetensors", &(struct parts){{{"I32", "[16,24]"}, {"BF16", "[2,24]"}, {"I32", "[2,6]"}, ORDER}, NULL});
    {
        struct sl_checkpoint *ck = open_ok(*state);

        assert_true(ck->tensors[0].dtype == SL_DTYPE_UINT8 && ck->tensors[0].shape[0] == 24 && ck->tensors[0].shape[1] == 64);
        sl_checkpoint_close(ck);
    }
}

static void refuses(void **state)
{
    static const struct { struct parts p; int code; const char *why; } bad[] = {
        {{{QWEIGHT, {NULL}, QZEROS, ORDER}, NULL}, SL_ESOURCE, "packed tensor 'x.qweight' has no 'x.scales'; is the download complete?"},
        {{{QWEIGHT, SCALES, {NULL}, ORDER}, NULL}, SL_ESOURCE, "has no 'x.qzeros'"},
        {{{QWEIGHT, SCALES, QZEROS, {NULL}}, NULL}, SL_ESOURCE, "has no 'x.g_idx'"},
        {{{QWEIGHT, SCALES, QZEROS, ORDER}, "x.weight"}, SL_ESOURCE, "'x.qweight' is there, and 'x.weight' too; expected one"},
        {{{QWEIGHT, SCALES, QZEROS, ORDER}, "x.weight_packed"}, SL_ESOURCE, "'x.weight_packed' is packed, and config.json does not say how"},
        {{{QWEIGHT, SCALES, QZEROS, ORDER}, "x.weight_scale"}, SL_ESOURCE, "'x.weight' has two scales"},
        {{{{"I64", "[8,24]"}, SCALES, QZEROS, ORDER}, NULL}, SL_ESOURCE, "'x.qweight' is no matrix of GPTQ's 4-bit integers: expected I32 of two dimensions"},
        {{{{"I32", "[192]"}, SCALES, QZEROS, ORDER}, NULL}, SL_ESOURCE, "is no matrix"},
        {{{{"I32", "[2,4,24]"}, SCALES, QZEROS, ORDER}, NULL}, SL_ESOURCE, "is no matrix"},
        {{{{"I32", "[8,20]"}, {"F16", "[2,20]"}, QZEROS, ORDER}, NULL}, SL_ESOURCE, "of which 8 divides the second"},
        {{{{"I32", "[0,24]"}, SCALES, QZEROS, ORDER}, NULL}, SL_EUNSUPPORTED, "'x.g_idx' has 64 entries, and 'x.qweight' 0 columns of 4 bits"},
        {{{{"I32", "[4,24]"}, SCALES, QZEROS, ORDER}, NULL}, SL_EUNSUPPORTED, "'x.qweight' 32 columns of 4 bits, as config.json says: layers of other bits"},
        {{{QWEIGHT, {"F16", "[0,24]"}, QZEROS, ORDER}, NULL}, SL_ESOURCE, "scale 'x.scales' of shape [0, 24] does not fit 'x.weight' of shape [24, 64]: expected [n, 24]"},
        {{{QWEIGHT, {"F16", "[24,2]"}, QZEROS, ORDER}, NULL}, SL_ESOURCE, "does not fit"},
        {{{QWEIGHT, {"F16", "[48]"}, QZEROS, ORDER}, NULL}, SL_ESOURCE, "does not fit"},
        {{{QWEIGHT, {"I32", "[2,24]"}, QZEROS, ORDER}, NULL}, SL_ESOURCE, "scale 'x.scales' of 'x.weight' is I32: expected F32, BF16 or F16"},
        {{{QWEIGHT, SCALES, {"I32", "[3,2]"}, ORDER}, NULL}, SL_ESOURCE, "'x.qzeros' is I32 of shape [3, 2]: expected I32 of [2, 3]"},
        {{{QWEIGHT, SCALES, {"I64", "[2,3]"}, ORDER}, NULL}, SL_ESOURCE, "'x.qzeros' is I64"},
        {{{QWEIGHT, SCALES, QZEROS, {"I64", "[64]"}}, NULL}, SL_ESOURCE, "'x.g_idx' is I64 of shape [64]: expected I32 of [64]"},
        {{{QWEIGHT, SCALES, QZEROS, {"I32", "[8,8]"}}, NULL}, SL_ESOURCE, "'x.g_idx' is I32 of shape [8, 8]: expected I32 of [64]"},
        {{{QWEIGHT, SCALES, QZEROS, {"I32", "[]"}}, NULL}, SL_ESOURCE, "'x.g_idx' is I32 of shape []"},
    };

    write_config(*state, 4, "");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_parts(*state, "model.safetensors", &bad[i].p);
        refuse(*state, bad[i].code, bad[i].why);
    }
    write_parts(*state, "best-of-all-00001-of-00002.safetensors", &bad[0].p);
    refuse(in(*state, "best-of-all-00001-of-00002.safetensors"), SL_ESOURCE,
           "is one shard of a checkpoint, and 'x.scales' is in another; give the folder");
    unlink(in(*state, "best-of-all-00001-of-00002.safetensors"));
    maker_write(*state, "config.json", plain_config);
    write_parts(*state, "model.safetensors", &good);
    refuse(*state, SL_ESOURCE, "'x.qweight' is packed, and config.json does not say how: expected a quantization_config with quant_method 'gptq' or 'awq'");
    maker_write(*state, "quantize_config.json", "{\"bits\":4}");
    refuse(*state, SL_ESOURCE, "config.json does not say how, but quantize_config.json does: give config.json its entries as quantization_config, with quant_method 'gptq'");
    unlink(in(*state, "quantize_config.json"));
    write_config(*state, 3, "");
    refuse(*state, SL_EUNSUPPORTED, "config.json: the weights are packed by quant_method 'gptq' with bits 3 instead of 2, 4 or 8, which is not supported");
}

/* By config.json alone. */
static void leaves_out(void **state)
{
    static const struct { const char *more, *name; bool left; } layers[] = {
        {"", "lm_head.weight", true}, {",\"lm_head\":true", "lm_head.weight", false}, {"", "model.layers.0.mlp.up_proj.weight", false},
        {",\"dynamic\":{\"-:.*mlp\\\\.up.*\":{}}", "model.layers.0.mlp.up_proj.weight", true},
        {",\"dynamic\":{\"+:.*mlp\\\\.up.*\":{},\".*up.*\":{}}", "model.layers.0.mlp.up_proj.weight", false},
        {",\"dynamic\":{\"-:(\":{},\"-:model\\\\.layers\\\\.0\\\\.\":{}}", "model.layers.0.mlp.up_proj.weight", true},
        {",\"dynamic\":[\"-:.*\"]", "model.layers.0.mlp.up_proj.weight", false},
    };
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;

    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        write_config(*state, 4, layers[i].more);
        assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
        assert_int_equal(sl_checkpoint_ignores(ck, layers[i].name, &e), layers[i].left);
        sl_checkpoint_close(ck);
    }
}

#define AWQ "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":%u,\"group_size\":32,\"version\":\"GEMM\"%s}}"

static void awq_config(const char *dir, unsigned bits, const char *more)
{
    char text[500];

    snprintf(text, sizeof text, AWQ, bits, more);
    maker_write(dir, "config.json", text);
}

static void takes_awq(void **state)
{
    static const struct { struct parts p; int code; const char *why; } bad[] = {
        {{{{"I32", "[64,3]"}, {NULL}, QZEROS, {NULL}}, NULL}, SL_ESOURCE, "packed tensor 'x.qweight' has no 'x.scales'"},
        {{{{"I32", "[64,3]"}, SCALES, {NULL}, {NULL}}, NULL}, SL_ESOURCE, "has no 'x.qzeros'"},
        {{{{"I32", "[192]"}, SCALES, QZEROS, {NULL}}, NULL}, SL_ESOURCE, "'x.qweight' is no matrix of AWQ's 4-bit integers: expected I32 of two dimensions"},
        {{{{"I32", "[64,3]"}, {"F16", "[5,24]"}, QZEROS, {NULL}}, NULL}, SL_ESOURCE, "expected [n, 24], whole groups of columns"},
        {{{{"I32", "[64,3]"}, SCALES, {"I32", "[2,4]"}, {NULL}}, NULL}, SL_ESOURCE, "'x.qzeros' is I32 of shape [2, 4]: expected I32 of [2, 3]"},
    };
    static const struct { const char *more, *name; bool left; } layers[] = {
        {"", "lm_head.weight", true}, {"", "model.layers.0.mlp.gate_proj.weight", false},
        {",\"modules_to_not_convert\":[\"mlp.gate\"]", "model.layers.0.mlp.gate_proj.weight", true},
        {",\"modules_to_not_convert\":[\"\"]", "model.layers.0.mlp.gate_proj.weight", false},
    };
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;
    struct sl_scale s;

    awq_config(*state, 4, "");
    write_parts(*state, "model.safetensors", &(struct parts){{{"I32", "[64,3]"}, SCALES, QZEROS, {NULL}}, NULL});
    ck = open_ok(*state);
    assert_true(ck->tensors[0].dtype == SL_DTYPE_I4 && ck->tensors[0].shape[0] == 24 && ck->tensors[0].shape[1] == 64);
    assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
    assert_true(s.tensor == 1 && s.zeros == 3 && !s.order && s.packing == SL_PACKED_AWQ && !s.zero_plus && s.cols == 2 && s.block_cols == 32);
    sl_checkpoint_close(ck);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_parts(*state, "model.safetensors", &bad[i].p);
        refuse(*state, bad[i].code, bad[i].why);
    }
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        awq_config(*state, 4, layers[i].more);
        assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
        assert_int_equal(sl_checkpoint_ignores(ck, layers[i].name, &e), layers[i].left);
        sl_checkpoint_close(ck);
    }
    awq_config(*state, 8, "");
    refuse(*state, SL_EUNSUPPORTED, "config.json: the weights are packed by quant_method 'awq' with bits 8 instead of 4, which is not supported");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(becomes_a_weight), TEST(refuses), TEST(leaves_out), TEST(takes_awq)};

    return cmocka_run_group_tests_name("gptq", tests, NULL, NULL);
}
