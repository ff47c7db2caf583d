/* initial_weights.h - the weights that a run starts from, drawn from a seed.
 *
 * As the reference starts: each latent's decoder vector at each site is normal, scaled to norm dec_init_norm; W_enc is W_dec transposed
 * (here the same rows); biases are 0. jumprelu, as Anthropic's of January 2025: W_dec is uniform in +-1 / sqrt(n_inputs),
 * W_enc is n_inputs / d_sae of it transposed, and b_enc is settled by rows (initial_bias.h). Latent j draws from
 * (seed, RNG_INIT_WEIGHTS, j), so that it does not depend on d_sae.
 *
 * Sites of two models are paired by their hook points, site i and site i + n_sites / 2 (backend.h, struct partition). A shared latent starts
 * with one decoder vector for both, and with tied_models every latent does; an exclusive latent starts with 0 at the other model's sites. */
#ifndef CROSSFEED_INITIAL_WEIGHTS_H
#define CROSSFEED_INITIAL_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "err.h"

struct initial_weights {
    uint64_t seed;
    double dec_init_norm; /* not of jumprelu */
    double log_threshold; /* of jumprelu */
    bool tied_models;     /* n_sites is even */
};

/* Fills W_enc, W_dec, log_threshold and the biases of b. */
int initial_weights(struct backend *b, const struct initial_weights *o, struct err *e);

/* Fills the decoder vector of latent j, v [n_sites, d_model]: the reference's start. */
void initial_decoder(float *v, size_t n_sites, size_t d_model, size_t j, double dec_init_norm, uint64_t seed);

#endif
