/* test_listener.c - where a trainer may listen, and peers that break the rules of frames.
 *
 * The misbehaving peers are plain ZeroMQ sockets: the one test that includes zmq.h. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <zmq.h>

#include "link_pair.h"
#include "seal.h"

static const struct listener_access insecure = {.insecure = true};

/* ---- where a trainer may listen ---- */

static void listen_refuses(const char *endpoint, int code, const char *why)
{
    struct listener *l = (struct listener *)1;
    int rc = listener_open(&l, &endpoint, 1, NULL, &e);
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
        "tcp://0.0.0.0:*", "tcp://*:*", "tcp://[::]:*", "tcp://192.168.1.1:5555", "tcp://128.0.0.1:5555",
    };
    for (size_t i = 0; i < sizeof open_to_all / sizeof open_to_all[0]; i++)
        listen_refuses(open_to_all[i], ERR_INPUT, "--insecure");
    listen_refuses("nonsense", ERR_INPUT, "must be tcp://HOST:PORT or ipc://PATH"); /* test_endpoint.c has more */
    listen_refuses("tcp://127.0.0.1.invalid:5555", ERR_INPUT, "does not resolve");
    listener_close(listen_at("tcp://127.1.2.3:*"), 0);
    listener_close(listen_at("tcp://localhost:0"), 0);
    listener_close(listen_at("tcp://lo:*"), 0);

    struct listener *l;
    const char *both[] = {"tcp://127.0.0.1:*", "tcp://0.0.0.0:*"};
    assert_int_equal(listener_open(&l, both, 2, NULL, &e), ERR_INPUT);
    assert_null(l);
    assert_int_equal(listener_open(&l, both, 2, &insecure, &e), 0); /* asked for */
    assert_true(strncmp(listener_endpoint(l, 1), "tcp://0.0.0.0:", 14) == 0);
    listener_close(l, 0);
    const char *elsewhere = "tcp://192.0.2.1:5555"; /* RFC 5737: nobody's */
    assert_int_equal(listener_open(&l, &elsewhere, 1, &insecure, &e), ERR_SYSTEM);
    assert_non_null(strstr(e.message, "tcp://192.0.2.1:5555: cannot listen: the address is not one of this machine"));
    assert_int_equal(listener_open(&l, both, 0, &insecure, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "0 endpoints"));
    const char *nine[9] = {both[0], both[0], both[0], both[0], both[0], both[0], both[0], both[0], both[0]};
    assert_int_equal(listener_open(&l, nine, 9, &insecure, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "9 endpoints"));
}

static void in_use(void **state)
{
    (void)state;
    for (int ipc = 0; ipc < 2; ipc++) {
        struct listener *first = listen_at(ipc ? ipc_endpoint("in-use") : "tcp://127.0.0.1:*");
        char endpoint[256];
        strcpy(endpoint, listener_endpoint(first, 0));
        listen_refuses(endpoint, ERR_SYSTEM, "in use");
        struct link *dealer = connect_to(endpoint); /* the first one goes on as if nothing had been */
        assert_int_equal(send_ping(dealer, NULL, 9), 0);
        hear_ping(first, 9);
        link_close(dealer, 0);
        listener_close(first, 0);
        listener_close(listen_at(endpoint), 0); /* free again */
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
    struct listener *router = listen_at(ipc_endpoint("stale"));
    assert_int_equal(stat(address.sun_path, &st), 0);
    listener_close(router, 0);
    assert_int_equal(stat(address.sun_path, &st), -1); /* a closed one leaves nothing */

    /* somebody's file is not */
    const char *file = scratch_write("weights.npy", "precious", 8);
    listen_refuses(ipc_endpoint("weights.npy"), ERR_SYSTEM, "cannot listen");
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_size, 8);

    listen_refuses(ipc_endpoint("no/such/folder"), ERR_SYSTEM, "cannot listen");
    char endpoint[256] = "ipc:///tmp/";
    memset(endpoint + 11, 'x', 200); /* longer than a socket's address */
    listen_refuses(endpoint, ERR_INPUT, "path of 205 bytes, the system takes at most 107");
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
static void expect_fault(struct listener *router, int code, const char *why, uint64_t token)
{
    raw_send(frame, encoded(MESSAGE_PING, token), false);
    if (hear(router, PATIENCE_MS) != code || e.code != code)
        fail_msg("not reported: %s", why);
    if (!strstr(e.message, why))
        fail_msg("'%s' should say '%s'", e.message, why);
    assert_true(peer.size > 0); /* it is known who it was */
    assert_null(payload.data);
    struct link_peer guilty = peer;
    hear_ping(router, token);
    assert_memory_equal(&peer, &guilty, sizeof peer);
}

static void wrong_frames(void **state)
{
    (void)state;
    struct listener *router = listen_at(ipc_endpoint("wrong"));
    static unsigned char zeros[MESSAGE_MAX_BYTES + 1];
    raw_open(listener_endpoint(router, 0), NULL);

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
    assert_int_equal(hear(router, PATIENCE_MS), 1);
    assert_int_equal(payload.size, 0);
    link_payload_release(&payload);
    assert_int_equal(hear(router, QUIET_MS), 0);
    raw_close();
    listener_close(router, 0);
}

/* A frame beyond a chunk is not even received: ZeroMQ drops the connection. Others do not notice. */
static void a_frame_too_large(void **state)
{
    (void)state;
    struct listener *router = listen_at(ipc_endpoint("large"));
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    unsigned char *large = calloc(1, CHUNK_MAX_BYTES + 1);
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    hear_ping(router, 1);
    raw_open(listener_endpoint(router, 0), NULL);
    raw_send(frame, encoded(MESSAGE_BATCH, 0), true);
    raw_send(large, CHUNK_MAX_BYTES + 1, false);
    assert_int_equal(hear(router, 4 * QUIET_MS), 0);
    assert_int_equal(send_ping(dealer, NULL, 2), 0);
    hear_ping(router, 2);
    raw_close();
    link_close(dealer, 0);
    listener_close(router, 0);
    free(large);
}

static void routing_ids_of_their_own(void **state)
{
    (void)state;
    struct listener *router = listen_at(ipc_endpoint("ids"));
    raw_open(listener_endpoint(router, 0), "sixteen bytes id");
    raw_send(frame, encoded(MESSAGE_PING, 1), false);
    hear_ping(router, 1);
    assert_int_equal(peer.size, 16);
    raw_close();
    raw_open(listener_endpoint(router, 0), "an id of thirty-one characters.");
    raw_send(frame, encoded(MESSAGE_PING, 2), false);
    assert_int_equal(hear(router, PATIENCE_MS), ERR_PEER);
    assert_non_null(strstr(e.message, "routing id of 31 bytes"));
    assert_int_equal(peer.size, 0);
    assert_int_equal(hear(router, QUIET_MS), 0);
    raw_close();
    listener_close(router, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_loopback),
        cmocka_unit_test(in_use),
        cmocka_unit_test(what_lies_at_an_ipc_path),
        cmocka_unit_test(wrong_frames),
        cmocka_unit_test(a_frame_too_large),
        cmocka_unit_test(routing_ids_of_their_own),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
