/* refusals.h - counts those who were turned away, by kind, and says so in the log.
 *
 * A refusal is logged the first time; the same line is then not logged again for a minute. In the long run there is at most one line a
 * second, whoever they are about, because addresses can be had by the thousand. Any thread may call these functions. */
#ifndef CROSSFEED_REFUSALS_H
#define CROSSFEED_REFUSALS_H

#include <pthread.h>
#include <stdint.h>

#include "log_limit.h"

enum refusal {
    REFUSAL_KEY, /* a key that is not allowed */
    REFUSAL_HANDSHAKE, /* did not speak ZeroMQ, had no keys or had keys for a trainer without, had a wrong key of the trainer, or was silent */
    REFUSAL_MESSAGE,  /* broke the rules of messages, sent too many, or said a HELLO that does not fit the run */
    REFUSAL_IDLE,     /* connected and never was accepted as a producer */
    REFUSAL_TOO_MANY, /* was one too many of those that are no producers; the oldest of them goes */
    REFUSAL_MEMORY,   /* sent more than the trainer holds for one connection */
    REFUSAL_KINDS,
};

/* Returns "key", "handshake" and so on. */
const char *refusal_name(enum refusal kind);

#define REFUSALS_REMEMBERED 128

struct refusals {
    pthread_mutex_t lock;
    uint64_t counts[REFUSAL_KINDS];
    struct log_limit limit;
    struct {
        uint64_t hash; /* of a line that was logged */
        int64_t until_ms;
    } said[REFUSALS_REMEMBERED];
    unsigned next;
};

void refusals_init(struct refusals *r);
void refusals_release(struct refusals *r);
/* Counts a refusal of that kind and logs the line, which should be the same for the same stranger. */
void refusals_note(struct refusals *r, enum refusal kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills in the counts. */
void refusals_counts(struct refusals *r, uint64_t counts[REFUSAL_KINDS]);

#endif
