/* test_link.c - the sockets: messages and payloads both ways, what is refused at bind, peers that misbehave or vanish.
 *
 * The misbehaving peers are plain ZeroMQ sockets: the one test that includes zmq.h. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <zmq.h>

#include "clock.h"
#include "link.h"
#include "scratch.h"
#include "seal.h"

#define PATIENCE_MS 10000 /* for what must come; what must not come is waited for QUIET_MS */
#define QUIET_MS 50

static struct message m; /* 50 KB */
static struct link_peer peer;
static const struct link_door insecure = {.insecure = true};
static struct link_payload payload;
static struct err e;

/* ---- helpers ---- */

static const char *ipc_endpoint(const char *name)
{
    static char text[300];
    snprintf(text, sizeof text, "ipc://%s/%s", scratch_folder, name);
    return text;
}

static struct link *listen_at(const char *endpoint)
{
    struct link *l;
    if (link_listen(&l, &endpoint, 1, NULL, &e))
        fail_msg("%s", e.message);
    return l;
}

static struct link *connect_to(const char *endpoint)
{
    struct link *l;
    if (link_connect(&l, endpoint, NULL, &e))
        fail_msg("%s", e.message);
    return l;
}

/* The next message, or what link_receive says instead of it; 0 if nothing comes for that long. */
static int receive(struct link *l, int timeout_ms)
{
    int got;
    int64_t until = clock_ms() + timeout_ms;
    while ((got = link_receive(l, &peer, &m, &payload, &e)) == 0 && clock_ms() < until)
        link_poll(l, -1, 20);
    return got;
}

static void expect_ping(struct link *l, uint64_t token)
{
    int got = receive(l, PATIENCE_MS);
    if (got != 1)
        fail_msg("PING %u did not come: %s", (unsigned)token, got ? e.message : "nothing came");
    assert_int_equal(m.type, MESSAGE_PING);
    assert_int_equal(m.ping.token, token);
    assert_null(payload.data);
}

static int send_ping(struct link *l, const struct link_peer *to, uint64_t token)
{
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_PING;
    m.ping.token = token;
    return link_send(l, to, &m, &e);
}

static void count_release(void *context)
{
    atomic_fetch_add((atomic_int *)context, 1);
}

static int send_batch(struct link *l, uint32_t chunk, const void *data, size_t size, atomic_int *released)
{
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_BATCH;
    m.batch.chunk = chunk;
    m.batch.rows = 2;
    m.batch.origins[1].sequence = chunk;
    return link_send_payload(l, &m, data, size, count_release, released, &e);
}

/* Waits until the count is n, and a little longer that it stays so. */
static void expect_released(atomic_int *released, int n)
{
    for (int64_t until = clock_ms() + PATIENCE_MS; atomic_load(released) < n && clock_ms() < until;)
        usleep(1000);
    usleep(1000);
    assert_int_equal(atomic_load(released), n);
}

/* ---- both ways ---- */

