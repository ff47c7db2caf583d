/* crowd.h - the connections of a listening socket, and which of them must go.
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
#ifndef CROSSFEED_CROWD_H
#define CROSSFEED_CROWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "err.h"
#include "refusals.h"

#define CROWD_ADDRESS_SIZE 64

struct crowd_limits {
    size_t strangers;       /* connections that nobody has vouched for */
    int64_t stranger_ms;    /* and for how long */
    int64_t refused_ms;     /* from a refusal to the shutdown */
    uint64_t stranger_held; /* bytes in ZeroMQ for one of them */
    uint64_t others_held;   /* for all together that are not members: the largest goes */
};

enum crowd_state { CROWD_ABSENT, CROWD_STRANGER, CROWD_MEMBER, CROWD_REFUSED, CROWD_SHUT };

/* A routing id. */
struct crowd_peer {
    unsigned char id[16];
    size_t size; /* 0: none */
};

struct crowd_member {
    struct crowd_peer peer;
    uint64_t allowed; /* bytes that ZeroMQ may hold of it */
};

struct connection {
    enum crowd_state state;
    struct crowd_peer bound; /* to whom */
    bool used_before;        /* the descriptor, by another connection */
    int64_t entered_ms;
    uint64_t entered_empties;
    uint64_t number;  /* in order of coming */
    int64_t since_ms; /* it is here; CROWD_REFUSED: when it was refused */
    uint64_t given;   /* bytes on the wire of the messages that the link was given */
    uint64_t held;    /* as of the last crowd_tick */
    uint64_t allowed; /* of a member: how much that may be */
    unsigned after;   /* messages after it was refused */
    struct sockaddr_storage peer;
};

struct crowd {
    struct crowd_member *members; /* [n_members] vouched for */
    size_t n_members;
    uint64_t empties; /* times the link has seen its queue empty */
    struct crowd_limits limits;
    struct connection *connections; /* [n_connections], by descriptor */
    size_t n_connections;
    size_t n_here, n_strangers;
    uint64_t last_number;
    struct refusals *refusals; /* not owned */
};

void crowd_init(struct crowd *c, const struct crowd_limits *limits, struct refusals *refusals);
void crowd_release(struct crowd *c);

void crowd_enter(struct crowd *c, int fd, int64_t now_ms);
void crowd_leave(struct crowd *c, int fd);

/* The link has nothing left to read. */
void crowd_empty(struct crowd *c);

/* A message of that many bytes on the wire came from the peer over fd. False: it was refused before, the message counts for nothing. */
bool crowd_heard(struct crowd *c, int fd, const struct crowd_peer *peer, uint64_t wire_bytes, int64_t now_ms);
/* The peer is a member, of whom ZeroMQ may hold so many bytes from now on; 0: not a member any more. */
void crowd_vouch(struct crowd *c, int fd, const struct crowd_peer *peer, uint64_t allowed, int64_t now_ms);
void crowd_refuse(struct crowd *c, int fd, const struct crowd_peer *peer, int64_t now_ms);

/* Where a connection comes from, for people: 10.0.0.7, or "process 123" of a Unix socket, or "somebody". */
void crowd_address(const struct crowd *c, int fd, char address[CROWD_ADDRESS_SIZE]);

/* Shuts what must go. */
void crowd_tick(struct crowd *c, int64_t now_ms);

#endif
