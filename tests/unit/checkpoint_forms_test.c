/* What quantization_config means by blocks, as compressed-tensors, ModelOpt and others write it; names of some writers; and
 * what is refused. */
#include "tests/unit/checkpoint_world.h"

#define CT(format, weights, more) "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"" format "\"," \
                                  "\"config_groups\":{\"group_0\":{\"weights\":{" weights "}}}" more "}}"
#define TWO(a, b) "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"naive-quantized\"," \
                  "\"config_groups\":{\"group_0\":{\"weights\":{\"block_structure\":" a "}},\"group_1\":{\"weights\":{\"block_structure\":" b "}}}}}"
#define FIVE(x) "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":" x "}}}}}"
#define NESTED FIVE(FIVE(FIVE(FIVE(FIVE(FIVE(FIVE(FIVE(FIVE(FIVE("1"))))))))))
#define MO(algo) "{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"" algo "\"}}"
#define GROUP(n) "\"strategy\":\"group\",\"group_size\":" n

static void write_two(const char *dir, const char *weight, const char *dtype, const char *scale_dtype, const char *shape, uint64_t bytes)
{
    struct maker_file f = {.end = 0};
    char scale[100];

    snprintf(scale, sizeof scale, "%s_scale", weight);
    maker_tensor(&f, weight, dtype, "[256,256]", 256 * 256);
    maker_tensor(&f, scale, scale_dtype, shape, bytes);
    maker_finish(&f, dir, "model.safetensors", 0);
}

static void blocks(void **state)
{
    static const struct { const char *config, *dtype, *scale, *shape; uint64_t bytes, rows, cols, block_rows, block_cols; } forms[] = {
        {CT("mxfp8-quantized", GROUP("32"), ""), "F8_E4M3", "U8", "[256,8]", 2048, 256, 8, 1, 32},
        {CT("float-quantized", GROUP("64"), ""), "F8_E4M3", "BF16", "[256,4]", 2048, 256, 4, 1, 64},
        {CT("int-quantized", GROUP("128"), ""), "I8", "BF16", "[256,2]", 1024, 256, 2, 1, 128},
        {CT("int-quantized", "\"strategy\":\"channel\",\"group_size\":null", ""), "I8", "F32", "[256,1]", 1024, 256, 1, 1, 256},
        {CT("float-quantized", "\"strategy\":\"block\",\"block_structure\":[128,128]", ""), "F8_E4M3", "BF16", "[2,2]", 8, 2, 2, 128, 128},
        {TWO("null", "[128,64]"), "F8_E4M3", "BF16", "[2,4]", 16, 2, 4, 128, 64},
        {TWO("[128,64]", "[128,64]"), "F8_E4M3", "BF16", "[256,1]", 512, 256, 1, 1, 256},
        {TWO("[128,64]", "[64,64]"), "F8_E4M3", "BF16", "[2,4]", 16, 2, 4, 128, 64},
        {TWO("[128,64]", "[64,64]"), "F8_E4M3", "BF16", "[4,4]", 32, 4, 4, 64, 64},
        {TWO("[512,256]", "[256,256]"), "F8_E4M3", "BF16", "[1,1]", 2, 1, 1, 512, 256},
        {MO("MXFP8"), "F8_E4M3", "U8", "[256,8]", 2048, 256, 8, 1, 32},
        {MO("fp8_pb_wo"), "F8_E4M3", "F32", "[2,1,2,1]", 16, 2, 2, 128, 128},
        {MO("FP8"), "F8_E4M3", "F32", "[]", 4, 1, 1, 256, 256},
        {"{\"quantization_config\":{\"quant_method\":\"fbgemm_fp8\"}}", "F8_E4M3", "F32", "[256,1]", 1024, 256, 1, 1, 256},
    };
    char many[1200] = "{\"quantization_config\":{\"config_groups\":{";
    struct sl_scale s;
    struct sl_error e;

    for (size_t i = 1, n = strlen(many); i <= 9; i++, n = strlen(many))
        snprintf(many + n, sizeof many - n, "%s\"%zu\":{\"weights\":{\"block_structure\":[%zu,8]}}%s", i > 1 ? "," : "", i, i, i == 9 ? "}}}" : "");
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct sl_checkpoint *ck;

        maker_write(*state, "config.json", forms[i].config);
        write_two(*state, "x.weight", forms[i].dtype, forms[i].scale, forms[i].shape, forms[i].bytes);
        ck = open_ok(*state);
        assert_int_equal(sl_checkpoint_scale(ck, sl_checkpoint_find(ck, "x.weight"), &s, &e), 0);
        assert_true(s.rows == forms[i].rows && s.cols == forms[i].cols && s.block_rows == forms[i].block_rows && s.block_cols == forms[i].block_cols);
        sl_checkpoint_close(ck);
    }
    alarm(60); /* twice as long for each level would take years */
    maker_write(*state, "config.json", TWO(NESTED, NESTED));
    refuse(*state, SL_ESOURCE, "config.json: quantization_config's block_structure is not");
    alarm(0);
    maker_write(*state, "config.json", TWO("[128,64]", "[64,64]"));
    write_two(*state, "x.weight", "F8_E4M3", "BF16", "[2,2]", 8);
    refuse(*state, SL_ESOURCE, "does not fit 'x.weight' of shape [256, 256]: expected [2, 4] or [4, 4]");
    write_two(*state, "x.weight", "F8_E4M3", "BF16", "[1]", 2);
    refuse(*state, SL_ESOURCE, "does not fit 'x.weight' of shape [256, 256]: expected [2, 4] or [4, 4]");
    maker_write(*state, "config.json", TWO("[130,64]", "[128,64]"));
    write_two(*state, "x.weight", "F8_E4M3", "BF16", "[2,4]", 16);
    refuse(*state, SL_EUNSUPPORTED, "scale 'x.weight_scale' of shape [2, 4] fits 'x.weight' of shape [256, 256] with blocks of more than one size");
    maker_write(*state, "config.json", "{\"quantization_config\":{\"quant_method\":\"fp8\",\"config_groups\":{"
                "\"a\":{\"weights\":{\"block_structure\":[24,64]}},\"b\":{\"weights\":{\"block_structure\":[20,64]}}}}}");
    write_two(*state, "a.self_attn.qkv_proj.weight", "F8_E4M3", "F32", "[16,4]", 256);
    refuse(*state, SL_ESOURCE, "of shape [16, 4] does not fit 'a.self_attn.qkv_proj.weight' of shape [256, 256]: expected blocks of one size, and of 8");
    maker_write(*state, "config.json", many);
    refuse(*state, SL_EUNSUPPORTED, "config.json: quantization_config's config_groups have blocks of more than 8 sizes: give");
    maker_write(*state, "config.json", MO("FP8"));
    write_two(*state, "x.weight", "F8_E4M3", "F32", "[2,1,2,1]", 16);
    refuse(*state, SL_ESOURCE, "scale 'x.weight_scale' of shape [2, 1, 2, 1] does not fit 'x.weight' of shape [256, 256]");
    maker_write(*state, "config.json", MO("FP8_PB_WO"));
    write_two(*state, "x.weight", "F8_E4M3", "F32", "[2,2,1,1]", 16);
    refuse(*state, SL_ESOURCE, "does not fit 'x.weight' of shape [256, 256]: expected [2, 2]");
    maker_write(*state, "config.json", CT("float-quantized", GROUP("-64"), ""));
    write_two(*state, "x.weight", "F8_E4M3", "F32", "[256,4]", 4096);
    refuse(*state, SL_ESOURCE, "does not fit 'x.weight' of shape [256, 256]: expected [1] or [256, 1]");
}

