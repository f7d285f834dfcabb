/* Entries of config.json with one meaning and several names: where both are there, the later one counts. */
#include "tests/unit/model_fixture.h"

static void the_later_entry_counts(void **state)
{
    static const struct { const char *config, *more, *key, *want; } cases[] = {
        {"ernie-4.5-300b-a47b", "\"num_experts\":32", "ernie4_5-moe.expert_count", "u32 32"},
        {"ernie-4.5-300b-a47b", "\"num_experts_per_tok\":4", "ernie4_5-moe.expert_used_count", "u32 4"},
        {"hy3-fp8", "\"num_local_experts\":96", "hy_v3.expert_count", "u32 96"},
        {"k-exaone-236b-a23b", "\"num_local_experts\":64", "exaone-moe.expert_count", "u32 64"},
        {"k-exaone-236b-a23b", "\"first_last_k_dense_replace\":3", "exaone-moe.leading_dense_block_count", "u32 1"},
        {"ling-1t-fp8", "\"num_local_experts\":128", "bailingmoe2.expert_count", "u32 128"},
        {"qwen3-235b-a22b-2507-fp8", "\"num_local_experts\":64", "qwen3moe.expert_count", "u32 64"},
    };
    char name[64], buf[64];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_checkpoint *ck;
        struct sl_model *m;

        snprintf(name, sizeof name, "%s-config.json", cases[i].config);
        fx_open_with(*state, name, cases[i].more, &ck, &m);
        assert_string_equal(fx_value(&m->kvs, cases[i].key, buf, sizeof buf), cases[i].want);
        fx_close(ck, m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_later_entry_counts, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("entries of several names", tests, NULL, NULL);
}
