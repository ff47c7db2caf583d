/* test_ingest.c - the trainer's conversation with its producers: who joins, who goes, who is put out, and what can be seen of it. */
#include "ingest_run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    struct ingest_measured got;
    assert_int_equal(ingest_measured(ingest, &got, PATIENCE_MS, &e), 0);
    assert_memory_equal(got.scale, stream.scale, N_SITES * sizeof *got.scale);
    assert_null(got.rows);
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

/* Within 5 s: a second after the REJECT, not after the 30 s that a stranger may stay. */
static void expect_closed(int i)
{
    for (int64_t until = clock_ms() + 5000; !link_lost(producers[i].link) && clock_ms() < until;)
        link_poll(producers[i].link, -1, 50);
    assert_true(link_lost(producers[i].link));
}

/* Takes a lease and answers it with a wrong chunk, so many times. */
static void be_wrong(int i, int times)
{
    while (times--) {
        expect_lease(i);
        send_chunk(i, &producers[i].lease, 0, 1, true);
    }
}

/* Three in a row; whoever comes from there is out then (here: this process), whatever name it says, and comes in again when the ban ends. */
static void three_strikes(void **state)
{
    (void)state;
    options.credit = 1;
    options.ban_ms = 1500;
    bind_trainer();
    join(0, "wrong");
    start_run();
    join(1, "right");
    expect_lease(1);
    be_wrong(0, 1);
    expect_lease(0);
    answer(0, &producers[0].lease, 1); /* this wipes out the one before */
    be_wrong(0, 2);
    uint32_t block = expect_lease(0);
    send_chunk(0, &producers[0].lease, 0, 1, true);
    expect(0, MESSAGE_REJECT);
    assert_non_null(strstr(m.text.reason, "checksum"));
    expect_closed(0);
    say_hello(0, "another name");
    expect(0, MESSAGE_ERROR); /* not a REJECT: it may come again */
    assert_string_equal(m.error.code, "not-now");
    assert_non_null(strstr(m.error.text, "was wrong too often and is not asked for"));
    assert_int_equal(counters().bad_chunks, 4);
    do
        answer(1, &producers[1].lease, 1); /* it was here before, and goes on */
    while (expect_lease(1) != block);
    for (int64_t until = clock_ms() + PATIENCE_MS; m.type != MESSAGE_WELCOME && clock_ms() < until;) {
        usleep(100000);
        say_hello(0, "wrong");
        assert_true(receive(0, PATIENCE_MS));
    }
    assert_int_equal(m.type, MESSAGE_WELCOME);
}

/* Others who come from the same address and are right keep it from being banned; he who is wrong goes all the same. */
static void wrong_beside_right(void **state)
{
    (void)state;
    options.credit = 1;
    bind_trainer();
    join(0, "wrong");
    start_run();
    join(1, "right");
    expect_lease(1);
    for (int strike = 0; strike < 3; strike++) {
        be_wrong(0, 1);
        answer(1, &producers[1].lease, 1);
        expect_lease(1);
    }
    expect(0, MESSAGE_REJECT);
    join(2, "wrong");
}

/* Three who cannot compute what a fourth can: the run goes on. */
static void those_who_fail(void **state)
{
    (void)state;
    options.credit = 1;
    bind_trainer();
    join(3, "healthy");
    start_run();
    for (int i = 0; i < 3; i++)
        join(i, "failing");
    uint64_t failed = 0;
    while (!failed || !take_soon(WINDOW_BLOCKS * BLOCK_ROWS, 0))
        for (int i = 0; i < 4; i++) {
            if (!receive(i, 5) || m.type != MESSAGE_LEASE)
                continue;
            struct message_lease lease = m.lease;
            if (i == 3)
                answer(i, &lease, 1);
            else
                link_send_error(producers[i].link, NULL, lease.lease, "source", "cannot read it");
            failed += i < 3;
        }
}

