/* ingest_producers.h - what the ingest thread says to producers as such: the terms, PINGs, the end. See PROTOCOL.md, section 3. */
#ifndef CROSSFEED_INGEST_PRODUCERS_H
#define CROSSFEED_INGEST_PRODUCERS_H

#include "ingest_state.h"

/* Judges the HELLO in in->message: adds the producer and welcomes it, or rejects it. */
void ingest_take_hello(struct ingest *in, const struct link_peer *from, struct err *e);

/* Tells a producer the terms of the run; once more when the scale is known. */
int ingest_send_welcome(struct ingest *in, const struct producer *p);

/* Tells a peer that the run is over, and how it ended. */
int ingest_send_end(struct ingest *in, const struct link_peer *to);

/* Takes the PING in in->message, which says how the producer spends its time. */
void ingest_take_ping(struct ingest *in, int index);

/* Sends everybody a PING each heartbeat, so that a closed connection shows at once and not after timeout_ms. */
void ingest_ping(struct ingest *in);

/* Drops producers that have been silent for timeout_ms. Time in which the trainer itself did not listen, because it was stopped or
 * swapped out, does not count. */
void ingest_drop_silent(struct ingest *in);

#endif
