/* producers.c - see producers.h. The table is searched, because it is short. */
#include "producers.h"

#include <stdio.h>
#include <string.h>

#include <xxhash.h>

int producers_find(const struct producers *p, const struct link_peer *address)
{
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (p->list[i].here && p->list[i].address.size == address->size &&
            memcmp(p->list[i].address.id, address->id, address->size) == 0)
            return i;
    return -1;
}

int producers_add(struct producers *p, const struct link_peer *address, const char *name, const char *known_as,
                  int64_t now_ms)
{
    for (int i = 0; i < PRODUCERS_MAX; i++) {
        struct producer *peer = &p->list[i];
        if (peer->here)
            continue;
        *peer = (struct producer){.here = true,
                                  .address = *address,
                                  .number = ++p->last_number,
                                  .joined_ms = now_ms,
                                  .last_heard_ms = now_ms};
        snprintf(peer->name, sizeof peer->name, "%s", name);
        snprintf(peer->known_as, sizeof peer->known_as, "%s", known_as);
        p->holders.here[i / 64] |= (uint64_t)1 << i % 64;
        /* of whom nothing is known is himself and nobody else */
        p->holders.whose[i] = *known_as ? XXH3_64bits(known_as, strlen(known_as)) : peer->number;
        p->n++;
        return i;
    }
    return -1;
}

int producers_unproven(const struct producers *p)
{
    int first = -1;
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (p->list[i].here && p->list[i].blocks == 0 && (first < 0 || p->list[i].number < p->list[first].number))
            first = i;
    return first;
}

void producers_forgive(struct producers *p, int64_t ms)
{
    for (int i = 0; i < PRODUCERS_MAX; i++)
        p->list[i].last_heard_ms += ms;
}

void producers_remove(struct producers *p, int index)
{
    p->list[index].here = false;
    p->holders.here[index / 64] &= ~((uint64_t)1 << index % 64);
    p->n--;
}
