/* log.c - lines on stderr; see log.h. */
#include "log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

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

static void print(int status, const char *format, va_list args)
{
    char text[1024]; /* one write a line, so that two programs on one terminal do not interleave */
    int n = snprintf(text, sizeof text, "%s%s: ", is_terminal ? "\r\033[K" : "", prefix);
    int m = vsnprintf(text + n, sizeof text - (size_t)n - 2, format, args);
    size_t size = (size_t)n + (m < 0 ? 0 : (size_t)m);
    if (size > sizeof text - 2)
        size = sizeof text - 2;
    if (!status)
        text[size++] = '\n';
    pthread_mutex_lock(&lock);
    fwrite(text, 1, size, stderr);
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
