/* test_serve.c - a producer's conversation, from the other side: the test is the trainer, the source a formula. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
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
#include "listener.h"
#include "scratch.h"
#include "serve.h"

#define PATIENCE_MS 10000
#define QUIET_MS 100
#define N_SITES 2
#define SEQ_ROWS 3
#define N_SEQ 18

/* ---- the source ---- */

static struct {
    int delay_ms;       /* of each block */
    uint32_t bad_first; /* a block that starts here fails */
    int computed;
} formula;

static float value(uint32_t sequence, uint32_t position, size_t site, size_t k)
{
    return 0.37f * (float)sequence - 1.7f * (float)position + 3.1f * (float)site + 0.01f * (float)(k % 97);
}

static int formula_compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    const struct stream *s = self;
    float *x = malloc(s->d_model * sizeof *x);
    usleep((useconds_t)formula.delay_ms * 1000);
    for (uint32_t i = 0; i < n * SEQ_ROWS; i++) {
        uint32_t sequence = first + i / SEQ_ROWS, position = 1 + i % SEQ_ROWS;
        for (size_t site = 0; site < N_SITES; site++) {
            for (size_t k = 0; k < s->d_model; k++)
                x[k] = value(sequence, position, site, k);
            rows_put(r, i, site, x);
        }
        rows_put_origin(r, i, (struct row_origin){sequence, position, 1000 + sequence});
    }
    free(x);
    formula.computed++;
    if (first == formula.bad_first)
        return err_set(e, ERR_INPUT, "sequence %u: site 1: NaN", first);
    return 0;
}

/* ---- the producer, on a thread ---- */

static struct source source;
static volatile sig_atomic_t stop;
static struct serve_options options;
static struct serve_report report;
static struct err served; /* what serve said */
static int result;
static pthread_t thread;

static void *producer_thread(void *argument)
{
    (void)argument;
    result = serve(&source, &options, &report, &served);
    return NULL;
}

/* ---- the trainer: this test ---- */

static struct listener *trainer;
static char endpoint[300];
static struct message m; /* 50 KB: sent, or received last */
static struct link_peer peer, producer;
static struct link_payload payload;
static struct err e;

static int set_up(void **state)
{
    (void)state;
    static int n;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%d", scratch_folder, n++);
    source = (struct source){.compute = formula_compute, .self = &source.stream};
    source.stream = (struct stream){.n_sites = N_SITES,
                                    .d_model = 5,
                                    .seq_len = SEQ_ROWS + 1,
                                    .rows_per_seq = SEQ_ROWS,
                                    .n_seq = N_SEQ,
                                    .vocab_size = 2000,
                                    .n_models = 1,
                                    .can_bf16 = true,
                                    .can_f32 = true};
    strcpy(source.stream.sites[0], "blocks.0.hook_resid_post");
    strcpy(source.stream.sites[1], "blocks.1.hook_resid_post");
    strcpy(source.stream.tokens_fingerprint, "70cc");
    strcpy(source.stream.model_fingerprints[0], "aaaa");
    memset(&formula, 0, sizeof formula);
    formula.bad_first = UINT32_MAX;
    stop = 0;
    options = (struct serve_options){
        .endpoint = endpoint, .producer = "tester", .give_up_after_ms = PATIENCE_MS, .stop = &stop};
    memset(&served, 0, sizeof served);
    memset(&report, 0, sizeof report);
    result = 1;
    const char *endpoints[] = {endpoint};
    return listener_open(&trainer, endpoints, 1, NULL, &e);
}

static int tear_down(void **state)
{
    (void)state;
    listener_close(trainer, 0);
    trainer = NULL;
    return 0;
}

static void start(void)
{
    assert_int_equal(pthread_create(&thread, NULL, producer_thread, NULL), 0);
}

static void producer_returns(int code, const char *why)
{
    pthread_join(thread, NULL);
    if (result != code)
        fail_msg("serve gave %d (%s), should be %d", result, served.message, code);
    if (code && (served.code != code || !strstr(served.message, why)))
        fail_msg("serve said '%s', should say '%s'", served.message, why);
}

