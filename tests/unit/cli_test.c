/* Sizes as people type them, error lines that are safe to print, rates that are possible. */
#include "client/cli.h"
#include "client/progress.h"
#include "proto/size_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void sizes_are_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0}, {"4096", 4096}, {"48G", 48000000000ull}, {"1Gi", 1ull << 30},
        {"1.5GiB", 3ull << 29}, {"300M", 300000000}, {"2k", 2000}, {"1T", 1000000000000ull},
        {"7B", 7}, {"24gb", 24000000000ull}, {"24gib", 24ull << 30}, {"64Mb", 64000000}, {"0.5k", 500}, {"5m", 5000000}, {"281.25GiB", 301989888000ull}, {"1.000001M", 1000001},
        {"9000000T", 9000000000000000000ull},
    };
    static const char *const bad[] = {"", "G", "-1", "1X", "1GG", "0x10", "nan", "inf", "1e30",
                                      "1 G", "1Gix", "99999999T", " 5M", "+1", "1e3", ".5G", "1.G",
                                      "1.0000001M", "1.5", "5i", "B", "5iB", "1,5G", "5Mx", "b", "5ib", "5gbb", "18446744073709551616",
                                      "99999999999999999999G"};
    struct sl_error e;
    uint64_t v;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(cli_parse_size("--x", good[i].text, &v, &e), 0);
        assert_true(v == good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(cli_parse_size("--x", bad[i], &v, &e), SL_EUSAGE);
        assert_non_null(strstr(e.text, "--x: "));
    }
}

static void sizes_are_shown(void **state)
{
    char b[32];

    (void)state;
    assert_string_equal(sl_size_text(b, 0), "0 B");
    assert_string_equal(sl_size_text(b, 999), "999 B");
    assert_string_equal(sl_size_text(b, 1000), "1.0 kB");
    assert_string_equal(sl_size_text(b, 999950), "1.0 MB");
    assert_string_equal(sl_size_text(b, 300800000000ull), "300.8 GB");
}

static void error_lines_are_one_printable_line(void **state)
{
    struct sl_error e;
    char longer[3000];

    (void)state;
    assert_int_equal(sl_fail(&e, SL_ESOURCE, "a\nb\033[31m\xff\xc3\xa9"), SL_ESOURCE);
    assert_string_equal(e.text, "a?b?[31m?\xc3\xa9");
    assert_int_equal(sl_fail_context(&e, "file %d", 7), SL_ESOURCE);
    assert_string_equal(e.text, "file 7: a?b?[31m?\xc3\xa9");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    sl_fail(&e, SL_EFAIL, "%s", longer);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_int_equal(sl_fail_context(&e, "outer"), SL_EFAIL);
    assert_int_equal(strncmp(e.text, "outer: xxx", 10), 0);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_int_equal(sl_fail(NULL, SL_EFAIL, "nobody listens"), SL_EFAIL);
}

/* Tasks are taken back, and an engine that is opened anew counts from 0. */
static void work_taken_back_is_no_rate(void **state)
{
    struct progress p;

    (void)state;
    progress_begin(&p, PROGRESS_QUIET, "convert", 1000, 0);
    p.win_ns -= 1000000000;
    progress_update(&p, 1000, 500, 400);
    assert_true(p.rate > 0 && p.rate < 2000 && p.read_rate > 0 && p.write_rate > 0);
    p.win_ns -= 1000000000;
    progress_update(&p, 10, 20, 30);
    assert_true(p.rate > 0 && p.rate < 1000 && p.read_rate < 500 && p.write_rate < 400);
}

/* At any width it fits, and what matters most is left longest. */
static void a_narrow_terminal_has_the_time_left(void **state)
{
    struct progress p;
    char line[300], narrow[300];

    (void)state;
    progress_begin(&p, PROGRESS_TTY, "convert", 688000000000, 0);
    p.rate = 1e8;
    p.read_rate = p.write_rate = 123.4e6;
    progress_line(line, sizeof line, &p, 68800000000, 250);
    assert_null(strstr(line, "write")); /* a phase that reads alone */
    p.win_written = 1;
    for (int width = 1; width <= 250; width++) {
        progress_line(line, sizeof line, &p, 68800000000, width);
        assert_true((int)strlen(line) < width);
        assert_true(width < 8 || strstr(line, "convert") == line);
        assert_int_equal(width >= 14, strstr(line, " 10 %") != NULL);
        assert_int_equal(width >= 27, strstr(line, "ETA 1:43:12") != NULL);
        assert_int_equal(width >= 40, strstr(line, " [#") != NULL);
        assert_int_equal(width >= 61, strstr(line, "68.8 GB of 688.0 GB") != NULL);
        assert_int_equal(width >= 78, strstr(line, "read 123.4 MB/s") != NULL);
        assert_int_equal(width >= 96, strstr(line, "write 123.4 MB/s") != NULL);
    }
    progress_line(narrow, sizeof narrow, &p, 68800000000, 500);
    assert_string_equal(line, narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(sizes_are_shown),
        cmocka_unit_test(error_lines_are_one_printable_line),
        cmocka_unit_test(work_taken_back_is_no_rate),
        cmocka_unit_test(a_narrow_terminal_has_the_time_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
