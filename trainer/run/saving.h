/* saving.h - when a save that failed is tried again: after pauses that double, while training goes on.
 *
 * A full disk may be emptied, a file server come back, a folder be renamed back. To end the run would lose what was not saved, so that it ends
 * only when --save-retries tries after the first have failed as well. */
#ifndef CROSSFEED_SAVING_H
#define CROSSFEED_SAVING_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct saving {
    uint64_t failures; /* since the last save that succeeded */
    double next_try;   /* clock_s; if there were any */
};

/* Whether a failed save is to be tried again now. */
bool saving_is_due(const struct saving *s);

/* A save failed at a step, e says why: says so and returns whether it is to be tried again. Not if memory is short or the retries are spent. soon:
 * somebody waits for the run to end; then pauses are a second. */
bool saving_failed(struct saving *s, uint64_t step, uint64_t retries, bool soon, const struct err *e);

/* Sleeps until the next try, or a signal comes. */
void saving_pause(const struct saving *s);

#endif
