/* sums.h - sums of floats in double, in an order that depends on neither threads nor vector width. */
#ifndef CROSSFEED_SUMS_H
#define CROSSFEED_SUMS_H

#include <stddef.h>

/* Sum of a[i]^2, by the calling thread. */
double sum_squares(const float *a, size_t n);

/* The same over a long array, by all threads: a fixed number of pieces, added up in order. */
double sum_squares_parallel(const float *a, size_t n);

#endif
