/* leases.h - the table of blocks that are wanted and who is computing them.
 *
 * Pure bookkeeping, no sockets, one thread. A block wanted is a task: waiting, or leased to one holder (a producer's
 * index) under a lease id that is never reused. A task given back (its holder silent, gone or failing) waits again and
 * the old id means nothing any more, so of two answers to one block at most one is taken. */
#ifndef CROSSFEED_LEASES_H
#define CROSSFEED_LEASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shuffle.h"

#define LEASES_MAX 1024    /* tasks at a time */
#define LEASES_HOLDERS 256 /* a holder is a number below */

enum lease_purpose { FOR_SCALE, FOR_EVALUATION, FOR_WINDOW };

struct lease_task {
    uint32_t block;
    enum lease_purpose purpose;
    size_t n_rows;                /* of the block */
    size_t first_row;             /* FOR_SCALE, FOR_EVALUATION: where its rows start in their store */
    struct shuffle_ticket ticket; /* FOR_WINDOW */
    uint64_t lease;               /* 0: waiting */
    uint64_t order;               /* waiting tasks are leased in this order */
    int holder;                   /* while leased */
    uint32_t chunks_taken;
    size_t rows_taken;
    unsigned failures;                     /* times a holder could not do it */
    uint64_t refused[LEASES_HOLDERS / 64]; /* bit i: holder i does not have this block and is not asked again */
};

struct leases {
    struct lease_task tasks[LEASES_MAX]; /* [n], in no order */
    size_t n;
    uint64_t last_lease, last_order;
    uint64_t leased_again; /* times a task was given back */
};

/* A new waiting task, zeroed but for its order; NULL if the table is full. Pointers to tasks are valid until
 * leases_done. */
struct lease_task *leases_add(struct leases *l);

/* The waiting task added first of those that holder has not refused; NULL if there is none. */
struct lease_task *leases_waiting(struct leases *l, int holder);

void leases_grant(struct leases *l, struct lease_task *t, int holder);

/* The task that `holder` has under this lease; NULL if it has none (an old or invented id). */
struct lease_task *leases_find(struct leases *l, uint64_t lease, int holder);

/* The task waits again, all that was taken of it forgotten. */
void leases_give_back(struct leases *l, struct lease_task *t);

/* The holder does not have the block: given back, and the holder is not asked for it again. */
void leases_refuse(struct leases *l, struct lease_task *t);
bool leases_refused(const struct lease_task *t, int holder);
/* The waiting task added first that all of `here` (bit i: holder i) have refused, and how many such there are; NULL if
 * none. */
const struct lease_task *leases_nobodys(const struct leases *l, const uint64_t here[LEASES_HOLDERS / 64], size_t *n);
/* The holder is gone: its tasks wait again, and its number may be given to somebody else. Returns how many tasks. */
size_t leases_forget(struct leases *l, int holder);

size_t leases_held(const struct leases *l, int holder);

/* The block is complete; the task is gone. */
void leases_done(struct leases *l, struct lease_task *t);

#endif
