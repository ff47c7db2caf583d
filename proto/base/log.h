/* log.h - lines for people, on stderr; only for what a person running the program wants to see.
 *
 * On a terminal, progress rewrites one status line in place; otherwise each progress call is a plain line. Thread-safe.
 */
#ifndef CROSSFEED_LOG_H
#define CROSSFEED_LOG_H

void log_init(const char *program); /* the prefix of each line; string must outlive the process */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
int log_is_terminal(void);

#endif
