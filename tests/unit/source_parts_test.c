/* The parts that readers of foreign bytes are made of: cursor, checked
 * arithmetic, name table, strict JSON, opening files. */
#include "proto/cursor.h"
#include "proto/json_file.h"
#include "proto/name_table.h"

#include "tests/unit/source_maker.h"

#include <cjson/cJSON.h>
#include <fcntl.h>

static void cursor_stays_inside(void **state)
{
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct sl_cursor c = sl_cursor(bytes, sizeof bytes);
    const uint8_t *p = NULL;
    uint64_t v64 = 99;
    uint32_t v32;
    uint8_t v8;

    (void)state;
    assert_true(sl_cursor_u8(&c, &v8) && v8 == 1);
    assert_true(sl_cursor_bytes(&c, 2, &p) && p == bytes + 1);
    assert_true(sl_cursor_u32(&c, &v32) && v32 == 0x07060504);
    assert_int_equal(sl_cursor_left(&c), 3);
    assert_false(sl_cursor_u64(&c, &v64));
    assert_false(sl_cursor_u32(&c, &v32));
    assert_false(sl_cursor_bytes(&c, UINT64_MAX, &p));
    assert_false(sl_cursor_bytes(&c, 4, &p));
    assert_int_equal(v64, 99);
    assert_int_equal(c.at, 7);
    assert_true(sl_cursor_bytes(&c, 3, &p) && p == bytes + 7);
    assert_true(sl_cursor_bytes(&c, 0, &p));
    assert_false(sl_cursor_u8(&c, &v8));
    c = sl_cursor(bytes, 8);
    assert_true(sl_cursor_u64(&c, &v64) && v64 == 0x0807060504030201);
    c = sl_cursor(bytes, 9);
    assert_false(sl_cursor_uint(&c, 9, &v64));
}

static void arithmetic_is_checked(void **state)
{
    uint64_t v = 7;

    (void)state;
    assert_false(sl_add_u64(UINT64_MAX, 1, &v));
    assert_false(sl_mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
    assert_false(sl_align_u64(UINT64_MAX - 3, 32, &v));
    assert_false(sl_align_u64(1, 24, &v));
    assert_false(sl_align_u64(1, 0, &v));
    assert_int_equal(v, 7);
    assert_true(sl_align_u64(33, 32, &v) && v == 64);
    assert_true(sl_align_u64(64, 32, &v) && v == 64);
    assert_true(sl_mul_u64(UINT32_MAX, UINT32_MAX, &v) && v == 0xfffffffe00000001);
    assert_int_equal(sl_ceil_div_u64(UINT64_MAX, 2), UINT64_C(1) << 63);
    assert_int_equal(sl_ceil_div_u64(576, 128), 5);
    assert_int_equal(sl_ceil_div_u64(0, 128), 0);
}

static void table_finds_what_it_holds(void **state)
{
    static char names[5000][24];
    struct sl_name_table t = {.n = 0};
    struct sl_error e;
    uint32_t held;

    (void)state;
    assert_int_equal(sl_name_table_find(&t, "x"), SL_NO_NAME);
    assert_int_equal(sl_name_table_init(&t, 0, &e), 0);
    assert_int_equal(sl_name_table_find(&t, "x"), SL_NO_NAME);
    for (uint32_t i = 0; i < 5000; i++) {
        /* Lengths 1 to 20: each remainder of the hash's 8-byte words. */
        snprintf(names[i], sizeof names[i], "%0*u", (int)(i % 20) + 1, i);
        assert_int_equal(sl_name_table_add(&t, names[i], i, &held, &e), 0);
        assert_int_equal(held, i);
    }
    for (uint32_t i = 0; i < 5000; i++) {
        assert_int_equal(sl_name_table_find(&t, names[i]), i);
        assert_int_equal(sl_name_table_add(&t, names[i], 9999, &held, &e), 0);
        assert_int_equal(held, i);
    }
    assert_int_equal(t.n, 5000);
    assert_int_equal(sl_name_table_find(&t, ""), SL_NO_NAME);
    assert_int_equal(sl_name_table_find(&t, "x"), SL_NO_NAME);
    sl_name_table_free(&t);
}

static void integers_are_exact(void **state)
{
    static const struct { const char *text; bool ok; uint64_t value; } cases[] = {
        {"0", true, 0}, {"1000", true, 1000}, {"1e3", true, 1000}, {"1001", false, 0},
        {"-1", false, 0}, {"0.5", false, 0}, {"1e400", false, 0}, {"\"1\"", false, 0},
        {"true", false, 0}, {"null", false, 0}, {"[]", false, 0},
    };
    struct sl_error e;
    cJSON *j;
    uint64_t v;
    size_t odd;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        v = 0;
        assert_int_equal(sl_json_parse("t", cases[i].text, strlen(cases[i].text), NULL, &j, &e), 0);
        assert_int_equal(sl_json_uint(j, 1000, &v), cases[i].ok);
        assert_int_equal(v, cases[i].value);
        cJSON_Delete(j);
    }
    assert_false(sl_json_uint(NULL, 1000, &v));
    assert_int_equal(sl_json_parse("t", "9007199254740993", 16, NULL, &j, &e), 0);
    assert_true(sl_json_uint(j, SL_JSON_EXACT, &v)); /* reads as 2^53, the nearest double */
    cJSON_Delete(j);
    assert_int_equal(sl_json_parse("t", "[1,2e1,-3]", 10, &odd, &j, &e), 0);
    assert_int_equal(odd, 3);
    cJSON_Delete(j);
    assert_int_equal(sl_json_parse("t", "[1,20]", 6, &odd, &j, &e), 0);
    assert_true(odd == SL_JSON_PLAIN);
    cJSON_Delete(j);
}

