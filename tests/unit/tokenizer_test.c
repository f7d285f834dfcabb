/* Tokenizer keys from small tokenizers. */
#include "tests/unit/tokenizer_fixture.h"

static void assert_keys(const char *dir, const struct sl_arch *arch, uint64_t n_vocab,
                        const char *config, const char *const want[][2], size_t n)
{
    struct sl_kvs kvs;
    struct sl_error e;
    char buf[512];

    if (keys_of(dir, arch, n_vocab, config, &kvs, &e) < 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < n; i++) {
        assert_true(i < kvs.n);
        assert_string_equal(kvs.kv[i].key, want[i][0]);
        fx_kv_text(&kvs.kv[i], buf, sizeof buf);
        assert_string_equal(buf, want[i][1]);
    }
    assert_int_equal(kvs.n, n);
    sl_kvs_free(&kvs);
}

static void assert_refused(const char *dir, uint64_t n_vocab, int code, const char *words)
{
    struct sl_kvs kvs;
    struct sl_error e;
    int rc = keys_of(dir, &sl_arch_qwen2, n_vocab, "{}", &kvs, &e);

    sl_kvs_free(&kvs);
    if (rc == 0)
        fail_msg("taken, but expected: %s", words);
    if (rc != code || !strstr(e.text, words))
        fail_msg("code %d, '%s': expected code %d with '%s'", rc, e.text, code, words);
}

static void test_keys(void **state)
{
    static const char *const want[][2] = {
        {"tokenizer.ggml.add_space_prefix", "bool false"},
        {"tokenizer.ggml.model", "str 'gpt2'"},
        {"tokenizer.ggml.pre", "str 'qwen2'"},
        {"tokenizer.ggml.tokens", "arr[str] n=8 'a' 'b' 'ab' '<s>'"},
        {"tokenizer.ggml.token_type", "arr[i32] n=8 1 1 1 3"},
        {"tokenizer.ggml.merges", "arr[str] n=2 'a b' 'aĠb Ġ'"},
        {"tokenizer.ggml.bos_token_id", "u32 3"},
        {"tokenizer.ggml.padding_token_id", "u32 4"},
        {"tokenizer.ggml.eos_token_id", "u32 7"},
        {"tokenizer.ggml.mask_token_id", "u32 8"},
        {"tokenizer.ggml.add_bos_token", "bool true"},
        {"tokenizer.chat_template.tool_use", "str 'T'"},
        {"tokenizer.chat_templates", "arr[str] n=1 'tool_use'"},
        {"tokenizer.chat_template", "str 'D'"},
    };

    fx_text(*state, "tokenizer.json", TOKENIZER);
    fx_text(*state, "tokenizer_config.json",
            "{\"bos_token\":{\"content\":\"<s>\"},\"pad_token\":\"<|x|>\",\"unk_token\":null,"
            "\"add_bos_token\":true,\"add_prefix_space\":false,\"chat_template\":"
            "[{\"name\":\"default\",\"template\":\"D\"},{\"name\":\"tool use\",\"template\":\"T\"}]}");
    assert_keys(*state, &sl_arch_llama, 8, "{\"eos_token_id\":7,\"bos_token_id\":1,"
                "\"pad_token_id\":[1],\"mask_token_id\":8,\"sep_token_id\":-1}", want,
                sizeof want / sizeof *want);
}

