/* peers.c - the table of producers; see peers.h. */
#include "peers.h"

#include <stdio.h>
#include <string.h>

int peers_find(const struct peers *p, const struct link_peer *address)
{
    for (int i = 0; i < PEERS_MAX; i++)
        if (p->peers[i].here && p->peers[i].address.size == address->size &&
            memcmp(p->peers[i].address.id, address->id, address->size) == 0)
            return i;
    return -1;
}

int peers_add(struct peers *p, const struct link_peer *address, const char *name, int64_t now_ms)
{
    for (int i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &p->peers[i];
        if (peer->here)
            continue;
        *peer = (struct peer){.here = true,
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

int peers_unproven(const struct peers *p)
{
    int first = -1;
    for (int i = 0; i < PEERS_MAX; i++)
        if (p->peers[i].here && p->peers[i].blocks == 0 && (first < 0 || p->peers[i].number < p->peers[first].number))
            first = i;
    return first;
}

void peers_here(const struct peers *p, uint64_t here[PEERS_MAX / 64])
{
    memset(here, 0, PEERS_MAX / 8);
    for (int i = 0; i < PEERS_MAX; i++)
        here[i / 64] |= (uint64_t)p->peers[i].here << i % 64;
}

void peers_forgive(struct peers *p, int64_t ms)
{
    for (int i = 0; i < PEERS_MAX; i++)
        p->peers[i].last_heard_ms += ms;
}

void peers_remove(struct peers *p, int index)
{
    p->peers[index].here = false;
    p->n--;
}
