/* validate.h - what the trainer accepts: producers that describe the run's stream, and chunks that are what was leased.
 *
 * These are judgements and change nothing: they return 0, or a negative code and the reason for the log and the REJECT, which names both
 * values. */
#ifndef CROSSFEED_VALIDATE_H
#define CROSSFEED_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "message.h"
#include "scale_list.h"
#include "stream.h"

struct validate_terms {
    const struct stream *ours; /* the run's stream; NULL: the first producer will fix it */
    bool need_bf16,
        need_f32;      /* dtypes that a producer must offer (for a bf16 run fp32 only if it has no scale of its own) */
    bool stream_fixed; /* a first producer has been accepted */
    const struct scale_list *scale; /* the run's, measured or given; NULL: not known yet */
};

/* Judges a HELLO. */
int validate_hello(const struct validate_terms *a, const struct message_hello *h, struct err *e);

/* Where the next chunk of a block must fit. */
struct chunk_place {
    uint32_t block, first_sequence;
    size_t n_rows, rows_taken; /* of the block */
    uint32_t chunks_taken;
    enum row_dtype dtype;
    double max_abs; /* of a value */
};

/* Judges a chunk by its geometry and checksum, and checks that every row is the (sequence, position) that belongs there, which is what makes
 * the ledger exact: ERR_PEER. Then its values (row_bound.h): ERR_INPUT, as whoever computes these rows will have them. payload:
 * activations, unaligned. */
int validate_chunk(const struct stream *s, const struct chunk_place *place, const struct message_batch *b,
                   const unsigned char *payload, size_t payload_size, struct err *e);

#endif
