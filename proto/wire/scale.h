/* scale.h - measures the scale: one float per site that brings rows to a common size.
 *
 *   mean-norm   scale[site] = target * sqrt(d_model) / mean over rows of |x[row, site]|
 *   total-std   scale[site] = target / sqrt(sum over dims of the variance over rows of x[row, site, dim])
 * over the rows of the first blocks of the run's order, raw fp32 as the producers send them. The reference has the first with target 1; it
 * writes the inverse (mean norm / sqrt(d_model)) and divides. The second is crosscoder_learning's, whose target is called target_rms. Norms
 * and sums are in double and in the order of the rows, so the result does not depend on which producer sent what when. */
#ifndef CROSSFEED_SCALE_H
#define CROSSFEED_SCALE_H

#include <stddef.h>

#include "err.h"
#include "stream.h"

enum scale_mode { SCALE_MEAN_NORM, SCALE_TOTAL_STD };
extern const char *const scale_mode_names[]; /* in the enum's order, NULL at the end */

/* Measures scale [n_sites] over rows [n_rows, n_sites, d_model], finite. origins: [n_rows], masked rows do not count. Refuses rows that are
 * all masked, and a site whose rows are all zero or, for total-std, all the same. */
int scale_measure(enum scale_mode mode, double target, const float *rows, const struct row_origin *origins,
                  size_t n_rows, const struct stream *s, float *scale, struct err *e);

/* Sums over rows seen so far; zeroed to start. */
struct scale_sums {
    double norms[STREAM_MAX_SITES]; /* [n_sites] */
    size_t rows;
};

/* Adds rows [n_rows, n_sites, d_model] fp32, finite; may be unaligned. origins: [n_rows], masked rows do not count;
 * NULL: all do. */
void scale_add(struct scale_sums *sums, const unsigned char *rows, const struct row_origin *origins, size_t n_rows,
               const struct stream *s);

/* Works out scale [n_sites], mean-norm with target 1. Refuses a site whose rows are all zero, and no rows. */
int scale_finish(const struct scale_sums *sums, const struct stream *s, float *scale, struct err *e);

/* Writes x [n] * factor, rounded, to dst [n] of dtype, which may be unaligned: what every scaled activation goes
 * through. */
void scale_vector(const float *x, size_t n, float factor, enum row_dtype dtype, unsigned char *dst);

/* Does the same for whole rows: dst [n_rows, n_sites, d_model] of dtype = rows * scale. */
void scale_apply(const float *rows, size_t n_rows, const struct stream *s, const float *scale, enum row_dtype dtype,
                 unsigned char *dst);

/* Subtracts mean [n] from each of the rows x [n_rows, n]. */
void scale_center(float *x, size_t n_rows, size_t n, const float *mean);

#endif
