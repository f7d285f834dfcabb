/* Importance matrices read: both formats, their historical layouts, files that lie. */
#include "proto/imatrix_use.h"
#include "tests/fuzz/imatrix_fuzz.c"
#include "tests/unit/imatrix_maker.h"
#include "tests/unit/r1_model.h"

#include <math.h>
#include <sys/stat.h>

static void test_dat(void **state)
{
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;
    float x[6];

    (void)state;
    good_dat(&b);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_int_equal(im->format, SL_IMATRIX_DAT);
    assert_int_equal(im->n_entries, 2);
    assert_int_equal(im->n_chunks, 12);
    assert_int_equal(im->n_datasets, 1);
    assert_string_equal(im->datasets[0], "set");
    assert_int_equal(sl_imatrix_check(im, &e), 0);
    assert_int_equal(sl_imatrix_find(im, "blk.0.ffn_up.weigh"), -1);
    assert_int_equal(sl_imatrix_find(im, "blk.1.ffn_up_exps.weight"), 1);
    assert_int_equal(sl_imatrix_values(im, 0, 0, 4, x, &e), 0);
    for (int i = 0; i < 4; i++)
        assert_true(x[i] == (7 + (float)i) / 3);
    assert_int_equal(sl_imatrix_values(im, 1, 2, 3, x, &e), 0); /* no calls: as stored */
    assert_true(x[0] == 3 && x[2] == 5);
    assert_true(sl_imatrix_values(im, 1, 2, 5, x, &e) < 0);
    assert_true(sl_imatrix_values(im, 1, UINT64_MAX, 2, x, &e) < 0);
    assert_int_equal(b_write(&b, path), 0); /* another time of change */
    b_u8(&b, 0);
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(sl_imatrix_values(im, 0, 0, 4, x, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "changed"));
    sl_imatrix_close(im);
    refuses(&b, "1 bytes follow");
    b.n -= 8; /* files before 2024 end after the entries, some after the chunks */
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_int_equal(im->n_chunks, 12);
    assert_int_equal(im->n_datasets, 0);
    sl_imatrix_close(im);
    b.n -= 4;
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_int_equal(im->n_chunks, 0);
    sl_imatrix_close(im);
    free(b.p);
}

static void test_dat_lies(void **state)
{
    /* place of a number of the good file, what it becomes, what is said */
    static const struct {
        size_t at;
        int32_t v;
        const char *what;
    } lies[] = {
        {0, -1, "number of entries is -1"}, {0, INT32_MAX, "2147483647 entries in"},
        {0, 3, "inside entry 2"}, {0, 1, "the data set's name"},
        {4, -19, "byte 4, entry 0: length of the name is -19"},
        {4, INT32_MAX, "length of the name is 2147483647, more than"},
        {4, 0, "inside entry 0"}, {4, 20, "has no values"},
        {27, -3, "number of calls is -3"}, {31, -4, "number of values is -4"},
        {31, 0, "has no values"}, {31, INT32_MAX, "values"}, {31, 5, "byte 55, entry 1: length of the name is"},
        {111, -12, "number of chunks is -12"}, {115, -1, "data set's name is -1"},
        {115, 4, "ends at byte"}, {115, 2, "1 bytes follow"},
    };
    struct bytes b = {0};
    size_t whole;

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        good_dat(&b);
        put_i32(&b, lies[i].at, lies[i].v);
        refuses(&b, lies[i].what);
    }
    good_dat(&b);
    whole = b.n;
    for (size_t n = 0; n < whole; n++) { /* cut anywhere but at the two old ends */
        if (n == 111 || n == 115)
            continue;
        b.n = n;
        refuses(&b, "no imatrix");
    }
    b.n = 0;
    i32(&b, 2);
    dat_entry(&b, "a.weight", 1, 2, 1);
    dat_entry(&b, "a.weight", 1, 2, 1);
    refuses(&b, "'a.weight' is there twice");
    b.n = 0;
    i32(&b, 0);
    refuses(&b, "no entries");
    b.n = 0;
    i32(&b, SL_IMATRIX_MAX_ENTRIES + 1);
    for (uint32_t i = 0; i <= SL_IMATRIX_MAX_ENTRIES; i++) {
        char name[16];

        snprintf(name, sizeof name, "%u", i);
        dat_entry(&b, name, 1, 1, 1);
    }
    refuses(&b, "more than 500000 entries");
    free(b.p);
}

