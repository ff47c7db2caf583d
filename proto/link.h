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

#include "err.h"
#include "message.h"

/* Messages of one peer that a ROUTER holds before it stops reading from that peer. */
#define LINK_RECEIVE_HWM 16

struct link;

/* A connection of a ROUTER: the id that ZeroMQ gave it. Each connection has a fresh one; peers cannot choose it. */
struct link_peer {
    unsigned char id[16];
    size_t size;   /* 0 on a DEALER */
    char host[64]; /* with a HELLO: the address it comes from, without the port; "" if unknown (ipc) */
};

/* A received payload: valid, and its memory held, until link_payload_release. */
struct link_payload {
    const unsigned char *data; /* NULL: none. NOT aligned */
    size_t size;
    void *frame;
};

/* Binds every endpoint (tcp://127.0.0.1:5555, tcp://127.0.0.1:*, ipc:///path). Anything but loopback TCP and ipc is
 * refused unless insecure. An endpoint in use is an error. */
int link_listen(struct link **l, const char *const *endpoints, size_t n, bool insecure, struct err *e);
/* The i-th endpoint as bound (with the port that '*' became). Valid until link_close. */
const char *link_endpoint(const struct link *l, size_t i);

/* Connects (in the background: returns at once, the peer may come later). */
int link_connect(struct link **l, const char *endpoint, struct err *e);

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

/* Waits for a message or for fd (an eventfd; -1: none) to become readable, timeout_ms at most. */
void link_poll(struct link *l, int fd, int timeout_ms);

#endif
