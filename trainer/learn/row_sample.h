/* row_sample.h - rows in memory as they came, and as training sees them: fp32, less the mean if they are centred.
 *
 * Sums over them are in double, each column's in the order of the rows, so that they are the same bits whatever the number of threads. */
#ifndef CROSSFEED_ROW_SAMPLE_H
#define CROSSFEED_ROW_SAMPLE_H

#include <stddef.h>

#include "stream.h"

struct row_sample {            /* all borrowed */
    const unsigned char *rows; /* [n_rows, n_sites, d_model] of the dtype, scaled */
    size_t n_rows, n_sites, d_model;
    enum row_dtype dtype;
    const float *mean; /* [n_sites, d_model] that training subtracts; NULL: none */
};

/* Writes rows [first, first + n) to x [n, n_sites, d_model]. */
void row_sample_get(const struct row_sample *s, size_t first, size_t n, float *x);

/* Writes columns [column, column + n) of one row to x [n]; a column is an element of [n_sites, d_model]. */
void row_sample_columns(const struct row_sample *s, size_t row, size_t column, size_t n, float *x);

/* Computes sums [n_sites, d_model]: over rows, weight [n_rows, n_sites] times the row; weight NULL: 1. */
void row_sample_sum(const struct row_sample *s, const double *weight, double *sums);

/* Computes mean [n_sites, d_model] over at least one row. sums: [n_sites, d_model] scratch. */
void row_sample_mean(const struct row_sample *s, double *sums, float *mean);

#endif
