/* ingest_peers.h - the ingest thread's dealings with producers as such: who may come, who is here, who has gone. */
#ifndef CROSSFEED_INGEST_PEERS_H
#define CROSSFEED_INGEST_PEERS_H

#include "ingest_state.h"

/* Judges the HELLO in in->message: adds the producer and returns its index, or rejects it and returns -1. */
int ingest_take_hello(struct ingest *in, const struct link_peer *from, struct err *e);

/* Tells an added producer the terms, and counts it; ingest_send_welcome alone repeats them with the scale. */
void ingest_welcome(struct ingest *in, int index);
void ingest_send_welcome(struct ingest *in, const struct peer *p);

void ingest_send_end(struct ingest *in, const struct link_peer *to);

/* The producer is gone, its leases go elsewhere; why is for the log: "leaves", "fell silent, dropped". */
void ingest_drop(struct ingest *in, int index, const char *why);
void ingest_drop_silent(struct ingest *in);

/* What broke the rules of messages (e says how) would only do so again: REJECT, and dropped if it was here. */
void ingest_refuse(struct ingest *in, const struct link_peer *from, const struct err *e);

#endif
