/* test_link.c - the sockets: messages and payloads both ways, payloads that come back, peers that vanish. */

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

#include "failing_alloc.h"
#include "link_pair.h"

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
    struct listener *router = listen_at(endpoint);
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    size_t size = CHUNK_MAX_BYTES;
    unsigned char *data = malloc(size);
    atomic_int released = 0;
    for (size_t i = 0; i < size; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    hear_ping(router, 1);
    struct link_peer client = peer;
    assert_true(client.size > 0);
    assert_int_equal(send_ping(listener_link(router), &client, 2), 0);
    expect_ping(dealer, 2);
    assert_int_equal(peer.size, 0);

    listener_vouch(router, &client, 4 * size); /* a stranger may not send so much */
    for (uint32_t chunk = 0; chunk < 3; chunk++)
        assert_int_equal(send_batch(dealer, chunk, data, size - chunk, &released), 0);
    assert_int_equal(send_ping(dealer, NULL, 3), 0);
    for (uint32_t chunk = 0; chunk < 3; chunk++) {
        assert_int_equal(hear(router, PATIENCE_MS), 1);
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
    hear_ping(router, 3);
    assert_int_equal(hear(router, QUIET_MS), 0);
    link_close(dealer, 0);
    expect_released(&released, 3);
    listener_close(router, 0);
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
    struct listener *l = listen_at("tcp://127.0.0.1:*");
    const char *endpoint = listener_endpoint(l, 0); /* the port is told */
    assert_true(strncmp(endpoint, "tcp://127.0.0.1:", 16) == 0 && atoi(endpoint + 16) > 0);
    assert_string_equal(listener_endpoint(l, 1), "");
    listener_close(l, 0);
    there_and_back("tcp://127.0.0.1:*");
}

static void several_endpoints_and_peers(void **state)
{
    (void)state;
    const char *endpoints[] = {"tcp://127.0.0.1:*", ipc_endpoint("second")};
    struct listener *router;
    struct link *dealers[4];
    struct link_peer peers[4];
    assert_int_equal(listener_open(&router, endpoints, 2, NULL, &e), 0);
    for (unsigned i = 0; i < 4; i++) {
        dealers[i] = connect_to(listener_endpoint(router, i % 2));
        assert_int_equal(send_ping(dealers[i], NULL, i), 0);
        hear_ping(router, i);
        peers[i] = peer;
        for (unsigned j = 0; j < i; j++)
            assert_memory_not_equal(&peers[i], &peers[j], sizeof peer);
    }
    for (unsigned i = 0; i < 4; i++) /* each gets its own */
        assert_int_equal(send_ping(listener_link(router), &peers[i], 10 + i), 0);
    for (unsigned i = 0; i < 4; i++) {
        expect_ping(dealers[i], 10 + i);
        assert_int_equal(link_receive(dealers[i], &peer, &m, &payload, &e), 0);
        link_close(dealers[i], 0);
    }
    listener_close(router, 0);
}

/* The trainer need not be there first. */
static void connect_first(void **state)
{
    (void)state;
    const char *endpoint = ipc_endpoint("late");
    struct link *dealer = connect_to(endpoint);
    assert_int_equal(send_ping(dealer, NULL, 5), 0);
    usleep(20000);
    struct listener *router = listen_at(endpoint);
    hear_ping(router, 5);
    link_close(dealer, 0);
    listener_close(router, 0);
}

static void poll_wakes(void **state)
{
    (void)state;
    struct listener *router = listen_at(ipc_endpoint("poll"));
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t one = 1;
    int64_t start = clock_ms();
    link_poll(listener_link(router), fd, 60);
    assert_true(clock_ms() - start >= 50);
    assert_int_equal(write(fd, &one, sizeof one), sizeof one);
    start = clock_ms();
    link_poll(listener_link(router), fd, PATIENCE_MS);
    assert_true(clock_ms() - start < PATIENCE_MS / 2);
    close(fd);
    listener_close(router, 0);
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
    struct listener *router = listen_at(ipc_endpoint("slow"));
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(send_batch(dealer, i, data, sizeof data, &released), 0);
    expect_released(&released, N); /* no receive HWM (see link.c): all of it is taken, and waits there */
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(hear(router, PATIENCE_MS), 1);
        assert_int_equal(m.batch.chunk, i); /* none is lost, all in order */
        assert_int_equal(payload.size, sizeof data);
        link_payload_release(&payload);
        listener_vouch(router, &peer, 1); /* or it would be a stranger that says too much */
    }
    link_close(dealer, 0);

    atomic_store(&released, 0); /* closed on either side with much under way */
    for (int side = 0; side < 2; side++) {
        dealer = connect_to(listener_endpoint(router, 0));
        for (uint32_t i = 0; i < 50; i++)
            assert_int_equal(send_batch(dealer, i, data, sizeof data, &released), 0);
        assert_int_equal(hear(router, PATIENCE_MS), 1);
        link_payload_release(&payload);
        if (side)
            listener_close(router, 0);
        link_close(dealer, 0);
        assert_int_equal(atomic_load(&released), 50 * (side + 1));
        while (!side && hear(router, QUIET_MS) == 1)
            link_payload_release(&payload);
    }
}

