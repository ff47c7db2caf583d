/* ingest_rows.h - rows that producers send, from the message to their place. */
#ifndef CROSSFEED_INGEST_ROWS_H
#define CROSSFEED_INGEST_ROWS_H

#include "ingest_state.h"

/* The scale in in->scale is known: handed over, and the held-out blocks become wanted. */
void ingest_announce_scale(struct ingest *in);

/* The BATCH in in->message with its payload, from producer `index`. */
void ingest_take_batch(struct ingest *in, int index, const struct link_payload *payload, struct err *e);

#endif
