/* ingest_state.h - what the ingest thread's parts share; for ingest.c and ingest_*.c only.
 *
 * All of it belongs to the ingest thread while that runs, but for `handover`, which has a lock of its own. */
#ifndef CROSSFEED_INGEST_STATE_H
#define CROSSFEED_INGEST_STATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "handover.h"
#include "ingest.h"
#include "intake.h"
#include "leases.h"
#include "link.h"
#include "message.h"
#include "peers.h"
#include "stream.h"

_Static_assert(PEERS_MAX <= LEASES_HOLDERS, "a producer's index is a holder");

struct ingest {
    struct ingest_options options;
    struct link *link;
    int wake;
    pthread_t thread;
    bool running;
    struct peers peers;
    struct leases leases;
    struct ingest_run run;
    char run_id[FINGERPRINT_SIZE];
    struct ingest_wanted wanted;
    struct stream stream; /* of the run, once fixed */
    bool stream_known;
    bool has_scale; /* as handed over */
    float scale[STREAM_MAX_SITES];
    struct intake intake;
    int64_t nobodys_since_ms; /* since when a block waits that every producer here has refused; 0: none does */
    bool ending;              /* as handover_turn said last */
    struct message_end end;
    struct ingest_counters counters; /* published at every turn */
    struct message message;          /* the one being handled or sent: 40 KB */
    struct handover handover;
};

/* The run cannot go on: the training thread gets this error. */
void ingest_fail(struct ingest *in, const struct err *why);

#endif
