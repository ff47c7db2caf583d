/* backward.h - the dense backward pass, written by hand: gradients of l2 + l1_coeff * l1 (forward.h), and their step.
 *
 * Subgradients are PyTorch's: ReLU'(0) = 0, and the norm's gradient at the zero vector is 0. The gradient of a matrix
 * is made a strip of latents at a time: a first pass for the global norm, a second for Adam. Between the two, gradients
 * are either kept (4 bytes a parameter) or made again (two products more, of five); the bits are the same. */
#ifndef CROSSFEED_BACKWARD_H
#define CROSSFEED_BACKWARD_H

#include <stdbool.h>
#include <stddef.h>

#include "adam.h"
#include "crosscoder.h"
#include "forward.h"

/* Latents in a strip. */
#define BACKWARD_STRIP ((size_t)4096)

struct backward {
    float *grad_f; /* [rows, d_sae] */
    float *grad;   /* keep: [2 * d_sae, n_inputs] W_enc's, then W_dec's; else [min(d_sae, BACKWARD_STRIP), n_inputs] */
    bool keep;
};

/* After forward_decode of the same x [rows, n_inputs]. Fills b->grad_f, grad_b_enc [d_sae], grad_b_dec [n_inputs], and
 * b->grad where it is kept; of w only the scratch changes. Returns the squared norm of both matrices' gradients. */
double backward_gradient(struct backward *b, const struct crosscoder *c, struct forward *w, const float *x, size_t rows,
                         double l1_coeff, float *grad_b_enc, float *grad_b_dec);

/* After backward_gradient: Adam on both matrices. m, v: [n_params] in the order of c->params. */
void backward_update(struct backward *b, struct crosscoder *c, struct forward *w, const float *x, size_t rows,
                     double l1_coeff, const struct adam_factors *k, float *m, float *v);

#endif
