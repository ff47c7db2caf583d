/* producers.c - see producers.h. The table is searched, because it is short. */
#include "producers.h"

#include <stdio.h>
#include <string.h>

int producers_find(const struct producers *p, const struct link_peer *address)
{
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (p->list[i].here && p->list[i].address.size == address->size &&
            memcmp(p->list[i].address.id, address->id, address->size) == 0)
            return i;
    return -1;
}

int producers_add(struct producers *p, const struct link_peer *address, const char *name, int64_t now_ms)
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

void producers_here(const struct producers *p, uint64_t here[PRODUCERS_MAX / 64])
{
    memset(here, 0, PRODUCERS_MAX / 8);
    for (int i = 0; i < PRODUCERS_MAX; i++)
        here[i / 64] |= (uint64_t)p->list[i].here << i % 64;
}

void producers_forgive(struct producers *p, int64_t ms)
{
    for (int i = 0; i < PRODUCERS_MAX; i++)
        p->list[i].last_heard_ms += ms;
}

void producers_remove(struct producers *p, int index)
{
    p->list[index].here = false;
    p->n--;
}
