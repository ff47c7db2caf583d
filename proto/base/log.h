/* log.h - lines for people, on stderr; only for what a person running the program wants to see.
 *
 * On a terminal, progress rewrites one status line in place; otherwise each progress call is a plain line. A line may hold what others
 * wrote: it is shown escaped (text.h). Thread-safe. */
#ifndef CROSSFEED_LOG_H
#define CROSSFEED_LOG_H

/* Sets the prefix of each line; the string must outlive the process. */
void log_init(const char *program);
/* From now on lines are written by a thread (log_queue.h), so that nobody waits for standard error. Once, after log_init. */
void log_in_background(void);
/* Prints a line. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints how far the program is, over the line before it if that was progress on a terminal. */
void log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether standard error was a terminal at log_init. */
int log_is_terminal(void);

#endif
