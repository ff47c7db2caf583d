/* test_endpoint.c - what is an endpoint and what is not, and which addresses hosts stand for. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "endpoint.h"
#include "host_address.h"

static struct err e;

static void good_ones(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum endpoint_use use;
        const char *host; /* or path, of ipc */
        unsigned port;
    } good[] = {
        {"tcp://127.0.0.1:5555", ENDPOINT_CONNECT, "127.0.0.1", 5555},
        {"tcp://[::1]:65535", ENDPOINT_CONNECT, "::1", 65535},
        {"tcp://[fe80::1%eth0]:1", ENDPOINT_CONNECT, "fe80::1%eth0", 1},
        {"tcp://gpu-7.example_x.org:5555", ENDPOINT_CONNECT, "gpu-7.example_x.org", 5555},
        {"tcp://*:*", ENDPOINT_LISTEN, "*", 0},
        {"tcp://eth0:0", ENDPOINT_LISTEN, "eth0", 0},
        {"tcp://10.0.0.1:00080", ENDPOINT_LISTEN, "10.0.0.1", 80},
        {"ipc://relative/path", ENDPOINT_CONNECT, "relative/path", 0},
        {"ipc://@abstract", ENDPOINT_LISTEN, "@abstract", 0},
        {"127.0.0.1:9555", ENDPOINT_HTTP, "127.0.0.1", 9555},
        {"[::1]:0", ENDPOINT_HTTP, "::1", 0},
        {"localhost:*", ENDPOINT_HTTP, "localhost", 0},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct endpoint p;
        if (endpoint_parse(&p, good[i].text, good[i].use, &e))
            fail_msg("'%s': %s", good[i].text, e.message);
        assert_string_equal(p.ipc ? p.path : p.host, good[i].host);
        assert_int_equal(p.ipc, strncmp(good[i].text, "ipc", 3) == 0);
        assert_int_equal(p.port, good[i].port);
    }
}

