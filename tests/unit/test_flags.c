/* test_flags.c - each kind of value: what it takes, what it refuses and how, and its way through JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "flags.h"

enum colour { RED, GREEN, BLUE };
static const char *const colours[] = {"red", "green", "blue", NULL};

struct fields {
    uint64_t wide;
    uint32_t narrow;
    double number;
    enum colour colour;
    bool on;
    char text[8];
    const char *string;
    struct flag_list list;
};

static int check_text(const char *text, struct err *e)
{
    return strcmp(text, "bad") == 0 ? err_set(e, ERR_INPUT, "text '%s': is bad", text) : 0;
}

enum { WIDE, NARROW, NUMBER, COLOUR, ON, TEXT, STRING, LIST, N_FLAGS };
static const struct flag flags[N_FLAGS] = {
    {.name = "wide", .kind = FLAG_COUNT, FLAG_FIELD(struct fields, wide), .low = 2, .high = 9e15, .initial = "4e8"},
    {.name = "narrow", .kind = FLAG_COUNT, FLAG_FIELD(struct fields, narrow), .high = UINT32_MAX, .initial = "7"},
    {.name = "number", .kind = FLAG_NUMBER, FLAG_FIELD(struct fields, number), .low = -1, .high = 1, .initial = "0.1"},
    {.name = "col_our", .kind = FLAG_CHOICE, FLAG_FIELD(struct fields, colour), .choices = colours, .initial = "green"},
    {.name = "on", .kind = FLAG_SWITCH, FLAG_FIELD(struct fields, on), .initial = "true"},
    {.name = "text", .kind = FLAG_TEXT, FLAG_FIELD(struct fields, text), .check = check_text, .initial = "abc"},
    {.name = "string", .kind = FLAG_STRING, FLAG_FIELD(struct fields, string)},
    {.name = "list", .kind = FLAG_LIST, FLAG_FIELD(struct fields, list), .high = 2},
};

static struct fields x;
static const char *items[2];

static int set_up(void **state)
{
    (void)state;
    memset(&x, 0, sizeof x);
    x.list.items = items;
    for (size_t i = 0; i < N_FLAGS; i++)
        flag_set_initial(&flags[i], &x);
    return 0;
}

static void set(size_t i, const char *text)
{
    struct err e = {0};
    if (flag_set(&flags[i], &x, text, &e))
        fail_msg("%s", e.message);
}

static void refused(size_t i, const char *text, const char *message)
{
    struct fields before = x;
    struct err e = {0};
    if (flag_set(&flags[i], &x, text, &e) != ERR_INPUT || e.code != ERR_INPUT)
        fail_msg("%s '%s' was taken", flags[i].name, text);
    assert_string_equal(e.message, message);
    assert_memory_equal(&x, &before, sizeof x);
    assert_int_equal(flag_set(&flags[i], &x, text, NULL), ERR_INPUT);
}

static void defaults(void **state)
{
    (void)state;
    assert_int_equal(x.wide, 400000000);
    assert_int_equal(x.narrow, 7);
    assert_true(x.number == 0.1 && x.colour == GREEN && x.on);
    assert_string_equal(x.text, "abc");
    assert_null(x.string);
    assert_int_equal(x.list.n, 0);
}

static void what_is_taken(void **state)
{
    (void)state;
    set(WIDE, "9e15");
    assert_true(x.wide == 9000000000000000);
    set(NARROW, "4294967295");
    assert_true(x.narrow == UINT32_MAX && x.number == 0.1);
    set(NUMBER, "-1");
    assert_true(x.number == -1);
    set(COLOUR, "red");
    assert_int_equal(x.colour, RED);
    set(COLOUR, "blue");
    assert_int_equal(x.colour, BLUE);
    set(ON, "false");
    assert_false(x.on);
    set(ON, NULL);
    assert_true(x.on);
    set(TEXT, "1234567");
    assert_string_equal(x.text, "1234567");
    const char *text = "a text that is not copied";
    set(STRING, text);
    assert_ptr_equal(x.string, text);
    set(LIST, "one");
    set(LIST, "two");
    assert_int_equal(x.list.n, 2);
    assert_string_equal(items[1], "two");
}

static void what_is_refused(void **state)
{
    (void)state;
    refused(WIDE, "1", "wide '1': must be a whole number from 2 to 9e+15");
    refused(WIDE, "2.5", "wide '2.5': must be a whole number from 2 to 9e+15");
    refused(NARROW, "4294967296", "narrow '4294967296': must be a whole number from 0 to 4294967295");
    refused(NARROW, "-1", "narrow '-1': must be a whole number from 0 to 4294967295");
    refused(NARROW, "", "narrow '': must be a whole number from 0 to 4294967295");
    refused(NUMBER, "nan", "number 'nan': must be a number from -1 to 1");
    refused(NUMBER, "0.5x", "number '0.5x': must be a number from -1 to 1");
    refused(COLOUR, "pink", "col_our 'pink': must be red, green or blue");
    refused(COLOUR, "", "col_our '': must be red, green or blue");
    refused(ON, "yes", "on 'yes': must be true or false");
    refused(TEXT, "12345678", "text: 8 characters, at most 7");
    refused(TEXT, "bad", "text 'bad': is bad");
    set(LIST, "one");
    set(LIST, "two");
    refused(LIST, "three", "list 'three': more than 2 of them");
}

static void texts_and_equality(void **state)
{
    (void)state;
    static const char *const texts[] = {"400000000", "7", "0.1", "green", "true", "abc"};
    static const char *const others[] = {"5", "5", "0.10000000000000002", "red", "false", "abcd"};
    for (size_t i = 0; i <= TEXT; i++) {
        struct fields other = x;
        char text[64];
        flag_text(&flags[i], &x, text, sizeof text);
        assert_string_equal(text, texts[i]);
        memset(other.text + 4, 'x', 3); /* behind the text's end, which does not count */
        assert_true(flag_equal(&flags[i], &x, &other));
        assert_int_equal(flag_set(&flags[i], &other, others[i], NULL), 0);
        assert_false(flag_equal(&flags[i], &x, &other));
    }
}

