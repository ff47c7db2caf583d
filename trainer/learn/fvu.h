/* fvu.h - fraction of variance unexplained, in three definitions; sums in double, in a fixed order.
 *
 *   fvu         = sum over rows of |x - x'|^2  /  sum over rows of |x - mean|^2                       (ratio of means)
 *   fvu_typical = the same over the typical rows alone (normalisation.h), against their own mean
 *   fvu_token   = mean over rows of ( |x - x'|^2 / |x - mean of the typical rows|^2 )                 (mean of ratios)
 * per site and over the whole stacked vector. A few rows of a language model can hold nearly all of its sum of squares; fvu is then theirs,
 * and so would be the mean, near which no row lies. The means are of a batch, or of all rows of an evaluation. Where it is not known which
 * rows are typical, fvu_typical is NaN and fvu_token has the mean of all rows. A row (of a site) that equals the mean has no ratio and is
 * left out of fvu_token; where nothing is left, the value is NaN (null in JSON). */
#ifndef CROSSFEED_FVU_H
#define CROSSFEED_FVU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "normalisation.h"
#include "stream.h"

struct fvu {
    double fvu, fvu_typical, fvu_token;        /* over all sites */
    double fvu_site[STREAM_MAX_SITES];         /* [n_sites] */
    double fvu_typical_site[STREAM_MAX_SITES]; /* [n_sites] */
    double fvu_token_site[STREAM_MAX_SITES];   /* [n_sites] */
};

/* The rows that means are over, and which deviations are from which mean. */
enum fvu_rows { FVU_ALL, FVU_TYPICAL, FVU_ROWS };

/* The means that rows are compared with, and what is computed of one piece of rows. */
struct fvu_means {
    size_t n_sites, d_model, max_rows;
    double *sum[FVU_ROWS];        /* [n_inputs] over the rows added, */
    double *mean[FVU_ROWS];       /* [n_inputs] and by their number */
    uint64_t rows[FVU_ROWS];      /* added */
    bool *typical;                /* [max_rows] of a piece */
    double *deviation2[FVU_ROWS]; /* [max_rows, n_sites] |x - mean|^2 of each row of a piece at each site */
};

/* Index n_sites of each array is the total. */
struct fvu_sums {
    size_t n_sites;
    double residual2[FVU_ROWS][STREAM_MAX_SITES + 1], deviation2[FVU_ROWS][STREAM_MAX_SITES + 1];
    double ratio[STREAM_MAX_SITES + 1];
    uint64_t ratios[STREAM_MAX_SITES + 1]; /* rows counted in ratio */
};

/* Adds the sum over the rows of x [rows, n] to sum [n], in the order of the rows, whatever the number of threads. which [rows]: of these
 * rows alone; NULL: of all. */
void fvu_sum_columns(double *sum, const float *x, size_t rows, size_t n, const bool *which);

/* Computes the bytes that fvu_means_init takes beside what a row takes, and for each of max_rows. */
void fvu_means_memory(size_t n_sites, size_t d_model, size_t *bytes, size_t *row_bytes);
/* Allocates for pieces of at most max_rows, without rows yet. */
int fvu_means_init(struct fvu_means *m, size_t n_sites, size_t d_model, size_t max_rows, struct err *e);
void fvu_means_release(struct fvu_means *m); /* safe on a zeroed struct */

/* Forgets all rows. */
void fvu_means_clear(struct fvu_means *m);
/* Adds rows, 1 <= rows <= max_rows. x [rows, n_sites, d_model] as training sees them; by: what was done to them, by which typical ones are
 * told; NULL: it is not known. */
void fvu_means_add(struct fvu_means *m, const struct normalisation *by, const float *x, size_t rows);

/* Starts new sums. */
void fvu_begin(struct fvu_sums *s, size_t n_sites);
/* Adds rows, which were added to m before, as they were then. row_residual2: [rows, n_sites] |x - x'|^2 of each row at each site. */
void fvu_add(struct fvu_sums *s, struct fvu_means *m, const struct normalisation *by, const float *x,
             const double *row_residual2, size_t rows);
/* Computes all definitions from the sums. */
void fvu_finish(const struct fvu_sums *s, struct fvu *out);

/* Fills out with what is not known. */
void fvu_unknown(struct fvu *out);

#endif
