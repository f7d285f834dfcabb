/* Ling-1T planned from its config.json, against what is known of it; and configs of its form with entries that are not
 * there. */
#include "tests/unit/model_fixture.h"

/* The keys that llama.cpp's converter writes, one behind the other. */
static void test_keys(void **state)
{
    static const char *const want[][2] = {
        {"block_count", "u32 80"}, {"context_length", "u32 32768"}, {"embedding_length", "u32 8192"},
        {"feed_forward_length", "u32 18432"}, {"attention.head_count", "u32 64"}, {"attention.head_count_kv", "u32 8"},
        {"rope.freq_base", "f32 600000"}, {"attention.layer_norm_rms_epsilon", "f32 9.99999997e-07"}, {"expert_count", "u32 256"},
        {"expert_used_count", "u32 8"}, {"expert_group_count", "u32 8"}, {"expert_group_used_count", "u32 4"},
        {"expert_gating_func", "u32 2"}, {"attention.key_length", "u32 128"}, {"attention.value_length", "u32 128"},
        {"rope.dimension_count", "u32 64"}, {"leading_dense_block_count", "u32 4"}, {"vocab_size", "u32 157184"},
        {"expert_feed_forward_length", "u32 2048"}, {"expert_shared_feed_forward_length", "u32 2048"},
        {"expert_weights_scale", "f32 2.5"}, {"expert_shared_count", "u32 1"}, {"expert_weights_norm", "bool true"},
        {"nextn_predict_layers", "u32 0"},
    };
    const struct sl_kv *kv;
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[128];

    (void)state;
    fx_must_open("tests/data/ling-1t-fp8-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_string_equal(fx_value(&m->kvs, "general.size_label", buf, sizeof buf), "str '256x24B'");
    kv = sl_kvs_find(&m->kvs, "bailingmoe2.block_count");
    assert_non_null(kv);
    assert_int_equal(m->kvs.kv + m->kvs.n - kv, sizeof want / sizeof *want);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_string_equal(kv[i].key + strlen("bailingmoe2."), want[i][0]);
        assert_string_equal(fx_value(&m->kvs, kv[i].key, buf, sizeof buf), want[i][1]);
    }
    fx_close(ck, m);
}

static void test_tensors(void **state)
{
    const struct sl_out_tensor *t;
    struct sl_checkpoint *ck;
    struct sl_model *m;

    (void)state;
    fx_must_open("tests/data/ling-1t-fp8-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, 3 + 4 * 9 + 76 * 14);
    assert_true(m->n_params == 999705328640);
    t = fx_tensor(m, "blk.79.attn_qkv.weight");
    assert_true(t->ne[0] == 8192 && t->ne[1] == 8192 + 2 * 1024 && m->src[t->first_src].dtype == SL_DTYPE_F8_E4M3);
    t = fx_tensor(m, "blk.79.attn_q_norm.weight");
    assert_true(t->keep_f32 && t->ne[0] == 128);
    t = fx_tensor(m, "blk.4.exp_probs_b.bias");
    assert_true(t->keep_f32 && m->src[t->first_src].dtype == SL_DTYPE_F32);
    t = fx_tensor(m, "blk.4.ffn_down_exps.weight");
    assert_true(t->ne[0] == 2048 && t->ne[1] == 8192 && t->ne[2] == 256);
    assert_int_equal(fx_tensor(m, "blk.3.ffn_down.weight")->ne[0], 18432);
    fx_close(ck, m);
}

#define LEAST "\"architectures\":[\"BailingMoeV2ForCausalLM\"],\"num_hidden_layers\":4,\"hidden_size\":1024,\"intermediate_size\":512," \
    "\"num_attention_heads\":64,\"vocab_size\":300,\"num_experts_per_tok\":2,\"first_k_dense_replace\":0,\"moe_intermediate_size\":64," \
    "\"routed_scaling_factor\":1,\"norm_topk_prob\":false,\"max_position_embeddings\":64,\"rope_parameters\":{\"rope_theta\":1e6}"

/* Values are the converter's, but for a word on the routing, without which llama.cpp loads no such model. */
static const struct { const char *more, *want[10][2]; } cases[] = {
    {",\"num_experts\":8,\"num_shared_experts\":1,\"score_function\":null",
     {{"expert_count", "u32 8"}, {"expert_gating_func", "u32 2"}, {"attention.head_count_kv", "u32 64"}, {"attention.key_length", "-"},
      {"expert_group_count", "-"}, {"expert_weights_norm", "bool false"}, {"expert_shared_feed_forward_length", "u32 64"},
      {"nextn_predict_layers", "-"}, {"rope.dimension_count", "u32 8"}, {"rope.freq_base", "f32 1000000"}}},
    {",\"num_experts\":8,\"num_local_experts\":12,\"score_function\":\"softmax\",\"scoring_func\":\"sigmoid\",\"partial_rotary_factor\":1,"
     "\"num_shared_experts\":2,\"moe_shared_expert_intermediate_size\":32,\"num_nextn_predict_layers\":2,\"head_dim\":16",
     {{"expert_count", "u32 12"}, {"expert_gating_func", "u32 1"}, {"attention.key_length", "u32 16"}, {"rope.dimension_count", "u32 16"},
      {"block_count", "u32 6"}, {"expert_shared_feed_forward_length", "u32 32"}, {"nextn_predict_layers", "u32 2"}}},
    {",\"num_experts\":8,\"num_shared_experts\":1,\"score_func\":\"softmax\"", {{"expert_gating_func", "u32 1"}}},
    {",\"num_experts\":8,\"num_shared_experts\":1,\"moe_router_activation_func\":\"softmax\",\"expert_selection_fn\":\"sigmoid\"",
     {{"expert_gating_func", "u32 1"}}},
};

static void test_absent_entries(void **state)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char buf[128], key[64], path[512], text[2048];
        struct sl_checkpoint *ck;
        struct sl_model *m;

        snprintf(text, sizeof text, "{" LEAST "%s}", cases[i].more);
        fx_text(*state, "config.json", text);
        snprintf(path, sizeof path, "%s/config.json", (char *)*state);
        fx_must_open(path, SL_LAYOUT_MLA, &ck, &m);
        for (int k = 0; k < 10 && cases[i].want[k][0]; k++) {
            snprintf(key, sizeof key, "bailingmoe2.%s", cases[i].want[k][0]);
            assert_string_equal(fx_value(&m->kvs, key, buf, sizeof buf), cases[i].want[k][1]);
        }
        fx_close(ck, m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys), cmocka_unit_test(test_tensors),
        cmocka_unit_test_setup_teardown(test_absent_entries, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("Ling", tests, NULL, NULL);
}