/* One fault that all have: they are asked again after a pause, and the run fails only then. */
static void all_fail(void **state)
{
    (void)state;
    options.credit = 1;
    options.source_retries = 1;
    bind_trainer();
    join(0, "one");
    start_run();
    join(1, "two");
    uint32_t times[N_BLOCKS] = {0}, most = 0;
    int64_t begun = clock_ms(), second = 0;
    struct stream theirs;
    while (ingest_stream(ingest, &theirs, 0, &e) == 0 && clock_ms() - begun < PATIENCE_MS)
        for (int i = 0; i < 2; i++)
            if (receive(i, 5) && m.type == MESSAGE_LEASE) {
                uint32_t block = m.lease.block;
                link_send_error(producers[i].link, NULL, m.lease.lease, "source", "the file server is away");
                if (++times[block] == 3 && !second)
                    second = clock_ms();
                most = times[block] > most ? times[block] : most;
            }
    assert_in_range(second - begun, 950, PATIENCE_MS);
    assert_in_range(most, 3, 4); /* twice each, if the other came in time */
    assert_int_equal(take_fails(), ERR_PEER);
    assert_non_null(
        strstr(e.message, "failed 2 times by all")); /* two, or one if no sound block came between its strikes */
    assert_non_null(strstr(e.message, "the file server is away"));
}

/* The first one fixes the stream; another one is told to come again, since a trainer that starts anew would take it. A run that is told
 * what to expect rejects the wrong one, and the right one joins. */
static void the_wrong_first_one(void **state)
{
    (void)state;
    struct stream right = stream;
    bind_trainer();
    strcpy(stream.tokens_fingerprint, "0bad");
    join(0, "wrong");
    stream = right;
    say_hello(1, "right");
    expect(1, MESSAGE_ERROR);
    assert_string_equal(m.error.code, "not-now");
    assert_non_null(strstr(m.error.text, "70cc"));
    stream.can_bf16 = false; /* that would not help this one */
    say_hello(2, "never");
    expect(2, MESSAGE_REJECT);
    leave(0);
    ingest_free(ingest);
    stream = right;
    options.expected = &right;
    bind_trainer();
    strcpy(stream.tokens_fingerprint, "0bad");
    say_hello(0, "wrong");
    expect(0, MESSAGE_REJECT);
    stream = right;
    join(1, "right");
}

/* Rows beyond the bound are nobody's to send: the run ends, naming them, once each producer has tried, and none is left to wait for. */
static void rows_that_no_step_can_take(void **state)
{
    (void)state;
    options.credit = 1;
    bind_trainer();
    join(0, "one");
    start_run();
    uint32_t block = expect_lease(0);
    join(1, "two");
    answer(0, &producers[0].lease, 1e20f);
    for (int turn = 1, tries = 1; tries < 4; turn++) {
        int i = turn % 2;
        if (turn == 100)
            fail_msg("tried %d times, then nobody is asked any more", tries);
        if (!receive(i, QUIET_MS) || m.type != MESSAGE_LEASE)
            continue;
        const struct message_lease lease = m.lease;
        answer(i, &lease, lease.block == block ? 1e20f : 1);
        tries += lease.block == block;
    }
    assert_int_equal(take_fails(), ERR_PEER);
    assert_non_null(
        strstr(e.message, "failed 2 times by all")); /* two, or one if no sound block came between its strikes */
    assert_non_null(strstr(e.message, "must be at most 1e+15"));
}

/* With keys it is the key that is out: a name is no proof of who says it. */
static void a_name_that_others_use(void **state)
{
    (void)state;
    static struct curve_client keys[2];
    struct curve_pair trainer;
    const char *name = run_path("trainer"), *secret = run_path("trainer.secret"), *list = run_path("allowed");
    FILE *f = fopen(list, "w");
    assert_int_equal(curve_pair_make(&trainer, &e), 0);
    assert_int_equal(curve_pair_write(&trainer, name, &e), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(curve_pair_make(&keys[i].own, &e), 0);
        strcpy(keys[i].server, trainer.public_key);
        assert_true(f && fprintf(f, "%s\n", keys[i].own.public_key) > 0);
        producers[i].keys = &keys[i];
    }
    assert_int_equal(fclose(f), 0);
    options.door = (struct listener_access){.curve_secret = secret, .curve_allow = list};
    options.credit = 1;
    bind_trainer();
    join(0, "gpu"); /* the thief of the name */
    start_run();
    for (int strike = 0; strike < 3; strike++) {
        expect_lease(0);
        send_chunk(0, &producers[0].lease, 0, 1, true);
    }
    expect(0, MESSAGE_REJECT);
    say_hello(0, "another name");
    expect(0, MESSAGE_REJECT); /* for the rest of the run, without ban_ms */
    assert_non_null(strstr(m.text.reason, "was wrong too often"));
    join(1, "gpu");
    expect_lease(1);
}

