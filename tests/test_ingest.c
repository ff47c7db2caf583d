/* test_ingest.c - the trainer's conversation from the other side: the test is the producers, and the training thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "bf16.h"
#include "clock.h"
#include "ingest.h"
#include "link.h"
#include "scratch.h"

#define PATIENCE_MS 10000
#define QUIET_MS 150
#define N_SITES 2
#define SEQ_ROWS 3
#define BLOCK_SEQS 2
#define BLOCK_ROWS (BLOCK_SEQS * SEQ_ROWS)
#define N_BLOCKS 12
#define WINDOW_BLOCKS 3
#define LOOKAHEAD_BLOCKS 2
#define MAX_PRODUCERS 4

/* ---- the trainer ---- */

static struct ingest *ingest;
static struct ingest_options options;
static struct stream stream;
static struct plan plan;
static struct shuffle *shuffle;
static struct err e;
static char endpoint[300];
static const char *const endpoints[] = {endpoint};
static const float scale[N_SITES] = {1, 1};

static void bind_trainer(void)
{
    static int n;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%d", scratch_folder, n++);
    if (ingest_new(&ingest, &options, &e))
        fail_msg("%s", e.message);
}

static int set_up(void **state)
{
    (void)state;
    stream = (struct stream){.n_sites = N_SITES,
                             .d_model = 5,
                             .seq_len = SEQ_ROWS + 1,
                             .rows_per_seq = SEQ_ROWS,
                             .n_seq = N_BLOCKS * BLOCK_SEQS,
                             .vocab_size = 2000,
                             .n_models = 1,
                             .can_bf16 = true,
                             .can_f32 = true};
    strcpy(stream.sites[0], "blocks.0.hook_resid_post");
    strcpy(stream.sites[1], "blocks.1.hook_resid_post");
    strcpy(stream.tokens_fingerprint, "70cc");
    strcpy(stream.model_fingerprints[0], "aaaa");
    options = (struct ingest_options){.endpoints = endpoints,
                                      .n_endpoints = 1,
                                      .run_id = "run",
                                      .dtype = ROW_BF16,
                                      .scale = scale,
                                      .n_scale = N_SITES,
                                      .block_seqs = BLOCK_SEQS,
                                      .credit = 2,
                                      .heartbeat_ms = 50,
                                      .timeout_ms = PATIENCE_MS,
                                      .audit_tolerance = 0.02};
    return 0;
}

/* The training thread is done with its set-up. One epoch is wanted. */
static void start_run(void)
{
    struct stream theirs;
    if (ingest_stream(ingest, &theirs, PATIENCE_MS, &e))
        fail_msg("no stream: %s", e.message);
    assert_memory_equal(&theirs, &stream, sizeof stream);
    assert_int_equal(plan_init(&plan, &stream, 1, BLOCK_SEQS, 0, WINDOW_BLOCKS * BLOCK_ROWS, &e), 0);
    struct shuffle_config sc = {.plan = &plan,
                                .row_elements = (size_t)N_SITES * stream.d_model,
                                .dtype = ROW_BF16,
                                .lookahead_rows = LOOKAHEAD_BLOCKS * BLOCK_ROWS,
                                .total_rows = N_BLOCKS * BLOCK_ROWS,
                                .wake = ingest_wake_fd(ingest)};
    assert_int_equal(shuffle_new(&shuffle, &sc, &e), 0);
    struct intake_config ic = {.stream = &stream, .plan = &plan, .shuffle = shuffle, .dtype = ROW_BF16};
    if (ingest_start(ingest, &ic, &e))
        fail_msg("%s", e.message);
}

static struct ingest_counters counters(void)
{
    struct ingest_counters c;
    ingest_counters(ingest, &c);
    return c;
}

/* ---- producers ---- */

static struct producer {
    struct link *link;
    struct message_lease lease; /* the last one */
} producers[MAX_PRODUCERS];
static struct message m; /* received last, or to be sent */

