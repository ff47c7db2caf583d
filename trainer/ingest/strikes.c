/* strikes.c - see strikes.h. */
#include "strikes.h"

#include <stdio.h>
#include <string.h>

#define MEMORY 1000 /* answers, after which all earlier ones count half */

/* Returns the index of the peer; s->n if it is not known. */
static size_t find(const struct strikes *s, const char *who)
{
    size_t i = 0;
    while (i < s->n && strcmp(s->list[i].who, who) != 0)
        i++;
    return i;
}

/* Forgets the peer that came first, of those that are not out if there are any. */
static void forget_one(struct strikes *s)
{
    size_t oldest = 0;
    while (oldest < s->n && s->list[oldest].until_ms)
        oldest++;
    if (oldest == s->n)
        oldest = 0;
    memmove(s->list + oldest, s->list + oldest + 1, (--s->n - oldest) * sizeof s->list[0]);
}

/* Returns the peer, which is remembered from now on; NULL if nothing is known of it. */
static struct strikes_peer *remember(struct strikes *s, const char *who)
{
    if (!*who)
        return NULL;
    size_t i = find(s, who);
    if (i < s->n)
        return &s->list[i];
    if (s->n == STRIKES_REMEMBERED)
        forget_one(s);
    struct strikes_peer *p = &s->list[s->n++];
    *p = (struct strikes_peer){0};
    snprintf(p->who, sizeof p->who, "%s", who);
    return p;
}

static void count(struct strikes_peer *p, unsigned *answers)
{
    if (p->good + p->bad >= MEMORY) {
        p->good /= 2;
        p->bad /= 2;
    }
    ++*answers;
}

bool strikes_add(struct strikes *s, const char *who, int64_t now_ms)
{
    struct strikes_peer *p = remember(s, who);
    if (!p)
        return false;
    count(p, &p->bad);
    unsigned all = p->good + p->bad;
    bool out = ++p->n >= STRIKES_OUT || (all >= STRIKES_SHARE_OF && p->bad > s->max_bad * all);
    if (out) /* and begins anew after its ban */
        *p = (struct strikes_peer){.until_ms = s->ban_ms ? now_ms + s->ban_ms : STRIKES_FOR_EVER};
    if (out)
        snprintf(p->who, sizeof p->who, "%s", who);
    return out;
}

void strikes_clear(struct strikes *s, const char *who)
{
    struct strikes_peer *p = remember(s, who);
    if (!p)
        return;
    count(p, &p->good);
    p->n = 0;
}

int64_t strikes_out(const struct strikes *s, const char *who, int64_t now_ms)
{
    size_t i = find(s, who);
    int64_t until = i < s->n ? s->list[i].until_ms : 0;
    return until == STRIKES_FOR_EVER ? until : until > now_ms ? until - now_ms : 0;
}
