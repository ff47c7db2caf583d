/* guard.h - the thread at the trainer's door: answers who may connect (zap.h), watches the connections (connections.h), counts and says
 * whom it turned away (refusals.h).
 *
 * It owns the two sockets for that; the link's own socket stays with the link's thread. */
#ifndef CROSSFEED_GUARD_H
#define CROSSFEED_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allow_list.h"
#include "connections.h"
#include "err.h"
#include "refusals.h"

struct guard;

/* Starts the thread; `socket` of `context` must not be bound yet. allowed: NULL if there are no keys; else its content is taken over. */
int guard_new(struct guard **g, void *context, void *socket, struct allow_list *allowed, struct err *e);

/* Once zmq_ctx_term(context) has returned or is about to end the sockets: waits for the thread. NULL is fine. */
void guard_free(struct guard *g);

/* As in connections.h. */
void guard_empty(struct guard *g);
bool guard_heard(struct guard *g, int fd, const struct routing_id *peer, uint64_t wire_bytes);
void guard_vouch(struct guard *g, int fd, const struct routing_id *peer, uint64_t allowed);

/* Counts and says ("who: why (from where)") a fault in what a message said. key: the peer's, or "". */
void guard_complain(struct guard *g, int fd, const char *who, const char *key, const char *why);
/* Closes the connection a moment later. */
void guard_expel(struct guard *g, int fd, const struct routing_id *peer);
void guard_address(struct guard *g, int fd, char address[CONNECTION_ADDRESS_SIZE]);
void guard_counts(struct guard *g, uint64_t counts[REFUSAL_KINDS]);

#endif
