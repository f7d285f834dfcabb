/* Llama-4's config.json, and with other entries: which keys there are, with what values, in what order. */
#include "tests/unit/model_fixture.h"

/* The config of that name, whose text model has these entries behind its own, which then count. */
static void open_with(const char *dir, const char *name, const char *more, struct sl_checkpoint **ck, struct sl_model **m)
{
    static const char last[] = "\"vocab_size\": 202048";
    char path[512], *text, *all, *at;
    struct sl_error e;

    snprintf(path, sizeof path, "tests/data/llama-4-%s-config.json", name);
    text = fx_read(path);
    all = malloc(strlen(text) + strlen(more) + 8);
    assert_non_null(all);
    at = strstr(text, last);
    assert_non_null(at);
    at += sizeof last - 1;
    sprintf(all, "%.*s%s%s%s", (int)(at - text), text, *more ? "," : "", more, at);
    fx_text(dir, "config.json", all);
    free(text);
    free(all);
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (fx_open(path, SL_LAYOUT_MLA, ck, m, &e) < 0)
        fail_msg("%s", e.text);
}

/* The order is that of the converter's file of a small checkpoint of this form. */
static void test_keys(void **state)
{
    static const char *const want[][2] = {
        {"llama4.block_count", "u32 48"}, {"llama4.context_length", "u32 1048576"}, {"llama4.embedding_length", "u32 5120"},
        {"llama4.feed_forward_length", "u32 16384"}, {"llama4.attention.head_count", "u32 40"}, {"llama4.attention.head_count_kv", "u32 8"},
        {"llama4.rope.freq_base", "f32 500000"}, {"llama4.attention.layer_norm_rms_epsilon", "f32 9.99999975e-06"},
        {"llama4.expert_count", "u32 128"}, {"llama4.expert_used_count", "u32 1"}, {"llama4.attention.key_length", "u32 128"},
        {"llama4.attention.value_length", "u32 128"}, {"llama4.vocab_size", "u32 202048"}, {"llama4.rope.dimension_count", "u32 128"},
        {"llama4.interleave_moe_layer_step", "u32 2"}, {"llama4.expert_feed_forward_length", "u32 8192"},
    };
    struct sl_checkpoint *ck;
    struct sl_model *m;

    open_with(*state, "maverick-fp8", "", &ck, &m);
    fx_keys_are(m, want, sizeof want / sizeof *want);
    assert_int_equal(fx_tensor(m, "blk.0.ffn_up.weight")->ne[1], 16384);
    assert_null(fx_tensor(m, "blk.0.ffn_gate_inp.weight"));
    assert_int_equal(fx_tensor(m, "blk.47.ffn_up_exps.weight")->n_src, 128);
    assert_null(fx_tensor(m, "rope_freqs.weight"));
    assert_true(m->hp.moe_step == 2 && m->hp.near_window == 8192 && m->near[2] && !m->near[3] && !m->near[47]);
    fx_close(ck, m);
}

/* A layer's experts in two tensors: of the first the gates are the columns before those of `up`. */
static void test_joined(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    const struct sl_out_tensor *up, *down;

    open_with(*state, "scout", "", &ck, &m);
    up = fx_tensor(m, "blk.0.ffn_up_exps.weight");
    down = fx_tensor(m, "blk.0.ffn_down_exps.weight");
    assert_true(up->transform == SL_K_B && up->n_src == 1 && up->heads == 16 && up->nope == 5120 && up->lora == 8192 && up->col0 == 8192);
    assert_true(m->src[up->first_src].rows == 16 * 5120 && m->src[up->first_src].cols == 16384);
    assert_true(down->transform == SL_K_B && down->nope == 8192 && down->lora == 5120 && down->col0 == 0);
    assert_int_equal(fx_tensor(m, "rope_freqs.weight")->ne[0], 64);
    fx_close(ck, m);
}

/* As the converter's files of such a config. */
static void test_entries(void **state)
{
    static const struct { const char *more, *key, *value; } cases[] = {
        {"\"num_key_value_heads\":null", "llama4.attention.head_count_kv", "u32 40"},
        {"\"head_dim\":null", "llama4.rope.dimension_count", "u32 128"},
        {"\"rope_theta\":null", "llama4.rope.freq_base", "f32 10000"}, /* where the converter writes no key */
        {"\"moe_layers\":[1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41,43,45,47]", "llama4.interleave_moe_layer_step", "u32 2"},
        {"\"no_rope_layers\":null", "llama4.block_count", "u32 48"},
        {"\"attn_temperature_tuning\":true", "llama4.block_count", "u32 48"},
        {"\"n_group\":1", "llama4.expert_group_count", "u32 1"},
        {"\"scoring_func\":\"softmax\"", "llama4.expert_gating_func", "u32 1"},
        {"\"layer_norm_eps\":1e-6", "llama4.attention.layer_norm_epsilon", "f32 9.99999997e-07"},
        {"\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", "llama4.rope.scaling.factor", "f32 2"},
    };
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[128];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_with(*state, "maverick-fp8", cases[i].more, &ck, &m);
        assert_string_equal(fx_value(&m->kvs, cases[i].key, buf, sizeof buf), cases[i].value);
        fx_close(ck, m);
    }
}

/* What the configuration class takes where there is nothing. */
static void test_defaults(void **state)
{
    static const char config[] = "{\"architectures\":[\"Llama4ForCausalLM\"],\"num_hidden_layers\":4,\"hidden_size\":256,"
                                 "\"num_attention_heads\":8,\"vocab_size\":4096}";
    static const char *const want[][2] = {
        {"llama4.context_length", "u32 131072"}, {"llama4.feed_forward_length", "u32 16384"}, {"llama4.attention.head_count_kv", "u32 8"},
        {"llama4.rope.freq_base", "f32 500000"}, {"llama4.attention.layer_norm_rms_epsilon", "f32 9.99999975e-06"},
        {"llama4.expert_count", "u32 16"}, {"llama4.expert_used_count", "u32 1"}, {"llama4.attention.key_length", "u32 128"},
        {"llama4.interleave_moe_layer_step", "u32 1"}, {"llama4.expert_feed_forward_length", "u32 8192"},
    };
    char path[512], buf[128];
    struct sl_checkpoint *ck;
    struct sl_model *m;
    struct sl_error e;

    fx_text(*state, "config.json", config);
    snprintf(path, sizeof path, "%s/config.json", (const char *)*state);
    if (fx_open(path, SL_LAYOUT_MLA, &ck, &m, &e) < 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_string_equal(fx_value(&m->kvs, want[i][0], buf, sizeof buf), want[i][1]);
    fx_close(ck, m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_joined, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_entries, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_defaults, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("Llama-4 from config.json", tests, NULL, NULL);
}
