/* Models planned from config.json alone, against what is known of the real ones:
 * tensor counts, weights, names and dimensions. */
#include "tests/unit/model_fixture.h"

#include <math.h>

/* The keys have these values, and this order. Returns the last one's place. */
static uint64_t in_order(const struct sl_model *m, const char *const (*want)[2], size_t n)
{
    uint64_t at = 0;
    char buf[128];

    for (size_t i = 0; i < n; i++) {
        const struct sl_kv *kv = sl_kvs_find(&m->kvs, want[i][0]);

        assert_string_equal(fx_value(&m->kvs, want[i][0], buf, sizeof buf), want[i][1]);
        assert_true((uint64_t)(kv - m->kvs.kv) > at);
        at = (uint64_t)(kv - m->kvs.kv);
    }
    return at;
}

/* The rows of one mixture in the table: "<version>\t<layout>\tQ4_0\t0\t<name>\t<ne>\t..." */
static void same_as_table(const struct sl_model *m, const char *prefix)
{
    FILE *f = popen("xz -dc tests/data/deepseek-v3-types.tsv.xz", "r");
    char line[512], dims[128], want[256];
    uint32_t i = 0;

    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        size_t at = 0;

        if (strncmp(line, prefix, strlen(prefix)) != 0)
            continue;
        assert_true(i < m->n_tensors);
        for (uint32_t d = 0; d < m->tensors[i].n_dims; d++)
            at += (size_t)snprintf(dims + at, sizeof dims - at, "%s%" PRIu64, d ? "x" : "",
                                   m->tensors[i].ne[d]);
        snprintf(want, sizeof want, "%s\t%s\t", m->tensors[i].name, dims);
        if (strncmp(line + strlen(prefix), want, strlen(want)) != 0)
            fail_msg("tensor %" PRIu32 ": have %s, table has %s", i, want, line + strlen(prefix));
        i++;
    }
    assert_int_equal(pclose(f), 0);
    assert_int_equal(i, m->n_tensors);
}

static void test_r1(void **state)
{
    static const struct { enum sl_layout layout; uint32_t n; const char *prefix; } cases[] = {
        {SL_LAYOUT_LEGACY, 1025, "feb2025\tkv_b\tQ4_0\t0\t"},
        {SL_LAYOUT_MLA, 1086, "aug2026\tk_b+v_b\tQ4_0\t0\t"},
    };
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[128];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint32_t f32 = 0;

        fx_must_open("tests/data/deepseek-r1-config.json", cases[i].layout, &ck, &m);
        assert_int_equal(m->n_tensors, cases[i].n);
        assert_true(m->n_params == 671026419200);
        same_as_table(m, cases[i].prefix);
        for (uint32_t k = 0; k < m->n_tensors; k++)
            f32 += m->tensors[k].keep_f32;
        assert_int_equal(f32, 361);
        assert_string_equal(fx_value(&m->kvs, "general.size_label", buf, sizeof buf),
                            "str '256x20B'");
        assert_string_equal(fx_value(&m->kvs, "tokenizer.ggml.model", buf, sizeof buf), "-");
        fx_close(ck, m);
    }
}

/* What such a model ships: FP8 with blocks of scales, BF16, an F32 bias. */
static void test_r1_sources(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    const struct sl_model_src *s;

    (void)state;
    fx_must_open("tests/data/deepseek-r1-config.json", SL_LAYOUT_MLA, &ck, &m);
    s = &m->src[fx_tensor(m, "blk.0.attn_kv_a_mqa.weight")->first_src];
    assert_int_equal(s->tensor, SL_NO_TENSOR);
    assert_int_equal(s->dtype, SL_DTYPE_F8_E4M3);
    assert_int_equal(s->scale.rows, 5);
    assert_int_equal(s->scale.cols, 56);
    assert_int_equal(s->scale.block_rows, 128);
    s = &m->src[fx_tensor(m, "blk.3.ffn_gate_inp.weight")->first_src];
    assert_int_equal(s->dtype, SL_DTYPE_BF16);
    assert_int_equal(s->scale.rows, 0);
    s = &m->src[fx_tensor(m, "blk.3.exp_probs_b.bias")->first_src];
    assert_int_equal(s->dtype, SL_DTYPE_F32);
    assert_int_equal(fx_tensor(m, "blk.60.ffn_up_exps.weight")->n_src, 256);
    fx_close(ck, m);
}

/* Kimi-K2: one group of 384 experts. Its model_type has no configuration class, so that keys for
 * which classes have a head_dim come later, and nothing is taken for what is absent. */