static void test_token_types(void **state)
{
    static const char *const texts[] = {"a", "b", "ab", "<pad>", "<s>", "<|x|>", "u v", "late",
                                        "[PAD8]", "[PAD9]"};
    static const int32_t types[] = {1, 1, 3, 3, 3, 3, 4, 3, 5, 5};
    struct sl_kvs kvs;
    struct sl_error e;
    const struct sl_kv *t, *y;

    /* "ab" stays where the vocabulary has it, whatever its id; the others follow each other
     * in the file's order, without gaps; "late" comes after them. */
    fx_text(*state, "tokenizer.json", "{\"added_tokens\":[{\"id\":30,\"content\":\"<pad>\",\"special\":false},"
            "{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":9,\"content\":\"ab\",\"special\":true},"
            "{\"id\":4,\"content\":\"<|x|>\"},{\"id\":6,\"content\":\"u▁v\"}],"
            PRE(SPLIT(QWEN REST) "," BYTES) "," MODEL "}");
    fx_text(*state, "tokenizer_config.json", "{\"eos_token\":\"ab\",\"added_tokens_decoder\":{\"3\":"
            "{\"content\":\"<s>\",\"special\":true}},\"additional_special_tokens\":[\"late\"]}");
    if (keys_of(*state, &sl_arch_qwen2, 10, "{}", &kvs, &e) < 0)
        fail_msg("%s", e.text);
    t = sl_kvs_find(&kvs, "tokenizer.ggml.tokens");
    y = sl_kvs_find(&kvs, "tokenizer.ggml.token_type");
    assert_int_equal(t->n, 10);
    for (int i = 0; i < 10; i++) {
        assert_string_equal(t->strs[i], texts[i]);
        assert_int_equal(((const int32_t *)y->data)[i], types[i]);
    }
    sl_kvs_free(&kvs);
    /* A vocabulary with holes of its own; a token that has a role is special. */
    fx_text(*state, "tokenizer.json", "{\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true},"
            "{\"id\":5,\"content\":\"p▁\",\"special\":false},{\"id\":7,\"content\":\"q▁\",\"special\":false}],"
            PRE(SPLIT(QWEN REST) "," BYTES) ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":3},"
            "\"merges\":[\"a b\"]}}");
    fx_text(*state, "tokenizer_config.json", "{\"eos_token\":\"<s>\",\"pad_token\":{\"content\":\"p▁\"},"
            "\"additional_special_tokens\":[\"q▁\"]}");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    t = sl_kvs_find(&kvs, "tokenizer.ggml.tokens");
    y = sl_kvs_find(&kvs, "tokenizer.ggml.token_type");
    assert_string_equal(t->strs[2], "[PAD2]");
    assert_string_equal(t->strs[5], "p▁");
    assert_string_equal(t->strs[6], "<s>");
    assert_memory_equal((const int32_t *)y->data + 5, ((const int32_t[]){3, 3, 3}), 3 * sizeof(int32_t));
    sl_kvs_free(&kvs);
}

