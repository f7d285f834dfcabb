/* The name of the pre-tokenizer, by its rules. */
#include "tests/unit/tokenizer_fixture.h"

#define KIMI(upper, lower) "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]" upper \
    "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}&&[^\\\\p{Han}]]" lower "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
#define O200K(upper, lower) "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]" upper \
    "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]" lower "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
#define LING(more) "'(?i:[sdmt]|ll|ve|re)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?+\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]" more "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]|" \
    "\\\\s+(?!\\\\S)|\\\\s+"
#define CJK "[一-龥ࠀ-一가-퟿]+"

struct pre_case {
    const char *list, *pre; /* pre NULL: refused */
};

static const struct pre_case pres[] = {
    {SPLIT(QWEN REST) "," BYTES, "qwen2"},
    {SPLIT(LLAMA3 REST) "," BYTES, "llama-bpe"},
    {SPLIT("[\\\\p{Han}]+|" KIMI("*", "+") KIMI("+", "*") "\\\\p{N}{1,3}" REST) "," BYTES, "kimi-k2"},
    {SPLIT(O200K("*", "+") O200K("+", "*") "\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") ","
     BYTES, "minimax-m2"},
    {SPLIT(O200K("*", "+") O200K("+", "*") "\\\\p{N}{1,3}" REST) "," BYTES, NULL}, /* without the slash: MiniMax-M3 */
    {SPLIT(LING("++")) "," BYTES, "bailingmoe"},
    {SPLIT(LING("+")) "," BYTES, NULL},
    {SPLIT("[\\r\\n]") "," SPLIT("\\\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+") ","
     SPLIT("\\\\s?[!-/:-~！-／：-～‘-‟　-。]+") "," SPLIT("\\\\s+$") "," SPLIT(CJK)
     ",{\"type\":\"Digits\",\"individual_digits\":true}," BYTES, "deepseek-llm"},
    {SPLIT("[\\r\\n]") "," SPLIT("\\\\s?\\\\p{L}+") "," SPLIT("\\\\s?\\\\p{P}+") "," SPLIT(CJK)
     ",{\"type\":\"Digits\"}," BYTES, "deepseek-coder"},
    {SPLIT(QWEN REST) ",{\"type\":\"ByteLevel\",\"use_regex\":true}", NULL},
    {SPLIT(QWEN REST) "," SPLIT("x"), NULL},
    {SPLIT(QWEN), NULL},
    {SPLIT("[\\r\\n]"), NULL},
    {"{\"type\":\"Whitespace\"}", NULL},
    {BYTES, NULL},
    {"", NULL},
};

static void test_pre(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        struct sl_error e;
        const char *pre;
        char text[4096];
        cJSON *j;

        snprintf(text, sizeof text, "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[%s]}}",
                 pres[i].list);
        j = cJSON_Parse(text);
        assert_non_null(j);
        assert_int_equal(sl_tokenizer_pre(j, NULL, NULL, NULL, &pre, &e), pres[i].pre ? 0 : SL_EUNSUPPORTED);
        if (pres[i].pre)
            assert_string_equal(pre, pres[i].pre);
        if (pres[i].pre && strcmp(pre, "llama-bpe") == 0) {
            assert_int_equal(sl_tokenizer_pre(j, NULL, NULL, &sl_arch_glm_dsa, &pre, &e), 0);
            assert_string_equal(pre, "glm4");
        }
        if (pres[i].pre && strcmp(pre, "deepseek-v3") == 0) {
            assert_int_equal(sl_tokenizer_pre(j, NULL, NULL, &sl_arch_hy_v3, &pre, &e), 0);
            assert_string_equal(pre, "hunyuan-dense");
        }
        if (pres[i].pre && strcmp(pre, "bailingmoe") == 0) {
            assert_int_equal(sl_tokenizer_pre(j, NULL, NULL, &sl_arch_bailing2, &pre, &e), 0);
            assert_string_equal(pre, "bailingmoe2");
        }
        cJSON_Delete(j);
    }
}

