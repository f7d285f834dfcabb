/* tiktoken.model: ranks, the merges that follow from them, and the keys of Kimi-K2's tokenizer. */
#include "tests/unit/model_fixture.h"

#include "proto/arch_table.h"
#include "proto/tiktoken.h"
#include "proto/tokenizer.h"

#include <cjson/cJSON.h>
#include <time.h>

struct text {
    char *s;
    size_t n, cap;
    uint32_t rank;
};

static void put(struct text *t, const char *s)
{
    size_t n = strlen(s);

    while (t->n + n + 1 > t->cap) {
        t->cap = 2 * t->cap + 4096;
        t->s = realloc(t->s, t->cap);
        assert_non_null(t->s);
    }
    memcpy(t->s + t->n, s, n + 1);
    t->n += n;
}

static void put64(struct text *t, const void *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *b = bytes;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) | (i + 2 < n ? b[i + 2] : 0);
        char four[5] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                        i + 2 < n ? digits[v & 63] : '=', '\0'};

        put(t, four);
    }
}

static void token(struct text *t, const void *bytes, size_t n)
{
    char rank[32];

    put64(t, bytes, n);
    snprintf(rank, sizeof rank, " %" PRIu32 "\n", t->rank++);
    put(t, rank);
}

/* All bytes but one (256: none is left out), then these tokens. */
static struct text model(unsigned without, const char *const *tokens)
{
    struct text t = {NULL, 0, 0, 0};

    for (unsigned b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;

        if (b != without)
            token(&t, &byte, 1);
    }
    for (; *tokens; tokens++)
        token(&t, *tokens, strlen(*tokens));
    return t;
}

#define LIST(...) (const char *const[]){__VA_ARGS__, NULL}
#define NONE (const char *const[]){NULL}

static void parsed(struct text *t, struct sl_tiktoken *out)
{
    struct sl_error e;

    if (sl_tiktoken_parse("f", t->s, t->n, 1 << 20, false, out, &e) < 0)
        fail_msg("%s", e.text);
    free(t->s);
}

/* The merges of these tokens. */
static void merges_are(const char *const *tokens, const char *const *want)
{
    struct text t = model(256, tokens);
    struct sl_tiktoken k;
    struct sl_error e;
    const char **merges;
    uint64_t n, i = 0;

    parsed(&t, &k);
    if (sl_tiktoken_merges(&k, "f", &merges, &n, &e) < 0)
        fail_msg("%s", e.text);
    for (; want[i]; i++) {
        assert_true(i < n);
        assert_string_equal(merges[i], want[i]);
    }
    assert_int_equal(i, n);
    free(merges);
    sl_tiktoken_free(&k);
}

static void test_merges(void **state)
{
    (void)state;
    merges_are(NONE, NONE);
    merges_are(LIST("ab", "abc"), LIST("a b", "ab c"));
    /* bc is joined before ab, whatever stands further left. */
    merges_are(LIST("bc", "ab", "abc"), LIST("b c", "a b", "a bc"));
    /* Pairs to the right of one that is joined keep their ranks. */
    merges_are(LIST("ce", "ace", "acece"), LIST("c e", "a ce", "ace ce"));
    /* Equal ranks: the leftmost pair. */
    merges_are(LIST("aa", "aaa", "aaaa"), LIST("a a", "aa a", "aa aa"));
    /* What joining never makes has no merge. */
    merges_are(LIST("xyz", "ab"), LIST("a b"));
    /* A space, a line's end, a byte that is no UTF-8, in the byte-level alphabet. */
    merges_are(LIST(" t", "\n\n", "\xff\xfe"), LIST("Ġ t", "Ċ Ċ", "ÿ þ"));
}

