/* forward.h - the dense forward pass and the losses, for training steps and evaluations alike.
 *
 * The workspace holds what the backward pass needs: f, the residual x' - x (x' itself is nowhere stored), the decoder's
 * norms and per-latent sums. Everything is computed with the same bits whatever the number of threads. A sparse step
 * (sparse.h) fills the same workspace, but for f, which is then nowhere stored. */
#ifndef CROSSFEED_FORWARD_H
#define CROSSFEED_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crosscoder.h"
#include "err.h"
#include "tiles.h"

/* Owned by the struct; open, since backward.c and step.c read it. */
struct forward {
    size_t max_rows;
    struct tiles tiles;
    float *f;               /* [max_rows, d_sae] activations */
    float *residual;        /* [max_rows, n_inputs] x' - x; after a sparse step in tiles */
    bool norms_known;       /* the next two are W_dec's; to be cleared by whoever changes W_dec but a train_step */
    double *dec_norm;       /* [d_sae, n_sites] norm of W_dec[latent, site] */
    double *dec_norm_sum;   /* [d_sae] its sum over sites */
    double *f_sum;          /* [d_sae] sum over rows of f */
    uint64_t *fired;        /* [d_sae] rows with f > 0 */
    double *columns;        /* [n_inputs] scratch for sums over rows */
    double *row_residual2;  /* [max_rows, n_sites] |x' - x|^2 */
    double *row_deviation2; /* [max_rows, n_sites] |x - mean|^2 (forward_deviations) */
};

/* The means over the rows: l2 = sum over sites and dims of (x' - x)^2, l1 = sum over latents of f * (sum over sites of
 * the norm of W_dec[latent, site]), l0 = number of active latents. */
struct losses {
    double l2, l1, l0;
};

/* Bytes that forward_init takes. */
int forward_memory(size_t n_sites, size_t d_model, size_t d_sae, size_t max_rows, size_t *bytes, struct err *e);
int forward_init(struct forward *w, const struct crosscoder *c, size_t max_rows, struct err *e);
void forward_release(struct forward *w); /* safe on a zeroed struct */

/* x: [rows, n_inputs], 1 <= rows <= max_rows. Fills f, f_sum, fired, dec_norm, dec_norm_sum. NaN stays NaN in f. */
void forward_encode(struct forward *w, const struct crosscoder *c, const float *x, size_t rows);
/* Its parts: the norms, unless they are known; and latents [first, d_sae) of f, f_sum, fired. */
void forward_norms(struct forward *w, const struct crosscoder *c);
void forward_encode_from(struct forward *w, const struct crosscoder *c, const float *x, size_t rows, size_t first);
/* f_sum and fired of latents [first, first + n) from f [rows, d_sae]. */
void forward_count(struct forward *w, const struct crosscoder *c, size_t rows, size_t first, size_t n);
/* After forward_encode: fills residual and row_residual2. */
void forward_decode(struct forward *w, const struct crosscoder *c, const float *x, size_t rows);
/* After forward_decode. */
struct losses forward_losses(const struct forward *w, const struct crosscoder *c, size_t rows);

/* Fills row_deviation2, |x - mean|^2; mean: [n_inputs]. Needs no other call before it. */
void forward_deviations(struct forward *w, const struct crosscoder *c, const float *x, size_t rows, const double *mean);

#endif
