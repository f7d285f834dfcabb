/* Verify must fail for every single flipped byte of an output, and say where. */
#include "tests/fuzz/gguf_fuzz.c"
#include "tests/unit/verify_file.h"
#include "proto/header_seal.h"
#include "proto/imatrix_use.h"
#include "proto/model.h"
#include "proto/plan.h"

#include <fcntl.h>
#include <time.h>

#define N_TENSORS 6
static const struct {
    const char *name;
    int type;
    uint64_t ne0, ne1;
} shapes[N_TENSORS] = {
    {"output.weight", SL_TYPE_Q6_K, 256, 1}, {"blk.0.f32", SL_TYPE_F32, 5, 1},
    {"blk.0.q8", SL_TYPE_Q8_0, 32, 3},       {"blk.0.q4", SL_TYPE_Q4_K, 256, 2},
    {"blk.0.f16", SL_TYPE_F16, 7, 1},        {"blk.0.bf16", SL_TYPE_BF16, 1, 1},
};

/* Bytes whose every 16-bit and 32-bit float is finite. */
static void fill(struct bytes *b, uint64_t n)
{
    static uint32_t x = 1;

    while (n--) {
        x = x * 1664525 + 1013904223;
        b_u8(b, (uint8_t)(x >> 24) & 0x3b);
    }
}

static void metadata(struct sl_kvs *kvs, uint32_t part, uint32_t parts, uint64_t n)
{
    static const uint64_t zeros[N_TENSORS + 20];
    int bad = 0;

    if (part == 0) {
        bad |= sl_kvs_set_str(kvs, "general.architecture", "test");
        bad |= sl_kvs_set_strs(kvs, "tokens", (const char *const[]){"a", "bc", ""}, 3);
        bad |= sl_kvs_set_f32(kvs, "pi", 3.14f);
        bad |= sl_kvs_set_bool(kvs, "yes", true);
    }
    if (parts > 1) {
        bad |= sl_kvs_set_u16(kvs, "split.no", (uint16_t)part);
        bad |= sl_kvs_set_u16(kvs, "split.count", (uint16_t)parts);
        bad |= sl_kvs_set_i32(kvs, "split.tensors.count", N_TENSORS);
    }
    bad |= sl_kvs_set_str(kvs, SL_KEY_FINGERPRINT, "0123456789abcdef");
    bad |= sl_kvs_set_arr(kvs, SL_KEY_SUM_TENSORS, SL_KV_U64, zeros, n);
    bad |= sl_kvs_set_arr(kvs, SL_KEY_SUM_RECORDS, SL_KV_U64, zeros, kvs->n + 2 + n);
    bad |= sl_kvs_set_u64(kvs, SL_KEY_SUM_HEADER, 0);
    assert_int_equal(bad, 0);
}

/* A file as stitch leaves it, with tensors from..to. Returns the header's length. */
static uint64_t sealed(struct bytes *b, const struct sl_kvs *kvs, uint32_t from, uint32_t to)
{
    struct sl_gguf_tensor t[N_TENSORS] = {0};
    uint64_t offset = 0, len, at, sums[N_TENSORS], n = to - from;
    uint8_t *header;

    for (uint32_t i = 0; i < n; i++) {
        snprintf(t[i].name, sizeof t[i].name, "%s", shapes[from + i].name);
        t[i].n_dims = 2;
        t[i].ne[0] = shapes[from + i].ne0;
        t[i].ne[1] = shapes[from + i].ne1;
        t[i].ne[2] = t[i].ne[3] = 1;
        t[i].type = shapes[from + i].type;
        t[i].bytes = sl_type_bytes(t[i].type, t[i].ne[0] * t[i].ne[1]);
        t[i].offset = offset;
        offset = (offset + t[i].bytes + 31) / 32 * 32;
    }
    assert_int_equal(sl_gguf_header(kvs, t, n, &header, &len), 0);
    b->n = 0;
    b_put(b, header, len);
    free(header);
    for (uint32_t i = 0; i < n; i++) {
        fill(b, t[i].bytes);
        b_pad(b, 32);
    }
    if (sl_gguf_value_offset(kvs, SL_KEY_SUM_TENSORS, &at) < 0)
        return len;
    for (uint32_t i = 0; i < n; i++)
        sums[i] = sl_xxh64(b->p + len + t[i].offset, t[i].bytes);
    assert_int_equal(sl_gguf_seal_header(b->p, len, kvs, sums, n), 0);
    return len;
}

