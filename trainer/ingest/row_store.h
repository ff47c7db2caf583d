/* row_store.h - where the rows of leased blocks go: to the first rows, which are measured, to the held-out rows, or to the shuffle.
 *
 * The first blocks of a run without a scale arrive raw and are put aside. Once all of them are there, the scale is measured over them;
 * then they are scaled exactly as a producer would have done it, and go to the shuffle as if they had come that way. A run that has a scale
 * gets these blocks scaled, puts them aside all the same, and then hands them on as they came. Either way their norms are measured.
 * Either way a copy can be kept for the training thread. All of this belongs to the ingest thread, except `evaluation` once
 * ROW_STORE_EVALUATION has been told, and the kept rows once ROW_STORE_MEASURED has been. */
#ifndef CROSSFEED_ROW_STORE_H
#define CROSSFEED_ROW_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "ingest_measured.h"
#include "leases.h"
#include "message.h"
#include "plan.h"
#include "row_norms.h"
#include "scale.h"
#include "shuffle.h"
#include "stream.h"

struct row_store_config { /* all borrowed */
    const struct stream *stream;
    const struct plan *plan; /* block geometry, and the held-out blocks */
    struct shuffle *shuffle;
    enum row_dtype dtype; /* of the run */
    const uint32_t
        *scale_blocks; /* [n_scale_blocks] the first blocks in the run's order, if something is to be measured */
    uint32_t n_scale_blocks;
    bool scaled; /* the scale is known, and these blocks come scaled; else it is measured by the next two */
    enum scale_mode scale_mode;
    double scale_target;
    bool keep; /* their rows are kept until row_store_forget */
};

struct row_store {
    struct row_store_config c;
    unsigned char
        *first; /* [first_rows, n_sites, d_model] until all are measured: of the dtype if they come scaled, else fp32 */
    struct row_origin *first_origins; /* [first_rows] */
    size_t first_rows;
    unsigned char *kept; /* [kept_rows, n_sites, d_model] of the dtype, if they are to be kept */
    size_t kept_rows;    /* once all are there: without the masked ones */
    float *first_norms;  /* [n_sites, first_rows] of those that are not masked, until all are measured; then: */
    struct row_norms norms;
    unsigned char *evaluation; /* [evaluation_rows, n_sites, d_model] of the dtype */
    bool *evaluation_masked;   /* [evaluation_rows] which are padding */
    size_t evaluation_rows;    /* once all are there: without the masked ones */
    uint32_t scale_blocks_left, evaluation_blocks_left;
};

/* Computes the bytes that the held-out rows take for the whole run; those that the first rows and their scaled copies in the window take
 * until they are measured; and those of the kept rows. */
void row_store_memory(const struct row_store_config *c, size_t *evaluation_bytes, size_t *first_bytes,
                      size_t *kept_bytes);

/* Allocates the rows. */
int row_store_init(struct row_store *s, const struct row_store_config *c, struct err *e);

/* Frees the kept rows. Not before ROW_STORE_MEASURED; may be called again. */
void row_store_forget(struct row_store *s);

/* Frees all rows. A zeroed struct is fine. */
void row_store_release(struct row_store *s);

/* Returns the dtype in which rows for this purpose are leased. */
enum row_dtype row_store_dtype(const struct row_store *s, enum lease_purpose purpose);

/* Puts the rows of the next chunk of one of t's answers where they belong, and counts them there. The chunk has been validated; acts is
 * unaligned. */
void row_store_store(struct row_store *s, struct lease_task *t, int answer, const struct message_batch *b,
                     const unsigned char *acts);

enum row_store_event {
    ROW_STORE_NOTHING,
    ROW_STORE_MEASURED,   /* the first blocks are all there, and measured */
    ROW_STORE_EVALUATION, /* the held-out rows are all there, and change no more */
};

/* Ends a task whose rows are all stored and whose copy, if it had one, has ended. event: what that completes; with ROW_STORE_MEASURED,
 * scale [n_sites] is filled unless it was known. */
int row_store_complete(struct row_store *s, const struct lease_task *t, float *scale, enum row_store_event *event,
                       struct err *e);

#endif
