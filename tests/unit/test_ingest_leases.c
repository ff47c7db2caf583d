/* test_ingest_leases.c - which producer gets which block: late blocks, credit, audits. */
#include "ingest_run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

/* ---- late blocks ---- */

/* Two producers known to be fast, all blocks of the first window done but one, which 0 holds and does not answer;
 * returns that lease. 1 has nothing to do. */
static struct message_lease a_late_block(void)
{
    options.credit = 1;
    bind_trainer();
    join(0, "late");
    start_run();
    expect_lease(0);
    answer(0, &producers[0].lease, 1); /* its pace is known: very fast */
    expect_lease(0);
    struct message_lease late = producers[0].lease;
    join(1, "idle");
    work(1, (int[]){1}, WINDOW_BLOCKS - 1);
    return late;
}

/* At least the chunk that was sent last, at most all of one answer: the trainer reads connections in its own order. */
static void duplicates_come(void)
{
    for (int64_t until = clock_ms() + PATIENCE_MS; counters().duplicates_dropped < 2 && clock_ms() < until;)
        usleep(1000);
    assert_in_range(counters().duplicates_dropped, 2, BLOCK_ROWS);
}

/* 1 is asked too, and its rows are trained on, not those of 0 that came before and after. */
static void a_late_block_is_given_to_another(void **state)
{
    (void)state;
    stream.d_model = 32000; /* two rows a chunk */
    struct message_lease late = a_late_block();
    send_chunk(0, &late, 0, 3, false);
    while (expect_lease(1) != late.block)
        answer(1, &producers[1].lease, 1);
    assert_true(producers[1].lease.lease != late.lease);
    send_chunk(1, &producers[1].lease, 0, 1, false);
    send_chunk(0, &late, 1, 3, false); /* the one that will be wrong is ahead again */
    send_chunk(1, &producers[1].lease, 1, 1, false);
    send_chunk(1, &producers[1].lease, 2, 1, false);
    take(WINDOW_BLOCKS * BLOCK_ROWS);
    assert_int_equal(counters().blocks_duplicated, 1);
    assert_int_equal(counters().blocks_leased_again, 0);
    send_chunk(0, &late, 2, 3, false); /* the end of what it owed: it can be asked again */
    work(2, (int[]){0, 1}, 2 * WINDOW_BLOCKS);
    duplicates_come();
    assert_int_equal(counters().bad_chunks, 0);
}

/* It is there before the other one, which has sent a part. */
static void a_late_block_arrives_after_all(void **state)
{
    (void)state;
    stream.d_model = 32000;
    struct message_lease late = a_late_block();
    while (expect_lease(1) != late.block)
        answer(1, &producers[1].lease, 1);
    send_chunk(1, &producers[1].lease, 0, 3, false);
    send_chunk(1, &producers[1].lease, 1, 3, false);
    answer(0, &late, 1);
    take(WINDOW_BLOCKS * BLOCK_ROWS);
    send_chunk(1, &producers[1].lease, 2, 3, false);
    work(2, (int[]){0, 1}, 2 * WINDOW_BLOCKS);
    take(BLOCK_ROWS);
    duplicates_come();
}

/* Both who were at it go; a third one is asked. */
static void both_are_gone(void **state)
{
    (void)state;
    struct message_lease late = a_late_block();
    while (expect_lease(1) != late.block)
        answer(1, &producers[1].lease, 1);
    leave(0);
    leave(1);
    join(2, "third");
    assert_int_equal(expect_lease(2), late.block);
    answer(2, &producers[2].lease, 1);
    work(1, (int[]){2}, WINDOW_BLOCKS);
    take(WINDOW_BLOCKS * BLOCK_ROWS);
}

/* Held-out rows have no place for a second answer: the block is taken away from who is late with it. */
static void late_held_out_rows(void **state)
{
    (void)state;
    const unsigned char *rows;
    size_t n;
    eval_blocks = 1;
    stream.d_model = 32000; /* two rows a chunk */
    bind_trainer();
    join(0, "late");
    start_run();
    uint32_t block = expect_lease(0);
    send_chunk(0, &producers[0].lease, 0, 3, false);
    join(1, "idle");
    while (expect_lease(1) != block)
        answer(1, &producers[1].lease, 1);
    answer(1, &producers[1].lease, 1);
    assert_int_equal(ingest_evaluation_rows(ingest, &rows, &n, PATIENCE_MS, &e), 0);
    assert_int_equal(n, BLOCK_ROWS);
    take(WINDOW_BLOCKS * BLOCK_ROWS);
}

/* ---- credit ---- */

/* Producer i answers at once whatever comes in that time. */
static void work_for(int i, int ms)
{
    for (int64_t until = clock_ms() + ms; clock_ms() < until;)
        if (receive(i, 5)) {
            struct message_lease lease = m.lease;
            answer(i, &lease, 1);
        }
}

