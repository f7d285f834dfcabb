/* The model of tests/tiny-v3 against the names that llama.cpp's own files of it
 * have, and against its metadata written out. */
#include "tests/unit/model_fixture.h"

#include "proto/tokenizer.h"

#define TINY "tests/tiny-v3"

static void names_are_golden(enum sl_layout layout, const char *path, uint32_t n)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char line[256], *name;
    uint32_t i = 0;
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    fx_must_open(TINY, layout, &ck, &m);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        name = strchr(line, ':');
        if (!name)
            continue;
        assert_true(i < m->n_tensors);
        assert_string_equal(m->tensors[i].name, name + 1);
        i++;
    }
    fclose(f);
    assert_int_equal(i, n);
    assert_int_equal(m->n_tensors, n);
    assert_true(m->n_params == 20400664);
    fx_close(ck, m);
}

static void test_names_legacy(void **state)
{
    (void)state;
    names_are_golden(SL_LAYOUT_LEGACY, TINY "/golden/legacy/F16.xxh64", 66);
}

static void test_names_mla(void **state)
{
    (void)state;
    names_are_golden(SL_LAYOUT_MLA, TINY "/golden/mla/F16.xxh64", 70);
}

struct key {
    const char *key, *mla, *legacy; /* legacy NULL: as mla; "-": absent */
};

static const struct key keys[] = {
    {"general.architecture", "str 'deepseek2'", NULL},
    {"general.type", "str 'model'", NULL},
    {"general.sampling.top_p", "f32 0.949999988", NULL},
    {"general.sampling.temp", "f32 0.600000024", NULL},
    {"general.name", "str 'Tiny v3'", NULL},
    {"general.version", "str 'v3'", NULL},
    {"general.basename", "str 'tiny'", NULL},
    {"general.size_label", "str '8x12M'", NULL},
    {"deepseek2.block_count", "u32 4", NULL},
    {"deepseek2.context_length", "u32 163840", NULL},
    {"deepseek2.embedding_length", "u32 512", NULL},
    {"deepseek2.feed_forward_length", "u32 1024", NULL},
    {"deepseek2.attention.head_count", "u32 8", NULL},
    {"deepseek2.attention.head_count_kv", "u32 1", "u32 8"},
    {"deepseek2.rope.scaling.type", "str 'yarn'", NULL},
    {"deepseek2.rope.scaling.factor", "f32 40", NULL},
    {"deepseek2.rope.scaling.original_context_length", "u32 4096", NULL},
    {"deepseek2.rope.scaling.yarn_beta_fast", "f32 32", NULL},
    {"deepseek2.rope.scaling.yarn_beta_slow", "f32 1", NULL},
    {"deepseek2.rope.freq_base", "f32 10000", NULL},
    {"deepseek2.attention.layer_norm_rms_epsilon", "f32 9.99999997e-07", NULL},
    {"deepseek2.expert_count", "u32 8", NULL},
    {"deepseek2.expert_used_count", "u32 2", NULL},
    {"deepseek2.expert_group_count", "u32 2", NULL},
    {"deepseek2.expert_group_used_count", "u32 1", NULL},
    {"deepseek2.expert_gating_func", "u32 2", NULL},
    {"deepseek2.attention.key_length", "u32 288", "u32 96"},
    {"deepseek2.attention.value_length", "u32 256", "u32 64"},
    {"deepseek2.leading_dense_block_count", "u32 1", NULL},
    {"deepseek2.vocab_size", "u32 4096", NULL},
    {"deepseek2.attention.q_lora_rank", "u32 256", NULL},
    {"deepseek2.attention.kv_lora_rank", "u32 256", NULL},
    {"deepseek2.attention.key_length_mla", "u32 96", "-"},
    {"deepseek2.attention.value_length_mla", "u32 64", "-"},
    {"deepseek2.expert_feed_forward_length", "u32 256", NULL},
    {"deepseek2.expert_shared_count", "u32 1", NULL},
    {"deepseek2.expert_weights_scale", "f32 2.5", NULL},
    {"deepseek2.expert_weights_norm", "bool true", NULL},
    {"deepseek2.rope.dimension_count", "u32 32", NULL},
    {"deepseek2.rope.scaling.yarn_log_multiplier", "f32 0.100000001", NULL},
    {"tokenizer.ggml.model", "str 'gpt2'", NULL},
    {"tokenizer.ggml.pre", "str 'deepseek-v3'", NULL},
    {"tokenizer.ggml.tokens",
     "arr[str] n=4096 '<｜begin▁of▁sentence｜>' '<｜end▁of▁sentence｜>' '<｜▁pad▁｜>' '!'", NULL},
    {"tokenizer.ggml.token_type", "arr[i32] n=4096 3 3 3 1", NULL},
    {"tokenizer.ggml.merges", "arr[str] n=3832 'Ġ Ġ' 'Ġ t' '- -' 'h e'", NULL},
    {"tokenizer.ggml.bos_token_id", "u32 0", NULL},
    {"tokenizer.ggml.eos_token_id", "u32 1", NULL},
    {"tokenizer.ggml.padding_token_id", "u32 1", NULL},
    {"tokenizer.ggml.add_bos_token", "bool true", NULL},
    {"tokenizer.ggml.add_eos_token", "bool false", NULL},
    {"tokenizer.chat_template", NULL, NULL}, /* long: its presence and place */
};

