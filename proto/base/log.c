/* log.c - lines on stderr; see log.h. */
#include "log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "log_queue.h"
#include "text.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *prefix = "crossfeed";
static int is_terminal;

void log_init(const char *program)
{
    prefix = program;
    is_terminal = isatty(STDERR_FILENO);
}

int log_is_terminal(void)
{
    return is_terminal;
}

void log_in_background(void)
{
    log_queue_start(prefix);
}

static void print(int status, const char *format, va_list args)
{
    char message[LOG_LINE_SIZE],
        line[LOG_LINE_SIZE]; /* one write a line, so that two programs on one terminal do not interleave */
    int n = snprintf(line, sizeof line, "%s%s: ", is_terminal ? "\r\033[K" : "", prefix);
    vsnprintf(message, sizeof message, format, args);
    size_t size = (size_t)n + text_escape(line + n, sizeof line - (size_t)n - 1, message);
    if (!status)
        line[size++] = '\n';
    if (log_queue_put(line, size))
        return;
    pthread_mutex_lock(&lock);
    fwrite(line, 1, size, stderr);
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

void log_line(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print(0, format, args);
    va_end(args);
}

void log_progress(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print(is_terminal, format, args);
    va_end(args);
}
