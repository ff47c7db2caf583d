/* handover.h - what the ingest thread and the training thread tell each other, under one lock: the stream, the scale,
 * held-out rows ready, counters and failure one way; the start and the end the other way. */
#ifndef CROSSFEED_HANDOVER_H
#define CROSSFEED_HANDOVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "message.h"
#include "refusals.h"
#include "stream.h"

struct ingest_counters {
    uint32_t producers;      /* here now */
    uint64_t producers_seen; /* ever welcomed */
    uint64_t producers_lost; /* fell silent or broke the protocol */
    uint64_t rejected;       /* HELLOs refused */
    uint64_t blocks_leased, blocks_done, blocks_leased_again;
    uint64_t rows_received;            /* stored in a place */
    uint64_t duplicates_dropped;       /* rows of a lease that somebody else had answered or was given */
    uint64_t blocks_duplicated;        /* leased to a second producer, as the first one was late */
    uint64_t audits, audits_different; /* blocks compared; of them not the same to the bit */
    uint64_t bad_chunks;               /* refused: checksum, order, size, NaN */
    uint64_t refused[REFUSAL_KINDS];   /* strangers and their connections */
};

/* Opaque to all but handover.c in use; open so that it can be a member. */
struct handover {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stream_known, scale_known, evaluation_ready;
    struct stream stream;
    float scale[STREAM_MAX_SITES];
    struct err failure;
    struct ingest_counters counters;
    bool started, ending;
    struct message_end end;
};

void handover_init(struct handover *h);
void handover_release(struct handover *h);

/* ---- ingest thread ---- */
void handover_stream(struct handover *h, const struct stream *stream);
void handover_scale(struct handover *h, const float *scale, uint32_t n_sites);
void handover_evaluation(struct handover *h);                  /* the held-out rows are all there */
void handover_fail(struct handover *h, const struct err *why); /* the first failure stays */
/* Publishes the counters, and brings what the training thread wants: started, ending (then end is filled). */
void handover_turn(struct handover *h, const struct ingest_counters *counters, bool *started, bool *ending,
                   struct message_end *end);

/* ---- training thread: 0, 1 if not within timeout_ms, or the failure ---- */
int handover_wait_stream(struct handover *h, struct stream *stream, int timeout_ms, struct err *e);
int handover_wait_scale(struct handover *h, float *scale, uint32_t n_sites, int timeout_ms, struct err *e);
int handover_wait_evaluation(struct handover *h, int timeout_ms, struct err *e);
void handover_counters(struct handover *h, struct ingest_counters *counters);
void handover_start(struct handover *h); /* what the thread needs for the run is in its place */
void handover_end(struct handover *h, bool ok, const char *reason);

#endif
