/* gemm_bf16.h - products of bfloat16 matrices into fp32, by oneDNN; the only file that knows oneDNN.
 *
 * The right-hand side is a weight: rounded to bf16 (to nearest even) and laid out once. Products of two bf16 are exact
 * in fp32, sums are fp32. A row's bits depend neither on the other rows nor on the number of threads. */
#ifndef CROSSFEED_GEMM_BF16_H
#define CROSSFEED_GEMM_BF16_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

enum { GEMM_BF16_ROWS = 256 }; /* of A and C in one call */

struct gemm_bf16; /* a packed weight [k, n] */

/* Packs b [k, n] fp32, which is not kept, into *w, owned by the caller. Refuses, naming oneDNN's best instruction set,
 * a processor without bf16 dot products: it would be slower than fp32. */
int gemm_bf16_new(struct gemm_bf16 **w, const float *b, size_t k, size_t n, struct err *e);
/* Frees it; NULL is fine. */
void gemm_bf16_free(struct gemm_bf16 *w);

/* Computes C [GEMM_BF16_ROWS, n] = A [GEMM_BF16_ROWS, k] times the weight on the calling thread; threads may share a
 * weight. For fewer rows the rest must still be readable and writable. */
int gemm_bf16(const struct gemm_bf16 *w, const uint16_t *a, float *c, struct err *e);

#endif
