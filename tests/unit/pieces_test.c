/* SentencePiece's tokenizer.model: its tokens, and every part of a file and every flipped bit of one read without harm. */
#include "tests/unit/tokenizer_fixture.h"

#define N_VOCAB 8
/* Numbers before the text and after it, and fields that are of no interest. */
static const char model[] =
    "\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02"
    "\x0a\x0b\x15\0\0\x80\xbf\x0a\x02" "ab\x18\x04"
    "\x0a\x08\x0a\x01" "c\x15\0\0\0\xc0"
    "\x0a\x05\x0a\x03" "<d>"
    "\x12\x02\x18\x02\x91\x06\1\2\3\4\5\6\7\x08\x98\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
#define MODEL_BYTES (sizeof model - 1)

static void test_tokens(void **state)
{
    static const char *const text[N_VOCAB] = {"<unk>", "ab", "<|c|>", "<d>", "[PAD4]", "e f", "[PAD6]", "g"};
    static const float scores[N_VOCAB] = {0, -1, -1000, 0, -10000, -1000, -10000, -1000};
    static const int32_t types[N_VOCAB] = {2, 1, 3, 1, 5, 4, 5, 4};
    const struct sl_kv *kv;
    struct sl_kvs kvs;
    struct sl_error e;
    char buf[64];

    fx_write(*state, "tokenizer.model", model, MODEL_BYTES);
    fx_text(*state, "added_tokens.json", "{\"g\":7,\"h\":8,\"x\":5}");
    fx_text(*state, "tokenizer_config.json", "{\"add_prefix_space\":true,\"added_tokens_decoder\":{\"2\":{\"content\":\"<|c|>\"},\"5\":{\"content\":\"e▁f\"},"
            "\"9\":{\"content\":\"i\"}}}");
    assert_int_equal(keys_of(*state, &sl_arch_ernie45_moe, N_VOCAB, "{\"bos_token_id\":1,\"eos_token_id\":8,\"unk_token_id\":7}", &kvs, &e), 0);
    kv = sl_kvs_find(&kvs, "tokenizer.ggml.tokens");
    for (int i = 0; i < N_VOCAB; i++)
        assert_string_equal(kv->strs[i], text[i]);
    kv = sl_kvs_find(&kvs, "tokenizer.ggml.scores");
    assert_true(kv->n == N_VOCAB && kv->elem == SL_KV_F32);
    assert_memory_equal(kv->data, scores, sizeof scores);
    kv = sl_kvs_find(&kvs, "tokenizer.ggml.token_type");
    assert_memory_equal(kv->data, types, sizeof types);
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.bos_token_id", buf, sizeof buf), "u32 1");
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.unknown_token_id", buf, sizeof buf), "u32 7");
    assert_null(sl_kvs_find(&kvs, "tokenizer.ggml.eos_token_id")); /* no such token */
    assert_string_equal(fx_value(&kvs, "tokenizer.ggml.add_space_prefix", buf, sizeof buf), "bool true");
    sl_kvs_free(&kvs);
}

static int read_model(const char *dir, const void *bytes, size_t n, struct sl_error *e)
{
    struct sl_kvs kvs;
    int rc;

    fx_write(dir, "tokenizer.model", bytes, n);
    rc = keys_of(dir, &sl_arch_ernie45_moe, N_VOCAB, "{}", &kvs, e);
    sl_kvs_free(&kvs);
    return rc;
}

/* A part that ends behind a whole field is a file of its own. */
static void test_damaged(void **state)
{
    size_t taken = 0;
    struct sl_error e;
    char copy[MODEL_BYTES];

    for (size_t n = 0; n < MODEL_BYTES; n++) {
        int rc = read_model(*state, model, n, &e);

        assert_true(rc == 0 || rc == SL_ESOURCE);
        taken += rc == 0;
    }
    assert_int_equal(taken, 6); /* behind each piece, and two of the other fields */
    for (size_t bit = 0; bit < 8 * MODEL_BYTES; bit++) {
        int rc;

        memcpy(copy, model, MODEL_BYTES);
        copy[bit / 8] ^= (char)(1 << bit % 8);
        rc = read_model(*state, copy, MODEL_BYTES, &e);
        assert_true(rc == 0 || rc == SL_ESOURCE);
    }
    assert_int_equal(read_model(*state, model, MODEL_BYTES, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tokens, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_damaged, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("SentencePiece", tests, NULL, NULL);
}
