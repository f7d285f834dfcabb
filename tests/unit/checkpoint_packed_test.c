/* Weights in 8-bit integers, packed as 4-bit ones, as MXFP4 or as NVFP4, several in one tensor, and text models inside others: what they become, and what is refused. */
#include "proto/checkpoint_priv.h"
#include "tests/unit/checkpoint_world.h"

#include <cjson/cJSON.h>

#define CONFIG "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\"," \
               "\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{%s}}%s}}}"
#define GOOD "\"num_bits\":4,\"type\":\"int\",\"strategy\":\"group\",\"group_size\":32,\"symmetric\":true,\"actorder\":null"

static void write_config(const char *dir, const char *weights, const char *more)
{
    char text[2000];

    snprintf(text, sizeof text, CONFIG, weights, more);
    maker_write(dir, "config.json", text);
}

/* The tensors of x; NULL: it is not there. sizes lie at the file's end. */
struct packed {
    const char *words, *words_dtype, *scale, *scale_dtype, *sizes_dtype, *extra;
    uint64_t words_bytes, scale_bytes;
    uint64_t sizes[2];
};

static const struct packed good = {"[6,8]", "I32", "[6,2]", "BF16", "I32", NULL, 6 * 8 * 4, 6 * 2 * 2, {6, 64}};

static void write_packed(const char *dir, const char *name, const struct packed *p)
{
    struct maker_file f = {.end = 0};
    size_t width = p->sizes_dtype && strcmp(p->sizes_dtype, "I64") == 0 ? 8 : 4;
    char path[4096];
    struct stat st;
    int fd;

    maker_tensor(&f, "x.weight_packed", p->words_dtype, p->words, p->words_bytes);
    if (p->scale)
        maker_tensor(&f, "x.weight_scale", p->scale_dtype, p->scale, p->scale_bytes);
    if (p->extra)
        maker_tensor(&f, p->extra, "U8", "[4]", 4);
    if (p->sizes_dtype)
        maker_tensor(&f, "x.weight_shape", p->sizes_dtype, "[2]", 2 * width);
    maker_finish(&f, dir, name, 0);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    for (size_t i = 0; i < 2 && p->sizes_dtype; i++)
        assert_int_equal(pwrite(fd, &p->sizes[i], width, st.st_size - (off_t)((2 - i) * width)), width);
    assert_int_equal(close(fd), 0);
}

/* Tensor 0 is 6 x 64 weights of four bits, tensor 1 their scales, one for 32. */
static void check_groups(const struct sl_checkpoint *ck, enum sl_dtype dtype)
{
    struct sl_scale s;
    struct sl_error e;

    assert_int_equal(ck->tensors[0].dtype, dtype);
    assert_int_equal(ck->tensors[0].shape[0], 6);
    assert_int_equal(ck->tensors[0].shape[1], 64);
    assert_int_equal(ck->tensors[0].elems, 6 * 64);
    assert_int_equal(ck->tensors[0].bytes, 6 * 32);
    assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
    assert_int_equal(s.tensor, 1);
    assert_int_equal(s.rows, 6);
    assert_int_equal(s.cols, 2);
    assert_int_equal(s.block_rows, 1);
    assert_int_equal(s.block_cols, 32);
    assert_int_equal(s.any_sign, dtype == SL_DTYPE_I4);
}

static void becomes_a_weight(void **state)
{
    static const char *const dtypes[] = {"I32", "I64"};
    struct packed p = good;

    write_config(*state, GOOD, "");
    for (int i = 0; i < 2; i++) {
        struct sl_checkpoint *ck;

        p.sizes_dtype = dtypes[i];
        write_packed(*state, "model.safetensors", &p);
        ck = open_ok(*state);
        assert_int_equal(ck->n_tensors, 3);
        assert_int_equal(ck->int_group, 32);
        assert_int_equal(sl_checkpoint_find(ck, "x.weight"), 0);
        assert_int_equal(sl_checkpoint_find(ck, "x.weight_packed"), SL_NO_TENSOR);
        assert_int_equal(sl_checkpoint_find(ck, "x.weight_scale"), 1);
        assert_string_equal(ck->tensors[0].name, "x.weight");
        check_groups(ck, SL_DTYPE_I4);
        assert_false(sl_checkpoint_is_scale(ck, 0));
        assert_true(sl_checkpoint_is_scale(ck, 1));
        assert_true(sl_checkpoint_is_scale(ck, 2));
        sl_checkpoint_close(ck);
    }
}

