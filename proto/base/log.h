/* log.h - lines for people, on stderr; only for what a person running the program wants to see.
 *
 * On a terminal, progress rewrites one status line in place; otherwise each progress call is a plain line. Thread-safe.
 */
#ifndef CROSSFEED_LOG_H
#define CROSSFEED_LOG_H

#include <stdint.h>

void log_init(const char *program); /* the prefix of each line; string must outlive the process */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
int log_is_terminal(void);

/* Lines that others can cause at will: `burst` of them, then one a second; the next one that comes through says how many did not. One limit
 * belongs to one thread at a time. */
struct log_limit {
    unsigned burst;
    int64_t since_ms; /* the rest starts zeroed */
    unsigned lines;   /* of the burst, used */
    uint64_t hidden;
};
void log_limited(struct log_limit *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* To be called now and then: says how many lines were hidden, if any were and another may come. */
void log_hidden(struct log_limit *l);

#endif
