/* guard.h - the thread that guards a listener: it answers who may connect (zap.h), watches the connections (connections.h), counts
 * whom it turned away and says so (refusals.h).
 *
 * The guard owns the two sockets that it needs for this. The link's own socket stays with the listener's thread, which calls the
 * functions below. */
#ifndef CROSSFEED_GUARD_H
#define CROSSFEED_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allow_list.h"
#include "err.h"
#include "link.h"
#include "refusals.h"

struct guard;

/* Starts the thread that watches link, a ROUTER that must not be bound yet. allowed: the keys that may connect, whose content the guard
 * takes over; NULL if there are no keys. */
int guard_new(struct guard **g, struct link *link, struct allow_list *allowed, struct err *e);

/* Waits for the thread to end and frees the guard. To be called after link_close, which ends the thread. g may be NULL. */
void guard_free(struct guard *g);

/* Tells the guard that nothing is left to be received. */
void guard_empty(struct guard *g);

/* Tells the guard that a message of so many bytes on the wire came from the peer. Returns false if the peer was refused before, so that
 * the message counts for nothing. */
bool guard_heard(struct guard *g, const struct link_peer *peer, uint64_t wire_bytes);

/* Makes the peer a member, of whom ZeroMQ may hold so many bytes from now on; with 0, the peer is a stranger again. */
void guard_vouch(struct guard *g, const struct link_peer *peer, uint64_t allowed);

/* Counts a fault in what the peer's message said and logs "who: why (from where)". */
void guard_complain(struct guard *g, const struct link_peer *peer, const char *who, const char *why);

/* Closes the peer's connection a moment later. */
void guard_expel(struct guard *g, const struct link_peer *peer);

/* Writes the peer's address and, if it has one, its key. */
void guard_describe(struct guard *g, const struct link_peer *peer, char *text, size_t size);

/* Fills in how many were turned away, by kind. Any thread may call this. */
void guard_counts(struct guard *g, uint64_t counts[REFUSAL_KINDS]);

#endif
