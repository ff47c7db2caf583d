/* embedding.h - the start of the residual stream: what a token is and, where positions are learned, where it stands. */
#ifndef CROSSFEED_EMBEDDING_H
#define CROSSFEED_EMBEDDING_H

#include <stddef.h>
#include <stdint.h>

struct embedding {
    const float *tokens;    /* [vocab_size, d]; borrowed from the model */
    const float *positions; /* [n_positions, d]; borrowed from the model; NULL: positions are not learned vectors */
    size_t d;
};

/* Computes x [n, d] = tokens[ids] + positions[0..seq_len), sequence after sequence; n is a multiple of seq_len. */
void embedding_rows(const struct embedding *w, const uint32_t *ids, size_t n, size_t seq_len, float *x);

#endif
