/* backward.h - the dense backward pass, written by hand: the gradients of the loss (term.h), and their step.
 *
 * The gradient of a matrix
 * is made a strip of latents at a time: a first pass for the global norm, a second for Adam. Between the two, gradients
 * are either kept (4 bytes a parameter) or made again (two products more, of five); the bits are the same. */
#ifndef CROSSFEED_BACKWARD_H
#define CROSSFEED_BACKWARD_H

#include <stdbool.h>
#include <stddef.h>

#include "adam.h"
#include "crosscoder.h"
#include "forward.h"
#include "term.h"

/* Latents in a strip. */
#define BACKWARD_STRIP ((size_t)4096)

struct backward {
    float *grad_f; /* [rows, d_sae] */
    float *grad;   /* keep: [2 * d_sae, n_inputs] W_enc's, then W_dec's; else [min(d_sae, BACKWARD_STRIP), n_inputs] */
    bool keep;
};

/* Computes gradients after forward_decode of the same x [rows, n_inputs] and objective_to_decoder (w->dec_factor). scale: of the residual in
 * d loss / d x'. Fills b->grad_f, grad_b_enc [d_sae], grad_threshold [d_sae] (NULL: there are none), and b->grad where it is kept. Returns
 * the squared norm of both matrices' gradients. */
double backward_gradient(struct backward *b, const struct selection *selection, const struct objective *o,
                         const struct term_input *in, const float *x, float scale, float *grad_b_enc,
                         float *grad_threshold);

/* After backward_gradient, does Adam on both matrices. m, v: [n_params] in the order of c->params. */
void backward_update(struct backward *b, const struct backend_setup *setup, struct crosscoder *c, struct forward *w,
                     const float *x, size_t rows, float scale, const struct adam_factors *k, float *m, float *v);

/* Multiplies the residual of each row at each site by factor [rows, n_sites], and sums it again into w->columns. */
void backward_scale_residual(struct forward *w, const struct crosscoder *c, size_t rows, const double *factor);

#endif
