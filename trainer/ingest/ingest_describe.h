/* ingest_describe.h - describes the ingest thread's state for those who look at it from outside. */
#ifndef CROSSFEED_INGEST_DESCRIBE_H
#define CROSSFEED_INGEST_DESCRIBE_H

#include "ingest_state.h"

/* Fills in in->snapshot and publishes it. last: the thread ends, and this is the snapshot that stays. */
void ingest_describe(struct ingest *in, bool last);

#endif