static bool receive(int timeout_ms)
{
    int got;
    int64_t until = clock_ms() + timeout_ms;
    link_payload_release(&payload);
    while ((got = listener_receive(trainer, &peer, &m, &payload, &e)) == 0 && clock_ms() < until)
        link_poll(listener_link(trainer), -1, 10);
    if (got < 0)
        fail_msg("%s", e.message);
    return got == 1;
}

static void say(enum message_type type)
{
    m.type = type;
    if (link_send(listener_link(trainer), &producer, &m, &e))
        fail_msg("%s", e.message);
}

/* The next message but PINGs of the producer, which are answered. */
static void expect(enum message_type type)
{
    for (;;) {
        if (!receive(PATIENCE_MS))
            fail_msg("nothing came, %s was due", message_type_name(type));
        if (m.type == type)
            return;
        if (m.type != MESSAGE_PING)
            fail_msg("%s came, %s was due", message_type_name(m.type), message_type_name(type));
        if (memcmp(&peer, &producer, sizeof peer) == 0)
            say(MESSAGE_PONG);
    }
}

/* Nothing but PINGs for a while. */
static void expect_quiet(void)
{
    for (int64_t until = clock_ms() + QUIET_MS; clock_ms() < until;)
        if (receive(10) && m.type != MESSAGE_PING)
            fail_msg("%s came, nothing was due", message_type_name(m.type));
}

static void take_hello(void)
{
    expect(MESSAGE_HELLO);
    producer = peer;
}

static uint32_t seqs_a_block = 4;

static void welcome_with(const float *scale, uint32_t block_seqs, uint32_t heartbeat_ms, uint32_t timeout_ms)
{
    memset(&m, 0, sizeof m);
    strcpy(m.welcome.run, "run");
    m.welcome.dtype = ROW_BF16;
    m.welcome.has_scale = scale != NULL;
    m.welcome.n_scale = N_SITES;
    if (scale)
        memcpy(m.welcome.scale, scale, N_SITES * sizeof *scale);
    m.welcome.block_seqs = seqs_a_block = block_seqs;
    m.welcome.credit = 2;
    m.welcome.heartbeat_ms = heartbeat_ms;
    m.welcome.timeout_ms = timeout_ms;
    say(MESSAGE_WELCOME);
}

static const float scale[N_SITES] = {0.3333333f, 7};

static void welcome(void)
{
    welcome_with(scale, 4, 1000, PATIENCE_MS);
}

static void lease(uint64_t id, uint32_t first, uint32_t count, bool scaled)
{
    memset(&m, 0, sizeof m);
    m.lease = (struct message_lease){id, first / seqs_a_block, first, count, scaled};
    say(MESSAGE_LEASE);
}

/* The block under this lease, all its chunks; every value, origin and checksum is checked. */
static void expect_block(uint64_t id, uint32_t first, uint32_t count, bool scaled)
{
    const struct stream *s = &source.stream;
    enum row_dtype dtype = scaled ? ROW_BF16 : ROW_F32;
    size_t n_rows = count * SEQ_ROWS, chunks = stream_chunk_count(s, dtype, n_rows), row = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        expect(MESSAGE_BATCH);
        const struct message_batch *b = &m.batch;
        assert_int_equal(peer.size, producer.size);
        assert_memory_equal(peer.id, producer.id, peer.size);
        assert_int_equal(b->lease, id);
        assert_int_equal(b->block, first / seqs_a_block);
        assert_int_equal(b->chunk, chunk);
        assert_int_equal(b->chunks, chunks);
        assert_int_equal(payload.size, b->rows * stream_row_bytes(s, dtype));
        assert_true(b->checksum ==
                    fingerprint_checksum(payload.data, payload.size, b->origins, b->rows * sizeof *b->origins));
        for (size_t i = 0; i < b->rows; i++, row++) {
            uint32_t sequence = first + (uint32_t)row / SEQ_ROWS, position = 1 + (uint32_t)row % SEQ_ROWS;
            struct row_origin o = {sequence, position, 1000 + sequence};
            assert_memory_equal(&b->origins[i], &o, sizeof o);
            for (size_t k = 0; k < (size_t)N_SITES * s->d_model; k++) {
                size_t site = k / s->d_model;
                float x = value(sequence, position, site, k % s->d_model) * (scaled ? scale[site] : 1), got;
                const unsigned char *at = payload.data + (i * N_SITES * s->d_model + k) * row_dtype_size(dtype);
                if (scaled)
                    bf16_to_f32_n(&got, at, 1);
                else
                    memcpy(&got, at, 4);
                if (got != (scaled ? bf16_to_f32(bf16_from_f32(x)) : x))
                    fail_msg("row %zu element %zu is %g of %g", row, k, (double)got, (double)x);
            }
        }
    }
    assert_int_equal(row, n_rows);
    link_payload_release(&payload);
}

