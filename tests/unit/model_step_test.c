/* Step-3.5-Flash's config.json, and with other entries: which keys there are, with what values, in what order. */
#include "tests/unit/model_fixture.h"

/* The order is that of the converter's file of a small checkpoint of this form. */
static void test_keys(void **state)
{
    static const char *const want[][2] = {
        {"step35.block_count", "u32 48"}, {"step35.context_length", "u32 262144"}, {"step35.embedding_length", "u32 4096"},
        {"step35.feed_forward_length", "u32 11264"}, {"step35.attention.head_count", "arr[i32] n=48 64 96 96 96"},
        {"step35.rope.freq_base", "f32 5000000"}, {"step35.rope.freq_base_swa", "f32 10000"},
        {"step35.attention.layer_norm_rms_epsilon", "f32 9.99999975e-06"}, {"step35.expert_gating_func", "u32 2"},
        {"step35.attention.key_length", "u32 128"}, {"step35.attention.value_length", "u32 128"},
        {"step35.attention.head_count_kv", "arr[i32] n=48 8 8 8 8"}, {"step35.attention.sliding_window", "u32 512"},
        {"step35.attention.sliding_window_pattern", "arr[bool] n=48 false true true true"}, {"step35.expert_count", "u32 288"},
        {"step35.expert_used_count", "u32 8"}, {"step35.expert_feed_forward_length", "u32 1280"},
        {"step35.expert_shared_feed_forward_length", "u32 1280"}, {"step35.expert_weights_scale", "f32 3"},
        {"step35.expert_weights_norm", "bool true"}, {"step35.leading_dense_block_count", "u32 3"}, {"step35.moe_every_n_layers", "u32 1"},
        {"step35.swiglu_clamp_exp", "arr[f32] n=48 0 0 0 0"}, {"step35.swiglu_clamp_shexp", "arr[f32] n=48 0 0 0 0"},
        {"step35.nextn_predict_layers", "u32 3"},
    };
    struct sl_checkpoint *ck;
    struct sl_model *m;

    fx_open_with(*state, "step-3.5-flash-fp8-config.json", "", &ck, &m);
    fx_keys_are(m, want, sizeof want / sizeof *want);
    assert_int_equal(fx_tensor(m, "blk.1.attn_q.weight")->ne[1], 96 * 128);
    assert_int_equal(fx_tensor(m, "blk.44.attn_gate.weight")->ne[1], 64);
    assert_int_equal(fx_tensor(m, "blk.45.ffn_up.weight")->ne[1], 11264);
    assert_int_equal(fx_tensor(m, "rope_freqs.weight")->ne[0], 64);
    assert_true(m->hp.n_layer_dense == 3 && m->hp.n_dense_last == 3 && m->hp.n_head == 64);
    fx_close(ck, m);
}

/* As the converter's files of such a config. */
static void test_entries(void **state)
{
    static const struct { const char *more, *key, *value; } cases[] = {
        {"\"moe_router_scaling_factor\":null", "step35.expert_weights_scale", "-"},
        {"\"norm_expert_weight\":false", "step35.expert_weights_norm", "bool false"},
        {"\"moe_every_n_layer\":2", "step35.moe_every_n_layers", "u32 2"},
        {"\"swiglu_limits\":null", "step35.swiglu_clamp_exp", "-"},
        {"\"swiglu_limits_shared\":[1.5,null]", "step35.swiglu_clamp_shexp", "arr[f32] n=48 1.5 0 0 0"},
        {"\"moe_router_activation\":null", "step35.expert_gating_func", "-"},
        {"\"num_nextn_predict_layers\":0", "step35.block_count", "u32 45"},
        {"\"moe_layers_enum\":\"9,5,7\"", "step35.leading_dense_block_count", "u32 5"},
    };
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[128];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fx_open_with(*state, "step-3.5-flash-fp8-config.json", cases[i].more, &ck, &m);
        assert_string_equal(fx_value(&m->kvs, cases[i].key, buf, sizeof buf), cases[i].value);
        fx_close(ck, m);
    }
    fx_open_with(*state, "step-3.5-flash-fp8-config.json", "\"rope_scaling\":null", &ck, &m);
    assert_null(fx_tensor(m, "rope_freqs.weight"));
    fx_close(ck, m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_entries, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("Step-3.5 from config.json", tests, NULL, NULL);
}
