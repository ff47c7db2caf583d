/* refusals.h - strangers turned away: counted by kind, said once a stranger.
 *
 * A line for the first such refusal of a stranger, then none like it for a minute; and in the long run at most one line a second,
 * whoever they are, as addresses can be had by the thousand. Thread-safe. */
#ifndef CROSSFEED_REFUSALS_H
#define CROSSFEED_REFUSALS_H

#include <pthread.h>
#include <stdint.h>

#include "log_limit.h"

enum refusal {
    REFUSAL_KEY,       /* a key that is not allowed */
    REFUSAL_HANDSHAKE, /* no ZeroMQ, no keys or keys where there are none, another key of the trainer, or silent there */
    REFUSAL_MESSAGE,   /* broke the rules of messages, or a HELLO that does not fit the run */
    REFUSAL_IDLE,      /* connected and never was accepted as a producer */
    REFUSAL_TOO_MANY,  /* too many such at a time; the oldest goes */
    REFUSAL_MEMORY,    /* sent more than the trainer holds for one connection */
    REFUSAL_KINDS,
};

const char *refusal_name(enum refusal kind); /* "key", "handshake", ... */

#define REFUSALS_REMEMBERED 128

struct refusals {
    pthread_mutex_t lock;
    uint64_t counts[REFUSAL_KINDS];
    struct log_limit limit;
    struct {
        uint64_t hash; /* of the line */
        int64_t until_ms;
    } said[REFUSALS_REMEMBERED];
    unsigned next;
};

void refusals_init(struct refusals *r);
void refusals_release(struct refusals *r);
/* The line says who and why, and is the same for the same stranger. */
void refusals_note(struct refusals *r, enum refusal kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void refusals_counts(struct refusals *r, uint64_t counts[REFUSAL_KINDS]);

#endif