/* What the message for a flip at byte `at` must name: in the header the tensor or key
 * whose record it is; damage of the checksum of records itself is that key's. */
static const char *region(const struct sl_kvs *kvs, uint64_t header, uint64_t at)
{
    uint64_t off = header, end = 24, info;

    if (at < 24)
        return "header";
    assert_int_equal(sl_gguf_value_offset(kvs, SL_KEY_SUM_HEADER, &info), 0);
    info += 8;
    for (uint64_t i = kvs->n; at < info && i-- > 0;) {
        assert_int_equal(sl_gguf_value_offset(kvs, kvs->kv[i].key, &end), 0);
        end -= 8 + strlen(kvs->kv[i].key) + 4 + (kvs->kv[i].type == SL_KV_ARR ? 12 : 0);
        if (at >= end)
            return kvs->kv[i].key;
    }
    for (int i = 0; i < N_TENSORS; i++) {
        info += 8 + strlen(shapes[i].name) + 4 + 16 + 12;
        if (at < info)
            return shapes[i].name;
    }
    if (at < header)
        return "padding after the tensor infos";
    for (int i = 0; i < N_TENSORS; i++) {
        off = (off + sl_type_bytes(shapes[i].type, shapes[i].ne0 * shapes[i].ne1) + 31) / 32 * 32;
        if (at < off)
            return shapes[i].name;
    }
    return "?";
}

static void every_flipped_byte_is_found(void **state)
{
    struct sl_kvs kvs = {0};
    struct bytes b = {0};
    uint64_t header;
    int fd;

    (void)state;
    metadata(&kvs, 0, 1, N_TENSORS);
    header = sealed(&b, &kvs, 0, N_TENSORS);
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(verify(path), 0);
    fd = open(path, O_RDWR);
    for (uint64_t at = 0; at < b.n; at++)
        for (int change = 0; change < 9; change++) {
            uint8_t v = change < 8 ? (uint8_t)(b.p[at] ^ 1 << change) : (uint8_t)~b.p[at];
            const char *want = region(&kvs, header, at);
            int rc;

            assert_int_equal(pwrite(fd, &v, 1, (off_t)at), 1);
            rc = verify(path);
            if (rc != SL_EVERIFY)
                fail_msg("byte %llu, change %d: code %d \"%s\"", (unsigned long long)at, change, rc, said);
            if (!strstr(said, path) || !strstr(said, want) || (at >= 24 && at < header && !strstr(said, "tensor")))
                fail_msg("byte %llu, change %d: \"%s\" does not name %s", (unsigned long long)at, change, said, want);
            /* A key is not blamed on a tensor, nor the other way round. */
            if (at >= 24 && at < header && (strstr(said, "this changes no tensor") == NULL) == (strncmp(want, "blk.", 4) != 0
                                            && strcmp(want, "output.weight") != 0))
                fail_msg("byte %llu, change %d: \"%s\" is about a %s", (unsigned long long)at, change, said, want);
            assert_int_equal(pwrite(fd, &b.p[at], 1, (off_t)at), 1);
        }
    assert_int_equal(verify(path), 0);
    close(fd);
    sl_kvs_free(&kvs);
    free(b.p);
}

static void wrong_lengths_are_found(void **state)
{
    struct sl_kvs kvs = {0};
    struct bytes b = {0};
    size_t full;

    (void)state;
    metadata(&kvs, 0, 1, N_TENSORS);
    sealed(&b, &kvs, 0, N_TENSORS);
    full = b.n;
    for (b.n = 0; b.n < full; b.n++) {
        assert_int_equal(b_write(&b, path), 0);
        assert_int_equal(verify(path), SL_EVERIFY);
    }
    b.n = full;
    b_u8(&b, 0);
    refused(&b, "bytes follow the last tensor");
    assert_int_equal(verify("/nonexistent/x.gguf"), SL_ESOURCE);
    assert_int_equal(verify("/tmp"), SL_ESOURCE);
    sl_kvs_free(&kvs);
    free(b.p);
}