/* What Python's json takes: the last of two values, in the first one's place, and words that are no JSON. */
static void json_is_as_pythons(void **state)
{
    static const struct { const char *text, *read; } cases[] = {
        {"{\"a\":1,\"b\":[{\"x\":NaN,\"x\":-Infinity,\"x\":[]}],\"a\":{\"c\":\"NaN\\\"\"},\"d\":Infinity}",
         "{\"a\":{\"c\":\"NaN\\\"\"},\"b\":[{\"x\":[]}],\"d\":\"\"}"},
        {"{\"0\":0,\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,\"8\":0,\"8\":1,\"0\":2,\"0\":3}",
         "{\"0\":3,\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,\"8\":1}"},
    };
    char text[200], *read;
    struct sl_error e;
    cJSON *j;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "%s", cases[i].text);
        assert_int_equal(sl_json_parse_python("t", text, strlen(text), &j, &e), 0);
        read = cJSON_PrintUnformatted(j);
        assert_string_equal(read, cases[i].read);
        cJSON_free(read);
        cJSON_Delete(j);
    }
    assert_int_equal(sl_json_parse_python("t", strcpy(text, "{\"a\":Nan}"), 9, &j, &e), SL_ESOURCE);
    assert_int_equal(sl_json_parse_python("t", strcpy(text, "{NaN :1}"), 8, &j, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "expected a string, found 'NaN"));
}

static void json_is_strict(void **state)
{
    static const struct { const char *text, *why; } bad[] = {
        {"", "at byte 0: expected a value"},
        {"1 2", "at byte 2: bytes after the end"},
        {"{\"a\":1,\"a\":2}", "key 'a' occurs twice"},
        {"[{\"b\":{\"a\":1,\"a\":2}}]", "key 'a' occurs twice"},
        {"{\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,\"8\":0,\"9\":0,\"1\":0}",
         "key '1' occurs twice"},
        {"[\"\\x\"]", "unknown escape"},
        {"[\"\\u12g4\"]", "four hexadecimal digits"},
        {"[\"a", "a string does not end"},
        {"[\"a\\", "unknown escape"},
        {"[\"\xe2\x82", "not valid UTF-8"},
        {"[\"\xf4\x90\x80\x80\"]", "not valid UTF-8"},
        {"[\"\\udc00\"]", "unpaired surrogate"},
        {"[1.]", "expected a digit"},
        {"[1e]", "expected a digit"},
        {"[-]", "expected a digit"},
        {"[.5]", "expected a value"},
        {"[tru]", "expected a value"},
        {"[1 2]", "expected ',' or ']'"},
        {"{\"a\" 1}", "expected ':'"},
        {"{\"a\":1 \"b\":2}", "expected ',' or '}'"},
        {"{1:2}", "expected a string"},
        {"[1111111111111111111111111111111111111111111111111111111111111]", "more than 60"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sl_error e = {.code = 0};
        cJSON *j = NULL;

        if (sl_json_parse("t.json", bad[i].text, strlen(bad[i].text), NULL, &j, &e) != SL_ESOURCE ||
            !strstr(e.text, bad[i].why) || strncmp(e.text, "t.json: ", 8) != 0)
            fail_msg("%s: '%s', expected '%s'", bad[i].text, e.text, bad[i].why);
        assert_null(j);
    }
}

static int read_json(const char *path, size_t max, cJSON **j, struct sl_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = sl_json_read_fd(fd, path, max, j, e);

    assert_int_equal(close(fd), 0);
    return rc;
}

static void json_files_are_bounded(void **state)
{
    char dir[] = "/tmp/sluice-parts-XXXXXX", path[100];
    struct sl_error e = {.code = 0};
    cJSON *j = NULL;

    (void)state;
    assert_non_null(mkdtemp(dir));
    maker_write(dir, "a.json", "{\"a\": 1}");
    snprintf(path, sizeof path, "%s/a.json", dir);
    assert_int_equal(read_json(path, 8, &j, &e), 0);
    cJSON_Delete(j);
    j = NULL;
    assert_int_equal(read_json(path, 7, &j, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "8 bytes, more than the 7"));
    assert_int_equal(read_json(dir, 7, &j, &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "not a regular file"));
    assert_null(j);
    assert_int_equal(maker_remove(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cursor_stays_inside),       cmocka_unit_test(arithmetic_is_checked),
        cmocka_unit_test(table_finds_what_it_holds), cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(json_is_as_pythons),        cmocka_unit_test(json_is_strict),
        cmocka_unit_test(json_files_are_bounded),
    };

    return cmocka_run_group_tests_name("source parts", tests, NULL, NULL);
}