static void end_run(bool ok, const char *reason)
{
    memset(&m, 0, sizeof m);
    m.end.ok = ok;
    strcpy(m.end.reason, reason);
    say(MESSAGE_END);
    expect(MESSAGE_BYE); /* and it is gone, without waiting for BYE_ACK: there is nothing left to lose */
}

/* ---- conversations ---- */

static void a_whole_run(void **state)
{
    (void)state;
    start();
    take_hello();
    assert_int_equal(m.hello.version, PROTOCOL_VERSION);
    assert_string_equal(m.hello.producer, "tester");
    assert_int_equal(stream_compare(&source.stream, &m.hello.stream, &e), 0);
    assert_true(m.hello.stream.can_bf16 && m.hello.stream.can_f32 && !m.hello.stream.has_scale);
    welcome_with(NULL, 4, 1000, PATIENCE_MS); /* the scale is being measured */
    lease(1, 8, 4, false);
    lease(2, 0, 4, false);
    expect_block(1, 8, 4, false);
    expect_block(2, 0, 4, false);
    welcome();
    lease(3, 12, 4, true);
    lease(4, 16, 2, true); /* a short last block */
    lease(5, 8, 4, true);  /* one computed before, scaled now */
    expect_block(3, 12, 4, true);
    expect_block(4, 16, 2, true);
    expect_block(5, 8, 4, true);
    end_run(true, "all steps done");
    producer_returns(0, "");
    assert_string_equal(report.end_reason, "all steps done");
    assert_int_equal(report.blocks, 5);
    assert_int_equal(report.rows, 18 * SEQ_ROWS);
}

static void blocks_of_several_chunks(void **state)
{
    (void)state;
    source.stream.d_model = 1u << 18; /* two fp32 rows a chunk, four in bf16 */
    start();
    take_hello();
    welcome_with(NULL, 3, 1000, PATIENCE_MS);
    lease(1, 6, 3, false);
    expect_block(1, 6, 3, false);
    welcome_with(scale, 3, 1000, PATIENCE_MS);
    lease(2, 6, 3, true);
    lease(3, 0, 3, true);
    lease(4, 15, 3, true); /* more blocks than it has room for: one waits for the other to be read */
    expect_block(2, 6, 3, true);
    expect_block(3, 0, 3, true);
    expect_block(4, 15, 3, true);
    end_run(true, "");
    producer_returns(0, "");
}

static void rejected(void **state)
{
    (void)state;
    start();
    take_hello();
    memset(&m, 0, sizeof m);
    strcpy(m.text.reason, "d_model 5, run has 768");
    say(MESSAGE_REJECT);
    producer_returns(ERR_MISMATCH, "refused this producer: d_model 5, run has 768");
}

static void the_run_failed(void **state)
{
    (void)state;
    start();
    take_hello();
    welcome();
    end_run(false, "loss is NaN at step 7");
    producer_returns(ERR_PEER, "the run failed: loss is NaN at step 7");
}

static void end_before_welcome(void **state)
{
    (void)state;
    start();
    take_hello();
    end_run(true, "over");
    producer_returns(0, "");
    assert_string_equal(report.end_reason, "over");
}

