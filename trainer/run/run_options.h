/* run_options.h - what a run is asked to do beside what each of its learners is (learner.h). */
#ifndef CROSSFEED_RUN_OPTIONS_H
#define CROSSFEED_RUN_OPTIONS_H

#include <signal.h>
#include <stddef.h>

#include "listener.h"

struct run_options {
    const char *const *endpoints;
    size_t n_endpoints;
    struct listener_access door; /* keys */
    const char *expect; /* file that says which stream producers must have: cfg.json or manifest.json; or NULL */
    const char *metrics_listen; /* address:port of the metrics endpoint; NULL: none */
    const char *
        provenance; /* file: u32 sequence, position, token of each row, in the order of training, batches passed over too; or NULL */
    volatile sig_atomic_t *stop; /* set by a signal: finish the step, save, tell the producers, return 0 */
};

#endif
