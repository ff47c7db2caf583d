/* strikes.h - counts the wrong chunks of each producer, across its connections; after three in a row it is out for the rest of the run.
 *
 * A producer is known here by its CURVE key, which nobody else can show; without keys by its name, so that one who connects again is still
 * the one who was wrong. A whole block that is right wipes its strikes out, so that bits that flip on a long way now and then cost no more
 * than their leases. */
#ifndef CROSSFEED_STRIKES_H
#define CROSSFEED_STRIKES_H

#include <stdbool.h>
#include <stddef.h>

#include "message.h"

#define STRIKES_OUT 3
#define STRIKES_REMEMBERED \
    256 /* producers; with more, the one that came first is forgotten, and last those that are out */

struct strikes { /* zeroed: there are none */
    struct {
        char who[MESSAGE_NAME_SIZE];
        unsigned n;
    } list[STRIKES_REMEMBERED]; /* [n], oldest first */
    size_t n;
};

/* Returns what the producer is known by: its key, or its name if the key is "". */
const char *strikes_identity(const char *name, const char *key);

/* Counts one more. Returns whether that puts the producer out. */
bool strikes_add(struct strikes *s, const char *who);

/* Wipes out the strikes of a producer that is not out. */
void strikes_clear(struct strikes *s, const char *who);

/* Returns whether the producer is out. */
bool strikes_out(const struct strikes *s, const char *who);

#endif