static void there_and_back(const char *endpoint)
{
    struct link *router = listen_at(endpoint), *dealer = connect_to(link_endpoint(router, 0));
    size_t size = CHUNK_MAX_BYTES;
    unsigned char *data = malloc(size);
    atomic_int released = 0;
    for (size_t i = 0; i < size; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    expect_ping(router, 1);
    struct link_peer client = peer;
    assert_true(client.size > 0);
    assert_int_equal(send_ping(router, &client, 2), 0);
    expect_ping(dealer, 2);
    assert_int_equal(peer.size, 0);

    link_vouch(router, &client, 4 * size); /* a stranger may not send so much */
    for (uint32_t chunk = 0; chunk < 3; chunk++)
        assert_int_equal(send_batch(dealer, chunk, data, size - chunk, &released), 0);
    assert_int_equal(send_ping(dealer, NULL, 3), 0);
    for (uint32_t chunk = 0; chunk < 3; chunk++) {
        assert_int_equal(receive(router, PATIENCE_MS), 1);
        assert_int_equal(m.type, MESSAGE_BATCH);
        assert_int_equal(m.batch.chunk, chunk);
        assert_int_equal(m.batch.origins[1].sequence, chunk);
        assert_int_equal(payload.size, size - chunk);
        assert_memory_equal(payload.data, data, size - chunk);
        assert_memory_equal(&peer, &client, sizeof peer);
        link_payload_release(&payload);
        assert_null(payload.data);
        link_payload_release(&payload);
    }
    expect_ping(router, 3);
    assert_int_equal(receive(router, QUIET_MS), 0);
    link_close(dealer, 0);
    expect_released(&released, 3);
    link_close(router, 0);
    assert_int_equal(atomic_load(&released), 3);
    free(data);
}

static void by_ipc(void **state)
{
    (void)state;
    there_and_back(ipc_endpoint("both-ways"));
}

static void by_tcp(void **state)
{
    (void)state;
    struct link *l = listen_at("tcp://127.0.0.1:*");
    const char *endpoint = link_endpoint(l, 0); /* the port is told */
    assert_true(strncmp(endpoint, "tcp://127.0.0.1:", 16) == 0 && atoi(endpoint + 16) > 0);
    assert_string_equal(link_endpoint(l, 1), "");
    link_close(l, 0);
    there_and_back("tcp://127.0.0.1:*");
}

static void several_endpoints_and_peers(void **state)
{
    (void)state;
    const char *endpoints[] = {"tcp://127.0.0.1:*", ipc_endpoint("second")};
    struct link *router, *dealers[4];
    struct link_peer peers[4];
    assert_int_equal(link_listen(&router, endpoints, 2, NULL, &e), 0);
    for (unsigned i = 0; i < 4; i++) {
        dealers[i] = connect_to(link_endpoint(router, i % 2));
        assert_int_equal(send_ping(dealers[i], NULL, i), 0);
        expect_ping(router, i);
        peers[i] = peer;
        for (unsigned j = 0; j < i; j++)
            assert_memory_not_equal(&peers[i], &peers[j], sizeof peer);
    }
    for (unsigned i = 0; i < 4; i++) /* each gets its own */
        assert_int_equal(send_ping(router, &peers[i], 10 + i), 0);
    for (unsigned i = 0; i < 4; i++) {
        expect_ping(dealers[i], 10 + i);
        assert_int_equal(link_receive(dealers[i], &peer, &m, &payload, &e), 0);
        link_close(dealers[i], 0);
    }
    link_close(router, 0);
}

/* The trainer need not be there first. */
static void connect_first(void **state)
{
    (void)state;
    const char *endpoint = ipc_endpoint("late");
    struct link *dealer = connect_to(endpoint);
    assert_int_equal(send_ping(dealer, NULL, 5), 0);
    usleep(20000);
    struct link *router = listen_at(endpoint);
    expect_ping(router, 5);
    link_close(dealer, 0);
    link_close(router, 0);
}

static void poll_wakes(void **state)
{
    (void)state;
    struct link *router = listen_at(ipc_endpoint("poll"));
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t one = 1;
    int64_t start = clock_ms();
    link_poll(router, fd, 60);
    assert_true(clock_ms() - start >= 50);
    assert_int_equal(write(fd, &one, sizeof one), sizeof one);
    start = clock_ms();
    link_poll(router, fd, PATIENCE_MS);
    assert_true(clock_ms() - start < PATIENCE_MS / 2);
    close(fd);
    link_close(router, 0);
}

/* ---- payloads come back exactly once ---- */

static void peer_never_comes(void **state)
{
    (void)state;
    static unsigned char data[100000];
    atomic_int released = 0;
    struct link *dealer = connect_to(ipc_endpoint("nobody"));
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(send_batch(dealer, i, data, sizeof data, &released), 0);
    assert_int_equal(atomic_load(&released), 0); /* still wanted */
    link_close(dealer, 0);
    assert_int_equal(atomic_load(&released), 5); /* and not one later than the close */
}

static void peer_does_not_read(void **state)
{
    (void)state;
    static unsigned char data[1 << 20];
    enum { N = 200 };
    atomic_int released = 0;
    struct link *router = listen_at(ipc_endpoint("slow")), *dealer = connect_to(link_endpoint(router, 0));
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(send_batch(dealer, i, data, sizeof data, &released), 0);
    expect_released(&released, N); /* no receive HWM (see link.c): all of it is taken, and waits there */
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(receive(router, PATIENCE_MS), 1);
        assert_int_equal(m.batch.chunk, i); /* none is lost, all in order */
        assert_int_equal(payload.size, sizeof data);
        link_payload_release(&payload);
    }
    link_close(dealer, 0);

    atomic_store(&released, 0); /* closed on either side with much under way */
    for (int side = 0; side < 2; side++) {
        dealer = connect_to(link_endpoint(router, 0));
        for (uint32_t i = 0; i < 50; i++)
            assert_int_equal(send_batch(dealer, i, data, sizeof data, &released), 0);
        assert_int_equal(receive(router, PATIENCE_MS), 1);
        link_payload_release(&payload);
        if (side)
            link_close(router, 0);
        link_close(dealer, 0);
        assert_int_equal(atomic_load(&released), 50 * (side + 1));
        while (!side && receive(router, QUIET_MS) == 1)
            link_payload_release(&payload);
    }
}

