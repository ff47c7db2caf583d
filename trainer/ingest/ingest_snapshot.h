/* ingest_snapshot.h - what can be seen of the ingest from outside, as plain data: counters, producers, window. */
#ifndef CROSSFEED_INGEST_SNAPSHOT_H
#define CROSSFEED_INGEST_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"
#include "refusals.h"

#define PRODUCERS_MAX 256 /* at a time */

struct ingest_counters {
    uint32_t producers;      /* here now */
    uint64_t producers_seen; /* ever welcomed */
    uint64_t producers_lost; /* fell silent or broke the protocol */
    uint64_t rejected;       /* HELLOs refused */
    uint64_t blocks_leased, blocks_done, blocks_leased_again;
    uint64_t rows_received;            /* stored in their places */
    uint64_t duplicates_dropped;       /* rows of a lease that somebody else had answered or been given */
    uint64_t blocks_duplicated;        /* leased to a second producer because the first was late */
    uint64_t audits, audits_different; /* blocks compared, and those of them that were not the same to the bit */
    uint64_t bad_chunks;               /* refused: checksum, order, size, values */
    uint64_t refused[REFUSAL_KINDS];   /* strangers and their connections */
};

struct ingest_producer {
    uint64_t number; /* counts the joinings from 1, and so tells apart producers of one name */
    char name[MESSAGE_NAME_SIZE];
    char address[64], key[64];  /* "" if it is not known, or there is none */
    double here_s;              /* since it joined */
    uint64_t rows, blocks_done; /* received and stored; finished */
    uint64_t errors;            /* bad chunks, and leases that it could not do */
    uint32_t leases;            /* that it holds */
    bool reports;               /* it has said how it spends its time: */
    float computing, sending;   /* shares of its time */
};

struct ingest_snapshot { /* zeroed: nothing has happened yet */
    struct ingest_counters counters;
    size_t window_rows,
        window_slots;     /* slots of the window that are filled or reserved; all of them. 0 before the start */
    uint64_t rows_masked; /* padding dropped from the window */
    size_t n_producers;
    struct ingest_producer producers[PRODUCERS_MAX]; /* [n_producers], those that are here */
};

#endif
