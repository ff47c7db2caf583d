/* ingest_failures.h - blocks that a producer says it cannot compute, and what becomes of them.
 *
 * Another one is asked. That a producer fails is its own affair: a block is given up, and the run with it, only after all who are here have
 * failed it, and have been asked for it again some times after pauses, since three machines that lose one file server have one fault. */
#ifndef CROSSFEED_INGEST_FAILURES_H
#define CROSSFEED_INGEST_FAILURES_H

#include "ingest_state.h"

/* Ends a lease that the producer at index has failed; why is for the user. final: the block will be no other at another try. */
void ingest_fail_block(struct ingest *in, int index, struct lease_task *t, int answer, const char *why, bool final);

/* Takes the ERROR in in->message, from the producer at index. */
void ingest_take_error(struct ingest *in, int index);

/* Looks after the blocks that all who are here have refused: those that they failed are asked for again after a pause, or the run fails;
 * those that they do not have are waited for timeout_ms, in which somebody may come who has them, then the run fails. */
void ingest_check_refusals(struct ingest *in, struct err *e);

#endif
