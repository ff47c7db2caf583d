/* bench_wire.c - a chunk's way from a site's vectors to its slots in the window; see bench.h.
 *
 * Each stage alone, on one thread (as its owner runs it), over chunks of the size that producers send: rounding to bf16, the checksum, the socket
 * (DEALER to ROUTER by link.c, TCP loopback, a thread at each end), storing rows at random slots, gathering a batch.
 * Bound: a copy in memory of the same bytes, on one thread. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "bf16.h"
#include "clock.h"
#include "fingerprint.h"
#include "listener.h"
#include "mem.h"
#include "rng.h"
#include "scale.h"

enum quantity { ROUND, CHECKSUM, SOCKET, STORE, GATHER, COPY, QUANTITIES };
enum { BYTES = 256 << 20 }; /* beyond the caches */

struct bench {
    const struct bench_options *o;
    size_t row, rows, chunk_rows, chunks, bytes; /* values of a row; rows in all, in a chunk; bytes of all, in bf16 */
    float *vectors;                              /* [chunk_rows, row] */
    unsigned char *acts, *window;                /* bytes each */
    uint32_t *slots;                             /* [rows] a permutation */
    float *batch;                                /* [chunk_rows, row] */
    uint64_t checksum;
    struct listener *listener;
    struct link *sender;
    double seconds[QUANTITIES][BENCH_MAX_REPS];
};

/* Makes the sender known to the listener, which closes the connection of a stranger that sends as much as the chunks. */
static int greet(struct bench *b, struct err *e)
{
    static struct message m;
    struct link_peer peer;
    struct link_payload payload;
    int got = 0;
    double start = clock_s();
    m.type = MESSAGE_PING;
    m.ping.token = 1;
    if (link_send(b->sender, NULL, &m, e))
        return e->code;
    while (got == 0 && clock_s() - start < 10) {
        link_poll(listener_link(b->listener), -1, 100);
        got = listener_receive(b->listener, &peer, &m, &payload, e);
    }
    if (got != 1)
        return got ? got : err_set(e, ERR_PEER, "nothing came through");
    listener_vouch(b->listener, &peer, UINT64_MAX / 2);
    return 0;
}

static int make(struct bench *b, struct err *e)
{
    static const char *const endpoint[] = {"tcp://127.0.0.1:*"};
    const struct stream stream = {.n_sites = (uint32_t)b->o->n_sites,
                                  .d_model = (uint32_t)(b->o->n_inputs / b->o->n_sites)};
    b->row = b->o->n_inputs;
    if (2 * b->row > CHUNK_MAX_BYTES)
        return err_set(e, ERR_INPUT, "a row of %zu values in bf16 is more than a frame of %zu bytes", b->row,
                       CHUNK_MAX_BYTES);
    b->chunk_rows = stream_chunk_rows(&stream, ROW_BF16);
    b->chunks = BYTES / (b->chunk_rows * b->row * 2);
    b->rows = b->chunks * b->chunk_rows;
    b->bytes = b->rows * b->row * 2;
    if (!(b->vectors = mem_alloc(b->chunk_rows * b->row, sizeof(float), "vectors", e)) ||
        !(b->acts = mem_alloc(b->bytes, 1, "rows", e)) || !(b->window = mem_alloc(b->bytes, 1, "window", e)) ||
        !(b->slots = mem_alloc(b->rows, sizeof *b->slots, "slots", e)) ||
        !(b->batch = mem_alloc(b->chunk_rows * b->row, sizeof(float), "batch", e)) ||
        listener_open(&b->listener, endpoint, 1, NULL, e) ||
        link_connect(&b->sender, listener_endpoint(b->listener, 0), NULL, e) || greet(b, e))
        return e->code;
    struct rng r;
    rng_init(&r, 5, RNG_TEST, 0);
    for (size_t i = 0; i < b->chunk_rows * b->row; i++)
        b->vectors[i] = (float)rng_uniform(&r) - 0.5f;
    rng_permutation(&r, b->slots, (uint32_t)b->rows);
    return 0;
}

static unsigned char *chunk(const struct bench *b, size_t i)
{
    return b->acts + i * b->chunk_rows * b->row * 2;
}

static void nothing(void *context)
{
    (void)context;
}

static void *send_chunks(void *context)
{
    struct bench *b = context;
    static struct message m; /* 48 KB */
    m.type = MESSAGE_BATCH;
    m.batch = (struct message_batch){.lease = 1, .chunks = (uint32_t)b->chunks, .rows = (uint32_t)b->chunk_rows};
    struct err e;
    for (uint32_t i = 0; i < b->chunks; i++) {
        m.batch.chunk = i;
        if (link_send_payload(b->sender, &m, chunk(b, i), b->chunk_rows * b->row * 2, nothing, NULL, &e))
            break;
    }
    return NULL;
}

