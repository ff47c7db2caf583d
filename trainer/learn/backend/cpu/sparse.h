/* sparse.h - the exact step beyond the encoder at a cost that follows the number of active entries, not d_sae.
 *
 * The same mathematics as forward_decode, backward.h and adam_update up to rounding, on active lists (active.h): every
 * product with f or its gradient goes over entries that are not 0. Gradients are nowhere stored: a first pass makes
 * each latent's gradient for its norm, and once the global norm is known the update makes it again, tile by tile, in
 * the first-level cache, straight into Adam. */
#ifndef CROSSFEED_SPARSE_H
#define CROSSFEED_SPARSE_H

#include <stddef.h>

#include "active.h"
#include "adam.h"
#include "crosscoder.h"
#include "err.h"
#include "forward.h"
#include "term.h"

struct sparse {
    float *x;      /* [max_rows * forward.tiles.lanes] the batch in tiles */
    double *row2;  /* [forward.tiles.n, max_rows] squares of the residual in each tile */
    double *norm2; /* [d_sae] squares of a latent's gradient */
    float *base;   /* [d_sae] d loss / d p of entries that are not active; NULL: 0 for all (no jumprelu) */
};

/* Where a latent's gradient comes from: its entries, and what d loss / d (their decoding) is at each row. A latent has its active entries,
 * or, if it is dead, those of AuxK. */
struct gradient_source {
    struct active *lists;
    const float *residual; /* [rows] in tiles; d loss / d x' is `scale` times it */
    float scale;
};

struct gradient_sources {
    struct gradient_source main, aux; /* aux.lists NULL: there are no dead latents */
};

/* Computes the bytes that sparse_init takes. */
int sparse_memory(const struct backend_setup *setup, size_t *bytes, struct err *e);
int sparse_init(struct sparse *s, const struct crosscoder *c, const struct backend_setup *setup,
                const struct forward *w, struct err *e);
void sparse_release(struct sparse *s); /* safe on a zeroed struct */

/* Decodes after active_encode gave lists. Fills s->x, w->residual (in tiles), w->columns, w->row_residual2 and, of jumprelu, w->x_sum. */
void sparse_decode(struct sparse *s, const struct active *a, struct forward *w, const struct crosscoder *c,
                   const float *x, size_t rows);

/* Adds the decoding of other lists, without bias, to the residual in w: out [rows] in tiles = W_dec f + residual. */
void sparse_decode_more(const struct active *a, const struct forward *w, const struct crosscoder *c, size_t rows,
                        float *out);

/* Multiplies the residual of each row at each site by factor [rows, n_sites], and sums it again into w->columns. */
void sparse_scale_residual(struct forward *w, const struct crosscoder *c, size_t rows, const double *factor);

/* Computes gradients after sparse_decode and objective_to_decoder (w->dec_factor). Fills the lists' grad, grad_b_enc [d_sae] and
 * grad_threshold [d_sae] (NULL: there are none); returns the squared norm of both matrices' gradients. */
double sparse_gradient(struct sparse *s, const struct gradient_sources *from, const struct selection *selection,
                       const struct objective *o, const struct term_input *in, float *grad_b_enc,
                       float *grad_threshold);

/* After sparse_gradient, does Adam on every element of both matrices, those of silent latents too. m, v: [n_params] in the
 * order of c->params. Keeps the norms in w those of W_dec. */
void sparse_update(const struct sparse *s, const struct gradient_sources *from, const struct backend_setup *setup,
                   struct forward *w, struct crosscoder *c, size_t rows, const struct adam_factors *k, float *m,
                   float *v);

#endif
