/* What the GGUF reader must accept and what it must refuse, each with its own
 * code and message; and mutations of a good file, which must never crash it. */
#include "tests/unit/gguf_bytes.h"
#include "proto/gguf.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

static char path[64];
static struct bytes b;
static uint64_t hole; /* bytes of zeros that the file goes on with */

static const uint64_t ne_32x2[4] = {32, 2, 1, 1};

static void expect_refused(int code, const char *text)
{
    struct sl_gguf *g = NULL;
    struct sl_error e = {0};
    int rc;

    assert_int_equal(b_write(&b, path), 0);
    if (hole)
        assert_int_equal(truncate(path, (off_t)(b.n + hole)), 0);
    rc = sl_gguf_open(path, &g, &e);
    if (rc != code || !strstr(e.text, text) || !strstr(e.text, path))
        fail_msg("expected %d \"%s\", got %d \"%s\"", code, text, rc, rc ? e.text : "accepted");
    assert_int_equal(e.code, code);
    assert_null(g);
}

static struct sl_gguf *expect_accepted(void)
{
    struct sl_gguf *g = NULL;
    struct sl_error e = {0};

    assert_int_equal(b_write(&b, path), 0);
    if (sl_gguf_open(path, &g, &e) != 0)
        fail_msg("refused: %s", e.text);
    return g;
}

/* A file with one key-value of every type and two tensors. */
static void good_file(uint32_t version)
{
    static const uint8_t scalar[8] = {1, 0, 0, 0, 0, 0, 0, 0};
    char key[16];

    b_start(&b, version, 2, 16);
    for (uint32_t t = 0; t < SL_KV_TYPE_COUNT; t++) {
        snprintf(key, sizeof key, "k.%u", t);
        b_key(&b, key, t);
        if (t == SL_KV_STR) {
            b_str(&b, "text");
        } else if (t == SL_KV_ARR) {
            b_u32(&b, SL_KV_I32);
            b_u64(&b, 3);
            for (uint32_t i = 0; i < 3; i++)
                b_u32(&b, i);
        } else {
            b_put(&b, scalar, sl_gguf_type_size((enum sl_gguf_type)t));
        }
    }
    b_key(&b, "strings", SL_KV_ARR);
    b_u32(&b, SL_KV_STR);
    b_u64(&b, 3);
    b_str(&b, "a");
    b_u64(&b, 0);
    b_u64(&b, 3);
    b_put(&b, "x\0y", 3);
    b_key(&b, "empty", SL_KV_ARR);
    b_u32(&b, SL_KV_STR);
    b_u64(&b, 0);
    b_key(&b, "empty.numbers", SL_KV_ARR);
    b_u32(&b, SL_KV_F32);
    b_u64(&b, 0);
    b_tensor(&b, "a.weight", 2, ne_32x2, SL_TYPE_Q8_0, 0);
    b_tensor(&b, "b.weight", 1, ne_32x2, SL_TYPE_F32, 96);
    b_pad(&b, 32);
    b_zeros(&b, 96 + 128);
}

static void accepts_all_types(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct sl_gguf *g;
        const struct sl_kv *kv;
        const char *s;
        uint64_t u;

        good_file(version);
        g = expect_accepted();
        assert_int_equal(g->version, version);
        assert_int_equal(g->kvs.n, 16);
        assert_int_equal(g->n_tensors, 2);
        assert_int_equal(g->header_bytes % 32, 0);
        assert_int_equal(g->header_bytes + 224, g->file_size);
        assert_int_equal(g->data_bytes, 224);
        assert_int_equal(g->tensors[0].bytes, 68);
        assert_int_equal(g->tensors[1].ne[1], 1);
        assert_string_equal(g->tensors[1].name, "b.weight");
        assert_true(sl_kvs_get_str(&g->kvs, "k.8", &s));
        assert_string_equal(s, "text");
        assert_true(sl_kvs_get_uint(&g->kvs, "k.0", &u) && u == 1);
        kv = sl_kvs_find(&g->kvs, "strings");
        assert_int_equal(kv->n, 3);
        assert_int_equal(kv->str_len[2], 3);
        assert_memory_equal(kv->strs[2], "x\0y", 4);
        assert_int_equal(sl_kvs_find(&g->kvs, "empty")->n, 0);
        sl_gguf_close(g);
    }
}