/* A payload may be kept while its link goes on and other messages come. */
static void a_payload_is_held(void **state)
{
    (void)state;
    static unsigned char data[5000];
    atomic_int released = 0;
    struct link *router = listen_at(ipc_endpoint("held")), *dealer = connect_to(link_endpoint(router, 0));
    memset(data, 7, sizeof data);
    assert_int_equal(send_batch(dealer, 0, data, sizeof data, &released), 0);
    assert_int_equal(receive(router, PATIENCE_MS), 1);
    struct link_payload held = payload;
    expect_released(&released, 1);
    memset(data, 8, sizeof data);
    assert_int_equal(send_batch(dealer, 1, data, sizeof data, &released), 0);
    assert_int_equal(receive(router, PATIENCE_MS), 1);
    assert_int_equal(payload.data[4999], 8);
    assert_int_equal(held.data[0], 7);
    assert_int_equal(held.data[4999], 7);
    link_payload_release(&held);
    link_payload_release(&payload);
    link_close(dealer, 0);
    link_close(router, 0);
}

/* ---- where a trainer may listen ---- */

static void listen_refuses(const char *endpoint, int code, const char *why)
{
    struct link *l = (struct link *)1;
    int rc = link_listen(&l, &endpoint, 1, NULL, &e);
    if (rc != code || e.code != code)
        fail_msg("%s: gives %d, should be %d", endpoint, rc, code);
    if (!strstr(e.message, endpoint) || !strstr(e.message, why))
        fail_msg("'%s' should name '%s' and '%s'", e.message, endpoint, why);
    assert_null(l);
}

static void only_loopback(void **state)
{
    (void)state;
    static const char *const open_to_all[] = {
        "tcp://0.0.0.0:*",      "tcp://*:*",
        "tcp://[::]:*",         "tcp://192.168.1.1:5555",
        "tcp://eth0:5555",      "tcp://127.0.0.1.example.org:5555",
        "tcp://localhost.x:55", "tcp://128.0.0.1:5555",
    };
    static const char *const nonsense[] = {
        "inproc://x", "udp://127.0.0.1:5555", "tcp://127.0.0.1", "127.0.0.1:5555", "", "tcp://", "tcp://:",
        "ipc://",     "tcp://127.0.0.1:"};
    for (size_t i = 0; i < sizeof open_to_all / sizeof open_to_all[0]; i++)
        listen_refuses(open_to_all[i], ERR_INPUT, "--insecure");
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++)
        listen_refuses(nonsense[i], ERR_INPUT, "must be tcp://HOST:PORT or ipc://PATH");
    link_close(listen_at("tcp://127.1.2.3:*"), 0);
    link_close(listen_at("tcp://localhost:*"), 0);

    struct link *l;
    const char *both[] = {"tcp://127.0.0.1:*", "tcp://0.0.0.0:*"};
    assert_int_equal(link_listen(&l, both, 2, NULL, &e), ERR_INPUT);
    assert_null(l);
    assert_int_equal(link_listen(&l, both, 2, &insecure, &e), 0); /* asked for */
    assert_true(strncmp(link_endpoint(l, 1), "tcp://0.0.0.0:", 14) == 0);
    link_close(l, 0);
    assert_int_equal(link_listen(&l, both, 0, &insecure, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "0 endpoints"));
    const char *nine[9] = {both[0], both[0], both[0], both[0], both[0], both[0], both[0], both[0], both[0]};
    assert_int_equal(link_listen(&l, nine, 9, &insecure, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "9 endpoints"));
}

static void in_use(void **state)
{
    (void)state;
    for (int ipc = 0; ipc < 2; ipc++) {
        struct link *first = listen_at(ipc ? ipc_endpoint("in-use") : "tcp://127.0.0.1:*");
        char endpoint[256];
        strcpy(endpoint, link_endpoint(first, 0));
        listen_refuses(endpoint, ERR_SYSTEM, "in use");
        struct link *dealer = connect_to(endpoint); /* the first one goes on as if nothing had been */
        assert_int_equal(send_ping(dealer, NULL, 9), 0);
        expect_ping(first, 9);
        link_close(dealer, 0);
        link_close(first, 0);
        link_close(listen_at(endpoint), 0); /* free again */
    }
}

