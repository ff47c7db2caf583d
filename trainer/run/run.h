/* run.h - one training run from the first producer to the last file: one stream of batches, and the learners that it feeds. */
#ifndef CROSSFEED_RUN_H
#define CROSSFEED_RUN_H

#include <stddef.h>

#include "err.h"
#include "learner.h"
#include "run_options.h"

/* Trains the learners [n], n at least 1, on one stream, all of them on every batch. The stream follows the first one's configuration, seed
 * included; where another's says otherwise of the stream (batch_size, num_tokens, ...) it is refused. They are resumed together or not at
 * all. status.json and the progress line speak of the first. */
int run(const struct run_options *o, const struct learner_options *learners, size_t n, struct err *e);

#endif