static void test_kimi_k2(void **state)
{
    static const char *const want[][2] = {
        {"deepseek2.attention.head_count", "u32 64"}, {"deepseek2.attention.head_count_kv", "u32 1"},
        {"deepseek2.rope.scaling.factor", "f32 32"}, {"deepseek2.rope.scaling.yarn_beta_fast", "f32 1"},
        {"deepseek2.rope.freq_base", "f32 50000"}, {"deepseek2.expert_count", "u32 384"},
        {"deepseek2.expert_used_count", "u32 8"}, {"deepseek2.expert_group_count", "u32 1"},
        {"deepseek2.expert_group_used_count", "u32 1"}, {"deepseek2.expert_gating_func", "u32 2"},
        {"deepseek2.leading_dense_block_count", "u32 1"}, {"deepseek2.vocab_size", "u32 163840"},
        {"deepseek2.attention.kv_lora_rank", "u32 512"}, {"deepseek2.attention.key_length", "u32 576"},
        {"deepseek2.attention.value_length", "u32 512"}, {"deepseek2.attention.key_length_mla", "u32 192"},
        {"deepseek2.expert_weights_scale", "f32 2.8269999"},
        {"deepseek2.rope.scaling.yarn_log_multiplier", "f32 0.100000001"}, {"general.size_label", "str '384x14B'"},
    };
    struct sl_checkpoint *ck;
    struct sl_model *m;
    uint64_t at = 0;
    char buf[128];

    (void)state;
    fx_must_open("tests/data/kimi-k2-instruct-config.json", SL_LAYOUT_LEGACY, &ck, &m);
    assert_int_equal(m->n_tensors, 1096 - 61);
    fx_close(ck, m);
    fx_must_open("tests/data/kimi-k2-instruct-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, 1096);
    assert_true(m->n_params == 1026408232448);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct sl_kv *kv = sl_kvs_find(&m->kvs, want[i][0]);

        assert_string_equal(fx_value(&m->kvs, want[i][0], buf, sizeof buf), want[i][1]);
        assert_true(kv->key[0] == 'g' || (uint64_t)(kv - m->kvs.kv) > at);
        at = (uint64_t)(kv - m->kvs.kv);
    }
    fx_close(ck, m);
}

/* DeepSeek-V3.2: 61 layers and one for multi-token prediction, an indexer in each. */
static void test_v32(void **state)
{
    static const char *const want[][2] = {
        {"deepseek32.block_count", "u32 62"}, {"deepseek32.attention.head_count_kv", "u32 1"},
        {"deepseek32.expert_gating_func", "u32 2"}, {"deepseek32.leading_dense_block_count", "u32 3"},
        {"deepseek32.attention.key_length", "u32 576"}, {"deepseek32.attention.key_length_mla", "u32 192"},
        {"deepseek32.rope.dimension_count", "u32 64"}, {"deepseek32.rope.scaling.yarn_log_multiplier", "f32 0.100000001"},
        {"deepseek32.nextn_predict_layers", "u32 1"}, {"deepseek32.attention.indexer.head_count", "u32 64"},
        {"deepseek32.attention.indexer.key_length", "u32 128"}, {"deepseek32.attention.indexer.top_k", "u32 2048"},
    };
    static const struct { const char *name; uint64_t ne[2]; bool f32; } shapes[] = {
        {"blk.61.indexer.attn_q_b.weight", {1536, 8192}, false}, {"blk.0.indexer.attn_k.weight", {7168, 128}, false},
        {"blk.0.indexer.proj.weight", {7168, 64}, false}, {"blk.0.indexer.k_norm.bias", {128, 1}, true},
        {"blk.61.nextn.eh_proj.weight", {14336, 7168}, false}, {"blk.61.nextn.shared_head_norm.weight", {7168, 1}, true},
        {"blk.61.nextn.shared_head_head.weight", {7168, 129280}, false}, {"blk.61.ffn_down_exps.weight", {2048, 7168}, false},
    };
    static const char path[] = "tests/data/deepseek-v3.2-exp-config.json";
    struct sl_checkpoint *ck;
    struct sl_model *m;
    struct sl_error e;

    (void)state;
    assert_int_equal(fx_open(path, SL_LAYOUT_LEGACY, &ck, &m, &e), SL_EUSAGE);
    assert_string_equal(e.text, "--layout legacy: llama.cpp runs DeepseekV32ForCausalLM in the layout mla alone");
    fx_must_open(path, SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, 1086 + 24 + 62 * 5);
    assert_true(m->n_params == 685355329792);
    assert_true(m->hp.n_layer == 62 && m->hp.n_nextn == 1 && m->hp.index_dim == 128);
    (void)in_order(m, want, sizeof want / sizeof *want);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct sl_out_tensor *t = fx_tensor(m, shapes[i].name);

        assert_non_null(t);
        assert_true(t->ne[0] == shapes[i].ne[0] && t->ne[1] == shapes[i].ne[1] && t->keep_f32 == shapes[i].f32);
        assert_int_equal(t->outtype_f32, i == 2);
    }
    assert_null(fx_tensor(m, "blk.60.nextn.enorm.weight"));
    assert_int_equal(m->src[fx_tensor(m, shapes[1].name)->first_src].dtype, SL_DTYPE_F8_E4M3);
    assert_int_equal(m->src[fx_tensor(m, shapes[2].name)->first_src].dtype, SL_DTYPE_BF16);
    fx_close(ck, m);
}