static void accepts_missing_last_padding(void **state)
{
    struct sl_gguf *g;

    (void)state;
    b_start(&b, 3, 1, 0);
    b_tensor(&b, "t", 1, ne_32x2, SL_TYPE_Q8_0, 0);
    b_pad(&b, 32);
    b_zeros(&b, 34);
    g = expect_accepted();
    assert_int_equal(g->data_bytes, 64);
    sl_gguf_close(g);
    b_start(&b, 3, 0, 0);
    g = expect_accepted();
    assert_int_equal(g->data_bytes, 0);
    sl_gguf_close(g);
}

static void one_tensor(const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset)
{
    b_start(&b, 3, 1, 0);
    b_tensor(&b, name, n_dims, ne, type, offset);
    b_pad(&b, 32);
    b_zeros(&b, 512);
}

/* As gguf-py writes a number; ggml reads it as one dimension of 1. */
static void accepts_no_dimensions(void **state)
{
    struct sl_gguf *g;

    (void)state;
    b_start(&b, 3, 2, 0);
    b_tensor(&b, "t", 0, NULL, SL_TYPE_F32, 0);
    b_tensor(&b, "u", 1, ne_32x2, SL_TYPE_F32, 32);
    b_pad(&b, 32);
    b_zeros(&b, 32 + 128);
    g = expect_accepted();
    assert_true(g->tensors[0].n_dims == 1 && g->tensors[0].ne[0] == 1 && g->tensors[0].bytes == 4);
    assert_int_equal(g->tensors[1].bytes, 128);
    sl_gguf_close(g);
    one_tensor("t", 0, NULL, SL_TYPE_Q8_0, 0);
    expect_refused(SL_ESOURCE, "not whole blocks of 32 (q8_0)");
}

static void accepts_other_alignment(void **state)
{
    struct sl_gguf *g;

    (void)state;
    b_start(&b, 3, 1, 1);
    b_key(&b, "general.alignment", SL_KV_U32);
    b_u32(&b, 64);
    b_tensor(&b, "t", 1, ne_32x2, SL_TYPE_F32, 0);
    b_pad(&b, 64);
    b_zeros(&b, 128);
    g = expect_accepted();
    assert_int_equal(g->align, 64);
    assert_int_equal(g->header_bytes % 64, 0);
    sl_gguf_close(g);
}

static void refuses_prefix(void **state)
{
    (void)state;
    b.n = 0;
    expect_refused(SL_ESOURCE, "ends inside its header");
    b_start(&b, 3, 0, 0);
    b.p[0] = 'X';
    expect_refused(SL_ESOURCE, "not a GGUF file");
    b_start(&b, 1, 0, 0);
    expect_refused(SL_EUNSUPPORTED, "GGUF version 1");
    b_start(&b, 4, 0, 0);
    expect_refused(SL_EUNSUPPORTED, "GGUF version 4");
    b_start(&b, 0x03000000, 0, 0);
    expect_refused(SL_EUNSUPPORTED, "big-endian");
    b_start(&b, 3, 0, 0);
    b.n = 20;
    expect_refused(SL_ESOURCE, "ends inside its header");
}

static void refuses_counts(void **state)
{
    static const uint64_t counts[] = {1, 1 << 30, UINT64_MAX / 56 + 1, UINT64_MAX / 8, INT64_MAX,
                                      UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        b_start(&b, 3, 0, counts[i]);
        expect_refused(SL_ESOURCE, "metadata keys do not fit");
        b_start(&b, 3, counts[i], 0);
        expect_refused(SL_ESOURCE, "tensors do not fit");
    }
    /* Each key is looked up among all. */
    for (uint64_t n = 10000; n < 10002; n++) {
        char key[24];

        b_start(&b, 3, 0, n);
        for (uint64_t i = 0; i < n; i++) {
            snprintf(key, sizeof key, "k%llu", (unsigned long long)i);
            b_key(&b, key, SL_KV_U8);
            b_u8(&b, 1);
        }
        if (n == 10000)
            sl_gguf_close(expect_accepted());
        else
            expect_refused(SL_ESOURCE, "10001 metadata keys; 10000 at most are read");
    }
}

