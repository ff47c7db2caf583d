/* link.h - the sockets: a ROUTER that the trainer binds, a DEALER that a producer connects. The only file with ZeroMQ.
 *
 * A link belongs to one thread at a time. It carries messages (message.h), a BATCH with one payload frame beside it.
 * Nothing here blocks except link_poll. What a peer may not do (more frames, too large, not a message) is reported as
 * ERR_PEER or ERR_DAMAGED with the peer, and drained, so that the caller can drop it. */
#ifndef CROSSFEED_LINK_H
#define CROSSFEED_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "curve_keys.h"
#include "err.h"
#include "message.h"
#include "refusals.h"

struct link;

/* A connection of a ROUTER: the id that ZeroMQ gave it. Each connection has a fresh one; peers cannot choose it. */
struct link_peer {
    unsigned char id[16];
    size_t size;              /* 0 on a DEALER */
    int fd;                   /* its connection, for the guard; -1: unknown */
    char key[CURVE_KEY_SIZE]; /* its public key; "" without CURVE */
    char host[64];            /* with a HELLO: the address it comes from, without the port; "" if unknown (ipc) */
};

/* Who may come in. */
struct link_door {
    const char *curve_secret; /* file of the trainer's key pair; NULL: no keys */
    const char *curve_allow;  /* file or folder of the public keys that may connect; NULL if there are no keys */
    bool insecure;            /* without keys, other machines may reach us all the same */
};

/* A received payload: valid, and its memory held, until link_payload_release. */
struct link_payload {
    const unsigned char *data; /* NULL: none. NOT aligned */
    size_t size;
    void *frame;
};

/* Binds every endpoint (tcp://127.0.0.1:5555, tcp://127.0.0.1:*, ipc:///path). Anything but loopback TCP and ipc is
 * refused without keys unless insecure. An endpoint in use is an error. door NULL: no keys, not insecure. With keys,
 * they are asked for at every endpoint. A thread of the link's own guards it (guard.h). */
int link_listen(struct link **l, const char *const *endpoints, size_t n, const struct link_door *door, struct err *e);
/* The i-th endpoint as bound (with the port that '*' became). Valid until link_close. */
const char *link_endpoint(const struct link *l, size_t i);

/* ROUTER. A connection that nobody vouches for is closed after a while, and is one of a limited number. A producer that was
 * accepted is vouched for: so many bytes may come from it before they are read; 0 when it is dropped. */
void link_vouch(struct link *l, const struct link_peer *peer, uint64_t bytes);
/* For that: the answers to so many leases of so many rows each, at most, and short messages. */
uint64_t link_answer_bytes(const struct stream *s, enum row_dtype dtype, size_t rows, size_t leases);
/* ROUTER. Counts a fault of a peer and logs "who: why", in measure. */
void link_complain(struct link *l, const struct link_peer *peer, const char *who, const char *why);
/* ROUTER. The same, and sends REJECT; a moment later the connection is closed. No more is heard of it. */
void link_refuse(struct link *l, const struct link_peer *peer, const char *who, const char *why);
/* ROUTER. Whom we turned away, by kind. From any thread while the link is open. */
void link_refusals(const struct link *l, uint64_t counts[REFUSAL_KINDS]);
/* ROUTER. "10.0.0.7, key rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7" */
#define LINK_DESCRIPTION_SIZE 128
void link_describe(const struct link *l, const struct link_peer *peer, char text[LINK_DESCRIPTION_SIZE]);

/* Connects (in the background: returns at once, the peer may come later). keys NULL: without CURVE. */
int link_connect(struct link **l, const char *endpoint, const struct curve_client *keys, struct err *e);
/* DEALER. Why there is no connection, as far as link_poll has heard; NULL: there is one, or none was tried. */
const char *link_trouble(const struct link *l);
/* DEALER. Whether link_poll has heard that a connection, once there, has ended. What came before that can still be
 * received. ZeroMQ connects again by itself (not after bytes that it could not read: with keys, any that were changed on
 * the way), but to the other side that is a stranger, who sends the rest of what the old connection was to carry. */
bool link_lost(const struct link *l);

/* Closes; what was sent has linger_ms to leave. NULL is fine. */
void link_close(struct link *l, int linger_ms);

/* Sends m (to peer on a ROUTER; NULL on a DEALER). ERR_PEER if the peer is gone or its queue is full. */
int link_send(struct link *l, const struct link_peer *peer, const struct message *m, struct err *e);

/* The short messages. A failure is not reported: a peer that is gone is noticed by its silence. lease 0: not about one. */
void link_send_error(struct link *l, const struct link_peer *peer, uint64_t lease, const char *code, const char *text);
/* type: MESSAGE_REJECT or MESSAGE_BYE; MESSAGE_BYE_ACK, whose reason is not sent. */
void link_send_text(struct link *l, const struct link_peer *peer, enum message_type type, const char *reason);

/* Sends m and data as its payload frame without copying. data must stay until release(context) is called, on any
 * thread, exactly once, also when sending fails. */
int link_send_payload(struct link *l, const struct message *m, const void *data, size_t size,
                      void (*release)(void *context), void *context, struct err *e);

/* Takes one message if there is one. Returns 1 (m filled; peer on a ROUTER; payload for a BATCH, to be released), 0
 * (none waiting), ERR_PEER (this peer broke the protocol), ERR_DAMAGED (its message was changed on the way, and what it
 * was is lost: begin anew) or another negative code (the socket is of no more use). */
int link_receive(struct link *l, struct link_peer *peer, struct message *m, struct link_payload *payload,
                 struct err *e);
void link_payload_release(struct link_payload *p); /* safe on an empty one */

/* Waits for a message, for a change of a DEALER's connection, or for fd (an eventfd; -1: none) to become readable,
 * timeout_ms at most. */
void link_poll(struct link *l, int fd, int timeout_ms);

#endif