static void what_lies_at_an_ipc_path(void **state)
{
    (void)state;
    /* a socket that a killed trainer left behind is replaced */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", scratch_path("stale"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    struct stat st;
    struct link *router = listen_at(ipc_endpoint("stale"));
    assert_int_equal(stat(address.sun_path, &st), 0);
    link_close(router, 0);
    assert_int_equal(stat(address.sun_path, &st), -1); /* a closed one leaves nothing */

    /* somebody's file is not */
    const char *file = scratch_write("weights.npy", "precious", 8);
    listen_refuses(ipc_endpoint("weights.npy"), ERR_SYSTEM, "cannot listen");
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_size, 8);

    listen_refuses(ipc_endpoint("no/such/folder"), ERR_SYSTEM, "cannot listen");
    char endpoint[256] = "ipc:///tmp/";
    memset(endpoint + 11, 'x', 200); /* longer than a socket's address */
    listen_refuses(endpoint, ERR_SYSTEM, "cannot listen");
    struct link *l;
    assert_int_equal(link_connect(&l, "nonsense", NULL, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "'nonsense'"));
    assert_null(l);
}

/* ---- peers that break the protocol ---- */

static void *raw_context, *raw; /* a plain DEALER */

static void raw_open(const char *endpoint, const char *routing_id)
{
    int linger = 0;
    raw_context = zmq_ctx_new();
    raw = zmq_socket(raw_context, ZMQ_DEALER);
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    if (routing_id)
        assert_int_equal(zmq_setsockopt(raw, ZMQ_ROUTING_ID, routing_id, strlen(routing_id)), 0);
    assert_int_equal(zmq_connect(raw, endpoint), 0);
}

static void raw_close(void)
{
    zmq_close(raw);
    zmq_ctx_term(raw_context);
}

static void raw_send(const void *data, size_t size, bool more)
{
    assert_int_equal(zmq_send(raw, data, size, more ? ZMQ_SNDMORE : 0), (int)size);
}

static unsigned char frame[MESSAGE_MAX_BYTES + 1 + SEAL_BYTES];

static size_t encoded(enum message_type type, uint64_t token)
{
    size_t size;
    memset(&m, 0, sizeof m);
    m.type = type;
    if (type == MESSAGE_PING)
        m.ping.token = token;
    assert_int_equal(message_encode(&m, frame, &size, &e), 0);
    return seal_add(frame, size);
}

/* What is no message, with a sound seal. */
static void raw_send_sealed(const void *data, size_t size, bool more)
{
    memcpy(frame, data, size);
    raw_send(frame, seal_add(frame, size), more);
}

/* The router reports the peer's message; the ping sent after it arrives. */
static void expect_fault(struct link *router, int code, const char *why, uint64_t token)
{
    raw_send(frame, encoded(MESSAGE_PING, token), false);
    if (receive(router, PATIENCE_MS) != code || e.code != code)
        fail_msg("not reported: %s", why);
    if (!strstr(e.message, why))
        fail_msg("'%s' should say '%s'", e.message, why);
    assert_true(peer.size > 0); /* it is known who it was */
    assert_null(payload.data);
    struct link_peer guilty = peer;
    expect_ping(router, token);
    assert_memory_equal(&peer, &guilty, sizeof peer);
}

