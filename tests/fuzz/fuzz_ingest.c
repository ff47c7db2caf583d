/* fuzz_ingest.c - the trainer's side of the wire, whole: ingest.c with its thread, tables, intake and shuffle, against
 * four producers whose doings are scripted by the bytes.
 *
 * Byte 0 chooses the run (RUN_*). Then events, a byte each: the two high bits say which producer, the low four what it
 * does (enum event), with arguments behind. So that the bytes need not guess lease ids and checksums, a producer can
 * answer a lease as an honest one would, or with one thing wrong. What must hold: nobody crashes or hangs the trainer;
 * what it sends are messages; no row is served twice in an epoch, and none that is masked. */
#include <errno.h>
#include <poll.h>
#include <semaphore.h>

#include "bf16.h"
#include "fake_link.h"
#include "fuzz.h"
#include "ingest.h"
#include "row_store.h"

enum { N_PEERS = 4, BLOCK_SEQS = 2, N_LEASES = 64, MAX_STREAM_BYTES = 1 << 20, MAX_ROWS = 1 << 14, EPOCHS = 3 };
enum {
    RUN_F32 = 1,
    RUN_GIVEN_SCALE = 2,
    RUN_NO_EVALUATION = 4,
    RUN_LONG = 8,
    RUN_EXPECTED = 16,
    RUN_KEEP = 32,
    RUN_TOTAL_STD = 64
};
enum event {
    RAW,    /* u16 n, n bytes: a frame; after a BATCH u16 n, n bytes: its payload */
    HELLO,  /* u8: see hello() */
    ANSWER, /* u8: see answer(); the oldest lease that this producer holds */
    ERROR,  /* u8: about the oldest lease; the code */
    PING,
    BYE,
    RECONNECT, /* a new connection: a new id, leases forgotten */
    RUBBISH,   /* what link_receive reports itself: more frames than there may be */
    LOST,      /* what is sent to it from now on fails */
    JUMP,      /* u8: the clock goes on by that many times 20 ms */
    TURN,      /* nothing waits: ingest goes about its other duties */
    STALE,     /* a BATCH for a lease id that this producer does not hold */
    N_EVENTS,
};

struct held { /* a lease as its producer sees it */
    struct message_lease lease;
    int who;
    uint32_t chunk;
    size_t rows;
};

static const uint8_t *at, *end;
static unsigned run_kind;
static struct {
    uint8_t generation;
    bool lost, owes_bye;
} peers[N_PEERS];
static struct held held[N_LEASES];
static size_t n_held;
static struct stream stream; /* of the run, once known */
static enum row_dtype dtype;
static bool stream_came, main_asked, over; /* over: the script is at its end */
static sem_t for_main, for_ingest;
static struct plan plan;
static struct shuffle *shuffle;
static uint64_t last_epoch[MAX_ROWS]; /* 1 + the epoch in which the row was served last; 0: never */
static float x[MAX_STREAM_BYTES / sizeof(float)];

static unsigned u8(void)
{
    return at < end ? *at++ : 0;
}

static const uint8_t *bytes(size_t *n)
{
    *n = u8();
    *n |= (size_t)u8() << 8;
    if (*n > (size_t)(end - at))
        *n = (size_t)(end - at);
    at += *n;
    return at - *n;
}

/* ---- producers ---- */

