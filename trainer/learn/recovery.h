/* recovery.h - how much of a planted dictionary the crosscoder has found.
 *
 * For each planted latent: the largest cosine between its vector, stacked over all sites, and any learned latent's
 * decoder vector (mean max cosine similarity: Sharkey, Braun and Millidge, "Taking features out of superposition with
 * sparse autoencoders", 2022). Training rows were multiplied by the run's scale, site by site, so the planted vectors
 * are too.
 *
 * The truth is a safetensors file: `directions` [n_latents, n_sites, d_model], `kind` [n_latents] I32 (0 shared, 1
 * local, 2 exclusive), as `actgen --source synthetic` writes it. Refused: other shapes than the run's, a kind out of
 * range. */
#ifndef CROSSFEED_RECOVERY_H
#define CROSSFEED_RECOVERY_H

#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "err.h"

#define RECOVERY_KINDS 3
#define RECOVERY_THRESHOLD 0.9

struct recovery {
    size_t n_latents, n_sites, d_model; /* n_latents: planted */
    float *planted;                     /* [n_latents, n_sites * d_model], unscaled */
    int32_t *kind;                      /* [n_latents] */
    float *unit;                        /* [n_latents, n_sites * d_model]: scaled, of norm 1 */
    float *products;                    /* [n_latents, a tile of learned latents] */
    float *learned;                     /* [a tile of learned latents, n_sites * d_model] */
    float *max_cosine;                  /* [n_latents], of the last recovery_measure */
};

struct recovery_result {
    double fraction;        /* of planted latents whose max cosine is at least the threshold */
    double mean_max_cosine; /* over planted latents */
    size_t n[RECOVERY_KINDS], recovered[RECOVERY_KINDS]; /* by kind */
    double mean[RECOVERY_KINDS];                         /* max cosine, by kind; 0 where there is none of the kind */
};

/* Reads the truth and takes all memory; safe to release after a failure. */
int recovery_init(struct recovery *r, const char *truth_path, size_t n_sites, size_t d_model, struct err *e);
void recovery_release(struct recovery *r); /* safe on a zeroed struct */

/* Compares the W_dec of b, of the same sites, with the truth. scale: [n_sites]. A learned latent of norm 0 counts as cosine 0. */
int recovery_measure(struct recovery *r, const struct backend *b, const float *scale, double threshold,
                     struct recovery_result *result, struct err *e);

#endif
