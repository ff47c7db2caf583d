/* test_site_picks.c - what globs pick from a list of names: whole sites, and differences of two models. */
#include "site_picks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct err e;
static struct site_picks picks;
static char names[700][SITE_NAME_SIZE];

/* Returns what site_picks_match says of a list of names that ends with NULL. */
static int match(const char *globs, const char *const *list)
{
    size_t n = 0;
    for (; list[n]; n++)
        strcpy(names[n], list[n]);
    memset(&e, 0, sizeof e);
    return site_picks_match(&picks, globs, (const char(*)[SITE_NAME_SIZE])names, n, " (hint)", &e);
}

/* The globs pick just the sites of these names, in this order. */
static void check(const char *globs, const char *const *list, const char *const *want)
{
    char name[SITE_NAME_SIZE];
    if (match(globs, list))
        fail_msg("%s", e.message);
    for (size_t i = 0; i < picks.n; i++) {
        site_pick_name(name, &picks.picks[i], (const char(*)[SITE_NAME_SIZE])names);
        if (!want[i] || strcmp(name, want[i]) != 0)
            fail_msg("'%s' picks %s as number %zu, not %s", globs, name, i, want[i] ? want[i] : "nothing");
    }
    assert_null(want[picks.n]);
}

static void refuse(const char *globs, const char *const *list, const char *message)
{
    assert_int_equal(match(globs, list), ERR_INPUT);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.message, message);
}
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *const pair[] = {"0:a.0", "0:b.0", "0:a.1", "1:a.0", "1:b.0", "1:a.1", NULL};
static const char *const three[] = {"0:x", "0:y", "1:x", "1:y", "2:x", "2:y", NULL};

static void whole(void **state)
{
    (void)state;
    check("*", pair, pair);
    check("a.*", pair, LIST("0:a.0", "0:a.1", "1:a.0", "1:a.1"));
    check("1:a.*,0:b.0,b.0", pair, LIST("0:b.0", "1:a.0", "1:b.0", "1:a.1"));
    check("[01]:a.1", pair, LIST("0:a.1", "1:a.1"));
    /* Names that name no model: of imports, and of one model. */
    static const char *const plain[] = {"site.0", "site.1", "module:10.out", "01:x", NULL};
    check("site.[1-9]", plain, LIST("site.1"));
    check("module:*,01:x", plain, LIST("module:10.out", "01:x"));
    check("module*", plain, LIST("module:10.out"));
}

static void differences(void **state)
{
    (void)state;
    check("1-0:a.*", pair, LIST("1-0:a.0", "1-0:a.1"));
    for (size_t i = 0; i < 2; i++)
        assert_true(picks.picks[i].site == 3 + 2 * i && picks.picks[i].less == 2 * i);
    check("0-1:b.0", pair, LIST("0-1:b.0"));
    assert_true(picks.picks[0].site == 1 && picks.picks[0].less == 4);
    /* With whole sites, which come first; in whatever order, each once. */
    check("1-0:a.1,1-0:a.[01],0:b.0,0-1:b.0,1-0:a.0", pair, LIST("0:b.0", "0-1:b.0", "1-0:a.0", "1-0:a.1"));
    check("2-1:y,1-0:y,2-0:*,2-1:*", three, LIST("1-0:y", "2-0:x", "2-0:y", "2-1:x", "2-1:y"));
    /* The names' order counts, not that of the models in it. */
    check("1-0:*", LIST("1:b", "0:a", "1:a", "0:b"), LIST("1-0:b", "1-0:a"));
    /* "*" matches hook points, of which a difference is none until it is recorded. */
    check("*:a.1", pair, LIST("0:a.1", "1:a.1"));
}