static void hello(struct message *m, int who, unsigned how)
{
    struct stream *s = &m->hello.stream;
    m->type = MESSAGE_HELLO;
    m->hello.version = how & 0x10 ? 2 : 1;
    snprintf(m->hello.producer, sizeof m->hello.producer, "producer %d", who);
    bool is_long = run_kind & RUN_LONG; /* blocks of several chunks */
    *s = (struct stream){.n_sites = is_long ? 1 : 2,
                         .d_model = (is_long ? 1 : 3) + (how >> 5 & 1),
                         .seq_len = is_long ? 2101 : 5,
                         .rows_per_seq = is_long ? 2100 : 4,
                         .n_seq = how & 0x40 ? UINT32_MAX
                                  : is_long  ? 7
                                             : 15,
                         .n_models = 1,
                         .can_bf16 = !(how & 1),
                         .can_f32 = !(how & 2),
                         .has_scale = how & 4,
                         .scale = {1, 2},
                         .sites = {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"},
                         .tokens_fingerprint = "70cc",
                         .model_fingerprints = {"aaaa"}};
    if (how & 8)
        s->scale[0] = 3;
    if (how & 0x80)
        s->n_seq++;
}

static struct held *oldest(int who)
{
    for (size_t i = 0; i < n_held; i++)
        if (held[i].who == who)
            return &held[i];
    return NULL;
}

static void forget(struct held *h)
{
    memmove(h, h + 1, (size_t)(held + --n_held - h) * sizeof *h);
}

/* The next chunk of the oldest lease. how below 128: as it should be; else with one thing wrong, or masked. */
static bool answer(struct message *m, struct link_payload *payload, int who, unsigned how)
{
    struct held *h = oldest(who);
    struct message_batch *b = &m->batch;
    if (!h)
        return false;
    enum row_dtype d = h->lease.scaled ? dtype : ROW_F32;
    size_t block_rows = stream_block_rows(&stream, h->lease.count), per_chunk = stream_chunk_rows(&stream, d);
    size_t left = block_rows - h->rows, n = left < per_chunk ? left : per_chunk,
           elements = n * stream.n_sites * stream.d_model;
    m->type = MESSAGE_BATCH;
    *b = (struct message_batch){.lease = h->lease.lease,
                                .block = h->lease.block,
                                .chunk = h->chunk,
                                .chunks = (uint32_t)stream_chunk_count(&stream, d, block_rows),
                                .rows = (uint32_t)n};
    unsigned char *acts = fake_link_payload(payload, n * stream_row_bytes(&stream, d));
    for (size_t i = 0; i < elements; i++) {
        float value = how == 128 ? 0 : how == 129 ? 1e-40f : how == 130 ? 3e38f : 1 + (float)(i % 17);
        uint16_t half = bf16_from_f32(value);
        if (d == ROW_BF16)
            memcpy(acts + 2 * i, &half, 2);
        else
            memcpy(acts + 4 * i, &value, 4);
    }
    for (size_t i = 0; i < n; i++)
        b->origins[i] =
            (struct row_origin){h->lease.first + (uint32_t)((h->rows + i) / stream.rows_per_seq),
                                stream.seq_len - stream.rows_per_seq + (uint32_t)((h->rows + i) % stream.rows_per_seq),
                                how == 131 || (how == 132 && i % 2) ? ROW_MASKED : 7};
    if (how == 133)
        b->origins[n - 1].position ^= 1;
    if (how == 134)
        b->origins[0].sequence++;
    if (how == 135)
        memset(acts, 0xff, elements ? 4 : 0); /* NaN */
    b->checksum = fingerprint_checksum(acts, payload->size, b->origins, n * sizeof *b->origins);
    if (how == 136)
        acts[0] ^= 1;
    if (how == 137)
        b->chunk++;
    if (how == 138)
        b->chunks++;
    if (how == 139)
        b->rows--;
    if (how == 140)
        payload->size--;
    if (how == 141)
        b->block ^= 1;
    h->chunk++;
    h->rows += n;
    if (h->rows == block_rows)
        forget(h);
    return true;
}

static void lose_connection(int who)
{
    for (struct held *h; (h = oldest(who));)
        forget(h);
    peers[who].generation++;
    peers[who].lost = peers[who].owes_bye = false;
}

static struct link_peer address(int who)
{
    return (struct link_peer){.id = {(unsigned char)who, peers[who].generation}, .size = 5};
}

int fake_receive(struct link_peer *peer, struct message *m, struct link_payload *payload, struct err *e)
{
    static const char *const codes[] = {"source", "lease", "not-recorded", ""};
    for (int who = 0; who < N_PEERS; who++)
        if (peers[who].owes_bye) {
            peers[who].owes_bye = false;
            *peer = address(who);
            m->type = MESSAGE_BYE;
            m->text.reason[0] = '\0';
            return 1;
        }
    while (at < end && (!stream_came || main_asked)) {
        unsigned byte = u8();
        int who = (int)(byte >> 6);
        size_t n;
        const uint8_t *raw;
        struct held *h = oldest(who);
        *peer = address(who);
        switch ((enum event)(byte & 15)) {
        case RAW: {
            raw = bytes(&n);
            int rc = fake_link_decode(m, raw, n, e);
            if (rc)
                return rc;
            if (m->type == MESSAGE_BATCH) {
                raw = bytes(&n);
                memcpy(fake_link_payload(payload, n), raw, n);
            }
            return 1;
        }
        case HELLO:
            hello(m, who, u8());
            return 1;
        case ANSWER:
            if (answer(m, payload, who, u8()))
                return 1;
            break;
        case ERROR:
            m->type = MESSAGE_ERROR;
            m->error = (struct message_error){.lease = h ? h->lease.lease : 0};
            strcpy(m->error.code, codes[u8() % 4]);
            strcpy(m->error.text, "cannot");
            if (h)
                forget(h);
            return 1;
        case PING:
            m->type = MESSAGE_PING;
            m->ping = (struct message_ping){.token = 7, .computing = 0.5f};
            return 1;
        case BYE:
            m->type = MESSAGE_BYE;
            strcpy(m->text.reason, "tired");
            for (; h; h = oldest(who))
                forget(h);
            return 1;
        case RECONNECT:
            lose_connection(who);
            break;
        case RUBBISH:
            if (u8() & 1)
                peer->size = 0; /* an id that is not one of ours */
            return err_set(e, ERR_PEER, "BATCH with 3 frames after its payload");
        case LOST:
            peers[who].lost = true;
            break;
        case JUMP:
            fake_clock_jump(20 * (int64_t)u8());
            return 0;
        case STALE:
            if (stream.n_sites && answer(m, payload, (int)(u8() % N_PEERS), 0))
                return 1;
            break;
        case TURN:
        case N_EVENTS:
        default:
            return 0;
        }
    }
    return 0;
}

int fake_sent(const struct link_peer *peer, const struct message *m, const unsigned char *data, size_t size)
{
    int who = peer->id[0];
    MUST(peer->size == 5 && who < N_PEERS && !data && !size);
    if (m->type == MESSAGE_END && peer->id[1] == peers[who].generation)
        peers[who].owes_bye = true;
    if (peers[who].lost || peer->id[1] != peers[who].generation)
        return -1;
    if (m->type == MESSAGE_WELCOME)
        stream_came = true;
    if (m->type == MESSAGE_LEASE && n_held < N_LEASES)
        held[n_held++] = (struct held){.lease = m->lease, .who = who};
    if (m->type == MESSAGE_REJECT)
        for (struct held *h; (h = oldest(who));)
            forget(h);
    return 0;
}

/* ---- the run ---- */

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0)
        MUST(errno == EINTR);
}