/* A file may be there in full and still be refused: what is read of it stays in memory. */
static void refuses_what_takes_all_memory(void **state)
{
    (void)state;
    hole = UINT64_C(1) << 31;
    b_start(&b, 3, SL_GGUF_MAX_TENSORS + 1, 0);
    expect_refused(SL_ESOURCE, "1000001 tensors; 1000000 at most");
    for (int strings = 0; strings < 2; strings++) {
        b_start(&b, 3, 0, 1);
        b_key(&b, "key", SL_KV_ARR);
        b_u32(&b, strings ? SL_KV_STR : SL_KV_U8);
        b_u64(&b, SL_GGUF_MAX_HEADER / (strings ? 8 : 1));
        expect_refused(SL_ESOURCE, "longer than 100 MB");
    }
    b_start(&b, 3, 0, 1);
    b_key(&b, "key", SL_KV_STR);
    b_u64(&b, SL_GGUF_MAX_HEADER);
    expect_refused(SL_ESOURCE, "longer than 100 MB");
    hole = 0;
}

static void refuses_strings(void **state)
{
    (void)state;
    b_start(&b, 3, 0, 1);
    b_u64(&b, UINT64_MAX);
    b_zeros(&b, 32);
    expect_refused(SL_ESOURCE, "metadata key 0: length");
    b_start(&b, 3, 0, 1);
    b_u64(&b, 0);
    b_zeros(&b, 32);
    expect_refused(SL_ESOURCE, "metadata key 0: length 0");
    b_start(&b, 3, 0, 1);
    b_u64(&b, 3);
    b_put(&b, "a\0b", 3);
    b_zeros(&b, 32);
    expect_refused(SL_ESOURCE, "zero byte");
    for (int huge = 0; huge < 2; huge++) {
        b_start(&b, 3, 0, 1);
        b_key(&b, "key", SL_KV_STR);
        b_u64(&b, huge ? UINT64_MAX : 1u << 30);
        b_put(&b, "short", 5);
        expect_refused(SL_ESOURCE, "metadata key key: string 0");
    }
}

static void refuses_values(void **state)
{
    static const uint64_t counts[] = {1 << 30, UINT64_MAX / 4 + 1, UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (uint32_t elem = 0; elem < SL_KV_TYPE_COUNT; elem++) {
            b_start(&b, 3, 0, 1);
            b_key(&b, "key", SL_KV_ARR);
            b_u32(&b, elem);
            b_u64(&b, counts[i]);
            b_put(&b, "x", 1);
            expect_refused(SL_ESOURCE, elem == SL_KV_ARR ? "array of arrays" : "do not fit the file");
        }
    b_start(&b, 3, 0, 1);
    b_key(&b, "key", 13);
    b_zeros(&b, 8);
    expect_refused(SL_ESOURCE, "value type 13 does not exist");
    b_start(&b, 3, 0, 1);
    b_key(&b, "key", SL_KV_BOOL);
    b_u8(&b, 2);
    expect_refused(SL_ESOURCE, "neither 0 nor 1");
    b_start(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        b_key(&b, "twice", SL_KV_U32);
        b_u32(&b, 1);
    }
    expect_refused(SL_ESOURCE, "metadata key twice is there twice");
}

static void refuses_alignment(void **state)
{
    static const uint32_t bad[] = {0, 3, 33, 0x80000001};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        b_start(&b, 3, 0, 1);
        b_key(&b, "general.alignment", SL_KV_U32);
        b_u32(&b, bad[i]);
        expect_refused(SL_ESOURCE, "not a power of 2");
    }
    b_start(&b, 3, 0, 1);
    b_key(&b, "general.alignment", SL_KV_U64);
    b_u64(&b, 32);
    expect_refused(SL_ESOURCE, "must be a u32");
    b_start(&b, 3, 1, 1);
    b_key(&b, "general.alignment", SL_KV_U32);
    b_u32(&b, 0x80000000);
    b_tensor(&b, "t", 1, ne_32x2, SL_TYPE_F32, 0);
    b_zeros(&b, 256);
    expect_refused(SL_ESOURCE, "ends before its tensor data");
}