static void refuses_lease(uint64_t id, uint32_t first, uint32_t count, bool scaled, const char *why)
{
    lease(id, first, count, scaled);
    expect(MESSAGE_ERROR);
    assert_int_equal(m.error.lease, id);
    assert_string_equal(m.error.code, "lease");
    if (!strstr(m.error.text, why))
        fail_msg("'%s' should say '%s'", m.error.text, why);
}

static void leases_that_make_no_sense(void **state)
{
    (void)state;
    start();
    take_hello();
    refuses_lease(1, 0, 4, false, "before WELCOME");
    welcome_with(NULL, 4, 1000, PATIENCE_MS);
    refuses_lease(2, 20, 4, false, "outside the token tensor");
    refuses_lease(3, 16, 4, false, "outside the token tensor");
    refuses_lease(4, UINT32_MAX, 1, false, "outside the token tensor");
    refuses_lease(5, 4, UINT32_MAX, false, "outside the token tensor");
    refuses_lease(6, 0, 0, false, "outside the token tensor");
    refuses_lease(7, 0, 5, false, "outside the token tensor"); /* more than a block */
    refuses_lease(8, 0, 4, true, "before a scale");
    lease(9, 16, 2, false); /* the last ones are fine */
    expect_block(9, 16, 2, false);
    end_run(true, "");
    producer_returns(0, "");
    assert_int_equal(report.blocks, 1);
}

static void raw_rows_of_a_scaled_source(void **state)
{
    (void)state;
    source.stream.has_scale = true;
    source.stream.scale[0] = source.stream.scale[1] = 1;
    start();
    take_hello();
    assert_true(m.hello.stream.has_scale && m.hello.stream.scale[1] == 1);
    welcome();
    refuses_lease(1, 0, 4, false, "raw rows");
    end_run(true, "");
    producer_returns(0, "");
}

static void a_source_that_fails(void **state)
{
    (void)state;
    formula.bad_first = 8;
    start();
    take_hello();
    welcome();
    lease(1, 8, 4, true);
    lease(2, 12, 4, true);
    expect(MESSAGE_ERROR);
    assert_int_equal(m.error.lease, 1);
    assert_string_equal(m.error.code, "source");
    assert_string_equal(m.error.text, "sequence 8: site 1: NaN");
    expect_block(2, 12, 4, true);
    end_run(true, "");
    producer_returns(0, "");
}

static void terms_that_make_no_sense(void **state)
{
    (void)state;
    static const struct {
        uint32_t block_seqs, heartbeat_ms, timeout_ms;
    } terms[] = {{0, 1000, 2000}, {4, 0, 2000}, {4, 1000, 999}};
    for (size_t i = 0; i < 3; i++) {
        start();
        take_hello();
        welcome_with(scale, terms[i].block_seqs, terms[i].heartbeat_ms, terms[i].timeout_ms);
        producer_returns(ERR_PEER, "WELCOME");
    }
    start();
    take_hello();
    memset(&m, 0, sizeof m);
    m.welcome =
        (struct message_welcome){.has_scale = true, .n_scale = 3, .block_seqs = 4, .heartbeat_ms = 9, .timeout_ms = 99};
    m.welcome.scale[0] = m.welcome.scale[1] = m.welcome.scale[2] = 1;
    say(MESSAGE_WELCOME);
    producer_returns(ERR_PEER, "3 scales, we have 2 sites");
}

/* ---- leaving, losing, coming back ---- */

static void leaves_politely(void **state)
{
    (void)state;
    formula.delay_ms = 100;
    start();
    take_hello();
    welcome();
    lease(1, 0, 4, true);
    stop = 1;
    for (;;) { /* the block under way may come before or after */
        assert_true(receive(PATIENCE_MS));
        if (m.type == MESSAGE_BYE)
            break;
    }
    assert_non_null(strstr(m.text.reason, "signal"));
    say(MESSAGE_BYE_ACK);
    producer_returns(0, "");
    assert_string_equal(report.end_reason, "");
}

static void leaves_before_it_is_welcome(void **state)
{
    (void)state;
    int64_t begin = clock_ms();
    stop = 1;
    start();
    producer_returns(0, "");
    assert_true(clock_ms() - begin < 3000);
}

