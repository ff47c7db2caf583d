/* producers.h - the table of producers that are here: who each one is, when it was last heard, what it has done. One thread. */
#ifndef CROSSFEED_PRODUCERS_H
#define CROSSFEED_PRODUCERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allowance.h"
#include "ingest_snapshot.h"
#include "leases.h"
#include "link.h"
#include "speed.h"

struct producer {
    bool here;
    struct link_peer address;
    char name[MESSAGE_NAME_SIZE];      /* its own choice: for people, and for nothing else */
    char known_as[LINK_IDENTITY_SIZE]; /* its key or address; "": not known */
    uint64_t number;                   /* counts the joinings, from 1 */
    int64_t joined_ms, last_heard_ms;
    struct speed speed;
    uint64_t rows;             /* received and stored */
    uint64_t blocks;           /* finished; while it is 0, the producer is unproven */
    unsigned faults;           /* bad chunks, */
    unsigned strikes;          /* and of them those since its last good block */
    struct allowance uncalled; /* messages that answer no lease */
    uint64_t failures;         /* leases that it could not do */
    uint64_t absent;           /* leases refused because it has no recording of the rows */
    uint32_t credit;           /* leases that it may hold, before its speed is looked at (credit.h) */
    bool reports;              /* a PING has come, which said: */
    float computing, sending;  /* shares of its time */
};

struct producers {
    struct producer list[PRODUCERS_MAX]; /* an index is a holder in leases.h; free places have here = false */
    struct lease_holders holders;        /* the same as leases.h wants it */
    size_t n;                            /* that are here */
    size_t next;                         /* where ingest_lease_blocks goes on, so that turns go round */
    uint64_t last_number;
};

/* Returns the index of the producer on that connection; -1 if there is none. */
int producers_find(const struct producers *p, const struct link_peer *address);

/* Returns the index of a new producer; -1 if all places are taken. */
int producers_add(struct producers *p, const struct link_peer *address, const char *name, const char *known_as,
                  int64_t now_ms);

/* Returns the unproven producer that is here longest; -1 if there is none. */
int producers_unproven(const struct producers *p);

/* Behaves as if everybody had been heard ms later. */
void producers_forgive(struct producers *p, int64_t ms);

/* Frees the place. What it held can be read until somebody else gets it. */
void producers_remove(struct producers *p, int index);

#endif