static void split_sets(void **state)
{
    char part[2][96];
    struct bytes b = {0};
    struct sl_kvs kvs = {0};

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        snprintf(part[i], sizeof part[i], "%s-0000%u-of-00002.gguf", path, i + 1);
        metadata(&kvs, i, 2, i ? 4 : 2);
        sealed(&b, &kvs, i ? 2 : 0, i ? 6 : 2);
        assert_int_equal(b_write(&b, part[i]), 0);
        sl_kvs_free(&kvs);
    }
    assert_int_equal(verify(part[0]), 0);
    assert_int_equal(verify(part[1]), SL_EUSAGE);
    /* Another conversion's part, sound in itself. */
    metadata(&kvs, 1, 2, 4);
    assert_int_equal(sl_kvs_set_str(&kvs, SL_KEY_FINGERPRINT, "another"), 0);
    sealed(&b, &kvs, 2, 6);
    assert_int_equal(b_write(&b, part[1]), 0);
    assert_int_equal(verify(part[0]), SL_EVERIFY);
    assert_non_null(strstr(said, "another conversion"));
    sl_kvs_free(&kvs);
    /* Too few tensors, a tensor twice, a wrong number. */
    metadata(&kvs, 1, 2, 3);
    sealed(&b, &kvs, 2, 5);
    assert_int_equal(b_write(&b, part[1]), 0);
    assert_int_equal(verify(part[0]), SL_EVERIFY);
    assert_non_null(strstr(said, "split.tensors.count"));
    sl_kvs_free(&kvs);
    metadata(&kvs, 1, 2, 4);
    sealed(&b, &kvs, 1, 5);
    assert_int_equal(b_write(&b, part[1]), 0);
    assert_int_equal(verify(part[0]), SL_EVERIFY);
    assert_non_null(strstr(said, "tensor blk.0.f32 is there twice"));
    sl_kvs_free(&kvs);
    metadata(&kvs, 0, 2, 4);
    sealed(&b, &kvs, 2, 6);
    assert_int_equal(b_write(&b, part[1]), 0);
    assert_int_equal(verify(part[0]), SL_EVERIFY);
    assert_non_null(strstr(said, "say part 1 of 2"));
    sl_kvs_free(&kvs);
    unlink(part[1]);
    assert_int_equal(verify(part[0]), SL_ESOURCE);
    assert_int_equal(rename(part[0], path), 0);
    assert_int_equal(verify(path), SL_EVERIFY);
    assert_non_null(strstr(said, "one of 2 parts"));
    free(b.p);
}

/* A key twice, a tensor twice, whatever is between. */
static void names_are_there_once(void **state)
{
    static const char *const names[] = {"b", "a", "b", "c"};
    const uint64_t ne = 8;
    struct bytes b = {0};

    (void)state;
    for (unsigned first = 0; first < 2; first++) { /* 1: the three are different */
        b_start(&b, 3, 0, 3);
        for (unsigned i = first; i < first + 3; i++) {
            b_key(&b, names[i], SL_KV_U8);
            b_u8(&b, 1);
        }
        b_pad(&b, SL_GGUF_ALIGN);
        assert_int_equal(b_write(&b, path), 0);
        assert_int_equal(verify(path), first ? 0 : SL_EVERIFY);
        assert_true(first || strstr(said, "metadata key b: is there twice"));
        b_start(&b, 3, 3, 0);
        for (unsigned i = first; i < first + 3; i++)
            b_tensor(&b, names[i], 1, &ne, SL_TYPE_F32, 32 * (i - first));
        b_pad(&b, SL_GGUF_ALIGN);
        b_zeros(&b, 3 * 32);
        assert_int_equal(b_write(&b, path), 0);
        assert_int_equal(verify(path), first ? 0 : SL_EVERIFY);
        assert_true(first || strstr(said, "tensor b is there twice"));
    }
    free(b.p);
}

