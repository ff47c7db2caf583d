/* ingest_status.h - what the ingest thread has to say for status.h. */
#ifndef CROSSFEED_INGEST_STATUS_H
#define CROSSFEED_INGEST_STATUS_H

#include "ingest_state.h"

/* The PING in in->message: how producer `index` spends its time. */
void ingest_take_ping(struct ingest *in, int index);

/* If it is time, or for the last time: producers, window and counters to the status, which writes its file. */
void ingest_status(struct ingest *in, bool last);

#endif
