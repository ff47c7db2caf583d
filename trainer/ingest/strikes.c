/* strikes.c - see strikes.h. */
#include "strikes.h"

#include <stdio.h>
#include <string.h>

/* Its index; n if it is not there. */
static size_t find(const struct strikes *s, const char *name)
{
    size_t i = 0;
    while (i < s->n && strcmp(s->names[i].name, name) != 0)
        i++;
    return i;
}

static void forget(struct strikes *s, size_t i)
{
    memmove(s->names + i, s->names + i + 1, (--s->n - i) * sizeof s->names[0]);
}

bool strikes_add(struct strikes *s, const char *name)
{
    size_t i = find(s, name);
    if (i == s->n && s->n == STRIKES_NAMES) {
        size_t oldest = 0;
        while (oldest < s->n && s->names[oldest].n >= STRIKES_OUT)
            oldest++;
        forget(s, oldest < s->n ? oldest : 0);
        i = s->n;
    }
    if (i == s->n) {
        snprintf(s->names[i].name, sizeof s->names[i].name, "%s", name);
        s->names[i].n = 0;
        s->n++;
    }
    return ++s->names[i].n >= STRIKES_OUT;
}

void strikes_clear(struct strikes *s, const char *name)
{
    size_t i = find(s, name);
    if (i < s->n && s->names[i].n < STRIKES_OUT)
        forget(s, i);
}

bool strikes_out(const struct strikes *s, const char *name)
{
    size_t i = find(s, name);
    return i < s->n && s->names[i].n >= STRIKES_OUT;
}
