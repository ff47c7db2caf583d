/* log_queue.h - lines on their way to standard error, written by a thread of their own, so that whoever says something waits for nobody.
 *
 * Standard error may be a pipe that nobody reads, a terminal that was halted, a disk that hangs. Up to 256 KB of lines then wait; those that
 * do not fit are dropped, and how many is said when there is room again. While it takes lines, a line is out before what follows it happens:
 * who says it waits for that, but no longer than a moment, and not at all while an earlier line is late. Thread-safe. */
#ifndef CROSSFEED_LOG_QUEUE_H
#define CROSSFEED_LOG_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#define LOG_LINE_SIZE 1024

/* Starts the thread; prefix ("xctrain") begins the line about those that were dropped. When the process exits, what waits still gets a
 * second to leave, and another one each time that a line has left. If there is no thread to be had, lines are written by whoever says them. */
void log_queue_start(const char *prefix);

/* Takes a line of at most LOG_LINE_SIZE bytes, or drops it. Returns false if the thread was not started. */
bool log_queue_put(const char *line, size_t size);

#endif
