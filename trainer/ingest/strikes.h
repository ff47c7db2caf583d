/* strikes.h - wrong chunks in a row, by producer, across its connections: three, and it is out for the rest of the run.
 *
 * A producer is its name: who reconnects is still the one who was wrong. A whole block that is right wipes its strikes
 * out, so that bits flipped on a long way now and then cost no more than their leases. */
#ifndef CROSSFEED_STRIKES_H
#define CROSSFEED_STRIKES_H

#include <stdbool.h>
#include <stddef.h>

#include "message.h"

#define STRIKES_OUT 3
#define STRIKES_NAMES \
    256 /* remembered; with more, the one that came longest ago is forgotten, those who are out last */

struct strikes { /* zeroed: none */
    struct {
        char name[MESSAGE_NAME_SIZE];
        unsigned n;
    } names[STRIKES_NAMES]; /* [n], oldest first */
    size_t n;
};

bool strikes_add(struct strikes *s, const char *name); /* one more; true: it is out */
void strikes_clear(struct strikes *s, const char *name);
bool strikes_out(const struct strikes *s, const char *name);

#endif