static void says_hello_again_when_unknown(void **state)
{
    (void)state;
    formula.delay_ms = 100;
    start();
    take_hello();
    welcome();
    lease(1, 0, 4, true);
    lease(2, 4, 4, true);
    memset(&m, 0, sizeof m);
    strcpy(m.error.code, "unknown-peer");
    strcpy(m.error.text, "say HELLO first");
    struct link_peer old = producer;
    say(MESSAGE_ERROR);
    do /* what was under way on the old connection does not matter */
        assert_true(receive(PATIENCE_MS));
    while (m.type != MESSAGE_HELLO);
    producer = peer;
    assert_memory_not_equal(&peer, &old, sizeof peer);
    welcome();
    lease(3, 12, 4, true);
    expect_block(3, 12, 4, true); /* and nothing of leases 1 and 2 */
    expect_quiet();
    end_run(true, "");
    producer_returns(0, "");
}

static void say_error(const char *code, const char *text)
{
    memset(&m, 0, sizeof m);
    strcpy(m.error.code, code);
    strcpy(m.error.text, text);
    say(MESSAGE_ERROR);
}

/* However often it is told to begin anew, or at whatever a trainer breaks. */
static void not_hundreds_of_times_a_second(void **state)
{
    (void)state;
    int hellos = 0;
    start();
    for (int64_t until = clock_ms() + 2500; clock_ms() < until;)
        if (receive(10) && m.type == MESSAGE_HELLO) {
            hellos++;
            producer = peer;
            if (hellos % 2)
                welcome(); /* which does not make it forget */
            say_error("unknown-peer", "say HELLO first");
        }
    assert_in_range(hellos, 5, 9); /* five at once, then one a second */
    stop = 1;
    producer_returns(0, "");
}

/* What a trainer that is started anew may take is tried again. */
static void refused_for_now(void **state)
{
    (void)state;
    start();
    take_hello();
    say_error("not-now", "tokens have fingerprint 1, run has 2");
    int64_t begin = clock_ms();
    take_hello();
    assert_in_range(clock_ms() - begin, 3000, PATIENCE_MS);
    welcome();
    end_run(true, "");
    producer_returns(0, "");
}

static void refused_for_now_and_for_too_long(void **state)
{
    (void)state;
    options.give_up_after_ms = 1000;
    start();
    take_hello();
    say_error("not-now", "tokens have fingerprint 1, run has 2");
    producer_returns(ERR_MISMATCH, "refused this producer for 1 s: tokens have fingerprint 1, run has 2");
}

/* It answers each PING, and so it could be made to keep as many PONGs as somebody likes who reads none. */
static void a_trainer_that_floods(void **state)
{
    (void)state;
    int pongs = 0;
    start();
    take_hello();
    listener_vouch(trainer, &producer, 1 << 20); /* as a trainer does: it may say more than a stranger */
    welcome();
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_PING;
    for (int i = 0; i < 20000; i++)
        if (link_send(listener_link(trainer), &producer, &m, &e))
            break; /* it has gone */
    while (receive(PATIENCE_MS) && m.type != MESSAGE_HELLO)
        pongs += m.type == MESSAGE_PONG;
    assert_int_equal(m.type, MESSAGE_HELLO);
    producer = peer;
    welcome();
    memset(&m, 0, sizeof m);
    m.end.ok = true;
    say(MESSAGE_END);
    while (receive(PATIENCE_MS) && m.type != MESSAGE_BYE) /* the old connection's last PONGs may come now */
        pongs += m.type == MESSAGE_PONG;
    assert_int_equal(m.type, MESSAGE_BYE);
    producer_returns(0, "");
    assert_in_range(pongs, 0, 1100);
}

/* Other errors of the trainer are for the log. */
static void other_errors_change_nothing(void **state)
{
    (void)state;
    start();
    take_hello();
    welcome();
    memset(&m, 0, sizeof m);
    strcpy(m.error.code, "weather");
    say(MESSAGE_ERROR);
    memset(&m, 0, sizeof m);
    say(MESSAGE_PONG);
    say(MESSAGE_BYE_ACK); /* not asked for */
    say(MESSAGE_BYE);     /* only producers send this */
    lease(1, 0, 4, true);
    expect_block(1, 0, 4, true);
    end_run(true, "");
    producer_returns(0, "");
}