/* The keys that verification goes by, as a list of numbers, as a number, and those of a split alone. */
static void keys_have_their_types(void **state)
{
    static const char *const keys[] = {"split.no", "split.count", "split.tensors.count", "general.alignment", "sluice.layout",
                                       "sluice.round_through", SL_KEY_IMATRIX, SL_KEY_IMATRIX_INCLUDE, SL_KEY_IMATRIX_EXCLUDE,
                                       SL_KEY_PRUNED, SL_KEY_FINGERPRINT};
    struct bytes b = {0};

    (void)state;
    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char want[64];

        snprintf(want, sizeof want, "metadata key %s: has the wrong type", keys[i]);
        b_start(&b, 3, 0, 1);
        b_key(&b, keys[i], SL_KV_ARR);
        b_u32(&b, SL_KV_U8);
        b_u64(&b, 0);
        b_pad(&b, SL_GGUF_ALIGN);
        refused(&b, want);
        b_start(&b, 3, 0, 1);
        b_key(&b, keys[i], SL_KV_U8);
        b_u8(&b, 1);
        b_pad(&b, SL_GGUF_ALIGN);
        refused(&b, want);
        if (i < 3) {
            b_start(&b, 3, 0, 1);
            b_key(&b, keys[i], i < 2 ? SL_KV_U16 : SL_KV_I32);
            b_put(&b, "\1\0\0", i < 2 ? 2 : 4);
            b_pad(&b, SL_GGUF_ALIGN);
            refused(&b, "must be there together");
        }
    }
    b_start(&b, 3, 0, 1);
    b_key(&b, "general.alignment", SL_KV_U32);
    b_u32(&b, 48);
    refused(&b, "not a power of 2");
    free(b.p);
}

/* A file with "sluice." keys but without checksums is not taken for somebody
 * else's. */
static void checksums_are_required(void **state)
{
    struct sl_kvs kvs = {0};
    struct bytes b = {0};

    (void)state;
    assert_int_equal(sl_kvs_set_str(&kvs, SL_KEY_RECIPE, "x"), 0);
    sealed(&b, &kvs, 0, N_TENSORS);
    refused(&b, SL_KEY_SUM_TENSORS);
    sl_kvs_free(&kvs);
    assert_int_equal(sl_kvs_set_str(&kvs, "general.name", "x"), 0);
    sealed(&b, &kvs, 0, N_TENSORS);
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(verify(path), 0);
    sl_kvs_free(&kvs);
    free(b.p);
}

/* The two readers agree on what a good header says, also on a long one. */
static void readers_agree(void **state)
{
    struct verify_file f;
    struct sl_gguf *g;
    struct sl_kvs kvs = {0};
    struct bytes b = {0};
    struct sl_error e;
    char *text = malloc(3000001);

    (void)state;
    memset(text, 'x', 3000000);
    text[3000000] = '\0';
    assert_int_equal(sl_kvs_set_str(&kvs, "long", text), 0);
    metadata(&kvs, 0, 1, N_TENSORS);
    sealed(&b, &kvs, 0, N_TENSORS);
    assert_int_equal(b_write(&b, path), 0);
    assert_int_equal(verify_structure(path, &f, &e), 0);
    assert_true(f.header_sum_ok);
    assert_string_equal(f.fingerprint, "0123456789abcdef");
    assert_int_equal(sl_gguf_open(path, &g, &e), 0);
    assert_int_equal(f.g.header_bytes, g->header_bytes);
    assert_int_equal(f.g.data_bytes, g->data_bytes);
    assert_int_equal(f.g.n_tensors, g->n_tensors);
    assert_memory_equal(f.g.tensors, g->tensors, g->n_tensors * sizeof *g->tensors);
    sl_gguf_close(g);
    verify_file_free(&f);
    sl_kvs_free(&kvs);
    free(b.p);
    free(text);
}