static void refuses_packed(void **state)
{
    static const struct { struct packed p; int code; const char *why; } bad[] = {
        {{"[6,8]", "U32", "[6,2]", "BF16", "I32", NULL, 192, 24, {6, 64}}, SL_ESOURCE,
         "'x.weight_packed' and 'x.weight_shape' are no matrix of 4-bit integers: expected I32 of two dimensions"},
        {{"[6,4,2]", "I32", "[6,2]", "BF16", "I32", NULL, 192, 24, {6, 64}}, SL_ESOURCE, "are no matrix"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "F32", NULL, 192, 24, {6, 64}}, SL_ESOURCE, "are no matrix"},
        {{"[6,8]", "I32", NULL, NULL, "I32", NULL, 192, 0, {6, 64}}, SL_ESOURCE,
         "packed tensor 'x.weight_packed' has no 'x.weight_scale'"},
        {{"[6,8]", "I32", "[6,2]", "BF16", NULL, NULL, 192, 24, {6, 64}}, SL_ESOURCE, "has no 'x.weight_shape'"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "I32", "x.weight_zero_point", 192, 24, {6, 64}}, SL_ESOURCE,
         "'x.weight_zero_point' is U8 of shape [4]: expected I32 of [1, 2]"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "I32", "x.weight_g_idx", 192, 24, {6, 64}}, SL_ESOURCE,
         "'x.weight_g_idx' is U8 of shape [4]: expected I32 of [64]"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "I32", "x.weight_global_scale", 192, 24, {6, 64}}, SL_EUNSUPPORTED,
         "'x.weight_packed' has a scale of the whole ('x.weight_global_scale'), which are not supported: give an FP8 or BF16 checkpoint"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "I32", "x.weight", 192, 24, {6, 64}}, SL_ESOURCE,
         "'x.weight_packed' is there, and 'x.weight' too; expected one"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "I32", "x.weight_scale_inv", 192, 24, {6, 64}}, SL_ESOURCE, "'x.weight' has two scales"},
        {{"[6,8]", "I32", "[6,3]", "BF16", "I32", NULL, 192, 36, {6, 64}}, SL_ESOURCE,
         "scale 'x.weight_scale' of shape [6, 3] does not fit 'x.weight' of shape [6, 64]: expected [6, n], 32 weights for each"},
        {{"[6,5]", "I32", "[6,2]", "BF16", "I32", NULL, 120, 24, {6, 40}}, SL_ESOURCE, "does not fit 'x.weight' of shape [6, 40]"},
        {{"[6,8]", "I32", "[12]", "BF16", "I32", NULL, 192, 24, {6, 64}}, SL_ESOURCE, "does not fit"},
        {{"[6,8]", "I32", "[6,2]", "U8", "I32", NULL, 192, 12, {6, 64}}, SL_ESOURCE,
         "scale 'x.weight_scale' of 'x.weight' is U8: expected F32, BF16 or F16"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "I32", NULL, 192, 24, {6, 63}}, SL_ESOURCE,
         "'x.weight_shape' says [6, 63], and 'x.weight_packed' holds [6, 64] weights; rows are to hold whole groups of 32"},
        {{"[6,8]", "I32", "[6,2]", "BF16", "I64", NULL, 192, 24, {64, 6}}, SL_ESOURCE, "says [64, 6]"},
    };

    write_config(*state, GOOD, "");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_packed(*state, "model.safetensors", &bad[i].p);
        refuse(*state, bad[i].code, bad[i].why);
    }
    write_packed(*state, "best-of-all-00001-of-00002.safetensors", &bad[3].p);
    refuse(in(*state, "best-of-all-00001-of-00002.safetensors"), SL_ESOURCE,
           "is one shard of a checkpoint, and 'x.weight_scale' is in another; give the folder");
    maker_write(*state, "config.json", plain_config);
    write_packed(*state, "model.safetensors", &good);
    refuse(*state, SL_ESOURCE, "'x.weight_packed' is packed, and config.json does not say how: expected a quantization_config with");
    maker_write(*state, "config.json", "{\"architectures\":[\"X\"],\"text_config\":{}}");
    refuse(*state, SL_EUNSUPPORTED, "config.json: architecture 'X' is not supported; supported");
}

/* A weight and its scale, of any names and dtypes; NULL: no scale. */
static void write_fp4(const char *dir, const char *const weight[3], const char *const scale[3], uint64_t bytes, uint64_t scale_bytes)
{
    struct maker_file f = {.end = 0};

    maker_tensor(&f, weight[0], weight[1], weight[2], bytes);
    if (scale[0])
        maker_tensor(&f, scale[0], scale[1], scale[2], scale_bytes);
    maker_finish(&f, dir, "model.safetensors", 0);
}

#define MX_GOOD "\"num_bits\":4,\"type\":\"float\",\"strategy\":\"group\",\"group_size\":32,\"symmetric\":true"

