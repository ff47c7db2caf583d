/* fuzz_serve.c - the producer's side of the wire, whole: serve.c with its two threads, against a trainer whose doings
 * are scripted by the bytes.
 *
 * Byte 0 chooses the source (SOURCE_*). Then events: a byte, whose low four bits say what happens (enum event), and its
 * arguments. At the end of the bytes the trainer says END. What must hold: nobody crashes or hangs the producer; each
 * chunk that it sends under a lease is the one that belongs there, with the right checksum. */
#include <poll.h>
#include <signal.h>

#include "fake_link.h"
#include "fuzz.h"
#include "serve.h"

enum { SOURCE_F32 = 1, SOURCE_SCALED = 2, SOURCE_LONG = 4, SOURCE_KEEPS = 8 };
enum { N_LEASES = 2048, PATIENCE_MS = 50 };
enum event {
    RAW,     /* u16 n, n bytes: a frame */
    WELCOME, /* u8: see welcome() */
    LEASE,   /* u8 first, u8 how: see lease() */
    PING,
    ERROR, /* u8: the code */
    REJECT,
    END, /* u8: ok */
    BYE_ACK,
    JUMP, /* u8: the clock goes on by that many times 20 ms */
    WAIT, /* for what is being computed */
    STOP, /* a signal */
    LOST, /* what is sent from now on fails, until the next connection */
    TURN,
    DISCONNECTED, /* and the producer is told */
};

struct given { /* a lease as the trainer gave it */
    struct message_lease lease;
    uint32_t chunk;
    size_t rows;
    bool done;
};

static const uint8_t *at, *end;
static struct source source;
static volatile sig_atomic_t stop;
static bool lost, is_open;
static struct message_welcome terms; /* of this connection: the first WELCOME's */
static bool welcome_said;
static struct given given[N_LEASES];
static size_t n_given, n_answered;
static uint64_t last_lease;

static unsigned u8(void)
{
    return at < end ? *at++ : 0;
}

/* ---- the source ---- */

static int compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    const struct stream *s = self;
    float vector[4] = {1, 2, 3, 4};
    MUST(n > 0 && first < s->n_seq && n <= s->n_seq - first && s->d_model <= 4);
    MUST(r->n_rows == stream_block_rows(s, n) && r->n_rows <= r->max_rows);
    if (first == 5)
        return err_set(e, ERR_INPUT, "sequence 5: site 1: NaN");
    if (first == 6)
        return err_set(e, ERR_ABSENT, "sequence 6 is not recorded");
    for (size_t i = 0; i < r->n_rows; i++) {
        for (size_t site = 0; site < s->n_sites; site++)
            rows_put(r, i, site, vector);
        rows_put_origin(
            r, i, (struct row_origin){first + (uint32_t)(i / s->rows_per_seq), (uint32_t)(i % s->rows_per_seq), 9});
    }
    return 0;
}

static int keep(void *context, const struct message_lease *lease, uint32_t block_seqs, struct rows *rows, struct err *e)
{
    (void)context;
    MUST(block_seqs && rows->n_rows && lease->count);
    return lease->first == 3 ? err_set(e, ERR_SYSTEM, "disk full") : 0;
}

/* ---- the trainer ---- */

static void welcome(struct message *m, unsigned how)
{
    const struct stream *s = &source.stream;
    m->type = MESSAGE_WELCOME;
    m->welcome = (struct message_welcome){.run = "aa",
                                          .dtype = s->can_bf16 ? ROW_BF16 : ROW_F32,
                                          .has_scale = how & 1,
                                          .n_scale = s->n_sites,
                                          .scale = {1, 2},
                                          .block_seqs = 2,
                                          .credit = 2,
                                          .heartbeat_ms = 100,
                                          .timeout_ms = 1000};
    if (s->has_scale) {
        m->welcome.has_scale = true;
        memcpy(m->welcome.scale, s->scale, sizeof m->welcome.scale);
    }
    switch (how >> 4) {
    case 1:
        m->welcome.block_seqs = 0;
        break;
    case 2:
        m->welcome.block_seqs = UINT32_MAX;
        break;
    case 3:
        m->welcome.block_seqs = 3;
        break;
    case 4:
        m->welcome.n_scale = 1;
        break;
    case 5:
        m->welcome.dtype = s->can_bf16 ? ROW_F32 : ROW_BF16;
        break;
    case 6:
        m->welcome.credit = 65;
        break;
    case 7:
        m->welcome.timeout_ms = 50;
        break;
    case 8:
        m->welcome.scale[0] = 3e38f;
        break;
    }
}

static void say_welcome(const struct message *m)
{
    if (!welcome_said)
        terms = m->welcome;
    welcome_said = true;
}

static void lease(struct message *m, unsigned first, unsigned how)
{
    m->type = MESSAGE_LEASE;
    m->lease = (struct message_lease){
        .lease = ++last_lease, .block = first / 2, .first = first % 8, .count = 1 + (how >> 1 & 1), .scaled = how & 1};
    if (how & 0x10)
        m->lease.first = UINT32_MAX - 1;
    if (how & 0x20)
        m->lease.count = UINT32_MAX;
    if (how & 0x40)
        m->lease.count = 0;
    if (n_given < N_LEASES)
        given[n_given++] = (struct given){.lease = m->lease};
}