static uint64_t xorshift(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

/* Random changes of a sealed file, through the fuzz target's own demands. */
static void mutations_replay(void **state)
{
    struct sl_kvs kvs = {0};
    struct bytes b = {0}, m = {0};
    uint64_t header, x = 0x2545f4914f6cdd1d;
    int accepted = 0;

    (void)state;
    metadata(&kvs, 0, 1, N_TENSORS);
    header = sealed(&b, &kvs, 0, N_TENSORS);
    assert_int_equal(sl_fuzz_gguf(b.p, b.n), 0);
    for (int round = 0; round < 4000; round++) {
        int changes = 1 + (int)(xorshift(&x) % 3);

        m.n = 0;
        b_put(&m, b.p, b.n);
        while (changes-- > 0) {
            uint64_t at = xorshift(&x) % header, kind = xorshift(&x) % 4;

            if (kind == 0)
                m.p[at] ^= (uint8_t)(1 << xorshift(&x) % 8);
            else if (kind == 1)
                m.p[at] = 0xff;
            else if (kind == 2)
                m.p[at] = (uint8_t)xorshift(&x);
            else
                memmove(m.p + at, m.p + at / 2, (header - at) / 2);
        }
        if (xorshift(&x) % 8 == 0)
            m.n = xorshift(&x) % m.n;
        accepted += sl_fuzz_gguf(m.p, m.n) == 0;
    }
    assert_true(accepted >= 1 && accepted <= 3999);
    sl_kvs_free(&kvs);
    free(b.p);
    free(m.p);
}

/* A stranger's header of many records, none of which matches, is told in seconds. */
static void many_wrong_records(void **state)
{
    const uint32_t many = 300000;
    struct bytes b = {0};
    clock_t begun = clock();
    char key[16];

    (void)state;
    b_start(&b, 3, 0, many + 3);
    b_key(&b, SL_KEY_SUM_TENSORS, SL_KV_ARR);
    b_u32(&b, SL_KV_U64);
    b_u64(&b, 0);
    b_key(&b, SL_KEY_SUM_RECORDS, SL_KV_ARR);
    b_u32(&b, SL_KV_U64);
    b_u64(&b, many + 3);
    for (uint32_t i = 0; i < many + 3; i++)
        b_u64(&b, i);
    b_key(&b, SL_KEY_SUM_HEADER, SL_KV_U64);
    b_u64(&b, 1);
    for (uint32_t i = 0; i < many; i++) {
        snprintf(key, sizeof key, "k%u", i);
        b_key(&b, key, SL_KV_U8);
        b_u8(&b, 1);
    }
    b_pad(&b, SL_GGUF_ALIGN);
    refused(&b, "300002 more records are, too");
    assert_true((clock() - begun) / CLOCKS_PER_SEC < 10);
    free(b.p);
}

/* A header with as many keys as are read and a long list before them is sealed at once. */
static void many_keys_are_sealed(void **state)
{
    const uint64_t n_strings = 1000000, n_keys = 9990;
    const char **strings = malloc(n_strings * sizeof *strings);
    uint64_t *sums = calloc(n_keys + 4, sizeof *sums), len;
    struct sl_kvs kvs = {0};
    uint8_t *header;
    clock_t begun;
    char key[16];

    (void)state;
    assert_true(strings && sums);
    for (uint64_t i = 0; i < n_strings; i++)
        strings[i] = "";
    assert_int_equal(sl_kvs_set_strs(&kvs, "list", strings, n_strings), 0);
    for (uint32_t i = 0; i < n_keys; i++) {
        snprintf(key, sizeof key, "k%u", i);
        assert_int_equal(sl_kvs_set_u32(&kvs, key, i), 0);
    }
    assert_int_equal(sl_kvs_set_arr(&kvs, SL_KEY_SUM_TENSORS, SL_KV_U64, sums, 0), 0);
    assert_int_equal(sl_kvs_set_arr(&kvs, SL_KEY_SUM_RECORDS, SL_KV_U64, sums, n_keys + 4), 0);
    assert_int_equal(sl_kvs_set_u64(&kvs, SL_KEY_SUM_HEADER, 0), 0);
    assert_int_equal(sl_gguf_header(&kvs, NULL, 0, &header, &len), 0);
    begun = clock();
    assert_int_equal(sl_gguf_seal_header(header, len, &kvs, sums, 0), 0);
    assert_true((double)(clock() - begun) / CLOCKS_PER_SEC < 2); /* 0.01 where nothing else runs */
    free(header);
    free(sums);
    free(strings);
    sl_kvs_free(&kvs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutations_replay),
        cmocka_unit_test(every_flipped_byte_is_found),
        cmocka_unit_test(wrong_lengths_are_found),
        cmocka_unit_test(split_sets),
        cmocka_unit_test(names_are_there_once),
        cmocka_unit_test(keys_have_their_types),
        cmocka_unit_test(checksums_are_required),
        cmocka_unit_test(many_wrong_records),
        cmocka_unit_test(many_keys_are_sealed),
        cmocka_unit_test(readers_agree),
    };
    int rc;

    snprintf(path, sizeof path, "/tmp/sluice-gguf-verify-%ld", (long)getpid());
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
