/* crosscoder.h - the crosscoder's parameters in memory (the equations are in backend.h).
 *
 * One row a latent in both matrices: a latent's encoder and decoder vectors are contiguous, which sparse work wants.
 * The reference's layout (W_enc [n_sites, d_model, d_sae]) exists only in weights_file.h. */
#ifndef CROSSFEED_CROSSCODER_H
#define CROSSFEED_CROSSCODER_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

/* Maths in the open; params is owned by the struct, the other pointers look into it, in this order. */
struct crosscoder {
    size_t n_sites, d_model, n_inputs, d_sae;
    size_t n_params;
    float *params;        /* [n_params] */
    float *w_enc;         /* [d_sae, n_inputs]: row j is latent j's encoder, the reference's W_enc[site, dim, j] */
    float *w_dec;         /* [d_sae, n_inputs]: row j is latent j's decoder, the reference's W_dec[j, site, dim] */
    float *b_enc;         /* [d_sae] */
    float *b_dec;         /* [n_inputs] */
    float *log_threshold; /* [d_sae], or NULL: the activation has none */
};

/* Allocates, all zero. Refuses what backend_n_params refuses. */
int crosscoder_init(struct crosscoder *c, size_t n_sites, size_t d_model, size_t d_sae, bool thresholds, struct err *e);
void crosscoder_release(struct crosscoder *c); /* safe on a zeroed struct */

#endif