/* Weights that are turned together with others are as good as others; with activations they are not. */
static void turned(void **state)
{
    static const char *const bad[] = {"\"input\"", "\"output\"", "\"q_attn\"", "7"};
    char text[600];

    write_two(*state, "x.weight", "F8_E4M3", "F32", "[256]", 1024);
    maker_write(*state, "config.json", CT("float-quantized", "\"strategy\":\"channel\"", ",\"transform_config\":{\"config_groups\":{\"R1\":"
                "{\"apply\":[{\"location\":\"weight_output\"},{\"location\":\"weight_input\"}]}}}"));
    sl_checkpoint_close(open_ok(*state));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, CT("float-quantized", "\"strategy\":\"channel\"", ",\"transform_config\":{\"config_groups\":{\"R1\":{\"apply\":[]},"
                 "\"R4\":{\"apply\":[{\"location\":\"weight_input\"},{\"location\":%s}]}}}"), bad[i]);
        maker_write(*state, "config.json", text);
        refuse(*state, SL_EUNSUPPORTED, "config.json: the model turns its activations while it runs");
    }
}

/* As llm-compressor names MiniMax-M2's experts; a shared expert's names are as they were. */
static void names(void **state)
{
    static const char config[] = "{\"architectures\":[\"MiniMaxM2ForCausalLM\"],\"model_type\":\"minimax_m2\"}";
    static const struct { const char *there, *is; } of[] = {
        {"model.layers.0.block_sparse_moe.experts.12.gate_proj.weight", "model.layers.0.block_sparse_moe.experts.12.w1.weight"},
        {"model.layers.0.block_sparse_moe.experts.1.down_proj.weight", "model.layers.0.block_sparse_moe.experts.1.w2.weight"},
        {"model.layers.3.block_sparse_moe.experts.0.up_proj.weight", "model.layers.3.block_sparse_moe.experts.0.w3.weight"},
        {"model.layers.3.block_sparse_moe.shared_experts.up_proj.weight", "model.layers.3.block_sparse_moe.shared_experts.up_proj.weight"},
        {"model.layers.3.mlp.experts.0.up_proj.weight", "model.layers.3.mlp.experts.0.up_proj.weight"},
    };
    struct maker_file f = {.end = 0};
    char scale[100];

    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct sl_checkpoint *ck;

        maker_write(*state, "config.json", config);
        write_two(*state, of[i].there, "F8_E4M3", "F32", "[256]", 1024);
        ck = open_ok(*state);
        snprintf(scale, sizeof scale, "%s_scale", of[i].is);
        assert_int_equal(sl_checkpoint_find(ck, of[i].is), 0);
        assert_int_equal(sl_checkpoint_find(ck, scale), 1);
        assert_true(sl_checkpoint_is_scale(ck, 1));
        sl_checkpoint_close(ck);
    }
    maker_tensor(&f, of[0].there, "BF16", "[2]", 4);
    maker_tensor(&f, of[0].is, "BF16", "[2]", 4);
    maker_finish(&f, *state, "model.safetensors", 0);
    refuse(*state, SL_ESOURCE, "experts.12.w1.weight' is there under two names; expected one of them");
    maker_write(*state, "config.json", plain_config);
    write_two(*state, of[0].there, "F8_E4M3", "F32", "[256]", 1024);
    {
        struct sl_checkpoint *ck = open_ok(*state);

        assert_int_equal(sl_checkpoint_find(ck, of[0].there), 0); /* another model's are its own */
        sl_checkpoint_close(ck);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(blocks), TEST(turned), TEST(names)};

    return cmocka_run_group_tests_name("forms", tests, NULL, NULL);
}
