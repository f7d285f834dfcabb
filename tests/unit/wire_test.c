/* Messages on the wire: what the table allows goes out and comes back the same;
 * everything else is refused with a line that says why. */
#include "proto/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <zstd.h>

#include "tests/fuzz/wire_fuzz.c"

#define ANY (SL_FROM_WORKER | SL_FROM_CLIENT | SL_FROM_DAEMON)

static struct sl_error e;

static int decode(const void *bytes, size_t n, unsigned from, char re[65])
{
    struct sl_msg m;
    int rc = sl_wire_decode(bytes, n, from, &m, re, NULL, &e);

    sl_msg_free(&m);
    return rc;
}

static void refused(const char *text, const char *why)
{
    assert_int_equal(decode(text, strlen(text), ANY, NULL), SL_EUSAGE);
    if (!strstr(e.text, why))
        fail_msg("'%s' does not say '%s'", e.text, why);
}

static void a_message_comes_back(void **state)
{
    struct sl_msg m, back;
    char re[65], name[33];
    uint8_t *bytes;
    size_t n;
    cJSON *tasks;

    (void)state;
    assert_int_equal(sl_msg_new(SL_M_GRANT, NULL, &m, &e), 0);
    sl_put_str(m.tree, "id", "a7");
    sl_put_uint(m.tree, "job", SL_WIRE_UINT_MAX);
    sl_put_uint(m.tree, "lease_ms", 60000);
    tasks = sl_put_array(m.tree, "tasks");
    for (uint64_t i = 0; i < 3; i++) {
        cJSON *t = sl_add_object(tasks);

        sl_put_uint(t, "task", i);
        sl_put_uint(t, "epoch", 999999999999990ull + i);
    }
    assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), 0);
    assert_int_equal(bytes[0], '{');
    assert_int_equal(sl_wire_decode(bytes, n, SL_FROM_DAEMON, &back, re, name, &e), 0);
    assert_int_equal(back.id, SL_M_GRANT);
    assert_string_equal(re, "a7");
    assert_string_equal(name, "grant");
    assert_true(cJSON_Compare(m.tree, back.tree, true));
    assert_true(sl_get_uint(back.tree, "job", 0) == SL_WIRE_UINT_MAX);
    /* The same message from a worker is none. */
    assert_int_equal(decode(bytes, n, SL_FROM_WORKER, re), SL_EUSAGE);
    assert_non_null(strstr(e.text, "grant: not a message for this side"));
    free(bytes);
    sl_msg_free(&m);
    sl_msg_free(&back);
}

static void long_ones_are_frames(void **state)
{
    char *sums = malloc(16 * SL_TASKS_MAX + 1);
    struct sl_msg m, back;
    uint8_t *bytes;
    size_t n;
    cJSON *task;

    (void)state;
    memset(sums, 'a', 16 * SL_TASKS_MAX);
    sums[16 * SL_TASKS_MAX] = 0;
    assert_int_equal(sl_msg_new(SL_M_GRANT, "r", &m, &e), 0);
    sl_put_uint(m.tree, "job", 1);
    sl_put_uint(m.tree, "lease_ms", 1);
    task = sl_add_object(sl_put_array(m.tree, "tasks"));
    sl_put_uint(task, "task", SL_TASK_STITCH);
    sl_put_uint(task, "epoch", 1);
    sl_put_str(m.tree, "sums", sums);
    assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), 0);
    assert_int_equal(bytes[0], 0x28);
    assert_true(n < SL_WIRE_COMPRESS);
    assert_int_equal(sl_wire_decode(bytes, n, SL_FROM_DAEMON, &back, NULL, NULL, &e), 0);
    assert_string_equal(sl_get_str(back.tree, "sums"), sums);
    sl_msg_free(&back);
    /* One byte off, a tail, a cut: no. */
    bytes[n / 2] ^= 0x40;
    (void)decode(bytes, n, ANY, NULL);
    bytes[n / 2] ^= 0x40;
    assert_int_equal(decode(bytes, n - 1, ANY, NULL), SL_EUSAGE);
    bytes = realloc(bytes, n + 1);
    bytes[n] = 0;
    assert_int_equal(decode(bytes, n + 1, ANY, NULL), SL_EUSAGE);
    free(bytes);
    free(sums);
    sl_msg_free(&m);
}

