/* strikes.c - see strikes.h. */
#include "strikes.h"

#include <stdio.h>
#include <string.h>

#include "curve_keys.h"

_Static_assert(CURVE_KEY_SIZE <= MESSAGE_NAME_SIZE, "a key fits where a name does");

/* Returns the index of the entry; s->n if there is none. */
static size_t find(const struct strikes *s, const char *who)
{
    size_t i = 0;
    while (i < s->n && strcmp(s->list[i].who, who) != 0)
        i++;
    return i;
}

static void forget(struct strikes *s, size_t i)
{
    memmove(s->list + i, s->list + i + 1, (--s->n - i) * sizeof s->list[0]);
}

const char *strikes_identity(const char *name, const char *key)
{
    return *key ? key : name;
}

bool strikes_add(struct strikes *s, const char *who)
{
    size_t i = find(s, who);
    if (i == s->n && s->n == STRIKES_REMEMBERED) {
        size_t oldest = 0;
        while (oldest < s->n && s->list[oldest].n >= STRIKES_OUT)
            oldest++;
        forget(s, oldest < s->n ? oldest : 0);
        i = s->n;
    }
    if (i == s->n) {
        snprintf(s->list[i].who, sizeof s->list[i].who, "%s", who);
        s->list[i].n = 0;
        s->n++;
    }
    return ++s->list[i].n >= STRIKES_OUT;
}

void strikes_clear(struct strikes *s, const char *who)
{
    size_t i = find(s, who);
    if (i < s->n && s->list[i].n < STRIKES_OUT)
        forget(s, i);
}

bool strikes_out(const struct strikes *s, const char *who)
{
    size_t i = find(s, who);
    return i < s->n && s->list[i].n >= STRIKES_OUT;
}