/* Takes a message of producer i that is not a PING; those are answered. */
static bool receive(int i, int timeout_ms)
{
    struct link_peer peer;
    struct link_payload payload;
    for (int64_t until = clock_ms() + timeout_ms; clock_ms() < until; link_poll(producers[i].link, -1, 10)) {
        int got;
        while ((got = link_receive(producers[i].link, &peer, &m, &payload, &e)) != 0) {
            link_payload_release(&payload);
            if (got < 0)
                fail_msg("producer %d: %s", i, e.message);
            if (m.type == MESSAGE_PING) {
                m.type = MESSAGE_PONG;
                link_send(producers[i].link, NULL, &m, NULL);
            } else if (m.type != MESSAGE_PONG) {
                return true;
            }
        }
    }
    return false;
}

static void expect(int i, enum message_type type)
{
    if (!receive(i, PATIENCE_MS))
        fail_msg("producer %d: nothing came, %s was due", i, message_type_name(type));
    if (m.type != type)
        fail_msg("producer %d: %s came, %s was due", i, message_type_name(m.type), message_type_name(type));
}

static void expect_quiet(int i)
{
    if (receive(i, QUIET_MS))
        fail_msg("producer %d: %s came, nothing was due", i, message_type_name(m.type));
}

static void say_hello(int i, const char *name)
{
    link_close(producers[i].link, 0);
    assert_int_equal(link_connect(&producers[i].link, endpoint, NULL, &e), 0);
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_HELLO;
    m.hello.version = PROTOCOL_VERSION;
    strcpy(m.hello.software, "test");
    strcpy(m.hello.producer, name);
    m.hello.stream = stream;
    assert_int_equal(link_send(producers[i].link, NULL, &m, &e), 0);
}

static void join(int i, const char *name)
{
    say_hello(i, name);
    expect(i, MESSAGE_WELCOME);
}

static uint32_t expect_lease(int i)
{
    expect(i, MESSAGE_LEASE);
    producers[i].lease = m.lease;
    assert_int_equal(m.lease.first, m.lease.block * BLOCK_SEQS);
    return m.lease.block;
}

static float value(uint32_t sequence, uint32_t position, size_t k)
{
    return (float)(sequence * 4 + position) + (float)(k % 7) / 8;
}

static size_t chunks_a_block(void)
{
    return stream_chunk_count(&stream, ROW_BF16, BLOCK_ROWS);
}

/* Sends one chunk of the lease, all values times `factor`; wrong: with a checksum that is not its own. */
static void send_chunk(int i, const struct message_lease *lease, size_t chunk, float factor, bool wrong)
{
    size_t elements = (size_t)N_SITES * stream.d_model, per_chunk = stream_chunk_rows(&stream, ROW_BF16);
    size_t first = chunk * per_chunk, rows = BLOCK_ROWS - first < per_chunk ? BLOCK_ROWS - first : per_chunk;
    uint16_t *acts = malloc(rows * elements * sizeof *acts);
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_BATCH;
    m.batch = (struct message_batch){.lease = lease->lease,
                                     .block = lease->block,
                                     .chunk = (uint32_t)chunk,
                                     .chunks = (uint32_t)chunks_a_block(),
                                     .rows = (uint32_t)rows};
    for (size_t r = 0; r < rows; r++) {
        uint32_t sequence = lease->first + (uint32_t)((first + r) / SEQ_ROWS),
                 position = 1 + (uint32_t)((first + r) % SEQ_ROWS);
        m.batch.origins[r] = (struct row_origin){sequence, position, 7};
        for (size_t k = 0; k < elements; k++)
            acts[r * elements + k] = bf16_from_f32(factor * value(sequence, position, k));
    }
    size_t bytes = rows * elements * sizeof *acts;
    m.batch.checksum = fingerprint_checksum(acts, bytes, m.batch.origins, rows * sizeof *m.batch.origins) + wrong;
    assert_int_equal(link_send_payload(producers[i].link, &m, acts, bytes, free, acts, &e), 0);
}

static void answer(int i, const struct message_lease *lease, float factor)
{
    for (size_t chunk = 0; chunk < chunks_a_block(); chunk++)
        send_chunk(i, lease, chunk, factor, false);
}

/* ---- the training thread ---- */

