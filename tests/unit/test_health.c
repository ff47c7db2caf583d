/* test_health.c - when a run counts as collapsed or as clipped throughout, and that it is told once and takes back what is over. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "health.h"

static struct health h;
static struct config c;

/* 1,000 steps, of which the first 50 are warm-up. */
static int start(void **state)
{
    (void)state;
    const struct schedule s = {
        .total_steps = 1000, .lr_warmup_fraction = 0.03, .l1_warmup_fraction = 0.05, .lr_decay_fraction = 0.2};
    h = (struct health){0};
    health_init(&h, &s);
    config_init(&c);
    c.lr = 0.1;
    return 0;
}

static void evaluate(uint64_t steps, double l0, double fvu)
{
    const struct evaluation_report r = {.l0 = l0, .fvu = {.fvu = fvu}};
    health_evaluation(&h, steps, &r, &c);
}

static void collapse(void **state)
{
    (void)state;
    evaluate(49, 0, 2); /* in the warm-up */
    assert_string_equal(h.collapse, "");
    evaluate(50, 3, 1);
    assert_string_equal(h.collapse, "");
    evaluate(60, 3, (double)NAN); /* held-out rows that are all the same have no FVU */
    assert_string_equal(h.collapse, "");
    evaluate(100, 0, 0.99);
    assert_non_null(strstr(h.collapse, "no latent is active"));
    assert_non_null(strstr(h.collapse, "at step 100; likely cause: --lr 0.1 or --l1-coeff 2 is too high"));
    evaluate(200, 3, 1.04);
    assert_non_null(strstr(h.collapse, "FVU 1.04) at step 200; likely cause: --lr 0.1 is too high"));
    evaluate(300, 3, 0.5); /* it is over */
    assert_string_equal(h.collapse, "");
    c.activation = ACTIVATION_BATCHTOPK;
    evaluate(400, 0, 1.04);
    assert_non_null(strstr(h.collapse, "likely cause: --lr 0.1 is too high"));
    c.activation = ACTIVATION_JUMPRELU;
    evaluate(500, 0, 1.04);
    assert_non_null(strstr(h.collapse, "--lr 0.1 or --l0-coeff 20"));
}

static void steps(uint64_t from, uint64_t to, uint64_t clipped_of_ten)
{
    for (uint64_t i = from; i < to; i++)
        health_step(&h, &(struct step_report){.step = i, .clipped = i % 10 < clipped_of_ten}, (i + 1) % 10 == 0, 1);
}

static void clipped(void **state)
{
    (void)state;
    steps(0, 50, 10); /* the warm-up does not count */
    assert_int_equal(h.steps, 0);
    steps(50, 140, 10); /* 90 steps are too few */
    assert_false(h.said_clipped);
    steps(140, 150, 10);
    assert_true(h.said_clipped);

    start(NULL);
    steps(0, 1000, 9); /* nine in ten are not more than nine in ten */
    assert_false(h.said_clipped);
    assert_int_equal(h.clipped, 855);

    start(NULL);
    steps(940, 990, 10); /* resumed near the end: judged there */
    assert_false(h.said_clipped);
    steps(990, 1000, 10);
    assert_true(h.said_clipped);
}

/* A warm-up longer than the run, in steps: its end is judged all the same. */
static void only_warm_up(void **state)
{
    (void)state;
    health_init(&h, &(struct schedule){.total_steps = 100, .lr_warmup_steps = 1000});
    evaluate(99, 0, 2);
    assert_string_equal(h.collapse, "");
    evaluate(100, 0, 2);
    assert_string_not_equal(h.collapse, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(collapse, start), cmocka_unit_test_setup(clipped, start),
                                       cmocka_unit_test_setup(only_warm_up, start)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