/* Roles and added tokens that other files than tokenizer.json give, and what they change in it. */
static void test_roles(void **state)
{
#define ONE(s) "{\"unk_token\":\"" s "\"}"
    static const struct {
        const char *config, *map, *added; /* NULL: no such file so far */
        const char *texts[7];
        int32_t types[7];
        const char *model; /* config.json; NULL: an empty one */
    } cases[] = {
        {NULL, ONE("a"), NULL, {"a", "b", "Ġx", "c", "p "}, {3, 1, 1, 1, 4, 5, 5}, NULL},
        {ONE("a"), "{\"unk_token\":\"Ġx\",\"pad_token\":\"p▁\"}", NULL,
         {"a", "b", " x", "c", "p▁"}, {1, 1, 3, 1, 3, 5, 5}, NULL},
        {"{\"unk_token\":\"a\",\"additional_special_tokens\":[\"b\"]}",
         "{\"unk_token\":null,\"additional_special_tokens\":[{\"content\":\"c\"}]}", NULL,
         {"a", "b", "Ġx", "c", "p "}, {1, 3, 1, 3, 4, 5, 5}, NULL},
        {ONE("b"), "{}", "{\"b\":9,\"Ġx\":7,\"new\":5,\"c\":4}",
         {"a", "b", "Ġx", "c", "p ", "new"}, {1, 3, 4, 1, 4, 4, 5}, NULL},
        {"{\"unk_token\":\"p▁\",\"added_tokens_decoder\":{\"9\":{\"content\":\"z\",\"special\":true},"
         "\"7\":{\"content\":\"y\"}}}", ONE("a"), "{\"b\":1}",
         {"a", "b", "Ġx", "c", "p ", "y", "z"}, {1, 1, 1, 1, 4, 4, 3}, NULL},
        {"{\"added_tokens_decoder\":{\"4\":{\"content\":\"p▁\",\"special\":true},"
         "\"2\":{\"content\":\"Ġx\"}},\"pad_token\":\"Ġx\"}", "[", "[",
         {"a", "b", " x", "c", "p▁"}, {1, 1, 3, 1, 3, 5, 5}, NULL},
        {"{\"additional_special_tokens\":[{\"__type\":\"AddedToken\",\"content\":\"Ġx\",\"normalized\":true}],"
         "\"extra_special_tokens\":{\"image_token\":\"b\"}}", "{}", "{}",
         {"a", "b", "Ġx", "c", "p "}, {1, 3, 3, 1, 4, 5, 5}, NULL},
        {"{\"extra_special_tokens\":[\"b\",\"p▁\",\"new\",\"new\"]}", "{}", "{}",
         {"a", "b", "Ġx", "c", "p ", "new"}, {1, 3, 1, 1, 4, 3, 5}, NULL},
        {ONE("a"), "{}", "{\"p▁\":3}", {"a", "b", "Ġx", "c", "p "}, {3, 1, 1, 1, 4, 5, 5}, NULL},
        {ONE("p▁"), "{}", "{\"p▁\":3}", {"a", "b", "Ġx", "c", "p▁"}, {1, 1, 1, 1, 3, 5, 5}, NULL},
        /* what the class has for keys that are not there: null is there */
        {"{\"eos_token\":null,\"tokenizer_class\":\"LlamaTokenizerFast\"}", "{\"bos_token\":\"a\"}", "{}",
         {"a", "b", "Ġx", "c", "p ", "<unk>"}, {3, 1, 1, 1, 4, 3, 5}, NULL},
        {"{\"tokenizer_class\":\"Qwen2Tokenizer\"}", "{}", "{}",
         {"a", "b", "Ġx", "c", "p ", "<|endoftext|>"}, {1, 1, 1, 1, 4, 3, 5}, NULL},
        /* Qwen's class makes an object of a text, which changes the token that is there */
        {"{\"tokenizer_class\":\"Qwen2TokenizerFast\",\"pad_token\":\"p▁\",\"sep_token\":\"Ġx\",\"added_tokens_decoder\":{}}", "{}", "{}",
         {"a", "b", " x", "c", "p▁", "<|endoftext|>"}, {1, 1, 3, 1, 3, 3, 5}, NULL},
        {"{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"pad_token\":\"p▁\",\"added_tokens_decoder\":{}}", "{}", "{}",
         {"a", "b", "Ġx", "c", "p "}, {1, 1, 1, 1, 4, 5, 5}, NULL},
        {"{\"tokenizer_class\":\"PreTrainedTokenizerFast\"}", "{}", "{}",
         {"a", "b", "Ġx", "c", "p "}, {1, 1, 1, 1, 4, 5, 5}, "{\"model_type\":\"llama\"}"},
        {"{\"unk_token\":\"b\"}", "{}", "{}", {"a", "b", "Ġx", "c", "p ", "<s>", "</s>"},
         {1, 3, 1, 1, 4, 3, 3}, "{\"model_type\":\"deepseek_v3\"}"},
        {"{\"unk_token\":\"b\"}", "{}", "{}", {"a", "b", "Ġx", "c", "p ", "<|endoftext|>"},
         {1, 3, 1, 1, 4, 3, 5}, "{\"model_type\":\"llama\",\"tokenizer_class\":\"GPT2Tokenizer\"}"},
        {"{}", "{}", "{}", {"a", "b", "Ġx", "c", "p ", "<|endoftext|>"}, {1, 1, 1, 1, 4, 3, 5}, "{\"model_type\":\"qwen3\"}"},
        {"{}", "{}", "{}", {"a", "b", "Ġx", "c", "p ", "<|endoftext|>"}, {1, 1, 1, 1, 4, 3, 5}, "{\"model_type\":\"qwen3_moe\"}"},
    };

    fx_text(*state, "tokenizer.json", "{\"added_tokens\":[{\"id\":4,\"content\":\"p▁\",\"special\":false,"
            "\"normalized\":false}],\"decoder\":{\"type\":\"ByteLevel\"}," PRE(SPLIT(QWEN REST) "," BYTES) ","
            "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"Ġx\":2,\"c\":3},\"merges\":[\"a b\"]}}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const files[][2] = {{"tokenizer_config.json", cases[i].config},
            {"special_tokens_map.json", cases[i].map}, {"added_tokens.json", cases[i].added}};
        struct sl_kvs kvs;
        struct sl_error e;
        const struct sl_kv *t;

        for (size_t f = 0; f < 3; f++)
            if (files[f][1])
                fx_text(*state, files[f][0], files[f][1]);
        if (keys_of(*state, &sl_arch_qwen2, 7, cases[i].model ? cases[i].model : "{}", &kvs, &e) < 0)
            fail_msg("case %zu: %s", i, e.text);
        t = sl_kvs_find(&kvs, "tokenizer.ggml.tokens");
        for (int k = 0; k < 7; k++) {
            int32_t type = ((const int32_t *)sl_kvs_find(&kvs, "tokenizer.ggml.token_type")->data)[k];

            if (type != cases[i].types[k] || (cases[i].texts[k] && strcmp(t->strs[k], cases[i].texts[k]) != 0))
                fail_msg("case %zu, token %d: '%s' of type %d", i, k, t->strs[k], (int)type);
        }
        sl_kvs_free(&kvs);
    }
    fx_text(*state, "special_tokens_map.json", "[]");
    assert_refused(*state, 7, SL_ESOURCE, "special_tokens_map.json: expected a JSON object");
    fx_text(*state, "special_tokens_map.json", "{}");
    fx_text(*state, "added_tokens.json", "{\"a\":\"0\"}");
    assert_refused(*state, 7, SL_ESOURCE, "added_tokens.json: the id of token 'a' is not a number");
}

