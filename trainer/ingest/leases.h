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
    uint64_t whose; /* what the holder is known by, also when it is gone (producers.h) */
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
    unsigned taken_away; /* how often a holder was too late */
    uint64_t refused[LEASES_HOLDERS /
                     64]; /* bit i: holder i does not have this block, or failed it, and is not asked again */
    uint64_t failed[LEASES_HOLDERS / 64]; /* of these, who failed it; they are asked again after a pause */
    bool final;                           /* one of these failures will not pass with time */
    unsigned retries;                     /* how often that has been so */
    int64_t retry_ms;                     /* when the pause ends; 0: there is none */
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

/* Who is here: bit i says that holder i is; whose[i] is what it is known by, and two that are known by the same may be one (a peer with two
 * connections). */
struct lease_holders {
    uint64_t here[LEASES_HOLDERS / 64];
    uint64_t whose[LEASES_HOLDERS];
};

/* Returns the waiting task that was added first, of those that the holder has not refused, and the answer that it should give; NULL if there
 * is none. The second answer of an audited block is another one's if one is here who can give it: of those who are known by something else
 * than the first, else of the other holders. room: whether there is room for a copy; without it, tasks that need one are passed over. */
struct lease_task *leases_waiting(struct leases *l, int holder, const struct lease_holders *all, bool room,
                                  int *answer);

/* Gives the answer of the task to the holder, who is known by `whose`, under a new id. */
void leases_grant(struct leases *l, struct lease_task *t, int answer, int holder, uint64_t whose);

/* Returns the task that the holder has under this lease, and which answer that is; NULL if it has none (an old or invented id). */
struct lease_task *leases_find(struct leases *l, uint64_t lease, int holder, int *answer);

/* Ends the lease: what was taken of the answer is forgotten, and it is waited for again. */
void leases_give_back(struct leases *l, struct lease_task *t, int answer);

/* Ends the lease of a holder that is still computing, so that its answer is owed. */
void leases_take_away(struct leases *l, struct lease_task *t, int answer);

/* Ends the lease of a holder that does not have the block and is not asked for it again; or that failed it, and is not before leases_retry. */
void leases_refuse(struct leases *l, struct lease_task *t, int answer, bool failed);

/* Ends the pause of a task: those who failed it may be asked again. */
void leases_retry(struct lease_task *t);

/* Returns whether the holder has refused the task. */
bool leases_refused(const struct lease_task *t, int holder);

/* Returns whether the task waits and all of `here` have refused it. */
bool leases_nobodys(const struct lease_task *t, const uint64_t here[LEASES_HOLDERS / 64]);

/* Returns whether one of `here` has failed the task. */
bool leases_failed(const struct lease_task *t, const uint64_t here[LEASES_HOLDERS / 64]);

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

/* Returns whether the holder owes an answer under this lease. */
bool leases_owes(const struct leases *l, uint64_t lease, int holder);

/* Forgets an owed answer that has come to its end. Returns false if the holder owes none under this lease. */
bool leases_settle(struct leases *l, uint64_t lease, int holder);

#endif
