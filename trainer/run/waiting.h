/* waiting.h - the training thread's waits for what producers send: they are timed and announced, and may have an end.
 *
 * A run waits for ever, or with a timeout as long as there is a producer. Only the time in which the run waits and no producer is here
 * counts, so that rows already in the window are trained on. */
#ifndef CROSSFEED_WAITING_H
#define CROSSFEED_WAITING_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct ingest;
struct metrics;

struct waiting {
    struct ingest *ingest;
    struct metrics *metrics;
    volatile sig_atomic_t *stop;
    uint64_t timeout_s;  /* without a producer; 0: none */
    int64_t alone_since; /* in this wait, clock_ms; 0: a producer is here */
    bool failed;         /* the last wait ended because the rows cannot be had */
};

/* Starts a wait. */
void waiting_begins(struct waiting *w);

/* Says, now and then in a wait, what is being waited for before step `step` is done. Returns 0 to go on waiting, 1 if the run was asked to
 * stop, ERR_PEER if there has been no producer for timeout_s. */
int waiting_goes_on(struct waiting *w, uint64_t step, const char *what, struct err *e);

/* Ends a wait and returns its result: 0 if it came, 1 if the run was asked to stop, or the error. */
int waiting_ends(struct waiting *w, int result);

#endif
