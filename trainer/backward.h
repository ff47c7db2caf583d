/* backward.h - the dense backward pass, written by hand: gradients of l2 + l1_coeff * l1 (forward.h).
 *
 * Subgradients are PyTorch's: ReLU'(0) = 0, and the norm's gradient at the zero vector is 0. */
#ifndef CROSSFEED_BACKWARD_H
#define CROSSFEED_BACKWARD_H

#include <stddef.h>

#include "crosscoder.h"
#include "forward.h"

/* Latents that are worked on at a time, so that the gradient of f needs [rows, BACKWARD_STRIP] and not [rows, d_sae].
 */
#define BACKWARD_STRIP ((size_t)4096)

/* After forward_decode of the same x [rows, n_inputs]. grad: [n_params] in the order of c->params, overwritten.
 * grad_f: scratch [rows, min(d_sae, BACKWARD_STRIP)]; of w only the scratch changes. */
void backward_dense(const struct crosscoder *c, struct forward *w, const float *x, size_t rows, double l1_coeff,
                    float *grad, float *grad_f);

#endif