static void keys_are(enum sl_layout layout)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char buf[4096];
    uint64_t at = 0;

    fx_must_open(TINY, layout, &ck, &m);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *want = layout == SL_LAYOUT_LEGACY && keys[i].legacy ? keys[i].legacy : keys[i].mla;

        if (want && strcmp(want, "-") == 0) {
            assert_null(sl_kvs_find(&m->kvs, keys[i].key));
            continue;
        }
        assert_true(at < m->kvs.n);
        assert_string_equal(m->kvs.kv[at].key, keys[i].key);
        fx_kv_text(&m->kvs.kv[at++], buf, sizeof buf);
        if (want)
            assert_string_equal(buf, want);
    }
    assert_int_equal(at, m->kvs.n);
    assert_string_equal(m->base_name, "tiny-8x12M-v3");
    assert_string_equal(m->model_name, "Tiny v3");
    fx_close(ck, m);
}

static void test_keys(void **state)
{
    (void)state;
    keys_are(SL_LAYOUT_MLA);
    keys_are(SL_LAYOUT_LEGACY);
}

static void assert_ne(const struct sl_out_tensor *t, uint32_t n_dims, uint64_t a, uint64_t b,
                      uint64_t c)
{
    assert_non_null(t);
    assert_int_equal(t->n_dims, n_dims);
    assert_int_equal(t->ne[0], a);
    assert_int_equal(t->ne[1], b);
    assert_int_equal(t->ne[2], c);
    assert_int_equal(t->ne[3], 1);
    assert_int_equal(t->elems, a * b * c);
}

