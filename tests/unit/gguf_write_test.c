/* Key-value lists, header bytes, value places, split names, hashes, manifests. */
#include "tests/unit/gguf_bytes.h"
#include "proto/tensor_hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char path[64];

static void setting_again_moves_to_the_end(void **state)
{
    struct sl_kvs kvs = {0}, of = {0};
    uint32_t v = 0;
    uint64_t u;

    (void)state;
    assert_int_equal(sl_kvs_set_u32(&kvs, "a", 1), 0);
    assert_int_equal(sl_kvs_set_str(&kvs, "b", "text"), 0);
    assert_int_equal(sl_kvs_set_u32(&kvs, "a", 2), 0);
    assert_int_equal(kvs.n, 2);
    assert_string_equal(kvs.kv[1].key, "a");
    assert_true(sl_kvs_get_u32(&kvs, "a", &v));
    assert_int_equal(v, 2);
    assert_false(sl_kvs_get_u32(&kvs, "b", &v));
    assert_false(sl_kvs_get_uint(&kvs, "b", &u));
    assert_int_equal(sl_kvs_set_i32(&kvs, "neg", -1), 0);
    assert_false(sl_kvs_get_uint(&kvs, "neg", &u));
    /* A value may come from the list itself. */
    assert_int_equal(sl_kvs_copy(&kvs, sl_kvs_find(&kvs, "b")), 0);
    assert_string_equal(kvs.kv[2].strs[0], "text");
    assert_int_equal(sl_kvs_borrow(&of, sl_kvs_find(&kvs, "b")), 0);
    assert_ptr_equal(of.kv[0].strs, sl_kvs_find(&kvs, "b")->strs);
    assert_int_equal(sl_kvs_set_str(&of, "b", "own"), 0);
    assert_int_equal(sl_kvs_borrow(&of, sl_kvs_find(&kvs, "b")), 0);
    sl_kvs_free(&of);
    assert_string_equal(sl_kvs_find(&kvs, "b")->strs[0], "text");
    sl_kvs_free(&kvs);
}

static void texts_are_made_utf8(void **state)
{
    struct sl_kvs kvs = {0}, copy = {0};

    (void)state;
    assert_int_equal(sl_kvs_set_strs(&kvs, "s", (const char *const[]){"\xffg\xc3\xa9\xe9", "", "\xe9\xbe"}, 3), 0);
    assert_string_equal(kvs.kv[0].strs[0], "\xef\xbf\xbdg\xc3\xa9\xef\xbf\xbd");
    assert_int_equal(kvs.kv[0].str_len[0], 9);
    assert_string_equal(kvs.kv[0].strs[2], "\xef\xbf\xbd\xef\xbf\xbd");
    strcpy(kvs.kv[0].strs[2], "\xff"); /* a file's own strings are copied as they are */
    kvs.kv[0].str_len[2] = 1;
    assert_int_equal(sl_kvs_copy(&copy, &kvs.kv[0]), 0);
    assert_string_equal(copy.kv[0].strs[2], "\xff");
    sl_kvs_free(&copy);
    sl_kvs_free(&kvs);
}

