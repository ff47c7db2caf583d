/* rows.h - the outgoing rows of one block: where a source puts each site's vectors.
 *
 * A source computes a vector in fp32 and puts it once; rows_put scales it, rounds it to the dtype and stores it
 * straight into the chunk that will be sent. Different threads may put different (row, site) pairs at the same time. */
#ifndef CROSSFEED_ROWS_H
#define CROSSFEED_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream.h"

struct rows {
    size_t n_rows;     /* in this block */
    size_t chunk_rows; /* rows a chunk (the last may have fewer) */
    size_t n_sites, d_model;
    enum row_dtype dtype;
    const float *scale;         /* [n_sites]; NULL: rows are raw */
    const bool *wanted;         /* [n_sites]: sites that anybody will look at, others need not be put; NULL: all */
    unsigned char *data;        /* [n_rows, n_sites, d_model] of the dtype, where rows_put puts them */
    const unsigned char *acts;  /* what is sent: data, or rows that lie elsewhere (rows_borrow) */
    struct row_origin *origins; /* [n_rows] */
    size_t max_rows;            /* capacity */
    uint64_t *checksums;        /* [chunks], if checksums_known */
    bool checksums_known;
};

/* Makes room for a block of max_rows rows in any dtype. */
int rows_init(struct rows *r, const struct stream *s, size_t max_rows, struct err *e);
void rows_release(struct rows *r); /* safe on a zeroed struct */

/* Prepares r for one block of n_rows rows, at most max_rows. scale: [n_sites], borrowed until the next rows_begin; NULL
 * leaves the rows raw. */
void rows_begin(struct rows *r, const struct stream *s, size_t n_rows, enum row_dtype dtype, const float *scale);

/* Scales and rounds the vector [d_model], fp32, of one site of one row, and stores it. */
void rows_put(struct rows *r, size_t row, size_t site, const float *vector);
/* Does so with a less b, both [d_model], subtracted in fp32. Returns the first element of the difference that is not
 * finite, d_model if all are. */
size_t rows_put_difference(struct rows *r, size_t row, size_t site, const float *a, const float *b);
/* Stores a vector [d_model] of the block's dtype, which may be unaligned, as it is: scaled already. */
void rows_put_scaled(struct rows *r, size_t row, size_t site, const unsigned char *vector);
/* Stores where a row comes from. */
void rows_put_origin(struct rows *r, size_t row, struct row_origin origin);

/* Returns the wire's checksum of each chunk, [chunks], valid until rows_begin. The first call computes them, unless
 * rows_known_checksums gave them. */
const uint64_t *rows_checksums(struct rows *r);
/* Takes over checksums that are known, u64 [chunks], which may be unaligned: a recording has them, so that a replay
 * need not read what it sends. */
void rows_known_checksums(struct rows *r, const unsigned char *checksums);

/* Makes r send acts, [n_rows, n_sites, d_model] of the block's dtype and already scaled, instead of what rows_put
 * stored; they must stay until the next rows_begin. */
void rows_borrow(struct rows *r, const unsigned char *acts);

/* Returns the activations of chunk i, and sets their bytes, the number of its rows and their origins [*n_rows]. */
const unsigned char *rows_chunk(const struct rows *r, size_t i, size_t *bytes, size_t *n_rows,
                                const struct row_origin **origins);

#endif
