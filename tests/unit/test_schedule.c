/* test_schedule.c - the two schedules at their corners, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "schedule.h"

static const struct schedule plain = {
    .total_steps = 1000,
    .lr = 2e-5,
    .l1_coeff = 2,
    .lr_warmup_fraction = SCHEDULE_LR_WARMUP_FRACTION,
    .lr_decay_fraction = SCHEDULE_LR_DECAY_FRACTION,
    .l1_warmup_fraction = SCHEDULE_L1_WARMUP_FRACTION,
};

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("%.17g, should be %.17g", got, want);
}

static void test_lr(void **state)
{
    (void)state;
    near(schedule_lr(&plain, 0), 2e-5 / 50);
    near(schedule_lr(&plain, 24), 2e-5 * 25 / 50);
    near(schedule_lr(&plain, 49), 2e-5);
    near(schedule_lr(&plain, 50), 2e-5);
    near(schedule_lr(&plain, 800), 2e-5);
    near(schedule_lr(&plain, 801), 2e-5 * 199 / 200);
    near(schedule_lr(&plain, 999), 2e-5 / 200);
    near(schedule_lr(&plain, 1000), 0);
    near(schedule_lr(&plain, 5000), 0);
}

static void test_l1_coeff(void **state)
{
    (void)state;
    near(schedule_l1_coeff(&plain, 0), 0);
    near(schedule_l1_coeff(&plain, 1), 2.0 / 50);
    near(schedule_l1_coeff(&plain, 49), 2.0 * 49 / 50);
    near(schedule_l1_coeff(&plain, 50), 2);
    near(schedule_l1_coeff(&plain, 999), 2);
}

/* A warm-up that is no whole number of steps: as the reference divides, by 0.05 * total. */
static void test_few_steps(void **state)
{
    (void)state;
    struct schedule s = plain;
    s.total_steps = 30;
    near(schedule_lr(&s, 0), 2e-5 / 1.5);
    near(schedule_lr(&s, 1), 2e-5);
    near(schedule_l1_coeff(&s, 1), 2 / 1.5);
    near(schedule_l1_coeff(&s, 2), 2);
    s.total_steps = 1;
    near(schedule_lr(&s, 0), 2e-5);
}

static void test_fractions(void **state)
{
    (void)state;
    struct schedule s = plain;
    s.lr_warmup_fraction = s.lr_decay_fraction = s.l1_warmup_fraction = 0;
    assert_int_equal(schedule_check(&s, NULL), 0);
    near(schedule_lr(&s, 0), 2e-5);
    near(schedule_lr(&s, 999), 2e-5);
    near(schedule_l1_coeff(&s, 0), 2);
    s.lr_warmup_fraction = s.lr_decay_fraction = 0.5;
    assert_int_equal(schedule_check(&s, NULL), 0);
    near(schedule_lr(&s, 249), 2e-5 / 2);
    near(schedule_lr(&s, 750), 2e-5 / 2);
}

static void test_warmup(void **state)
{
    (void)state;
    struct schedule s = plain;
    for (int i = 0; i < 3; i++) {
        s.l1_warmup_fraction = 0.0777 * i;
        uint64_t end = schedule_warmup(&s);
        near(schedule_l1_coeff(&s, end), s.l1_coeff);
        near(schedule_lr(&s, end), s.lr);
        assert_true(schedule_l1_coeff(&s, end - 1) < s.l1_coeff || schedule_lr(&s, end - 2) < s.lr);
    }
    s.lr_warmup_steps = 333;
    assert_int_equal(schedule_warmup(&s), 333);
}

static void test_refused(void **state)
{
    (void)state;
    struct err e;
    struct schedule bad[] = {plain, plain, plain, plain, plain, plain};
    bad[0].total_steps = 0;
    bad[1].lr = -1;
    bad[2].l1_coeff = (double)NAN;
    bad[3].lr_warmup_fraction = 1.5;
    bad[4].lr_decay_fraction = 0.96;
    bad[5].l1_warmup_fraction = (double)NAN;
    assert_int_equal(schedule_check(&plain, &e), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(schedule_check(&bad[i], &e), ERR_INPUT);
    assert_int_equal(schedule_check(&bad[4], &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "0.96"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lr),        cmocka_unit_test(test_l1_coeff), cmocka_unit_test(test_few_steps),
        cmocka_unit_test(test_fractions), cmocka_unit_test(test_warmup),   cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
