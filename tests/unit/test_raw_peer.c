/* test_raw_peer.c - a link's ROUTER under peers that write ZMTP by hand, in ways no ZeroMQ would. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "clock.h"
#include "listener.h"

#define PATIENCE_MS 10000

static struct message m; /* 50 KB */
static struct link_peer peer;
static struct link_payload payload;
static struct err e;
static struct listener *router;

/* ---- helpers ---- */

static int open_router(void **state)
{
    (void)state;
    const char *endpoint = "tcp://127.0.0.1:*";
    return listener_open(&router, &endpoint, 1, NULL, &e);
}

static int close_router(void **state)
{
    (void)state;
    listener_close(router, 0);
    return 0;
}

/* A connection that is through the handshake of a DEALER. */
static int connect_raw(void)
{
    static const char ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
                                "DEALER";
    unsigned char greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'N', 'U', 'L', 'L'}, answer[64 + 32];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons((uint16_t)atoi(strrchr(listener_endpoint(router, 0), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, greeting, sizeof greeting, 0), sizeof greeting);
    assert_int_equal(send(fd, ready, sizeof ready - 1, 0), sizeof ready - 1);
    assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer); /* greeting, and most of READY */
    return fd;
}

static void send_times(int fd, const char *bytes, size_t size, int times)
{
    while (times-- > 0)
        assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
}

static void reset(int fd)
{
    struct linger at_once = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

/* The next message, or what listener_receive says instead of it; 0 if nothing comes. */
static int receive(int timeout_ms)
{
    int got;
    int64_t until = clock_ms() + timeout_ms;
    while ((got = listener_receive(router, &peer, &m, &payload, &e)) == 0 && clock_ms() < until)
        link_poll(listener_link(router), -1, 20);
    return got;
}

static void expect_alive(void)
{
    struct link *dealer;
    assert_int_equal(link_connect(&dealer, listener_endpoint(router, 0), NULL, &e), 0);
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_PING;
    m.ping.token = 77;
    assert_int_equal(link_send(dealer, NULL, &m, &e), 0);
    while (receive(PATIENCE_MS) == ERR_DAMAGED)
        ; /* what the raw peer left */
    assert_int_equal(m.type, MESSAGE_PING);
    assert_int_equal(m.ping.token, 77);
    link_close(dealer, 0);
}

static uint64_t refused(enum refusal kind)
{
    uint64_t counts[REFUSAL_KINDS];
    listener_refusals(router, counts);
    return counts[kind];
}

/* Sends a part of a message that never ends, 1 KB at a time, until the connection is closed; returns how many KB that were. */
static int send_without_end(int fd, int most)
{
    static char part[1024] = "\x03\0\0\0\0\0\0\x03\xf7"; /* MORE, LONG: 1015 bytes follow */
    memcpy(part, "\x03\0\0\0\0\0\0\x03\xf7", 9);
    for (int n = 0; n < most; n++) {
        if (send(fd, part, sizeof part, MSG_NOSIGNAL) != sizeof part)
            return n;
        if (n % 64 == 0)
            usleep(1000); /* the guard looks every 20 ms */
    }
    return most;
}

/* ---- tests ---- */

/* With a receive HWM, this ends the process: libzmq 4.3.4 asserts `!_io_error` when it takes up the connection again. */
static void a_ping_behind_more_than_is_read(void **state)
{
    (void)state;
    for (int n = 8; n <= 4096; n *= 8) {
        int fd = connect_raw();
        send_times(fd, "\x00\x01x", 3, n);
        send_times(fd, "\x04\x07\x04PING\0\0", 9, 1);
        send_times(fd, "\x00\x01x", 3, 10);
        usleep(100000);
        reset(fd);
        usleep(100000);
        int got;
        for (got = 0; receive(300) == ERR_DAMAGED; got++)
            ;
        assert_int_equal(got, n + 10);
    }
    expect_alive();
}

static void a_stranger_without_end(void **state)
{
    (void)state;
    int fd = connect_raw();
    assert_in_range(send_without_end(fd, 1 << 20), 128, 64 << 10); /* KB; what comes within 20 ms is more */
    assert_int_equal(refused(REFUSAL_MEMORY), 1);
    close(fd);
    expect_alive();
}

/* A producer may send what it was leased before any of that is read, and not more. */
static void a_producer_beyond_its_leases(void **state)
{
    (void)state;
    enum { ALLOWED = 32 << 20 };
    int fd = connect_raw();
    send_times(fd, "\x00\x01x", 3, 1);
    assert_int_equal(receive(PATIENCE_MS), ERR_DAMAGED);
    struct link_peer producer = peer;
    listener_vouch(router, &producer, ALLOWED);
    assert_int_equal(send_without_end(fd, 16 << 10), 16 << 10); /* half of it */
    usleep(100000);
    assert_int_equal(refused(REFUSAL_MEMORY), 0);
    assert_in_range(send_without_end(fd, 1 << 20), 16 << 10, 256 << 10);
    assert_int_equal(refused(REFUSAL_MEMORY), 1);
    close(fd);
    expect_alive();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_ping_behind_more_than_is_read, open_router, close_router),
        cmocka_unit_test_setup_teardown(a_stranger_without_end, open_router, close_router),
        cmocka_unit_test_setup_teardown(a_producer_beyond_its_leases, open_router, close_router),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
