/* log_limit.h - lines that others can cause at will, held to a rate.
 *
 * `lines.burst` of them are printed, then `lines.per_s` a second; what comes through next says how many did not. One limit belongs to one
 * thread at a time. */
#ifndef CROSSFEED_LOG_LIMIT_H
#define CROSSFEED_LOG_LIMIT_H

#include <stdint.h>

#include "allowance.h"

struct log_limit {
    struct allowance lines;
    uint64_t hidden; /* starts at 0 */
};

/* Prints a line of at most 1 KB, or counts it as hidden. */
void log_limited(struct log_limit *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Says how many lines were hidden, if any were and a line may be printed; to be called now and then. */
void log_hidden(struct log_limit *l);

#endif
