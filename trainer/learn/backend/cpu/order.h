/* order.h - the greatest scores among active lists, exactly.
 *
 * An entry's score is max(f, 0) times its latent's factor. Of entries with equal scores the one of the lower row comes first, and in a row
 * the one of the lower latent. What is kept depends on the lists' content alone; a NaN counts as greater than everything. */
#ifndef CROSSFEED_ORDER_H
#define CROSSFEED_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "active.h"
#include "err.h"

/* Memory for both functions below. */
struct order {
    size_t max_rows;
    uint32_t *pieces; /* [pieces, bins] histograms of parts of the lists */
    size_t *bins;     /* [bins] their sum */
    size_t *begin;    /* [max_rows + 1] counts by row, then where each row's entries begin in score and latent */
    float *score;     /* [2 * capacity] by row, and a copy to reorder; NULL: only whole batches are ordered */
    uint32_t *latent; /* [capacity] */
    float *least;     /* [max_rows] of each row, the least score kept */
    uint32_t *tie;    /* [max_rows] of the row's latents with just that score, the last one kept */
};

/* Returns the bytes that order_init takes; capacity: of the lists whose rows are ordered, 0 for whole batches only. */
size_t order_memory(size_t max_rows, size_t capacity);
int order_init(struct order *o, size_t max_rows, size_t capacity, struct err *e);
void order_release(struct order *o); /* safe on a zeroed struct */

/* Shortens the lists of latents [0, latents) to the n greatest scores of all, n at least 1. Returns the least score kept; 0 if there were
 * no more than n. rows: of the batch. */
float order_keep_greatest(struct order *o, struct active *a, size_t latents, const float *factor, size_t rows,
                          size_t n);

/* Shortens the lists of latents [0, latents) to the n greatest scores of each row, n at least 1. Fills o->least [rows]; 0 where a row had
 * no more than n. */
void order_keep_rows(struct order *o, struct active *a, size_t latents, const float *factor, size_t rows, size_t n);

/* Returns the least score of the lists of latents [0, latents); 0 if they are empty. */
float order_least(const struct active *a, size_t latents, const float *factor);

#endif
