/* Log lines: their forms, and that nothing in a name or text breaks out of them. */
#include "proto/log_line.h"
#include "proto/config_file.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static const struct timespec at = {.tv_sec = 1795233643, .tv_nsec = 7654321};

static const char *format(char *buf, enum sl_log_form form, enum sl_log_level level,
                          const struct sl_log_fields *f)
{
    struct sl_log l;
    size_t n;

    sl_log_open(&l, 2, form, SL_LOG_DEBUG, "sluiced");
    n = sl_log_format(&l, level, f, &at, buf);
    assert_int_equal(n, strlen(buf));
    return buf;
}

static void test_forms(void **state)
{
    const struct sl_log_fields f = {"lease-expired", 7, 0, "gpu-a", "it was silent"};
    const struct sl_log_fields none = {"started", 0, -1, NULL, NULL};
    struct sl_log_fields own = {"task-done", 7, 65536, NULL, NULL};
    char buf[SL_LOG_LINE_MAX];

    (void)state;
    assert_string_equal(format(buf, SL_LOG_PLAIN, SL_LOG_WARNING, &f),
                        "2026-11-21T04:00:43.007Z warning sluiced lease-expired job=7 task=0 "
                        "worker=gpu-a: it was silent\n");
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_WARNING, &f),
                        "<4>lease-expired job=7 task=0 worker=gpu-a: it was silent\n");
    assert_string_equal(format(buf, SL_LOG_JSON, SL_LOG_WARNING, &f),
                        "{\"time\":\"2026-11-21T04:00:43.007Z\",\"level\":\"warning\","
                        "\"program\":\"sluiced\",\"event\":\"lease-expired\",\"job\":7,\"task\":0,"
                        "\"worker\":\"gpu-a\",\"text\":\"it was silent\"}\n");
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_DEBUG, &own), "<7>task-done job=7 task=prepare\n");
    own.task = 65540;
    assert_string_equal(format(buf, SL_LOG_JSON, SL_LOG_DEBUG, &own),
                        "{\"time\":\"2026-11-21T04:00:43.007Z\",\"level\":\"debug\",\"program\":\"sluiced\","
                        "\"event\":\"task-done\",\"job\":7,\"task\":\"discard\"}\n");
    own.task = 65541; /* none that there is */
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_DEBUG, &own), "<7>task-done job=7 task=65541\n");
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_ERROR, &none), "<3>started\n");
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_NOTICE, &none), "<5>started\n");
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_INFO, &none), "<6>started\n");
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_DEBUG, &none), "<7>started\n");
}

/* One line, no control character, no byte that is no UTF-8; in JSON it parses. */
static void safe(const char *line)
{
    size_t n = strlen(line);

    assert_true(n > 0 && line[n - 1] == '\n');
    for (size_t i = 0; i + 1 < n; i++)
        assert_false((unsigned char)line[i] < 0x20 || line[i] == 0x7f
                     || ((unsigned char)line[i] == 0xc2 && (unsigned char)line[i + 1] < 0xa0));
}

static void test_hostile(void **state)
{
    const struct sl_log_fields f = {"x", 1, -1, "a b=\"c\"\\\x1b", "1\n<0>2\x1b[31m\xc2\x9b"
                                    "3\xff\xe2\x80\xae\"\\ \xc3\xa9"};
    char buf[SL_LOG_LINE_MAX];
    cJSON *j;

    (void)state;
    assert_string_equal(format(buf, SL_LOG_JOURNAL, SL_LOG_INFO, &f),
                        "<6>x job=1 worker=\"a b=\\\"c\\\"\\\\\\x1b\": 1\\x0a<0>2\\x1b[31m"
                        "\\xc2\\x9b" "3\\xff\\xe2\\x80\\xae\"\\ \xc3\xa9\n");
    safe(format(buf, SL_LOG_JSON, SL_LOG_INFO, &f));
    j = cJSON_Parse(buf);
    assert_non_null(j);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(j, "worker")),
                        "a b=\"c\"\\\x1b");
    assert_non_null(strstr(cJSON_GetStringValue(cJSON_GetObjectItem(j, "text")),
                           "1\n<0>2\x1b[31m\xef\xbf\xbd"));
    cJSON_Delete(j);
}

