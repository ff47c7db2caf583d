/* source.h - where activations come from: the interface that models, a planted dictionary, recordings and imported
 * caches implement, and that serve and record use.
 *
 * A source keeps no state between calls: compute of the same sequences always puts the same rows, whatever was computed
 * before. A source may be used by one thread at a time. */
#ifndef CROSSFEED_SOURCE_H
#define CROSSFEED_SOURCE_H

#include "rows.h"
#include "stream.h"

struct source {
    struct stream stream; /* the activations that it can compute, as HELLO will say; fixed once the source is open */
    void *self;           /* owned by the source; the first argument of both functions */
    /* Puts the rows of the sequences [first, first + n), in order of sequence, then position, and their origins into r,
     * which rows_begin has prepared for n * stream.rows_per_seq rows. Fails with ERR_INPUT, naming sequence, position
     * and site, at an activation that is not finite; and as the source's own header says. */
    int (*compute)(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e);
    /* Closes the source and frees self. */
    void (*close)(void *self);
    double max_abs; /* no value of a row that is sent or recorded may be greater in size; 0: ROW_MAX_ABS */
};

/* Computes the rows of sequences for somebody to train on, as s->compute does, and checks what came of them: ERR_INPUT names sequence,
 * position, site and value of what is beyond max_abs or, scaled and rounded, not finite any more (row_bound.h). All sites are wanted. */
int source_compute(const struct source *s, uint32_t first, uint32_t n, struct rows *r, struct err *e);

#endif
