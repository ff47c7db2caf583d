/* plan.h - which rows are trained on when: blocks, epochs and windows as pure functions of (seed, geometry).
 *
 * Block b is sequences b * block_seqs .. of the token tensor (the last block may be shorter). eval_blocks of them,
 * spread evenly over the tensor and the same for every seed, are held out. An epoch is all other blocks in an order of
 * its own, a permutation seeded by (seed, epoch), cut into windows of as equal a number of blocks as can be, none with
 * more rows than asked for. A window never crosses an epoch, so every row is trained once before any is trained again.
 * The rows of window g, numbered block after block, are served in the permutation seeded by (seed, g).
 *
 * The trainer goes by it; a producer that records without one asks it over which rows a run would measure the scale. */
#ifndef CROSSFEED_PLAN_H
#define CROSSFEED_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "stream.h"

#define PLAN_MAX_BLOCKS (1 << 24) /* 8 bytes each: a producer may claim 2^32 sequences */

/* Which row is served next: the position in the order of a window. */
struct plan_place {
    uint64_t window;
    size_t position;
};

struct plan {
    uint64_t seed;
    uint32_t n_seq, block_seqs, rows_per_seq;
    uint32_t n_blocks, n_eval, n_train;
    uint32_t *eval_blocks;  /* [n_eval], ascending; owned */
    uint32_t *train_blocks; /* [n_train], ascending; owned */
    uint32_t *order;        /* [n_train] scratch for an epoch's order; owned */
    uint64_t order_epoch;   /* the epoch that order holds; UINT64_MAX: none */
    uint32_t windows_per_epoch;
    uint32_t window_blocks;             /* of the largest window */
    size_t max_block_rows, window_rows; /* of the largest block; upper bound for a window */
    uint64_t epoch_rows;                /* of an epoch, masked ones among them (shuffle_state has it without) */
};

/* Makes the plan for a stream. window_rows: the most rows a window may have (batch_size * buffer_mult). Refuses: nothing left to train on; a window
 * smaller than one block (both numbers); more than PLAN_MAX_BLOCKS. */
int plan_init(struct plan *p, const struct stream *s, uint64_t seed, uint32_t block_seqs, uint32_t eval_blocks,
              uint64_t window_rows, struct err *e);
void plan_release(struct plan *p); /* safe on a zeroed struct */

/* Return the first sequence of a block, its number of sequences, and its rows. */
uint32_t plan_block_first(const struct plan *p, uint32_t block);
uint32_t plan_block_seqs(const struct plan *p, uint32_t block);
size_t plan_block_rows(const struct plan *p, uint32_t block);

/* Writes the blocks of window g in their order into blocks [window_blocks]; *n_blocks of them. Returns the window's rows. */
size_t plan_window(struct plan *p, uint64_t g, uint32_t *blocks, uint32_t *n_blocks);

/* Writes the blocks over which a run measures its scale into blocks [window_blocks]: the first ones of window 0, as many as
 * it takes to have n_rows rows, or all of them. Returns how many. */
uint32_t plan_measured_blocks(struct plan *p, uint64_t n_rows, uint32_t *blocks);

/* Returns the rows of all windows before g. */
uint64_t plan_rows_before(struct plan *p, uint64_t g);

/* Fills order [n_rows] with the order in which the rows of window g are served. */
void plan_window_order(const struct plan *p, uint64_t g, uint32_t *order, size_t n_rows);

#endif
