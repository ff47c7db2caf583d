/* peers.h - the table of producers that are here: names, liveness, pace. One thread. */
#ifndef CROSSFEED_PEERS_H
#define CROSSFEED_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"
#include "pace.h"

#define PEERS_MAX 256

struct peer {
    bool here;
    struct link_peer address;
    char name[MESSAGE_NAME_SIZE];
    uint64_t number; /* of the joining, from 1 */
    int64_t joined_ms, last_heard_ms;
    struct pace pace;
    uint64_t rows;            /* received and stored */
    uint64_t blocks;          /* finished; 0: it is unproven */
    unsigned faults;          /* bad chunks so far */
    uint64_t failures;        /* leases that it could not do */
    uint64_t absent;          /* leases refused because the rows are not recorded there */
    uint32_t credit;          /* leases that it may hold now */
    bool reports;             /* a PING has come: */
    float computing, sending; /* as the last one said */
};

struct peers {
    struct peer peers[PEERS_MAX]; /* an index is a producer's name in leases.h; free ones have here = false */
    size_t n;                     /* here now */
    size_t next;                  /* where peers_with_credit looks first: turns go round */
    uint64_t last_number;
};

int peers_find(const struct peers *p, const struct link_peer *address);                            /* -1: not known */
int peers_add(struct peers *p, const struct link_peer *address, const char *name, int64_t now_ms); /* -1: full */
/* Of those that have not answered a block yet, the one here longest; -1: none. */
int peers_unproven(const struct peers *p);
void peers_forgive(struct peers *p, int64_t ms); /* as if everybody had been heard ms later */
void peers_remove(struct peers *p, int index);
void peers_here(const struct peers *p, uint64_t here[PEERS_MAX / 64]); /* bit i: peer i is here */

#endif
