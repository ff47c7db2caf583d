/* ingest_rows.h - rows that producers send, from the message to their place. */
#ifndef CROSSFEED_INGEST_ROWS_H
#define CROSSFEED_INGEST_ROWS_H

#include "ingest_state.h"

/* Tells the training thread the scale in in->scale, which is known now, and the rows kept; and makes the held-out blocks wanted. */
void ingest_announce_measured(struct ingest *in);

/* Takes the BATCH in in->message with its payload, from the producer at index. */
void ingest_take_batch(struct ingest *in, int index, const struct link_payload *payload, struct err *e);

#endif