static void connects_again_after_silence(void **state)
{
    (void)state;
    start();
    take_hello();
    struct link_peer old = producer;
    welcome_with(scale, 4, 50, 400);
    int pings = 0;
    int64_t begin = clock_ms();
    do { /* its PINGs are not answered */
        assert_true(receive(PATIENCE_MS));
        pings += m.type == MESSAGE_PING;
    } while (m.type != MESSAGE_HELLO);
    assert_true(clock_ms() - begin >= 300 && pings >= 1);
    assert_memory_not_equal(&peer, &old, sizeof peer);
    producer = peer;
    welcome();
    lease(1, 0, 4, true);
    expect_block(1, 0, 4, true);
    end_run(true, "");
    producer_returns(0, "");
}

/* At once, and saying nothing there that belongs to the old connection: it would be a stranger's. */
static void connects_again_when_its_connection_ends(void **state)
{
    (void)state;
    const char *endpoints[] = {endpoint};
    formula.delay_ms = 100;
    start();
    take_hello();
    welcome();
    lease(1, 0, 4, true);
    expect_block(1, 0, 4, true); /* it is welcome */
    lease(2, 4, 4, true);
    listener_close(trainer, 0);
    assert_int_equal(listener_open(&trainer, endpoints, 1, NULL, &e), 0);
    assert_true(receive(PATIENCE_MS));
    assert_int_equal(m.type, MESSAGE_HELLO);
    producer = peer;
    welcome();
    lease(3, 12, 4, true);
    expect_block(3, 12, 4, true); /* and nothing of lease 2 */
    expect_quiet();
    end_run(true, "");
    producer_returns(0, "");
}

static void alive_while_it_computes(void **state)
{
    (void)state;
    formula.delay_ms = 700;
    start();
    take_hello();
    welcome_with(scale, 4, 50, PATIENCE_MS);
    lease(1, 0, 4, true);
    memset(&m, 0, sizeof m);
    m.ping.token = 77;
    int64_t begin = clock_ms();
    say(MESSAGE_PING);
    int pings = 0;
    bool pong = false;
    while (!pong || !pings) { /* both come before the block does */
        assert_true(receive(PATIENCE_MS));
        pong = pong || (m.type == MESSAGE_PONG && m.ping.token == 77);
        pings += m.type == MESSAGE_PING && m.ping.computing > 0; /* the first one may be older than the lease */
        assert_int_not_equal(m.type, MESSAGE_BATCH);
    }
    assert_true(clock_ms() - begin < 700);
    expect_block(1, 0, 4, true);
    end_run(true, "");
    producer_returns(0, "");
}

static void nobody_is_there(void **state)
{
    (void)state;
    listener_close(trainer, 0);
    trainer = NULL;
    options.give_up_after_ms = 400;
    int64_t begin = clock_ms();
    start();
    producer_returns(ERR_PEER, "no trainer heard");
    assert_true(clock_ms() - begin >= 400);
    assert_non_null(strstr(served.message, endpoint));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_whole_run),
        TEST(blocks_of_several_chunks),
        TEST(rejected),
        TEST(the_run_failed),
        TEST(end_before_welcome),
        TEST(leases_that_make_no_sense),
        TEST(raw_rows_of_a_scaled_source),
        TEST(a_source_that_fails),
        TEST(terms_that_make_no_sense),
        TEST(leaves_politely),
        TEST(leaves_before_it_is_welcome),
        TEST(says_hello_again_when_unknown),
        TEST(not_hundreds_of_times_a_second),
        TEST(refused_for_now),
        TEST(refused_for_now_and_for_too_long),
        TEST(a_trainer_that_floods),
        TEST(other_errors_change_nothing),
        TEST(connects_again_after_silence),
        TEST(connects_again_when_its_connection_ends),
        TEST(alive_while_it_computes),
        TEST(nobody_is_there),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
