/* forward_kernels.h - the element-wise loops of a forward pass, in AVX-512, AVX2 and plain x86-64 (or portable) code.
 *
 * Each works on one row (a token's vector, or one query's scores). The versions agree up to the order of sums. */
#ifndef CROSSFEED_FORWARD_KERNELS_H
#define CROSSFEED_FORWARD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* What an MLP does to its hidden values. */
enum mlp_activation {
    MLP_GELU_TANH, /* x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    MLP_GELU_ERF,  /* x/2 (1 + erf(x / sqrt 2)) */
    MLP_RELU,
};

struct forward_kernels {
    const char *name;
    /* Computes y [n] = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias; sums are in double, var divides by n. */
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, double epsilon, size_t n);
    /* Adds: y [n] += z. */
    void (*add)(float *y, const float *z, size_t n);
    /* Adds twice: out [n] += bias, then x [n] += out. */
    void (*residual)(float *x, float *out, const float *bias, size_t n);
    /* Computes h [n] = act(h + bias). As (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), GELU by tanh is x / (1 + exp(-2u)):
     * that takes one exponential, and nothing is lost where 1 + tanh u cancels. */
    void (*activate)(float *h, const float *bias, enum mlp_activation activation, size_t n);
    /* Computes s [seen] = exp(s - max(s)) and s [seen..width) = 0; returns 1 / sum(s). */
    float (*softmax)(float *s, size_t seen, size_t width);
    /* Multiplies: z [n] *= factor. */
    void (*multiply)(float *z, float factor, size_t n);
    /* Rounds dst [n] = src to nearest, ties to even. NaN stays NaN (bf16.h). */
    void (*to_bf16)(uint16_t *dst, const float *src, size_t n);
};

/* Returns the best version that this processor runs. */
const struct forward_kernels *forward_kernels_best(void);

/* Returns version i of those that this processor runs, from 0 (the best) on; NULL after the last. */
const struct forward_kernels *forward_kernels_version(size_t i);

#endif