/* What the training thread would do, here on the ingest thread so that a run is the same every time. */
static void train(void)
{
    struct shuffle_state state;
    struct row_origin o;
    struct err e = {0};
    int64_t ahead = fake_clock_set(0); /* it waits for a condition */
    while (shuffle_take(shuffle, x, &o, 1, 0, &e) == 0) {
        shuffle_state(shuffle, &state);
        uint64_t window = state.next.position ? state.next.window : state.next.window - 1;
        uint64_t epoch = 1 + window / plan.windows_per_epoch;
        size_t row = (size_t)o.sequence * stream.rows_per_seq + o.position - (stream.seq_len - stream.rows_per_seq);
        MUST(o.sequence < stream.n_seq && o.position < stream.seq_len && o.token != ROW_MASKED);
        MUST(last_epoch[row] != epoch);
        last_epoch[row] = epoch;
        if (epoch > EPOCHS)
            break;
    }
    fake_clock_set(ahead);
}

/* The ingest thread and this program's main thread take turns, so that a run is the same every time. */
void fake_poll(int fd)
{
    if (stream_came && !main_asked) {
        main_asked = true;
        sem_post(&for_main);
        wait_for(&for_ingest);
    }
    if (fd < 0) { /* waiting for BYEs: those that owe none will never come */
        fake_clock_jump(1000);
        return;
    }
    if (shuffle)
        train();
    if (at < end)
        return;
    if (!over) {
        over = true;
        sem_post(&for_main);
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    poll(&p, 1, 100);
}

void fake_opened(bool open)
{
    (void)open;
}

/* What run.c does once the first producer has come; false: no such run can be. */
static bool start(struct ingest *in, uint32_t **scale_blocks)
{
    struct err e = {0};
    uint32_t n;
    size_t rows = (size_t)stream.n_seq * stream.rows_per_seq;
    if (plan_init(&plan, &stream, 1, BLOCK_SEQS, run_kind & RUN_NO_EVALUATION ? 0 : 1,
                  5 * (uint64_t)stream.rows_per_seq, &e) ||
        rows > MAX_ROWS || rows * stream_row_bytes(&stream, ROW_F32) > MAX_STREAM_BYTES)
        return false;
    struct shuffle_config sc = {.plan = &plan,
                                .row_elements = (size_t)stream.n_sites * stream.d_model,
                                .dtype = dtype,
                                .lookahead_rows = plan.max_block_rows,
                                .total_rows = EPOCHS * plan.epoch_rows,
                                .wake = ingest_wake_fd(in)};
    MUST(shuffle_new(&shuffle, &sc, &e) == 0);
    struct row_store_config c = {.stream = &stream,
                                 .plan = &plan,
                                 .shuffle = shuffle,
                                 .dtype = dtype,
                                 .scaled = run_kind & RUN_GIVEN_SCALE || stream.has_scale,
                                 .scale_mode = run_kind & RUN_TOTAL_STD ? SCALE_TOTAL_STD : SCALE_MEAN_NORM,
                                 .scale_target = 1,
                                 .keep = run_kind & RUN_KEEP};
    if (!c.scaled || c.keep) {
        MUST(*scale_blocks = calloc(plan.window_blocks, sizeof **scale_blocks));
        plan_window(&plan, 0, *scale_blocks, &n);
        c.scale_blocks = *scale_blocks;
        c.n_scale_blocks = 1;
    }
    MUST(ingest_start(in, &c, &e) == 0);
    return true;
}

static void check_end(struct ingest *in)
{
    struct err e = {0};
    struct ingest_measured m;
    const unsigned char *held_out;
    size_t n_held_out;
    struct ingest_counters counters;
    if (ingest_measured(in, &m, 0, &e) == 0) {
        for (uint32_t i = 0; i < stream.n_sites; i++)
            MUST(m.scale[i] > 0);
        MUST(!m.rows == !(run_kind & RUN_KEEP) && m.n_rows <= plan.max_block_rows);
        size_t bytes = m.n_rows * stream_row_bytes(&stream, dtype);
        unsigned char *copy = malloc(bytes + 1); /* all of them can be read, sanitizers say */
        MUST(copy);
        if (bytes)
            memcpy(copy, m.rows, bytes);
        free(copy);
        ingest_forget(in);
    }
    if (ingest_evaluation_rows(in, &held_out, &n_held_out, 0, &e) == 0)
        MUST(n_held_out * stream_row_bytes(&stream, dtype) <= MAX_STREAM_BYTES);
    static struct ingest_snapshot snapshot; /* 70 KB */
    ingest_snapshot(in, &snapshot);
    MUST(snapshot.n_producers <= N_PEERS && snapshot.n_producers == snapshot.counters.producers);
    ingest_counters(in, &counters);
    MUST(counters.blocks_done <= counters.blocks_leased);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const endpoints[] = {"tcp://127.0.0.1:1"};
    static const float given[STREAM_MAX_SITES] = {1, 2};
    static struct message expected;
    struct ingest_options o = {.endpoints = endpoints,
                               .n_endpoints = 1,
                               .run_id = "aa",
                               .block_seqs = BLOCK_SEQS,
                               .credit = 2,
                               .heartbeat_ms = 100,
                               .timeout_ms = 1000,
                               .source_retries = 1,
                               .ban_ms = 5000,
                               .max_bad = 0.5};
    struct ingest *in;
    struct err e = {0};
    uint32_t *scale_blocks = NULL;
    struct scale_list scale;
    at = data;
    end = data + size;
    run_kind = u8();
    memset(peers, 0, sizeof peers);
    memset(last_epoch, 0, sizeof last_epoch);
    n_held = 0;
    stream = (struct stream){0};
    stream_came = main_asked = over = false;
    shuffle = NULL;
    sem_init(&for_main, 0, 0);
    sem_init(&for_ingest, 0, 0);
    hello(&expected, 0, 0);
    o.dtype = dtype = run_kind & RUN_F32 ? ROW_F32 : ROW_BF16;
    o.expected = run_kind & RUN_EXPECTED ? &expected.hello.stream : NULL;
    if (run_kind & RUN_GIVEN_SCALE) {
        scale_list_set(&scale, given, run_kind & RUN_LONG ? 1 : 2);
        o.scale = &scale;
    }
    MUST(ingest_new(&in, &o, &e) == 0);
    wait_for(&for_main);
    int64_t ahead = fake_clock_set(0);
    if (!over) { /* the ingest thread waits, and somebody was welcome */
        MUST(ingest_stream(in, &stream, 0, &e) == 0);
        fake_clock_set(ahead);
        if (!start(in, &scale_blocks))
            end = at;
        sem_post(&for_ingest);
        wait_for(&for_main);
    }
    ingest_finish(in, true, "done");
    fake_clock_set(0);
    check_end(in);
    ingest_free(in);
    shuffle_free(shuffle);
    plan_release(&plan);
    free(scale_blocks);
    sem_destroy(&for_main);
    sem_destroy(&for_ingest);
    return 0;
}