static void test_sources(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    const struct sl_out_tensor *t;
    const struct sl_model_src *s;
    char name[64];

    (void)state;
    fx_must_open(TINY, SL_LAYOUT_MLA, &ck, &m);
    t = fx_tensor(m, "blk.1.ffn_down_exps.weight");
    assert_ne(t, 3, 256, 512, 8);
    assert_int_equal(t->transform, SL_COPY);
    assert_int_equal(t->n_src, 8);
    assert_false(t->keep_f32);
    for (uint32_t x = 0; x < 8; x++) {
        s = &m->src[t->first_src + x];
        snprintf(name, sizeof name, "model.layers.1.mlp.experts.%u.down_proj.weight", x);
        assert_string_equal(ck->tensors[s->tensor].name, name);
        assert_int_equal(s->dtype, SL_DTYPE_F8_E4M3);
        assert_int_equal(s->rows, 512);
        assert_int_equal(s->cols, 256);
        strcat(name, "_scale_inv");
        assert_string_equal(ck->tensors[s->scale.tensor].name, name);
        assert_int_equal(s->scale.rows, 4);
        assert_int_equal(s->scale.cols, 2);
    }
    t = fx_tensor(m, "blk.0.attn_k_b.weight");
    assert_ne(t, 3, 64, 256, 8);
    assert_int_equal(t->transform, SL_K_B);
    assert_int_equal(t->heads, 8);
    assert_int_equal(t->nope, 64);
    assert_int_equal(t->v_dim, 64);
    assert_int_equal(t->lora, 256);
    assert_int_equal(m->src[t->first_src].rows, 1024);
    assert_ne(fx_tensor(m, "blk.0.attn_v_b.weight"), 3, 256, 64, 8);
    assert_int_equal(fx_tensor(m, "blk.0.attn_v_b.weight")->transform, SL_V_B);
    t = fx_tensor(m, "blk.3.attn_kv_a_mqa.weight");
    assert_ne(t, 2, 512, 288, 1);
    assert_int_equal(m->src[t->first_src].scale.rows, 3);
    t = fx_tensor(m, "blk.3.exp_probs_b.bias");
    assert_ne(t, 1, 8, 1, 1);
    assert_true(t->keep_f32);
    assert_int_equal(m->src[t->first_src].dtype, SL_DTYPE_F32);
    assert_int_equal(m->src[t->first_src].scale.tensor, SL_NO_TENSOR);
    assert_true(fx_tensor(m, "blk.1.ffn_gate_inp.weight")->keep_f32);
    assert_true(fx_tensor(m, "blk.1.attn_q_a_norm.weight")->keep_f32);
    assert_false(fx_tensor(m, "token_embd.weight")->keep_f32);
    fx_close(ck, m);
}

static void test_hparams(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;

    (void)state;
    fx_must_open(TINY, SL_LAYOUT_MLA, &ck, &m);
    assert_string_equal(m->arch, "deepseek2");
    assert_int_equal(m->hp.n_layer, 4);
    assert_int_equal(m->hp.n_layer_dense, 1);
    assert_int_equal(m->hp.n_head, 8);
    assert_int_equal(m->hp.n_head_kv, 1);
    assert_int_equal(m->hp.n_expert, 8);
    assert_int_equal(m->hp.kv_lora, 256);
    assert_int_equal(m->hp.rope_dim, 32);
    assert_int_equal(m->hp.head_k, 96);
    assert_int_equal(m->hp.head_v, 64);
    assert_int_equal(m->hp.n_vocab, 4096);
    fx_close(ck, m);
}

/* Added tokens that look special are control tokens though they are not marked. */
static void test_tokens(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    const struct sl_kv *tokens, *types;

    (void)state;
    fx_must_open(TINY, SL_LAYOUT_MLA, &ck, &m);
    tokens = sl_kvs_find(&m->kvs, "tokenizer.ggml.tokens");
    types = sl_kvs_find(&m->kvs, "tokenizer.ggml.token_type");
    assert_string_equal(tokens->strs[4091], "<｜User｜>");
    assert_int_equal(((const int32_t *)types->data)[4091], SL_TOKEN_CONTROL);
    assert_int_equal(((const int32_t *)types->data)[4095], SL_TOKEN_CONTROL);
    assert_int_equal(((const int32_t *)types->data)[4090], SL_TOKEN_NORMAL);
    fx_close(ck, m);
}

static void test_order(void **state)
{
    static const char *const sorted[] = {
        "output.weight", "output_norm.weight", "token_embd.weight", "blk.0.a", "blk.0.b", "blk.2.a",
        "blk.10.a", "blk.10.b",
    };

    (void)state;
    for (size_t i = 0; i < sizeof sorted / sizeof *sorted; i++)
        for (size_t k = 0; k < sizeof sorted / sizeof *sorted; k++) {
            int c = sl_tensor_name_cmp(sorted[i], sorted[k]);

            assert_int_equal((c > 0) - (c < 0), (i > k) - (i < k));
        }
    assert_true(sl_tensor_name_cmp("blk.99999999999999999999.a", "blk.1.a") > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_legacy), cmocka_unit_test(test_names_mla),
        cmocka_unit_test(test_keys), cmocka_unit_test(test_sources), cmocka_unit_test(test_hparams),
        cmocka_unit_test(test_tokens), cmocka_unit_test(test_order),
    };

    return cmocka_run_group_tests_name("model of tiny-v3", tests, NULL, NULL);
}
