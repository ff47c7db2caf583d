/* sums.h - sums of floats in double, in an order that depends on neither threads nor vector width. */
#ifndef CROSSFEED_SUMS_H
#define CROSSFEED_SUMS_H

#include <stddef.h>

/* Returns the sum of a[i]^2, computed by the calling thread. */
double sum_squares(const float *a, size_t n);

/* Returns the same over a long array, computed by all threads: a fixed number of pieces, added up in order. */
double sum_squares_parallel(const float *a, size_t n);

#endif
