/* ingest_state.h - what the ingest thread's parts share; for ingest.c and ingest_*.c only.
 *
 * All of it belongs to the ingest thread while that runs, but for `handover`, which has a lock of its own. */
#ifndef CROSSFEED_INGEST_STATE_H
#define CROSSFEED_INGEST_STATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ingest_sync.h"
#include "ingest.h"
#include "row_store.h"
#include "leases.h"
#include "listener.h"
#include "log_limit.h"
#include "message.h"
#include "producers.h"
#include "strikes.h"
#include "stream.h"

_Static_assert(PRODUCERS_MAX <= LEASES_HOLDERS, "a producer's index is a holder");

struct ingest {
    struct ingest_options options;
    struct listener *listener;
    struct link *link; /* the listener's, to send and to poll */
    int wake;
    pthread_t thread;
    bool running;
    struct producers producers;
    struct leases leases;
    struct strikes strikes;
    char run_id[FINGERPRINT_SIZE];
    struct stream stream; /* of the run: expected, or fixed by the first producer */
    bool stream_expected, stream_fixed;
    uint32_t n_scale; /* 0: the scale is not known yet */
    float scale[STREAM_MAX_SITES];
    bool started;               /* the training thread has done its part; the intake is the thread's from then on */
    struct row_store row_store; /* in->row_store.c: plan and shuffle */
    struct log_limit comings;   /* lines on who joins and leaves */
    int64_t distrust_ms;        /* how long nothing is leased to those who have answered nothing yet, */
    int64_t distrust_until_ms;
    int64_t last_ping_ms;
    int64_t last_listened_ms; /* when ingest_drop_silent last looked */
    int64_t nobodys_since_ms; /* since when a block waits that every producer here has refused; 0: none does */
    bool ending;              /* as ingest_sync_turn said last */
    struct message_end end;
    struct ingest_counters counters; /* published at every turn */
    struct message message;          /* the one being handled or sent: 40 KB */
    struct ingest_sync sync;
};

/* The run cannot go on: the training thread gets this error. */
void ingest_fail(struct ingest *in, const struct err *why);

#endif
