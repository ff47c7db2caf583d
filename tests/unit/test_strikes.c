/* test_strikes.c - who is out for what it answered, and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "strikes.h"

static struct strikes s;

static int reset(void **state)
{
    (void)state;
    s = (struct strikes){.ban_ms = 60000, .max_bad = 1};
    return 0;
}

static void three_in_a_row(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) { /* a good block wipes them out */
        assert_false(strikes_add(&s, "ann", round));
        assert_false(strikes_add(&s, "ann", round));
        strikes_clear(&s, "ann");
    }
    assert_false(strikes_add(&s, "ann", 100));
    assert_false(strikes_add(&s, "bob", 100));
    assert_false(strikes_add(&s, "ann", 100));
    assert_int_equal(strikes_out(&s, "ann", 100), 0);
    assert_true(strikes_add(&s, "ann", 100));
    assert_int_equal(strikes_out(&s, "ann", 100), 60000);
    assert_int_equal(strikes_out(&s, "bob", 100), 0);
    assert_int_equal(strikes_out(&s, "nobody", 100), 0);
    strikes_clear(&s, "ann"); /* what it had under way when it was put out does not let it in again */
    assert_int_equal(strikes_out(&s, "ann", 100), 60000);
}

static void a_ban_ends(void **state)
{
    (void)state;
    for (int i = 0; i < STRIKES_OUT; i++)
        strikes_add(&s, "ann", 1000);
    assert_int_equal(strikes_out(&s, "ann", 60999), 1);
    assert_int_equal(strikes_out(&s, "ann", 61000), 0);
    assert_false(strikes_add(&s, "ann", 61000)); /* it begins anew */
    assert_int_equal(strikes_out(&s, "ann", 61000), 0);
    s.ban_ms = 0;
    for (int i = 0; i < STRIKES_OUT; i++)
        strikes_add(&s, "bob", 1000);
    assert_true(strikes_out(&s, "bob", INT64_MAX - 1) == STRIKES_FOR_EVER);
}

static void a_share(void **state)
{
    (void)state;
    s.max_bad = 0.25;
    for (int i = 0; i < 9; i++) /* one in three, and too few to judge */
        assert_false((i % 3 ? strikes_clear(&s, "ann") : (void)0, i % 3 == 0 && strikes_add(&s, "ann", 0)));
    strikes_clear(&s, "ann");
    assert_int_equal(strikes_out(&s, "ann", 0), 0);
    assert_true(strikes_add(&s, "ann", 0)); /* 4 of 11 */
    for (int i = 0; i < 10000; i++)
        assert_false((i % 5 < 4 ? strikes_clear(&s, "bob") : (void)0, i % 5 == 4 && strikes_add(&s, "bob", 0)));
    s.max_bad = 1;
    for (int i = 0; i < 10000; i++)
        assert_false((i % 2 ? strikes_clear(&s, "cat") : (void)0, i % 2 == 0 && strikes_add(&s, "cat", 0)));
}

static void who_is_out_is_not_forgotten(void **state)
{
    (void)state;
    char who[20];
    assert_false(strikes_add(&s, "ann", 0) || strikes_add(&s, "ann", 0));
    for (int i = 0; i < STRIKES_OUT; i++)
        strikes_add(&s, "bob", 0);
    for (int i = 0; i < 3 * STRIKES_REMEMBERED; i++) {
        snprintf(who, sizeof who, "10.0.%d.%d", i / 256, i % 256);
        strikes_add(&s, who, 0);
    }
    assert_true(strikes_out(&s, "bob", 0) > 0);
    assert_false(strikes_add(&s, "ann", 0)); /* that was long ago */
    for (int i = 0; i < 100; i++)
        assert_false(strikes_add(&s, "", 0)); /* of whom nothing is known */
    assert_int_equal(strikes_out(&s, "", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(three_in_a_row, reset),
        cmocka_unit_test_setup(a_ban_ends, reset),
        cmocka_unit_test_setup(a_share, reset),
        cmocka_unit_test_setup(who_is_out_is_not_forgotten, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