static void wrong_frames(void **state)
{
    (void)state;
    struct link *router = listen_at(ipc_endpoint("wrong"));
    static unsigned char zeros[MESSAGE_MAX_BYTES + 1];
    raw_open(link_endpoint(router, 0), NULL);

    raw_send(frame, encoded(MESSAGE_PING, 1), true);
    raw_send("extra", 5, false);
    expect_fault(router, ERR_PEER, "PING with 1 more frames", 2);

    raw_send(frame, encoded(MESSAGE_PING, 1), true);
    for (int i = 0; i < 1000; i++)
        raw_send("", 0, true);
    raw_send("last", 4, false);
    expect_fault(router, ERR_PEER, "PING with 1001 more frames", 3);

    raw_send(frame, encoded(MESSAGE_BATCH, 0), false);
    expect_fault(router, ERR_PEER, "BATCH without a payload", 4);

    raw_send(frame, encoded(MESSAGE_BATCH, 0), true);
    raw_send("payload", 7, true);
    raw_send("one", 3, true);
    raw_send("two", 3, false);
    expect_fault(router, ERR_PEER, "BATCH with 2 frames after its payload", 5);

    raw_send_sealed("", 0, false);
    expect_fault(router, ERR_PEER, "frame ends early", 6);
    raw_send("", 0, true);
    raw_send(frame, encoded(MESSAGE_PING, 1), false); /* an empty delimiter, as REQ sends */
    expect_fault(router, ERR_DAMAGED, "0 bytes, its checksum has 8", 7);
    raw_send_sealed("GET / HTTP/1.1\r\n\r\n", 18, false);
    expect_fault(router, ERR_PEER, "not a map", 8);
    raw_send_sealed("\xdd\x04\x00\x00\x00", 5, true);
    raw_send("more", 4, false);
    expect_fault(router, ERR_PEER, "not a map", 9);
    raw_send_sealed(zeros, sizeof zeros, false);
    expect_fault(router, ERR_PEER, "65537 bytes, at most 65536", 10);

    for (size_t i = 0; i < 12; i++) { /* a bit of the message, and of its seal */
        size_t size = encoded(MESSAGE_PING, 1);
        frame[i < 6 ? i : size - 1 - (i - 6)] ^= (unsigned char)(1 << i % 8);
        raw_send(frame, size, i % 2);
        if (i % 2)
            raw_send("payload", 7, false);
        expect_fault(router, ERR_DAMAGED, "damaged message", 11 + i);
    }

    raw_send(frame, encoded(MESSAGE_BATCH, 0), true); /* sound, for once */
    raw_send("", 0, false);
    assert_int_equal(receive(router, PATIENCE_MS), 1);
    assert_int_equal(payload.size, 0);
    link_payload_release(&payload);
    assert_int_equal(receive(router, QUIET_MS), 0);
    raw_close();
    link_close(router, 0);
}

/* A frame beyond a chunk is not even received: ZeroMQ drops the connection. Others do not notice. */
static void a_frame_too_large(void **state)
{
    (void)state;
    struct link *router = listen_at(ipc_endpoint("large")), *dealer = connect_to(link_endpoint(router, 0));
    unsigned char *large = calloc(1, CHUNK_MAX_BYTES + 1);
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    expect_ping(router, 1);
    raw_open(link_endpoint(router, 0), NULL);
    raw_send(frame, encoded(MESSAGE_BATCH, 0), true);
    raw_send(large, CHUNK_MAX_BYTES + 1, false);
    assert_int_equal(receive(router, 4 * QUIET_MS), 0);
    assert_int_equal(send_ping(dealer, NULL, 2), 0);
    expect_ping(router, 2);
    raw_close();
    link_close(dealer, 0);
    link_close(router, 0);
    free(large);
}

static void routing_ids_of_their_own(void **state)
{
    (void)state;
    struct link *router = listen_at(ipc_endpoint("ids"));
    raw_open(link_endpoint(router, 0), "sixteen bytes id");
    raw_send(frame, encoded(MESSAGE_PING, 1), false);
    expect_ping(router, 1);
    assert_int_equal(peer.size, 16);
    raw_close();
    raw_open(link_endpoint(router, 0), "an id of thirty-one characters.");
    raw_send(frame, encoded(MESSAGE_PING, 2), false);
    assert_int_equal(receive(router, PATIENCE_MS), ERR_PEER);
    assert_non_null(strstr(e.message, "routing id of 31 bytes"));
    assert_int_equal(peer.size, 0);
    assert_int_equal(receive(router, QUIET_MS), 0);
    raw_close();
    link_close(router, 0);
}

/* ---- peers that vanish ---- */

