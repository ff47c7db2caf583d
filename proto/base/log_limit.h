/* log_limit.h - lines that others can cause at will, held to a rate.
 *
 * `burst` of them are printed, then `per_s` a second; the next one that comes through says how many did not. One limit
 * belongs to one thread at a time. */
#ifndef CROSSFEED_LOG_LIMIT_H
#define CROSSFEED_LOG_LIMIT_H

#include <stdint.h>

struct log_limit {
    unsigned burst, per_s;
    int64_t since_ms; /* the rest starts zeroed */
    unsigned lines;   /* of the burst, used */
    uint64_t hidden;
};

/* Prints a line of at most 1 KB, or counts it as hidden. */
void log_limited(struct log_limit *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Says how many lines were hidden, if any were and a line may be printed; to be called now and then. */
void log_hidden(struct log_limit *l);

#endif
