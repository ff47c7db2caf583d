/* adam.h - Adam, element by element, as torch.optim.Adam computes it (no weight decay, no amsgrad).
 *
 *   m = m + (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
 *   p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)          t = 1 at the first step
 * Moments fp32, the scalar factors in double and rounded once; the loop is kernels.h's. Numbers below 1.2e-38 count as
 * zero: a silent latent's moments decay to there within a thousand steps, and arithmetic on such is 50 times slower. */
#ifndef CROSSFEED_ADAM_H
#define CROSSFEED_ADAM_H

#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "kernels.h"

/* Returns the scalars of step t (from 1). grad_scale: the clipping coefficient. */
struct adam_factors adam_factors(const struct adam *a, float grad_scale, double lr, uint64_t t);

/* Updates p, m, v [n] with the gradient grad_scale * grad [n], by all threads. */
void adam_update(const struct adam_factors *k, float *p, float *m, float *v, const float *grad, size_t n);

#endif
