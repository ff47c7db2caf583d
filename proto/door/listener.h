/* listener.h - the trainer's listening side: a ROUTER bound to its endpoints, and the guard that decides who may stay.
 *
 * The listener owns the link, and a thread (guard.h) that answers who may connect and watches the connections. It belongs to one thread
 * at a time. Messages are received by listener_receive, which passes over those of peers that were refused; they are sent, and waited
 * for, by the functions of link.h on listener_link.
 *
 * Refused are: endpoints that are none (endpoint.h), whose host is not known or not this machine's, that are in use, or that other machines
 * reach although there are no keys. */
#ifndef CROSSFEED_LISTENER_H
#define CROSSFEED_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "link.h"
#include "refusals.h"

struct listener;

/* Who may connect. */
struct listener_access {
    const char *curve_secret; /* file of the trainer's key pair; NULL: there are no keys */
    const char *curve_allow;  /* file or folder of the public keys that may connect; NULL if there are no keys */
    bool insecure;            /* other machines may connect although there are no keys */
};

/* Binds each of the n endpoints (tcp://127.0.0.1:5555, tcp://127.0.0.1:*, ipc:///path). Without keys only loopback TCP and ipc are
 * allowed, unless access says insecure. With keys, they are asked for at every endpoint. access may be NULL: no keys, not insecure. */
int listener_open(struct listener **l, const char *const *endpoints, size_t n, const struct listener_access *access,
                  struct err *e);

/* Closes the sockets and ends the guard. What was sent before still has linger_ms to leave. l may be NULL. */
void listener_close(struct listener *l, int linger_ms);

/* Returns the i-th endpoint as it was bound (with the port that '*' became), "" if there is none. Valid until listener_close. */
const char *listener_endpoint(const struct listener *l, size_t i);

/* Returns the link through which this side sends and polls. The listener goes on owning it. */
struct link *listener_link(struct listener *l);

/* Takes one message, as link_receive does, of a peer that has not been refused. */
int listener_receive(struct listener *l, struct link_peer *peer, struct message *m, struct link_payload *payload,
                     struct err *e);

/* Vouches for a producer that was accepted: so many bytes of it may wait here before they are read. With 0, it is dropped. A
 * connection that nobody vouches for is closed after a while and is one of a limited number. */
void listener_vouch(struct listener *l, const struct link_peer *peer, uint64_t bytes);

/* Returns the bytes to vouch for: the answers to so many leases of at most so many rows each, and short messages. */
uint64_t listener_answer_bytes(const struct stream *s, enum row_dtype dtype, size_t rows, size_t leases);

/* Counts a fault of a peer and logs "who: why", at a limited rate. */
void listener_complain(struct listener *l, const struct link_peer *peer, const char *who, const char *why);

/* Complains, sends the peer a REJECT, or if it may come again later (for_now) an ERROR "not-now", and closes its connection a moment later.
 * Nothing more is received from it. */
void listener_refuse(struct listener *l, const struct link_peer *peer, const char *who, const char *why, bool for_now);

/* Fills in how many were turned away, by kind. Any thread may call this while the listener is open. */
void listener_refusals(const struct listener *l, uint64_t counts[REFUSAL_KINDS]);

/* Writes where a peer is, for people: "10.0.0.7, key rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7". */
#define LISTENER_DESCRIPTION_SIZE 128
void listener_describe(const struct listener *l, const struct link_peer *peer, char text[LISTENER_DESCRIPTION_SIZE]);

#endif
