/* log_limit.c - see log_limit.h. */
#include "log_limit.h"

#include <stdarg.h>
#include <stdio.h>

#include "clock.h"
#include "log.h"

void log_hidden(struct log_limit *l)
{
    int64_t now = clock_ms(), seconds = (now - l->since_ms) / 1000;
    if (seconds <= 0)
        return;
    uint64_t more = (uint64_t)seconds * l->per_s;
    l->lines -= more < l->lines ? (unsigned)more : l->lines;
    l->since_ms = l->lines ? l->since_ms + seconds * 1000 : now;
    if (!l->hidden)
        return;
    log_line("... and %llu more such lines", (unsigned long long)l->hidden);
    l->hidden = 0;
    l->lines++;
}

void log_limited(struct log_limit *l, const char *format, ...)
{
    log_hidden(l);
    if (l->lines >= l->burst) {
        l->hidden++;
        return;
    }
    l->lines++;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log_line("%s", line);
}
