/* UTF-8: every form that RFC 3629 allows and forbids; what a line for people may hold. */
#include "proto/error.h"
#include "proto/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static size_t encode(uint32_t c, unsigned char *s)
{
    if (c < 0x80) {
        s[0] = (unsigned char)c;
        return 1;
    }
    for (size_t n = 2; n <= 4; n++)
        if (c < UINT32_C(1) << (5 * n + 1)) {
            s[0] = (unsigned char)((0xf00 >> n & 0xff) | c >> 6 * (n - 1));
            for (size_t i = 1; i < n; i++)
                s[i] = (unsigned char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
            return n;
        }
    return 0;
}

/* The first code point of each length; below it a form is overlong. */
static void characters_are_well_formed_or_not(void **state)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char s[4];

    (void)state;
    for (uint32_t c = 0; c < 0x120000; c++) {
        size_t n = encode(c, s);
        bool good = c < 0x110000 && (c < 0xd800 || c > 0xdfff);

        assert_int_equal(sl_utf8_at(s, n), good ? n : 0);
        assert_int_equal(sl_utf8_at(s, n - 1), 0); /* cut off */
    }
    for (size_t n = 2; n <= 4; n++)
        for (uint32_t c = 0; c < least[n]; c += c < 0x1000 ? 1 : 63) {
            s[0] = (unsigned char)((0xf00 >> n & 0xff) | c >> 6 * (n - 1));
            for (size_t i = 1; i < n; i++)
                s[i] = (unsigned char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
            assert_int_equal(sl_utf8_at(s, n), 0);
        }
    assert_int_equal(sl_utf8_at("\x80", 1), 0);
    assert_int_equal(sl_utf8_at("\xff\x80\x80\x80", 4), 0);
    assert_int_equal(sl_utf8_at("\xc3(", 2), 0);
}

static void lines_hold_no_controls(void **state)
{
    unsigned char s[4];

    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        size_t n = encode(c, s);
        bool hidden = c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
                      (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);

        assert_int_equal(sl_utf8_shown(s, n), hidden ? 0 : sl_utf8_at(s, n));
    }
}

static void errors_are_one_printable_line(void **state)
{
    struct sl_error e;

    (void)state;
    assert_int_equal(sl_fail(&e, SL_ESOURCE, "%s", "a\nb\x1b[2J \xc3\xa9 \xc2\x9b \xe2\x80\xae \xc3"), SL_ESOURCE);
    assert_string_equal(e.text, "a?b?[2J \xc3\xa9 ?? ??? ?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_are_well_formed_or_not),
        cmocka_unit_test(lines_hold_no_controls),
        cmocka_unit_test(errors_are_one_printable_line),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
