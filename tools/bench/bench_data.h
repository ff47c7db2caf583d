/* bench_data.h - the weights and rows that steps are timed on.
 *
 * Rows are normal, weights normal, and each latent's encoder bias is set so that it is active at its own rate; the rates
 * follow a power law (a few latents fire often, most seldom, as in trained crosscoders) and sum to the L0 asked for. */
#ifndef CROSSFEED_BENCH_DATA_H
#define CROSSFEED_BENCH_DATA_H

#include <stddef.h>

#include "crosscoder.h"
#include "err.h"

/* Fills c's weights. */
int bench_weights(struct crosscoder *c, size_t l0, struct err *e);

/* Fills row number `row`, x [n_inputs]. */
void bench_row(float *x, size_t n_inputs, size_t row);

#endif