static void what_breaks_the_table_is_not_sent(void **state)
{
    struct sl_msg m;
    uint8_t *bytes;
    size_t n;

    (void)state;
    assert_int_equal(sl_msg_new(SL_M_PING, NULL, &m, &e), 0);
    assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "field 'n' is missing"));
    sl_put_uint(m.tree, "n", UINT64_MAX);
    assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "field 'n' must be"));
    sl_msg_free(&m);
    /* A field that could not be made, wherever it stands, is told as what it is. */
    assert_int_equal(sl_msg_new(SL_M_PROGRESS, NULL, &m, &e), 0);
    sl_put_uint(m.tree, "bytes", 1);
    sl_put(sl_add_object(sl_put_array(m.tree, "tasks")), "job", NULL);
    assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), SL_EFAIL);
    assert_string_equal(e.text, "out of memory");
    sl_msg_free(&m);
    assert_int_equal(sl_msg_new(SL_M_WAIT, NULL, &m, &e), 0);
    sl_put_uints(m.tree, "jobs", (uint64_t[1001]){0}, 1001);
    assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), SL_EUSAGE);
    sl_msg_free(&m);
    assert_int_equal(sl_msg_new(SL_M_WAIT, NULL, &m, &e), 0);
    sl_put_uints(m.tree, "jobs", (uint64_t[]){SL_WIRE_UINT_MAX + 1}, 1);
    assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), SL_EUSAGE);
    sl_msg_free(&m);
}

static unsigned asked, from, until;

static void *at_times_no_memory(size_t n)
{
    asked++;
    return asked > from && asked <= until ? NULL : malloc(n);
}

static int encode_set(uint8_t **bytes, size_t *n)
{
    struct sl_msg m;
    int rc = sl_msg_new(SL_M_SET, NULL, &m, &e);

    if (rc < 0)
        return rc;
    sl_put_str(m.tree, "id", "7");
    sl_put_uints(m.tree, "jobs", (uint64_t[]){1, 2}, 2);
    sl_put_strs(m.tree, "add_labels", (const char *const[]){"a", "b"}, 2);
    sl_put_uint(m.tree, "priority", 2);
    rc = sl_wire_encode(&m, bytes, n, &e);
    sl_msg_free(&m);
    return rc;
}

/* However long memory is out, and whenever it comes back. */
static void no_message_lacks_a_field_for_want_of_memory(void **state)
{
    uint8_t *whole, *bytes;
    size_t n, len;
    unsigned all;

    (void)state;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = at_times_no_memory, .free_fn = free});
    from = until = asked = 0;
    assert_int_equal(encode_set(&whole, &n), 0);
    all = asked;
    for (unsigned k = 1; k < 8; k++)
        for (unsigned i = 0; i < all; i++) {
            asked = 0;
            from = i;
            until = i + k;
            assert_int_equal(encode_set(&bytes, &len), SL_EFAIL);
            assert_string_equal(e.text, "out of memory");
        }
    cJSON_InitHooks(NULL);
    free(whole);
}

