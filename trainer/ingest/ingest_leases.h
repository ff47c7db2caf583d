/* ingest_leases.h - the ingest thread's choice of who computes which block. */
#ifndef CROSSFEED_INGEST_LEASES_H
#define CROSSFEED_INGEST_LEASES_H

#include "ingest_state.h"

/* Makes the blocks [n] wanted; their rows will lie one after another in the store of that purpose. They must fit in the table. */
void ingest_add_tasks(struct ingest *in, const uint32_t *blocks, uint32_t n, enum lease_purpose purpose);

/* Gives one lease to each producer with credit, in turns, until there is no block for them or no credit left. */
void ingest_lease_blocks(struct ingest *in);

#endif
