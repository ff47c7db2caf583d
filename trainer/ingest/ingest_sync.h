/* ingest_sync.h - what the ingest thread and the other threads tell each other, under one lock.
 *
 * The ingest thread tells the stream, what was measured over the first rows, that the held-out rows are ready, its counters, a snapshot
 * when one is wanted, and why it failed. The others tell it to start, to end, and that they want a snapshot. */
#ifndef CROSSFEED_INGEST_SYNC_H
#define CROSSFEED_INGEST_SYNC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "ingest_measured.h"
#include "ingest_snapshot.h"
#include "message.h"
#include "stream.h"

/* What the other threads want of the ingest thread. */
struct ingest_orders {
    bool started;         /* what leasing needs is in its place */
    bool snapshot_wanted; /* somebody waits for ingest_sync_publish */
    bool ending;          /* the run is over: */
    struct message_end end;
};

/* Only ingest_sync.c uses the members; the struct is open so that it can be a member itself. */
struct ingest_sync {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool stream_known, measured_known, evaluation_ready;
    struct stream stream;
    struct ingest_measured measured;
    struct err failure;
    struct ingest_counters counters;
    struct ingest_snapshot snapshot;
    bool stopped; /* the ingest thread publishes nothing more */
    struct ingest_orders orders;
};

void ingest_sync_init(struct ingest_sync *s);
void ingest_sync_release(struct ingest_sync *s);

/* ---- for the ingest thread ---- */

/* Tell the run's stream, and what was measured. */
void ingest_sync_stream(struct ingest_sync *s, const struct stream *stream);
void ingest_sync_measured(struct ingest_sync *s, const struct ingest_measured *measured);

/* Tells that the held-out rows are all there. */
void ingest_sync_evaluation(struct ingest_sync *s);

/* Tells that the ingest failed. The first failure is the one that stays. */
void ingest_sync_fail(struct ingest_sync *s, const struct err *why);

/* Tells the counters and takes the orders. */
void ingest_sync_turn(struct ingest_sync *s, const struct ingest_counters *counters, struct ingest_orders *orders);

/* Tells the snapshot. last: it is the last one, and nobody shall wait for another. */
void ingest_sync_publish(struct ingest_sync *s, const struct ingest_snapshot *snapshot, bool last);

/* ---- for the other threads ---- */

/* Wait for at most timeout_ms. Return 0 if it is there, 1 if not yet, or the failure. */
int ingest_sync_wait_stream(struct ingest_sync *s, struct stream *stream, int timeout_ms, struct err *e);
int ingest_sync_wait_measured(struct ingest_sync *s, struct ingest_measured *measured, int timeout_ms, struct err *e);
int ingest_sync_wait_evaluation(struct ingest_sync *s, int timeout_ms, struct err *e);

/* Copies the counters. */
void ingest_sync_counters(struct ingest_sync *s, struct ingest_counters *counters);

/* Orders a snapshot, wakes the ingest thread by its eventfd, and copies the snapshot once it is there, or after timeout_ms the one
 * before it. */
void ingest_sync_snapshot(struct ingest_sync *s, struct ingest_snapshot *snapshot, int wake_fd, int timeout_ms);

/* Orders that leasing starts. */
void ingest_sync_start(struct ingest_sync *s);

/* Orders the end. */
void ingest_sync_end(struct ingest_sync *s, bool ok, const char *reason);

#endif
