/* fvu.h - fraction of variance unexplained, in both definitions; sums in double, in a fixed order.
 *
 *   fvu       = sum over rows of |x - x'|^2  /  sum over rows of |x - mean|^2             (ratio of means)
 *   fvu_token = mean over rows of ( |x - x'|^2 / |x - mean|^2 )                           (mean of ratios)
 * per site and over the whole stacked vector. mean is given (of the batch, or of all rows of an evaluation). A row (of
 * a site) that equals the mean has no ratio and is left out of fvu_token; where nothing is left, the value is NaN (null
 * in JSON). */
#ifndef CROSSFEED_FVU_H
#define CROSSFEED_FVU_H

#include <stddef.h>
#include <stdint.h>

#include "stream.h"

struct fvu {
    double fvu, fvu_token;                   /* over all sites */
    double fvu_site[STREAM_MAX_SITES];       /* [n_sites] */
    double fvu_token_site[STREAM_MAX_SITES]; /* [n_sites] */
};

/* Index n_sites of each array is the total. */
struct fvu_sums {
    size_t n_sites;
    double residual2[STREAM_MAX_SITES + 1], deviation2[STREAM_MAX_SITES + 1], ratio[STREAM_MAX_SITES + 1];
    uint64_t ratios[STREAM_MAX_SITES + 1]; /* rows counted in ratio */
};

/* Adds the sum over the rows of x [rows, n] to sum [n], in the order of the rows, whatever the number of threads. */
void fvu_sum_columns(double *sum, const float *x, size_t rows, size_t n);

/* Fills row_deviation2 [rows, n_sites] with |x - mean|^2 of each row at each site. x: [rows, n_sites, d_model]; mean: [n_sites, d_model]. */
void fvu_deviations(double *row_deviation2, const float *x, size_t rows, size_t n_sites, size_t d_model,
                    const double *mean);

/* Starts new sums. */
void fvu_begin(struct fvu_sums *s, size_t n_sites);
/* Adds rows. row_residual2, row_deviation2: [rows, n_sites], |x - x'|^2 and |x - mean|^2 of each row at each site. */
void fvu_add(struct fvu_sums *s, const double *row_residual2, const double *row_deviation2, size_t rows);
/* Computes both definitions from the sums. */
void fvu_finish(const struct fvu_sums *s, struct fvu *out);

#endif
