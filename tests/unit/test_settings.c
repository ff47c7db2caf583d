/* test_settings.c - what a resumed run takes from its checkpoint: of a toy table with every kind of setting, among them
 * such as the checkpoint lacks. The trainer's own table is test_config.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "settings.h"

enum shape { ROUND, SQUARE };
static const char *const shapes[] = {"round", "square", NULL};

#define N_MANY 100 /* more rows than a 64-bit mask could tell apart */

struct fields {
    uint64_t count;
    double number;
    enum shape shape;
    bool on;
    char text[SETTING_TEXT_SIZE];
    uint64_t pace;
    uint64_t many[N_MANY];
};

#define ROW(field, of_kind, value)             \
    .flag = {.name = #field,                   \
             .kind = (of_kind),                \
             FLAG_FIELD(struct fields, field), \
             .high = 1e6,                      \
             .choices = shapes,                \
             .initial = (value)}

enum { COUNT, NUMBER, SHAPE, ON, TEXT, PACE, N_ROWS };
static const struct setting rows[N_ROWS] = {
    {ROW(count, FLAG_COUNT, "1"), .fixed = true},
    {ROW(number, FLAG_NUMBER, "0.5"), .fixed = true, .absent = "0.25"},
    {ROW(shape, FLAG_CHOICE, "square"), .fixed = true, .absent = "round"},
    {ROW(on, FLAG_SWITCH, "true"), .fixed = true, .absent = "false"},
    {ROW(text, FLAG_TEXT, "new"), .fixed = true, .absent = ""},
    {ROW(pace, FLAG_COUNT, "3"), .absent = "2"},
};

static struct fields x;
static bool given[N_ROWS];
static json_t *saved; /* of a run that knew `count` only */
static struct err e;

static int set_up(void **state)
{
    (void)state;
    memset(&x, 0, sizeof x);
    memset(given, 0, sizeof given);
    for (size_t i = 0; i < N_ROWS; i++)
        flag_set_initial(&rows[i].flag, &x);
    saved = json_pack("{s:i}", "count", 1);
    return saved ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(saved);
    return 0;
}

static void give(size_t i, const char *text)
{
    assert_int_equal(flag_set(&rows[i].flag, &x, text, &e), 0);
    given[i] = true;
}

static void resumes(void)
{
    if (settings_resume(rows, N_ROWS, &x, given, saved, "old/cfg.json", &e))
        fail_msg("%s", e.message);
}

static void refuses(int code, const char *message)
{
    assert_int_equal(settings_resume(rows, N_ROWS, &x, given, saved, "old/cfg.json", &e), code);
    assert_int_equal(e.code, code);
    assert_string_equal(e.message, message);
}

static void what_is_missing_means_what_it_meant(void **state)
{
    (void)state;
    resumes();
    assert_true(x.number == 0.25 && x.shape == ROUND && !x.on && x.pace == 2);
    assert_string_equal(x.text, "");
}

static void what_is_there_counts(void **state)
{
    (void)state;
    json_object_set_new(saved, "number", json_real(0.75));
    json_object_set_new(saved, "shape", json_string("square"));
    json_object_set_new(saved, "on", json_true());
    json_object_set_new(saved, "text", json_string("saved"));
    json_object_set_new(saved, "pace", json_integer(9));
    resumes();
    assert_true(x.number == 0.75 && x.shape == SQUARE && x.on && x.pace == 9);
    assert_string_equal(x.text, "saved");
}

static void a_flag_may_say_the_same(void **state)
{
    (void)state;
    give(NUMBER, "0.25");
    give(SHAPE, "round");
    give(ON, "false");
    give(TEXT, "");
    give(PACE, "8"); /* not fixed: it may say otherwise */
    resumes();
    assert_int_equal(x.pace, 8);
}

static void a_flag_that_says_otherwise(void **state)
{
    (void)state;
    static const struct {
        size_t row;
        const char *text, *message;
    } cases[] = {
        {COUNT, "2", "cannot resume: count is 2, the run in old/cfg.json has 1"},
        {NUMBER, "0.1", "cannot resume: number is 0.1, the run in old/cfg.json has 0.25"},
        {SHAPE, "square", "cannot resume: shape is \"square\", the run in old/cfg.json has \"round\""},
        {ON, "true", "cannot resume: on is true, the run in old/cfg.json has false"},
        {TEXT, "other", "cannot resume: text is \"other\", the run in old/cfg.json has \"\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tear_down(NULL);
        set_up(NULL);
        give(cases[i].row, cases[i].text);
        refuses(ERR_MISMATCH, cases[i].message);
    }
}

static void damaged(void **state)
{
    (void)state;
    json_object_set_new(saved, "shape", json_string("oval"));
    refuses(ERR_INPUT, "old/cfg.json: key shape is missing or wrong");
    json_object_set_new(saved, "shape", json_integer(1));
    refuses(ERR_INPUT, "old/cfg.json: key shape is missing or wrong");
    json_object_del(saved, "shape");
    json_object_set_new(saved, "on", json_integer(1));
    refuses(ERR_INPUT, "old/cfg.json: key on is missing or wrong");
    json_object_del(saved, "on");
    json_object_set_new(saved, "pace", json_null());
    refuses(ERR_INPUT, "old/cfg.json: key pace is missing or wrong");
    json_object_del(saved, "pace");
    json_object_del(saved, "count");
    refuses(ERR_INPUT, "old/cfg.json: key count is missing or wrong");
}

/* Each of many rows is given or not on its own. */
static void many_rows(void **state)
{
    (void)state;
    static struct setting table[N_MANY];
    static char names[N_MANY][8];
    bool each[N_MANY] = {0};
    for (size_t i = 0; i < N_MANY; i++) {
        snprintf(names[i], sizeof names[i], "key%zu", i);
        table[i] = rows[PACE];
        table[i].flag.name = names[i];
        table[i].flag.offset = offsetof(struct fields, many) + i * sizeof x.many[0];
        x.many[i] = i;
    }
    json_t *object = settings_to_json(table, N_MANY, &x);
    assert_int_equal(json_object_size(object), N_MANY);
    for (size_t only = 0; only < N_MANY; only++) {
        for (size_t i = 0; i < N_MANY; i++)
            x.many[i] = 1000;
        each[only] = true;
        assert_int_equal(settings_resume(table, N_MANY, &x, each, object, "cfg.json", &e), 0);
        each[only] = false;
        for (size_t i = 0; i < N_MANY; i++)
            assert_int_equal(x.many[i], i == only ? 1000 : i);
    }
    json_decref(object);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_missing_means_what_it_meant),
        TEST(what_is_there_counts),
        TEST(a_flag_may_say_the_same),
        TEST(a_flag_that_says_otherwise),
        TEST(damaged),
        TEST(many_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
