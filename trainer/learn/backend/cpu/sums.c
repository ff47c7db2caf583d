/* sums.c - see sums.h. Partial sums side by side are what the compiler turns into vectors without being allowed to reorder a sum. */
#include "sums.h"

#include "kernels.h"

enum { PIECES = 256 };

double sum_squares(const float *a, size_t n)
{
    return kernels_best()->squares(a, n);
}

double sum_squares_parallel(const float *a, size_t n)
{
    double piece[PIECES];
    size_t size = (n + PIECES - 1) / PIECES;
#pragma omp parallel for schedule(static)
    for (size_t p = 0; p < PIECES; p++) {
        size_t first = p * size < n ? p * size : n, left = n - first;
        piece[p] = sum_squares(a + first, left < size ? left : size);
    }
    double sum = 0;
    for (size_t p = 0; p < PIECES; p++)
        sum += piece[p];
    return sum;
}
