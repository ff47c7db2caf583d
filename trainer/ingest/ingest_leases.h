/* ingest_leases.h - the ingest thread's choice of who computes which block. */
#ifndef CROSSFEED_INGEST_LEASES_H
#define CROSSFEED_INGEST_LEASES_H

#include "ingest_state.h"

/* Blocks [n] become wanted, their rows to lie one after another in the store of that purpose. They fit in the table. */
void ingest_add_tasks(struct ingest *in, const uint32_t *blocks, uint32_t n, enum lease_purpose purpose);

/* One lease to each producer with credit, in turns, until there is no block for them or no credit left. */
void ingest_lease_blocks(struct ingest *in);

/* A producer has answered its first block; or one that had answered none has come to nothing with a lease: while others do the
 * work, such producers get none for a while, each time twice as long up to timeout_ms. */
void ingest_trust(struct ingest *in);
void ingest_distrust(struct ingest *in);

/* What a producer that has just joined may hold; and then, each time that it has said how it spends its time. */
void ingest_first_credit(struct ingest *in, int index);
void ingest_adjust_credit(struct ingest *in, int index);

/* The ERROR in in->message: a lease that this producer cannot do goes to another, or ends the run. */
void ingest_take_error(struct ingest *in, int index, struct err *e);

/* A block that every producer here has refused waits timeout_ms for one that has it; then the run fails. */
void ingest_check_refusals(struct ingest *in, struct err *e);

#endif
