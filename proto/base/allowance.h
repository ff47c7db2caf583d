/* allowance.h - so many of something at once, and in the long run so many a second. One thread at a time. */
#ifndef CROSSFEED_ALLOWANCE_H
#define CROSSFEED_ALLOWANCE_H

#include <stdbool.h>
#include <stdint.h>

struct allowance {
    unsigned burst, per_s; /* the rest starts zeroed */
    int64_t since_ms;      /* up to when the passing of time was counted */
    unsigned used;         /* of the burst */
};

/* Counts the time until now; returns whether that was a second or more since it was counted last. */
bool allowance_pass(struct allowance *a, int64_t now_ms);

/* Takes one, and returns whether there was one to take. */
bool allowance_take(struct allowance *a, int64_t now_ms);

#endif
