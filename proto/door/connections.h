/* connections.h - the connections of a listening socket, and which of them must go.
 *
 * ZeroMQ bounds neither how many connections there are nor what one of them may make it hold (socket_bytes.h). A connection is shut
 * (shutdown(2), which ZeroMQ takes for the peer's closing)
 * - when ZeroMQ holds too much for it,
 * - when it is the oldest of too many strangers, which are connections that nobody has vouched for,
 * - when nobody has vouched for it for too long, or not within some messages,
 * - a moment after its peer was refused, so that the refusal can still leave,
 * - when its peer's key is not allowed any more.
 * The kernel counts no bytes of a Unix socket; there the other rules hold.
 *
 * A connection is known by its descriptor, a peer by its routing id, and ZeroMQ tells both with a message. But a message may outlive
 * its connection, and the descriptor may belong to another one by then. So a connection is bound to the first peer that is heard over
 * it once nothing can be left of whoever had the descriptor before: that is, once the link has seen its queue empty. Before a shutdown
 * the address is compared.
 *
 * This is bookkeeping, apart from asking the kernel and from the shutdowns. The caller locks. */
#ifndef CROSSFEED_CONNECTIONS_H
#define CROSSFEED_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "allow_list.h"
#include "curve_keys.h"
#include "err.h"
#include "refusals.h"

#define CONNECTION_ADDRESS_SIZE 64

struct connection_limits {
    size_t strangers;       /* how many there may be at a time */
    int64_t stranger_ms;    /* how long a connection may be one */
    int64_t refused_ms;     /* from a refusal to the shutdown */
    uint64_t stranger_held; /* bytes that ZeroMQ may hold for one stranger */
    uint64_t
        others_held; /* bytes that it may hold for all together that are not members; beyond it the largest is shut */
};

enum connection_state {
    CONNECTION_ABSENT,   /* the descriptor is no connection */
    CONNECTION_STRANGER, /* nobody has vouched for it */
    CONNECTION_MEMBER,   /* its peer is a producer that was accepted */
    CONNECTION_REFUSED,  /* its peer was told REJECT; it is shut soon */
    CONNECTION_SHUT      /* it was shut; ZeroMQ has yet to notice */
};

struct routing_id {
    unsigned char id[16];
    size_t size;              /* 0: none */
    char key[CURVE_KEY_SIZE]; /* what its owner has shown; "" without keys */
};

struct connection_member {
    struct routing_id peer;
    uint64_t allowed; /* bytes that ZeroMQ may hold for it */
};

struct connection {
    enum connection_state state;
    struct routing_id bound;  /* the peer that the connection is bound to */
    bool used_before;         /* another connection had the descriptor before */
    int64_t entered_ms;       /* when it came, */
    uint64_t entered_empties; /* and how often the queue had been seen empty by then */
    uint64_t number;          /* counts the connections in the order in which they came */
    int64_t since_ms;         /* when it got its state */
    uint64_t given;           /* bytes on the wire of its messages that the link was given */
    uint64_t held;            /* bytes that ZeroMQ held at the last connections_tick */
    uint64_t allowed;         /* of a member: how many that may be */
    unsigned said;            /* messages that came while it was a stranger, */
    unsigned after;           /* and after it was refused */
    bool early;               /* a message has told of it, and ZeroMQ has not yet */
    struct routing_id heard;  /* while it is not bound: who was heard over it last */
    struct sockaddr_storage peer;
};

struct connections {
    struct connection_member *members; /* [n_members] peers that somebody vouches for */
    size_t n_members, members_room;
    uint64_t empties; /* how often the link has seen its queue empty */
    struct connection_limits limits;
    struct connection *connections; /* [n_connections], by descriptor */
    size_t n_connections;
    size_t n_here, n_strangers;
    uint64_t last_number;
    struct refusals *refusals; /* borrowed */
};

void connections_init(struct connections *c, const struct connection_limits *limits, struct refusals *refusals);
void connections_release(struct connections *c);

/* Makes room for connections of descriptors below that number and for so many members, so that a trainer that has few of both learns
 * before it starts whether there is memory to watch them. */
int connections_reserve(struct connections *c, size_t descriptors, size_t members, struct err *e);

/* Records that a connection was accepted under the descriptor fd. If there is no memory to watch it, it is shut at once. */
void connections_enter(struct connections *c, int fd, int64_t now_ms);

/* Records that the connection has ended. */
void connections_leave(struct connections *c, int fd);

/* Records that the link has nothing left to read. */
void connections_empty(struct connections *c);

/* Records that a message of so many bytes on the wire came from the peer over fd. Returns false if the peer was refused before, or is a
 * stranger and has said too much, so that the message counts for nothing. */
bool connections_heard(struct connections *c, int fd, const struct routing_id *peer, uint64_t wire_bytes,
                       int64_t now_ms);

/* Makes the peer a member, of whom ZeroMQ may hold so many bytes from now on; with 0, the peer is a member no more. */
void connections_vouch(struct connections *c, int fd, const struct routing_id *peer, uint64_t allowed, int64_t now_ms);

/* Refuses the peer: connections_tick shuts its connection a moment later. */
void connections_refuse(struct connections *c, int fd, const struct routing_id *peer, int64_t now_ms);

/* Shuts the connections of peers whose key is not allowed. */
void connections_revoke(struct connections *c, const struct allow_list *allowed);

/* Writes where a connection comes from, for people: "10.0.0.7", or "process 123" of a Unix socket, or "somebody". */
void connections_address(const struct connections *c, int fd, char address[CONNECTION_ADDRESS_SIZE]);

/* Shuts the connections that must go. */
void connections_tick(struct connections *c, int64_t now_ms);

#endif
