/* test_ingest.c - the trainer's conversation with its producers: who joins, who goes, who is put out. */
#include "ingest_run.h"

#include <string.h>

#include "clock.h"

/* While the training thread has not even made its plan. */
static void answered_before_the_run_starts(void **state)
{
    (void)state;
    bind_trainer();
    join(0, "early");
    assert_int_equal(m.welcome.block_seqs, BLOCK_SEQS);
    assert_true(m.welcome.has_scale);
    assert_int_equal(m.welcome.credit, 2);
    for (int i = 0; i < 2; i++) {
        struct link_peer peer;
        struct link_payload payload;
        m = (struct message){.type = MESSAGE_PING, .ping.token = 17};
        assert_int_equal(link_send(producers[0].link, NULL, &m, &e), 0);
        do
            link_poll(producers[0].link, -1, PATIENCE_MS);
        while (link_receive(producers[0].link, &peer, &m, &payload, &e) == 1 && m.type == MESSAGE_PING);
        assert_int_equal(m.type, MESSAGE_PONG);
        assert_int_equal(m.ping.token, 17);
    }
    join(1, "second");
    expect_quiet(0);
    assert_int_equal(counters().producers, 2);
    start_run();
    expect_lease(0); /* on the connection it came with */
    expect_lease(1);
}

static void its_own_scale_is_the_runs(void **state)
{
    (void)state;
    options.scale = NULL;
    stream.has_scale = true;
    stream.scale[0] = 2;
    stream.scale[1] = 0.5f;
    bind_trainer();
    join(0, "scaled");
    assert_true(m.welcome.has_scale);
    assert_true(m.welcome.scale[0] == 2 && m.welcome.scale[1] == 0.5f);
    start_run();
    expect_lease(0);
    assert_true(m.lease.scaled);
    float got[N_SITES];
    assert_int_equal(ingest_scale(ingest, got, PATIENCE_MS, &e), 0);
    assert_memory_equal(got, stream.scale, sizeof got);
}

/* Long before the timeout: the PING finds no connection. */
static void a_closed_connection(void **state)
{
    (void)state;
    bind_trainer();
    join(0, "doomed");
    start_run();
    uint32_t block = expect_lease(0);
    join(1, "heir");
    expect_lease(1);
    leave(0);
    do
        answer(1, &producers[1].lease, 1);
    while (expect_lease(1) != block);
    assert_int_equal(counters().producers_lost, 1);
}

static void a_silent_producer(void **state)
{
    (void)state;
    options.timeout_ms = 400;
    options.credit = 1;
    bind_trainer();
    join(0, "silent");
    start_run();
    expect_lease(0);
    join(1, "heir");
    expect_lease(1);
    for (int64_t until = clock_ms() + PATIENCE_MS; counters().producers > 1 && clock_ms() < until;)
        receive(1, 20); /* answers PINGs, which 0 does not */
    assert_int_equal(counters().producers, 1);
    assert_int_equal(counters().producers_lost, 1);
    assert_int_equal(counters().blocks_leased_again, 1);
    answer(0, &producers[0].lease, 1); /* too late: it is not known any more */
    expect(0, MESSAGE_ERROR);
    assert_string_equal(m.error.code, "unknown-peer");
}

/* Three in a row; a name that is out stays out, whatever connection it comes on. */
static void three_strikes(void **state)
{
    (void)state;
    options.credit = 1;
    bind_trainer();
    join(0, "wrong");
    start_run();
    join(1, "right");
    expect_lease(1);
    for (int strike = 0; strike < 4; strike++) {
        expect_lease(0);
        if (strike == 1) /* this wipes out the one before */
            answer(0, &producers[0].lease, 1);
        else
            send_chunk(0, &producers[0].lease, 0, 1, true);
    }
    uint32_t block = expect_lease(0);
    send_chunk(0, &producers[0].lease, 0, 1, true);
    expect(0, MESSAGE_REJECT);
    assert_non_null(strstr(m.text.reason, "checksum"));
    say_hello(0, "wrong");
    expect(0, MESSAGE_REJECT);
    assert_non_null(strstr(m.text.reason, "wrong sent 3 wrong chunks"));
    assert_int_equal(counters().bad_chunks, 4);
    do
        answer(1, &producers[1].lease, 1);
    while (expect_lease(1) != block);
    join(0, "another");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answered_before_the_run_starts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(its_own_scale_is_the_runs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_closed_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_silent_producer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(three_strikes, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, run_open, run_close);
}
