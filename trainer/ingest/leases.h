/* leases.h - the table of blocks that are wanted and who is computing them.
 *
 * Pure bookkeeping, no sockets, one thread. A block wanted is a task. It is answered under a lease: given to one holder
 * (a producer's index) under an id that is never reused. A lease given back (its holder silent, gone or failing) means
 * nothing any more, and the block waits again. A task has room for two answers at a time, whose rows are kept apart:
 * of a straggler's block that another holder was asked for too, the first complete answer is taken and the other one is
 * owed until it comes, to be dropped; of an audited block both are wanted, by two holders if there are two. */
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
    uint64_t lease; /* 0: nobody is at it */
    int holder;     /* while leased or complete; -1: gone */
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
    struct shuffle_ticket ticket; /* FOR_WINDOW: where the first answer's rows go, */
    uint32_t copy;                /* and the second one's; SHUFFLE_NO_COPY: no room for one yet */
    uint64_t order;               /* waiting tasks are leased in this order */
    struct lease_answer answers[LEASES_ANSWERS];
    unsigned failures;                     /* times a holder could not do it */
    unsigned taken_away;                   /* times a holder was too late */
    uint64_t refused[LEASES_HOLDERS / 64]; /* bit i: holder i does not have this block and is not asked again */
};

struct lease_owed {
    uint64_t lease;
    int holder;
};

struct leases {
    struct lease_task tasks[LEASES_MAX]; /* [n], in no order */
    size_t n;
    struct lease_owed owed[LEASES_MAX]; /* [n_owed] answers that still come and are not wanted any more */
    size_t n_owed;
    uint64_t last_lease, last_order;
    uint64_t leased_again; /* times a lease was given back */
};

/* A new waiting task, zeroed but for its order and copy; NULL if the table is full. Pointers to tasks are valid until
 * leases_done. */
struct lease_task *leases_add(struct leases *l);

/* The waiting task added first of those that holder has not refused, and the answer it should give; NULL if there is
 * none. here: bit i: holder i is here; a holder answers an audited block twice only if nobody else here can. room: there
 * is room for a copy; without, tasks that need one are passed over. */
struct lease_task *leases_waiting(struct leases *l, int holder, const uint64_t here[LEASES_HOLDERS / 64], bool room,
                                  int *answer);

void leases_grant(struct leases *l, struct lease_task *t, int answer, int holder);

/* The task that `holder` has under this lease, and which of its answers; NULL if it has none (an old or invented id). */
struct lease_task *leases_find(struct leases *l, uint64_t lease, int holder, int *answer);

/* The answer is waited for again, all that was taken of it forgotten. */
void leases_give_back(struct leases *l, struct lease_task *t, int answer);

/* The same, from a holder that is still at it: its answer is owed. */
void leases_take_away(struct leases *l, struct lease_task *t, int answer);

/* The holder does not have the block: given back, and the holder is not asked for it again. */
void leases_refuse(struct leases *l, struct lease_task *t, int answer);
bool leases_refused(const struct lease_task *t, int holder);
/* The waiting task added first that all of `here` have refused, and how many such there are; NULL if none. */
const struct lease_task *leases_nobodys(const struct leases *l, const uint64_t here[LEASES_HOLDERS / 64], size_t *n);
/* The holder is gone: its leases are given back, and its number may be given to somebody else. Returns how many leases
 * that were. */
size_t leases_forget(struct leases *l, int holder);

/* Leases whose answers the holder has yet to send, owed ones too. */
size_t leases_held(const struct leases *l, int holder);

/* All of the holder's rows before those of this lease, and its own: how far it is from having answered. */
size_t leases_rows_until(const struct leases *l, int holder, uint64_t lease);

/* All rows of the answer are there; nothing more comes under its lease. */
void leases_complete(struct lease_task *t, int answer);

/* The task is gone. An answer under way is owed. */
void leases_done(struct leases *l, struct lease_task *t);

/* An answer that is owed has come to its end. false: there is none. */
bool leases_settle(struct leases *l, uint64_t lease, int holder);

#endif