static void bad_messages_are_refused(void **state)
{
    (void)state;
    refused("", "message");
    refused("hello", "message");
    refused("[]", "object is expected");
    refused("{\"m\":\"ping\",\"n\":1}", "'v' and 'm'");
    refused("{\"v\":3,\"n\":1}", "'v' and 'm'");
    refused("{\"v\":1,\"m\":\"ping\",\"n\":1}", "version 1; version 3 is spoken");
    refused("{\"v\":3,\"m\":\"pingu\",\"n\":1}", "'pingu' is no message");
    refused("{\"v\":3,\"m\":\"ping\"}", "'n' is missing");
    refused("{\"v\":3,\"m\":\"ping\",\"n\":-1}", "'n' must be an integer");
    refused("{\"v\":3,\"m\":\"ping\",\"n\":1.5}", "'n' must be an integer");
    refused("{\"v\":3,\"m\":\"ping\",\"n\":\"1\"}", "'n' must be an integer");
    refused("{\"v\":3,\"m\":\"ping\",\"n\":1e300}", "'n' must be an integer");
    refused("{\"v\":3,\"m\":\"ping\",\"n\":1,\"x\":0}", "unknown field 'x'");
    refused("{\"v\":3,\"m\":\"ping\",\"n\":1,\"n\":1}", "message");
    refused("{\"v\":3,\"m\":\"ping\",\"n\":1} ,", "message");
    refused("{\"v\":3,\"m\":\"cancel\",\"jobs\":1}", "'jobs' must be an array");
    refused("{\"v\":3,\"m\":\"cancel\",\"jobs\":[1,\"2\"]}", "'jobs' must be an array of integers");
    refused("{\"v\":3,\"m\":\"list\",\"labels\":[\"a\",1]}", "'labels' must be an array of");
    refused("{\"v\":3,\"m\":\"list\",\"labels\":[\"a\\u0007\"]}", "'labels' must be an array of");
    refused("{\"v\":3,\"m\":\"nack\",\"job\":1,\"task\":65541,\"epoch\":1,\"code\":1,\"text\":\"\"}",
            "'task' must be an integer");
    refused("{\"v\":3,\"m\":\"result\",\"job\":1,\"task\":0,\"epoch\":1,\"bytes\":1,"
            "\"checksum\":\"ABCDEF0123456789\"}", "'checksum' must be hexadecimal");
    refused("{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[{\"source\":\"rel\"}]}",
            "spec: field 'source' must be an absolute path");
    refused("{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[{\"options\":{\"what\":1}}]}",
            "options: unknown field 'what'");
    refused("{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[{\"source\":\"/a\\u001b[2J\"}]}",
            "spec: field 'source' holds control characters");
    refused("{\"v\":3,\"m\":\"bye\",\"text\":\"a\\u0007\"}", "'text' holds control characters");
    refused("{\"v\":3,\"m\":\"bye\",\"text\":\"a\\u0000b\"}", "message");
    refused("{\"v\":3,\"m\":\"bye\",\"text\":\"\xff\"}", "message");
}

static void the_sender_s_mark_survives(void **state)
{
    const char *text = "{\"v\":3,\"id\":\"q-1\",\"m\":\"ping\",\"n\":true}";
    char re[65], name[33];
    struct sl_msg m;

    (void)state;
    assert_int_equal(sl_wire_decode((const uint8_t *)text, strlen(text), ANY, &m, re, name, &e),
                     SL_EUSAGE);
    assert_string_equal(re, "q-1");
    assert_string_equal(name, "ping");
}

static void depth_and_size_are_bounded(void **state)
{
    size_t n = SL_WIRE_MAX + 1;
    char *big = malloc(n);

    (void)state;
    memset(big, '[', n);
    assert_int_equal(decode(big, n, ANY, NULL), SL_EUSAGE);
    assert_non_null(strstr(e.text, "at most 8388608 are taken"));
    assert_int_equal(decode(big, 1000, ANY, NULL), SL_EUSAGE);
    assert_non_null(strstr(e.text, "deeper than 8"));
    for (size_t i = 0; i + 1 < n; i += 2)
        memcpy(big + i, "0,", 2);
    big[0] = '[';
    assert_int_equal(decode(big, n - 1, ANY, NULL), SL_EUSAGE);
    assert_non_null(strstr(e.text, "more than 300000 values"));
    free(big);
}

static void a_zip_bomb_stays_packed(void **state)
{
    size_t size = SL_WIRE_MAX + 1, cap = ZSTD_compressBound(size), n;
    char *zeros = calloc(1, size), *frame = malloc(cap);
    ZSTD_CCtx *cctx = ZSTD_createCCtx();

    (void)state;
    n = ZSTD_compress(frame, cap, zeros, size, 1);
    assert_true(n < 2000);
    assert_int_equal(decode(frame, n, ANY, NULL), SL_EUSAGE);
    assert_non_null(strstr(e.text, "8388609 bytes when decompressed"));
    /* A frame that hides its size. */
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, 0);
    n = ZSTD_compress2(cctx, frame, cap, zeros, size);
    assert_int_equal(decode(frame, n, ANY, NULL), SL_EUSAGE);
    assert_non_null(strstr(e.text, "states its content size"));
    ZSTD_freeCCtx(cctx);
    free(zeros);
    free(frame);
}

