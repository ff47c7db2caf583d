/* ingest_options.h - what an ingest is told when it is made. */
#ifndef CROSSFEED_INGEST_OPTIONS_H
#define CROSSFEED_INGEST_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "listener.h"
#include "scale_list.h"
#include "stream.h"

#define INGEST_FIRST_CREDIT 2 /* leases that a nearby producer holds: one it computes, the next one is under way */

struct ingest_options {
    const char *const *endpoints; /* [n_endpoints] to listen at */
    size_t n_endpoints;
    struct listener_access door;
    const char *run_id; /* at most FINGERPRINT_SIZE - 1 characters */
    enum row_dtype dtype;
    const struct stream
        *expected; /* of a resumed run: producers of another one are rejected. NULL: the first producer fixes it */
    const struct scale_list
        *scale;            /* of a resumed run, or given: a producer that it does not fit is rejected. NULL: the scale
                                     * is the first producer's, if that has one, else it is measured */
    uint32_t block_seqs;   /* sequences of a block; a run with fewer sequences has one block */
    uint32_t credit;       /* the most leases that a producer may hold */
    uint32_t heartbeat_ms; /* between the pings of a producer */
    uint32_t timeout_ms;   /* a producer that is silent for this long is dropped, and its leases go elsewhere */
    double max_abs;        /* no value of a row may be greater in size; 0: ROW_MAX_ABS */
    uint32_t
        source_retries; /* how often a block that all producers have failed is asked for again before the run fails */
    int64_t ban_ms;     /* for how long a peer is out that was wrong too often; 0: for the rest of the run */
    double max_bad;     /* share of a peer's answers that may be wrong; 1: any */
    double audit;       /* share of the window's blocks that are computed twice and compared */
    double audit_tolerance; /* how far apart the two may be, relative to a vector's length; beyond it the run fails */
};

#endif
