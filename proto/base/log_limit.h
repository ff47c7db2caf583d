/* log_limit.h - lines that others can cause at will, held to a rate.
 *
 * `burst` of them, then so many a second; the next one that comes through says how many did not. One limit belongs to one
 * thread at a time. */
#ifndef CROSSFEED_LOG_LIMIT_H
#define CROSSFEED_LOG_LIMIT_H

#include <stdint.h>

struct log_limit {
    unsigned burst, per_s;
    int64_t since_ms; /* the rest starts zeroed */
    unsigned lines;   /* of the burst, used */
    uint64_t hidden;
};

/* A line of at most 1 KB. */
void log_limited(struct log_limit *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* To be called now and then: says how many lines were hidden, if any were and another may come. */
void log_hidden(struct log_limit *l);

#endif