/* A recording of a difference has it as a site; it is taken before one is made. */
static void recorded_differences(void **state)
{
    (void)state;
    static const char *const recorded[] = {"1-0:x", "1-0:y", NULL}, *const mixed[] = {"0:x", "0:y",   "1:x",
                                                                                      "1:y", "1-0:y", NULL};
    check("1-0:*", recorded, recorded);
    check("y", recorded, LIST("1-0:y"));
    check("1-0:*", mixed, LIST("1-0:y", "1-0:x"));
    assert_true(picks.picks[0].site == 4 && picks.picks[0].less == PICK_WHOLE);
    refuse("0-1:x", recorded, "--sites: '0-1:x': model 0 less model 1, but there is 1 model");
}

static void refused(void **state)
{
    (void)state;
    refuse("c.*", pair, "--sites: 'c.*' matches no site; names go from 0:a.0 to 1:a.1 (hint)");
    refuse("a.*,2:a.0", pair, "--sites: '2:a.0' matches no site; names go from 0:a.0 to 1:a.1 (hint)");
    refuse("1-0:c.*", pair, "--sites: '1-0:c.*' matches no site; names go from 0:a.0 to 1:a.1 (hint)");
    refuse("", pair, "--sites: empty glob");
    refuse("a.*,", pair, "--sites: empty glob");
    refuse("1-1:a.*", pair, "--sites: '1-1:a.*': model 1 less itself is nothing");
    refuse("1-0:a.*", LIST("a.0", "a.1"), "--sites: '1-0:a.*': model 1 less model 0, but there is 1 model");
    refuse("0-2:x,0:x", pair + 1, "--sites: '0-2:x': model 0 less model 2, but there are 2 models");
    /* A hook point that one lacks, either of the two. */
    refuse("1-0:*", LIST("0:x", "1:x", "1:y"), "--sites: '1-0:*': model 1 has y, model 0 has no such site");
    refuse("1-0:*", LIST("0:x", "0:y", "1:x"), "--sites: '1-0:*': model 0 has y, model 1 has no such site");
    check("1-0:x", LIST("0:x", "0:y", "1:x"), LIST("1-0:x"));
    char longest[400];
    memset(longest, '*', sizeof longest);
    longest[256] = '\0';
    refuse(longest, pair, "--sites: glob of 256 characters, at most 255");
}

/* A name that fits in 63 characters gives one of a difference that does not. */
static void too_long(void **state)
{
    (void)state;
    char zero[SITE_NAME_SIZE], one[SITE_NAME_SIZE], want[SITE_NAME_SIZE];
    for (size_t length = 61; length <= 62; length++) {
        memset(zero, 'x', sizeof zero);
        memset(one, 'x', sizeof one);
        memcpy(zero, "0:", 2);
        memcpy(one, "1:", 2);
        zero[length] = one[length] = '\0';
        if (length == 61) {
            memset(want, 'x', sizeof want);
            memcpy(want, "1-0:", 4);
            want[63] = '\0';
            check("1-0:*", LIST(zero, one), LIST(want));
        } else {
            assert_int_equal(match("1-0:*", LIST(zero, one)), ERR_INPUT);
            assert_non_null(strstr(e.message, "has 64 characters, at most 63"));
        }
    }
}

static void too_many(void **state)
{
    (void)state;
    size_t n = 600;
    for (size_t i = 0; i < n; i++)
        snprintf(names[i], SITE_NAME_SIZE, "%zu:%zu", i % 2, i / 2);
    assert_int_equal(site_picks_match(&picks, "*", (const char(*)[SITE_NAME_SIZE])names, n, "", &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "more than 512 sites"));
    assert_int_equal(site_picks_match(&picks, "1-0:*,0-1:*", (const char(*)[SITE_NAME_SIZE])names, n, "", &e),
                     ERR_INPUT);
    assert_non_null(strstr(e.message, "more than 512 sites"));
    assert_int_equal(site_picks_match(&picks, "1-0:*,0-1:1*", (const char(*)[SITE_NAME_SIZE])names, n, "", &e), 0);
    assert_int_equal(picks.n, 300 + 111);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole),    cmocka_unit_test(differences),
                                       cmocka_unit_test(refused),  cmocka_unit_test(recorded_differences),
                                       cmocka_unit_test(too_long), cmocka_unit_test(too_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