/* The exact bytes of a small header. */
static void header_bytes(void **state)
{
    static const struct sl_gguf_tensor t = {
        .name = "t", .n_dims = 2, .ne = {32, 2, 1, 1}, .type = SL_TYPE_F16, .offset = 7};
    struct sl_kvs kvs = {0};
    struct bytes want = {0};
    uint8_t *got;
    uint64_t n, only, at;

    (void)state;
    assert_int_equal(sl_kvs_set_str(&kvs, "s", "abc"), 0);
    assert_int_equal(sl_kvs_set_bool(&kvs, "t", true), 0);
    assert_int_equal(sl_kvs_set_strs(&kvs, "list", (const char *const[]){"x", ""}, 2), 0);
    assert_int_equal(sl_kvs_set_u16(&kvs, "u", 513), 0);
    assert_int_equal(sl_gguf_header(&kvs, &t, 1, NULL, &only), 0);
    assert_int_equal(sl_gguf_header(&kvs, &t, 1, &got, &n), 0);
    assert_int_equal(n, only);
    b_start(&want, 3, 1, 4);
    b_key(&want, "s", 8);
    b_str(&want, "abc");
    b_key(&want, "t", 7);
    b_u8(&want, 1);
    b_key(&want, "list", 9);
    b_u32(&want, 8);
    b_u64(&want, 2);
    assert_int_equal(sl_gguf_value_offset(&kvs, "list", &at), 0);
    assert_int_equal(at, want.n);
    b_str(&want, "x");
    b_str(&want, "");
    b_key(&want, "u", 2);
    assert_int_equal(sl_gguf_value_offset(&kvs, "u", &at), 0);
    assert_int_equal(at, want.n);
    b_put(&want, "\x01\x02", 2);
    b_tensor(&want, "t", 2, t.ne, 1, 7);
    b_pad(&want, 32);
    assert_int_equal(n, want.n);
    assert_memory_equal(got, want.p, n);
    assert_int_equal(sl_gguf_value_offset(&kvs, "absent", &at), SL_EFAIL);
    free(got);
    assert_int_equal(sl_kvs_set_u32(&kvs, "general.alignment", 64), 0);
    assert_int_equal(sl_gguf_header(&kvs, &t, 1, &got, &n), SL_EFAIL);
    sl_kvs_free(&kvs);
    free(want.p);
}

static void split_names(void **state)
{
    static const struct {
        const char *path;
        int rc;
        uint32_t n;
    } cases[] = {
        {"m.gguf", 0, 1},
        {"dir/m-00001-of-00007.gguf", 0, 7},
        {"m-00001-of-00001.gguf", 0, 1},
        {"m-0001-of-00007.gguf", 0, 1},
        {"-00001-of-00007.gguf", 0, 1},
        {"m-00002-of-00007.gguf", SL_EUSAGE, 0},
        {"m-00000-of-00007.gguf", SL_ESOURCE, 0},
        {"m-00001-of-00000.gguf", SL_ESOURCE, 0},
        {"m-00008-of-00007.gguf", SL_ESOURCE, 0},
        {"m-00001-of-70000.gguf", SL_ESOURCE, 0},
    };
    static const struct {
        const char *name;
        size_t n;
    } stems[] = {
        {"m.gguf", 1}, {"m", 1}, {"m-00001-of-00007.gguf", 1}, {"m-00001-of-00007", 1}, {".gguf", 5},
        {"-00001-of-00007", 15}, {"m-0001-of-00007.gguf", 15}, {"m-00001-of-0000x", 16}, {"m-00001-or-00007", 16},
        {"m-00001-of-00007-00002-of-00003.gguf", 16}, {"m.bin", 5},
    };
    char buf[64];
    uint32_t n;
    struct sl_error e;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(sl_gguf_split_count(cases[i].path, &n, &e), cases[i].rc);
        if (cases[i].rc == 0)
            assert_int_equal(n, cases[i].n);
    }
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++)
        assert_int_equal(sl_gguf_stem(stems[i].name), stems[i].n);
    assert_int_equal(sl_gguf_split_path(buf, sizeof buf, "a/m", 6, 7), 0);
    assert_string_equal(buf, "a/m-00007-of-00007.gguf");
    assert_int_equal(sl_gguf_split_path(buf, sizeof buf, "a/m", 0, 1), 0);
    assert_string_equal(buf, "a/m.gguf");
    assert_int_equal(sl_gguf_split_path(buf, sizeof buf, "a/m", 7, 7), SL_ESOURCE);
    assert_int_equal(sl_gguf_split_path(buf, 23, "a/m", 6, 7), SL_ESOURCE);
    assert_int_equal(sl_gguf_split_path(buf, 24, "a/m", 6, 7), 0);
    assert_int_equal(sl_gguf_part_path(buf, sizeof buf, "a/m-00001-of-00007.gguf", 2, &e), SL_ESOURCE);
    assert_string_equal(e.text, "a/m-00003-of-00007.gguf: part 3 of 7 is missing; all parts of the set must be in this folder");
    assert_string_equal(buf, "a/m-00003-of-00007.gguf");
    assert_int_equal(sl_gguf_part_path(buf, sizeof buf, "m.gguf", 0, &e), 0);
    assert_string_equal(buf, "m.gguf");
    assert_int_equal(sl_gguf_part_path(buf, sizeof buf, "m.gguf", 1, &e), SL_ESOURCE);
}

