/* The safetensors reader: what it must accept, what it must refuse and why, and
 * that no mutation of a good header gets past it or hurts it. */
#include "proto/safetensors.h"

#include "tests/fuzz/safetensors_fuzz.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A file in memory: length (of the header, unless given), header, data bytes. */
static int make(const char *header, size_t header_len, uint64_t claimed, size_t data)
{
    int fd = memfd_create("safetensors", MFD_CLOEXEC);
    uint8_t len[8];

    for (int i = 0; i < 8; i++)
        len[i] = (uint8_t)(claimed >> (8 * i));
    assert_true(fd >= 0);
    assert_int_equal(write(fd, len, 8), 8);
    assert_int_equal(write(fd, header, header_len), (ssize_t)header_len);
    assert_int_equal(ftruncate(fd, (off_t)(8 + header_len + data)), 0);
    return fd;
}

static int read_made(int fd, struct sl_safetensors *s, struct sl_error *e)
{
    off_t size = lseek(fd, 0, SEEK_END);
    int rc = sl_safetensors_read(fd, "a.safetensors", (uint64_t)size, s, e);

    close(fd);
    return rc;
}

static void refuse_fd(int fd, int code, const char *why, const char *what)
{
    struct sl_error e = {.code = 0};
    struct sl_safetensors s;
    int rc = read_made(fd, &s, &e);

    if (rc != code || !strstr(e.text, why))
        fail_msg("%.200s: got %d '%s', expected %d '...%s...'", what, rc, e.text, code, why);
    assert_null(s.tensors);
    assert_memory_equal(e.text, "a.safetensors: ", 15);
}

/* ---- must accept ---- */

static void accepts_every_dtype(void **state)
{
    (void)state;
    for (int d = 0; d < SL_DTYPE_COUNT; d++) {
        const struct sl_dtype_info *info = sl_dtype_info(d);
        struct sl_error e = {.code = 0};
        struct sl_safetensors s;
        unsigned bytes = 6 * info->bytes / info->block;
        char h[200];
        int n = snprintf(h, sizeof h, "{\"a\":{\"dtype\":\"%s\",\"shape\":[2,3],\"data_offsets\":"
                         "[0,%u]}}", info->name, bytes);
        int fd = make(h, (size_t)n, (uint64_t)n, bytes);

        if (d >= SL_DTYPE_Q8_0) { /* ggml's own */
            refuse_fd(fd, SL_EUNSUPPORTED, "is not supported", h);
            continue;
        }
        assert_int_equal(read_made(fd, &s, &e), 0);
        assert_int_equal(s.n_tensors, 1);
        assert_int_equal(s.tensors[0].dtype, d);
        assert_int_equal(s.tensors[0].n_dims, 2);
        assert_int_equal(s.tensors[0].shape[0], 2);
        assert_int_equal(s.tensors[0].shape[1], 3);
        assert_int_equal(s.tensors[0].elems, 6);
        assert_int_equal(s.tensors[0].offset, 8 + n);
        assert_int_equal(s.tensors[0].bytes, bytes);
        sl_safetensors_free(&s);
    }
}

static void orders_by_offset(void **state)
{
    static const char h[] =
        "{\"late\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]},"
        "\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\":\"\\\"x\\\"\"},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[3,0,7],\"data_offsets\":[4,4]},"
        "\"scalar\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\"}}     \n ";
    struct sl_error e = {.code = 0};
    struct sl_safetensors s;

    (void)state;
    assert_int_equal(read_made(make(h, sizeof h - 1, sizeof h - 1, 12), &s, &e), 0);
    assert_int_equal(s.n_tensors, 3);
    assert_string_equal(s.tensors[0].name, "scalar");
    assert_string_equal(s.tensors[1].name, "empty");
    assert_string_equal(s.tensors[2].name, "late");
    assert_int_equal(s.tensors[0].n_dims, 0);
    assert_int_equal(s.tensors[0].elems, 1);
    assert_int_equal(s.tensors[1].elems, 0);
    assert_int_equal(s.tensors[1].bytes, 0);
    assert_int_equal(s.tensors[2].offset, s.data_start + 4);
    sl_safetensors_free(&s);
}

