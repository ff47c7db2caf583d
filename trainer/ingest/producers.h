/* producers.h - the table of producers that are here: names, liveness, pace. One thread. */
#ifndef CROSSFEED_PRODUCERS_H
#define CROSSFEED_PRODUCERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"
#include "speed.h"

#define PRODUCERS_MAX 256

struct producer {
    bool here;
    struct link_peer address;
    char name[MESSAGE_NAME_SIZE];
    uint64_t number; /* of the joining, from 1 */
    int64_t joined_ms, last_heard_ms;
    struct speed speed;
    uint64_t rows;            /* received and stored */
    uint64_t blocks;          /* finished; 0: it is unproven */
    unsigned faults;          /* bad chunks so far */
    uint64_t failures;        /* leases that it could not do */
    uint64_t absent;          /* leases refused because the rows are not recorded there */
    uint32_t credit;          /* leases that it may hold now */
    bool reports;             /* a PING has come: */
    float computing, sending; /* as the last one said */
};

struct producers {
    struct producer list[PRODUCERS_MAX]; /* an index is a producer's name in leases.h; free ones have here = false */
    size_t n;                            /* here now */
    size_t next;                         /* where peers_with_credit looks first: turns go round */
    uint64_t last_number;
};

int producers_find(const struct producers *p, const struct link_peer *address); /* -1: not known */
int producers_add(struct producers *p, const struct link_peer *address, const char *name,
                  int64_t now_ms); /* -1: full */
/* Of those that have not answered a block yet, the one here longest; -1: none. */
int producers_unproven(const struct producers *p);
void producers_forgive(struct producers *p, int64_t ms); /* as if everybody had been heard ms later */
void producers_remove(struct producers *p, int index);
void producers_here(const struct producers *p, uint64_t here[PRODUCERS_MAX / 64]); /* bit i: peer i is here */

#endif
