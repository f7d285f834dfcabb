/* MiMo-V2's config.json as it was published, and with other entries: which keys there are, with what values, in what order. */
#include "tests/unit/model_fixture.h"

/* The order is that of the converter's file of a small checkpoint of this form. */
static void test_keys(void **state)
{
    static const char *const want[][2] = {
        {"mimo2.block_count", "u32 51"}, {"mimo2.context_length", "u32 1048576"},
        {"mimo2.embedding_length", "u32 4096"}, {"mimo2.feed_forward_length", "u32 16384"}, {"mimo2.attention.head_count", "u32 64"},
        {"mimo2.attention.head_count_kv", "arr[i32] n=51 4 8 8 8"}, {"mimo2.rope.freq_base", "f32 10000000"},
        {"mimo2.rope.freq_base_swa", "f32 10000"}, {"mimo2.expert_count", "u32 256"}, {"mimo2.expert_used_count", "u32 8"},
        {"mimo2.expert_group_count", "u32 1"}, {"mimo2.expert_group_used_count", "u32 1"}, {"mimo2.expert_gating_func", "u32 2"},
        {"mimo2.attention.key_length", "u32 192"}, {"mimo2.attention.value_length", "u32 128"},
        {"mimo2.attention.sliding_window", "u32 128"}, {"mimo2.attention.sliding_window_pattern", "arr[i32] n=51 0 1 1 1"},
        {"mimo2.expert_feed_forward_length", "u32 2048"}, {"mimo2.rope.dimension_count", "u32 64"},
        {"mimo2.attention.layer_norm_rms_epsilon", "f32 9.99999975e-06"}, {"mimo2.attention.value_scale", "f32 0.707000017"},
        {"mimo2.nextn_predict_layers", "u32 3"},
    };
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[128];

    fx_open_with(*state, "mimo-v2.5-config.json", "", &ck, &m);
    assert_string_equal(fx_value(&m->kvs, "general.size_label", buf, sizeof buf), "str '256x8.2B'");
    fx_keys_are(m, want, sizeof want / sizeof *want);
    assert_int_equal(m->hp.n_layer_dense, 1);
    assert_int_equal(m->hp.n_head_kv, 4);
    fx_close(ck, m);
}

/* A window's layer has more heads of keys, and sinks; those for multi-token prediction are such layers, and dense. */
static void test_tensors(void **state)
{
    static const struct { const char *name; uint64_t cols, rows; } want[] = {
        {"blk.0.attn_k.weight", 4096, 768}, {"blk.1.attn_k.weight", 4096, 1536}, {"blk.5.attn_v.weight", 4096, 512},
        {"blk.46.attn_v.weight", 4096, 1024}, {"blk.47.attn_q.weight", 4096, 12288}, {"blk.3.attn_output.weight", 8192, 4096},
        {"blk.4.attn_sinks.weight", 64, 1}, {"blk.50.attn_sinks.weight", 64, 1}, {"blk.0.ffn_down.weight", 16384, 4096},
        {"blk.48.ffn_up.weight", 4096, 16384}, {"blk.49.nextn.eh_proj.weight", 8192, 4096}, {"blk.48.layer_output_norm.weight", 4096, 1},
    };
    static const char *const absent[] = {"blk.0.attn_sinks.weight", "blk.47.attn_sinks.weight", "blk.0.ffn_gate_inp.weight",
                                         "blk.48.ffn_gate_inp.weight", "blk.47.nextn.eh_proj.weight", "blk.0.attn_qkv.weight"};
    struct sl_checkpoint *ck;
    struct sl_model *m;

    fx_open_with(*state, "mimo-v2-flash-config.json", "", &ck, &m);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct sl_out_tensor *t = fx_tensor(m, want[i].name);

        assert_non_null(t);
        assert_true(t->ne[0] == want[i].cols && t->ne[1] == want[i].rows);
    }
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        assert_null(fx_tensor(m, absent[i]));
    fx_close(ck, m);
    fx_open_with(*state, "mimo-v2.5-config.json", "", &ck, &m);
    assert_int_equal(fx_tensor(m, "blk.0.attn_qkv.weight")->ne[1], 13568);
    assert_int_equal(fx_tensor(m, "blk.1.attn_qkv.weight")->ne[1], 14848);
    assert_null(fx_tensor(m, "blk.1.attn_q.weight"));
    fx_close(ck, m);
}

#define EPS "mimo2.attention.layer_norm_rms_epsilon"
#define NEAR "mimo2.rope.freq_base_swa"
#define DIM "mimo2.rope.dimension_count"

