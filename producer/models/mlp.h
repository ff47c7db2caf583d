/* mlp.h - the MLP of a layer: out = act(in up + b) down + b, over a piece of the tokens (linear.h). */
#ifndef CROSSFEED_MLP_H
#define CROSSFEED_MLP_H

#include <stddef.h>

#include "err.h"
#include "forward_kernels.h"
#include "linear.h"

struct mlp {
    struct linear up;   /* [d, inner] */
    struct linear down; /* [inner, d] */
    enum mlp_activation activation;
};

/* Returns the activation of that name in Hugging Face's ACT2FN (several names of one formula are one activation here),
 * or -1 for an unknown name. */
int mlp_activation_find(const char *name);
/* Returns the first of an activation's names: it stands in the fingerprints of models. */
const char *mlp_activation_name(enum mlp_activation activation);

/* Computes out [tokens, d] for the rows [first, end), all but the bias of down, which the caller adds together with the
 * residual stream. hidden [tokens, inner] is overwritten. Fails as linear_multiply does. */
int mlp_rows(const struct mlp *m, const struct forward_kernels *kernels, const struct operand *in,
             const struct operand *hidden, float *out, size_t first, size_t end, struct err *e);

#endif
