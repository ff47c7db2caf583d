/* norm.h - the norm of a token's vector before a product. */
#ifndef CROSSFEED_NORM_H
#define CROSSFEED_NORM_H

#include <stddef.h>

#include "forward_kernels.h"
#include "linear.h"

/* A layer norm: y = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias, where var divides by d. */
struct norm {
    const float *weight, *bias; /* [d]; borrowed from the model */
    double epsilon;
    size_t d;
};

/* Computes y = norm(x) for the rows [first, end) of x and y [tokens, d]. */
void norm_rows(const struct norm *norm, const struct forward_kernels *kernels, const float *x, const struct operand *y,
               size_t first, size_t end);

#endif
