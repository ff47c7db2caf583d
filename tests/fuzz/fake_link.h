/* fake_link.h - link.h and listener.h without sockets: a fuzz target is the other side of the wire.
 *
 * fake_link.c takes the place of link.c in the program, and fake_listener.c (the trainer's side) that of listener.c. What the code under test receives, and what becomes of what it
 * sends, are three functions of the target. All that is sent must encode, and decode to the same. */
#ifndef CROSSFEED_FAKE_LINK_H
#define CROSSFEED_FAKE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"

/* As link_receive. fake_link_decode and fake_link_payload help. */
int fake_receive(struct link_peer *peer, struct message *m, struct link_payload *payload, struct err *e);
/* data: the payload of a BATCH, else NULL. peer: NULL on a DEALER. Returns 0, or negative: the peer is gone. */
int fake_sent(const struct link_peer *peer, const struct message *m, const unsigned char *data, size_t size);
/* fd: the eventfd that link_poll would watch, or -1. */
void fake_poll(int fd);
/* A DEALER's link is opened (true) or closed. */
void fake_opened(bool open);

/* From now on link_lost is true, until a DEALER's link is opened. */
void fake_disconnect(void);

/* message_decode from a block of just that size. */
int fake_link_decode(struct message *m, const uint8_t *data, size_t size, struct err *e);
/* A payload of that size, zeroed; released by link_payload_release. Returns where to write it. */
unsigned char *fake_link_payload(struct link_payload *p, size_t size);

/* The clock is ahead by so much (fake_clock.c); 0: it is right. Returns what it was. */
int64_t fake_clock_set(int64_t ms);
void fake_clock_jump(int64_t ms);

#endif
