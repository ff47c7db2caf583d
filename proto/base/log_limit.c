/* log_limit.c - see log_limit.h. */
#include "log_limit.h"

#include <stdarg.h>
#include <stdio.h>

#include "clock.h"
#include "log.h"

void log_hidden(struct log_limit *l)
{
    if (!allowance_pass(&l->lines, clock_ms()) || !l->hidden)
        return;
    log_line("... and %llu more such lines", (unsigned long long)l->hidden);
    l->hidden = 0;
    l->lines.used++;
}

void log_limited(struct log_limit *l, const char *format, ...)
{
    log_hidden(l);
    if (!allowance_take(&l->lines, clock_ms())) {
        l->hidden++;
        return;
    }
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log_line("%s", line);
}
