/* gemm.h - dense single-precision products, by BLIS; the only file that knows BLIS.
 *
 * Row-major. A result does not depend on the number of threads: m or n is split among threads, never k. */
#ifndef CROSSFEED_GEMM_H
#define CROSSFEED_GEMM_H

#include <stdbool.h>
#include <stddef.h>

/* Sets how many threads a product uses that is called outside an OpenMP parallel region (inside one it is always 1). To
 * be called once, at start. */
void gemm_set_threads(int threads);
/* Returns that number. */
int gemm_threads(void);

/* Returns the most bytes that BLIS takes for packed pieces of the operands, in products of which no dimension is greater than `most`. Call it
 * after gemm_set_threads. */
size_t gemm_memory(size_t most);

/* Computes C [m, n] (row stride ldc) = alpha * op(A) [m, k] * op(B) [k, n] + beta * C.
 * op(A) is A, stored [m, k] with row stride lda, or with transpose_a A stored [k, m]; the same for B.
 * beta = 0 never reads C (so NaN there does no harm). Any of m, n, k may be 0. */
void gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
          const float *b, size_t ldb, float beta, float *c, size_t ldc);

/* Computes some rows of C on the calling thread, for a caller with a parallel region of its own who has more to do to
 * each piece of C. Pieces that are cut at multiples of gemm_piece_rows(all rows) have the bits that gemm gives. */
void gemm_piece(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
                size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc);
size_t gemm_piece_rows(size_t rows);

#endif
