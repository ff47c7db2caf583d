/* source.h - where activations come from: the one interface behind which a model, a synthetic dictionary or a recording
 * stands.
 *
 * A source is stateless between calls: source_compute of the same sequences always puts the same rows, whatever was
 * computed before. One thread at a time. */
#ifndef CROSSFEED_SOURCE_H
#define CROSSFEED_SOURCE_H

#include "rows.h"
#include "stream.h"

struct source {
    struct stream stream; /* what HELLO will say; fixed once opened */
    void *self;
    /* Puts the rows of sequences first..first+n-1 (rows.n_rows = n * rows_per_seq, in order of sequence, then position)
     * and their origins into r. Fails with ERR_INPUT naming the place of the first NaN/Inf. n <= the max_sequences the
     * source was opened for, else it grows its workspace. */
    int (*compute)(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e);
    void (*close)(void *self);
};

#endif