static int time_socket(struct bench *b, size_t rep, struct err *e)
{
    static struct message m;
    struct link_peer peer;
    struct link_payload payload;
    pthread_t thread;
    size_t got = 0;
    double start = clock_s();
    if (pthread_create(&thread, NULL, send_chunks, b))
        return err_set(e, ERR_SYSTEM, "cannot start a thread");
    while (got < b->chunks && clock_s() - start < 60) {
        link_poll(listener_link(b->listener), -1, 1000);
        for (int n; (n = listener_receive(b->listener, &peer, &m, &payload, e)) != 0; got++) {
            link_payload_release(&payload);
            if (n < 0)
                break;
        }
    }
    pthread_join(thread, NULL);
    b->seconds[SOCKET][rep] = clock_s() - start;
    return got == b->chunks ? 0 : err_set(e, ERR_PEER, "%zu of %zu chunks came through", got, b->chunks);
}

static int measure(struct bench *b, size_t rep, struct err *e)
{
    size_t row_bytes = b->row * 2;
    double clock[4] = {clock_s()};
    for (size_t i = 0; i < b->chunks; i++)
        scale_vector(b->vectors, b->chunk_rows * b->row, 0.7f, ROW_BF16, chunk(b, i));
    clock[1] = clock_s();
    for (size_t i = 0; i < b->chunks; i++)
        b->checksum += fingerprint_checksum(chunk(b, i), b->chunk_rows * row_bytes, NULL, 0);
    clock[2] = clock_s();
    b->seconds[ROUND][rep] = clock[1] - clock[0];
    b->seconds[CHECKSUM][rep] = clock[2] - clock[1];
    if (time_socket(b, rep, e))
        return e->code;
    clock[0] = clock_s();
    for (size_t i = 0; i < b->rows; i++)
        memcpy(b->window + b->slots[i] * row_bytes, b->acts + i * row_bytes, row_bytes);
    clock[1] = clock_s();
    for (size_t i = 0; i < b->rows; i++)
        bf16_to_f32_n(b->batch + i % b->chunk_rows * b->row, b->window + b->slots[b->rows - 1 - i] * row_bytes, b->row);
    clock[2] = clock_s();
    memcpy(b->window, b->acts, b->bytes);
    clock[3] = clock_s();
    b->seconds[STORE][rep] = clock[1] - clock[0];
    b->seconds[GATHER][rep] = clock[2] - clock[1];
    b->seconds[COPY][rep] = clock[3] - clock[2];
    return 0;
}

static void print(struct bench *b)
{
    static const char *const names[QUANTITIES] = {"scale, round to bf16", "checksum",       "socket, both ends",
                                                  "store in the window",  "gather a batch", "copy"};
    double s[QUANTITIES], all = 0, bytes = (double)b->bytes;
    for (enum quantity q = 0; q < QUANTITIES; q++)
        s[q] = bench_median(b->seconds[q], b->o->reps);
    for (enum quantity q = 0; q < COPY; q++)
        all += s[q];
    if (b->o->json) {
        json_t *line = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "part", "wire", "round_gb_s",
                                 bytes / s[ROUND] * 1e-9, "checksum_gb_s", bytes / s[CHECKSUM] * 1e-9, "socket_gb_s",
                                 bytes / s[SOCKET] * 1e-9, "store_gb_s", bytes / s[STORE] * 1e-9, "gather_gb_s",
                                 bytes / s[GATHER] * 1e-9, "copy_gb_s", bytes / s[COPY] * 1e-9);
        json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        json_decref(line);
        putchar('\n');
        return;
    }
    printf("wire: %zu rows of %zu values in bf16, %zu chunks of %zu rows, one thread a stage, medians of %zu\n",
           b->rows, b->row, b->chunks, b->chunk_rows, b->o->reps);
    printf("bound: copy %.1f GB/s (payload; it reads and writes)\n", bytes / s[COPY] * 1e-9);
    for (enum quantity q = 0; q < COPY; q++)
        bench_line(names[q], s[q], all, "way", bytes, "GB/s", s[COPY], "a copy");
    printf("%.0f rows/s if one thread did all of it\n", (double)b->rows / all);
}

int bench_wire(const struct bench_options *o, struct err *e)
{
    struct bench *b = mem_alloc(1, sizeof *b, "bench", e);
    if (!b)
        return ERR_MEMORY;
    b->o = o;
    int rc = make(b, e);
    if (rc == 0)
        rc = measure(b, 0, e); /* a warm-up */
    for (size_t rep = 0; rc == 0 && rep < o->reps; rep++)
        rc = measure(b, rep, e);
    if (rc == 0)
        print(b);
    link_close(b->sender, 0);
    listener_close(b->listener, 0);
    mem_free(b->vectors);
    mem_free(b->acts);
    mem_free(b->window);
    mem_free(b->slots);
    mem_free(b->batch);
    mem_free(b);
    return rc;
}