static void fp4_config(const char *dir, const char *format, const char *weights)
{
    char text[1000];

    snprintf(text, sizeof text, "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"%s-pack-quantized\","
             "\"config_groups\":{\"group_0\":{\"weights\":{%s}}}}}", format, weights);
    maker_write(dir, "config.json", text);
}

static void becomes_fp4(void **state)
{
    static const struct { const char *weight[3], *scale[3]; bool packed; } good_fp4[] = {
        {{"x.weight", "I8", "[6,32]"}, {"x.scale", "F8_E8M0", "[6,2]"}, false},
        {{"x.weight", "U8", "[6,32]"}, {"x.scale", "U8", "[6,2]"}, false},
        {{"x.weight", "I8", "[6,32]"}, {"x.weight_scale", "F8_E8M0", "[6,2]"}, false},
        {{"x.weight", "F4", "[6,64]"}, {"x.scale", "F8_E8M0", "[6,2]"}, false},
        {{"x.weight_packed", "U8", "[6,32]"}, {"x.weight_scale", "U8", "[6,2]"}, true},
        {{"x.weight_packed", "U8", "[6,32]"}, {"x.weight_scale", "F8_E8M0", "[6,2]"}, true},
    };
    struct sl_error e = {.code = 0};

    for (size_t i = 0; i < sizeof good_fp4 / sizeof *good_fp4; i++) {
        struct sl_checkpoint *ck;
        uint32_t at;

        if (good_fp4[i].packed)
            fp4_config(*state, "mxfp4", MX_GOOD);
        else
            maker_write(*state, "config.json", plain_config);
        write_fp4(*state, good_fp4[i].weight, good_fp4[i].scale, 6 * 32, 12);
        ck = open_ok(*state);
        at = sl_checkpoint_find(ck, "x.weight");
        assert_int_equal(at, 0);
        assert_int_equal(ck->mxfp4, good_fp4[i].packed);
        check_groups(ck, SL_DTYPE_F4);
        assert_true(sl_checkpoint_is_scale(ck, 1));
        assert_int_equal(ck->mxfp4, good_fp4[i].packed);
        assert_int_equal(sl_checkpoint_ignores(ck, "y.weight", &e), 0);
        sl_checkpoint_close(ck);
    }
    maker_write(*state, "config.json", plain_config); /* no MXFP4: such bytes stay what they are */
    write_fp4(*state, (const char *[]){"x.weight", "U8", "[6,32]"}, (const char *[]){"x.scale", "U8", "[6,3]"}, 192, 18);
    {
        struct sl_checkpoint *ck = open_ok(*state);

        assert_int_equal(ck->tensors[0].dtype, SL_DTYPE_U8);
        assert_false(sl_checkpoint_is_scale(ck, 1));
        sl_checkpoint_close(ck);
    }
}

static void refuses_fp4(void **state)
{
    static const struct { const char *weight[3], *scale[3]; uint64_t scale_bytes; int code; const char *why; bool packed; } bad[] = {
        {{"x.weight", "I8", "[6,32]"}, {"x.scale", "F8_E8M0", "[6,4]"}, 24, SL_ESOURCE,
         "scale 'x.scale' of shape [6, 4] does not fit 'x.weight' of shape [6, 64]: expected [6, n], 32 weights for each", false},
        {{"x.weight", "I8", "[12,16]"}, {"x.scale", "F8_E8M0", "[6,2]"}, 12, SL_ESOURCE, "does not fit 'x.weight' of shape [12, 32]", false},
        {{"x.weight", "I8", "[8,24]"}, {"x.scale", "F8_E8M0", "[8,2]"}, 16, SL_ESOURCE, "does not fit 'x.weight' of shape [8, 48]", false},
        {{"x.weight", "F4", "[6,64]"}, {NULL}, 0, SL_ESOURCE, "F4 tensor 'x.weight' has no scale: expected 'x.weight_scale'", false},
        {{"x.weight", "F4", "[6,64]"}, {"x.scale", "BF16", "[6,2]"}, 24, SL_ESOURCE,
         "scale 'x.scale' of 'x.weight' is BF16: expected F8_E8M0, U8 or F8_E4M3", false},
        {{"x.weight", "F4", "[2,3,64]"}, {"x.scale", "F8_E8M0", "[6,2]"}, 12, SL_EUNSUPPORTED, "F4 tensor 'x.weight' has 3 dimensions", false},
        {{"x.weight", "F4", "[384]"}, {"x.scale", "F8_E8M0", "[12]"}, 12, SL_ESOURCE, "does not fit 'x.weight' of shape [384]", false},
        {{"x.weight_packed", "U8", "[6,32]"}, {"x.weight_scale", "BF16", "[6,2]"}, 24, SL_ESOURCE, "is BF16: expected F8_E8M0, U8 or F8_E4M3", true},
        {{"x.weight_packed", "I32", "[6,8]"}, {"x.weight_scale", "U8", "[6,2]"}, 12, SL_ESOURCE,
         "'x.weight_packed' is no matrix of MXFP4, as config.json says: expected U8 of two dimensions", true},
        {{"x.weight_packed", "U8", "[6,32]"}, {NULL}, 0, SL_ESOURCE, "packed tensor 'x.weight_packed' has no 'x.weight_scale'", true},
        {{"x.weight_packed", "U8", "[6,32]"}, {"x.weight_global_scale", "F32", "[1]"}, 4, SL_EUNSUPPORTED,
         "has a scale of the whole ('x.weight_global_scale')", true},
    };
    static const char *const configs[][2] = {
        {"\"num_bits\":8", "num_bits 8 instead of 4"},
        {"\"num_bits\":4,\"type\":\"int\"", "a type that is not 'float'"},
        {"\"num_bits\":4,\"symmetric\":false", "zero points"},
        {"\"num_bits\":4,\"group_size\":16", "group_size 16 instead of 32, and only symmetric 4-bit floats in groups of 32 are supported"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (bad[i].packed)
            fp4_config(*state, "mxfp4", MX_GOOD);
        else
            maker_write(*state, "config.json", plain_config);
        write_fp4(*state, bad[i].weight, bad[i].scale, 192, bad[i].scale_bytes);
        refuse(*state, bad[i].code, bad[i].why);
    }
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        fp4_config(*state, "mxfp4", configs[i][0]);
        refuse(*state, SL_EUNSUPPORTED, configs[i][1]);
    }
}

