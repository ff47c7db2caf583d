/* scale.h - measures the scale: one float per site that brings rows to a common size.
 *
 *   scale[site] = sqrt(d_model) / mean over rows of |x[row, site]|
 * over the rows of the first blocks of the run's order, raw fp32 as the producers send them. The reference writes the
 * inverse (mean norm / sqrt(d_model)) and divides. Norms and sums are in double and in the order of the rows, so the
 * result does not depend on which producer sent what when. */
#ifndef CROSSFEED_SCALE_H
#define CROSSFEED_SCALE_H

#include <stddef.h>

#include "err.h"
#include "stream.h"

/* Sums over rows seen so far; zeroed to start. */
struct scale_sums {
    double norms[STREAM_MAX_SITES]; /* [n_sites] */
    size_t rows;
};

/* Adds rows [n_rows, n_sites, d_model] fp32, finite; may be unaligned. origins: [n_rows], masked rows do not count;
 * NULL: all do. */
void scale_add(struct scale_sums *sums, const unsigned char *rows, const struct row_origin *origins, size_t n_rows,
               const struct stream *s);

/* Works out scale [n_sites]. Refuses a site whose rows are all zero, and no rows. */
int scale_finish(const struct scale_sums *sums, const struct stream *s, float *scale, struct err *e);

/* Writes x [n] * factor, rounded, to dst [n] of dtype, which may be unaligned: what every scaled activation goes
 * through. */
void scale_vector(const float *x, size_t n, float factor, enum row_dtype dtype, unsigned char *dst);

/* Does the same for whole rows: dst [n_rows, n_sites, d_model] of dtype = rows * scale. */
void scale_apply(const float *rows, size_t n_rows, const struct stream *s, const float *scale, enum row_dtype dtype,
                 unsigned char *dst);

#endif
