/* source_synthetic.h - rows made from a planted dictionary, so that what a crosscoder finds can be compared with the
 * truth.
 *
 * A row is the sum over its active latents of coefficient * direction, plus noise. Each planted latent is on all sites
 * (shared), on one (local), or on one half of the sites (exclusive: of two models, the sites of one). On each of its
 * sites its direction is a random unit vector times a magnitude in [0.8, 1.2]. Latents are active independently with
 * equal probability, with coefficients uniform in [0.5, 1.5], independent from row to row. Options plant what is harder
 * to find: latents of unequal rates, pairs that are mostly active together, shared latents that are weak in model 1 or also
 * active in it alone.
 *
 * The rows are a pure function of (options, sequence), the same on every machine: only +, *, / and sqrt are used, which
 * IEEE rounds in one way, and no libm function that another version may round otherwise. */
#ifndef CROSSFEED_SOURCE_SYNTHETIC_H
#define CROSSFEED_SOURCE_SYNTHETIC_H

#include "source.h"

enum latent_kind { LATENT_SHARED, LATENT_LOCAL, LATENT_EXCLUSIVE };

struct synthetic_options {
    uint32_t d_model, n_sites;
    uint32_t n_models; /* 1 or 2; with 2, the first half of the sites is of model 0, the second of model 1 */
    uint32_t n_latents;
    double local, exclusive; /* shares of the latents; the rest is shared. Of a single site all are shared */
    bool aligned;            /* of two models: shared latents have the same directions in both */
    double active;           /* latents active in a row, expected */
    double rate_spread;      /* the most frequent latent is active so many times as often as the least; log-uniform */
    double correlated; /* share of the latents that are one of a pair. Both of a pair have the same rate, and where
                                one is active the other is with probability 0.9 */
    double weak_ratio; /* a tenth of the shared latents are so many times as large in model 1 as in model 0 */
    double alone;      /* another tenth of them is, so often as it is active, active at model 1's sites alone */
    double noise;      /* standard deviation of an element; nearly normal, within 3.5 of them */
    uint32_t seq_len, n_seq; /* no BOS: every position is a row */
    uint64_t seed;
};

/* Returns the defaults: d_model 64, 4 sites, 1 model, 256 latents (20 % local, 20 % exclusive), 8 active, noise 0.01,
 * no spread, no pairs, none weak or active alone, 8192 sequences of 128. */
struct synthetic_options synthetic_defaults(void);

/* Plants the dictionary. Refuses options that make no sense (ERR_INPUT, naming the option and its value). Close with
 * s->close(s->self). */
int source_synthetic_open(struct source *s, const struct synthetic_options *o, struct err *e);

/* Writes the truth as safetensors: `directions` [n_latents, n_sites, d_model] F32 (0 on sites where a latent is not),
 * `kind` [n_latents] I32 (enum latent_kind), `rate` [n_latents] F32 (probability to be active in a row), `partner`
 * [n_latents] I32 (the other latent of its pair, or -1), `alone` [n_latents] F32 (share of its activations that are at model
 * 1's sites alone), and the options as metadata. s: opened by
 * source_synthetic_open. */
int source_synthetic_write_truth(const struct source *s, const char *path, struct err *e);

#endif