/* A payload may be kept while its link goes on and other messages come. */
static void a_payload_is_held(void **state)
{
    (void)state;
    static unsigned char data[5000];
    atomic_int released = 0;
    struct listener *router = listen_at(ipc_endpoint("held"));
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    memset(data, 7, sizeof data);
    assert_int_equal(send_batch(dealer, 0, data, sizeof data, &released), 0);
    assert_int_equal(hear(router, PATIENCE_MS), 1);
    struct link_payload held = payload;
    expect_released(&released, 1);
    memset(data, 8, sizeof data);
    assert_int_equal(send_batch(dealer, 1, data, sizeof data, &released), 0);
    assert_int_equal(hear(router, PATIENCE_MS), 1);
    assert_int_equal(payload.data[4999], 8);
    assert_int_equal(held.data[0], 7);
    assert_int_equal(held.data[4999], 7);
    link_payload_release(&held);
    link_payload_release(&payload);
    link_close(dealer, 0);
    listener_close(router, 0);
}

/* ---- without memory ---- */

/* Each allocation fails in turn; what is said is that, and nothing is left. */
static void no_memory_to_open(void **state)
{
    (void)state;
    const char *endpoint = ipc_endpoint("memory");
    int rc, n = -1;
    for (int side = 0; side < 2; side++, n = -1) {
        struct listener *listener = NULL;
        struct link *dealer = NULL;
        do {
            allocations_until_failure = ++n;
            rc = side ? link_connect(&dealer, endpoint, NULL, &e) : listener_open(&listener, &endpoint, 1, NULL, &e);
            if (rc)
                assert_true(rc == ERR_MEMORY && e.code == ERR_MEMORY && !listener && !dealer);
        } while (rc);
        allocations_until_failure = -1;
        assert_true(n >= (side ? 1 : 3)); /* listener, link, guard */
        listener_close(listener, 0);
        link_close(dealer, 0);
    }
}

static void no_memory_for_a_payload(void **state)
{
    (void)state;
    static unsigned char data[1000];
    atomic_int released = 0;
    struct listener *router = listen_at(ipc_endpoint("payload"));
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    allocations_until_failure = 0;
    assert_int_equal(send_batch(dealer, 1, data, sizeof data, &released), ERR_MEMORY);
    assert_int_equal(atomic_load(&released), 1);
    assert_int_equal(send_batch(dealer, 2, data, sizeof data, &released), 0);
    assert_int_equal(send_ping(dealer, NULL, 3), 0);
    allocations_until_failure = 0;
    assert_int_equal(hear(router, PATIENCE_MS), ERR_MEMORY);
    assert_null(payload.data);
    hear_ping(router, 3);
    expect_released(&released, 2);
    link_close(dealer, 0);
    listener_close(router, 0);
}

/* ---- peers that vanish ---- */

static void to_a_vanished_peer(void **state)
{
    (void)state;
    struct listener *router = listen_at(ipc_endpoint("vanish"));
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    hear_ping(router, 1);
    struct link_peer gone = peer;
    assert_int_equal(send_ping(listener_link(router), &gone, 2), 0);
    link_close(dealer, 0);
    int rc = 0;
    for (int64_t until = clock_ms() + PATIENCE_MS; rc == 0 && clock_ms() < until;) {
        rc = send_ping(listener_link(router), &gone, 3); /* accepted only until ZeroMQ has seen the other side close */
        usleep(1000);
    }
    assert_int_equal(rc, ERR_PEER);
    assert_non_null(strstr(e.message, "cannot send PING"));

    struct link_peer invented = {.id = {1, 2, 3}, .size = 3};
    assert_int_equal(send_ping(listener_link(router), &invented, 4), ERR_PEER);

    dealer = connect_to(listener_endpoint(router, 0)); /* a new connection is another peer */
    assert_int_equal(send_ping(dealer, NULL, 5), 0);
    hear_ping(router, 5);
    assert_memory_not_equal(&peer, &gone, sizeof gone);
    assert_int_equal(send_ping(listener_link(router), &gone, 6), ERR_PEER);
    assert_int_equal(send_ping(listener_link(router), &peer, 7), 0);
    expect_ping(dealer, 7);
    link_close(dealer, 0);
    listener_close(router, 0);
    link_close(NULL, 0);
}

static void what_was_sent_before_a_polite_close_arrives(void **state)
{
    (void)state;
    struct listener *router = listen_at(ipc_endpoint("linger"));
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(send_ping(dealer, NULL, i), 0);
    link_close(dealer, PATIENCE_MS);
    for (uint64_t i = 0; i < 100; i++)
        hear_ping(router, i);
    listener_close(router, 0);
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
    struct listener *router = listen_at(ipc_endpoint("leaves"));
    struct link *dealer = connect_to(listener_endpoint(router, 0));
    assert_int_equal(send_ping(dealer, NULL, 1), 0);
    hear_ping(router, 1);
    assert_int_equal(send_ping(listener_link(router), &peer, 2), 0);
    expect_ping(dealer, 2);
    assert_int_equal(receive(dealer, QUIET_MS), 0);
    assert_false(link_lost(dealer));
    listener_close(router, 0);
    expect_lost(dealer);
    router = listen_at(ipc_endpoint("leaves"));
    assert_int_equal(send_ping(dealer, NULL, 3), 0);
    hear_ping(router, 3); /* ZeroMQ has connected again */
    assert_true(link_lost(dealer));
    link_close(dealer, 0);
    listener_close(router, 0);
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
        cmocka_unit_test(no_memory_to_open),
        cmocka_unit_test(no_memory_for_a_payload),
        cmocka_unit_test(to_a_vanished_peer),
        cmocka_unit_test(what_was_sent_before_a_polite_close_arrives),
        cmocka_unit_test(the_other_side_leaves),
        cmocka_unit_test(the_other_side_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