/* Until they are all there, nothing is shown of the held-out rows, which the ingest thread is writing. */
static void held_out_rows(void **state)
{
    (void)state;
    const unsigned char *rows = (const unsigned char *)"";
    size_t n = 1;
    int rc;
    eval_blocks = 3;
    bind_trainer();
    join(0, "only");
    start_run();
    for (int turn = 0; (rc = ingest_evaluation_rows(ingest, &rows, &n, 1, &e)) == 1; turn++) {
        assert_null(rows);
        assert_int_equal(n, 0);
        assert_true(turn < 10000);
        if (receive(0, 1)) {
            producers[0].lease = m.lease;
            answer(0, &producers[0].lease, 1);
        }
    }
    assert_int_equal(rc, 0);
    assert_non_null(rows);
    assert_int_equal(n, 3 * BLOCK_ROWS);
}

static struct ingest_snapshot snapshot;

static void a_snapshot(void **state)
{
    (void)state;
    bind_trainer();
    ingest_snapshot(ingest, &snapshot);
    assert_int_equal(snapshot.n_producers, 0);
    assert_int_equal(snapshot.window_slots, 0);
    join(0, "works");
    join(1, "idles");
    start_run();
    work(1, (const int[]){0}, 2);
    m = (struct message){.type = MESSAGE_PING, .ping = {.token = 1, .computing = 0.25f, .sending = 0.5f}};
    assert_int_equal(link_send(producers[0].link, NULL, &m, &e), 0);
    int64_t before = clock_ms();
    do
        ingest_snapshot(ingest, &snapshot);
    while (!snapshot.producers[0].reports && clock_ms() - before < PATIENCE_MS);
    assert_int_equal(snapshot.n_producers, 2);
    const struct ingest_producer *p = snapshot.producers;
    assert_string_equal(p[0].name, "works");
    assert_string_equal(p[1].name, "idles");
    assert_int_equal(p[0].number, 1);
    assert_true(p[0].blocks_done >= 2 && p[0].rows == p[0].blocks_done * BLOCK_ROWS);
    assert_true(p[0].computing == 0.25f && p[0].sending == 0.5f);
    assert_true(p[0].here_s >= p[1].here_s && p[0].here_s < 60);
    assert_int_equal(p[1].rows, 0);
    assert_false(p[1].reports);
    assert_int_equal(snapshot.counters.rows_received, p[0].rows);
    assert_int_equal(snapshot.window_slots, (WINDOW_BLOCKS + LOOKAHEAD_BLOCKS) * BLOCK_ROWS);
    assert_in_range(snapshot.window_rows, p[0].rows, snapshot.window_slots);
    leave(0);
    leave(1);
    ingest_finish(ingest, true, "done");
    before = clock_ms();
    ingest_snapshot(ingest, &snapshot); /* the last one, without a thread to ask */
    assert_true(clock_ms() - before < 500);
    assert_true(snapshot.counters.blocks_done >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answered_before_the_run_starts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(its_own_scale_is_the_runs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_closed_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_silent_producer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(three_strikes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rows_that_no_step_can_take, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_beside_right, set_up, tear_down),
        cmocka_unit_test_setup_teardown(those_who_fail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_fail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_wrong_first_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_that_others_use, set_up, tear_down),
        cmocka_unit_test_setup_teardown(held_out_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_snapshot, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, run_open, run_close);
}
