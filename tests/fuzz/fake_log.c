/* fake_log.c - the log of a fuzz target: lines are formatted, so that bad arguments show, and go nowhere. */
#include <stdarg.h>
#include <stdio.h>

#include "log.h"

void log_init(const char *program)
{
    (void)program;
}

int log_is_terminal(void)
{
    return 0;
}

void log_line(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
}

void log_progress(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
}
