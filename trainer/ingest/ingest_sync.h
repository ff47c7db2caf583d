/* ingest_sync.h - what the ingest thread and the training thread tell each other, under one lock: the stream, the scale,
 * held-out rows ready, counters and failure one way; the start and the end the other way. */
#ifndef CROSSFEED_INGEST_SYNC_H
#define CROSSFEED_INGEST_SYNC_H

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

/* Opaque to all but ingest_sync.c in use; open so that it can be a member. */
struct ingest_sync {
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

void ingest_sync_init(struct ingest_sync *h);
void ingest_sync_release(struct ingest_sync *h);

/* ---- ingest thread ---- */
void ingest_sync_stream(struct ingest_sync *h, const struct stream *stream);
void ingest_sync_scale(struct ingest_sync *h, const float *scale, uint32_t n_sites);
void ingest_sync_evaluation(struct ingest_sync *h);                  /* the held-out rows are all there */
void ingest_sync_fail(struct ingest_sync *h, const struct err *why); /* the first failure stays */
/* Publishes the counters, and brings what the training thread wants: started, ending (then end is filled). */
void ingest_sync_turn(struct ingest_sync *h, const struct ingest_counters *counters, bool *started, bool *ending,
                      struct message_end *end);

/* ---- training thread: 0, 1 if not within timeout_ms, or the failure ---- */
int ingest_sync_wait_stream(struct ingest_sync *h, struct stream *stream, int timeout_ms, struct err *e);
int ingest_sync_wait_scale(struct ingest_sync *h, float *scale, uint32_t n_sites, int timeout_ms, struct err *e);
int ingest_sync_wait_evaluation(struct ingest_sync *h, int timeout_ms, struct err *e);
void ingest_sync_counters(struct ingest_sync *h, struct ingest_counters *counters);
void ingest_sync_start(struct ingest_sync *h); /* what the thread needs for the run is in its place */
void ingest_sync_end(struct ingest_sync *h, bool ok, const char *reason);

#endif
