/* test_metrics_endpoint.c - where the metrics endpoint listens and what it answers, byte by byte. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "metrics_endpoint.h"
#include "scratch.h"

static struct status *status;
static struct err e;

static int set_up(void **state)
{
    return scratch_open(state) || status_new(&status, &e);
}

static int tear_down(void **state)
{
    status_free(status);
    return scratch_close(state);
}

static void refused(const char *address, const char *why)
{
    struct metrics_endpoint *m;
    if (metrics_endpoint_start(&m, address, false, status, &e) == 0)
        fail_msg("'%s' was taken", address);
    assert_null(m);
    if (!strstr(e.message, why) || !strstr(e.message, "--metrics-listen"))
        fail_msg("'%s': '%s' lacks '%s'", address, e.message, why);
}

static void addresses(void **state)
{
    (void)state;
    refused("9555", "must be ADDRESS:PORT"); /* test_endpoint.c has more */
    refused("127.0.0.1:65536", "65535");
    refused("nowhere.invalid:9555", "does not resolve");
    refused("0.0.0.0:0", "--insecure");
    refused("[::]:0", "--insecure");
    refused("192.0.2.1:0", "--insecure");

    struct metrics_endpoint *m;
    assert_int_equal(metrics_endpoint_start(&m, "localhost:0", false, status, &e), 0);
    unsigned port;
    assert_int_equal(sscanf(metrics_endpoint_url(m), "http://127.0.0.1:%u/metrics", &port), 1);
    char same[32];
    snprintf(same, sizeof same, "127.0.0.1:%u", port);
    refused(same, "Address already in use");
    metrics_endpoint_stop(m);
    assert_int_equal(metrics_endpoint_start(&m, same, false, status, &e), 0); /* free again at once */
    metrics_endpoint_stop(m);
    assert_int_equal(metrics_endpoint_start(&m, "0.0.0.0:0", true, status, &e), 0);
    metrics_endpoint_stop(m);
    assert_int_equal(metrics_endpoint_start(&m, "192.0.2.1:0", true, status, &e), ERR_SYSTEM);
    assert_non_null(strstr(e.message, "--metrics-listen: 192.0.2.1:0: cannot listen: the address is not one of this"));
    metrics_endpoint_stop(NULL);
}

static int connect_to(const struct metrics_endpoint *m, int flags)
{
    unsigned port;
    sscanf(metrics_endpoint_url(m), "http://127.0.0.1:%u/", &port);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    assert_true(connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EINPROGRESS);
    return fd;
}

/* Sends the request and reads until the server closes, for ten seconds at most. */
static char *ask(const struct metrics_endpoint *m, const char *request)
{
    static char answer[1 << 16];
    size_t n = 0;
    struct timeval patience = {.tv_sec = 10};
    int fd = connect_to(m, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    for (ssize_t got; n < sizeof answer - 1 && (got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0;)
        n += (size_t)got;
    answer[n] = '\0';
    close(fd);
    return answer;
}

static void answers(void **state)
{
    (void)state;
    struct metrics_endpoint *m;
    assert_int_equal(metrics_endpoint_start(&m, "127.0.0.1:0", false, status, &e), 0);
    char *answer = ask(m, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_int_equal(strncmp(answer, "HTTP/1.1 200 ", 13), 0);
    assert_non_null(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_non_null(strstr(answer, "\r\n\r\n# HELP crossfeed_"));
    assert_non_null(strstr(answer, "crossfeed_phase{phase=\"starting\"} 1\n"));
    answer = ask(m, "GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_int_equal(strncmp(answer, "HTTP/1.1 404 ", 13), 0);
    answer = ask(m, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\nConnection: close\r\n\r\nx");
    assert_int_equal(strncmp(answer, "HTTP/1.1 405 ", 13), 0);
    answer = ask(m, "\x16\x03\x01 this is not HTTP\r\n\r\n");
    assert_null(strstr(answer, "crossfeed_"));
    static char large[60000] = "GET /metrics HTTP/1.1\r\nHost: x\r\nX: ";
    memset(large + strlen(large), 'x', sizeof large - 1 - strlen(large));
    memcpy(large + sizeof large - 5, "\r\n\r\n", 4);
    answer = ask(m, large); /* headers are bounded */
    assert_null(strstr(answer, "crossfeed_"));
    metrics_endpoint_stop(m);
}

/* Sixty clients that send a byte now and then, as if a request were under way: whoever asks gets an answer. */
static void trickling_clients(void **state)
{
    (void)state;
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n";
    enum { N = 60 };
    int fds[N];
    struct metrics_endpoint *m;
    assert_int_equal(metrics_endpoint_start(&m, "127.0.0.1:0", false, status, &e), 0);
    for (int i = 0; i < N; i++)
        fds[i] = connect_to(m, SOCK_NONBLOCK);
    for (size_t round = 0; round < 20; round++) {
        int gone = 0;
        for (int i = 0; i < N; i++) {
            char byte;
            send(fds[i], request + round, 1, MSG_NOSIGNAL);
            if (recv(fds[i], &byte, 1, 0) == 0 || (errno != EAGAIN && errno != ENOTCONN)) {
                gone++;
                close(fds[i]); /* and it comes again */
                fds[i] = connect_to(m, SOCK_NONBLOCK);
            }
        }
        char *answer = ask(m, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0)
            fail_msg("round %zu, %d gone: '%.20s'", round, gone, answer);
        usleep(20000);
    }
    for (int i = 0; i < N; i++)
        close(fds[i]);
    metrics_endpoint_stop(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(addresses), cmocka_unit_test(answers),
                                       cmocka_unit_test(trickling_clients)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
