/* site_parts.c - see site_parts.h. */
#include "site_parts.h"

#include <stdbool.h>
#include <stddef.h>

#define MAX_DIGITS 9

/* Reads the number at *at and moves *at behind it. Returns false if there is none. */
static bool read_number(const char **at, uint32_t *number)
{
    const char *c = *at;
    *number = 0;
    for (; *c >= '0' && *c <= '9' && c - *at < MAX_DIGITS; c++)
        *number = *number * 10 + (uint32_t)(*c - '0');
    bool is_number = c > *at && (**at != '0' || c == *at + 1);
    *at = c;
    return is_number;
}

struct site_parts site_parts(const char *name)
{
    struct site_parts p = {.hook_point = name};
    const char *at = name;
    uint32_t model, less = 0;
    bool difference = false;
    if (!read_number(&at, &model))
        return p;
    if (*at == '-') {
        at++;
        difference = true;
        if (!read_number(&at, &less))
            return p;
    }
    if (*at != ':')
        return p;
    return (struct site_parts){difference ? 2 : 1, model, less, at + 1};
}
