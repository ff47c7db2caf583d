/* run.h - one training run from the first producer to the last file. */
#ifndef CROSSFEED_RUN_H
#define CROSSFEED_RUN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "config.h"
#include "err.h"
#include "link.h"

struct run_options {
    struct config config;
    const char
        *out; /* folder: metrics.jsonl, checkpoints/, at the end crosscoder.safetensors, cfg.json, summary.json */
    const char *const *endpoints;
    size_t n_endpoints;
    struct link_door door;      /* keys */
    const char *metrics_listen; /* address:port of the metrics endpoint; NULL: none */
    bool resume;                /* from the newest checkpoint in out */
    const char *init;           /* crosscoder.safetensors to start from instead of random weights; or NULL */
    const char *truth;          /* ground truth of a synthetic source: the run ends with the share recovered; or NULL */
    const char *provenance;     /* file: u32 sequence, position, token of each row, in the order of training; or NULL */
    volatile sig_atomic_t *stop; /* set by a signal: finish the step, save, tell the producers, return 0 */
};

int run(const struct run_options *o, struct err *e);

#endif
