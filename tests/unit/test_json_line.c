/* One text out of a JSON object: what Python's json takes is read, what it refuses is refused (e2e/test_xctok_text.py compares the two on
 * many more lines). */
#include "json_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct json_line line;

/* The text's field `t` of a line is this, with so many lone surrogates. The line has exactly its bytes, so that a sanitizer sees reads beyond. */
static void reads(const char *json, const char *text, unsigned surrogates)
{
    struct err e = {0};
    size_t n = strlen(json);
    char *exact = malloc(n + !n);
    memcpy(exact, json, n);
    if (json_line_read(&line, exact, n, "t", &e))
        fail_msg("%s: %s", json, e.message);
    free(exact);
    assert_int_equal(line.n, strlen(text));
    assert_memory_equal(line.text, text, line.n);
    assert_int_equal(line.surrogates, surrogates);
}

static void refuses(const char *json, const char *part)
{
    struct err e = {0};
    size_t n = strlen(json);
    char *exact = malloc(n + !n);
    memcpy(exact, json, n);
    assert_int_equal(json_line_read(&line, exact, n, "t", &e), ERR_INPUT);
    free(exact);
    if (!strstr(e.message, part))
        fail_msg("%s: message \"%s\" lacks \"%s\"", json, e.message, part);
}

static void values(void **state)
{
    (void)state;
    reads("{\"t\":\"a\"}", "a", 0);
    reads(" \t{ \"x\" : -Infinity , \"t\" : \"a\" , \"y\" : NaN }\r\n", "a", 0);
    reads("{\"x\":10014255632117358197,\"y\":[1e999,-0.5E-3,0,{},[],[[]],{\"t\":\"no\"}],\"z\":Infinity,\"t\":\"\"}",
          "", 0);
    reads("{\"t\":null,\"t\":\"last\"}", "last", 0);
    reads("{\"\\u0074\":\"escaped key\",\"tt\":1,\"\":2}", "escaped key", 0);
    reads("{\"x\":[true,false,null],\"t\":\"a\"}", "a", 0);
}

static void texts(void **state)
{
    (void)state;
    reads("{\"t\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "\"\\/\b\f\n\r\t", 0);
    reads("{\"t\":\"\\u00e9\\u4E16\\ud83d\\ude00\"}", "\xc3\xa9\xe4\xb8\x96\xf0\x9f\x98\x80", 0);
    reads("{\"t\":\"a \\ud83d b\"}", "a \xef\xbf\xbd b", 1);
    reads("{\"t\":\"\\ude00\\ud83d\\ud83d\\ude00\"}", "\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80", 2);
    reads("{\"t\":\"\\ud83d\\n\"}", "\xef\xbf\xbd\n", 1);
    struct err e = {0};
    assert_int_equal(json_line_read(&line, "{\"t\":\"\\u0000\"}", 14, "t", &e), 0);
    assert_int_equal(line.n, 1);
    assert_int_equal(line.text[0], 0);
}

static void refusals(void **state)
{
    (void)state;
    refuses("{\"t\":null}", "no text in field 't'");
    refuses("{\"t\":\"a\",\"t\":7}", "no text in field 't'");
    refuses("{}", "no field 't'");
    refuses("{\"x\":{\"t\":\"a\"}}", "no field 't'");
    refuses("[{\"t\":\"a\"}]", "is not an object with a field 't'");
    refuses("\"t\"", "is not an object with a field 't'");
    refuses("", "byte 0: a value is missing");
    refuses("nul", "byte 0: a value is missing");
    refuses("{\"t\":\"a\"", "byte 8: a ',' is missing");
    refuses("{\"t\":\"a\"}x", "byte 9: more after the end");
    refuses("{\"t\":\"a\",}", "byte 9: a key in quotes is missing");
    refuses("{\"t\" \"a\"}", "byte 5: a ':' is missing");
    refuses("{\"t\":\"a", "a text does not end");
    refuses("{\"t\":\"a\\", "an unknown escape");
    refuses("{\"t\":\"a\\x\"}", "an unknown escape");
    refuses("{\"t\":\"\\u12\"}", "four hexadecimal digits");
    refuses("{\"t\":\"\\u 123\"}", "four hexadecimal digits");
    refuses("{\"t\":\"\t\"}", "a control character");
    refuses("{\"x\":[1,],\"t\":\"a\"}", "a value is missing");
    refuses("{\"x\":[1}", "a ',' is missing");
    refuses("{\"x\":01,\"t\":\"a\"}", "a ',' is missing");
    refuses("{\"x\":1.,\"t\":\"a\"}", "a ',' is missing");
    refuses("{\"x\":+1,\"t\":\"a\"}", "a value is missing");
    refuses("{\"x\":-,\"t\":\"a\"}", "a value is missing");
    refuses("{'t':\"a\"}", "a key in quotes is missing");
}

static void depth(void **state)
{
    (void)state;
    struct err e = {0};
    static char deep[2 * JSON_LINE_DEPTH + 64];
    for (size_t extra = 0; extra < 2; extra++) {
        size_t n = JSON_LINE_DEPTH + extra, used = 0;
        used += (size_t)snprintf(deep, sizeof deep, "{\"x\":");
        memset(deep + used, '[', n);
        memset(deep + used + n, ']', n);
        used += 2 * n;
        used += (size_t)snprintf(deep + used, sizeof deep - used, ",\"t\":\"a\"}");
        assert_int_equal(json_line_read(&line, deep, used, "t", &e), extra ? ERR_INPUT : 0);
    }
    assert_non_null(strstr(e.message, "nested too deep"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(texts),
        cmocka_unit_test(refusals),
        cmocka_unit_test(depth),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    json_line_free(&line);
    return rc;
}
