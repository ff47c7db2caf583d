/* geometric_median.h - the point that has the least sum of distances to the rows, for each site by itself.
 *
 * Weiszfeld's iteration, as crosscoder_learning's geometric_median: it starts at the mean, and each guess is the mean of the rows weighted
 * by 1 / |row - guess|; it ends when every site's guess has moved less than the tolerance. A guess that is a row would divide by 0: there the
 * step is that of Vardi and Zhang ("The multivariate L1-median and associated data depth", PNAS 2000), who leave out the rows at the
 * guess and then go only part of the way, or not at all if the guess is the median. In double; the same bits whatever the number of threads. */
#ifndef CROSSFEED_GEOMETRIC_MEDIAN_H
#define CROSSFEED_GEOMETRIC_MEDIAN_H

#include <stddef.h>

#include "err.h"
#include "row_sample.h"

#define GEOMETRIC_MEDIAN_ITERATIONS 100
#define GEOMETRIC_MEDIAN_TOLERANCE 1e-5

/* Computes the bytes that geometric_median takes while it works. */
size_t geometric_median_memory(size_t n_rows, size_t n_sites, size_t d_model);

/* Computes median [n_sites, d_model] of at least one row, in at most max_iterations; *iterations is how many it took. Fails only for want of
 * memory. */
int geometric_median(const struct row_sample *s, size_t max_iterations, double tolerance, float *median,
                     size_t *iterations, struct err *e);

#endif