#define NV_GOOD "\"num_bits\":4,\"type\":\"float\",\"strategy\":\"tensor_group\",\"group_size\":16,\"symmetric\":true"

/* 6 x 64 weights with their scales, and up to two more tensors of four bytes. */
static void write_nvfp4(const char *dir, bool packed, const char *const more[2][3])
{
    struct maker_file f = {.end = 0};

    maker_tensor(&f, packed ? "x.weight_packed" : "x.weight", "U8", "[6,32]", 192);
    maker_tensor(&f, "x.weight_scale", "F8_E4M3", "[6,4]", 24);
    for (int i = 0; i < 2; i++)
        if (more[i][0])
            maker_tensor(&f, more[i][0], more[i][1], more[i][2], 4);
    maker_finish(&f, dir, "model.safetensors", 0);
}

static void becomes_nvfp4(void **state)
{
    static const char *const names[2][2] = {{"x.weight_scale_2", "x.input_scale"}, {"x.weight_global_scale", "x.input_global_scale"}};

    for (int packed = 0; packed < 2; packed++)
        for (int input = 0; input < 2; input++) {
            const char *more[2][3] = {{names[packed][0], "F32", "[1]"}, {input ? names[packed][1] : NULL, "F32", "[]"}};
            struct sl_checkpoint *ck;
            struct sl_own_scale own;
            struct sl_scale s;
            struct sl_error e;

            if (packed)
                fp4_config(*state, "nvfp4", NV_GOOD);
            else
                maker_write(*state, "config.json", plain_config);
            write_nvfp4(*state, packed, more);
            ck = open_ok(*state);
            assert_int_equal(ck->tensors[0].dtype, SL_DTYPE_F4);
            assert_int_equal(ck->tensors[0].shape[1], 64);
            assert_true(ck->nvfp4);
            assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
            assert_true(s.tensor == 1 && s.cols == 4 && s.block_rows == 1 && s.block_cols == 16 && s.no_sign && !s.any_sign);
            assert_int_equal(sl_checkpoint_own_scale(ck, 0, &own, &e), 0);
            assert_int_equal(own.weight, 2);
            assert_int_equal(own.input, input ? 3 : SL_NO_TENSOR);
            assert_int_equal(own.reciprocal, packed);
            assert_int_equal(sl_checkpoint_own_scale(ck, 1, &own, &e), 0);
            assert_int_equal(own.weight, SL_NO_TENSOR);
            for (uint32_t i = 1; i < ck->n_tensors; i++)
                assert_true(sl_checkpoint_is_scale(ck, i));
            sl_checkpoint_close(ck);
        }
}

