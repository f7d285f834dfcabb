/* Every tensor of DeepSeek-V3 under every mixture, against what llama.cpp's own
 * code gave (tests/data), and the rules that DeepSeek does not reach. */
#include "proto/mixture.h"
#include "proto/recipe.h"
#include "tests/unit/r1_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void check_group(const struct r1_group *g, const char *recipe_text)
{
    struct sl_recipe_opts o = {.output_type = -1, .embedding_type = -1, .any_type = true};
    struct sl_recipe *r;
    struct sl_error e = {0};
    int types[1200];
    uint32_t n_fallback;

    o.has_imatrix = g->imatrix[0] == '1';
    o.rules_2025 = strncmp(g->version, "aug2026", 7) != 0;
    if (recipe_text)
        assert_int_equal(sl_recipe_parse(g->ftype, g->ftype, recipe_text, &r, &e), 0);
    else
        assert_int_equal(sl_recipe_load(g->ftype, &r, &e), 0);
    assert_int_equal(sl_recipe_assign(r, &g->model, &o, types, &n_fallback, &e), 0);
    for (uint32_t i = 0; i < g->model.n_tensors; i++)
        if (types[i] != g->types[i])
            fail_msg("%s %s %s imatrix %s: %s is %s, expected %s", g->version, g->layout, g->ftype,
                     g->imatrix, g->tensors[i].name, sl_type_info(types[i])->name,
                     sl_type_info(g->types[i])->name);
    sl_recipe_close(r);
}

/* Names of stock recipes that are the paper's and not llama.cpp's mixtures. */
static bool own_recipe(const char *ftype)
{
    return strcmp(ftype, "Q4_K_M") == 0 || strcmp(ftype, "Q3_K_M") == 0;
}

static void test_deepseek(void **state)
{
    FILE *f = r1_open();
    char line[512] = "";
    struct r1_group g;
    int groups = 0, unsloth = 0, stock = 0;

    (void)state;
    assert_non_null(f);
    while (r1_next(f, &g, line, sizeof line) == 0) {
        char text[64];

        if (strncmp(g.ftype, "UD-", 3) == 0) {
            check_group(&g, NULL);
            unsloth++;
        } else {
            snprintf(text, sizeof text, "mixture %s\n", g.ftype);
            check_group(&g, text);
            stock += own_recipe(g.ftype) ? 0 : (check_group(&g, NULL), 1);
        }
        groups++;
        r1_free(&g);
    }
    r1_free(&g);
    assert_int_equal(pclose(f), 0);
    assert_int_equal(unsloth, 4);
    assert_true(stock >= 80);
    assert_true(groups >= 100);
}

/* A dense or Mixtral-like model of n layers with the usual seven matrices. */
static struct sl_model *small_model(const char *arch, uint32_t n, uint64_t heads, uint64_t kv,
                                    uint64_t experts, bool tied)
{
    static const char *const parts[] = {"attn_k", "attn_output", "attn_q", "attn_v", "ffn_down",
                                        "ffn_gate", "ffn_up"};
    struct sl_model *m = calloc(1, sizeof *m);
    struct sl_out_tensor *t = calloc(7 * n + 2, sizeof *t);

    m->arch = arch;
    m->hp = (struct sl_hparams){.n_layer = n, .n_head = heads, .n_head_kv = kv,
                                .n_expert = experts};
    m->tensors = t;
    if (!tied)
        r1_tensor(&t[m->n_tensors++], "output.weight", "4096x32000");
    r1_tensor(&t[m->n_tensors++], "token_embd.weight", "4096x32000");
    for (uint32_t l = 0; l < n; l++)
        for (int k = 0; k < 7; k++) {
            char name[64];

            snprintf(name, sizeof name, "blk.%u.%s%s.weight", l, parts[k],
                     experts && k >= 4 ? "_exps" : "");
            r1_tensor(&t[m->n_tensors++], name, "4096x4096");
        }
    return m;
}

static void free_small(struct sl_model *m)
{
    free(m->tensors);
    free(m);
}

/* The types of one tensor name over all layers, as a word: q4_k=4, q6_k=6, ... */
static const char *word_of(struct sl_model *m, const char *recipe, const char *part,
                           const struct sl_recipe_opts *o)
{
    static char word[128];
    struct sl_recipe *r;
    struct sl_error e = {0};
    int types[700];
    uint32_t nf;
    size_t n = 0;

    assert_int_equal(sl_recipe_load(recipe, &r, &e), 0);
    if (sl_recipe_assign(r, m, o, types, &nf, &e) < 0)
        fail_msg("%s", e.text);
    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (strstr(m->tensors[i].name, part)) {
            const char *s = sl_type_info(types[i])->name;

            word[n++] = s[strcspn(s, "0123456789")];
        }
    word[n] = '\0';
    sl_recipe_close(r);
    return word;
}