/* GLM-5.2 in FP8: 78 layers and one for multi-token prediction, 22 of them with an indexer. Its config.json is
 * without quantization_config's list of what is not quantized. */
static void test_glm(void **state)
{
    static const char *const want[][2] = {
        {"glm-dsa.block_count", "u32 79"}, {"glm-dsa.context_length", "u32 1048576"}, {"glm-dsa.rope.freq_base", "f32 8000000"},
        {"glm-dsa.expert_gating_func", "u32 2"}, {"glm-dsa.attention.key_length", "u32 576"},
        {"glm-dsa.leading_dense_block_count", "u32 3"}, {"glm-dsa.attention.key_length_mla", "u32 256"},
        {"glm-dsa.attention.value_length_mla", "u32 256"}, {"glm-dsa.rope.dimension_count", "u32 64"},
        {"glm-dsa.nextn_predict_layers", "u32 1"}, {"glm-dsa.attention.indexer.head_count", "u32 32"},
        {"glm-dsa.attention.indexer.key_length", "u32 128"}, {"glm-dsa.attention.indexer.top_k", "u32 2048"},
    };
    static const char *const indexed[] = {"blk.0.indexer.proj.weight", "blk.2.indexer.attn_q_b.weight",
                                          "blk.74.indexer.k_norm.bias", "blk.78.indexer.attn_k.weight"};
    static const char *const absent[] = {"blk.3.indexer.proj.weight", "blk.77.indexer.attn_k.weight", "blk.77.nextn.enorm.weight",
                                         "blk.78.nextn.embed_tokens.weight", "blk.78.nextn.shared_head_head.weight"};
    const struct sl_kv *types;
    struct sl_checkpoint *ck;
    struct sl_model *m;
    uint64_t at;

    (void)state;
    fx_must_open("tests/data/glm-5.2-fp8-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, 3 + 79 * 10 + 3 * 3 + 76 * 8 + 22 * 5 + 4);
    assert_true(m->n_params == 753329940480);
    assert_true(m->hp.n_layer == 79 && m->hp.n_nextn == 1 && m->hp.index_dim == 128);
    at = in_order(m, want, sizeof want / sizeof *want);
    types = sl_kvs_find(&m->kvs, "glm-dsa.attention.indexer.types");
    assert_true(types == &m->kvs.kv[at + 1] && types->elem == SL_KV_BOOL && types->n == 78);
    for (uint32_t i = 0; i < 78; i++)
        assert_int_equal(((const uint8_t *)types->data)[i], i < 3 || i % 4 == 2);
    for (size_t i = 0; i < sizeof indexed / sizeof *indexed; i++)
        assert_non_null(fx_tensor(m, indexed[i]));
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        assert_null(fx_tensor(m, absent[i]));
    fx_close(ck, m);
}

/* llama.cpp knows the model by its size, and how it routes; of one of another size a key says it. */
static void test_glm_flash(void **state)
{
    static const char *const want[][2] = {
        {"deepseek2.block_count", "u32 48"}, {"deepseek2.expert_group_used_count", "u32 1"},
        {"deepseek2.leading_dense_block_count", "u32 1"}, {"deepseek2.attention.key_length_mla", "u32 256"},
        {"deepseek2.expert_weights_scale", "f32 1.79999995"}, {"deepseek2.nextn_predict_layers", "u32 1"},
    };
    static const struct sl_model_opts o = {.no_mtp = true};
    struct sl_checkpoint *ck;
    struct sl_error e;
    struct sl_model *m;
    char buf[128];

    fx_must_open("tests/data/glm-4.7-flash-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_true(m->n_params == 31221488576);
    (void)in_order(m, want, sizeof want / sizeof *want);
    assert_null(sl_kvs_find(&m->kvs, "deepseek2.expert_gating_func"));
    assert_non_null(fx_tensor(m, "blk.47.nextn.shared_head_head.weight"));
    sl_model_close(m);
    assert_int_equal(sl_model_open(ck, &o, &m, &e), 0);
    assert_string_equal(fx_value(&m->kvs, "deepseek2.block_count", buf, sizeof buf), "u32 47");
    assert_null(sl_kvs_find(&m->kvs, "deepseek2.nextn_predict_layers"));
    assert_null(sl_kvs_find(&m->kvs, "deepseek2.expert_gating_func"));
    fx_close(ck, m);
    fx_open_with(*state, "glm-4.7-flash-config.json", "\"scoring_func\":\"softmax\"", &ck, &m);
    assert_string_equal(fx_value(&m->kvs, "deepseek2.expert_gating_func", buf, sizeof buf), "u32 1");
    fx_close(ck, m);
}

static void test_v2_lite(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[128];

    (void)state;
    fx_must_open("tests/data/deepseek-v2-lite-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_true(m->n_params == 15706484224);
    assert_non_null(fx_tensor(m, "blk.0.attn_q.weight"));
    assert_int_equal(fx_tensor(m, "blk.0.attn_q.weight")->ne[1], 3072);
    assert_null(fx_tensor(m, "blk.0.attn_q_a.weight"));
    assert_null(fx_tensor(m, "blk.1.exp_probs_b.bias"));
    assert_int_equal(fx_tensor(m, "blk.1.ffn_up_shexp.weight")->ne[1], 2816);
    assert_string_equal(fx_value(&m->kvs, "deepseek2.expert_gating_func", buf, 128), "u32 1");
    assert_string_equal(fx_value(&m->kvs, "deepseek2.expert_weights_norm", buf, 128), "-");
    assert_string_equal(fx_value(&m->kvs, "deepseek2.attention.q_lora_rank", buf, 128), "-");
    assert_string_equal(fx_value(&m->kvs, "deepseek2.rope.scaling.yarn_log_multiplier", buf, 128),
                        "f32 0.0706999972");
    assert_string_equal(fx_value(&m->kvs, "general.size_label", buf, 128), "str '64x1.5B'");
    fx_close(ck, m);
}

static void test_qwen(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[128];

    (void)state;
    fx_must_open("tests/data/r1-distill-qwen-32b-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_string_equal(m->arch, "qwen2");
    assert_int_equal(m->n_tensors, 771);
    assert_true(m->n_params == 32763876352);
    assert_true(fx_tensor(m, "blk.63.attn_k.bias")->keep_f32);
    assert_int_equal(fx_tensor(m, "blk.63.attn_k.bias")->ne[0], 1024);
    assert_int_equal(fx_tensor(m, "blk.0.attn_q.weight")->transform, SL_COPY);
    assert_string_equal(fx_value(&m->kvs, "qwen2.rope.freq_base", buf, 128), "f32 1000000");
    assert_string_equal(fx_value(&m->kvs, "qwen2.attention.head_count_kv", buf, 128), "u32 8");
    assert_string_equal(fx_value(&m->kvs, "qwen2.vocab_size", buf, 128), "-");
    assert_string_equal(fx_value(&m->kvs, "qwen2.attention.key_length", buf, 128), "-");
    assert_string_equal(fx_value(&m->kvs, "qwen2.rope.dimension_count", buf, 128), "-");
    fx_close(ck, m);
}

static void test_qwen3(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    const struct sl_out_tensor *t;
    char buf[128];

    (void)state;
    fx_must_open("tests/data/r1-0528-qwen3-8b-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_string_equal(m->arch, "qwen3");
    assert_int_equal(m->n_tensors, 399);
    assert_true(m->n_params == 8190735360);
    assert_int_equal(fx_tensor(m, "blk.35.attn_q_norm.weight")->ne[0], 128);
    assert_true(fx_tensor(m, "blk.35.attn_k_norm.weight")->keep_f32);
    assert_string_equal(fx_value(&m->kvs, "qwen3.rope.scaling.yarn_attn_factor", buf, 128), "f32 0.87824887");
    assert_string_equal(fx_value(&m->kvs, "qwen3.rope.scaling.original_context_length", buf, 128), "u32 32768");
    assert_string_equal(fx_value(&m->kvs, "qwen3.attention.key_length", buf, 128), "u32 128");
    fx_close(ck, m);

    fx_must_open("tests/data/qwen3-235b-a22b-2507-fp8-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_string_equal(m->arch, "qwen3moe");
    assert_int_equal(m->n_tensors, 3 + 94 * 12);
    assert_true(m->n_params == 235093634560);
    t = fx_tensor(m, "blk.93.ffn_down_exps.weight");
    assert_int_equal(t->n_src, 128);
    assert_true(t->ne[0] == 1536 && t->ne[1] == 4096 && t->ne[2] == 128);
    assert_int_equal(m->src[t->first_src].dtype, SL_DTYPE_F8_E4M3);
    t = fx_tensor(m, "blk.93.ffn_gate_inp.weight");
    assert_true(t->keep_f32 && m->src[t->first_src].dtype == SL_DTYPE_BF16);
    assert_int_equal(fx_tensor(m, "blk.0.attn_output.weight")->ne[0], 8192);
    assert_string_equal(fx_value(&m->kvs, "qwen3moe.expert_count", buf, 128), "u32 128");
    assert_string_equal(fx_value(&m->kvs, "qwen3moe.expert_feed_forward_length", buf, 128), "u32 1536");
    assert_string_equal(fx_value(&m->kvs, "qwen3moe.expert_weights_norm", buf, 128), "-");
    assert_string_equal(fx_value(&m->kvs, "general.size_label", buf, 128), "str '128x10B'");
    fx_close(ck, m);
}

/* MiniMax-M2.5: 228,703,644,928 numbers were published, 13,880,064 of them scales; the keys are those that
 * llama.cpp shows of the converter's files. */
static void test_minimax(void **state)
{
    static const char *const want[][2] = {
        {"general.size_label", "str '256x4.9B'"}, {"minimax-m2.block_count", "u32 62"},
        {"minimax-m2.context_length", "u32 196608"}, {"minimax-m2.embedding_length", "u32 3072"},
        {"minimax-m2.feed_forward_length", "u32 1536"}, {"minimax-m2.attention.head_count", "u32 48"},
        {"minimax-m2.attention.head_count_kv", "u32 8"}, {"minimax-m2.rope.freq_base", "f32 5000000"},
        {"minimax-m2.attention.layer_norm_rms_epsilon", "f32 9.99999997e-07"}, {"minimax-m2.expert_count", "u32 256"},
        {"minimax-m2.expert_used_count", "u32 8"}, {"minimax-m2.expert_gating_func", "u32 2"},
        {"minimax-m2.attention.key_length", "u32 128"}, {"minimax-m2.attention.value_length", "u32 128"},
        {"minimax-m2.expert_feed_forward_length", "u32 1536"}, {"minimax-m2.rope.dimension_count", "u32 64"},
    };
    const struct sl_out_tensor *t;
    struct sl_checkpoint *ck;
    struct sl_model *m;
    uint64_t at;

    (void)state;
    fx_must_open("tests/data/minimax-m2.5-config.json", SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, 3 + 62 * 13);
    assert_int_equal(m->n_src, 3 + 62 * (10 + 3 * 256));
    assert_true(m->n_params == 228689764864);
    at = in_order(m, want, sizeof want / sizeof *want);
    assert_int_equal(at, (uint64_t)(sl_kvs_find(&m->kvs, want[1][0]) - m->kvs.kv) + sizeof want / sizeof *want - 2);
    t = fx_tensor(m, "blk.61.attn_q_norm.weight");
    assert_true(t->keep_f32 && t->n_dims == 1 && t->ne[0] == 6144);
    assert_int_equal(fx_tensor(m, "blk.61.attn_k_norm.weight")->ne[0], 1024);
    t = fx_tensor(m, "blk.0.ffn_down_exps.weight");
    assert_true(t->ne[0] == 1536 && t->ne[1] == 3072 && t->ne[2] == 256);
    assert_int_equal(m->src[t->first_src + 255].dtype, SL_DTYPE_F8_E4M3);
    t = fx_tensor(m, "blk.0.ffn_gate_inp.weight");
    assert_true(t->keep_f32 && m->src[t->first_src].dtype == SL_DTYPE_F32);
    assert_true(fx_tensor(m, "blk.0.exp_probs_b.bias")->keep_f32);
    fx_close(ck, m);
}

/* Llama 3's scaling in the closed form of its publication, in long double: a
 * float32 computation in other steps stays within a few units of the last place. */
static long double freq_factor(int j)
{
    long double wavelen = 2 * acosl(-1.0L) * powl(500000.0L, 2.0L * j / 128);
    long double smooth = (8192 / wavelen - 1) / 3;

    if (wavelen < 2048)
        return 1;
    return wavelen > 8192 ? 8 : 1 / ((1 - smooth) / 8 + smooth);
}

static void llama_is(const char *path, uint32_t tensors, uint64_t params, uint32_t heads)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    const struct sl_out_tensor *t;
    char buf[128];
    int between = 0;

    fx_must_open(path, SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, tensors);
    assert_true(m->n_params == params);
    t = fx_tensor(m, "rope_freqs.weight");
    assert_int_equal(t->transform, SL_INLINE);
    assert_int_equal(t->n_src, 0);
    assert_int_equal(t->ne[0], 64);
    assert_true(t->keep_f32);
    for (int j = 0; j < 64; j++) {
        long double want = freq_factor(j);

        assert_true(fabsl((long double)t->values[j] - want) <= want * 1e-5L);
        between += t->values[j] > 1 && t->values[j] < 8;
        if (want == 1 || want == 8)
            assert_true((long double)t->values[j] == want);
    }
    assert_int_equal(between, 6);
    t = fx_tensor(m, "blk.0.attn_q.weight");
    assert_int_equal(t->transform, SL_PERMUTE);
    assert_int_equal(t->heads, heads);
    assert_int_equal(fx_tensor(m, "blk.0.attn_k.weight")->heads, 8);
    assert_int_equal(fx_tensor(m, "blk.0.attn_v.weight")->transform, SL_COPY);
    assert_string_equal(fx_value(&m->kvs, "llama.rope.dimension_count", buf, 128), "u32 128");
    assert_string_equal(fx_value(&m->kvs, "llama.vocab_size", buf, 128), "u32 128256");
    assert_string_equal(fx_value(&m->kvs, "llama.rope.scaling.type", buf, 128), "-");
    fx_close(ck, m);
}

static void test_llama(void **state)
{
    (void)state;
    llama_is("tests/data/r1-distill-llama-8b-config.json", 292, 8030261248 + 64, 32);
    llama_is("tests/data/r1-distill-llama-70b-config.json", 724, 70553706496 + 64, 64);
}

#define V3 ",\"model_type\":\"deepseek_v3\""

/* A small model of the class with these entries besides. */
static void open_entries(const char *class, const char *more, struct sl_checkpoint **ck, struct sl_model **m)
{
    char path[] = "/tmp/sluice-config-XXXXXX.json";
    FILE *f = fdopen(mkstemps(path, 5), "w");

    assert_non_null(f);
    fprintf(f, "{\"architectures\":[\"%s\"],\"num_hidden_layers\":4,\"hidden_size\":1024,\"intermediate_size\":512,"
            "\"num_attention_heads\":64,\"vocab_size\":300%s}", class, more);
    assert_int_equal(fclose(f), 0);
    fx_must_open(path, SL_LAYOUT_MLA, ck, m);
    unlink(path);
}

/* A head_dim, be it the configuration class's own, moves two keys up; null does not. */
static void test_head_dim_moves_keys(void **state)
{
    static const struct { const char *more; bool early; } cases[] = {
        {V3, true}, {V3 ",\"head_dim\":64", true}, {V3 ",\"head_dim\":null", false},
        {"", false}, {",\"head_dim\":64", true}, {",\"head_dim\":null", false},
    };
    char more[100];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_checkpoint *ck;
        struct sl_model *m;

        snprintf(more, sizeof more, ",\"n_routed_experts\":256%s", cases[i].more);
        open_entries("DeepseekV3ForCausalLM", more, &ck, &m);
        assert_int_equal(sl_kvs_find(&m->kvs, "deepseek2.attention.key_length") <
                         sl_kvs_find(&m->kvs, "deepseek2.leading_dense_block_count"), cases[i].early);
        fx_close(ck, m);
    }
}

/* What configuration classes of Transformers 4.57 and 5.23 take for entries that are absent. */
static const struct { const char *class, *more, *want[12][2]; } absent_cases[] = {
    {"LlamaForCausalLM", "",
     {{"llama.context_length", "u32 2048"}, {"llama.attention.layer_norm_rms_epsilon", "f32 9.99999997e-07"},
      {"llama.rope.freq_base", "f32 10000"}, {"llama.attention.head_count_kv", "u32 64"},
      {"llama.attention.key_length", "u32 16"}, {"llama.attention.value_length", "u32 16"}}},
    {"Qwen2ForCausalLM", "",
     {{"qwen2.context_length", "u32 32768"}, {"qwen2.attention.layer_norm_rms_epsilon", "f32 9.99999997e-07"},
      {"qwen2.rope.freq_base", "f32 10000"}, {"qwen2.attention.head_count_kv", "u32 32"},
      {"qwen2.attention.key_length", "-"}}},
    {"Qwen2ForCausalLM", ",\"head_dim\":32", {{"qwen2.attention.key_length", "u32 32"}, {"qwen2.attention.value_length", "u32 32"}}},
    {"Qwen3ForCausalLM", "", {{"qwen3.attention.head_count_kv", "u32 32"}, {"qwen3.attention.key_length", "u32 128"}}},
    {"Qwen3ForCausalLM", ",\"head_dim\":null,\"num_key_value_heads\":null",
     {{"qwen3.attention.head_count_kv", "u32 64"}, {"qwen3.attention.key_length", "-"}}},
    {"Qwen3MoeForCausalLM", ",\"num_experts\":16,\"moe_intermediate_size\":64,\"decoder_sparse_step\":1,\"mlp_only_layers\":null",
     {{"qwen3moe.attention.head_count_kv", "u32 4"}, {"qwen3moe.expert_used_count", "u32 8"}, {"qwen3moe.attention.key_length", "-"}}},
    {"Qwen3MoeForCausalLM", ",\"num_local_experts\":12,\"num_experts\":0,\"moe_intermediate_size\":64,\"shared_expert_intermediate_size\":0",
     {{"qwen3moe.expert_count", "u32 12"}, {"qwen3moe.expert_feed_forward_length", "u32 64"},
      {"qwen3moe.expert_shared_feed_forward_length", "u32 0"}}},
    {"Qwen2ForCausalLM", ",\"num_key_value_heads\":null", {{"qwen2.attention.head_count_kv", "u32 64"}}},
    {"DeepseekV3ForCausalLM", ",\"n_routed_experts\":256" V3,
     {{"deepseek2.context_length", "u32 4096"}, {"deepseek2.attention.q_lora_rank", "u32 1536"},
      {"deepseek2.attention.kv_lora_rank", "u32 512"}, {"deepseek2.attention.key_length_mla", "u32 192"},
      {"deepseek2.attention.value_length_mla", "u32 128"}, {"deepseek2.rope.dimension_count", "u32 64"},
      {"deepseek2.leading_dense_block_count", "u32 3"}, {"deepseek2.expert_used_count", "u32 8"},
      {"deepseek2.expert_shared_count", "u32 1"}, {"deepseek2.expert_feed_forward_length", "u32 2048"},
      {"deepseek2.expert_weights_scale", "f32 2.5"}, {"deepseek2.expert_weights_norm", "bool true"}}},
    {"DeepseekV3ForCausalLM", ",\"n_routed_experts\":256,\"q_lora_rank\":null" V3,
     {{"deepseek2.attention.q_lora_rank", "-"}, {"deepseek2.rope.freq_base", "f32 10000"},
      {"deepseek2.attention.layer_norm_rms_epsilon", "f32 9.99999997e-07"}, {"deepseek2.expert_gating_func", "u32 2"}}},
    {"DeepseekV2ForCausalLM", ",\"n_routed_experts\":8,\"model_type\":\"deepseek_v2\"", {{"deepseek2.expert_gating_func", "-"}}},
    {"DeepseekV3ForCausalLM", ",\"n_routed_experts\":8,\"model_type\":\"kimi_k2\"",
     {{"deepseek2.context_length", "-"}, {"deepseek2.attention.q_lora_rank", "-"},
      {"deepseek2.leading_dense_block_count", "u32 0"}, {"deepseek2.expert_used_count", "-"},
      {"deepseek2.expert_shared_count", "u32 0"}, {"deepseek2.expert_feed_forward_length", "u32 512"},
      {"deepseek2.expert_weights_scale", "-"}, {"deepseek2.attention.kv_lora_rank", "u32 512"}}},
    /* Without model_type no class reads it: experts from layer 0 on, or none at all. */
    {"DeepseekV3ForCausalLM", ",\"n_routed_experts\":8",
     {{"deepseek2.context_length", "-"}, {"deepseek2.leading_dense_block_count", "u32 0"},
      {"deepseek2.expert_count", "u32 8"}, {"deepseek2.expert_shared_count", "u32 0"}}},
    {"DeepseekV3ForCausalLM", "", {{"deepseek2.leading_dense_block_count", "u32 4"}, {"deepseek2.expert_count", "-"}}},
    {"DeepseekV3ForCausalLM", ",\"n_routed_experts\":null,\"num_experts\":0" V3, {{"deepseek2.expert_count", "u32 0"}}},
    {"DeepseekV3ForCausalLM", ",\"n_routed_experts\":null" V3,
     {{"deepseek2.leading_dense_block_count", "u32 4"}, {"deepseek2.expert_count", "-"},
      {"deepseek2.expert_feed_forward_length", "u32 512"}}},
    {"Qwen2ForCausalLM", ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}",
     {{"qwen2.rope.scaling.type", "-"}, {"qwen2.rope.scaling.factor", "-"}, {"qwen2.rope.freq_base", "f32 10000"}}},
    {"Qwen2ForCausalLM", ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":5000}}",
     {{"qwen2.rope.scaling.type", "str 'linear'"}, {"qwen2.rope.freq_base", "f32 5000"}}},
    {"LlamaForCausalLM", ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2},\"original_max_position_embeddings\":64",
     {{"llama.rope.scaling.type", "str 'yarn'"}, {"llama.rope.scaling.original_context_length", "u32 64"}}},
    {"LlamaForCausalLM", ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":64,\"attn_factor\":1.5}",
     {{"llama.rope.scaling.yarn_attn_factor", "f32 1.5"}}},
    {"LlamaForCausalLM", ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":64,\"attn_factor\":1.5,"
     "\"attention_factor\":null}", {{"llama.rope.scaling.yarn_attn_factor", "-"}}},
    /* What says nothing of the architecture, and yet is passed on; the first name decides. */
    {"Qwen2ForCausalLM", ",\"num_experts\":0,\"top_k_experts\":0,\"layer_norm_epsilon\":1e-5",
     {{"qwen2.expert_count", "u32 0"}, {"qwen2.expert_used_count", "u32 0"},
      {"qwen2.attention.layer_norm_epsilon", "f32 9.99999975e-06"}}},
    {"LlamaForCausalLM", ",\"num_local_experts\":null,\"num_experts\":0,\"layer_norm_eps\":null,\"norm_epsilon\":1",
     {{"llama.expert_count", "-"}, {"llama.attention.layer_norm_epsilon", "-"}}},
    {"LlamaForCausalLM", ",\"quantization_config\":{}", {{"llama.block_count", "u32 4"}}},
    {"LlamaForCausalLM", ",\"is_causal\":true", {{"llama.attention.causal", "-"}}},
    {"LlamaForCausalLM", ",\"is_causal\":false", {{"llama.attention.causal", "bool false"}}},
    {"DeepseekV3ForCausalLM", ",\"n_routed_experts\":8,\"num_experts\":0,\"norm_epsilon\":1",
     {{"deepseek2.expert_count", "u32 8"}, {"deepseek2.attention.layer_norm_epsilon", "f32 1"}}},
    {"MiniMaxM2ForCausalLM", ",\"rotary_dim\":4,\"num_local_experts\":8,\"num_experts_per_tok\":2,\"head_dim\":8,\"max_position_embeddings\":64,"
     "\"num_key_value_heads\":2,\"rms_norm_eps\":1e-6,\"n_group\":2,\"topk_group\":1,\"rope_parameters\":{\"rope_theta\":1e6}",
     {{"minimax-m2.expert_gating_func", "u32 2"}, {"minimax-m2.expert_group_count", "u32 2"},
      {"minimax-m2.expert_group_used_count", "u32 1"}}}, /* the converter writes no function, and llama.cpp would abort */
    /* GLM-5 has no indexer_types; llama.cpp takes sigmoid where nothing is said. */
    {"GlmMoeDsaForCausalLM", ",\"n_routed_experts\":8,\"q_lora_rank\":64,\"index_n_heads\":2,\"index_head_dim\":8,\"index_topk\":4,"
     "\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\",\"partial_rotary_factor\":1.0}",
     {{"glm-dsa.expert_gating_func", "-"}, {"glm-dsa.attention.indexer.types", "-"}, {"glm-dsa.rope.freq_base", "f32 1000000"},
      {"glm-dsa.attention.indexer.top_k", "u32 4"}, {"glm-dsa.nextn_predict_layers", "-"}, {"glm-dsa.rope.scaling.type", "-"}}},
    {"Glm4MoeForCausalLM", ",\"model_type\":\"glm4_moe\"",
     {{"glm4moe.context_length", "u32 131072"}, {"glm4moe.attention.layer_norm_rms_epsilon", "f32 9.99999975e-06"},
      {"glm4moe.attention.head_count_kv", "u32 8"}, {"glm4moe.attention.key_length", "-"}, {"glm4moe.rope.dimension_count", "u32 8"},
      {"glm4moe.expert_count", "u32 128"}, {"glm4moe.expert_used_count", "u32 8"}, {"glm4moe.expert_group_count", "u32 1"},
      {"glm4moe.expert_shared_count", "u32 1"}, {"glm4moe.expert_feed_forward_length", "u32 1408"},
      {"glm4moe.leading_dense_block_count", "u32 1"}, {"glm4moe.expert_weights_norm", "bool true"}}},
    {"Glm4MoeForCausalLM", ",\"n_routed_experts\":8,\"num_experts_per_tok\":2,\"n_shared_experts\":1,\"moe_intermediate_size\":64,"
     "\"routed_scaling_factor\":null,\"norm_topk_prob\":false,\"num_nextn_predict_layers\":0,\"num_experts\":0",
     {{"glm4moe.expert_count", "u32 8"}, {"glm4moe.context_length", "-"}, {"glm4moe.expert_group_count", "-"}, {"glm4moe.leading_dense_block_count", "-"},
      {"glm4moe.expert_weights_scale", "-"}, {"glm4moe.expert_weights_norm", "bool false"}, {"glm4moe.nextn_predict_layers", "u32 0"},
      {"glm4moe.expert_gating_func", "u32 2"}, {"glm4moe.block_count", "u32 4"}}},
};

static void test_absent_entries(void **state)
{
    char buf[128];

    (void)state;
    for (size_t i = 0; i < sizeof absent_cases / sizeof *absent_cases; i++) {
        struct sl_checkpoint *ck;
        struct sl_model *m;

        open_entries(absent_cases[i].class, absent_cases[i].more, &ck, &m);
        for (int k = 0; k < 12 && absent_cases[i].want[k][0]; k++)
            assert_string_equal(fx_value(&m->kvs, absent_cases[i].want[k][0], buf, 128), absent_cases[i].want[k][1]);
        fx_close(ck, m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_r1), cmocka_unit_test(test_r1_sources), cmocka_unit_test(test_v2_lite),
        cmocka_unit_test_setup_teardown(test_glm_flash, fx_setup, fx_teardown),
        cmocka_unit_test(test_kimi_k2), cmocka_unit_test(test_v32), cmocka_unit_test(test_glm),
        cmocka_unit_test(test_qwen), cmocka_unit_test(test_qwen3), cmocka_unit_test(test_minimax), cmocka_unit_test(test_llama),
        cmocka_unit_test(test_absent_entries), cmocka_unit_test(test_head_dim_moves_keys),
    };

    return cmocka_run_group_tests_name("models from config.json", tests, NULL, NULL);
}
