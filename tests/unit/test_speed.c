/* test_speed.c - credit by speed, speed by what can be known of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "credit.h"
#include "speed.h"

#define ROWS 100

/* Answers n blocks that take ms each, `ahead` leases in hand at a time, each lease coming `way` ms after an answer. */
static int64_t run(struct speed *p, int n, int64_t ms, int ahead, int64_t way, int64_t now)
{
    for (int i = 0; i < n; i++) {
        if (ahead == 1 || i == 0) {
            now += way;
            speed_leased(p, ROWS, now);
        }
        if (ahead > 1)
            speed_leased(p, ROWS, now);
        now += ms + (ahead == 1 || i == 0 ? way : 0);
        speed_answered(p, ROWS, ahead > 1, now);
    }
    return now;
}

static void in_proportion_to_speed(void **state)
{
    (void)state;
    const struct {
        int64_t ms;
        uint32_t most, credit;
    } cases[] = {{100, 2, 2}, {150, 2, 2}, {201, 2, 1}, {5000, 2, 1},
                 {100, 8, 8}, {200, 8, 4}, {799, 8, 2}, {100000, 8, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct speed p = {0};
        int64_t now = run(&p, 4, cases[i].ms, 2, 0, 1000);
        assert_int_equal(speed_credit(&p, 100.0 / ROWS, cases[i].most, now), cases[i].credit);
    }
}

static void unknown_it_gets_two(void **state)
{
    (void)state;
    struct speed p = {0};
    assert_true(speed_row_ms(&p, 5) <= 0);
    assert_int_equal(speed_credit(&p, 1, 8, 5), 2);
    assert_int_equal(speed_credit(&p, 1, 1, 5), 1);
    run(&p, 5, 10, 1, 500, 0); /* one at a time: it cannot be told from the way there */
    assert_int_equal(speed_credit(&p, 10.0 / ROWS, 8, 5), 2);
}

/* A long way is not slowness, whatever came first: with two in hand it answers as fast as any. */
static void a_long_way(void **state)
{
    (void)state;
    struct speed p = {0};
    int64_t now = run(&p, 3, 10, 2, 500, 0);
    assert_int_equal(speed_credit(&p, 10.0 / ROWS, 2, now), 2);
    speed_answered(&p, 0, false, now);
    now = run(&p, 20, 10, 1, 500, now); /* the trainer needs no more than one at a time for a while */
    assert_int_equal(speed_credit(&p, 10.0 / ROWS, 2, now), 2);
}

static void it_gets_faster_again(void **state)
{
    (void)state;
    struct speed p = {0};
    int64_t now = run(&p, 4, 1000, 2, 0, 0);
    assert_int_equal(speed_credit(&p, 10.0 / ROWS, 2, now), 1);
    speed_answered(&p, 0, false, now);
    now = run(&p, 30, 10, 1, 1, now);
    assert_int_equal(speed_credit(&p, 10.0 / ROWS, 2, now), 2);
}

/* What takes ever longer is slow before it is answered. */
static void the_block_in_hand(void **state)
{
    (void)state;
    struct speed p = {0};
    int64_t now = run(&p, 4, 10, 2, 0, 0);
    assert_int_equal(speed_credit(&p, 10.0 / ROWS, 2, now + 10), 2);
    assert_int_equal(speed_credit(&p, 10.0 / ROWS, 2, now + 1000), 1);
}

static void remaining(void **state)
{
    (void)state;
    struct speed p = {0};
    speed_leased(&p, ROWS, 1000);
    assert_int_equal((int)speed_remaining_ms(&p, ROWS, 0.5, 1010), 40); /* as long as the asker would take */
    speed_answered(&p, ROWS, true, 1200);                               /* 2 ms a row */
    assert_int_equal((int)speed_remaining_ms(&p, ROWS, 0.5, 1250), 150);
    assert_int_equal((int)speed_remaining_ms(&p, 2 * ROWS, 0.5, 1250), 350);
    assert_int_equal((int)speed_remaining_ms(&p, ROWS, 0.5, 1700), 300); /* late by 300 */
}

/* All leases together are bounded in bytes: 32 MB where blocks are small, the first two of eight producers where they are large. */
static void leases_are_bounded_in_bytes(void **state)
{
    (void)state;
    enum { MB = 1 << 20 };
    assert_int_equal(credit_bytes(1000, 64), 64 * 8 * 1000);
    assert_int_equal(credit_bytes(MB, 64), 32 * MB);
    assert_int_equal(credit_bytes(10 * MB, 64), 2 * 8 * 10 * MB);
    assert_int_equal(credit_bytes(10 * MB, 1), 8 * 10 * MB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_are_bounded_in_bytes),
        cmocka_unit_test(in_proportion_to_speed),
        cmocka_unit_test(unknown_it_gets_two),
        cmocka_unit_test(a_long_way),
        cmocka_unit_test(it_gets_faster_again),
        cmocka_unit_test(the_block_in_hand),
        cmocka_unit_test(remaining),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