static void refuses_tensors(void **state)
{
    char name[80] = {0};

    (void)state;
    one_tensor("", 1, ne_32x2, 0, 0);
    expect_refused(SL_ESOURCE, "a name of 0 bytes");
    memset(name, 'n', 64);
    one_tensor(name, 1, ne_32x2, 0, 0);
    expect_refused(SL_ESOURCE, "a name of 64 bytes");
    one_tensor("t", 5, (const uint64_t[5]){1, 1, 1, 1, 1}, 0, 0);
    expect_refused(SL_ESOURCE, "tensor t: 5 dimensions");
    one_tensor("t", UINT32_MAX, (const uint64_t[8]){0}, 0, 0);
    expect_refused(SL_ESOURCE, "tensor t: 4294967295 dimensions");
    one_tensor("t", 2, (const uint64_t[2]){32, 0}, 0, 0);
    expect_refused(SL_ESOURCE, "tensor t: dimension 1 is 0");
    one_tensor("t", 2, (const uint64_t[2]){INT64_MAX, 2}, 0, 0);
    expect_refused(SL_ESOURCE, "more elements than");
    one_tensor("t", 4, (const uint64_t[4]){1u << 31, 1u << 31, 1u << 31, 1u << 31}, 0, 0);
    expect_refused(SL_ESOURCE, "more elements than");
    one_tensor("t", 1, (const uint64_t[1]){UINT64_MAX - 31}, 0, 0);
    expect_refused(SL_ESOURCE, "more elements than");
    one_tensor("t", 1, (const uint64_t[1]){INT64_MAX}, 0, 0);
    expect_refused(SL_ESOURCE, "more bytes than");
    one_tensor("t", 1, (const uint64_t[1]){33}, SL_TYPE_Q8_0, 0);
    expect_refused(SL_ESOURCE, "not whole blocks of 32 (q8_0)");
    for (uint32_t type = 4; type <= 5; type++) {
        one_tensor("t", 1, ne_32x2, type, 0);
        expect_refused(SL_EUNSUPPORTED, "is not known to Sluice");
    }
    one_tensor("t", 1, ne_32x2, UINT32_MAX, 0);
    expect_refused(SL_EUNSUPPORTED, "is not known to Sluice");
    b_start(&b, 3, 2, 0);
    b_tensor(&b, "same", 1, ne_32x2, 0, 0);
    b_tensor(&b, "same", 1, ne_32x2, 0, 128);
    b_pad(&b, 32);
    b_zeros(&b, 256);
    expect_refused(SL_ESOURCE, "tensor same is there twice");
}

static void refuses_offsets(void **state)
{
    static const uint64_t bad[] = {1, 32, UINT64_MAX - 3, (uint64_t)1 << 63};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        one_tensor("t", 1, ne_32x2, 0, bad[i]);
        expect_refused(SL_ESOURCE, "tensor t: offset");
    }
    one_tensor("t", 1, (const uint64_t[1]){1024}, 0, 0);
    expect_refused(SL_ESOURCE, "tensor t: its data end past the end of the file");
    one_tensor("t", 1, (const uint64_t[1]){(uint64_t)1 << 60}, 0, 0);
    expect_refused(SL_ESOURCE, "its data end past the end of the file");
    b_start(&b, 3, 2, 0);
    b_tensor(&b, "a", 1, (const uint64_t[1]){(uint64_t)1 << 60}, 0, 0);
    b_tensor(&b, "b", 1, (const uint64_t[1]){(uint64_t)1 << 60}, 0, (uint64_t)1 << 62);
    b_pad(&b, 32);
    expect_refused(SL_ESOURCE, "tensor a: its data end past");
}

static void refuses_what_is_no_file(void **state)
{
    struct sl_gguf *g = NULL;
    struct sl_error e = {0};

    (void)state;
    assert_int_equal(sl_gguf_open("/nonexistent/x.gguf", &g, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "/nonexistent/x.gguf: No such file"));
    assert_int_equal(sl_gguf_open("/tmp", &g, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "not a regular file"));
    assert_null(g);
}

