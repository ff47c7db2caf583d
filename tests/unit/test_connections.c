/* test_connections.c - which connections must go: real TCP connections over loopback, of which the test reads in ZeroMQ's stead. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "connections.h"
#include "failing_alloc.h"

enum { STRANGERS = 3, STRANGER_MS = 3000, REFUSED_MS = 100, STRANGER_HELD = 1000, OTHERS_HELD = 2500 };

static struct refusals refusals;
static struct connections connections;
static int listener;
static struct sockaddr_in address;

struct pair {
    int here, there; /* the trainer's descriptor, the peer's */
};

static const struct routing_id ANN = {.id = "ann", .size = 3}, BOB = {.id = "bob", .size = 3};

static int set_up(void **state)
{
    (void)state;
    socklen_t size = sizeof address;
    struct connection_limits limits = {STRANGERS, STRANGER_MS, REFUSED_MS, STRANGER_HELD, OTHERS_HELD};
    refusals_init(&refusals);
    connections_init(&connections, &limits, &refusals);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listener = socket(AF_INET, SOCK_STREAM, 0);
    return bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16) ||
           getsockname(listener, (struct sockaddr *)&address, &size);
}

static int tear_down(void **state)
{
    (void)state;
    connections_release(&connections);
    refusals_release(&refusals);
    close(listener);
    return 0;
}

