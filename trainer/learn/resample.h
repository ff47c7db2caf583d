/* resample.h - dead latents of a relu crosscoder start anew (after Bricken et al., "Towards Monosemanticity", 2023): such a latent gets, as its encoder, a row of the batch drawn with probability proportional to the row's squared error, scaled
 * to 0.2 of the mean norm of the encoders that are alive; as its decoder the same direction with the mean norm of those decoders; bias 0; and
 * its moments are cleared. */
#ifndef CROSSFEED_RESAMPLE_H
#define CROSSFEED_RESAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "err.h"

/* Returns the bytes that resample takes for a moment. */
size_t resample_memory(const struct backend_setup *s);

/* Resamples the latents that have not fired for dead_rows rows. x: [batch_size, n_inputs], the batch of the step just done; rows are drawn
 * from (seed, RNG_RESAMPLE, step). *n is how many there were; if no latent is alive, nothing is done and *n is 0. */
int resample(struct backend *b, const float *x, uint64_t dead_rows, uint64_t seed, size_t *n, struct err *e);

#endif