static void test_bad_values(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, -1e-30f};
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;

    (void)state;
    for (int i = 0; i < 4; i++) {
        good_dat(&b);
        memcpy(b.p + 35 + 8, &bad[i], 4);
        assert_int_equal(open_bytes(&b, &im, &e), 0);
        assert_int_equal(im->entries[0].bad, 1);
        assert_int_equal(im->entries[0].first_bad, 2);
        assert_int_equal(sl_imatrix_check(im, &e), SL_ESOURCE);
        assert_non_null(strstr(e.text, "'blk.0.ffn_up.weight': value 2 and 0 others"));
        assert_int_equal(sl_imatrix_filter(im, &(struct sl_weight_words){(const char *[]){"blk.0."}, 1, false}, &e), 0);
        assert_int_equal(sl_imatrix_check(im, &e), 0);
        assert_int_equal(im->n_entries, 1);
        assert_int_equal(sl_imatrix_find(im, "blk.1.ffn_up_exps.weight"), 0);
        assert_int_equal(sl_imatrix_find(im, "blk.0.ffn_up.weight"), -1);
        sl_imatrix_close(im);
    }
    b.n = 0; /* more values than are looked at in one go */
    i32(&b, 1);
    dat_entry(&b, "long", 1, 2 * SL_IMATRIX_PIECE + 9, 1);
    memcpy(b.p + 20 + 4 * (SL_IMATRIX_PIECE + 5), &bad[0], 4);
    memcpy(b.p + 20 + 4 * (2 * SL_IMATRIX_PIECE + 8), &bad[1], 4);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_int_equal(im->entries[0].bad, 2);
    assert_int_equal(im->entries[0].first_bad, SL_IMATRIX_PIECE + 5);
    sl_imatrix_close(im);
    free(b.p);
}

static void test_gguf(void **state)
{
    struct gguf_file g = {.n = 0};
    struct sl_imatrix *im;
    struct sl_error e;
    float x[8];

    (void)state;
    g_add(&g, "blk.0.ffn_up_exps.weight.counts", 1, 4, counts);
    g_add(&g, "blk.0.ffn_up_exps.weight.in_sum2", 2, 4, sums);
    g_add(&g, "blk.0.attn_k_b.weight.in_sum2", 8, 1, sums); /* one count for all heads */
    g_add(&g, "blk.0.attn_k_b.weight.counts", 1, 1, counts);
    g_add(&g, "blk.0.ffn_up_exps.weight.in_sum", 2, 4, sums); /* of newer files */
    assert_int_equal(open_bytes(g_bytes(&g), &im, &e), 0);
    assert_int_equal(im->format, SL_IMATRIX_GGUF);
    assert_int_equal(im->n_entries, 2);
    assert_int_equal(im->n_foreign, 1);
    assert_int_equal(im->n_chunks, 9);
    assert_int_equal(im->chunk_size, 100);
    assert_int_equal(im->n_datasets, 2);
    assert_int_equal(im->entries[0].n_zero, 1);
    assert_int_equal(sl_imatrix_values(im, 0, 0, 8, x, &e), 0);
    assert_true(x[0] == 1 && x[1] == 2 && x[2] == 1 && x[3] == 1 && x[4] == 2.5f && x[5] == 3);
    assert_true(x[6] == 14.0f / 700 && x[7] == 16.0f / 700);
    assert_int_equal(sl_imatrix_values(im, 0, 3, 2, x, &e), 0);
    assert_true(x[0] == 1 && x[1] == 2.5f);
    assert_int_equal(sl_imatrix_values(im, 1, 0, 8, x, &e), 0);
    assert_true(x[0] == 1 && x[7] == 8);
    sl_imatrix_close(im);
    free(g.b.p);
    free(g.data.p);
}

/* llama.cpp reads counts as whole numbers, halves upwards. */
static void test_broken_counts(void **state)
{
    static const float broken[] = {2.5f, 2.4f, 0.4f, 8000000.0f};
    struct gguf_file g = {.n = 0};
    struct sl_imatrix *im;
    struct sl_error e;
    float x[8];

    (void)state;
    g_add(&g, "a.weight.counts", 1, 4, broken);
    g_add(&g, "a.weight.in_sum2", 2, 4, sums);
    assert_int_equal(open_bytes(g_bytes(&g), &im, &e), 0);
    assert_int_equal(im->entries[0].n_zero, 1);
    assert_int_equal(sl_imatrix_values(im, 0, 0, 8, x, &e), 0);
    assert_true(x[0] == sums[0] / 3 && x[2] == sums[2] / 2 && x[4] == 1 && x[7] == sums[7] / 8000000);
    sl_imatrix_close(im);
    free(g.b.p);
    free(g.data.p);
}

