/* leases.h - the table of the blocks that are wanted, and who is computing them.
 *
 * A block that is wanted is a task. It is answered under a lease, which is given to one holder (a producer's index) under an id that is
 * never used again. When a lease is given back, because its holder is silent, gone or failing, its id means nothing any more and the
 * block waits again. A task has room for two answers at a time, whose rows are kept apart. Of a straggler's block, which another holder
 * was asked for too, the first complete answer is taken; the other one is owed until it comes, and dropped then. Of an audited block
 * both are wanted, by two holders if there are two. This is bookkeeping without sockets, for one thread. */
#ifndef CROSSFEED_LEASES_H
#define CROSSFEED_LEASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shuffle.h"

#define LEASES_MAX 1024    /* tasks at a time */
#define LEASES_HOLDERS 256 /* a holder is a number below */
#define LEASES_ANSWERS 2

enum lease_purpose { FOR_SCALE, FOR_EVALUATION, FOR_WINDOW };

struct lease_answer {
    uint64_t lease; /* 0: nobody computes it */
    int holder;     /* while leased or complete; -1: it is gone */
    bool complete;  /* all rows are there */
    uint32_t chunks_taken;
    size_t rows_taken;
};

struct lease_task {
    uint32_t block;
    enum lease_purpose purpose;
    bool audit;                   /* two answers are wanted */
    size_t n_rows;                /* of the block */
    size_t first_row;             /* FOR_SCALE, FOR_EVALUATION: where its rows start in their store */
    struct shuffle_ticket ticket; /* FOR_WINDOW: where the rows of the first answer go, */
    uint32_t copy;                /* and those of the second; SHUFFLE_NO_COPY: no room is reserved for them yet */
    uint64_t order;               /* waiting tasks are leased in this order */
    struct lease_answer answers[LEASES_ANSWERS];
    unsigned failures;                     /* how often a holder could not do it */
    unsigned taken_away;                   /* how often a holder was too late */
    uint64_t refused[LEASES_HOLDERS / 64]; /* bit i: holder i does not have this block and is not asked again */
};

struct lease_owed {
    uint64_t lease;
    int holder;
};

struct leases {
    struct lease_task tasks[LEASES_MAX]; /* [n], in no order */
    size_t n;
    struct lease_owed owed[LEASES_MAX]; /* [n_owed] answers that will still come and are not wanted any more */
    size_t n_owed;
    uint64_t last_lease, last_order;
    uint64_t leased_again; /* how often a lease was given back */
};

/* Returns a new waiting task, zeroed except for its order and copy; NULL if the table is full. Pointers to tasks are valid until
 * leases_done. */
struct lease_task *leases_add(struct leases *l);

/* Returns the waiting task that was added first, of those that the holder has not refused, and the answer that it should give; NULL if there
 * is none. here: bit i says that holder i is here; a holder answers an audited block twice only if nobody else here can. room: whether
 * there is room for a copy; without it, tasks that need one are passed over. */
struct lease_task *leases_waiting(struct leases *l, int holder, const uint64_t here[LEASES_HOLDERS / 64], bool room,
                                  int *answer);

/* Gives the answer of the task to the holder, under a new id. */
void leases_grant(struct leases *l, struct lease_task *t, int answer, int holder);

/* Returns the task that the holder has under this lease, and which answer that is; NULL if it has none (an old or invented id). */
struct lease_task *leases_find(struct leases *l, uint64_t lease, int holder, int *answer);

/* Ends the lease: what was taken of the answer is forgotten, and it is waited for again. */
void leases_give_back(struct leases *l, struct lease_task *t, int answer);

/* Ends the lease of a holder that is still computing, so that its answer is owed. */
void leases_take_away(struct leases *l, struct lease_task *t, int answer);

/* Ends the lease of a holder that does not have the block and is not asked for it again. */
void leases_refuse(struct leases *l, struct lease_task *t, int answer);

/* Returns whether the holder has refused the task. */
bool leases_refused(const struct lease_task *t, int holder);

/* Returns the waiting task added first that all of `here` have refused, and how many of these there are; NULL if there is none. */
const struct lease_task *leases_nobodys(const struct leases *l, const uint64_t here[LEASES_HOLDERS / 64], size_t *n);

/* Gives back all leases of a holder that is gone and whose number may be given to somebody else. Returns how many leases those were. */
size_t leases_forget(struct leases *l, int holder);

/* Returns how many leases the holder has yet to answer, owed ones included. */
size_t leases_held(const struct leases *l, int holder);

/* Returns how far the holder is from having answered this lease: its rows, and those of the holder's earlier leases. */
size_t leases_rows_until(const struct leases *l, int holder, uint64_t lease);

/* Marks an answer whose rows are all there as complete; nothing more comes under its lease. */
void leases_complete(struct lease_task *t, int answer);

/* Removes the task. An answer that is under way is owed. */
void leases_done(struct leases *l, struct lease_task *t);

/* Forgets an owed answer that has come to its end. Returns false if the holder owes none under this lease. */
bool leases_settle(struct leases *l, uint64_t lease, int holder);

#endif
