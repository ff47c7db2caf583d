/* compute.h - from leases to blocks: the queue of leases, the computing thread's work, and the blocks that wait to be sent.
 *
 * Two threads meet here. The computing thread is in compute_run; the communicating thread (session.h) calls all else. Between
 * them stand the queue and two blocks, one computed while the other is sent: these bound the memory. What belongs to an
 * older session is dropped, because the trainer has leased it again. */
#ifndef CROSSFEED_COMPUTE_H
#define CROSSFEED_COMPUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "message.h"
#include "source.h"

#define COMPUTE_MAX_LEASES 64 /* that can be queued; the trainer's credit is smaller */

struct compute;

/* Called on the computing thread with each block once it is computed. block_seqs: the run's. */
typedef int compute_keep(void *context, const struct message_lease *lease, uint32_t block_seqs, struct rows *rows,
                         struct err *e);

/* What the computing thread does: it computes, or idles while what it computed is on its way out, or idles without a lease. */
enum compute_activity { COMPUTE_WAITING, COMPUTE_COMPUTING, COMPUTE_SENDING, COMPUTE_ACTIVITIES };

/* The rows of one lease, or why there are none. */
struct block {
    struct message_lease lease;
    bool failed; /* the source could not do it; error says why */
    struct err error;
    struct rows rows;
    size_t n_chunks;
    /* compute.c's own */
    struct compute *owner;
    int state;
    unsigned session;
    size_t holders;
};

/* The source and keep_context must outlive *c. keep NULL: blocks are only sent. */
int compute_new(struct compute **c, struct source *source, compute_keep *keep, void *keep_context, struct err *e);
/* compute_run has returned, and no block is held. NULL is fine. */
void compute_free(struct compute *c);

/* Computes until compute_finish. */
void compute_run(struct compute *c);
/* Lets compute_run return once the block at hand is done. */
void compute_finish(struct compute *c);

/* An eventfd that is readable when a block may be ready; valid until compute_free. */
int compute_wake_fd(const struct compute *c);

/* Begins a session: drops the leases and blocks of the one before. */
void compute_begin_session(struct compute *c);
/* Sets how leases queued from now on are computed: rows, scale and block of a WELCOME. The first one allocates the blocks;
 * a later run with larger blocks is refused with ERR_MISMATCH. */
int compute_set_terms(struct compute *c, const struct message_welcome *terms, struct err *e);
/* Queues a lease, whose sequences the source has. Returns false if the queue is full. */
bool compute_queue(struct compute *c, const struct message_lease *lease);

/* Returns a block of this session that is ready, held once, or NULL if there is none yet. */
struct block *compute_next(struct compute *c);
/* Adds a holder. */
void block_hold(struct block *b);
/* Takes one away, on any thread; after the last one the block is used again. context: the struct block. */
void block_release(void *context);
/* Makes m the BATCH of the block's chunk i < n_chunks, and returns its payload of *bytes. */
const void *block_chunk(const struct block *b, size_t i, struct message *m, size_t *bytes);

/* Returns the code of what keep failed with, and fills e, or 0. */
int compute_failure(struct compute *c, struct err *e);
/* Fills in how long each activity has taken up to now. */
void compute_seconds(struct compute *c, double seconds[COMPUTE_ACTIVITIES]);

#endif