/* A tokenizer.json that transformers 5 made of Kimi-K2's tiktoken.model, with rules of its own. */
static void test_wrong_rules(void **state)
{
    struct sl_kvs kvs;
    struct sl_error e;

    fx_text(*state, "tokenizer.json", "{" ADDED "," PRE(SPLIT(LLAMA3 REST) "," BYTES) "," MODEL "}");
    assert_int_equal(keys_of(*state, &sl_arch_deepseek2, 8, "{\"model_type\":\"kimi_k25\"}", &kvs, &e), SL_EUNSUPPORTED);
    assert_non_null(strstr(e.text, "Llama 3's rules, as transformers 5 writes it for Kimi-K2"));
    sl_kvs_free(&kvs);
}

/* Qwen's rules have another name where DeepSeek's token is put before every text: transformers' own
 * (4.57) and the converter's answers. */
static void test_r1_distill(void **state)
{
#define DEEPSEEK "<｜begin▁of▁sentence｜>"
#define FIRST(x) "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"" x "\"}},{\"Sequence\":{\"id\":\"A\"}}]}"
    static const struct { const char *class, *add, *bos, *post, *pre; } cases[] = {
        {"LlamaTokenizerFast", ",\"add_bos_token\":true", DEEPSEEK, "null", "str 'deepseek-r1-qwen'"},
        {"LlamaTokenizerFast", "", DEEPSEEK, "null", "str 'deepseek-r1-qwen'"},
        {"LlamaTokenizer", ",\"add_bos_token\":false", DEEPSEEK, FIRST(DEEPSEEK), "str 'qwen2'"},
        {"LlamaTokenizerFast", ",\"add_bos_token\":null", DEEPSEEK, FIRST(DEEPSEEK), "str 'qwen2'"},
        {"LlamaTokenizerFast", "", "<s>", FIRST(DEEPSEEK), "str 'qwen2'"},
        {"Qwen2Tokenizer", ",\"add_bos_token\":true", DEEPSEEK, "null", "str 'qwen2'"},
        {"Qwen2Tokenizer", ",\"add_bos_token\":false", "<s>", FIRST(DEEPSEEK), "str 'deepseek-r1-qwen'"},
        {"PreTrainedTokenizerFast", "", DEEPSEEK, "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," FIRST(DEEPSEEK) "]}",
         "str 'deepseek-r1-qwen'"},
        {"Qwen2TokenizerFast", "", DEEPSEEK, FIRST("<s>"), "str 'qwen2'"},
        {NULL, "", DEEPSEEK, "null", "str 'deepseek-r1-qwen'"}, /* config.json has it */
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_kvs kvs;
        struct sl_error e;
        char buf[4096];

        snprintf(buf, sizeof buf, "{\"post_processor\":%s,%s", cases[i].post, &TOKENIZER[1]);
        fx_text(*state, "tokenizer.json", buf);
        snprintf(buf, sizeof buf, "{\"%s\":\"%s\",\"bos_token\":{\"content\":\"%s\"}%s}", cases[i].class ? "tokenizer_class" : "_",
                 cases[i].class ? cases[i].class : "", cases[i].bos, cases[i].add);
        fx_text(*state, "tokenizer_config.json", buf);
        assert_int_equal(keys_of(*state, &sl_arch_qwen2, 16, cases[i].class ? "{}" : "{\"tokenizer_class\":\"LlamaTokenizer\"}", &kvs, &e), 0);
        assert_string_equal(fx_value(&kvs, "tokenizer.ggml.pre", buf, sizeof buf), cases[i].pre);
        sl_kvs_free(&kvs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pre),
        cmocka_unit_test_setup_teardown(test_wrong_rules, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_r1_distill, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("pre-tokenizers", tests, NULL, NULL);
}
