/* run.h - one training run from the first producer to the last file: one stream of batches, and the learners that it feeds. */
#ifndef CROSSFEED_RUN_H
#define CROSSFEED_RUN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "learner.h"
#include "listener.h"

struct run_options {
    const char *const *endpoints;
    size_t n_endpoints;
    struct listener_access door; /* keys */
    const char *metrics_listen;  /* address:port of the metrics endpoint; NULL: none */
    const char *provenance; /* file: u32 sequence, position, token of each row, in the order of training; or NULL */
    volatile sig_atomic_t *stop; /* set by a signal: finish the step, save, tell the producers, return 0 */
};

/* Trains the learners [n], n at least 1, on one stream, all of them on every batch. The stream follows the first one's configuration, seed
 * included; where another's says otherwise of the stream (batch_size, num_tokens, ...) it is refused. They are resumed together or not at
 * all. status.json and the progress line speak of the first. */
int run(const struct run_options *o, const struct learner_options *learners, size_t n, struct err *e);

#endif
