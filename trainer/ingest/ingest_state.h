/* ingest_state.h - what the parts of the ingest thread share; for ingest.c and ingest_*.c only.
 *
 * All of it belongs to the ingest thread while that runs, except `sync`, which has a lock of its own. Which part may call which:
 *
 *     ingest -> ingest_rows, ingest_failures -> ingest_leases, ingest_producers -> ingest_drop -> ingest_state */
#ifndef CROSSFEED_INGEST_STATE_H
#define CROSSFEED_INGEST_STATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "credit.h"
#include "ingest_options.h"
#include "ingest_sync.h"
#include "leases.h"
#include "listener.h"
#include "log_limit.h"
#include "message.h"
#include "producers.h"
#include "row_store.h"
#include "stream.h"
#include "strikes.h"

_Static_assert(PRODUCERS_MAX <= LEASES_HOLDERS, "a producer's index is a holder");

struct ingest {
    struct ingest_options options; /* its pointers are not valid any more */
    struct listener *listener;
    struct link *link; /* the listener's, to send and to poll */
    int wake;          /* eventfd: the thread shall look */
    pthread_t thread;
    bool running; /* the thread is to be joined; for whoever finishes the ingest */
    struct producers producers;
    struct leases leases;
    struct strikes strikes;
    struct probation probation;
    char run_id[FINGERPRINT_SIZE];
    struct stream stream; /* of the run: expected, or fixed by the first producer */
    bool stream_expected, stream_fixed;
    struct scale_list scale;    /* n 0: not known yet; in the order of the sites once the stream is fixed */
    struct row_store row_store; /* the thread's once orders.started; row_store.c has plan and shuffle */
    struct log_limit comings;   /* of lines on who joins and leaves, */
    struct log_limit faults;    /* and on what went wrong with a lease */
    int64_t last_ping_ms;
    int64_t last_listened_ms;                                      /* when ingest_drop_silent last looked */
    char last_failure[MESSAGE_NAME_SIZE + MESSAGE_TEXT_SIZE + 16]; /* why a producer failed a block last */
    int64_t nobodys_since_ms;        /* since when a block waits that every producer here has refused; 0: none does */
    struct ingest_orders orders;     /* as ingest_sync_turn said last */
    struct ingest_counters counters; /* published at every turn */
    struct ingest_snapshot snapshot; /* published when one is wanted: 70 KB */
    struct message message;          /* the one that is being handled or sent: 40 KB */
    struct ingest_sync sync;
};

/* Ends the run with an error, which the training thread gets. */
void ingest_fail(struct ingest *in, const struct err *why);

#endif
