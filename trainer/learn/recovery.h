/* recovery.h - how much of a planted dictionary the crosscoder has found.
 *
 * For each planted latent: the largest cosine between its vector, stacked over all sites, and any learned latent's
 * decoder vector (mean max cosine similarity: Sharkey, Braun and Millidge, "Taking features out of superposition with
 * sparse autoencoders", 2022). Training rows were multiplied by the run's scale, site by site, so the planted vectors
 * are too.
 *
 * And for each learned latent that is live, the planted one of the greatest such cosine, which it matches if that is at
 * least RECOVERY_MATCH (half of a latent that is equally in two models has 0.707 with it). A live latent that matches
 * nothing is spurious; a planted one that several match is a duplicate. With two models, a live latent is called
 * exclusive to one if at most RECOVERY_EXCLUSIVE of its decoder's norm is in the other, |d1| / (|d0| + |d1|), d0 and d1
 * its vectors stacked over the sites of each; it is so in truth if it matches a planted latent that is in that model alone.
 *
 * The truth is a safetensors file: `directions` [n_latents, n_sites, d_model], `kind` [n_latents] I32 (0 shared, 1
 * local, 2 exclusive), as `actgen --source synthetic` writes it. Refused: other shapes than the run's, a kind out of
 * range. */
#ifndef CROSSFEED_RECOVERY_H
#define CROSSFEED_RECOVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "err.h"

#define RECOVERY_KINDS 3
#define RECOVERY_THRESHOLD 0.9
#define RECOVERY_MATCH 0.7
#define RECOVERY_EXCLUSIVE 0.1

struct recovery {
    size_t n_latents, n_sites, d_model; /* n_latents: planted */
    float *planted;                     /* [n_latents, n_sites * d_model], unscaled */
    int32_t *kind;                      /* [n_latents] */
    float *unit;                        /* [n_latents, n_sites * d_model]: scaled, of norm 1 */
    float *products;                    /* [n_latents, a tile of learned latents] */
    float *learned;                     /* [a tile of learned latents, n_sites * d_model] */
    float *max_cosine;                  /* [n_latents], of the last recovery_measure */
    int32_t *only_in;                   /* [n_latents] the model that alone has it, or -1 */
    uint32_t *matches;                  /* [n_latents] learned latents that match it, of the last recovery_measure */
    unsigned char *found_exclusive;     /* [n_latents] 1: one of them is called exclusive to its model */
    double active; /* planted latents that are active in a row, expected; 0: the file doesn't say */
};

struct recovery_result {
    double fraction;        /* of planted latents whose max cosine is at least the threshold */
    double mean_max_cosine; /* over planted latents */
    size_t n[RECOVERY_KINDS], recovered[RECOVERY_KINDS]; /* by kind */
    double mean[RECOVERY_KINDS];                         /* max cosine, by kind; 0 where there is none of the kind */
    size_t live;            /* learned latents that have fired, and within dead_rows rows */
    size_t spurious;        /* of these, those that match nothing */
    size_t duplicates;      /* planted latents that more than one live latent matches */
    double active;          /* planted latents active in a row, expected; 0: not known */
    bool two_models;        /* then, else 0: */
    size_t called;          /* live latents called exclusive, */
    size_t called_rightly;  /* and of these those that are so; */
    size_t exclusive;       /* planted latents that are in one model alone, */
    size_t found_exclusive; /* and of these those that a live latent matches which is called exclusive to that model */
};

/* Finds the bytes that recovery_init takes, from the file's header. */
int recovery_memory(const char *truth_path, size_t n_sites, size_t d_model, size_t *bytes, struct err *e);

/* Reads the truth and takes all memory; safe to release after a failure. */
int recovery_init(struct recovery *r, const char *truth_path, size_t n_sites, size_t d_model, struct err *e);
void recovery_release(struct recovery *r); /* safe on a zeroed struct */

/* Compares the W_dec of b, of the same sites, with the truth. scale: [n_sites]. A latent that has not fired for dead_rows rows is not live.
 * A learned latent of norm 0 counts as cosine 0. */
int recovery_measure(struct recovery *r, const struct backend *b, const float *scale, double threshold,
                     uint64_t dead_rows, struct recovery_result *result, struct err *e);

#endif
