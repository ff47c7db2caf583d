/* link.h - ZeroMQ sockets that carry the protocol's messages: a DEALER for a producer, a ROUTER for the trainer.
 *
 * A link belongs to one thread at a time. It carries messages (message.h); a BATCH has one payload frame beside it. No function here
 * blocks except link_poll. A message that breaks the rules (more frames than it may have, too large, not a message at all) is read to
 * its end and reported as ERR_PEER or ERR_DAMAGED together with its sender, so that the caller can drop the sender.
 *
 * The trainer does not make its ROUTER here but through listener.h (proto/door), which also decides who may come in. */
#ifndef CROSSFEED_LINK_H
#define CROSSFEED_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "curve_keys.h"
#include "err.h"
#include "message.h"

struct link;

/* One connection of a ROUTER, named by the id that ZeroMQ gave it. Every connection gets a new id, and peers cannot choose it. */
struct link_peer {
    unsigned char id[16];
    size_t size;              /* of id; 0 on a DEALER, which has one peer only */
    int fd;                   /* descriptor of the connection; -1 if it is not known */
    char key[CURVE_KEY_SIZE]; /* the peer's public key; "" without CURVE */
    char host
        [64]; /* filled with a HELLO: the peer's address without the port, "process 123" over ipc; "" if it is not known */
};

/* Returns what the sender of a HELLO is known by, whatever it says of itself: its key, or without keys where it comes from; "" if that is
 * not known. Valid as long as the peer. */
#define LINK_IDENTITY_SIZE 64 /* with the NUL */
static inline const char *link_identity(const struct link_peer *peer)
{
    return *peer->key ? peer->key : peer->host;
}

/* A payload that was received. It is valid, and its memory is held, until link_payload_release. */
struct link_payload {
    const unsigned char *data; /* NULL if there is none. NOT aligned */
    size_t size;
    void *frame;
};

/* Makes a DEALER that connects to the endpoint. It returns at once (but for looking up a host's name) and connects in the background, also
 * to a trainer that is started later, or whose name resolves later. keys: NULL for a connection without CURVE. */
int link_connect(struct link **l, const char *endpoint, const struct curve_client *keys, struct err *e);

/* Returns why a DEALER has no connection, as far as link_poll has heard; NULL if it has one or has not tried yet. */
const char *link_trouble(const struct link *l);

/* Returns whether link_poll has heard that the DEALER's connection, once made, has ended. What came before that can still be received.
 * ZeroMQ connects again by itself (unless it could not read some bytes: with keys, these are any bytes that were changed on the way),
 * but the other side takes the new connection for a stranger who sends the rest of what the old one was to carry. */
bool link_lost(const struct link *l);

/* Returns how many bytes ZeroMQ holds of the DEALER's connection, of messages that link_receive has not given; 0 over ipc, where it is not
 * known. It is what a trainer makes this process keep, message of endless parts included. */
uint64_t link_held(const struct link *l);

/* Closes the link. ZeroMQ goes on sending for at most linger_ms what was sent before. l may be NULL. */
void link_close(struct link *l, int linger_ms);

/* Sends m, to `peer` on a ROUTER; peer is NULL on a DEALER. Returns ERR_PEER if the peer is gone or its queue is full. */
int link_send(struct link *l, const struct link_peer *peer, const struct message *m, struct err *e);

/* Sends an ERROR about a lease; lease 0 means that it is about none. A failure to send is not reported, because a peer that is gone
 * is noticed by its silence. */
void link_send_error(struct link *l, const struct link_peer *peer, uint64_t lease, const char *code, const char *text);

/* Sends a REJECT or BYE with its reason, or a BYE_ACK, which has none. A failure to send is not reported. */
void link_send_text(struct link *l, const struct link_peer *peer, enum message_type type, const char *reason);

/* Sends m from a DEALER with data as its payload frame, without copying data. It must stay unchanged until release(context) is called,
 * which happens exactly once, on any thread, and also when sending fails. */
int link_send_payload(struct link *l, const struct message *m, const void *data, size_t size,
                      void (*release)(void *context), void *context, struct err *e);

/* Takes one message if one is waiting. Returns 1 if there was one: m is filled, on a ROUTER also peer, and for a BATCH also payload,
 * which must be released. Returns 0 if none is waiting; ERR_PEER if this peer broke the protocol; ERR_DAMAGED if its message was
 * changed on the way, so that what it said is lost and the two must begin anew; or another negative code if the socket is of no more
 * use. */
int link_receive(struct link *l, struct link_peer *peer, struct message *m, struct link_payload *payload,
                 struct err *e);

/* Gives a payload's memory back and empties it. An empty payload is fine. */
void link_payload_release(struct link_payload *p);

/* Waits for at most timeout_ms until a message is there, a DEALER's connection changes, or fd (an eventfd; -1: none) is readable. */
void link_poll(struct link *l, int fd, int timeout_ms);

/* ---- for listener.c, which binds the socket and judges whom a message comes from ---- */

/* Makes a ROUTER that is not bound to any endpoint yet. keys: the pair of a CURVE server; NULL: without CURVE. */
int link_new_router(struct link **l, const struct curve_pair *keys, struct err *e);

/* Return the link's ZeroMQ context and socket. The link goes on owning them. */
void *link_context(const struct link *l);
void *link_socket(const struct link *l);

/* Returns how many bytes the message that link_receive took last, good or bad, was on the wire. */
size_t link_received_bytes(const struct link *l);

#endif
