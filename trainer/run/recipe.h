/* recipe.h - what a configuration asks of a backend: the activation, the loss's terms, and their weights at a step.
 *
 *   relu               error + l1_coeff(step) * sum of f N                          N: sum over sites of |W_dec[latent, site]|; or one norm
 *   topk, batchtopk    error + aux_coeff * AuxK                                     k(step) entries a row by score
 *   jumprelu           error + l0_coeff * step / steps * sum of tanh(c f N) + pre_act_coeff * sum of max(theta - p, 0) N
 * with the error squared, or by norms. The formulas and their sources are in learn/backend/cpu/, one file a term. */
#ifndef CROSSFEED_RECIPE_H
#define CROSSFEED_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "config.h"
#include "err.h"
#include "schedule.h"
#include "stream.h"

/* Refuses flags that the activation has no use for (both named), and settings that cannot go together. */
int recipe_check(const struct config *c, struct err *e);

/* Fills in what follows from the stream: dict_size of an expansion, aux_k, the score. cfg.json then records it. */
int recipe_settle(struct config *c, const struct stream *stream, struct err *e);

/* Returns the setup for a stream; c is settled. Its path and kept gradients are for the caller. */
struct backend_setup recipe_setup(const struct config *c, const struct stream *stream);

/* Returns whether latents are resampled when `steps` steps are done; *before: when they last were, or 0. */
bool recipe_resamples(const struct config *c, uint64_t steps, uint64_t *before);

/* Returns a step's options. */
struct step_options recipe_step(const struct config *c, const struct schedule *schedule, uint64_t step);

#endif
