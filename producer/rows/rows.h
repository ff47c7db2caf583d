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
    const float *scale;         /* [n_sites], or NULL: raw */
    unsigned char *data;        /* [n_rows, n_sites, d_model] of the dtype, where rows_put puts them */
    const unsigned char *acts;  /* what is sent: data, or rows that lie elsewhere (rows_borrow) */
    struct row_origin *origins; /* [n_rows] */
    size_t max_rows;            /* capacity */
    uint64_t *checksums;        /* [chunks], if checksums_known */
    bool checksums_known;
};

/* Room for a block of max_rows rows in any dtype. */
int rows_init(struct rows *r, const struct stream *s, size_t max_rows, struct err *e);
void rows_release(struct rows *r);

/* Prepares r for one block. scale NULL = raw. */
void rows_begin(struct rows *r, const struct stream *s, size_t n_rows, enum row_dtype dtype, const float *scale);

/* vector: [d_model] fp32, unscaled. */
void rows_put(struct rows *r, size_t row, size_t site, const float *vector);
void rows_put_origin(struct rows *r, size_t row, struct row_origin origin);

/* The wire's checksum of each chunk, [chunks]: computed at the first call, unless rows_known_checksums gave them. Valid
 * until rows_begin. */
const uint64_t *rows_checksums(struct rows *r);
/* They are these, u64 [chunks], unaligned: a recording has them, so that a replay need not read what it sends. */
void rows_known_checksums(struct rows *r, const unsigned char *checksums);

/* Sends acts instead, [n_rows, n_sites, d_model] of the block's dtype, scaled; they must stay until the next
 * rows_begin. */
void rows_borrow(struct rows *r, const unsigned char *acts);

/* Chunk i: its activations, their bytes, its rows and their origins [*n_rows]. */
const unsigned char *rows_chunk(const struct rows *r, size_t i, size_t *bytes, size_t *n_rows,
                                const struct row_origin **origins);

#endif
