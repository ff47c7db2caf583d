/* row_store.h - where the rows of leased blocks go: to the measuring of the scale, to the held-out rows, to the shuffle.
 *
 * The first blocks of a run without a scale arrive raw and are kept aside; once all of them are there the scale is
 * measured over them, they are scaled exactly as a producer would have done it, and go to the shuffle as if they had
 * come that way. Ingest thread only, but for `evaluation` once it is complete. */
#ifndef CROSSFEED_ROW_STORE_H
#define CROSSFEED_ROW_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "leases.h"
#include "message.h"
#include "plan.h"
#include "shuffle.h"
#include "stream.h"

struct row_store_config { /* all borrowed */
    const struct stream *stream;
    const struct plan *plan; /* block geometry, and the held-out blocks */
    struct shuffle *shuffle;
    enum row_dtype dtype; /* of the run */
    const uint32_t
        *scale_blocks; /* [n_scale_blocks] the first blocks of the run's order, if the scale is to be measured */
    uint32_t n_scale_blocks;
};

struct row_store {
    struct row_store_config c;
    float *raw;                     /* [raw_rows, n_sites, d_model] until the scale is measured */
    struct row_origin *raw_origins; /* [raw_rows] */
    size_t raw_rows;
    unsigned char *evaluation; /* [evaluation_rows, n_sites, d_model] of the dtype */
    bool *evaluation_masked;   /* [evaluation_rows] until all are there */
    size_t evaluation_rows;    /* then: without the masked ones */
    uint32_t scale_blocks_left, evaluation_blocks_left;
};

/* Bytes: the held-out rows, for the whole run; the raw rows and their scaled copies, only until the scale is known. */
void row_store_memory(const struct row_store_config *c, size_t *evaluation_bytes, size_t *raw_bytes);

int row_store_init(struct row_store *in, const struct row_store_config *c, struct err *e);
void row_store_release(struct row_store *in); /* safe on a zeroed struct */

/* The dtype in which rows for this purpose are leased. */
enum row_dtype row_store_dtype(const struct row_store *in, enum lease_purpose purpose);

/* Puts the next chunk of one of t's answers, an admitted one, where its rows belong and counts it there. acts:
 * unaligned. */
void row_store_store(struct row_store *in, struct lease_task *t, int answer, const struct message_batch *b,
                     const unsigned char *acts);

/* All rows of t are stored, any copy of them has ended. event: what this completes; with ROW_STORE_SCALE, scale [n_sites] is filled. */
enum row_store_event { ROW_STORE_NOTHING, ROW_STORE_SCALE, ROW_STORE_EVALUATION };
int row_store_complete(struct row_store *in, const struct lease_task *t, float *scale, enum row_store_event *event,
                       struct err *e);

#endif
