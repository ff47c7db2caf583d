/* row_norms.h - how long the first rows of a run are at each site: their median norm, and whether a few very long ones outweigh the rest.
 *
 * Language models have massive activations: at the first position, at end-of-text tokens inside a text and at some others, norms are
 * hundreds of times the usual. One such row in five hundred can hold nearly the whole sum of squares of a site, and with it the loss, the
 * gradient and every figure that is a ratio of sums.
 *
 * Norms are of the rows as the run has them (scaled and rounded, not centred), so they are the same whether the scale was measured or
 * given, and in the order of the blocks, so they do not depend on who sent what when. The medians are exact: of an even number of rows, the
 * lower one of the middle two. */
#ifndef CROSSFEED_ROW_NORMS_H
#define CROSSFEED_ROW_NORMS_H

#include <stddef.h>

#include "stream.h"

#define ROW_NORMS_LONG 10 /* times the median: a row whose norm is over that is very long */

struct row_norms {
    size_t n_rows; /* 0: nothing is known */
    struct site_norms {
        float median, largest;
        size_t n_long;        /* very long rows, */
        double long_share;    /* and their share of the site's sum of squares */
    } site[STREAM_MAX_SITES]; /* [n_sites] */
};

/* Writes the norm of each site's vector of a row [n_sites, d_model] of the dtype, which may be unaligned, to out [0], out [stride] and so on. */
void row_norms_of(const unsigned char *row, const struct stream *s, enum row_dtype dtype, float *out, size_t stride);

/* Fills n from norms [n_sites, stride], of which the first n_rows of each site count. They are sorted. */
void row_norms_finish(struct row_norms *n, float *norms, size_t n_rows, size_t stride, const struct stream *s);

#endif
