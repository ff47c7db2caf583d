/* ingest_run.c - see ingest_run.h. */
#include "ingest_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "clock.h"
#include "row_store.h"
#include "scratch.h"

/* ---- the trainer ---- */

struct producer producers[MAX_PRODUCERS];
struct message m;
struct ingest *ingest;
struct ingest_options options;
uint32_t eval_blocks;
struct stream stream;
struct err e;
static struct plan plan;
static struct shuffle *shuffle;
static char endpoint[300];
static const char *const endpoints[] = {endpoint};
static const struct scale_list given = {.n = N_SITES, .values = {1, 1}};

void bind_trainer(void)
{
    static int n;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%d", scratch_folder, n++);
    if (ingest_new(&ingest, &options, &e))
        fail_msg("%s", e.message);
}

int set_up(void **state)
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
    eval_blocks = 0;
    memset(producers, 0, sizeof producers);
    strcpy(stream.sites[0], "blocks.0.hook_resid_post");
    strcpy(stream.sites[1], "blocks.1.hook_resid_post");
    strcpy(stream.tokens_fingerprint, "70cc");
    strcpy(stream.model_fingerprints[0], "aaaa");
    options = (struct ingest_options){.endpoints = endpoints,
                                      .n_endpoints = 1,
                                      .run_id = "run",
                                      .dtype = ROW_BF16,
                                      .scale = &given,
                                      .block_seqs = BLOCK_SEQS,
                                      .credit = 2,
                                      .heartbeat_ms = 50,
                                      .timeout_ms = PATIENCE_MS,
                                      .max_bad = 1,
                                      .audit_tolerance = 0.02};
    return 0;
}

void start_run(void)
{
    struct stream theirs;
    if (ingest_stream(ingest, &theirs, PATIENCE_MS, &e))
        fail_msg("no stream: %s", e.message);
    assert_memory_equal(&theirs, &stream, sizeof stream);
    assert_int_equal(plan_init(&plan, &stream, 1, BLOCK_SEQS, eval_blocks, WINDOW_BLOCKS * BLOCK_ROWS, &e), 0);
    struct shuffle_config sc = {.plan = &plan,
                                .row_elements = (size_t)N_SITES * stream.d_model,
                                .dtype = ROW_BF16,
                                .lookahead_rows = LOOKAHEAD_BLOCKS * BLOCK_ROWS,
                                .total_rows = N_BLOCKS * BLOCK_ROWS,
                                .wake = ingest_wake_fd(ingest)};
    assert_int_equal(shuffle_new(&shuffle, &sc, &e), 0);
    struct row_store_config ic = {.stream = &stream, .plan = &plan, .shuffle = shuffle, .dtype = ROW_BF16};
    if (ingest_start(ingest, &ic, &e))
        fail_msg("%s", e.message);
}

struct ingest_counters counters(void)
{
    struct ingest_counters c;
    ingest_counters(ingest, &c);
    return c;
}

/* ---- producers ---- */

bool receive(int i, int timeout_ms)
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

void expect(int i, enum message_type type)
{
    if (!receive(i, PATIENCE_MS))
        fail_msg("producer %d: nothing came, %s was due", i, message_type_name(type));
    if (m.type != type)
        fail_msg("producer %d: %s came, %s was due", i, message_type_name(m.type), message_type_name(type));
}

void expect_quiet(int i)
{
    if (receive(i, QUIET_MS))
        fail_msg("producer %d: %s came, nothing was due", i, message_type_name(m.type));
}

void say_hello(int i, const char *name)
{
    link_close(producers[i].link, 0);
    assert_int_equal(link_connect(&producers[i].link, endpoint, producers[i].keys, &e), 0);
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_HELLO;
    m.hello.version = PROTOCOL_VERSION;
    strcpy(m.hello.software, "test");
    strcpy(m.hello.producer, name);
    m.hello.stream = stream;
    assert_int_equal(link_send(producers[i].link, NULL, &m, &e), 0);
}

void join(int i, const char *name)
{
    say_hello(i, name);
    expect(i, MESSAGE_WELCOME);
}

void leave(int i)
{
    link_close(producers[i].link, 0);
    producers[i].link = NULL;
}

uint32_t expect_lease(int i)
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

void send_chunk(int i, const struct message_lease *lease, size_t chunk, float factor, bool wrong)
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

void answer(int i, const struct message_lease *lease, float factor)
{
    for (size_t chunk = 0; chunk < chunks_a_block(); chunk++)
        send_chunk(i, lease, chunk, factor, false);
}

/* ---- the training thread ---- */

bool take_soon(size_t n, int timeout_ms)
{
    static float *x; /* kept until all rows are there */
    static struct row_origin *origins;
    size_t elements = (size_t)N_SITES * stream.d_model;
    x = x ? x : malloc(n * elements * sizeof *x);
    origins = origins ? origins : malloc(n * sizeof *origins);
    int rc = shuffle_take(shuffle, x, origins, n, timeout_ms, &e);
    if (rc == 1)
        return false;
    if (rc)
        fail_msg("%zu rows cannot be taken: %s", n, e.message);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < elements; k++) {
            float wanted = bf16_to_f32(bf16_from_f32(value(origins[i].sequence, origins[i].position, k)));
            if (x[i * elements + k] != wanted)
                fail_msg("sequence %u position %u element %zu is %g, not %g", origins[i].sequence, origins[i].position,
                         k, (double)x[i * elements + k], (double)wanted);
        }
    free(x);
    free(origins);
    x = NULL;
    origins = NULL;
    return true;
}

void take(size_t n)
{
    if (!take_soon(n, PATIENCE_MS))
        fail_msg("%zu rows cannot be taken: not there", n);
}

int take_fails(void)
{
    float *x = malloc((size_t)N_SITES * stream.d_model * sizeof *x);
    int rc = shuffle_take(shuffle, x, NULL, 1, PATIENCE_MS, &e);
    free(x);
    return rc;
}

void work(int n_producers, const int *who, uint64_t blocks)
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

int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < MAX_PRODUCERS; i++) /* before the trainer, which would wait for their BYE */
        leave(i);
    ingest_free(ingest);
    shuffle_free(shuffle);
    plan_release(&plan);
    ingest = NULL;
    shuffle = NULL;
    return 0;
}

int run_open(void **state)
{
    return scratch_open(state);
}

const char *run_path(const char *name)
{
    return scratch_path(name);
}

int run_close(void **state)
{
    return scratch_close(state);
}
