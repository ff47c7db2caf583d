/* forward_kernels.h - the element-wise loops of a forward pass, in AVX-512, AVX2 and plain x86-64 (or portable) code.
 *
 * All work on one row (a token's vector, or one query's scores). The versions agree up to the order of sums. */
#ifndef CROSSFEED_FORWARD_KERNELS_H
#define CROSSFEED_FORWARD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "gpt2_config.h"

struct forward_kernels {
    const char *name;
    /* y [n] = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias; sums in double, var divides by n */
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, double epsilon, size_t n);
    /* y [n] += bias */
    void (*add_bias)(float *y, const float *bias, size_t n);
    /* out [n] += bias, x [n] += out */
    void (*residual)(float *x, float *out, const float *bias, size_t n);
    /* h [n] = act(h + bias). As (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), gelu_new is x / (1 + exp(-2u)): one exponential,
     * and nothing lost where 1 + tanh u cancels. */
    void (*activate)(float *h, const float *bias, enum gpt2_activation activation, size_t n);
    /* s [seen] = exp(s - max(s)), s [seen..width) = 0; returns 1 / sum(s) */
    float (*softmax)(float *s, size_t seen, size_t width);
    /* z [n] *= factor */
    void (*multiply)(float *z, float factor, size_t n);
    /* dst [n] = src, to nearest, ties to even; src finite or not a matter (bf16.h) */
    void (*to_bf16)(uint16_t *dst, const float *src, size_t n);
};

/* The best this processor runs. */
const struct forward_kernels *forward_kernels_best(void);

/* i from 0 (the best) on: every version that this processor runs; NULL after the last. */
const struct forward_kernels *forward_kernels_version(size_t i);

#endif