static void test_gguf_lies(void **state)
{
    static const float negative[] = {2, -1, 1, 1}, nan_count[] = {NAN, 1, 1, 1};
    struct gguf_file g = {.n = 0};

    (void)state;
    g_add(&g, "a.weight.in_sum2", 2, 4, sums);
    refuses(g_bytes(&g), "its counts are missing");
    g_add(&g, "a.weight.counts", 1, 4, counts);
    refuses(g_bytes(&g), "its sums are missing");
    g_add(&g, "a.weight.in_sum2", 2, 4, sums);
    g_add(&g, "a.weight.counts", 1, 3, counts);
    refuses(g_bytes(&g), "8 sums do not go with 3 counts");
    g_add(&g, "a.weight.in_sum2", 2, 4, sums);
    g_add(&g, "a.weight.counts", 1, 4, negative);
    refuses(g_bytes(&g), "count 1 is -1");
    g_add(&g, "a.weight.in_sum2", 2, 4, sums);
    g_add(&g, "a.weight.counts", 1, 4, nan_count);
    refuses(g_bytes(&g), "count 0 is nan");
    g_add(&g, "a.weight.in_sum2", 2, 4, sums);
    g_add(&g, "a.weight.counts", 1, 4, counts);
    g.type[1] = 26;
    refuses(g_bytes(&g), "must be F32");
    g.type[1] = 0;
    g.no_size = true;
    refuses(g_bytes(&g), "no imatrix");
    g.no_size = false;
    g.chunks_as_text = true;
    refuses(g_bytes(&g), "no imatrix");
    g.chunks_as_text = false;
    refuses(g_bytes(&g), "no entries");
    g_add(&g, "a.weight.in_sum2", 2, 4, sums);
    g_add(&g, "a.weight.counts", 1, 4, counts);
    g_bytes(&g);
    g.b.n -= 32; /* the counts themselves */
    refuses(&g.b, "a.weight.counts");
    free(g.b.p);
    free(g.data.p);
}

/* What is outside the roots is not read, not even to say what is wrong with it. */
static void test_outside_roots(void **state)
{
    const char *roots[1] = {path2};
    struct sl_roots *r;
    struct sl_imatrix *im;
    struct bytes b = {.n = 0};
    struct sl_error e;

    (void)state;
    b_put(&b, "root:x", 6);
    assert_int_equal(b_write(&b, path), 0);
    unlink(path2);
    assert_int_equal(mkdir(path2, 0700), 0);
    assert_int_equal(sl_roots_open(roots, 1, &r, &e), 0);
    assert_int_equal(sl_imatrix_open_within(path, r, &im, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "lies outside the folders"));
    sl_roots_close(r);
    assert_int_equal(rmdir(path2), 0);
    free(b.p);
}

/* Counts stay in memory; those here are a hole of the file. */
static void test_too_many_counts(void **state)
{
    static const char *const names[] = {"a.weight.in_sum2", "a.weight.counts"};
    const uint64_t ne[4] = {1, SL_IMATRIX_MAX_COUNTS + 1, 1, 1};
    struct gguf_file g = {.n = 0};
    struct sl_imatrix *im;
    struct sl_error e;

    (void)state;
    g_keys(&g, 2);
    for (unsigned i = 0; i < 2; i++)
        b_tensor(&g.b, names[i], 2, ne, 0, i * (ne[1] * 4 + 31) / 32 * 32);
    b_pad(&g.b, 32);
    assert_int_equal(b_write(&g.b, path), 0);
    assert_int_equal(truncate(path, (off_t)(g.b.n + 2 * (ne[1] * 4 + 31))), 0);
    assert_int_equal(sl_imatrix_open(path, &im, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "more than 16000000 counts"));
    free(g.b.p);
}

/* Changed bytes, the fuzz target as judge: some pass, most do not. */
static void mutate(const struct bytes *good)
{
    struct bytes m = {0};
    uint64_t r = 88172645463325252u;
    int passed = 0;

    assert_int_equal(sl_fuzz_imatrix(good->p, good->n), 0);
    for (int i = 0; i < 1500; i++) {
        m.n = 0;
        b_put(&m, good->p, good->n);
        for (int k = 0; k <= i % 3; k++) {
            r ^= r << 13;
            r ^= r >> 7;
            r ^= r << 17;
            m.p[r % m.n] = (uint8_t)(r >> 32 & (r & 1u << 20 ? 0xff : 0x80));
        }
        m.n -= i % 16 ? 0 : r % m.n;
        passed += sl_fuzz_imatrix(m.p, m.n) == 0;
    }
    assert_true(passed > 20 && passed < 1450);
    free(m.p);
}

