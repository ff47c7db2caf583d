/* test_text.c - what counts as UTF-8, and what of it is shown as what it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "text.h"

static void what_is_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "plain",
                                       "M\xc3\xbcller",
                                       "\xe2\x82\xac",
                                       "\xef\xbf\xbf",
                                       "\xf0\x9f\x90\x88",
                                       "\xf4\x8f\xbf\xbf",
                                       "\xed\x9f\xbf\xee\x80\x80"};
    static const char *const bad[] = {
        "M\xfcller",
        "\x80",
        "\xc3",
        "\xc3(",
        "\xe2\x82",
        "\xe2(\xa1",
        "\xff",
        "\xc0\xaf",
        "\xc1\xbf",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf", /* overlong, surrogate */
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!text_is_utf8(good[i], strlen(good[i])))
            fail_msg("good %zu is refused", i);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (text_is_utf8(bad[i], strlen(bad[i])))
            fail_msg("bad %zu is taken", i);
    assert_true(text_is_utf8("a\0b", 3));
    assert_false(text_is_utf8("\xe2\x82\xac", 2)); /* cut */
}

static void shown(const char *text, const char *expected)
{
    char out[200];
    assert_int_equal(text_escape(out, sizeof out, text), strlen(expected));
    assert_string_equal(out, expected);
    assert_true(text_is_utf8(out, strlen(out)));
}

static void what_is_shown(void **state)
{
    (void)state;
    shown("M\xc3\xbcller: 10 \xe2\x82\xac \\ \"quoted\"", "M\xc3\xbcller: 10 \xe2\x82\xac \\ \"quoted\"");
    shown("a\x1b[31m\r\n\t\x7f", "a\\x1b[31m\\x0d\\x0a\\x09\\x7f");
    shown("\xc2\x9b\x31m \xc2\x80 \xc2\xa0", "\\u009b1m \\u0080 \xc2\xa0"); /* C1; a space that does not break */
    const char turned[] = {'g',    '7', '\xe2', '\x80',
                           '\xae', '7', 'g',    '\0'}; /* the compiler would warn of a string like that */
    shown(turned, "g7\\u202e7g");
    shown("\xd8\x9c\xe2\x80\x8e\xe2\x80\x8f\xe2\x81\xa6\xe2\x81\xa9\xe2\x80\xa8",
          "\\u061c\\u200e\\u200f\\u2066\\u2069\\u2028");
    shown("M\xfcller \xe2\x82", "M\\xfcller \\xe2\\x82");
}

static void cut_after_a_whole_character(void **state)
{
    (void)state;
    char out[8];
    for (size_t size = 1; size <= sizeof out; size++) {
        memset(out, 'x', sizeof out);
        size_t n = text_escape(out, size, "\xe2\x82\xac\x1b\xc3\xbc");
        assert_int_equal(n, size > 7 ? 7 : size > 3 ? 3 : 0);
        assert_int_equal(out[n], 0);
        assert_true(text_is_utf8(out, n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_utf8),
        cmocka_unit_test(what_is_shown),
        cmocka_unit_test(cut_after_a_whole_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
