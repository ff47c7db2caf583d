/* initial_bias.h - biases that a run starts from which depend on its rows: the first ones, over which the scale was measured.
 *
 * b_dec is 0, as the reference's, or where the rows lie: their mean, or their geometric median (crosscoder_learning's). b_enc of jumprelu
 * is such that each latent fires in 10000 / d_sae of the rows, as Anthropic's of January 2025. Both after initial_weights, whose biases are 0. */
#ifndef CROSSFEED_INITIAL_BIAS_H
#define CROSSFEED_INITIAL_BIAS_H

#include <stddef.h>

#include "backend.h"
#include "err.h"
#include "row_sample.h"

enum b_dec_init { B_DEC_ZERO, B_DEC_MEAN, B_DEC_GEOMETRIC_MEDIAN };
extern const char *const b_dec_init_names[]; /* in the enum's order, NULL at the end */

/* Computes the bytes that initial_bias takes while it works. */
size_t initial_bias_memory(const struct backend_setup *s, enum b_dec_init how, size_t n_rows);

/* Fills b_dec of b as `how` says and, of jumprelu, b_enc. rows: of b's shape, at least one. */
int initial_bias(struct backend *b, enum b_dec_init how, const struct row_sample *rows, struct err *e);

#endif
