/* Mistral's params.json: which entries are needed, and what becomes of a model without the others. */
#include "tests/unit/model_fixture.h"

#include <cjson/cJSON.h>

/* Opens the published one without an entry; "moe.": below that. Returns sl_model_open's code. */
static int without(const char *dir, const char *entry, struct sl_checkpoint **ck, struct sl_model **m, struct sl_error *e)
{
    char *text = fx_read("tests/data/mistral-large-3-params.json"), *changed, path[512];
    cJSON *params = cJSON_Parse(text), *at = params;

    if (strncmp(entry, "moe.", 4) == 0) {
        at = cJSON_GetObjectItemCaseSensitive(params, "moe");
        entry += 4;
    }
    assert_true(cJSON_HasObjectItem(at, entry));
    cJSON_DeleteItemFromObjectCaseSensitive(at, entry);
    changed = cJSON_Print(params);
    fx_text(dir, "params.json", changed);
    cJSON_free(changed);
    cJSON_Delete(params);
    free(text);
    snprintf(path, sizeof path, "%s/params.json", dir);
    return fx_open(path, SL_LAYOUT_MLA, ck, m, e);
}

static void needed_entries(void **state)
{
    static const char *const needed[] = {
        "dim", "n_layers", "hidden_dim", "n_heads", "vocab_size", "rope_theta", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
        "qk_rope_head_dim", "v_head_dim", "yarn", "moe.num_experts", "moe.num_experts_per_tok", "moe.expert_hidden_dim",
    };

    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        struct sl_checkpoint *ck;
        struct sl_model *m;
        struct sl_error e;
        char want[96];

        snprintf(want, sizeof want, "no \"%s\": of models in Mistral's own format", needed[i]);
        assert_int_equal(without(*state, needed[i], &ck, &m, &e), SL_EUNSUPPORTED);
        assert_non_null(strstr(e.text, want));
    }
}

/* The others, and what a key says without them. */
static void other_entries(void **state)
{
    static const struct { const char *entry, *key, *value; } others[] = {
        {"max_position_embeddings", "deepseek2.context_length", "u32 128000"},
        {"llama_4_scaling", "deepseek2.attention.temperature_scale", "-"},
        {"head_dim", "deepseek2.attention.key_length", "u32 576"},
        {"n_kv_heads", "deepseek2.attention.head_count_kv", "u32 1"},
        {"norm_eps", "deepseek2.attention.layer_norm_rms_epsilon", "f32 9.99999997e-07"},
        {"tied_embeddings", "deepseek2.vocab_size", "u32 131072"},
        {"vision_encoder", "deepseek2.vocab_size", "u32 131072"},
        {"moe.num_expert_groups", "deepseek2.expert_group_count", "-"},
        {"moe.num_expert_groups_per_tok", "deepseek2.expert_group_used_count", "-"},
        {"moe.first_k_dense_replace", "deepseek2.leading_dense_block_count", "u32 0"},
        {"moe.num_shared_experts", "deepseek2.expert_shared_count", "u32 0"},
        {"moe.routed_scale", "deepseek2.expert_weights_scale", "-"},
    };
    char buf[96];

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct sl_checkpoint *ck;
        struct sl_model *m;
        struct sl_error e;

        if (without(*state, others[i].entry, &ck, &m, &e) < 0)
            fail_msg("%s: %s", others[i].entry, e.text);
        assert_string_equal(fx_value(&m->kvs, others[i].key, buf, sizeof buf), others[i].value);
        fx_close(ck, m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(needed_entries, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(other_entries, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("params.json", tests, NULL, NULL);
}