/* Takes n rows; all of them must be as they are sent with factor 1. */
static void take(size_t n)
{
    size_t elements = (size_t)N_SITES * stream.d_model;
    float *x = malloc(n * elements * sizeof *x);
    struct row_origin *origins = malloc(n * sizeof *origins);
    int result = shuffle_take(shuffle, x, origins, n, PATIENCE_MS, &e);
    if (result)
        fail_msg("%zu rows cannot be taken: %s", n, result == 1 ? "not there" : e.message);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < elements; k++) {
            float wanted = bf16_to_f32(bf16_from_f32(value(origins[i].sequence, origins[i].position, k)));
            if (x[i * elements + k] != wanted)
                fail_msg("sequence %u position %u element %zu is %g, not %g", origins[i].sequence, origins[i].position,
                         k, (double)x[i * elements + k], (double)wanted);
        }
    free(x);
    free(origins);
}

/* The error with which the run ends. */
static int take_fails(void)
{
    float *x = malloc((size_t)N_SITES * stream.d_model * sizeof *x);
    int result = shuffle_take(shuffle, x, NULL, 1, PATIENCE_MS, &e);
    free(x);
    return result;
}

/* Answers leases of the given producers as they come, at once, until that many blocks are done in the run. */
static void work(int n_producers, const int *who, uint64_t blocks)
{
    while (counters().blocks_done < blocks)
        for (int i = 0; i < n_producers; i++)
            if (receive(who[i], 5)) {
                if (m.type != MESSAGE_LEASE)
                    fail_msg("producer %d: %s came", who[i], message_type_name(m.type));
                producers[who[i]].lease = m.lease;
                answer(who[i], &producers[who[i]].lease, 1);
            }
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < MAX_PRODUCERS; i++) { /* before the trainer, which would wait for their BYE */
        link_close(producers[i].link, 0);
        producers[i].link = NULL;
    }
    ingest_free(ingest);
    shuffle_free(shuffle);
    plan_release(&plan);
    ingest = NULL;
    shuffle = NULL;
    return 0;
}

/* ---- conversations ---- */

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
    link_close(producers[0].link, 0);
    producers[0].link = NULL;
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
    for (int i = 0; i < 2; i++) {
        link_close(producers[i].link, 0);
        producers[i].link = NULL;
    }
    join(2, "third");
    assert_int_equal(expect_lease(2), late.block);
    answer(2, &producers[2].lease, 1);
    work(1, (int[]){2}, WINDOW_BLOCKS);
    take(WINDOW_BLOCKS * BLOCK_ROWS);
}

/* One that takes long for each block holds one lease at a time, and gets it; a fast one holds as many as it may. */
static void credit_follows_the_pace(void **state)
{
    (void)state;
    options.credit = 3;
    bind_trainer();
    join(0, "slow");
    start_run();
    struct message_lease slow[2], fast[2];
    for (int i = 0; i < 2; i++) { /* two, to find out */
        expect_lease(0);
        slow[i] = m.lease;
    }
    join(1, "fast");
    for (int i = 0; i < 2; i++) {
        expect_lease(1);
        fast[i] = m.lease;
    }
    answer(1, &fast[0], 1);
    answer(1, &fast[1], 1);
    for (int i = 0; i < 2; i++) {
        usleep(100 * 1000);
        answer(0, &slow[i], 1);
    }
    while (receive(0, QUIET_MS) && m.type == MESSAGE_LEASE)
        slow[1] = m.lease;
    answer(0, &slow[1], 1);
    expect_lease(0);
    expect_quiet(0); /* one */
    assert_int_equal(counters().bad_chunks, 0);
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
    assert_non_null(strstr(e.message, "one and one disagree on block"));
    assert_non_null(strstr(e.message, "at site blocks."));
    const char *by = strstr(e.message, " by ");
    assert_non_null(by);
    assert_in_range(atoi(by + 4), 11, 17); /* per cent of the longer one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answered_before_the_run_starts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(its_own_scale_is_the_runs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_closed_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_silent_producer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(three_strikes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_late_block_is_given_to_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_late_block_arrives_after_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(both_are_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(credit_follows_the_pace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(audited_blocks_are_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(alone_it_is_asked_twice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_that_differ, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
