/* norm.c - see norm.h. Each row is rounded for the product that follows while it is still in the first-level cache. */
#include "norm.h"

void norm_rows(const struct norm *norm, const struct forward_kernels *kernels, const float *x, const struct operand *y,
               size_t first, size_t end)
{
    for (size_t t = first; t < end; t++) {
        kernels->layer_norm(y->fp32 + t * norm->d, x + t * norm->d, norm->weight, norm->bias, norm->epsilon, norm->d);
        operand_round(y, kernels, norm->d, t, t + 1);
    }
}
