/* linear.h - a product with a weight, y = x W + b, in fp32 or in bf16, over a piece of the tokens.
 *
 * Whether a product is computed in bf16 is a property of its weight: linear_pack lays it out for bf16 products
 * (gemm_bf16.h). As under PyTorch's autocast, both factors are then rounded to bf16 and sums are fp32; biases and all
 * that is not a product stay fp32. Activations then differ from fp32's by some tenths of a percent (precision.h).
 *
 * A piece is the tokens [first, end) of all those in a pass; one thread computes it. A row's bits depend neither on the
 * other rows nor on where pieces begin, as long as pieces are linear_piece rows apart. */
#ifndef CROSSFEED_LINEAR_H
#define CROSSFEED_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "forward_kernels.h"
#include "gemm_bf16.h"

/* Zero-initialise; a linear that a layer does not have stays zero. */
struct linear {
    const float *weight;      /* [k, n]; borrowed from the model */
    const float *bias;        /* [n]; borrowed from the model */
    size_t k, n;              /* inputs, outputs */
    struct gemm_bf16 *packed; /* the weight in bf16; NULL: products are computed in fp32 */
};

/* The input of a product, [tokens, k]: in fp32 and, for a packed weight, rounded to bf16 beside it (else NULL). What
 * writes an operand writes both: operand_round. */
struct operand {
    float *fp32;
    uint16_t *bf16;
};

/* Rounds rows [first, end) of a's fp32, each of k values, into its bf16, if it has one. */
static inline void operand_round(const struct operand *a, const struct forward_kernels *kernels, size_t k, size_t first,
                                 size_t end)
{
    if (a->bf16)
        kernels->to_bf16(a->bf16 + first * k, a->fp32 + first * k, (end - first) * k);
}

/* Packs the weight for bf16 products. Refuses, where the processor has none, as gemm_bf16_new does. */
int linear_pack(struct linear *w, struct err *e);
/* Goes back to fp32 products; the weight itself stays the model's. A zeroed linear is fine. */
void linear_unpack(struct linear *w);

/* Returns how many tokens a piece has. packed: whether the weights are; all of a model are, or none. */
size_t linear_piece(bool packed, size_t tokens);

/* Computes y [tokens, n] = a [tokens, k] times the weight for the rows [first, end), without the bias. Of a packed
 * weight, all GEMM_BF16_ROWS rows from first on must be readable in a->bf16 and writable in y. Fails only where oneDNN
 * does. */
int linear_multiply(const struct linear *w, const struct operand *a, float *y, size_t first, size_t end, struct err *e);

#endif