/* What tokenizer.json fills up with is special, unless pad_token says otherwise. */
static void test_padding(void **state)
{
    fx_text(*state, "tokenizer.json", "{\"padding\":{\"pad_token\":\"c\"}," PRE(SPLIT(QWEN REST) "," BYTES) ","
            "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"Ġx\":2,\"c\":3},\"merges\":[\"a b\"]}}");
    for (int i = 0; i < 2; i++) {
        struct sl_kvs kvs;
        struct sl_error e;

        fx_text(*state, "tokenizer_config.json", i ? "{\"pad_token\":null}" : "{}");
        assert_int_equal(keys_of(*state, &sl_arch_qwen2, 7, "{}", &kvs, &e), 0);
        assert_int_equal(((const int32_t *)sl_kvs_find(&kvs, "tokenizer.ggml.token_type")->data)[3], i ? 1 : 3);
        sl_kvs_free(&kvs);
    }
}

/* What is not normalized was encoded and decoded: through the byte-level alphabet. */
static void test_decoded_tokens(void **state)
{
    static const char *const texts[] = {"a", "\xef\xbf\xbd", "\xc3\xa9", "\xc3\xb8", "x y", "Ġ▁ ",
                                        ("\xef\xbf\xbd" "A\xef\xbf\xbd\xef\xbf\xbd")};
    struct sl_kvs kvs;
    struct sl_error e;
    const struct sl_kv *t;

    fx_text(*state, "tokenizer.json", "{\"added_tokens\":[{\"id\":1,\"content\":\"ø\",\"normalized\":false},"
            "{\"id\":2,\"content\":\"Ã©\",\"normalized\":false},"
            "{\"id\":3,\"content\":\"ø\xcc\x88\",\"normalized\":true},"
            "{\"id\":4,\"content\":\"xĠy\",\"normalized\":false},"
            "{\"id\":5,\"content\":\"Ġ▁ \",\"special\":true,\"normalized\":false},"
            "{\"id\":6,\"content\":\"âĤAÀðŁĺ\",\"normalized\":false}],"
            "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"}]}," PRE(SPLIT(QWEN REST) "," BYTES)
            ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}");
    if (keys_of(*state, &sl_arch_qwen2, 7, "{}", &kvs, &e) < 0)
        fail_msg("%s", e.text);
    t = sl_kvs_find(&kvs, "tokenizer.ggml.tokens");
    assert_int_equal(t->n, 7);
    for (int i = 0; i < 7; i++)
        assert_true(i == 3 ? strcmp(t->strs[i], "ø\xcc\x88") == 0 : strcmp(t->strs[i], texts[i]) == 0);
    sl_kvs_free(&kvs);
}

static void test_normalizer(void **state)
{
    struct sl_kvs kvs;
    struct sl_error e;
    char buf[128];

    fx_text(*state, "tokenizer.json", "{" ADDED "," PRE(SPLIT(QWEN REST) "," BYTES) "," MODEL ",\"normalizer\":{\"type\":"
            "\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Lowercase\"}]}}");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.normalizer.lowercase", buf, 128), "bool true");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.normalizer.strip_accents", buf, 128), "-");
    sl_kvs_free(&kvs);
    fx_text(*state, "tokenizer.json", "{" ADDED "," PRE(SPLIT(QWEN REST) "," BYTES) "," MODEL ",\"normalizer\":{\"type\":"
            "\"BertNormalizer\",\"lowercase\":false,\"strip_accents\":null}}");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.normalizer.lowercase", buf, 128), "bool false");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.normalizer.strip_accents", buf, 128), "-");
    sl_kvs_free(&kvs);
}

