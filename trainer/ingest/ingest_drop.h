/* ingest_drop.h - how a producer goes, by itself or because it is put out. */
#ifndef CROSSFEED_INGEST_DROP_H
#define CROSSFEED_INGEST_DROP_H

#include "ingest_state.h"

/* Forgets the producer at index and leases its blocks again. why is for the log and follows the producer's name: "leaves". */
void ingest_drop(struct ingest *in, int index, const char *why);

/* Drops the producer and counts it as lost, because it did not leave as it should: "fell silent, dropped". */
void ingest_lose(struct ingest *in, int index, const char *why);

/* Puts out a peer that would only do wrong again: sends it a REJECT that says `reason`, closes its connection a moment later, and if it
 * was a producer, loses it. */
void ingest_put_out(struct ingest *in, const struct link_peer *from, const char *reason, const char *why);

/* Counts a message that broke the rules (e says how) and puts its sender out. */
void ingest_refuse(struct ingest *in, const struct link_peer *from, const struct err *e);

/* Counts a message that was damaged on the way and tells its sender to begin anew, because what the message said is lost. */
void ingest_start_anew(struct ingest *in, const struct link_peer *from, const struct err *e);

#endif
