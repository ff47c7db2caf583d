/* initial_weights.h - the weights that a run starts from, drawn from a seed.
 *
 * As the reference starts: each latent's decoder vector at each site is normal, scaled to norm dec_init_norm; W_enc is W_dec transposed
 * (here the same rows); biases are 0. Latent j draws from (seed, RNG_INIT_WEIGHTS, j), so that it does not depend on d_sae. */
#ifndef CROSSFEED_INITIAL_WEIGHTS_H
#define CROSSFEED_INITIAL_WEIGHTS_H

#include <stdint.h>

#include "backend.h"
#include "err.h"

/* Fills W_enc, W_dec and the biases of b. */
int initial_weights(struct backend *b, double dec_init_norm, uint64_t seed, struct err *e);

/* Fills the decoder vector of latent j, v [n_sites, d_model]. */
void initial_decoder(float *v, size_t n_sites, size_t d_model, size_t j, double dec_init_norm, uint64_t seed);

#endif
