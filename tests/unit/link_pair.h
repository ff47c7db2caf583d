/* link_pair.h - a listener and a producer's link, and what tests of the two say to each other. To be included after cmocka.h. */
#ifndef CROSSFEED_LINK_PAIR_H
#define CROSSFEED_LINK_PAIR_H

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "listener.h"
#include "scratch.h"

#define PATIENCE_MS 10000 /* for what must come; what must not come is waited for QUIET_MS */
#define QUIET_MS 50

static struct message m; /* 50 KB */
static struct link_peer peer;
static struct link_payload payload;
static struct err e;

static inline const char *ipc_endpoint(const char *name)
{
    static char text[300];
    snprintf(text, sizeof text, "ipc://%s/%s", scratch_folder, name);
    return text;
}

static inline struct listener *listen_at(const char *endpoint)
{
    struct listener *l;
    if (listener_open(&l, &endpoint, 1, NULL, &e))
        fail_msg("%s", e.message);
    return l;
}

static inline struct link *connect_to(const char *endpoint)
{
    struct link *l;
    if (link_connect(&l, endpoint, NULL, &e))
        fail_msg("%s", e.message);
    return l;
}

/* Both return the next message, or what link_receive says instead of it; 0 if nothing comes for that long. */
static inline int receive(struct link *l, int timeout_ms)
{
    int got;
    int64_t until = clock_ms() + timeout_ms;
    while ((got = link_receive(l, &peer, &m, &payload, &e)) == 0 && clock_ms() < until)
        link_poll(l, -1, 20);
    return got;
}

static inline int hear(struct listener *l, int timeout_ms)
{
    int got;
    int64_t until = clock_ms() + timeout_ms;
    while ((got = listener_receive(l, &peer, &m, &payload, &e)) == 0 && clock_ms() < until)
        link_poll(listener_link(l), -1, 20);
    return got;
}

static inline void is_ping(int got, uint64_t token)
{
    if (got != 1)
        fail_msg("PING %u did not come: %s", (unsigned)token, got ? e.message : "nothing came");
    assert_int_equal(m.type, MESSAGE_PING);
    assert_int_equal(m.ping.token, token);
    assert_null(payload.data);
}

static inline void expect_ping(struct link *l, uint64_t token)
{
    is_ping(receive(l, PATIENCE_MS), token);
}

static inline void hear_ping(struct listener *l, uint64_t token)
{
    is_ping(hear(l, PATIENCE_MS), token);
}

static inline int send_ping(struct link *l, const struct link_peer *to, uint64_t token)
{
    memset(&m, 0, sizeof m);
    m.type = MESSAGE_PING;
    m.ping.token = token;
    return link_send(l, to, &m, &e);
}

#endif