static const struct sl_recipe_opts plain = {.output_type = -1, .embedding_type = -1};
static const struct sl_recipe_opts weighted = {.output_type = -1, .embedding_type = -1, .has_imatrix = true};
static const struct sl_recipe_opts of_2025 = {.output_type = -1, .embedding_type = -1, .rules_2025 = true};

static void test_dense(void **state)
{
    struct sl_model *m = small_model("qwen2", 16, 40, 8, 0, false);

    (void)state;
    assert_string_equal(word_of(m, "q4_k_m", "ffn_down", &plain), "6644644644644666");
    assert_string_equal(word_of(m, "q4_k_m", "attn_v", &plain), "6644644644644666");
    assert_string_equal(word_of(m, "q4_k_m", "attn_q", &plain), "4444444444444444");
    assert_string_equal(word_of(m, "q3_k_m", "attn_v", &plain), "5544444444444444");
    assert_string_equal(word_of(m, "q3_k_m", "ffn_down", &plain), "5444444444444444");
    assert_string_equal(word_of(m, "q2_k", "attn_v", &plain), "4444444444444444");
    assert_string_equal(word_of(m, "q4_k_s", "attn_v", &plain), "5555444444444444");
    assert_string_equal(word_of(m, "q4_k_m", "output.weight", &plain), "64444444444444444");
    assert_string_equal(word_of(m, "q4_k_m", "token_embd", &plain), "4");
    assert_string_equal(word_of(m, "iq3_xxs", "attn_q", &weighted), "2222222222222222");
    assert_string_equal(word_of(m, "iq3_xxs", "attn_k", &weighted), "2222222222222222");
    free_small(m);
    m = small_model("qwen2", 16, 12, 12, 0, true);
    assert_string_equal(word_of(m, "q4_k_m", "token_embd", &plain), "6");
    assert_string_equal(word_of(m, "dq3_k_m", "token_embd", &plain), "6");
    assert_string_equal(word_of(m, "q2_k", "attn_v", &plain), "3333333333333333");
    free_small(m);
}

static void test_80_layers_and_8_experts(void **state)
{
    struct sl_model *m = small_model("llama", 80, 64, 8, 0, false);

    (void)state;
    assert_string_equal(word_of(m, "q3_k_s", "attn_v", &plain),
                        "55555555555555555555555555555555555555555555555555555555555555555555555"
                        "555555555");
    assert_string_equal(word_of(m, "q3_k_s", "attn_q", &plain),
                        "33333333333333333333333333333333333333333333333333333333333333333333333"
                        "333333333");
    for (int i = 0; i < 4; i++) {
        m->arch = (const char *[]){"qwen2", "qwen2vl", "mistral3", "qwen3"}[i];
        assert_int_equal(word_of(m, "q3_k_s", "attn_v", &plain)[0], i < 1 ? '5' : '3');
        assert_int_equal(word_of(m, "q3_k_s", "attn_v", &of_2025)[0], i < 2 ? '5' : '3');
    }
    for (int i = 0; i < 4; i++) { /* 64 of 8 heads; then as many of each */
        m->arch = (const char *[]){"llama-embed", "deci", "olmo", "jais2"}[i];
        m->hp.n_layer = i < 3 ? 80 : 68;
        assert_int_equal(word_of(m, "q3_k_s", "attn_v", &plain)[0], '5');
        m->hp.n_head_kv = 64;
        assert_int_equal(word_of(m, "q3_k_s", "attn_v", &plain)[0], i ? '5' : '3');
        m->hp.n_head_kv = 8;
        m->hp.n_layer = 79;
        assert_int_equal(word_of(m, "q3_k_s", "attn_v", &plain)[0], '3');
    }
    free_small(m);
    m = small_model("llama", 8, 32, 8, 8, false);
    assert_string_equal(word_of(m, "q4_k_m", "attn_v", &plain), "88888888");
    assert_string_equal(word_of(m, "q4_k_m", "attn_k", &plain), "88888888");
    assert_string_equal(word_of(m, "q4_k_m", "attn_output", &plain), "55555555");
    assert_string_equal(word_of(m, "q4_k_m", "ffn_down", &plain), "64464466");
    free_small(m);
}