/* Known values: XXH64 of "" and "abc", SHA-256 of "abc" (FIPS 180-2). */
static void known_hashes(void **state)
{
    static const uint8_t sha_abc[32] = {
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
        0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    struct sl_hash *h = sl_hash_new(true);
    uint8_t sha[32];
    uint64_t x;

    (void)state;
    assert_int_equal(sl_xxh64("abc", 3), 0x44bc2cf5ad770999);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(sl_hash_update(h, "a", 1), 0);
        assert_int_equal(sl_hash_update(h, "bc", 2), 0);
        assert_int_equal(sl_hash_final(h, &x, sha), 0);
        assert_int_equal(x, 0x44bc2cf5ad770999);
        assert_memory_equal(sha, sha_abc, 32);
    }
    assert_int_equal(sl_hash_final(h, &x, NULL), 0);
    assert_int_equal(x, 0xef46db3751d8e999);
    sl_hash_free(h);
}

static void header_checksum(void **state)
{
    uint8_t header[96], zeroed[96];
    uint64_t sum;

    (void)state;
    for (int i = 0; i < 96; i++)
        header[i] = zeroed[i] = (uint8_t)i;
    memset(zeroed + 8, 0, 8);
    memset(zeroed + 40, 0, 16);
    assert_int_equal(sl_gguf_header_checksum(header, 96, 8, 40, 2, &sum), 0);
    assert_int_equal(sum, sl_xxh64(zeroed, 96));
    memcpy(zeroed, header, 96);
    memset(zeroed + 80, 0, 8);
    memset(zeroed + 40, 0, 16);
    assert_int_equal(sl_gguf_header_checksum(header, 96, 80, 40, 2, &sum), 0);
    assert_int_equal(sum, sl_xxh64(zeroed, 96));
    assert_int_equal(sl_gguf_header_checksum(header, 96, 89, 40, 2, &sum), SL_EFAIL);
    assert_int_equal(sl_gguf_header_checksum(header, 96, 8, 88, 2, &sum), SL_EFAIL);
    assert_int_equal(sl_gguf_header_checksum(header, 96, 8, 12, 2, &sum), SL_EFAIL);
    assert_int_equal(sl_gguf_header_checksum(header, 96, 8, 40, UINT64_MAX / 8 + 2, &sum), SL_EFAIL);
}

/* Two tensors, 68 bytes of 'a' and 128 of 'b'. */
static struct sl_gguf *two_tensors(struct bytes *b)
{
    static const uint64_t ne[2] = {32, 2};
    struct sl_gguf *g;
    struct sl_error e;

    b_start(b, 3, 2, 0);
    b_tensor(b, "a", 2, ne, SL_TYPE_Q8_0, 0);
    b_tensor(b, "b", 1, ne, SL_TYPE_F32, 96);
    b_pad(b, 32);
    for (int i = 0; i < 68; i++)
        b_u8(b, 'a');
    b_pad(b, 32);
    for (int i = 0; i < 128; i++)
        b_u8(b, 'b');
    assert_int_equal(b_write(b, path), 0);
    assert_int_equal(sl_gguf_open(path, &g, &e), 0);
    return g;
}

/* A manifest written on the way, as stitch does. */
struct writer {
    FILE *f;
    const struct sl_gguf *g;
    struct sl_hash *tensor, *all;
    bool sha256;
};

static int take_bytes(void *user, uint64_t index, uint64_t off, const uint8_t *bytes, uint64_t n)
{
    struct writer *w = user;

    (void)index, (void)off;
    SL_TRY(sl_hash_update(w->all, bytes, n));
    return sl_hash_update(w->tensor, bytes, n);
}

