/* ingest_state.c - see ingest_state.h. */
#include "ingest_state.h"

void ingest_fail(struct ingest *in, const struct err *why)
{
    ingest_sync_fail(&in->sync, why);
    if (in->orders.started) /* before that there is no shuffle */
        shuffle_fail(in->row_store.c.shuffle, why);
}