static void refuses_every_truncation(void **state)
{
    size_t full;

    (void)state;
    good_file(3);
    full = b.n;
    for (b.n = 0; b.n < full; b.n++)
        expect_refused(SL_ESOURCE, "");
    b.n = full;
    sl_gguf_close(expect_accepted());
}

/* Random changes of a good file: accepted or refused, memory in proportion to
 * the file (the window is 256 KiB). */
static void survives_mutations(void **state)
{
    uint64_t x = 88172645463325252u;
    int accepted = 0;

    (void)state;
    for (int round = 0; round < 4000; round++) {
        struct sl_gguf *g = NULL;
        struct sl_error e = {0};
        int changes;
        size_t limit;

        good_file(3);
        limit = round % 2 ? b.n : 200;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        for (changes = 1 + (int)(x % 4); changes > 0; changes--) {
            size_t at;

            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            at = (x >> 20) % limit;
            b.p[at] = x % 3 == 0 ? 0xff : x % 3 == 1 ? (uint8_t)(b.p[at] ^ (1 << (x >> 8) % 8))
                                                     : (uint8_t)(x >> 40);
        }
        assert_int_equal(b_write(&b, path), 0);
        if (sl_gguf_open(path, &g, &e) == 0) {
            accepted++;
            sl_gguf_close(g);
        } else {
            assert_true(e.text[0] && (e.code == SL_ESOURCE || e.code == SL_EUNSUPPORTED));
        }
    }
    assert_true(accepted >= 1 && accepted <= 3999);
}

/* A header like DeepSeek's: a vocabulary of 129,280 tokens and 127,741 merges. */
static void large_vocabulary_is_quick(void **state)
{
    struct timespec a, z;
    struct mallinfo2 before, after;
    struct sl_gguf *g = NULL;
    struct sl_error e;
    char text[32];
    double ms = 1e9;

    (void)state;
    b_start(&b, 3, 0, 2);
    for (uint32_t k = 0; k < 2; k++) {
        b_key(&b, k ? "tokenizer.ggml.merges" : "tokenizer.ggml.tokens", SL_KV_ARR);
        b_u32(&b, SL_KV_STR);
        b_u64(&b, 129280);
        for (uint32_t i = 0; i < 129280; i++) {
            snprintf(text, sizeof text, "%.*s%u", (int)(i % 17), "abcdefghijklmnopq", i);
            b_str(&b, text);
        }
    }
    assert_int_equal(b_write(&b, path), 0);
    before = mallinfo2();
    for (int i = 0; i < 5; i++) {
        sl_gguf_close(g);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        assert_int_equal(sl_gguf_open(path, &g, &e), 0);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &z);
        double t = (double)(z.tv_sec - a.tv_sec) * 1e3 + (double)(z.tv_nsec - a.tv_nsec) / 1e6;
        ms = t < ms ? t : ms;
    }
    after = mallinfo2();
    print_message("%.1f MB header: %.1f ms\n", (double)b.n / 1e6, ms);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(ms < 500); /* of processor time; wanted: 50, the rest is room for a slow machine */
    assert_true(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd < 3 * b.n);
#endif
    (void)before;
    (void)after;
    sl_gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_all_types),
        cmocka_unit_test(accepts_missing_last_padding),
        cmocka_unit_test(accepts_no_dimensions),
        cmocka_unit_test(accepts_other_alignment),
        cmocka_unit_test(refuses_prefix),
        cmocka_unit_test(refuses_counts),
        cmocka_unit_test(refuses_what_takes_all_memory),
        cmocka_unit_test(refuses_strings),
        cmocka_unit_test(refuses_values),
        cmocka_unit_test(refuses_alignment),
        cmocka_unit_test(refuses_tensors),
        cmocka_unit_test(refuses_offsets),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(survives_mutations),
        cmocka_unit_test(large_vocabulary_is_quick),
    };
    int rc;

    snprintf(path, sizeof path, "/tmp/sluice-gguf-read-%ld", (long)getpid());
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    free(b.p);
    return rc;
}