static int end_tensor(void *user, uint64_t index)
{
    struct writer *w = user;
    uint8_t sha[SL_SHA256_BYTES];
    uint64_t sum;

    SL_TRY(sl_hash_final(w->tensor, &sum, sha));
    return sl_manifest_tensor(w->f, path + 5, w->g->tensors[index].name, sum, w->sha256 ? sha : NULL);
}

static void manifest_of(const struct sl_gguf *g, bool sha256, char *text, size_t cap)
{
    struct writer w = {tmpfile(), g, sl_hash_new(sha256), sl_hash_new(sha256), sha256};
    const struct sl_stream_ops ops = {.on_data = take_bytes, .on_tensor = end_tensor, .user = &w};
    struct sl_hash_total total = {.has_sha256 = sha256};
    struct sl_error e;
    size_t n;

    assert_int_equal(sl_gguf_stream(path, g, &ops, &e), 0);
    assert_int_equal(sl_hash_final(w.all, &total.xxh64, total.sha256), 0);
    assert_int_equal(sl_manifest_file(w.f, path + 5, &total), 0);
    rewind(w.f);
    n = fread(text, 1, cap - 1, w.f);
    text[n] = 0;
    fclose(w.f);
    sl_hash_free(w.tensor);
    sl_hash_free(w.all);
}

static void manifest_lines(void **state)
{
    struct bytes b = {0};
    struct sl_gguf *g = two_tensors(&b);
    uint8_t data[196];
    char want[512], got[2048];

    (void)state;
    memset(data, 'a', 68);
    memset(data + 68, 'b', 128);
    manifest_of(g, false, got, sizeof got);
    snprintf(want, sizeof want, "xxh64     %016llx  %s:a\nxxh64     %016llx  %s:b\nxxh64     %016llx  %s\n",
             (unsigned long long)sl_xxh64(data, 68), path + 5,
             (unsigned long long)sl_xxh64(data + 68, 128), path + 5,
             (unsigned long long)sl_xxh64(data, 196), path + 5);
    assert_string_equal(got, want);
    manifest_of(g, true, got, sizeof got);
    assert_non_null(strstr(got, "\nsha256    "));
    assert_int_equal(strlen(got), strlen(want) + 3 * (10 + 64 + 3) + 3 * strlen(path + 5) + 4);
    sl_gguf_close(g);
    free(b.p);
}

static void stream_refuses(void **state)
{
    struct bytes b = {0};
    struct sl_gguf *g = two_tensors(&b);
    const struct sl_stream_ops nothing = {0};
    struct sl_error e;
    size_t full = b.n;

    (void)state;
    b.p[full - 128 - 1] = 1;
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(sl_gguf_stream(path, g, &nothing, &e), SL_EVERIFY);
    assert_non_null(strstr(e.text, "padding after tensor a"));
    b.p[full - 128 - 1] = 0;
    b_u8(&b, 0);
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(sl_gguf_stream(path, g, &nothing, &e), SL_EVERIFY);
    assert_non_null(strstr(e.text, "bytes follow the last tensor"));
    b.n = full - 1;
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(sl_gguf_stream(path, g, &nothing, &e), SL_EVERIFY);
    assert_non_null(strstr(e.text, "tensor b: the file ends at its byte 127"));
    b.n = full - 128 - 1;
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(sl_gguf_stream(path, g, &nothing, &e), SL_EVERIFY);
    assert_non_null(strstr(e.text, "ends in the padding after tensor a"));
    sl_gguf_close(g);
    free(b.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(setting_again_moves_to_the_end), cmocka_unit_test(texts_are_made_utf8),
        cmocka_unit_test(header_bytes),
        cmocka_unit_test(split_names),
        cmocka_unit_test(known_hashes),
        cmocka_unit_test(header_checksum),
        cmocka_unit_test(manifest_lines),
        cmocka_unit_test(stream_refuses),
    };
    int rc;

    snprintf(path, sizeof path, "/tmp/sluice-gguf-write-%ld", (long)getpid());
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
