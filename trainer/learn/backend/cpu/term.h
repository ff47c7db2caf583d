/* term.h - the loss as a list of terms: one struct of functions for each, with its value and its gradient.
 *
 * A term is a mean over the rows of a batch. It may depend on the output x' (through the residual x' - x), on f, on the norms
 * |W_dec[latent, site]|, and on p and the thresholds of entries that are not active; it says its derivative to each of these that it depends
 * on, and the step does the rest. Gradients are PyTorch's: a norm's at the zero vector is 0.
 *
 * A new term is a file with one such struct and a line in term.c's table. */
#ifndef CROSSFEED_TERM_H
#define CROSSFEED_TERM_H

#include <stdbool.h>
#include <stddef.h>

#include "backend.h"
#include "crosscoder.h"
#include "err.h"
#include "forward.h"

struct active;

/* The batch that terms are computed from, after decoding. */
struct term_input {
    const struct backend_setup *setup;
    const struct forward *w; /* f is filled if there are no lists */
    const struct crosscoder *c;
    size_t rows;
    const struct active *lists; /* NULL: the path is dense */
    double aux_loss;            /* of aux.h */
};

/* A latent's f: n values, `stride` floats apart, of which those that are not active may be there as 0 or -0. */
struct latent_entries {
    const float *f;
    size_t n, stride;
};

struct term {
    const char *name; /* of its value in metrics; with "_coeff", of its weight */

    /* Returns the term. */
    double (*value)(const struct term_input *in);

    /* d term / d x' is a factor times the residual x' - x. It is one number (to_output returns it), or one for each row and site
     * (to_rows adds weight times it to factor [rows, n_sites]). Both NULL: x' is not in it. */
    double (*to_output)(const struct term_input *in);
    void (*to_rows)(const struct term_input *in, double weight, double *factor);

    /* Adds weight * d term / d f at a latent's entries to grad, laid out as the entries are. NULL: f is not in it. */
    void (*to_entries)(const struct term_input *in, double weight, size_t latent, const struct latent_entries *entries,
                       float *grad);

    /* Adds weight * d term / d |W_dec[latent, site]| to slope [n_sites]. NULL: the norms are not in it. */
    void (*to_norms)(const struct term_input *in, double weight, size_t latent, double *slope);

    /* Returns weight * d term / d p, the same for every entry of a latent that is not active. NULL: 0. */
    double (*to_inactive)(const struct term_input *in, double weight, size_t latent);

    /* Returns weight * d term / d log_threshold[latent], beside what goes through f. NULL: 0. */
    double (*to_threshold)(const struct term_input *in, double weight, size_t latent);
};

extern const struct term term_l2, term_norm, term_l1, term_l1_joint, term_tanh, term_pre_act, term_aux;

/* Returns a latent's entries. */
struct latent_entries term_entries(const struct term_input *in, size_t latent);

/* Returns the sum over all latents of what `of` says, in a fixed order, whatever the number of threads. */
double term_sum_latents(const struct term_input *in, double (*of)(const struct term_input *in, size_t latent));

/* Returns what the sparsity terms of a latent are multiplied by: shared_coeff if it is shared, else 1. */
double term_sparsity_factor(const struct term_input *in, size_t latent);

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

/* Returns the weight of the term of that name; 0 if it is not there. */
double objective_weight(const struct objective *o, const char *name);

/* Computes d loss / d x' as a factor of the residual. Returns false if it is one number for all, *uniform; true if it is factor
 * [rows, n_sites]. */
bool objective_to_output(const struct objective *o, const struct term_input *in, double *uniform, double *factor);

/* Returns whether that is so of factor. */
bool objective_by_rows(const struct objective *o);

/* Adds to d loss / d f, at a latent's entries, what does not go through x'. */
void objective_to_entries(const struct objective *o, const struct term_input *in, size_t latent,
                          const struct latent_entries *entries, float *grad);

/* Fills factor [d_sae, n_sites]: what d loss / d W_dec[latent, site] has beside the part that goes through x', as a factor of
 * W_dec[latent, site]. */
void objective_to_decoder(const struct objective *o, const struct term_input *in, float *factor);

/* Returns d loss / d p of a latent's entries that are not active. */
double objective_to_inactive(const struct objective *o, const struct term_input *in, size_t latent);

/* Returns d loss / d log_threshold of a latent beside what goes through f. */
double objective_to_threshold(const struct objective *o, const struct term_input *in, size_t latent);

#endif
