/* shuffle.h - the window of rows between the ingest thread and the training step.
 *
 * There is one pool of row slots. Window g is served in its permutation (plan.h); each row served frees its slot, and the slots
 * are refilled by the blocks of window g+1 while g is still being served, so the memory is one window plus
 * lookahead_rows (what is under way while the last rows of a window are served), and room for second answers. A block's slots are reserved before
 * the block is leased, so a row that arrives always has its place and memory cannot grow. Masked rows (stream.h) are
 * dropped once their window is complete, and its permutation is of the rows that remain. Where a row lies and when it
 * arrives do not matter: what is served next depends on (seed, g, position) alone.
 *
 * Two threads use it: the ingest thread reserves, stores and completes; the training thread takes. */
#ifndef CROSSFEED_SHUFFLE_H
#define CROSSFEED_SHUFFLE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "plan.h"
#include "stream.h"

struct shuffle;

struct shuffle_config {
    struct plan *plan;       /* borrowed; used by the ingest thread only once the shuffle is made */
    size_t row_elements;     /* n_sites * d_model */
    enum row_dtype dtype;    /* of the slots */
    size_t lookahead_rows;   /* slots beyond one window */
    uint64_t start_row;      /* rows that earlier sessions of this run trained on, */
    struct plan_place start; /* and where the next one is */
    uint64_t total_rows;     /* of the whole run */
    int wake;                /* eventfd written when slots become free; -1: none */
};

/* Computes the bytes that shuffle_new will take: rows, the copies too, and index (8 bytes a row twice, 16 a slot). */
int shuffle_memory(const struct shuffle_config *c, size_t *row_bytes, size_t *index_bytes, struct err *e);

/* Allocates the pool and opens the window that c->start is in. Refuses a start beyond its window's rows. */
int shuffle_new(struct shuffle **s, const struct shuffle_config *c, struct err *e);
void shuffle_free(struct shuffle *s); /* NULL is fine; no other thread may be inside */

/* ---- ingest thread ---- */

/* A reserved block; a ticket is valid from shuffle_reserve to shuffle_complete. */
struct shuffle_ticket {
    uint32_t block;
    uint64_t g;       /* its window */
    unsigned window;  /* which of the two window records */
    size_t first_row; /* of the block in its window */
    size_t n_rows;
};

/* Reserves slots for the next block wanted. Returns false if there are no slots now, or no block is wanted any more. */
bool shuffle_reserve(struct shuffle *s, struct shuffle_ticket *t);
/* Stores rows row .. row + n - 1 of the block: acts [n, row_elements] of the slots' dtype, may be unaligned. May be
 * repeated with the same content (a block leased again). */
void shuffle_store(struct shuffle *s, const struct shuffle_ticket *t, size_t row, size_t n, const unsigned char *acts,
                   const struct row_origin *origins);
/* Says that all rows of the block are stored. */
void shuffle_complete(struct shuffle *s, const struct shuffle_ticket *t);
/* Returns whether the training thread waits for this block, or will before long: of its window nothing is left to reserve. */
bool shuffle_urgent(struct shuffle *s, const struct shuffle_ticket *t);

/* These keep a second place for the rows of a reserved block while two producers are at it, so that their rows are not mixed. There
 * is room for SHUFFLE_COPIES blocks, beside the window's slots. It is filled like the first place, and ends before the
 * block is completed: kept, its rows are the block's; else they are forgotten. */
#define SHUFFLE_COPIES 2
#define SHUFFLE_NO_COPY UINT32_MAX
bool shuffle_copy_room(const struct shuffle *s);
bool shuffle_copy_reserve(struct shuffle *s, uint32_t *copy);
void shuffle_copy_store(struct shuffle *s, uint32_t copy, size_t row, size_t n, const unsigned char *acts,
                        const struct row_origin *origins);
void shuffle_copy_end(struct shuffle *s, const struct shuffle_ticket *t, uint32_t copy, bool keep);
/* Returns a row of an incomplete block, [row_elements] of the slots' dtype, and its origin; copy: SHUFFLE_NO_COPY for the first
 * place. Valid until the block is complete, or the copy ends. */
const unsigned char *shuffle_row(const struct shuffle *s, const struct shuffle_ticket *t, uint32_t copy, size_t row,
                                 struct row_origin *origin);

/* Says that rows cannot be had: the training thread gets this error, the first of several. */
void shuffle_fail(struct shuffle *s, const struct err *why);

/* ---- training thread ---- */

/* Takes the next n rows as fp32 into x [n, row_elements] and their origins (NULL: not wanted). Waits for them at most
 * timeout_ms: returns 0 when taken, 1 if they are not all there yet (call again with the same x, origins and n: a batch
 * that ends in the next window may be half filled), a negative code on shuffle_fail. */
int shuffle_take(struct shuffle *s, float *x, struct row_origin *origins, size_t n, int timeout_ms, struct err *e);

struct shuffle_state {
    struct plan_place next;
    uint64_t epoch;          /* of the next row */
    size_t rows_held, slots; /* rows reserved or stored; all slots */
    uint64_t rows_served;    /* since shuffle_new */
    uint64_t rows_masked;    /* dropped, since shuffle_new */
    uint64_t epoch_rows;     /* of a whole epoch, without the masked ones, */
    bool epoch_estimated;    /* not counted: some rows are masked, and no epoch has ended since shuffle_new */
};
void shuffle_state(struct shuffle *s, struct shuffle_state *out); /* from any thread */

#endif