static void refuses_nvfp4(void **state)
{
    static const struct { const char *more[2][3]; int code; const char *why; bool packed; } bad[] = {
        {{{NULL}, {NULL}}, SL_ESOURCE, "NVFP4 tensor 'x.weight' has no scale of the whole: expected 'x.weight_scale_2' or", false},
        {{{NULL}, {NULL}}, SL_ESOURCE, "has no scale of the whole: expected 'x.weight_scale_2' or 'x.weight_global_scale'", true},
        {{{"x.weight_scale_2", "F32", "[1]"}, {"x.weight_global_scale", "F32", "[1]"}}, SL_ESOURCE,
         "'x.weight' has two scales of the whole, 'x.weight_scale_2' and 'x.weight_global_scale'; expected one", false},
        {{{"x.weight_scale_2", "BF16", "[2]"}, {NULL}}, SL_ESOURCE,
         "scale 'x.weight_scale_2' is BF16 of shape [2]: expected one number in F32", false},
        {{{"x.weight_scale_2", "F32", "[1]"}, {"x.input_scale", "BF16", "[2]"}}, SL_ESOURCE, "scale 'x.input_scale' is BF16", false},
        {{{"x.weight_scale_2", "F32", "[1]"}, {"y.weight_scale_2", "F32", "[1]"}}, SL_ESOURCE,
         "scale 'y.weight_scale_2' belongs to no tensor: expected 'y.weight' in the checkpoint", false},
        {{{"x.weight_scale_2", "F32", "[1]"}, {"x.weight_scale_scale", "F32", "[1]"}}, SL_EUNSUPPORTED,
         "scale 'x.weight_scale_scale' belongs to 'x.weight_scale', which is a scale itself", false},
    };
    char whole[4096];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (bad[i].packed)
            fp4_config(*state, "nvfp4", NV_GOOD);
        else
            maker_write(*state, "config.json", plain_config);
        write_nvfp4(*state, bad[i].packed, bad[i].more);
        refuse(*state, bad[i].code, bad[i].why);
    }
    fp4_config(*state, "nvfp4", "\"num_bits\":4,\"group_size\":32");
    refuse(*state, SL_EUNSUPPORTED, "group_size 32 instead of 16, and only symmetric 4-bit floats in groups of 16 are supported");
    maker_write(*state, "config.json", plain_config);
    write_fp4(*state, (const char *[]){"x.weight", "U8", "[6,32]"}, (const char *[]){"x.weight_scale", "F8_E4M3", "[6,2]"}, 192, 12);
    refuse(*state, SL_ESOURCE, "does not fit 'x.weight' of shape [6, 64]: expected [6, n], 16 weights for each");
    write_fp4(*state, (const char *[]){"x", "F4", "[6,64]"}, (const char *[]){"x_scale", "F8_E4M3", "[6,4]"}, 192, 24);
    refuse(*state, SL_ESOURCE, "NVFP4 tensor 'x' has no scale of the whole: expected 'x.weight_scale_2'");
    write_fp4(*state, (const char *[]){"x", "U8", "[2,6,32]"}, (const char *[]){"x_scale", "F8_E4M3", "[2,6,4]"}, 384, 48);
    refuse(*state, SL_EUNSUPPORTED, "scale 'x_scale' belongs to 'x', which is U8 of shape [2, 6, 32]: only matrices in FP8, INT8, MXFP4, NVFP4 and packed integers");
    write_fp4(*state, (const char *[]){"x.weight", "U8", "[6,32]"}, (const char *[]){"x.weight_scale_2", "F32", "[1]"}, 192, 4);
    refuse(*state, SL_ESOURCE, "NVFP4 tensor 'x.weight' has no scale: expected 'x.weight_scale'");
    snprintf(whole, sizeof whole, "%s/model.safetensors", (const char *)*state);
    assert_int_equal(link(whole, in(*state, "best-of-all-00001-of-00002.safetensors")), 0);
    refuse(in(*state, "best-of-all-00001-of-00002.safetensors"), SL_ESOURCE, "is one shard of a checkpoint, and the scale of 'x.weight' is in another; give the folder");
    unlink(in(*state, "best-of-all-00001-of-00002.safetensors"));
    write_fp4(*state, (const char *[]){"x.weight", "BF16", "[6,32]"}, (const char *[]){"x.weight_scale_2", "F32", "[1]"}, 384, 4);
    refuse(*state, SL_EUNSUPPORTED, "scale 'x.weight_scale_2' belongs to 'x.weight', which is BF16: only NVFP4 has one of a whole tensor");
}

