/* connections.h - the connections of a listening socket, and which of them must go.
 *
 * ZeroMQ bounds neither how many connections there are nor what one of them may make it hold: a message of endlessly
 * many parts is kept until its last part comes, whatever the high-water mark (1.15 GB measured at a limit of 1 MiB).
 * What it holds for a TCP connection is known all the same: what the kernel received and has handed out, less what the
 * link was given. A connection goes (shutdown(2), which ZeroMQ takes for the peer's closing) when that is too much, when
 * it is one of too many that nobody has vouched for, when nobody does for too long, or a moment after it was refused,
 * so that the refusal can leave. Of a Unix socket the kernel counts no bytes; there the other rules hold.
 *
 * A connection is known by its descriptor, a peer by its routing id, and ZeroMQ tells with a message both. But a
 * message may outlive its connection, and the descriptor be another's by then. So a connection is bound to the first peer
 * that is heard over it once nothing can be left of who had the descriptor before: the link has seen its queue empty.
 * Before a shutdown the address is compared.
 *
 * Pure bookkeeping but for asking the kernel and the shutdowns; the caller locks. */
#ifndef CROSSFEED_CONNECTIONS_H
#define CROSSFEED_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "err.h"
#include "refusals.h"

#define CONNECTION_ADDRESS_SIZE 64

struct connection_limits {
    size_t strangers;       /* connections that nobody has vouched for */
    int64_t stranger_ms;    /* and for how long */
    int64_t refused_ms;     /* from a refusal to the shutdown */
    uint64_t stranger_held; /* bytes in ZeroMQ for one of them */
    uint64_t others_held;   /* for all together that are not members: the largest goes */
};

enum connection_state {
    CONNECTION_ABSENT,
    CONNECTION_STRANGER,
    CONNECTION_MEMBER,
    CONNECTION_REFUSED,
    CONNECTION_SHUT
};

/* A routing id. */
struct routing_id {
    unsigned char id[16];
    size_t size; /* 0: none */
};

struct connection_member {
    struct routing_id peer;
    uint64_t allowed; /* bytes that ZeroMQ may hold of it */
};

struct connection {
    enum connection_state state;
    struct routing_id bound; /* to whom */
    bool used_before;        /* the descriptor, by another connection */
    int64_t entered_ms;
    uint64_t entered_empties;
    uint64_t number;  /* in order of coming */
    int64_t since_ms; /* it is here; CONNECTION_REFUSED: when it was refused */
    uint64_t given;   /* bytes on the wire of the messages that the link was given */
    uint64_t held;    /* as of the last connections_tick */
    uint64_t allowed; /* of a member: how much that may be */
    unsigned after;   /* messages after it was refused */
    struct sockaddr_storage peer;
};

struct connections {
    struct connection_member *members; /* [n_members] vouched for */
    size_t n_members;
    uint64_t empties; /* times the link has seen its queue empty */
    struct connection_limits limits;
    struct connection *connections; /* [n_connections], by descriptor */
    size_t n_connections;
    size_t n_here, n_strangers;
    uint64_t last_number;
    struct refusals *refusals; /* not owned */
};

void connections_init(struct connections *c, const struct connection_limits *limits, struct refusals *refusals);
void connections_release(struct connections *c);

void connections_enter(struct connections *c, int fd, int64_t now_ms);
void connections_leave(struct connections *c, int fd);

/* The link has nothing left to read. */
void connections_empty(struct connections *c);

/* A message of that many bytes on the wire came from the peer over fd. False: it was refused before, the message counts for nothing. */
bool connections_heard(struct connections *c, int fd, const struct routing_id *peer, uint64_t wire_bytes,
                       int64_t now_ms);
/* The peer is a member, of whom ZeroMQ may hold so many bytes from now on; 0: not a member any more. */
void connections_vouch(struct connections *c, int fd, const struct routing_id *peer, uint64_t allowed, int64_t now_ms);
void connections_refuse(struct connections *c, int fd, const struct routing_id *peer, int64_t now_ms);

/* Where a connection comes from, for people: 10.0.0.7, or "process 123" of a Unix socket, or "somebody". */
void connections_address(const struct connections *c, int fd, char address[CONNECTION_ADDRESS_SIZE]);

/* Shuts what must go. */
void connections_tick(struct connections *c, int64_t now_ms);

#endif
