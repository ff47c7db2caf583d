/* err.c - formats the one error value; see err.h. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void err_fill(struct err *e, int code, const char *format, ...)
{
    if (!e)
        return;
    va_list args;
    va_start(args, format);
    e->code = code;
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
}

void err_fill_errno(struct err *e, int saved_errno, const char *format, ...)
{
    if (!e)
        return;
    va_list args;
    va_start(args, format);
    e->code = ERR_SYSTEM;
    int n = vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof e->message)
        snprintf(e->message + n, sizeof e->message - (size_t)n, ": %s", strerror(saved_errno));
}

int err_prefix(struct err *e, const char *format, ...)
{
    if (!e)
        return ERR_INPUT;
    char old[sizeof e->message];
    memcpy(old, e->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof e->message)
        snprintf(e->message + n, sizeof e->message - (size_t)n, ": %.*s",
                 (int)(sizeof e->message - (size_t)n) - 3 > 0 ? (int)(sizeof e->message - (size_t)n) - 3 : 0, old);
    return e->code;
}