/* A weight of I8 and its scale, as SGLang names them and as compressed-tensors does. */
static void becomes_int8(void **state)
{
    static const struct { const char *config, *scale[3]; uint64_t bytes, rows, block_rows; bool told; } forms[] = {
        {"{\"quantization_config\":{\"quant_method\":\"blockwise_int8\",\"weight_block_size\":[4,64]}}",
         {"x.weight_scale_inv", "F32", "[2,1]"}, 8, 2, 4, true},
        {"{\"quantization_config\":{\"quant_method\":\"w8a8_int8\"}}", {"x.weight_scale", "F32", "[6,1]"}, 24, 6, 1, true},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\"}}",
         {"x.weight_scale", "BF16", "[6,1]"}, 12, 6, 1, true},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"naive-quantized\",\"config_groups\":{\"a\":{\"weights\":"
         "{\"type\":\"int\",\"symmetric\":true}}}}}", {"x.weight_scale", "F16", "[1]"}, 2, 1, 6, true},
        {plain_config, {"x.weight_scale", "BF16", "[6]"}, 12, 6, 1, false},
    };
    struct sl_checkpoint *ck;
    struct sl_scale s;
    struct sl_error e;

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        maker_write(*state, "config.json", forms[i].config);
        write_fp4(*state, (const char *[]){"x.weight", "I8", "[6,64]"}, forms[i].scale, 6 * 64, forms[i].bytes);
        ck = open_ok(*state);
        assert_int_equal(ck->tensors[0].dtype, SL_DTYPE_INT8);
        assert_int_equal(ck->tensors[0].elems, 6 * 64);
        assert_int_equal(ck->int8, forms[i].told);
        assert_true(sl_checkpoint_is_scale(ck, 1));
        assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
        assert_true(s.tensor == 1 && s.rows == forms[i].rows && s.cols == 1 && s.block_rows == forms[i].block_rows && s.block_cols == 64 && s.any_sign);
        sl_checkpoint_close(ck);
    }
    write_fp4(*state, (const char *[]){"x.weight", "I8", "[6,64]"}, (const char *[3]){NULL}, 6 * 64, 0);
    ck = open_ok(*state); /* of a model it is no weight */
    assert_int_equal(ck->tensors[0].dtype, SL_DTYPE_I8);
    sl_checkpoint_close(ck);
}

static void refuses_int8(void **state)
{
    static const struct { const char *weight[3], *other[3]; uint64_t bytes; int code; const char *why; } bad[] = {
        {{"x.weight", "I8", "[6,64]"}, {"x.weight_scale", "F32", "[6,2]"}, 48, SL_ESOURCE,
         "scale 'x.weight_scale' of shape [6, 2] does not fit 'x.weight' of shape [6, 64]: expected [1] or [6, 1]"},
        {{"x.weight", "I8", "[6,64]"}, {"x.weight_scale", "F64", "[6]"}, 48, SL_EUNSUPPORTED, "belongs to 'x.weight', which is I8 of shape [6, 64]"},
        {{"x.weight", "U8", "[6,64]"}, {"x.weight_scale", "F32", "[6]"}, 24, SL_EUNSUPPORTED, "belongs to 'x.weight', which is U8 of shape [6, 64]"},
        {{"x.weight", "I8", "[1,2,3,64]"}, {"x.weight_scale", "F32", "[2]"}, 8, SL_EUNSUPPORTED, "INT8 tensor 'x.weight' has 4 dimensions"},
    };
    struct maker_file f = {.end = 0};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_fp4(*state, bad[i].weight, bad[i].other, 6 * 64, bad[i].bytes);
        refuse(*state, bad[i].code, bad[i].why);
    }
    maker_tensor(&f, "x.weight", "I8", "[6,64]", 6 * 64);
    maker_tensor(&f, "x.weight_scale", "BF16", "[6,1]", 12);
    maker_tensor(&f, "x.weight_zero_point", "I8", "[6,1]", 6);
    maker_finish(&f, *state, "model.safetensors", 0);
    refuse(*state, SL_EUNSUPPORTED, "INT8 tensor 'x.weight' has zero points ('x.weight_zero_point'), which are not supported: give an FP8");
    maker_write(*state, "config.json", "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\","
                "\"config_groups\":{\"a\":{\"weights\":{\"symmetric\":false}}}}}");
    refuse(*state, SL_EUNSUPPORTED, "config.json: the weights are 8-bit integers with zero points ('symmetric' is not true), which are not");
}

