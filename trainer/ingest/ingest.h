/* ingest.h - the trainer's side of the protocol: producers in, leases out, rows into their places.
 *
 * A thread of its own owns the socket, from the moment it is bound: producers are answered while the run is being set
 * up. Once the run is started it decides which block is leased to whom, checks what comes back and stores the rows: the
 * first blocks raw while the scale is measured, then the held-out rows, then the shuffle's windows. The training thread
 * talks to it through the functions below only. */
#ifndef CROSSFEED_INGEST_H
#define CROSSFEED_INGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "ingest_sync.h"
#include "row_store.h"
#include "listener.h"
#include "plan.h"
#include "shuffle.h"
#include "stream.h"

#define INGEST_FIRST_CREDIT 2 /* leases of a producer that is near: one computed, the next one under way */

struct ingest;

struct ingest_options {
    const char *const *endpoints;
    size_t n_endpoints;
    struct listener_access door;
    const char *run_id; /* FINGERPRINT_SIZE - 1 characters at most */
    enum row_dtype dtype;
    const struct stream *expected; /* a resumed run's, others are rejected; NULL: the first producer fixes it */
    const float *scale; /* [n_scale] of a resumed run, or given: a producer with another one is rejected. NULL: the
                                      first producer's, if it has one, else it is measured */
    uint32_t n_scale;
    uint32_t block_seqs;    /* of a run with at least so many sequences */
    uint32_t credit;        /* the most leases a producer may hold */
    uint32_t heartbeat_ms;  /* a producer pings this often; */
    uint32_t timeout_ms;    /* silent for this long, it is dropped and its leases go elsewhere */
    double audit;           /* share of the window's blocks that are computed twice and compared, */
    double audit_tolerance; /* and how far apart, relative to a vector's length, they may be: beyond, the run fails */
    struct status *status;  /* borrowed: hears of the producers and the window every few seconds; NULL: nobody does */
};

/* Binds, and starts the thread: producers are welcomed from now on. Copies what it needs of o. */
int ingest_new(struct ingest **in, const struct ingest_options *o, struct err *e);
void ingest_free(struct ingest *in); /* after ingest_finish, or instead of it; NULL is fine */
const char *ingest_endpoint(const struct ingest *in, size_t i);
int ingest_wake_fd(const struct ingest *in); /* for shuffle_config.wake */

/* Waits at most timeout_ms for the first producer: 0 and its stream, which is the run's; 1 if none has come yet; or the
 * error that ended the ingest. */
int ingest_stream(struct ingest *in, struct stream *out, int timeout_ms, struct err *e);

/* Leases begin. Copies what it needs of c but the pointers to stream, plan and shuffle, which must outlive the ingest.
 * c->n_scale_blocks is 0 exactly if the scale was given or is the first producer's. */
int ingest_start(struct ingest *in, const struct row_store_config *c, struct err *e);

/* Waits at most timeout_ms: 0 and the scale [n_sites]; 1 not yet known; or the error that ended the ingest. */
int ingest_scale(struct ingest *in, float *scale, int timeout_ms, struct err *e);

/* Waits at most timeout_ms for the held-out rows: 0 and rows [*n_rows, n_sites, d_model] of the dtype, valid until
 * ingest_free; 1 not all there yet; or the error. No held-out blocks: 0 and *n_rows = 0. */
int ingest_evaluation_rows(struct ingest *in, const unsigned char **rows, size_t *n_rows, int timeout_ms,
                           struct err *e);

void ingest_counters(struct ingest *in, struct ingest_counters *c);

/* Tells every producer END, waits a moment for their BYEs, stops the thread, closes the socket. */
void ingest_finish(struct ingest *in, bool ok, const char *reason);

#endif