static struct pair connect_pair(void)
{
    struct pair p = {.there = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(connect(p.there, (struct sockaddr *)&address, sizeof address), 0);
    p.here = accept(listener, NULL, NULL);
    return p;
}

static struct pair enter(int64_t now_ms)
{
    struct pair p = connect_pair();
    connections_enter(&connections, p.here, now_ms);
    return p;
}

static void leave(struct pair p)
{
    connections_leave(&connections, p.here);
    close(p.here);
    close(p.there);
}

/* The peer sends, and ZeroMQ takes it off the kernel. */
static void comes(struct pair p, size_t size)
{
    static char bytes[10000];
    assert_int_equal(send(p.there, bytes, size, 0), size);
    assert_int_equal(recv(p.here, bytes, size, MSG_WAITALL), size);
}

static bool was_shut(struct pair p)
{
    char byte;
    struct pollfd there = {.fd = p.there, .events = POLLIN};
    return poll(&there, 1, 20) == 1 && recv(p.there, &byte, 1, 0) <= 0;
}

static uint64_t count(enum refusal kind)
{
    uint64_t counts[REFUSAL_KINDS];
    refusals_counts(&refusals, counts);
    return counts[kind];
}

/* A stranger of whom too much is held goes; what the link was given is not held. */
static void strangers_send_little(void **state)
{
    (void)state;
    struct pair quiet = enter(0), given = enter(0), loud = enter(0);
    comes(quiet, STRANGER_HELD);
    comes(given, 400);
    assert_true(connections_heard(&connections, given.here, &ANN, 400, 1));
    comes(given, STRANGER_HELD);
    comes(loud, STRANGER_HELD + 1);
    connections_tick(&connections, 1);
    assert_false(was_shut(quiet));
    assert_false(was_shut(given));
    assert_true(was_shut(loud));
    assert_int_equal(count(REFUSAL_MEMORY), 1);
    connections_tick(&connections, 2); /* it is shut once */
    assert_int_equal(count(REFUSAL_MEMORY), 1);
    comes(given, 1);
    connections_tick(&connections, 3);
    assert_true(was_shut(given));
    leave(quiet), leave(given), leave(loud);
    assert_int_equal(connections.n_here, 0);
}

static void a_member_sends_what_it_may(void **state)
{
    (void)state;
    struct pair p = enter(0);
    comes(p, 100);
    assert_true(connections_heard(&connections, p.here, &ANN, 100, 1));
    connections_vouch(&connections, p.here, &ANN, 5000, 1);
    comes(p, 5000);
    connections_tick(&connections, 2);
    connections_tick(&connections, 2 + 10 * STRANGER_MS); /* it may stay, too */
    assert_false(was_shut(p));
    connections_vouch(&connections, p.here, &ANN, 6000, 3);
    comes(p, 1000);
    connections_tick(&connections, 3);
    assert_false(was_shut(p));
    assert_true(connections_heard(&connections, p.here, &ANN, 6000, 4)); /* read: as much may come again */
    comes(p, 6000);
    connections_tick(&connections, 4);
    assert_false(was_shut(p));
    comes(p, 1);
    connections_tick(&connections, 5);
    assert_true(was_shut(p));
    leave(p);
}

static void a_member_no_more(void **state)
{
    (void)state;
    struct pair p = enter(0);
    comes(p, 100);
    connections_heard(&connections, p.here, &ANN, 100, 1);
    connections_vouch(&connections, p.here, &ANN, 5000, 1);
    assert_int_equal(connections.n_strangers, 0);
    comes(p, STRANGER_HELD + 1);
    connections_tick(&connections, 2);
    assert_false(was_shut(p));
    connections_vouch(&connections, p.here, &ANN, 0, 3);
    assert_int_equal(connections.n_strangers, 1);
    connections_tick(&connections, 4);
    assert_true(was_shut(p));
    leave(p);
}

static void nobody_waits_for_ever(void **state)
{
    (void)state;
    struct pair early = enter(0), late = enter(STRANGER_MS);
    connections_tick(&connections, STRANGER_MS);
    assert_false(was_shut(early));
    connections_tick(&connections, STRANGER_MS + 1);
    assert_true(was_shut(early));
    assert_false(was_shut(late));
    assert_int_equal(count(REFUSAL_IDLE), 1);
    leave(early), leave(late);
}

static void the_oldest_of_too_many_goes(void **state)
{
    (void)state;
    struct pair p[STRANGERS + 2];
    for (int i = 0; i < STRANGERS + 2; i++)
        p[i] = enter(i);
    connections_vouch(&connections, p[0].here, &ANN, 1000,
                      5); /* not known to be there yet: vouched for when it is heard */
    connections_heard(&connections, p[0].here, &ANN, 0, 6);
    connections_tick(&connections, 7);
    assert_false(was_shut(p[0]));
    assert_true(was_shut(p[1]));
    for (int i = 2; i < STRANGERS + 2; i++)
        assert_false(was_shut(p[i]));
    assert_int_equal(count(REFUSAL_TOO_MANY), 1);
    for (int i = 0; i < STRANGERS + 2; i++)
        leave(p[i]);
}

static void who_is_refused_goes_a_moment_later(void **state)
{
    (void)state;
    struct pair patient = enter(0), babbling = enter(0);
    connections_heard(&connections, patient.here, &ANN, 0, 0);
    connections_heard(&connections, babbling.here, &BOB, 0, 0);
    connections_refuse(&connections, patient.here, &ANN, 10);
    connections_refuse(&connections, babbling.here, &BOB, 10);
    connections_vouch(&connections, patient.here, &ANN, 1000, 11); /* too late */
    for (int i = 0; i < 20; i++)
        assert_false(connections_heard(&connections, babbling.here, &BOB, 0, 12));
    connections_tick(&connections, 10 + REFUSED_MS);
    assert_false(was_shut(patient));
    assert_true(was_shut(babbling));
    connections_tick(&connections, 11 + REFUSED_MS);
    assert_true(was_shut(patient));
    leave(patient), leave(babbling);
}

static void a_stranger_says_little(void **state)
{
    (void)state;
    struct pair p = enter(0), member = enter(0);
    connections_heard(&connections, member.here, &BOB, 0, 0);
    connections_vouch(&connections, member.here, &BOB, 1000, 0);
    for (int i = 0; i < 64; i++)
        assert_true(connections_heard(&connections, p.here, &ANN, 0, 1));
    assert_false(connections_heard(&connections, p.here, &ANN, 0, 1)); /* at once: each may ask for an answer */
    for (int i = 0; i < 1000; i++)
        assert_true(connections_heard(&connections, member.here, &BOB, 0, 1));
    connections_tick(&connections, 2);
    assert_true(was_shut(p));
    assert_false(was_shut(member));
    assert_int_equal(count(REFUSAL_MESSAGE), 1);
    connections_vouch(&connections, member.here, &BOB, 0, 3); /* a member no more: it counts from here */
    assert_true(connections_heard(&connections, member.here, &BOB, 0, 4));
    leave(p), leave(member);
}

/* Whose key is off the list goes at once, whether it is a member or has only said something. */
static void keys_that_are_allowed_no_more(void **state)
{
    (void)state;
    static struct allowed_key keys[] = {{.key = "ann's"}, {.key = "bob's"}};
    const struct allow_list both = {.keys = keys, .n = 2}, ann_only = {.keys = keys, .n = 1};
    struct routing_id ann = ANN, bob = BOB;
    struct pair a = enter(0), b = enter(0), silent = enter(0);
    strcpy(ann.key, "ann's"), strcpy(bob.key, "bob's");
    connections_heard(&connections, a.here, &ann, 0, 0);
    connections_heard(&connections, b.here, &bob, 0, 0);
    connections_vouch(&connections, b.here, &bob, 1000, 0);
    connections_revoke(&connections, &both);
    assert_false(was_shut(a) || was_shut(b) || was_shut(silent));
    connections_revoke(&connections, &ann_only);
    assert_true(was_shut(b));
    assert_false(was_shut(a) || was_shut(silent)); /* who that is shows with its first message */
    assert_false(connections_heard(&connections, b.here, &bob, 0, 1));
    assert_int_equal(count(REFUSAL_KEY), 1);
    leave(a), leave(b), leave(silent);
}

static void all_strangers_together(void **state)
{
    (void)state;
    struct pair p[STRANGERS], member = enter(0);
    comes(member, 10);
    connections_heard(&connections, member.here, &ANN, 10, 1);
    connections_vouch(&connections, member.here, &ANN, 9000, 1);
    comes(member, 9000); /* is not counted with them */
    for (int i = 0; i < STRANGERS; i++) {
        p[i] = enter(0);
        comes(p[i], i == 1 ? 900 : 800);
    }
    connections_tick(&connections, 2);
    assert_false(was_shut(member));
    assert_false(was_shut(p[0]));
    assert_false(was_shut(p[1]));
    comes(p[0], 50);
    comes(p[1], 50);
    connections_tick(&connections, 3);
    assert_true(was_shut(p[1]));
    assert_false(was_shut(p[0]));
    assert_false(was_shut(p[2]));
    for (int i = 0; i < STRANGERS; i++)
        leave(p[i]);
    leave(member);
}

/* A message that is left of who had the descriptor before does not make its sender the new connection's. */
static void a_descriptor_used_again(void **state)
{
    (void)state;
    struct pair first = enter(0);
    connections_heard(&connections, first.here, &ANN, 0, 0);
    connections_vouch(&connections, first.here, &ANN, 5000, 0);
    leave(first);
    struct pair second = enter(10);
    assert_int_equal(second.here, first.here); /* the lowest that is free */
    connections_heard(&connections, second.here, &ANN, 100, 11);
    assert_int_equal(connections.n_strangers, 1);
    connections_vouch(&connections, second.here, &ANN, 0, 12);
    connections_empty(&connections);
    connections_empty(&connections);
    comes(second, 100);
    connections_heard(&connections, second.here, &BOB, 100, 13);
    connections_vouch(&connections, second.here, &BOB, 5000, 14);
    assert_int_equal(connections.n_strangers, 0);
    connections_refuse(&connections, second.here, &ANN, 15); /* not here any more */
    connections_tick(&connections, 16 + REFUSED_MS);
    assert_false(was_shut(second));
    leave(second);
}

/* ZeroMQ may have closed a connection, and the kernel given its descriptor to another, before we hear of either. */
static void somebody_elses_connection(void **state)
{
    (void)state;
    struct pair gone = enter(0);
    close(gone.here);
    close(gone.there);
    struct pair other = connect_pair();
    assert_int_equal(other.here, gone.here);
    connections_tick(&connections, STRANGER_MS + 1);
    assert_int_equal(count(REFUSAL_IDLE), 1);
    assert_false(was_shut(other));
    close(other.here);
    close(other.there);
}

static void where_it_comes_from(void **state)
{
    (void)state;
    char text[CONNECTION_ADDRESS_SIZE];
    struct pair p = enter(0);
    connections_address(&connections, p.here, text);
    assert_string_equal(text, "127.0.0.1");
    connections_address(&connections, -1, text);
    assert_string_equal(text, "somebody");
    connections_address(&connections, 9999, text);
    assert_string_equal(text, "somebody");
    leave(p);
}

/* It is shut, not left to do as it likes. */
/* ZeroMQ gives a message to one thread and tells of its connection to another, which may be later. */
static void heard_before_it_is_told_of(void **state)
{
    (void)state;
    struct pair p = connect_pair();
    comes(p, 400);
    assert_true(connections_heard(&connections, p.here, &ANN, 400, 0));
    connections_vouch(&connections, p.here, &ANN, 5000, 0);
    connections_enter(&connections, p.here, 1);
    comes(p, 4900); /* nothing of that is a whole message yet */
    connections_tick(&connections, 2);
    assert_false(was_shut(p));
    comes(p, 200);
    connections_tick(&connections, 3);
    assert_true(was_shut(p));
    leave(p);
    assert_int_equal(connections.n_here, 0);

    struct pair q = connect_pair(); /* refused before it is told of */
    if (q.here == p.here) {
        leave(q);
        return;
    }
    assert_true(connections_heard(&connections, q.here, &BOB, 400, 10));
    connections_refuse(&connections, q.here, &BOB, 10);
    connections_enter(&connections, q.here, 11);
    assert_int_equal(connections.n_here, 1);
    connections_tick(&connections, 12 + REFUSED_MS);
    assert_true(was_shut(q));
    leave(q);
}

/* A producer's HELLO comes while the descriptor may still bring messages of whoever had it; then a chunk is under way. */
static void vouched_for_while_it_is_ambiguous(void **state)
{
    (void)state;
    struct pair first = enter(0);
    leave(first);
    struct pair p = enter(10);
    comes(p, 400);
    connections_heard(&connections, p.here, &ANN, 400, 11);
    connections_vouch(&connections, p.here, &ANN, 5000, 11);
    connections_empty(&connections);
    connections_empty(&connections); /* from here on its messages are its own, but none is whole */
    comes(p, 4000);
    connections_tick(&connections, 12);
    assert_false(was_shut(p));
    connections_vouch(&connections, p.here, &ANN, 0, 13);
    connections_tick(&connections, 14);
    assert_true(was_shut(p));
    leave(p);
}

static void no_memory_to_watch_it(void **state)
{
    (void)state;
    uint64_t counts[REFUSAL_KINDS];
    char byte;
    allocations_until_failure = 0;
    struct pair lost = enter(0);
    assert_int_equal(recv(lost.there, &byte, 1, 0), 0);
    refusals_counts(&refusals, counts);
    assert_int_equal(counts[REFUSAL_TOO_MANY], 1);
    assert_int_equal(connections.n_here, 0);
    leave(lost);
    struct pair next = enter(0);
    assert_int_equal(connections.n_here, 1);
    connections_tick(&connections, 1);
    assert_int_equal(recv(next.there, &byte, 1, MSG_DONTWAIT), -1);
    leave(next);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_memory_to_watch_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(strangers_send_little, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_member_sends_what_it_may, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_member_no_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_waits_for_ever, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_of_too_many_goes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_is_refused_goes_a_moment_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stranger_says_little, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keys_that_are_allowed_no_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_strangers_together, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_descriptor_used_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(somebody_elses_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(where_it_comes_from, set_up, tear_down),
        cmocka_unit_test_setup_teardown(heard_before_it_is_told_of, set_up, tear_down),
        cmocka_unit_test_setup_teardown(vouched_for_while_it_is_ambiguous, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