/* One that takes long for each block holds one lease at a time, and gets it; a fast one holds as many as it may. */
static void credit_follows_the_pace(void **state)
{
    (void)state;
    bind_trainer();
    struct message_lease slow[2];
    join(0, "slow");
    start_run();
    expect_lease(0); /* one, until it has answered that */
    expect_quiet(0);
    answer(0, &producers[0].lease, 1);
    for (int k = 0; k < 2; k++) { /* two, to find out its pace */
        expect_lease(0);
        slow[k] = m.lease;
    }
    join(1, "fast");
    for (int k = 0; k < 2; k++) {
        work_for(1, 200);
        answer(0, &slow[k], 1);
    }
    work_for(1, 200);
    take(WINDOW_BLOCKS * BLOCK_ROWS); /* makes room for three more */
    for (int i = 0; i < 2; i++) {
        int held = 0;
        while (receive(i, QUIET_MS))
            held += m.type == MESSAGE_LEASE;
        assert_int_equal(held, i ? 2 : 1);
    }
}

/* 0 has answered a block and holds as many as it may; 1 has answered nothing and holds one. */
static void a_first_lease(void)
{
    bind_trainer();
    join(0, "proven");
    start_run();
    expect_lease(0);
    answer(0, &producers[0].lease, 1);
    for (int i = 0; i < 2; i++)
        expect_lease(0);
    join(1, "first");
    expect_lease(1);
}

/* Of those who have answered nothing yet, together as many leases as there are others. */
static void words_alone_get_little(void **state)
{
    (void)state;
    a_first_lease();
    join(2, "second");
    join(3, "third");
    expect_quiet(2);
    expect_quiet(3);
    answer(1, &producers[1].lease, 1);
    expect_lease(1);
    expect_lease(2); /* two are proven now */
    expect_lease(3);
}

/* The next one waits a second. */
static void a_first_lease_comes_to_nothing(void **state)
{
    (void)state;
    a_first_lease();
    leave(1);
    join(2, "second");
    expect_quiet(2);
    assert_int_equal(counters().producers_lost, 1);
    int64_t start = clock_ms();
    expect_lease(2);
    assert_in_range(clock_ms() - start, 500, PATIENCE_MS);
}

/* ---- audits ---- */

static void audited_blocks_are_the_same(void **state)
{
    (void)state;
    options.audit = 1;
    bind_trainer();
    join(0, "one");
    join(1, "two");
    start_run();
    int done[2][N_BLOCKS] = {0};
    while (counters().blocks_done < WINDOW_BLOCKS)
        for (int i = 0; i < 2; i++)
            if (receive(i, 5)) {
                struct message_lease lease = m.lease;
                done[i][lease.block]++;
                answer(i, &lease, 1);
            }
    take(WINDOW_BLOCKS * BLOCK_ROWS);
    assert_in_range(counters().audits, WINDOW_BLOCKS, N_BLOCKS);
    assert_int_equal(counters().audits_different, 0);
    int both = 0;
    for (int block = 0; block < N_BLOCKS; block++) {
        assert_in_range(done[0][block], 0, 1); /* nobody audits himself */
        assert_in_range(done[1][block], 0, 1);
        both += done[0][block] && done[1][block];
    }
    assert_in_range(both, WINDOW_BLOCKS, N_BLOCKS);
}

static void alone_it_is_asked_twice(void **state)
{
    (void)state;
    options.audit = 1;
    bind_trainer();
    join(0, "alone");
    start_run();
    work(1, (int[]){0}, WINDOW_BLOCKS);
    take(WINDOW_BLOCKS * BLOCK_ROWS);
    assert_in_range(counters().audits, WINDOW_BLOCKS, N_BLOCKS);
    assert_int_equal(counters().duplicates_dropped, 0);
}

/* As far apart as rounding is: counted, and the first answer is trained on. Beyond, nothing more is trained on. */
static void answers_that_differ(void **state)
{
    (void)state;
    options.audit = 1;
    bind_trainer();
    join(0, "one");
    start_run();
    for (int i = 0; i < 2; i++) {
        expect_lease(0);
        answer(0, &producers[0].lease, i ? 1.004f : 1);
    }
    work(1, (int[]){0}, WINDOW_BLOCKS);
    take(WINDOW_BLOCKS * BLOCK_ROWS);
    assert_int_equal(counters().audits_different, 1);
    for (int i = 1; i <= 3; i++) { /* whichever two of these, and one before, are of one block */
        expect_lease(0);
        answer(0, &producers[0].lease, 1 + 0.2f * (float)i);
    }
    assert_int_equal(take_fails(), ERR_MISMATCH);
    assert_non_null(strstr(e.message, ") disagree on block"));
    assert_non_null(strstr(e.message, "at site blocks."));
    assert_non_null(strstr(e.message, "producers one (process "));
    const char *by = strstr(e.message, " by ");
    assert_non_null(by);
    assert_in_range(atoi(by + 4), 11, 17); /* per cent of the longer one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_late_block_is_given_to_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_late_block_arrives_after_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(both_are_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(late_held_out_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(credit_follows_the_pace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(words_alone_get_little, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_first_lease_comes_to_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(audited_blocks_are_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(alone_it_is_asked_twice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_that_differ, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, run_open, run_close);
}
