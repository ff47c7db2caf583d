/* tokens.h - the token tensor: a .npy file [n_seq, seq_len] of token ids, memory-mapped, checked once.
 *
 * Opening reads every id that will be used: an id outside the vocabulary is found before anything is computed, and the
 * fingerprint comes from the same pass. The fingerprint is over (n_seq, seq_len, ids as u32), so the same ids have the
 * same fingerprint in a uint16 file and an int64 file, and in a longer file cut to the same length.
 *
 * Opening refuses what npy_open refuses, dtypes that are not integers, other than two dimensions, sizes of 0 or beyond
 * 32 bits, a wanted length beyond the file's, and an id outside the vocabulary, naming file, sequence, position, id and
 * vocabulary. */
#ifndef CROSSFEED_TOKENS_H
#define CROSSFEED_TOKENS_H

#include <stdint.h>

#include "fingerprint.h"
#include "lengths.h"
#include "npy.h"

struct tokens {
    struct npy file;
    uint32_t n_seq;
    uint32_t seq_len; /* as used; the file's sequences may be longer */
    char fingerprint[FINGERPRINT_SIZE];
    struct lengths lengths; /* if tokens_open_lengths has been called */
};

/* Opens the tensor for the first seq_len tokens of each sequence (0: all of them). Ids must be below vocab_size. */
int tokens_open(struct tokens *t, const char *path, uint32_t seq_len, uint32_t vocab_size, struct err *e);
/* Opens the lengths of its sequences (lengths.h). They become part of the fingerprint. */
int tokens_open_lengths(struct tokens *t, const char *path, struct err *e);
/* Returns how many tokens of a sequence are text: at most seq_len. */
uint32_t tokens_length(const struct tokens *t, uint32_t sequence);

void tokens_close(struct tokens *t); /* safe on a zeroed struct */

/* Copies the ids of a sequence (below n_seq) to dst [seq_len]. Several threads may do so at once. */
void tokens_get(const struct tokens *t, uint32_t sequence, uint32_t *dst);

#endif