static void bad_ones(void **state)
{
    (void)state;
    char long_path[200] = "ipc://", long_host[400] = "tcp://";
    memset(long_path + 6, 'x', 108);
    memset(long_host + 6, 'x', 300);
    strcat(long_host, ":1");
    const char *form = "must be tcp://HOST:PORT or ipc://PATH", *http = "must be ADDRESS:PORT";
    const struct {
        const char *text;
        enum endpoint_use use;
        const char *why;
    } bad[] = {
        {"", ENDPOINT_LISTEN, form},
        {"nonsense", ENDPOINT_CONNECT, form},
        {"inproc://x", ENDPOINT_LISTEN, form},
        {"udp://127.0.0.1:5555", ENDPOINT_LISTEN, form},
        {"127.0.0.1:5555", ENDPOINT_CONNECT, form},
        {"tcp://", ENDPOINT_CONNECT, form},
        {"tcp://:", ENDPOINT_CONNECT, form},
        {"tcp://:5555", ENDPOINT_CONNECT, form},
        {"tcp://127.0.0.1", ENDPOINT_CONNECT, form},
        {"tcp://127.0.0.1:", ENDPOINT_CONNECT, form},
        {"tcp://[::1]", ENDPOINT_CONNECT, form},
        {"tcp://[::1]5555", ENDPOINT_CONNECT, form},
        {"tcp://[]:5555", ENDPOINT_CONNECT, form},
        {"tcp://[::1:5555", ENDPOINT_CONNECT, form},
        {"ipc://", ENDPOINT_LISTEN, form},
        {"9555", ENDPOINT_HTTP, http},
        {":9555", ENDPOINT_HTTP, http},
        {"tcp://127.0.0.1:65536", ENDPOINT_LISTEN, "port '65536', must be 1 to 65535"},
        {"tcp://127.0.0.1:555555", ENDPOINT_CONNECT, "port '555555', must be 1 to 65535"},
        {"tcp://127.0.0.1:18446744073709551621", ENDPOINT_CONNECT, "must be 1 to 65535"},
        {"tcp://127.0.0.1:-1", ENDPOINT_LISTEN, "port '-1', must be 1 to 65535"},
        {"tcp://127.0.0.1:5571x", ENDPOINT_LISTEN, "port '5571x', must be"},
        {"tcp://127.0.0.1: 5571", ENDPOINT_LISTEN, "port ' 5571', must be"},
        {"tcp://127.0.0.1:http", ENDPOINT_CONNECT, "port 'http', must be"},
        {"tcp://127.0.0.1:0", ENDPOINT_CONNECT, "port '0', must be 1 to 65535"},
        {"tcp://127.0.0.1:*", ENDPOINT_CONNECT, "port '*', must be 1 to 65535"},
        {"127.0.0.1:65536", ENDPOINT_HTTP, "port '65536', must be 1 to 65535"},
        {"tcp://*:5555", ENDPOINT_CONNECT, "'*' is for listening"},
        {"tcp://::1:5555", ENDPOINT_CONNECT, "stands in brackets"},
        {"tcp://[::g]:5555", ENDPOINT_CONNECT, "'::g' is not an IPv6 address"},
        {"tcp://[127.0.0.1]:5555", ENDPOINT_CONNECT, "'127.0.0.1' is not an IPv6 address"},
        {"tcp://127.0.0.300:5555", ENDPOINT_CONNECT, "'127.0.0.300' is not an IPv4 address"},
        {"tcp://127.1:5555", ENDPOINT_LISTEN, "'127.1' is not an IPv4 address"},
        {"tcp://a b:5555", ENDPOINT_CONNECT, "'a b' is neither an address nor a name"},
        {"tcp://eth0;10.0.0.1:5555", ENDPOINT_CONNECT, "neither an address nor a name"},
        {"tcp://user@host:5555", ENDPOINT_CONNECT, "neither an address nor a name"},
        {long_path, ENDPOINT_LISTEN, "path of 108 bytes, the system takes at most 107"},
        {long_host, ENDPOINT_CONNECT, "host of 300 characters, at most 255"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct endpoint p;
        char named[64];
        snprintf(named, sizeof named, "endpoint '%.40s", bad[i].text);
        if (endpoint_parse(&p, bad[i].text, bad[i].use, &e) != ERR_INPUT)
            fail_msg("'%s' was taken", bad[i].text);
        if (!strstr(e.message, bad[i].why) || !strstr(e.message, named))
            fail_msg("'%s': '%s' lacks '%s'", bad[i].text, e.message, bad[i].why);
    }
}

/* Looks a host up, as `use` would, and returns the address as text; what went wrong if there is none. */
static const char *find(const char *text, enum endpoint_use use)
{
    static char address[HOST_ADDRESS_SIZE];
    struct host_address a;
    struct endpoint p;
    assert_int_equal(endpoint_parse(&p, text, use, &e), 0);
    if (host_address_find(&a, &p, use, text, &e))
        return e.message;
    host_address_text(&a, address);
    return address;
}

static void hosts(void **state)
{
    (void)state;
    assert_string_equal(find("tcp://127.1.2.3:5", ENDPOINT_CONNECT), "127.1.2.3:5");
    assert_string_equal(find("tcp://[::0:1]:5", ENDPOINT_CONNECT), "[::1]:5");
    assert_string_equal(find("tcp://localhost:5", ENDPOINT_LISTEN), "127.0.0.1:5");
    assert_string_equal(find("tcp://lo:*", ENDPOINT_LISTEN), "127.0.0.1:0"); /* the interface; it has IPv6 too */
    assert_string_equal(find("*:5", ENDPOINT_HTTP), "0.0.0.0:5");

    /* RFC 6761 keeps .invalid for names that do not exist. */
    const char *why = find("tcp://nowhere.invalid:5", ENDPOINT_CONNECT);
    assert_non_null(strstr(why, "endpoint 'tcp://nowhere.invalid:5': host 'nowhere.invalid' does not resolve: "));
    why = find("nowhere.invalid:5", ENDPOINT_HTTP);
    assert_non_null(strstr(why, "no network interface has the name, and host 'nowhere.invalid' does not resolve: "));
}

static void loopback(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is;
    } all[] = {{"127.0.0.1:1", true}, {"127.255.0.9:1", true}, {"[::1]:1", true},      {"128.0.0.1:1", false},
               {"0.0.0.0:1", false},  {"*:1", false},          {"[fe80::1]:1", false}, {"[::]:1", false}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct host_address a;
        struct endpoint p;
        assert_int_equal(endpoint_parse(&p, all[i].text, ENDPOINT_HTTP, &e), 0);
        assert_int_equal(host_address_find(&a, &p, ENDPOINT_HTTP, all[i].text, &e), 0);
        assert_int_equal(host_address_is_loopback(&a), all[i].is);
    }
}

static void plain_ipv4(void **state)
{
    (void)state;
    char mapped[] = "tcp://[::ffff:127.0.0.1]:5555", ipv6[] = "tcp://[::1]:5555";
    endpoint_plain_ipv4(mapped);
    endpoint_plain_ipv4(ipv6);
    assert_string_equal(mapped, "tcp://127.0.0.1:5555");
    assert_string_equal(ipv6, "tcp://[::1]:5555");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_ones), cmocka_unit_test(bad_ones),   cmocka_unit_test(hosts),
        cmocka_unit_test(loopback),  cmocka_unit_test(plain_ipv4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