static void test_mutations(void **state)
{
    struct gguf_file g = {.n = 0};
    struct bytes b = {0};

    (void)state;
    good_dat(&b);
    mutate(&b);
    g_add(&g, "blk.0.ffn_up_exps.weight.counts", 1, 4, counts);
    g_add(&g, "blk.0.ffn_up_exps.weight.in_sum2", 2, 4, sums);
    mutate(g_bytes(&g));
    free(b.p);
    free(g.b.p);
    free(g.data.p);
}

static void test_lookup(void **state)
{
    struct sl_out_tensor t;
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;
    uint32_t entry = 77;

    (void)state;
    b.n = 0;
    i32(&b, 4);
    dat_entry(&b, "blk.0.attn_k_b.weight", 1, 4, 1);
    dat_entry(&b, "blk.0.ffn_up_exps.weight", 1, 12, 1);
    dat_entry(&b, "token_embd.weight", 1, 5, 1);
    dat_entry(&b, "blk.0.ffn_up.weight", 1, 5, 1);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    r1_tensor(&t, "blk.0.ffn_up_exps.weight", "4x9x3");
    assert_int_equal(sl_imatrix_for(im, &t, &entry, &e), 1);
    assert_int_equal(entry, 1);
    r1_tensor(&t, "blk.0.ffn_up_exps.weigh", "4x9x3");
    assert_int_equal(sl_imatrix_for(im, &t, &entry, &e), 0);
    r1_tensor(&t, "token_embd.weight", "4x9");
    assert_int_equal(sl_imatrix_for(im, &t, &entry, &e), 0);
    r1_tensor(&t, "blk.0.ffn_up.weight", "4x9");
    assert_int_equal(sl_imatrix_for(im, &t, &entry, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "'blk.0.ffn_up.weight' has 5 values there, 4 are expected"));
    r1_tensor(&t, "blk.0.attn_k_b.weight", "4x16x8");
    assert_int_equal(sl_imatrix_for(im, &t, &entry, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "has 4 values there, 32 are expected; llama.cpp collected"));
    sl_imatrix_close(im);
    free(b.p);
}

static void test_kvs(void **state)
{
    struct sl_imatrix *im;
    struct sl_kvs kvs = {0};
    struct sl_error e;
    const char *text;
    uint32_t v;

    (void)state;
    assert_int_equal(sl_imatrix_open(TINY_DAT, &im, &e), 0);
    assert_int_equal(sl_imatrix_kvs(im, &(struct sl_weight_words){(const char *[]){"ffn"}, 1, true}, &kvs), 0);
    assert_int_equal(kvs.n, 6);
    assert_string_equal(kvs.kv[0].key, "quantize.imatrix.file");
    assert_string_equal(kvs.kv[1].key, "quantize.imatrix.dataset");
    assert_string_equal(kvs.kv[2].key, "quantize.imatrix.entries_count");
    assert_string_equal(kvs.kv[3].key, "quantize.imatrix.chunks_count");
    assert_true(sl_kvs_get_u32(&kvs, "quantize.imatrix.chunks_count", &v) && v == 160);
    assert_true(sl_kvs_get_str(&kvs, SL_KEY_IMATRIX, &text) && strlen(text) == 32);
    assert_non_null(sl_kvs_find(&kvs, SL_KEY_IMATRIX_INCLUDE));
    sl_kvs_free(&kvs);
    /* llama-quantize keeps 127 bytes; a character is not cut. */
    free(im->path);
    im->path = calloc(1, 200);
    memset(im->path, 'x', 126);
    strcpy(im->path + 126, "\xe9\xbe\x8d.gguf");
    im->n_chunks = 0;
    assert_int_equal(sl_imatrix_kvs(im, &(struct sl_weight_words){0}, &kvs), 0);
    assert_null(sl_kvs_find(&kvs, "quantize.imatrix.chunks_count"));
    assert_true(sl_kvs_get_str(&kvs, "quantize.imatrix.file", &text) && strlen(text) == 126);
    sl_kvs_free(&kvs);
    sl_imatrix_close(im);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dat),
        cmocka_unit_test(test_dat_lies),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_broken_counts),
        cmocka_unit_test(test_gguf_lies),
        cmocka_unit_test(test_too_many_counts),
        cmocka_unit_test(test_outside_roots),
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_kvs),
        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