int fake_receive(struct link_peer *peer, struct message *m, struct link_payload *payload, struct err *e)
{
    (void)peer;
    MUST(is_open);
    while (at < end) {
        size_t n;
        switch ((enum event)(u8() & 15)) {
        case RAW: {
            n = u8();
            n |= (size_t)u8() << 8;
            if (n > (size_t)(end - at))
                n = (size_t)(end - at);
            int rc = fake_link_decode(m, at, n, e);
            at += n;
            if (rc)
                return rc;
            if (m->type == MESSAGE_BATCH)
                fake_link_payload(payload, 16);
            if (m->type == MESSAGE_LEASE && n_given < N_LEASES)
                given[n_given++] = (struct given){.lease = m->lease};
            if (m->type == MESSAGE_WELCOME)
                say_welcome(m);
            return 1;
        }
        case WELCOME:
            welcome(m, u8());
            say_welcome(m);
            return 1;
        case LEASE: {
            unsigned first = u8();
            lease(m, first, u8());
            return 1;
        }
        case PING:
            m->type = MESSAGE_PING;
            m->ping = (struct message_ping){.token = 7};
            return 1;
        case ERROR:
            m->type = MESSAGE_ERROR;
            m->error.lease = 0;
            strcpy(m->error.code, u8() & 1 ? "unknown-peer" : "else");
            strcpy(m->error.text, "say HELLO first");
            return 1;
        case REJECT:
            m->type = MESSAGE_REJECT;
            strcpy(m->text.reason, "no");
            return 1;
        case END:
            m->type = MESSAGE_END;
            m->end.ok = u8() & 1;
            strcpy(m->end.reason, "done");
            return 1;
        case BYE_ACK:
            m->type = MESSAGE_BYE_ACK;
            return 1;
        case JUMP:
            fake_clock_jump(20 * (int64_t)u8());
            return 0;
        case WAIT:
            return 0; /* fake_poll does it */
        case STOP:
            stop = 1;
            break;
        case LOST:
            lost = true;
            break;
        case DISCONNECTED:
            fake_disconnect();
            break;
        case TURN:
        default:
            return 0;
        }
    }
    m->type = MESSAGE_END;
    m->end.ok = true;
    strcpy(m->end.reason, "done");
    return 1;
}

static struct given *find(uint64_t id)
{
    for (size_t i = n_given; i-- > 0;)
        if (given[i].lease.lease == id && !given[i].done)
            return &given[i];
    return NULL;
}

static void check_chunk(const struct message_batch *b, const unsigned char *data, size_t size)
{
    const struct stream *s = &source.stream;
    struct given *g = find(b->lease);
    MUST(welcome_said && g);
    MUST(b->checksum == fingerprint_checksum(data, size, b->origins, b->rows * sizeof *b->origins));
    MUST(b->block == g->lease.block && b->chunk == g->chunk && b->rows > 0);
    size_t row_bytes = size / b->rows, rows = stream_block_rows(s, g->lease.count);
    enum row_dtype dtype = row_bytes == stream_row_bytes(s, ROW_F32) ? ROW_F32 : ROW_BF16;
    MUST(row_bytes * b->rows == size && row_bytes == stream_row_bytes(s, dtype));
    MUST(g->lease.scaled ? dtype == terms.dtype : dtype == ROW_F32);
    MUST(b->chunks == stream_chunk_count(s, dtype, rows));
    for (size_t i = 0; i < b->rows; i++)
        MUST(b->origins[i].sequence == g->lease.first + (g->rows + i) / s->rows_per_seq &&
             b->origins[i].position == (g->rows + i) % s->rows_per_seq);
    g->chunk++;
    g->rows += b->rows;
    if (g->chunk == b->chunks) {
        MUST(g->rows == rows);
        g->done = true;
        n_answered++;
    }
}

int fake_sent(const struct link_peer *peer, const struct message *m, const unsigned char *data, size_t size)
{
    MUST(!peer && is_open);
    if (m->type == MESSAGE_BATCH)
        check_chunk(&m->batch, data, size);
    if (m->type == MESSAGE_ERROR && m->error.lease) {
        struct given *g = find(m->error.lease);
        MUST(g);
        g->done = true;
        n_answered++;
    }
    return lost ? -1 : 0;
}

void fake_poll(int fd)
{
    bool wait = at < end && (*at & 15) == WAIT && n_answered < n_given;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (wait)
        poll(&p, 1, PATIENCE_MS);
}

void fake_opened(bool open)
{
    is_open = open;
    lost = false;
    n_given = n_answered = 0;
    welcome_said = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct serve_report report;
    struct err e = {0};
    at = data;
    end = data + size;
    unsigned kind = u8();
    stop = 0;
    last_lease = 0;
    fake_clock_set(0);
    bool is_long = kind & SOURCE_LONG; /* a block of several chunks */
    source = (struct source){.self = &source.stream, .compute = compute};
    source.stream = (struct stream){.n_sites = is_long ? 1 : 2,
                                    .d_model = is_long ? 1 : 3,
                                    .seq_len = is_long ? 2100 : 4,
                                    .rows_per_seq = is_long ? 2100 : 4,
                                    .n_seq = 9,
                                    .n_models = 1,
                                    .can_bf16 = !(kind & SOURCE_F32),
                                    .can_f32 = !(kind & SOURCE_SCALED) || kind & SOURCE_F32,
                                    .has_scale = kind & SOURCE_SCALED,
                                    .scale = {1, 2},
                                    .sites = {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"},
                                    .tokens_fingerprint = "70cc",
                                    .model_fingerprints = {"aaaa"}};
    struct serve_options o = {.endpoint = "nowhere",
                              .producer = "fuzz",
                              .give_up_after_ms = 20000,
                              .stop = &stop,
                              .keep = kind & SOURCE_KEEPS ? keep : NULL};
    if (serve(&source, &o, &report, &e))
        MUST(e.code && e.message[0]);
    return 0;
}