static void test_template_files(void **state)
{
    struct sl_kvs kvs;
    struct sl_error e;
    char buf[128];

    fx_text(*state, "tokenizer.json", TOKENIZER);
    fx_text(*state, "tokenizer_config.json", "{\"pad_token\":null}");
    fx_text(*state, "chat_template.json", "{\"chat_template\":\"from json\"}");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template", buf, 128), "str 'from json'");
    sl_kvs_free(&kvs);
    fx_text(*state, "chat_template.jinja", "from jinja");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template", buf, 128), "str 'from jinja'");
    sl_kvs_free(&kvs);
    fx_text(*state, "tokenizer_config.json", "{\"chat_template\":\"own\"}");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template", buf, 128), "str 'own'");
    sl_kvs_free(&kvs);
    fx_text(*state, "tokenizer_config.json", "{}"); /* which gguf-py takes for none */
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template", buf, 128), "-");
    sl_kvs_free(&kvs);
    for (int n = 65; n <= 66; n++) { /* none is left out without a word */
        char config[4096] = "{\"chat_template\":[{\"name\":\"default\",\"template\":\"D\"}";

        for (int i = 1; i < n; i++)
            snprintf(config + strlen(config), 64, ",{\"name\":\"n%d\",\"template\":\"T\"}", i);
        fx_text(*state, "tokenizer_config.json", strcat(config, "]}"));
        if (n == 65)
            assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
        else
            assert_refused(*state, 8, SL_ESOURCE, "tokenizer_config.json: chat_template holds 66 templates; expected 65 at most");
        if (n == 65)
            sl_kvs_free(&kvs);
    }
}

/* additional_chat_templates/ beside chat_template.jinja, as newer checkpoints have them. */
static void test_template_folder(void **state)
{
    struct sl_kvs kvs;
    struct sl_error e;
    char path[256], elsewhere[256], buf[128];

    fx_text(*state, "tokenizer.json", TOKENIZER);
    fx_text(*state, "tokenizer_config.json", "{\"pad_token\":null}");
    snprintf(path, sizeof path, "%s/additional_chat_templates", (char *)*state);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    fx_text(path, "tool_use.jinja", "tools\r\nhere\rand there\n");
    fx_text(path, "r.a-g.jinja", "rag");
    fx_text(path, "notes.txt", "none");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_templates", buf, 128), "-"); /* not alone */
    sl_kvs_free(&kvs);
    fx_text(*state, "chat_template.jinja", "main");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template", buf, 128), "str 'main'");
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template.tool_use", buf, 128), "str 'tools\nhere\nand there\n'");
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template.r_a_g", buf, 128), "str 'rag'");
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_templates", buf, 128), "arr[str] n=2 'r_a_g' 'tool_use'");
    sl_kvs_free(&kvs);
    fx_text(path, "default.jinja", "another");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.chat_template", buf, 128), "str 'another'");
    sl_kvs_free(&kvs);
    fx_text(path, "bad.jinja", "a\xff");
    assert_refused(*state, 8, SL_ESOURCE, "bad.jinja: byte 1 is no UTF-8");
    /* A link would let a packed folder show files of its reader's. */
    assert_int_equal(rename(path, elsewhere), 0);
    assert_int_equal(symlink(elsewhere, path), 0);
    assert_refused(*state, 8, SL_ESOURCE, "additional_chat_templates: expected a folder");
}

