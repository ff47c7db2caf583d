/* test_outliers.c - the rows that stand out of a batch are named, the greatest first, and none where none does. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "outliers.h"

enum { ROWS = 20, SITES = 2, D = 3 };

static const struct stream stream = {.n_sites = SITES, .d_model = D, .sites = {"a", "b"}};
static float x[ROWS][SITES][D];
static struct row_origin origins[ROWS];
static char text[500];

static int ordinary(void **state)
{
    (void)state;
    for (uint32_t row = 0; row < ROWS; row++) {
        origins[row] = (struct row_origin){100 + row, row, 7};
        for (size_t i = 0; i < SITES * D; i++)
            x[row][i / D][i % D] = (float)(row % 3) + 0.5f * (float)i;
    }
    return 0;
}

static void describe(void)
{
    outliers_describe(&x[0][0][0], origins, ROWS, &stream, text, sizeof text);
}

static void the_greatest_first(void **state)
{
    (void)state;
    x[4][1][2] = -1e30f;
    describe();
    assert_string_equal(text, "rows that stand out: sequence 104, position 4, site b: -1e+30");
    x[9][0][0] = INFINITY;
    x[2][0][1] = 1e12f;
    x[4][0][0] = 1e29f; /* the same row */
    describe();
    assert_string_equal(text, "rows that stand out: sequence 109, position 9, site a: inf; sequence 104, position 4, "
                              "site b: -1e+30; sequence 102, position 2, site a: 1e+12");
    for (size_t row = 10; row < 16; row++) /* nearly half of the batch */
        x[row][1][0] = 1e20f;
    describe();
    assert_non_null(strstr(
        text,
        "site a: inf; sequence 104, position 4, site b: -1e+30; sequence 110, position 10, site b: 1e+20; and 5 more"));
}

static void nothing_stands_out(void **state)
{
    (void)state;
    x[4][1][2] = 400;
    describe();
    assert_string_equal(
        text, "no row stands out, the weights have diverged; greatest value: sequence 104, position 4, site b: 400");
    memset(x, 0, sizeof x);
    describe();
    assert_non_null(strstr(text, "no row stands out"));
}

/* A text that is too long is cut. */
static void short_room(void **state)
{
    (void)state;
    for (size_t row = 0; row < 5; row++)
        x[row][1][2] = 1e30f;
    for (size_t size = 1; size < 200; size++) {
        memset(text, 1, sizeof text);
        outliers_describe(&x[0][0][0], origins, ROWS, &stream, text, size);
        assert_non_null(memchr(text, 0, size));
        assert_int_equal(text[size], 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_greatest_first, ordinary),
        cmocka_unit_test_setup(nothing_stands_out, ordinary),
        cmocka_unit_test_setup(short_room, ordinary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