static void test_falcon(void **state)
{
    struct sl_model *m = small_model("falcon", 32, 71, 1, 0, false);

    (void)state;
    assert_string_equal(word_of(m, "q3_k_m", "ffn_down", &plain), "55443343343343343343343343344444");
    assert_string_equal(word_of(m, "q3_k_l", "ffn_down", &plain), "44444444444444444444444444444444");
    assert_string_equal(word_of(m, "q4_k_s", "ffn_down", &plain), "44444444444444444444444444444444");
    assert_string_equal(word_of(m, "q4_k_m", "ffn_down", &plain), "66554454454454454454454454455555");
    assert_string_equal(word_of(m, "q5_k_m", "ffn_down", &plain), "66665565565565565565565565566666");
    assert_string_equal(word_of(m, "q3_k_m", "attn_output", &plain), "33333333333333333333333333333333");
    assert_string_equal(word_of(m, "q3_k_l", "attn_output", &plain), "44444444444444444444444444444444");
    /* The output matrix, then attn_output. */
    assert_string_equal(word_of(m, "q5_k_s", "output.weight", &plain), "855555555555555555555555555555555");
    free_small(m);
}

/* llama.cpp's numbers, which general.file_type has. */
static void test_file_types(void **state)
{
    static const struct { const char *name; uint32_t number; } want[] = {
        {"f32", 0}, {"f16", 1}, {"q4_0", 2}, {"q4_1", 3}, {"q8_0", 7}, {"q5_0", 8}, {"q5_1", 9}, {"q2_k", 10}, {"q3_k_s", 11},
        {"q3_k_m", 12}, {"q3_k_l", 13}, {"q4_k_s", 14}, {"q4_k_m", 15}, {"q5_k_s", 16}, {"q5_k_m", 17}, {"q6_k", 18},
        {"iq2_xxs", 19}, {"iq2_xs", 20}, {"q2_k_s", 21}, {"iq3_xs", 22}, {"iq3_xxs", 23}, {"iq1_s", 24}, {"iq4_nl", 25},
        {"iq3_s", 26}, {"iq3_m", 27}, {"iq2_s", 28}, {"iq2_m", 29}, {"iq4_xs", 30}, {"iq1_m", 31}, {"bf16", 32}, {"tq1_0", 36},
        {"tq2_0", 37}, {"mxfp4_moe", 38}, {"q1_0", 40}, {"q2_0", 41},
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_non_null(sl_mixture_by_name(want[i].name));
        assert_int_equal(sl_mixture_file_type(sl_mixture_by_name(want[i].name)), want[i].number);
    }
    assert_null(sl_mixture_at(sizeof want / sizeof want[0]));
}

static void test_column_fallback(void **state)
{
    (void)state;
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q4_K, 512, false), SL_TYPE_Q4_K);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q4_K, 128, false), SL_TYPE_Q5_0);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q3_K, 128, false), SL_TYPE_Q4_0);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q3_K, 128, true), SL_TYPE_IQ4_NL);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_IQ2_XXS, 128, false), SL_TYPE_IQ4_NL);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q6_K, 120, false), SL_TYPE_F16);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q8_0, 120, false), SL_TYPE_F16);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_IQ4_NL, 72, false), SL_TYPE_F16);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q8_0, 120, true), -1);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_TQ1_0, 128, true), SL_TYPE_Q4_0);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q2_0, 96, false), SL_TYPE_Q4_0);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q2_0, 72, false), SL_TYPE_F16);
    assert_int_equal(sl_mixture_fallback(SL_TYPE_Q1_0, 64, false), -1);
}

/* Rules for experts ask for the layer. */
static void test_unknown_layers(void **state)
{
    static const char *const words[] = {"blk.0.ffn_down_exps.weight: mixture q4_k_m goes by the number of layers, which the source does "
                                        "not say (llama.block_count)",
                                        "blk.1.ffn_down_exps.weight: mixture q4_k_m needs the layer of this tensor, expected a name that "
                                        "begins with blk.0. to blk.0."};
    struct sl_model *m = small_model("llama", 2, 32, 8, 8, false);
    int types[16];
    uint32_t fallback;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sl_recipe *r;
        struct sl_error e = {0};

        m->hp.n_layer = (uint64_t)i;
        assert_int_equal(sl_recipe_load("q4_k_m", &r, &e), 0);
        assert_int_equal(sl_recipe_assign(r, m, &plain, types, &fallback, &e), SL_EUNSUPPORTED);
        assert_string_equal(e.text, words[i]);
        sl_recipe_close(r);
    }
    free_small(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deepseek),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_80_layers_and_8_experts),
        cmocka_unit_test(test_falcon),
        cmocka_unit_test(test_unknown_layers),
        cmocka_unit_test(test_file_types),
        cmocka_unit_test(test_column_fallback),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
