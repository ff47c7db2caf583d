/* forward.h - the dense forward pass, for training steps and evaluations alike, and the workspace of both kinds of step.
 *
 * The workspace holds what loss terms and gradients need: f, the residual x' - x (x' itself is nowhere stored), the decoder's
 * norms and per-latent sums. Everything is computed with the same bits whatever the number of threads. A sparse step
 * (sparse.h) fills the same workspace, but for f, which is then nowhere stored. */
#ifndef CROSSFEED_FORWARD_H
#define CROSSFEED_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "activation.h"
#include "crosscoder.h"
#include "err.h"
#include "fvu.h"
#include "tiles.h"

/* Owned by the struct; open, since backward.c and step.c read it. */
struct forward {
    size_t max_rows;
    struct tiles tiles;
    float *f;               /* [max_rows, d_sae] activations; NULL if only sparse steps are possible */
    float *residual;        /* [max_rows, n_inputs] x' - x; after a sparse step in tiles */
    bool norms_known;       /* the next two are W_dec's; to be cleared by whoever changes W_dec but a train_step */
    double *dec_norm;       /* [d_sae, n_sites] norm of W_dec[latent, site] */
    double *dec_norm_sum;   /* [d_sae] its sum over sites */
    float *dec_factor;      /* [d_sae, n_sites] of W_dec in its own gradient (objective_to_decoder) */
    double *f_sum;          /* [d_sae] sum over rows of f */
    uint64_t *fired;        /* [d_sae] rows in which f is not 0 */
    double *below_sum;      /* [d_sae] of jumprelu: sum over rows of max(theta - p, 0) */
    double *x_sum;          /* [n_inputs] of jumprelu: sum over rows of x */
    double *columns;        /* [n_inputs] sum over rows of the residual */
    double *row_residual2;  /* [max_rows, n_sites] |x' - x|^2 */
    struct fvu_means means; /* of x, if they are wanted */
};

/* Computes the bytes that forward_init takes. */
int forward_memory(const struct backend_setup *setup, size_t *bytes, struct err *e);
/* Allocates for the setup, whose sizes are those of c. */
int forward_init(struct forward *w, const struct crosscoder *c, const struct backend_setup *setup, struct err *e);
void forward_release(struct forward *w); /* safe on a zeroed struct */

/* Encodes x [rows, n_inputs], 1 <= rows <= max_rows: fills f, f_sum, fired, dec_norm, dec_norm_sum. NaN stays NaN in f. For activations of
 * SCOPE_ENTRY. */
void forward_encode(struct forward *w, const struct crosscoder *c, struct selection *s, const float *x, size_t rows);
/* Do parts of that: the norms, unless they are known; and latents [first, d_sae) of f, f_sum, fired. */
void forward_norms(struct forward *w, const struct crosscoder *c);
void forward_encode_from(struct forward *w, const struct crosscoder *c, const struct selection *s, const float *x,
                         size_t rows, size_t first);
/* Counts f_sum and fired of latents [first, first + n) from f [rows, d_sae]. */
void forward_count(struct forward *w, const struct crosscoder *c, size_t rows, size_t first, size_t n);
/* Decodes after forward_encode: fills residual, columns and row_residual2. */
void forward_decode(struct forward *w, const struct crosscoder *c, const float *x, size_t rows);
/* Returns the mean number of active latents of a row. */
double forward_l0(const struct forward *w, const struct crosscoder *c, size_t rows);

#endif