/* As the converter's files of such a config, but for the last. */
static void test_entries(void **state)
{
    static const struct {
        const char *more, *want[3][2];
        const char *before; /* a key behind the first one */
    } cases[] = {
        {"\"rms_norm_eps\":1e-6", {{EPS, "f32 9.99999975e-06"}}, "mimo2.expert_count"}, /* an older name has its place alone */
        {"\"rms_norm_eps\":null,\"norm_eps\":1e-6", {{EPS, "f32 9.99999975e-06"}, {DIM, "u32 64"}}, "mimo2.attention.value_scale"},
        {"\"norm_eps\":1e-6,\"layernorm_epsilon\":1e-3", {{EPS, "f32 0.00100000005"}}, "mimo2.expert_count"},
        {"\"attention_value_scale\":null", {{"mimo2.attention.value_scale", "-"}}, NULL},
        {"\"scoring_func\":null", {{"mimo2.expert_gating_func", "-"}}, NULL},
        {"\"n_group\":null,\"topk_group\":null", {{"mimo2.expert_group_count", "-"}, {"mimo2.expert_group_used_count", "-"}}, NULL},
        {"\"swa_rope_theta\":null", {{NEAR, "-"}}, NULL},
        {"\"local_rope_theta\":4444", {{NEAR, "f32 4444"}}, "mimo2.expert_count"},
        {"\"local_rope_theta\":null", {{NEAR, "-"}}, NULL},
        {"\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}",
         {{"mimo2.rope.freq_base", "f32 1000000"}, {NEAR, "f32 10000"}, {DIM, "u32 96"}}, NULL},
        {"\"rope_parameters\":{\"sliding_attention\":{\"rope_theta\":77},\"rope_theta\":5e5,\"partial_rotary_factor\":0.25}",
         {{"mimo2.rope.freq_base", "f32 500000"}, {NEAR, "f32 77"}, {DIM, "u32 48"}}, NULL},
        {"\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6},\"partial_rotary_factor\":0.5}",
         {{"mimo2.rope.freq_base", "f32 1000000"}, {NEAR, "-"}, {DIM, "u32 96"}}, NULL},
        {"\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":4096}",
         {{"mimo2.rope.scaling.type", "str 'yarn'"}, {"mimo2.rope.scaling.factor", "f32 4"}}, "mimo2.rope.freq_base"},
        {"\"num_nextn_predict_layers\":0", {{"mimo2.block_count", "u32 48"}, {"mimo2.nextn_predict_layers", "-"}}, NULL},
    };
    char buf[128];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_checkpoint *ck;
        struct sl_model *m;

        fx_open_with(*state, "mimo-v2-flash-config.json", cases[i].more, &ck, &m);
        for (int k = 0; k < 3 && cases[i].want[k][0]; k++)
            assert_string_equal(fx_value(&m->kvs, cases[i].want[k][0], buf, sizeof buf), cases[i].want[k][1]);
        if (cases[i].before)
            assert_true(sl_kvs_find(&m->kvs, cases[i].want[0][0]) < sl_kvs_find(&m->kvs, cases[i].before));
        fx_close(ck, m);
    }
}

/* One layer for multi-token prediction is not what was published; without it there is a model. */
static void test_other_mtp(void **state)
{
    static const struct sl_model_opts o = {.no_mtp = true};
    char path[512], *text = fx_read("tests/data/mimo-v2-flash-config.json"), *all = malloc(strlen(text) + 64), buf[128];
    struct sl_checkpoint *ck;
    struct sl_model *m;
    struct sl_error e;

    assert_non_null(all);
    *strrchr(text, '}') = '\0';
    sprintf(all, "%s,\"num_nextn_predict_layers\":1}", text);
    fx_text(*state, "config.json", all);
    snprintf(path, sizeof path, "%s/config.json", (char *)*state);
    assert_int_equal(sl_checkpoint_open_config(path, &ck, &e), 0);
    assert_int_equal(sl_model_open(ck, NULL, &m, &e), SL_EUNSUPPORTED);
    assert_non_null(strstr(e.text, "\"num_nextn_predict_layers\" is 1; supported for MiMoV2FlashForCausalLM: 3, or --no-mtp"));
    assert_int_equal(sl_model_open(ck, &o, &m, &e), 0);
    assert_string_equal(fx_value(&m->kvs, "mimo2.block_count", buf, sizeof buf), "u32 48");
    assert_string_equal(fx_value(&m->kvs, "mimo2.nextn_predict_layers", buf, sizeof buf), "-");
    fx_close(ck, m);
    free(text);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_other_mtp, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_keys, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_tensors, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_entries, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("MiMo-V2 from config.json", tests, NULL, NULL);
}