static void test_file_order(void **state)
{
    struct text t = model(256, NONE);
    struct sl_tiktoken k;
    struct sl_error e;
    const char **merges;
    uint64_t n;

    (void)state;
    put(&t, "YWJj 257\r\n\r\n  YWI=\t256  "); /* abc before ab, blanks, no end of the last line */
    parsed(&t, &k);
    assert_int_equal(k.n, 258);
    assert_string_equal(k.text[256], "ab");
    assert_int_equal(sl_tiktoken_merges(&k, "f", &merges, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_string_equal(merges[0], "ab c");
    assert_string_equal(merges[1], "a b");
    free(merges);
    sl_tiktoken_free(&k);
}

/* A token that stands again, and a number behind it that does not count. */
static void test_by_line(void **state)
{
    struct text t = model(256, LIST("ab", "a", "abc"));
    struct sl_tiktoken k;
    struct sl_error e;

    (void)state;
    assert_int_equal(sl_tiktoken_parse("f", t.s, t.n, 1 << 20, true, &k, &e), 0);
    assert_int_equal(k.n, 258);
    assert_string_equal(k.text[256], "ab");
    assert_string_equal(k.text[257], "abc");
    assert_int_equal(sl_name_table_find(&k.rank_of, "a"), 'a');
    sl_tiktoken_free(&k);
    free(t.s);
}

static void refused_parse(struct text t, uint64_t max, const char *words)
{
    struct sl_tiktoken k;
    struct sl_error e;
    const char **merges = NULL;
    uint64_t n;
    int rc = sl_tiktoken_parse("f", t.s, t.n, max, false, &k, &e);

    if (rc == 0)
        rc = sl_tiktoken_merges(&k, "f", &merges, &n, &e);
    if (rc != SL_ESOURCE || !strstr(e.text, words))
        fail_msg("code %d, '%s': expected '%s'", rc, rc < 0 ? e.text : "", words);
    assert_null(merges);
    sl_tiktoken_free(&k);
    free(t.s);
}

static void refused_line(const char *line, const char *words)
{
    struct text t = model(256, LIST("ab"));

    put(&t, line);
    refused_parse(t, 1000, words);
}

static void test_damaged(void **state)
{
    struct text t = {NULL, 0, 0, 0};
    char *long_token = calloc(1, 1026);

    (void)state;
    put(&t, "");
    refused_parse(t, 1000, "f holds no tokens");
    refused_line("YWJj", "f: line 258: expected a token in base64, a space, and its rank");
    refused_line("YWJj 257 1", "line 258: expected");
    refused_line("YWJj x", "line 258: expected");
    refused_line("YWJj -1", "line 258: expected");
    refused_line("YWJj 2571111111111111", "line 258: expected");
    refused_line("YW!j 257", "line 258: the token is no base64");
    refused_line("YWJ 257", "line 258: the token is no base64");
    refused_line("YWK= 257", "no base64"); /* bits behind the last byte */
    refused_line("Y=Jj 257", "no base64");
    refused_line("==== 257", "no base64");
    refused_line("YWJj 258", "f: rank 257 is missing among 258 tokens");
    refused_line("YWJj 256", "line 258: rank 256 stands twice");
    refused_line("YWI= 257", "line 258: the token of rank 257 is that of rank 256 again");
    refused_line("YWJj 1000", "rank 1000 is not below config.json's vocab_size 1000");
    refused_parse(model(0, NONE), 1000, "the byte 0x00 has no token");
    refused_parse(model(0xff, NONE), 1000, "the byte 0xff has no token");
    refused_parse(model(256, NONE), 100, "rank 100 is not below config.json's vocab_size 100");
    assert_non_null(long_token);
    memset(long_token, 'a', 1025);
    refused_parse(model(256, LIST(long_token)), 1000, "a token of 1025 bytes; at most 1024");
    free(long_token);
    t = (struct text){calloc(1, SL_TIKTOKEN_MAX_BYTES + 2), SL_TIKTOKEN_MAX_BYTES + 1, 0, 0};
    refused_parse(t, 1000, "expected at most 16777216");
}

/* 163,328 merges must take well under a second: processor time, since others work beside. */
static void test_quick(void **state)
{
    struct text t = model(256, NONE);
    struct sl_tiktoken k;
    struct sl_error e;
    const char **merges;
    uint64_t n;
    clock_t start;

    (void)state;
    for (unsigned a = 0; a < 64; a++)
        for (unsigned b = 0; b < 64; b++)
            token(&t, (uint8_t[]){(uint8_t)(128 + a), (uint8_t)(32 + b)}, 2);
    for (unsigned i = 0; i < 64 * 64 * 38; i++) {
        unsigned x = i % 4096, y = i / 4096;

        token(&t, (uint8_t[]){(uint8_t)(128 + x / 64), (uint8_t)(32 + x % 64), (uint8_t)(128 + y),
                              (uint8_t)(32 + y)}, 4);
    }
    start = clock();
    parsed(&t, &k);
    assert_int_equal(sl_tiktoken_merges(&k, "f", &merges, &n, &e), 0);
    assert_int_equal(n, 64 * 64 * 39);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 5); /* 0.1 where nothing else runs */
    free(merges);
    sl_tiktoken_free(&k);
}

/* ---- the keys */

#define CONFIG_HEAD "{\"tokenizer_class\":\"TikTokenTokenizer\",\"bos_token\":\"[BOS]\",\"pad_token\":null,"
#define CONFIG CONFIG_HEAD "\"added_tokens_decoder\":{\"258\":{\"content\":\"[BOS]\"},\"5\":{\"content\":\"x\"}," \
               "\"260\":{\"content\":\"ab\"},\"261\":{\"content\":\"twice\"},\"262\":{\"content\":\"twice\"}}}"

static int keys_of(const char *dir, uint64_t n_vocab, struct sl_kvs *kvs, struct sl_error *e)
{
    cJSON *c = cJSON_Parse("{\"bos_token_id\":258,\"eos_token_id\":99999}");
    int rc;

    *kvs = (struct sl_kvs){NULL, 0, 0};
    rc = sl_tokenizer_keys(&(struct sl_source_dir){dir, NULL}, c, &sl_arch_deepseek2, n_vocab, kvs, e);
    cJSON_Delete(c);
    return rc;
}

static void write_model(const char *dir)
{
    struct text t = model(256, LIST("ab", "abc"));

    fx_text(dir, "tiktoken.model", t.s);
    free(t.s);
}

static void test_keys(void **state)
{
    static const char *const want[][2] = {
        {"tokenizer.ggml.model", "str 'gpt2'"}, {"tokenizer.ggml.pre", "str 'kimi-k2'"},
        {"tokenizer.ggml.tokens", "arr[str] n=520 'Ā' 'ā' 'Ă' 'ă'"},
        {"tokenizer.ggml.token_type", "arr[i32] n=520 1 1 1 1"},
        {"tokenizer.ggml.merges", "arr[str] n=2 'a b' 'ab c'"},
        {"tokenizer.ggml.bos_token_id", "u32 258"}, {"tokenizer.ggml.eos_token_id", "u32 99999"},
    };
    static const struct { uint32_t id; const char *text; int32_t type; } ids[] = {
        {5, "ą", 1}, {256, "[PAD256]", 5}, {257, "abc", 1}, {258, "[BOS]", 3},
        {259, "<|reserved_token_259|>", 3}, {260, "ab", 3}, {261, "[PAD261]", 5}, {262, "twice", 3},
        {515, "<|reserved_token_515|>", 3}, {516, "[PAD516]", 5}, {519, "[PAD519]", 5},
    };
    struct sl_kvs kvs;
    struct sl_error e;
    char buf[512];

    write_model(*state);
    fx_text(*state, "tokenizer_config.json", CONFIG);
    if (keys_of(*state, 520, &kvs, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(kvs.n, sizeof want / sizeof *want);
    for (size_t i = 0; i < kvs.n; i++) {
        assert_string_equal(kvs.kv[i].key, want[i][0]);
        fx_kv_text(&kvs.kv[i], buf, sizeof buf);
        assert_string_equal(buf, want[i][1]);
    }
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        assert_string_equal(kvs.kv[2].strs[ids[i].id], ids[i].text);
        assert_int_equal(((int32_t *)kvs.kv[3].data)[ids[i].id], ids[i].type);
    }
    sl_kvs_free(&kvs);
    /* A tokenizer.json beside it gives ids of special tokens alone. */
    fx_text(*state, "tokenizer.json", "{\"added_tokens\":[{\"id\":7,\"content\":\"[BOS]\"}]}");
    assert_int_equal(keys_of(*state, 520, &kvs, &e), 0);
    assert_string_equal(kvs.kv[2].strs[257], "abc");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.bos_token_id", buf, sizeof buf), "u32 7");
    sl_kvs_free(&kvs);
    /* Ids from vocab_size on are left out. */
    assert_int_equal(keys_of(*state, 259, &kvs, &e), 0);
    assert_int_equal(kvs.kv[2].n, 259);
    assert_string_equal(kvs.kv[2].strs[256], "[PAD256]");
    sl_kvs_free(&kvs);
}

static void refused(const char *dir, int code, const char *words)
{
    struct sl_kvs kvs;
    struct sl_error e;
    int rc = keys_of(dir, 520, &kvs, &e);

    sl_kvs_free(&kvs);
    if (rc != code || !strstr(e.text, words))
        fail_msg("code %d, '%s': expected code %d with '%s'", rc, rc < 0 ? e.text : "", code, words);
}

static void test_refused(void **state)
{
    static const struct { const char *config; int code; const char *words; } bad[] = {
        {"{}", SL_EUNSUPPORTED, "(tiktoken.model) of tokenizer_class '(none)'"},
        {"{\"tokenizer_class\":\"QWenTokenizer\"}", SL_EUNSUPPORTED, "'QWenTokenizer'"},
        {"{\"tokenizer_class\":\"TikTokenTokenizer\"}", SL_ESOURCE, "no \"added_tokens_decoder\""},
        {CONFIG_HEAD "\"added_tokens_decoder\":{\"x\":{\"content\":\"a\"}}}", SL_ESOURCE, "entry 'x': expected an id"},
        {CONFIG_HEAD "\"added_tokens_decoder\":{\"258\":{}}}", SL_ESOURCE, "entry '258': expected an id"},
        {CONFIG_HEAD "\"added_tokens_decoder\":{\"257\":{\"content\":\"[BOS]\"}}}", SL_ESOURCE,
         "\"bos_token\" is '[BOS]', which is no token of added_tokens_decoder from id 258 on"},
    };

    write_model(*state);
    refused(*state, SL_ESOURCE, "tokenizer_config.json is missing");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fx_text(*state, "tokenizer_config.json", bad[i].config);
        refused(*state, bad[i].code, bad[i].words);
    }
    fx_text(*state, "tokenizer_config.json", CONFIG);
    fx_text(*state, "tokenization_kimi.py", "pat_str = r\"[\\p{Han}]+|\\p{N}\"");
    refused(*state, SL_EUNSUPPORTED, "tokenization_kimi.py splits texts by other rules");
    fx_text(*state, "tokenization_kimi.py", "r\"[\\p{Han}]+\", r\"\\p{N}{1,3}\"");
    fx_text(*state, "tiktoken.model", "IQ== 0\n");
    refused(*state, SL_ESOURCE, "tiktoken.model: the byte 0x00 has no token");
}

/* Of a tekken.json all cuts of a token are merges: a letter up to 1024 times in 0.7 MB would make 375 MB of them. */
static void test_too_many_merges(void **state)
{
    const uint64_t n_vocab = 256 + 1023 + 1;
    struct text t = {NULL, 0, 0, 0};
    struct sl_kvs kvs = {0};
    struct sl_error e;
    char number[128], as[1024];
    int rc;

    memset(as, 'a', sizeof as);
    put(&t, "{\"config\":{\"pattern\":\"[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+"
            "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*"
            "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\",\"default_num_special_tokens\":1,");
    snprintf(number, sizeof number, "\"default_vocab_size\":%" PRIu64 "},\"special_tokens\":[],\"vocab\":[", n_vocab);
    put(&t, number);
    for (uint32_t i = 0; i < 256 + 1023; i++) {
        uint8_t byte = (uint8_t)i;

        snprintf(number, sizeof number, "%s{\"rank\":%" PRIu32 ",\"token_bytes\":\"", i ? "," : "", i);
        put(&t, number);
        put64(&t, i < 256 ? (const void *)&byte : as, i < 256 ? 1 : i - 254);
        put(&t, "\"}");
    }
    put(&t, "]}");
    fx_text(*state, "tekken.json", t.s);
    free(t.s);
    rc = sl_tokenizer_tekken(&(struct sl_source_dir){*state, NULL}, n_vocab, &kvs, &e);
    sl_kvs_free(&kvs);
    assert_int_equal(rc, SL_ESOURCE);
    assert_non_null(strstr(e.text, "tekken.json: its tokens are made of each other in too many ways"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_file_order),
        cmocka_unit_test(test_by_line),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_quick),
        cmocka_unit_test_setup_teardown(test_keys, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_refused, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_too_many_merges, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("tiktoken", tests, NULL, NULL);
}