/* Llama 3: the post-processor puts the first token, no flag says so. */
static void test_post_processor(void **state)
{
    struct sl_kvs kvs;
    struct sl_error e;
    char buf[128];

    fx_text(*state, "tokenizer.json", "{" ADDED "," PRE(SPLIT(LLAMA3 REST) "," BYTES) "," MODEL ","
            "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
            "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
            "{\"Sequence\":{\"id\":\"A\"}}],\"pair\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
            "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"<s>\"}},"
            "{\"Sequence\":{\"id\":\"B\"}}]}]}}");
    /* Only a post-processor that names another end makes the former one an eot. */
    fx_text(*state, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"eos_token\":\"<|x|>\",\"eot_token\":\"<s>\"}");
    assert_int_equal(keys_of(*state, &sl_arch_llama, 8, "{\"eom_token_id\":3}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.eot_token_id", buf, 128), "-");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.eom_token_id", buf, 128), "-");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.pre", buf, 128), "str 'llama-bpe'");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_bos_token", buf, 128), "bool true");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_eos_token", buf, 128), "-");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_sep_token", buf, 128), "bool false");
    sl_kvs_free(&kvs);
    /* A first token that is neither bos nor cls is cls then; bos too where none is given. */
    fx_text(*state, "tokenizer_config.json", "{\"bos_token\":{\"content\":\"<s>\"}}");
    assert_int_equal(keys_of(*state, &sl_arch_llama, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_bos_token", buf, 128), "bool true");
    sl_kvs_free(&kvs);
    fx_text(*state, "tokenizer_config.json", "{\"bos_token\":\"<|x|>\",\"cls_token\":\"<|x|>\"}");
    assert_int_equal(keys_of(*state, &sl_arch_llama, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_bos_token", buf, 128), "bool false");
    sl_kvs_free(&kvs);
    fx_text(*state, "tokenizer_config.json", "{\"eos_token\":\"<|x|>\"}");
    assert_int_equal(keys_of(*state, &sl_arch_llama, 8, "{\"bos_token_id\":0}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.bos_token_id", buf, 128), "u32 3");
    sl_kvs_free(&kvs);
}

/* An id that config.json has not, or as null, is its text model's. */
static void test_text_model_ids(void **state)
{
    static const char config[] = "{\"bos_token_id\":null,\"pad_token_id\":5,\"text_config\":"
                                 "{\"bos_token_id\":3,\"eos_token_id\":4,\"pad_token_id\":6}}";
    struct sl_error e;
    struct sl_kvs kvs;
    char buf[128];

    fx_text(*state, "tokenizer.json", TOKENIZER);
    assert_int_equal(keys_of(*state, &sl_arch_llama, 8, config, &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.bos_token_id", buf, 128), "u32 3");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.eos_token_id", buf, 128), "u32 4");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.padding_token_id", buf, 128), "u32 5");
    sl_kvs_free(&kvs);
}

#define SPECIAL(t) "{\"SpecialToken\":{\"id\":\"" t "\"}}"
#define SEQUENCE(t) "{\"Sequence\":{\"id\":\"" t "\"}}"

/* A post-processor that is no list; whether a separator stands between two texts. */
static void test_separators(void **state)
{
    static const struct { const char *post, *bos, *eos, *sep, *sep_id; } cases[] = {
        {"\"TemplateProcessing\",\"single\":[" SEQUENCE("A") "],\"pair\":[" SEQUENCE("A") "," SPECIAL("<|x|>") ","
         SPECIAL("<s>") "," SEQUENCE("B") "]", "-", "-", "bool true", "u32 4"},
        {"\"TemplateProcessing\",\"single\":[" SEQUENCE("A") "," SPECIAL("<|x|>") "],\"pair\":[" SEQUENCE("A") ","
         SPECIAL("<|x|>") "," SEQUENCE("B") "," SPECIAL("<|x|>") "]", "-", "bool true", "bool false", "-"},
        {"\"TemplateProcessing\",\"single\":[" SEQUENCE("A") "," SPECIAL("<|x|>") "],\"pair\":[" SEQUENCE("A") ","
         SPECIAL("<|x|>") "," SPECIAL("<|x|>") "," SEQUENCE("B") "," SPECIAL("<|x|>") "]", "-", "bool true", "bool true", "u32 4"},
        {"\"TemplateProcessing\",\"single\":[" SEQUENCE("A") "],\"pair\":[" SEQUENCE("A") "," SPECIAL("<s>") ","
         SPECIAL("<s>") "," SPECIAL("<|x|>") "," SEQUENCE("B") "]", "-", "-", "bool false", "-"},
        {"\"RobertaProcessing\",\"cls\":[\"<s>\",3],\"sep\":[\"<|x|>\",4]", "bool true", "bool true", "bool true", "u32 4"},
    };

    fx_text(*state, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"eos_token\":\"<|x|>\"}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_kvs kvs;
        struct sl_error e;
        char text[4000], buf[128];

        snprintf(text, sizeof text, "{" ADDED "," PRE(SPLIT(LLAMA3 REST) "," BYTES) "," MODEL ",\"post_processor\":{\"type\":%s}}",
                 cases[i].post);
        fx_text(*state, "tokenizer.json", text);
        assert_int_equal(keys_of(*state, &sl_arch_llama, 8, "{}", &kvs, &e), 0);
        assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_bos_token", buf, 128), cases[i].bos);
        assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_eos_token", buf, 128), cases[i].eos);
        assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_sep_token", buf, 128), cases[i].sep);
        assert_string_equal(fx_value(&kvs, "tokenizer.ggml.seperator_token_id", buf, 128), cases[i].sep_id);
        sl_kvs_free(&kvs);
    }
}

static void test_merges_txt(void **state)
{
    struct sl_kvs kvs;
    struct sl_error e;
    char buf[128];

    fx_text(*state, "tokenizer.json", "{" ADDED "," PRE(SPLIT(QWEN REST) "," BYTES) ","
            "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}");
    assert_refused(*state, 8, SL_ESOURCE, "has no merges, and there is no merges.txt");
    fx_text(*state, "merges.txt", "#version: 0.2\n\nx y z\n");
    assert_refused(*state, 8, SL_ESOURCE, "merges.txt holds no merges");
    fx_text(*state, "merges.txt", "#version: 0.2\na b\r\n\nx y z\n# c\n  d\t e \n");
    assert_int_equal(keys_of(*state, &sl_arch_qwen2, 8, "{}", &kvs, &e), 0);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.merges", buf, 128),
                        "arr[str] n=3 'a b' '# c' 'd e'");
    sl_kvs_free(&kvs);
}

static void test_refused(void **state)
{
    static const struct { const char *tokenizer; uint64_t n; int code; const char *words; } bad[] = {
        {"[]", 8, SL_ESOURCE, "tokenizer.json: expected a JSON object"},
        {"{\"a\":", 8, SL_ESOURCE, "tokenizer.json"},
        {TOKENIZER, 2, SL_ESOURCE, "id of token 'ab' is not an integer below config.json's vocab_size 2"},
        {TOKENIZER, 5, SL_ESOURCE, "id of token 'u▁v'"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"type\":\"Unigram\"}}", 8, SL_EUNSUPPORTED, "Unigram"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"type\":\"BPE\",\"byte_fallback\":true}}", 8,
         SL_EUNSUPPORTED, "byte_fallback"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{}}}", 8, SL_ESOURCE, "model.vocab is missing"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{\"a\":-1}}}", 8, SL_ESOURCE, "token 'a'"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{\"a\":1.5}}}", 8, SL_ESOURCE, "token 'a'"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\",[\"a\"]]}}", 8,
         SL_ESOURCE, "entry 1: expected two tokens with a space between, or a pair of strings"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\",\"aa\"]}}", 8,
         SL_ESOURCE, "entry 1: expected two tokens"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\",\"\"]}}", 8,
         SL_ESOURCE, "entry 1: expected two tokens"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", 8,
         SL_ESOURCE, "entry 0: expected two tokens"},
        {"{" PRE(SPLIT(QWEN REST)) ",\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":[{\"id\":1}]}", 8,
         SL_ESOURCE, "no content"},
        {"{" PRE(SPLIT("\\\\w+")) "," MODEL "}", 8, SL_EUNSUPPORTED, "first '\\w+'"},
    };

    assert_refused(*state, 8, SL_ESOURCE, "tokenizer.json is missing");
    fx_text(*state, "tiktoken.model", "x");
    assert_refused(*state, 8, SL_ESOURCE, "tokenizer_config.json is missing, which names the special tokens of tiktoken.model");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fx_text(*state, "tokenizer.json", bad[i].tokenizer);
        assert_refused(*state, bad[i].n, bad[i].code, bad[i].words);
    }
    fx_text(*state, "tokenizer.json", TOKENIZER);
    fx_text(*state, "tokenizer_config.json", "{\"pad_token\":\"[PAD]\"}");
    assert_refused(*state, 6, SL_ESOURCE, "token '[PAD]' is not in tokenizer.json, and a new one has no id below config.json's vocab_size 6; "
                   "is tokenizer_config.json there, and of this model?");
    fx_text(*state, "tokenizer_config.json", "{\"pad_token\":null}");
    fx_write(*state, "chat_template.jinja", "a\0b", 3);
    assert_refused(*state, 8, SL_ESOURCE, "NUL bytes");
    fx_text(*state, "tokenizer.model", "x");
    assert_refused(*state, 8, SL_EUNSUPPORTED, "SentencePiece");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_token_types, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_roles, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_padding, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_decoded_tokens, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_normalizer, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_template_files, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_template_folder, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_post_processor, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_text_model_ids, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_separators, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_merges_txt, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_refused, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
