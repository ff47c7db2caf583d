/* aux.h - AuxK (Gao et al. 2024): the dead latents reconstruct the error, so that they come alive again.
 *
 * A latent is dead if it has not fired for dead_rows rows, this batch counted; so it has no active entries. Among the dead latents the
 * k_aux = min(aux_k, their number) greatest scores of each row are taken; a = W_dec of their p, without bias; r = x - x', a constant.
 *   aux = mean over rows of |r - a|^2 / mean over rows of |r - mean r|^2          0 if the denominator is 0 or nobody is dead
 * Its cost follows the number of the dead: their pre-activations are made again, a product of their encoders alone. */
#ifndef CROSSFEED_AUX_H
#define CROSSFEED_AUX_H

#include <stddef.h>
#include <stdint.h>

#include "activation.h"
#include "active.h"
#include "crosscoder.h"
#include "err.h"
#include "forward.h"
#include "order.h"

struct aux {
    size_t k;            /* aux_k; 0: there is no such term, nothing is allocated */
    uint32_t *dead;      /* [n_dead] latents, ascending; room for d_sae */
    size_t n_dead;       /* of the last batch */
    float *encoders;     /* [strip, n_inputs] of dead latents */
    float *bound;        /* [max_rows] of each row, the least score that may still be kept */
    float *factor;       /* [d_sae] of the scores, by place in dead */
    struct active lists; /* by place in dead while they are made, then by latent */
    void *entries;
    struct order order;
    float *residual; /* [max_rows * tiles.lanes] a - r, in tiles */
    double *row2;    /* [tiles.n, 2] sums of squares of a - r, and of r - mean r */
    double loss;     /* of the last batch */
    double variance; /* mean over rows of |r - mean r|^2; 0: there is no gradient */
};

/* Returns the bytes that aux_init takes. */
size_t aux_memory(const struct backend_setup *setup, size_t lanes);
int aux_init(struct aux *a, const struct crosscoder *c, const struct backend_setup *setup, const struct forward *w,
             struct err *e);
void aux_release(struct aux *a); /* safe on a zeroed struct */

/* Selects entries of dead latents and computes the term. x: [rows, n_inputs]; w: after sparse_decode; rows_since_fired: before this batch.
 * s: its factors are the scores'; scratch: [rows * active_strip(d_sae)]. */
void aux_compute(struct aux *a, const struct crosscoder *c, const struct forward *w, const struct selection *s,
                 const uint64_t *rows_since_fired, uint64_t dead_rows, const float *x, size_t rows, float *scratch);

#endif