static void test_any_bytes(void **state)
{
    char text[4096], buf[SL_LOG_LINE_MAX];
    uint32_t x = 12345;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct sl_log_fields f = {"e", UINT64_MAX, INT64_MAX, text + 3000, text};
        int n = round * 13 % 4000;
        cJSON *j;

        for (int i = 0; i < n; i++) {
            x = x * 1664525u + 1013904223u;
            text[i] = (char)((x >> 24) | (round < 2 ? 0 : !(x >> 24)));
            if (round % 3 == 0)
                text[i] = 1;     /* each becomes six bytes */
            else if (!text[i])
                text[i] = 'x';
        }
        text[n] = '\0';
        if (n < 3000)
            text[3000] = '\0';
        safe(format(buf, SL_LOG_PLAIN, SL_LOG_INFO, &f));
        safe(format(buf, SL_LOG_JSON, SL_LOG_INFO, &f));
        j = cJSON_Parse(buf);
        assert_non_null(j);
        cJSON_Delete(j);
    }
}

static void test_cut(void **state)
{
    char text[3000], buf[SL_LOG_LINE_MAX];
    const struct sl_log_fields f = {"e", 0, -1, NULL, text};

    (void)state;
    for (unsigned i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 3);
    format(buf, SL_LOG_JOURNAL, SL_LOG_INFO, &f);
    assert_int_equal(strlen(buf), strlen("<6>e: \n") + 2044 + 3);
    assert_string_equal(buf + strlen(buf) - 6, "\xc3\xa9...\n");
    text[2046] = '\0';
    format(buf, SL_LOG_JOURNAL, SL_LOG_INFO, &f);
    assert_null(strstr(buf, "..."));

    /* What is cut is what is written: a line stays within what a pipe takes whole. */
    memset(text, 1, 1000);
    text[1000] = '\0';
    format(buf, SL_LOG_JSON, SL_LOG_INFO, &f);
    assert_true(strlen(buf) < 2047 + 200);
    assert_string_equal(buf + strlen(buf) - 12, "\\u0001...\"}\n");
    assert_null(strstr(format(buf, SL_LOG_JOURNAL, SL_LOG_INFO, &(struct sl_log_fields){"e", 0, -1, NULL, text + 500}), "..."));
}

static void test_write(void **state)
{
    char path[] = "/tmp/sluice-log-XXXXXX", stream[64], buf[256];
    int fd = mkstemp(path);
    struct stat st;
    struct sl_log l;
    ssize_t n;

    (void)state;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    setenv("JOURNAL_STREAM", "1:2", 1);
    sl_log_open(&l, fd, SL_LOG_AUTO, SL_LOG_NOTICE, "p");
    assert_int_equal(l.form, SL_LOG_PLAIN);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    sl_log_open(&l, fd, SL_LOG_AUTO, SL_LOG_NOTICE, "p");
    assert_int_equal(l.form, SL_LOG_JOURNAL);
    unsetenv("JOURNAL_STREAM");
    sl_log_say(&l, SL_LOG_INFO, "hidden", "%d", 1);
    sl_log_say(&l, SL_LOG_NOTICE, "seen", "%d", 2);
    sl_log_say(NULL, SL_LOG_ERROR, "hidden", "%d", 3);
    n = pread(fd, buf, sizeof buf - 1, 0);
    assert_true(n > 0);
    buf[n] = '\0';
    assert_string_equal(buf, "<5>seen: 2\n");
    close(fd);
    unlink(path);
}

/* The orders of form and level are those of the configuration's choices. */
static void test_choices(void **state)
{
    const char *levels = sl_config_info(SL_CONFIG_LOG_LEVEL)->choices;

    (void)state;
    assert_string_equal(sl_config_info(SL_CONFIG_LOG)->choices, "auto|plain|json|journal");
    for (int i = 0; i <= SL_LOG_DEBUG; i++) {
        const char *name = sl_log_level_name((enum sl_log_level)i);

        assert_int_equal(strncmp(levels, name, strlen(name)), 0);
        levels += strlen(name) + 1;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_any_bytes), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_write), cmocka_unit_test(test_choices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
