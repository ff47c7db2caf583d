/* ingest_producers.h - the ingest thread's dealings with producers as such: who may come, who is here, who has gone. */
#ifndef CROSSFEED_INGEST_PRODUCERS_H
#define CROSSFEED_INGEST_PRODUCERS_H

#include "ingest_state.h"

/* Judges the HELLO in in->message: adds the producer and welcomes it, or rejects it. */
void ingest_take_hello(struct ingest *in, const struct link_peer *from, struct err *e);

/* Tells a producer the terms; again once the scale is known. */
int ingest_send_welcome(struct ingest *in, const struct producer *p);

int ingest_send_end(struct ingest *in, const struct link_peer *to);

/* A PING to everybody each heartbeat: a connection that is closed shows at once, not after timeout_ms. */
void ingest_ping(struct ingest *in);

/* The producer is gone, its leases go elsewhere; why is for the log: "leaves", "fell silent, dropped". ingest_lose: not
 * as it should be, and counted. */
void ingest_drop(struct ingest *in, int index, const char *why);
void ingest_lose(struct ingest *in, int index, const char *why);

/* Drops who has been silent for timeout_ms of the time in which we listened ourselves: not while the trainer was
 * stopped, or swapped out. */
void ingest_drop_silent(struct ingest *in);

/* What broke the rules of messages (e says how) would only do so again: REJECT, and dropped if it was here. */
void ingest_refuse(struct ingest *in, const struct link_peer *from, const struct err *e);

/* Its message was damaged on the way: what was in it is lost, so that it shall come anew. */
void ingest_start_anew(struct ingest *in, const struct link_peer *from, const struct err *e);

#endif