#define T(name, dtype, shape, offsets) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{" T("a", dtype, shape, offsets) "}"

static void accepts(void **state)
{
    static const struct { const char *header; size_t data; uint32_t tensors; } good[] = {
        {"{}", 0, 0},
        {"{ }\t\r\n", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {ONE("U8", "[1,1,1,1,1,1,1,2]", "[0,2]"), 2, 1},
        {ONE("F32", "[0]", "[0,0]"), 0, 1},
        {ONE("F32", "[9007199254740992,0]", "[0,0]"), 0, 1},
        {"{" T("a", "U8", "[0]", "[0,0]") "," T("b", "U8", "[0]", "[0,0]") "}", 0, 2},
        {"{" T("\xd1\x8f.\xf0\x9f\x98\x80", "U8", "[1]", "[0,1]") "}", 1, 1},
        {"{" T("\\ud83d\\ude00", "U8", "[1]", "[0,1]") "}", 1, 1},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"note\":[null]}}", 1, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        size_t n = strlen(good[i].header);
        struct sl_error e = {.code = 0};
        struct sl_safetensors s;

        if (read_made(make(good[i].header, n, n, good[i].data), &s, &e) < 0)
            fail_msg("%s: %s", good[i].header, e.text);
        assert_int_equal(s.n_tensors, good[i].tensors);
        sl_safetensors_free(&s);
    }
}

/* ---- must refuse ---- */

static void refuses_tensors(void **state)
{
    static const struct { const char *header; size_t data; int code; const char *why; } bad[] = {
        /* types and shapes */
        {ONE("F8_E3M4", "[1]", "[0,1]"), 1, SL_EUNSUPPORTED, "tensor 'a': dtype 'F8_E3M4' is not"},
        {ONE("f32", "[1]", "[0,4]"), 4, SL_EUNSUPPORTED, "dtype 'f32' is not supported"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SL_ESOURCE,
         "dtype is not a string"},
        {ONE("U8", "1", "[0,1]"), 1, SL_ESOURCE, "shape is not an array"},
        {ONE("U8", "[-1]", "[0,1]"), 1, SL_ESOURCE, "dimension 0 is not an integer"},
        {ONE("U8", "[1,-0]", "[0,0]"), 0, SL_ESOURCE, "is not plain digits"},
        {ONE("U8", "[1.5]", "[0,1]"), 1, SL_ESOURCE, "dimension 0 is not an integer"},
        {ONE("U8", "[1.0]", "[0,1]"), 1, SL_ESOURCE, "is not plain digits"},
        {ONE("U8", "[1e0]", "[0,1]"), 1, SL_ESOURCE, "is not plain digits"},
        {ONE("U8", "[1e400]", "[0,1]"), 1, SL_ESOURCE, "dimension 0 is not an integer"},
        {ONE("U8", "[9007199254740994]", "[0,1]"), 1, SL_ESOURCE, "dimension 0 is not"},
        {ONE("U8", "[18446744073709551617]", "[0,1]"), 1, SL_ESOURCE, "dimension 0 is not"},
        {ONE("U8", "[\"1\"]", "[0,1]"), 1, SL_ESOURCE, "dimension 0 is not an integer"},
        {ONE("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, SL_EUNSUPPORTED, "9 dimensions, at most 8"},
        {ONE("U8", "[4294967296,4294967296]", "[0,0]"), 0, SL_ESOURCE, "dimensions overflows"},
        {ONE("U8", "[4294967296,4294967296,0]", "[0,0]"), 0, SL_ESOURCE, "dimensions overflows"},
        {ONE("U8", "[0,4294967296,4294967296]", "[0,0]"), 0, SL_ESOURCE, "dimensions overflows"},
        {ONE("F64", "[4294967296,1073741824]", "[0,0]"), 0, SL_ESOURCE, "dimensions overflows"},
        {ONE("F32", "[4503599627370496,4096]", "[0,0]"), 0, SL_ESOURCE, "dimensions overflows"},
        {ONE("F4", "[3]", "[0,1]"), 1, SL_ESOURCE, "3 elements of F4 are no whole bytes"},
        /* offsets */
        {ONE("F32", "[2]", "[0,4]"), 4, SL_ESOURCE, "need 8 bytes, data_offsets span 4"},
        {ONE("F32", "[0]", "[0,4]"), 4, SL_ESOURCE, "need 0 bytes, data_offsets span 4"},
        {ONE("U8", "[1]", "[1,0]"), 1, SL_ESOURCE, "end at 0, before they begin at 1"},
        {ONE("U8", "[1]", "[-1,0]"), 1, SL_ESOURCE, "data_offsets are not integers"},
        {ONE("U8", "[1]", "[0,1,2]"), 1, SL_ESOURCE, "not an array of two"},
        {ONE("U8", "[1]", "[1]"), 1, SL_ESOURCE, "not an array of two"},
        {ONE("U8", "[1]", "{\"x\":0,\"y\":1}"), 1, SL_ESOURCE, "not an array of two"},
        {ONE("U8", "[1]", "[18446744073709551615,18446744073709551616]"), 1, SL_ESOURCE,
         "data_offsets are not integers"},
        {ONE("U8", "[1]", "[1,2]"), 2, SL_ESOURCE, "a hole of 1 bytes"},
        {"{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[3,5]") "}", 5, SL_ESOURCE,
         "tensor 'b': data begins at 3, a hole of 1 bytes"},
        {"{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[1,3]") "}", 3, SL_ESOURCE,
         "tensor 'b': data begins at 1 and overlaps 'a', which ends at 2"},
        {"{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[0]", "[1,1]") "}", 2, SL_ESOURCE,
         "overlaps"},
        {ONE("U8", "[2]", "[0,2]"), 3, SL_ESOURCE, "1 bytes after the last tensor"},
        {"{}", 1, SL_ESOURCE, "1 bytes after the last tensor"},
        {ONE("U8", "[9]", "[0,9]"), 3, SL_ESOURCE, "file is cut short: its header describes"},
        /* entries */
        {"{\"a\":7}", 0, SL_ESOURCE, "tensor 'a': its entry is not an object"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, SL_ESOURCE, "data_offsets is missing"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SL_ESOURCE, "dtype is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, SL_ESOURCE, "shape is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         SL_ESOURCE, "key 'dtype' occurs twice"},
        {"{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[1,2]") "}", 2, SL_ESOURCE,
         "key 'a' occurs twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, SL_ESOURCE,
         "key '__metadata__' occurs twice"},
        {"{\"__metadata__\":{\"n\":1}}", 0, SL_ESOURCE, "the value of 'n' is not a string"},
        {"{\"__metadata__\":\"pt\"}", 0, SL_ESOURCE, "__metadata__ is not an object"},
        /* names */
        {"{" T("", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "empty name"},
        {"{" T("a\\u0000b", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "holds \\u0000"},
        {"{" T("a\\u001bb", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "control character in its"},
        {"{" T("a\\n", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "control character in its name"},
        {"{" T("a\x7f", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "control character in its name"},
        {"{" T("a\xc2\x9b", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "control character in its"},
        {"{" T("a\tb", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "string holds a control character"},
        {"{" T("a\xff", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "not valid UTF-8"},
        {"{" T("a\xc0\xaf", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "not valid UTF-8"},
        {"{" T("a\xed\xa0\x80", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "not valid UTF-8"},
        {"{" T("a\\ud800", "U8", "[1]", "[0,1]") "}", 1, SL_ESOURCE, "unpaired surrogate"},
        /* JSON */
        {"{", 0, SL_ESOURCE, "header length 1 is less than 2"},
        {"{\"a\":", 0, SL_ESOURCE, "not valid JSON at byte 5: expected a value"},
        {"{} {}", 0, SL_ESOURCE, "bytes after the end of the value"},
        {"{}x", 0, SL_ESOURCE, "bytes after the end of the value"},
        {"[] ", 0, SL_ESOURCE, "does not begin with '{'"},
        {" {}", 0, SL_ESOURCE, "does not begin with '{'"},
        {"\xef\xbb\xbf{}", 0, SL_ESOURCE, "does not begin with '{'"},
        {"{\"a\":{},}", 0, SL_ESOURCE, "expected a string"},
        {"{'a':{}}", 0, SL_ESOURCE, "expected a string"},
        {ONE("U8", "[01]", "[0,1]"), 1, SL_ESOURCE, "begins with 0"},
        {ONE("U8", "[+1]", "[0,1]"), 1, SL_ESOURCE, "expected a value"},
        {ONE("U8", "[NaN]", "[0,1]"), 1, SL_ESOURCE, "expected a value"},
        {ONE("U8", "[1,]", "[0,1]"), 1, SL_ESOURCE, "expected a value"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t n = strlen(bad[i].header);

        refuse_fd(make(bad[i].header, n, n, bad[i].data), bad[i].code, bad[i].why, bad[i].header);
    }
}

static void refuses_files(void **state)
{
    static const char nul_padded[] = "{}\0\0\0\0\0\0", lfs[] = "version https://git-lfs.github.com/"
        "spec/v1\noid sha256:4d7a\nsize 8388832\n";
    char deep[400], name[700];
    int fd, n;

    (void)state;
    refuse_fd(make(nul_padded, 8, 8, 0), SL_ESOURCE, "bytes after the end", "NUL padding");
    refuse_fd(make("{}", 2, 0, 0), SL_ESOURCE, "header length 0 is less than 2", "length 0");
    refuse_fd(make("{}", 2, 3, 0), SL_ESOURCE, "its header alone needs 11 bytes, it has 10", "3");
    refuse_fd(make("{}", 2, 100000000, 0), SL_ESOURCE, "header alone needs 100000008", "100 MB");
    refuse_fd(make("{}", 2, 100000001, 0), SL_ESOURCE, "100000001 is more than 100000000", "large");
    refuse_fd(make("{}", 2, UINT64_MAX, 0), SL_ESOURCE, "is more than 100000000", "2^64-1");
    refuse_fd(make("{}", 2, UINT64_MAX - 7, 0), SL_ESOURCE, "is more than 100000000", "wrap");

    fd = memfd_create("x", MFD_CLOEXEC);
    refuse_fd(fd, SL_ESOURCE, "0 bytes are too few", "empty");
    fd = memfd_create("x", MFD_CLOEXEC);
    assert_int_equal(write(fd, "1234567", 7), 7);
    refuse_fd(fd, SL_ESOURCE, "7 bytes are too few", "7 bytes");
    fd = memfd_create("x", MFD_CLOEXEC);
    assert_int_equal(write(fd, "\2\0\0\0\0\0\0\0", 8), 8);
    refuse_fd(fd, SL_ESOURCE, "header alone needs 10 bytes, it has 8", "8 bytes");
    fd = memfd_create("x", MFD_CLOEXEC);
    assert_int_equal(write(fd, lfs, sizeof lfs - 1), (ssize_t)sizeof lfs - 1);
    refuse_fd(fd, SL_ESOURCE, "Git LFS pointer", "lfs");

    n = snprintf(deep, sizeof deep, "{\"a\":");
    memset(deep + n, '[', 100);
    memset(deep + n + 100, ']', 100);
    deep[n + 200] = '}';
    refuse_fd(make(deep, (size_t)n + 201, (uint64_t)n + 201, 0), SL_ESOURCE, "nested more than 64",
              "deep");

    n = snprintf(name, sizeof name, "{\"%0513d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":"
                 "[0,1]}}", 0);
    refuse_fd(make(name, (size_t)n, (uint64_t)n, 1), SL_ESOURCE, "name of 513 bytes, at most 512",
              "long name");
    n = snprintf(name, sizeof name, "{\"%0512d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":"
                 "[0,1]}}", 0);
    refuse_fd(make(name, (size_t)n, (uint64_t)n, 2), SL_ESOURCE, "1 bytes after the last tensor",
              "512 bytes are a good name");
}

/* A header of `n` bytes that asks for a tree far larger than itself. */
static void bounds_the_tree(void **state)
{
    size_t n = 9000000;
    char *h = malloc(n);

    (void)state;
    assert_non_null(h);
    memcpy(h, "{\"a\":[", 6);
    for (size_t i = 6; i + 3 < n; i += 2)
        memcpy(h + i, "1,", 2);
    memcpy(h + n - 3, "1]}", 3);
    refuse_fd(make(h, n, n, 0), SL_ESOURCE, "more than 4000000 values", "many values");
    free(h);
}

/* The file is shorter than it was when its size was taken. */
static void notices_shrinking(void **state)
{
    struct sl_error e = {.code = 0};
    struct sl_safetensors s;
    int fd = make("{}", 2, 2, 0);

    (void)state;
    assert_int_equal(ftruncate(fd, 9), 0);
    assert_int_equal(sl_safetensors_read(fd, "a", 10, &s, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "became shorter"));
    close(fd);
}

/* ---- mutations ---- */

static uint32_t next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static size_t mutate(uint8_t *buf, size_t size, size_t cap, uint32_t *rng)
{
    static const char tokens[] = "{}[]\",:-.e0189\\u\0\x80\xff \n";
    size_t at = size ? next(rng) % size : 0, n;

    switch (size ? next(rng) % 6 : 5) {
    case 0:
        buf[at] ^= (uint8_t)(1u << (next(rng) % 8));
        return size;
    case 1:
        buf[at] = (uint8_t)tokens[next(rng) % (sizeof tokens - 1)];
        return size;
    case 2:
        return at;
    case 3: /* repeat a few bytes */
        n = 1 + next(rng) % 40;
        if (at + n > size || size + n > cap)
            return size;
        memmove(buf + at + n, buf + at, size - at);
        return size + n;
    case 4: /* drop a few bytes */
        n = 1 + next(rng) % 8;
        if (at + n > size)
            return size;
        memmove(buf + at, buf + at + n, size - at - n);
        return size - n;
    default: /* one more byte at the end, or another header length */
        if (next(rng) % 2 && size >= 8)
            buf[next(rng) % 2] ^= (uint8_t)(1u << (next(rng) % 8));
        else if (size < cap)
            buf[size++] = 0;
        return size;
    }
}

static void survives_mutations(void **state)
{
    static const struct { const char *header; size_t data; } seeds[] = {
        {"{" T("model.a.weight", "F8_E4M3", "[2,3]", "[0,6]") ","
             T("model.a.weight_scale_inv", "F32", "[1,1]", "[6,10]") "}    ", 10},
        {"{\"__metadata__\":{\"format\":\"pt\"}," T("x", "BF16", "[4]", "[0,8]") "}", 8},
        {"{" T("\\u00e9\xc3\xa9", "I64", "[]", "[0,8]") "," T("e", "F16", "[0,5]", "[8,8]") "}", 8},
    };
    uint32_t rng = 0x2545f491, accepted = 0, refused = 0;

    (void)state;
    for (uint32_t round = 0; round < 6000; round++) {
        const char *header = seeds[round % 3].header;
        size_t n = strlen(header), size = 8 + n + seeds[round % 3].data;
        uint8_t buf[1024] = {(uint8_t)n};
        int rc;

        memcpy(buf + 8, header, n);
        if (round < 3)
            assert_int_equal(sl_fuzz_safetensors(buf, size), 0);
        for (uint32_t k = 1 + next(&rng) % 3; k > 0; k--)
            size = mutate(buf, size, sizeof buf, &rng);
        rc = sl_fuzz_safetensors(buf, size);
        accepted += rc == 0;
        refused += rc < 0;
    }
    assert_int_equal(LLVMFuzzerTestOneInput((const uint8_t *)"", 0), 0);
    assert_true(accepted > 20); /* changed names and data are fine */
    assert_true(refused > 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_every_dtype), cmocka_unit_test(orders_by_offset),
        cmocka_unit_test(accepts),             cmocka_unit_test(refuses_tensors),
        cmocka_unit_test(refuses_files),       cmocka_unit_test(bounds_the_tree),
        cmocka_unit_test(notices_shrinking),   cmocka_unit_test(survives_mutations),
    };

    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
