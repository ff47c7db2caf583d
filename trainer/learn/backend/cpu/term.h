/* term.h - the loss as a list of terms: one struct of functions for each, with its value and its gradient.
 *
 * A term is a mean over the rows of a batch. It may depend on the output x' (through the residual x' - x), on f at active entries, and on
 * the norms |W_dec[latent, site]|; it says its derivative to each of these that it depends on, and the step does the rest. Gradients are
 * PyTorch's: at a zero decoder vector the norm's is 0.
 *
 * A new term is a file with one such struct and a line in term.c's table. */
#ifndef CROSSFEED_TERM_H
#define CROSSFEED_TERM_H

#include <stddef.h>

#include "backend.h"
#include "crosscoder.h"
#include "err.h"
#include "forward.h"

struct active;

/* The batch that terms are computed from, after decoding. */
struct term_input {
    const struct forward *w; /* f is filled if there are no lists */
    const struct crosscoder *c;
    size_t rows;
    const struct active *lists; /* NULL: the path is dense */
};

struct term {
    const char *name; /* of its value in metrics, and of its weight */

    /* Returns the term. */
    double (*value)(const struct term_input *in);

    /* Returns the factor of (x' - x) in d term / d x'. NULL: x' is not in it. */
    double (*to_output)(const struct term_input *in);

    /* Adds weight * d term / d f at n entries of a latent, which lie `stride` floats apart in f and in grad. NULL: f is not in it. */
    void (*to_entries)(const struct term_input *in, double weight, size_t latent, const float *f, float *grad, size_t n,
                       size_t stride);

    /* Returns weight * d term / d |W_dec[latent, site]|. NULL: the norms are not in it. */
    double (*to_norm)(const struct term_input *in, double weight, size_t latent, size_t site);
};

extern const struct term term_l2, term_l1;

/* Returns the sum over all latents of what `of` says of each latent's f: n values, `stride` floats apart, of which those that are not
 * active may be there as 0. In a fixed order, whatever the number of threads. */
double term_sum_entries(const struct term_input *in, double (*of)(const struct term_input *in, size_t latent,
                                                                  const float *f, size_t n, size_t stride));

/* Returns the term of that name, NULL if there is none. */
const struct term *term_find(const char *name);

/* Adds one to those that are found, for this process: how tests bring their own. At most four. */
void term_add(const struct term *t);

/* The terms of a run, with this step's weights. */
struct objective {
    const struct term *terms[TERMS_MAX];
    size_t n;
    double weight[TERMS_MAX];
};

/* Finds the setup's terms; weights are 0. */
int objective_init(struct objective *o, const struct backend_setup *setup, struct err *e);

/* Fills value [n]. */
void objective_values(const struct objective *o, const struct term_input *in, double *value);

/* Returns the factor of (x' - x) in d loss / d x'. */
double objective_to_output(const struct objective *o, const struct term_input *in);

/* Adds to d loss / d f, at n entries of a latent, what does not go through x'. */
void objective_to_entries(const struct objective *o, const struct term_input *in, size_t latent, const float *f,
                          float *grad, size_t n, size_t stride);

/* Fills factor [d_sae, n_sites]: what d loss / d W_dec[latent, site] has beside the part that goes through x', as a factor of
 * W_dec[latent, site]. */
void objective_to_decoder(const struct objective *o, const struct term_input *in, float *factor);

#endif