static void to_a_vanished_peer(void **state)
{
    (void)state;
    struct link *router = listen_at(ipc_endpoint("vanish")), *dealer = connect_to(link_endpoint(router, 0));
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    expect_ping(router, 1);
    struct link_peer gone = peer;
    assert_int_equal(send_ping(router, &gone, 2), 0);
    link_close(dealer, 0);
    int rc = 0;
    for (int64_t until = clock_ms() + PATIENCE_MS; rc == 0 && clock_ms() < until;) {
        rc = send_ping(router, &gone, 3); /* accepted only until ZeroMQ has seen the other side close */
        usleep(1000);
    }
    assert_int_equal(rc, ERR_PEER);
    assert_non_null(strstr(e.message, "cannot send PING"));

    struct link_peer invented = {.id = {1, 2, 3}, .size = 3};
    assert_int_equal(send_ping(router, &invented, 4), ERR_PEER);

    dealer = connect_to(link_endpoint(router, 0)); /* a new connection is another peer */
    assert_int_equal(send_ping(dealer, NULL, 5), 0);
    expect_ping(router, 5);
    assert_memory_not_equal(&peer, &gone, sizeof gone);
    assert_int_equal(send_ping(router, &gone, 6), ERR_PEER);
    assert_int_equal(send_ping(router, &peer, 7), 0);
    expect_ping(dealer, 7);
    link_close(dealer, 0);
    link_close(router, 0);
    link_close(NULL, 0);
}

static void what_was_sent_before_a_polite_close_arrives(void **state)
{
    (void)state;
    struct link *router = listen_at(ipc_endpoint("linger")), *dealer = connect_to(link_endpoint(router, 0));
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(send_ping(dealer, NULL, i), 0);
    link_close(dealer, PATIENCE_MS);
    for (uint64_t i = 0; i < 100; i++)
        expect_ping(router, i);
    link_close(router, 0);
}

/* Soon: the loss wakes link_poll. */
static void expect_lost(struct link *dealer)
{
    int64_t begin = clock_ms();
    while (!link_lost(dealer) && clock_ms() - begin < PATIENCE_MS)
        link_poll(dealer, -1, PATIENCE_MS);
    assert_true(clock_ms() - begin < PATIENCE_MS);
}

static void the_other_side_leaves(void **state)
{
    (void)state;
    struct link *router = listen_at(ipc_endpoint("leaves")), *dealer = connect_to(link_endpoint(router, 0));
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    expect_ping(router, 1);
    assert_int_equal(send_ping(router, &peer, 2), 0);
    expect_ping(dealer, 2);
    assert_int_equal(receive(dealer, QUIET_MS), 0);
    assert_false(link_lost(dealer));
    link_close(router, 0);
    expect_lost(dealer);
    router = listen_at(ipc_endpoint("leaves"));
    assert_int_equal(send_ping(dealer, NULL, 3), 0);
    expect_ping(router, 3); /* ZeroMQ has connected again */
    assert_true(link_lost(dealer));
    link_close(dealer, 0);
    link_close(router, 0);
}

/* Bytes that are no frame, after a good handshake: ZeroMQ gives the connection up and makes no other. */
static void the_other_side_cannot_be_read(void **state)
{
    (void)state;
    static const char ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
                                "ROUTER";
    static const unsigned char greeting[64] = {0xff, [9] = 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    unsigned char answer[64 + 30], noise[9];
    memset(noise, 0xff, sizeof noise);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", scratch_path("noise"));
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    struct link *dealer = connect_to(ipc_endpoint("noise"));
    int fd = accept(listener, NULL, NULL);
    assert_int_equal(send(fd, greeting, sizeof greeting, 0), sizeof greeting);
    assert_int_equal(send(fd, ready, sizeof ready - 1, 0), sizeof ready - 1);
    assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer); /* its greeting and READY */
    assert_int_equal(receive(dealer, QUIET_MS), 0);
    assert_false(link_lost(dealer));
    assert_int_equal(send(fd, noise, sizeof noise, 0), sizeof noise);
    expect_lost(dealer);
    link_close(dealer, 0);
    close(fd);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_ipc),
        cmocka_unit_test(by_tcp),
        cmocka_unit_test(several_endpoints_and_peers),
        cmocka_unit_test(connect_first),
        cmocka_unit_test(poll_wakes),
        cmocka_unit_test(peer_never_comes),
        cmocka_unit_test(peer_does_not_read),
        cmocka_unit_test(a_payload_is_held),
        cmocka_unit_test(only_loopback),
        cmocka_unit_test(in_use),
        cmocka_unit_test(what_lies_at_an_ipc_path),
        cmocka_unit_test(wrong_frames),
        cmocka_unit_test(a_frame_too_large),
        cmocka_unit_test(routing_ids_of_their_own),
        cmocka_unit_test(to_a_vanished_peer),
        cmocka_unit_test(what_was_sent_before_a_polite_close_arrives),
        cmocka_unit_test(the_other_side_leaves),
        cmocka_unit_test(the_other_side_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
