/* audit.h - blocks that are computed twice: which ones these are, and how far the two answers are apart.
 *
 * Two producers with the same processor give the same bytes. Others differ by rounding: a few values by one unit of bf16's last place,
 * which is a part in a hundred or less of a vector's length. A producer that computes something else (other weights, other code, a
 * broken memory) is off by as much as the vector itself. So the measure is relative: the norm of the difference of a row's vector at a
 * site, over the norm of the longer of the two. */
#ifndef CROSSFEED_AUDIT_H
#define CROSSFEED_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream.h"

/* Returns whether this block of window g is computed twice, which is so for `share` of all blocks. It depends on nothing but these. */
bool audit_chosen(uint64_t seed, double share, uint64_t g, uint32_t block);

struct audit { /* zeroed to start */
    size_t values, different;
    double relative; /* the largest difference of a vector, relative to its length, */
    double absolute; /* and the largest difference of a single value in that vector */
    uint32_t site;
    struct row_origin origin; /* of that row */
    bool origins_differ;      /* tokens or masks differ: then relative is infinite */
};

/* Compares a row as two producers sent it: x, y [n_sites, d_model] of dtype. */
void audit_row(struct audit *a, const struct stream *s, enum row_dtype dtype, const unsigned char *x,
               const struct row_origin *x_origin, const unsigned char *y, const struct row_origin *y_origin);

/* Writes "differ most at site blocks.3.hook_resid_post, ...". */
void audit_describe(const struct audit *a, const struct stream *s, char *text, size_t size);

#endif
