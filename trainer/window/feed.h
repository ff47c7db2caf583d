/* feed.h - gathers the next batch while the current one is trained on.
 *
 * Its own thread takes batch after batch from the shuffle into one of two buffers; the training thread has the
 * other. What is served when does not change by it: batches come in the shuffle's order, n_batches of them and no more.
 * A batch gathered but not trained on when a run stops is leased again on resume, as the place after the last batch
 * handed over is what a checkpoint holds. */
#ifndef CROSSFEED_FEED_H
#define CROSSFEED_FEED_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "plan.h"
#include "shuffle.h"
#include "stream.h"

struct feed;

struct feed_config {
    size_t batch_size, row_elements;
};

struct feed_batch {
    float *x;                         /* [batch_size, row_elements] fp32 */
    const struct row_origin *origins; /* [batch_size] */
    struct plan_place next;           /* of the row after the batch */
};

/* Computes the bytes that feed_new takes; ERR_MEMORY if they do not fit in a size_t. */
int feed_memory(const struct feed_config *c, size_t *bytes, struct err *e);

int feed_new(struct feed **f, const struct feed_config *c, struct err *e);
void feed_free(struct feed *f); /* ends the thread; NULL is fine */

/* Returns the training thread's buffer [batch_size, row_elements], its own until the next feed_take: for a batch once it has
 * been trained on, and before the first. */
float *feed_buffer(struct feed *f);

/* Starts gathering n_batches from s, less mean [row_elements] (NULL: none); both must outlive the feed. At most once. */
int feed_start(struct feed *f, struct shuffle *s, uint64_t n_batches, const float *mean, struct err *e);

/* Waits at most timeout_ms: 0 and the next batch, valid until the next call; 1 if it is not there yet; or the shuffle's
 * failure, once every batch before it has been taken. */
int feed_take(struct feed *f, struct feed_batch *b, int timeout_ms, struct err *e);

#endif