/* To JSON, from there to a text, and from that to the same value. */
static void through_json(void **state)
{
    (void)state;
    set(WIDE, "9e15");
    set(NUMBER, "0.33333333333333331");
    for (size_t i = 0; i <= TEXT; i++) {
        struct fields back = {0};
        char text[64];
        json_t *value = flag_to_json(&flags[i], &x);
        assert_true(value && flag_text_of_json(value, text, sizeof text));
        assert_int_equal(flag_set(&flags[i], &back, text, NULL), 0);
        assert_memory_equal((char *)&back + flags[i].offset, (char *)&x + flags[i].offset, flags[i].size);
        json_decref(value);
    }
    json_t *values[] = {flag_to_json(&flags[COLOUR], &x), flag_to_json(&flags[ON], &x), json_array()};
    assert_string_equal(json_string_value(values[0]), "green");
    assert_true(json_is_true(values[1]));
    char text[5];
    assert_false(flag_text_of_json(values[2], text, sizeof text));
    assert_false(flag_text_of_json(values[0], text, sizeof text)); /* no room */
    assert_false(flag_text_of_json(NULL, text, sizeof text));
    for (size_t i = 0; i < 3; i++)
        json_decref(values[i]);
}

static void names(void **state)
{
    (void)state;
    char name[FLAG_NAME_SIZE];
    flag_name(&flags[COLOUR], '-', name);
    assert_string_equal(name, "col-our");
    flag_name(&flags[WIDE], '-', name);
    assert_string_equal(name, "wide");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults, set_up),           cmocka_unit_test_setup(what_is_taken, set_up),
        cmocka_unit_test_setup(what_is_refused, set_up),    cmocka_unit_test_setup(through_json, set_up),
        cmocka_unit_test_setup(texts_and_equality, set_up), cmocka_unit_test_setup(names, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