static void damaged_bytes_never_harm(void **state)
{
    static const char *const seeds[] = {
        ("{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"0.1\",\"instance\":"
        "\"00112233445566778899aabbccddeeff\",\"name\":\"w\",\"host\":\"h\",\"held\":[{\"job\":1,"
        "\"task\":2,\"epoch\":3}]}"),
        ("{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[{\"source\":\"/a\",\"output\":\"/b\","
        "\"recipe\":\"q4_k\",\"recipe_text\":\"*=q4_k\\n\",\"options\":{\"tensor_types\":[{"
        "\"pattern\":\"x\",\"type\":\"q6_k\"}],\"pure\":true}}],\"labels\":[\"a\"]}"),
        ("{\"v\":3,\"m\":\"progress\",\"bytes\":12,\"tasks\":[{\"job\":1,\"task\":2,\"epoch\":3,"
        "\"bytes\":4}],\"rate\":5}"),
    };
    static const char alphabet[] = "{}[]\",:\\0129abcu-.etrufalse\x01\xff";
    uint64_t r = 88172645463325252ull;
    unsigned good = 0;

    (void)state;
    for (unsigned round = 0; round < 30000; round++) {
        uint8_t buf[512];
        size_t n = strlen(seeds[round % 3]);

        memcpy(buf, seeds[round % 3], n);
        for (unsigned k = 0; k < 1 + round % 4; k++) {
            r ^= r << 13, r ^= r >> 7, r ^= r << 17;
            buf[r % n] = (uint8_t)alphabet[(r >> 32) % (sizeof alphabet - 1)];
        }
        good += sl_fuzz_wire(buf, r % 16 ? n : r % n) == 0;
    }
    assert_true(good > 100 && good < 29000);
}

/* Words for people pass whatever bytes they hold; a name with such bytes is refused. */
static void texts_are_made_readable(void **state)
{
    static const char *const text[][2] = {
        {"plain \xc3\xbc\n", "plain \xc3\xbc\n"}, {"cut \xc3", "cut "}, {"cut \xe2\x82", "cut "},
        {"cut \xf0\x9f\x98", "cut "}, {"\xff in \xc3 it", "? in ? it"}, {"caf\xe9s", "caf?s"}, {"\x1b[31m\x7f", "?[31m?"},
        {"\xc3\xbc\xbc", "\xc3\xbc?"}, {"", ""}};
    struct sl_msg m;
    uint8_t *bytes;
    size_t n;

    (void)state;
    for (unsigned i = 0; i < sizeof text / sizeof text[0]; i++) {
        assert_int_equal(sl_msg_new(SL_M_BYE, NULL, &m, &e), 0);
        sl_put_text(m.tree, "text", text[i][0]);
        assert_string_equal(sl_get_str(m.tree, "text"), text[i][1]);
        assert_int_equal(sl_wire_encode(&m, &bytes, &n, &e), 0);
        free(bytes);
        sl_msg_free(&m);
    }
    assert_int_equal(sl_msg_new(SL_M_BYE, NULL, &m, &e), 0);
    sl_put_str(m.tree, "text", "\xff");
    assert_true(sl_wire_encode(&m, &bytes, &n, &e) < 0);
    assert_non_null(strstr(e.text, "not valid UTF-8"));
    sl_msg_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_made_readable),
        cmocka_unit_test(a_message_comes_back),
        cmocka_unit_test(long_ones_are_frames),
        cmocka_unit_test(what_breaks_the_table_is_not_sent),
        cmocka_unit_test(no_message_lacks_a_field_for_want_of_memory),
        cmocka_unit_test(bad_messages_are_refused),
        cmocka_unit_test(the_sender_s_mark_survives),
        cmocka_unit_test(depth_and_size_are_bounded),
        cmocka_unit_test(a_zip_bomb_stays_packed),
        cmocka_unit_test(damaged_bytes_never_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