/* Three matrices of FP8, 64 x 100, in one tensor. */
static void stacks(void **state)
{
    static const char blocks[] = "{\"quantization_config\":{\"weight_block_size\":[32,64]}}";
    static const struct { const char *config, *shape; uint64_t n, rows, cols, br, bc; const char *why; } forms[] = {
        {blocks, "[3,2,2]", 12, 6, 2, 32, 64, NULL},
        {plain_config, "[3,64,1]", 192, 192, 1, 1, 100, NULL},
        {plain_config, "[3,64]", 192, 192, 1, 1, 100, NULL},
        {plain_config, "[3,1,1]", 3, 3, 1, 64, 100, NULL},
        {plain_config, "[3]", 3, 3, 1, 64, 100, NULL},
        {plain_config, "[]", 1, 1, 1, 192, 100, NULL},
        {blocks, "[6,2]", 12, 0, 0, 0, 0, "scale 'x_scale_inv' of shape [6, 2] does not fit 'x' of shape [3, 64, 100]: expected [3, 2, 2]"},
        {blocks, "[1]", 1, 0, 0, 0, 0, "expected [3, 2, 2]"},
        {blocks, "[3]", 3, 0, 0, 0, 0, "expected [3, 2, 2]"},
        {blocks, "[2,3,2]", 12, 0, 0, 0, 0, "expected [3, 2, 2]"},
        {plain_config, "[192]", 192, 0, 0, 0, 0, "expected [1], [3] or [3, 64, 1]"},
        {"{\"quantization_config\":{\"weight_block_size\":[48,64]}}", "[3,2,2]", 12, 0, 0, 0, 0, "expected matrices of whole blocks, whose 48 rows divide 64"},
    };
    struct maker_file f = {.end = 0};
    struct sl_checkpoint *ck;
    struct sl_scale s;
    struct sl_error e;

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        maker_write(*state, "config.json", forms[i].config);
        maker_tensor(&f, "x", "F8_E4M3", "[3,64,100]", 19200);
        maker_tensor(&f, "x_scale_inv", "F32", forms[i].shape, 4 * forms[i].n);
        maker_finish(&f, *state, "model.safetensors", 0);
        if (forms[i].why) {
            refuse(*state, SL_ESOURCE, forms[i].why);
            continue;
        }
        ck = open_ok(*state);
        assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
        assert_true(s.tensor == 1 && s.rows == forms[i].rows && s.cols == forms[i].cols && s.block_rows == forms[i].br && s.block_cols == forms[i].bc);
        sl_checkpoint_close(ck);
    }
    maker_tensor(&f, "x", "F8_E4M3", "[0,64,100]", 0);
    maker_tensor(&f, "x_scale_inv", "F32", "[0,2,2]", 0);
    maker_finish(&f, *state, "model.safetensors", 0);
    refuse(*state, SL_ESOURCE, "does not fit 'x'");
}

static void refuses_configs(void **state)
{
    static const struct { const char *weights, *more, *why; } bad[] = {
        {"\"num_bits\":3", "", "num_bits 3 instead of 4 or 8, and only integers of 4 or 8 bits in groups of a row, or rows are supported"},
        {"\"type\":\"int\"", "", "num_bits 0 instead of 4 or 8"},
        {"\"num_bits\":4,\"type\":\"float\"", "", "a type that is not 'int'"},
        {"\"num_bits\":4,\"strategy\":\"tensor\"", "", "a strategy that is not 'group' or 'channel'"},
        {"\"num_bits\":4,\"strategy\":\"group\",\"group_size\":-1", "", "a group_size that is no number of weights"},
        {"\"num_bits\":4,\"strategy\":\"group\",\"group_size\":2097152", "", "a group_size above 1048576, "},
        {"\"num_bits\":4,\"strategy\":\"group\",\"group_size\":20", "", "a group_size that is no multiple of 8"},
        {GOOD, ",\"group_1\":{}", "2 config_groups instead of one"},
    };
    char why[300];

    write_packed(*state, "model.safetensors", &good);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_config(*state, bad[i].weights, bad[i].more);
        snprintf(why, sizeof why, "config.json: the weights are packed with %s", bad[i].why);
        refuse(*state, SL_EUNSUPPORTED, why);
    }
    write_config(*state, "\"num_bits\":8", "}},\"architectures\":[\"X\"],\"more\":{\"a\":{");
    snprintf(why, sizeof why, "%s: config.json: architecture 'X' is not supported; supported", (char *)*state);
    refuse(*state, SL_EUNSUPPORTED, why);
    write_config(*state, "\"num_bits\":4,\"strategy\":\"group\",\"group_size\":32,\"actorder\":\"weight\"", "");
    sl_checkpoint_close(open_ok(*state));
}

#define SEES "\"architectures\":[\"KimiK25ForConditionalGeneration\"],\"model_type\":\"kimi_k25\",\"hidden_size\":1"

/* What ships as it was, by config.json alone: as the library reads "ignore". */
static void plans_by_config(void **state)
{
    static const struct { const char *name; bool ignored; } layers[] = {
        {"model.layers.1.mlp.experts.7.down_proj.weight", false},
        {"model.layers.1.mlp.shared_experts.down_proj.weight", true},
        {"model.layers.0.mlp.gate_proj.weight", true},
        {"model.layers.0.mlp.gate_up_proj.weight", true},
        {"model.layers.0.self_attn.o_proj.weight", true},
        {"lm_head.weight", true},
        {"not_the_lm_head.weight", false},
        {"head.model.weight", false}, /* an expression is for the beginning */
        {"model.layers.61.eh_proj.weight", true},
    };
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;

    write_config(*state, GOOD, "},\"ignore\":[\"lm_head\",\"model.layers.61*\",\"re:.*self_attn.*\",\"re:.*shared_experts.*\",7,\"re:model$\",\"re:(\","
                               "\"re:.*mlp\\\\.(gate|up|gate_up|down)_proj.*\"],\"x\":{");
    assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        assert_int_equal(sl_checkpoint_ignores(ck, layers[i].name, &e), layers[i].ignored);
    sl_checkpoint_close(ck);
    maker_write(*state, "config.json", plain_config);
    assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
    assert_int_equal(sl_checkpoint_ignores(ck, layers[0].name, &e), 0);
    sl_checkpoint_close(ck);
}

