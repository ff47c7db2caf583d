/* crosscoder.h - the crosscoder's parameters and their initial values.
 *
 *   f = ReLU(W_enc x + b_enc),  x' = W_dec f + b_dec      x, x': [n_inputs], n_inputs = n_sites * d_model; f: [d_sae]
 *
 * One row a latent in both matrices: a latent's encoder and decoder vectors are contiguous, which sparse work wants.
 * The reference's layout (W_enc [n_sites, d_model, d_sae]) exists only in weights_file.h. */
#ifndef CROSSFEED_CROSSCODER_H
#define CROSSFEED_CROSSCODER_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Maths in the open; params is owned by the struct, the other pointers look into it, in this order. */
struct crosscoder {
    size_t n_sites, d_model, n_inputs, d_sae;
    size_t n_params;
    float *params; /* [n_params] */
    float *w_enc;  /* [d_sae, n_inputs]: row j is latent j's encoder, the reference's W_enc[site, dim, j] */
    float *w_dec;  /* [d_sae, n_inputs]: row j is latent j's decoder, the reference's W_dec[j, site, dim] */
    float *b_enc;  /* [d_sae] */
    float *b_dec;  /* [n_inputs] */
};

/* *n_params = 2 * d_sae * n_inputs + d_sae + n_inputs. Refuses sizes of 0, more sites than STREAM_MAX_SITES (ERR_INPUT)
 * and what overflows, counted in bytes with 16 a parameter (ERR_MEMORY). */
int crosscoder_n_params(size_t n_sites, size_t d_model, size_t d_sae, size_t *n_params, struct err *e);

/* Allocates, all zero. */
int crosscoder_init(struct crosscoder *c, size_t n_sites, size_t d_model, size_t d_sae, struct err *e);
void crosscoder_release(struct crosscoder *c); /* safe on a zeroed struct */

/* As the reference starts: each latent's decoder vector at each site is normal, scaled to norm dec_init_norm; W_enc =
 * W_dec transposed (here: the same rows); biases 0. Latent j draws from (seed, RNG_INIT_WEIGHTS, j): independent of
 * d_sae. */
void crosscoder_init_weights(struct crosscoder *c, double dec_init_norm, uint64_t seed);

#endif
