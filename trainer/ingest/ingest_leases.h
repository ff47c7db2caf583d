/* ingest_leases.h - the ingest thread's choice of who computes which block. */
#ifndef CROSSFEED_INGEST_LEASES_H
#define CROSSFEED_INGEST_LEASES_H

#include "ingest_state.h"

/* Makes the blocks [n] wanted; their rows will lie one after another in the store of that purpose. They must fit in the table. */
void ingest_add_tasks(struct ingest *in, const uint32_t *blocks, uint32_t n, enum lease_purpose purpose);

/* Gives one lease to each producer with credit, in turns, until there is no block for them or no credit left. */
void ingest_lease_blocks(struct ingest *in);

/* Takes the ERROR in in->message: a lease that this producer cannot do goes to another one, or the run fails. */
void ingest_take_error(struct ingest *in, int index, struct err *e);

/* Gives back a lease that this producer failed to do. The block goes to another producer, if there is one; after three failures the run
 * fails, saying why. why is not e's message. */
void ingest_fail_block(struct ingest *in, int index, struct lease_task *t, int answer, const char *why, struct err *e);

/* Fails the run if a block that every producer here has refused has waited for timeout_ms for one that has it. */
void ingest_check_refusals(struct ingest *in, struct err *e);

#endif