/* A text model's layers are named there as the whole model has them. */
static void plans_by_whole_names(void **state)
{
    static const struct { const char *name; bool ignored; } layers[] = {
        {"model.layers.0.mlp.gate_proj.weight", true},
        {"model.layers.1.mlp.gate_proj.weight", true},
        {"model.layers.2.mlp.gate_proj.weight", true},
        {"model.layers.3.mlp.gate_proj.weight", true},
        {"model.layers.4.mlp.gate_proj.weight", false},
        {"model.layers.5.mlp.experts.gate_up_proj", true},
        {"lm_head.weight", true},
    };
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;

    maker_write(*state, "config.json", "{" SEES ",\"text_config\":{},\"quantization_config\":{\"ignore\":["
                "\"model.language_model.layers.0.mlp*\",\"language_model.model.layers.1.mlp.gate_proj\",\"model.layers.2.mlp*\","
                "\"re:model\\\\.language_model\\\\.layers\\\\.3\\\\.\",\"model.language_model.layers.5.mlp.experts*\","
                "\"language_model.lm_head\"]}}");
    assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        assert_int_equal(sl_checkpoint_ignores(ck, layers[i].name, &e), layers[i].ignored);
    sl_checkpoint_close(ck);
}

static void takes_the_text_model(void **state)
{
    struct maker_file f = {.end = 0};
    struct sl_checkpoint *ck;
    const cJSON *c;

    maker_write(*state, "config.json", "{" SEES ",\"text_config\":{\"architectures\":[\"X\"],\"model_type\":\"deepseek_v3\",\"hidden_size\":2,"
                "\"quantization_config\":{\"weight_block_size\":[4,4]}},\"vision_config\":{}}");
    maker_tensor(&f, "language_model.lm_head.weight", "BF16", "[2]", 4);
    maker_tensor(&f, "language_model.", "BF16", "[2]", 4);
    maker_tensor(&f, "vision_tower.language_model.x", "BF16", "[2]", 4);
    maker_finish(&f, *state, "model.safetensors", 0);
    ck = open_ok(*state);
    assert_int_equal(sl_checkpoint_find(ck, "lm_head.weight"), 0);
    assert_int_equal(sl_checkpoint_find(ck, "language_model.lm_head.weight"), SL_NO_TENSOR);
    assert_int_equal(sl_checkpoint_find(ck, "language_model."), 1);
    assert_int_equal(sl_checkpoint_find(ck, "vision_tower.language_model.x"), 2);
    assert_int_equal(ck->fp8_block_rows, 4);
    c = sl_checkpoint_config(ck);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(c, "architectures")->child->valuestring, "X");
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(c, "model_type")->valuestring, "kimi_k25");
    assert_int_equal(cJSON_GetObjectItemCaseSensitive(c, "hidden_size")->valueint, 2);
    assert_non_null(cJSON_GetObjectItemCaseSensitive(c, "vision_config"));
    assert_int_equal(cJSON_GetObjectItemCaseSensitive(ck->config, "hidden_size")->valueint, 1);
    sl_checkpoint_close(ck);

    maker_tensor(&f, "language_model.a", "BF16", "[2]", 4);
    maker_tensor(&f, "a", "BF16", "[2]", 4);
    maker_finish(&f, *state, "model.safetensors", 0);
    refuse(*state, SL_ESOURCE, "tensor 'a' is there under two names");
    maker_write(*state, "config.json", "{" SEES ",\"text_config\":[]}");
    refuse(*state, SL_ESOURCE, "config.json: no \"text_config\", where KimiK25ForConditionalGeneration has its text model");
    maker_write(*state, "config.json", plain_config); /* another model's names are its own */
    ck = open_ok(*state);
    assert_int_equal(sl_checkpoint_find(ck, "language_model.a"), 0);
    sl_checkpoint_close(ck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(becomes_a_weight), TEST(refuses_packed), TEST(becomes_fp4), TEST(refuses_fp4),
                                       TEST(becomes_nvfp4), TEST(refuses_nvfp4), TEST(becomes_int8), TEST(refuses_int8), TEST(stacks), TEST(refuses_configs), TEST(plans_by_config),
                                       TEST(plans_by_whole_names),
                                       TEST(takes_the_text_model)};

    return cmocka_run_group_tests_name("packed", tests, NULL, NULL);
}
