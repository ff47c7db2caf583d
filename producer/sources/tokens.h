/* tokens.h - the token tensor: a .npy file [n_seq, seq_len] of token ids, memory-mapped, checked once.
 *
 * Opening reads every id that will be used: an id outside the vocabulary is found before anything is computed, and the
 * fingerprint comes from the same pass. The fingerprint is over (n_seq, seq_len, ids as u32), so the same ids have the
 * same fingerprint in a uint16 file and an int64 file, and in a longer file cut to the same length.
 *
 * Refused: what npy_open refuses, dtypes that are no integers, other than two dimensions, sizes of 0 or beyond 32 bits,
 * a wanted length beyond the file's, and an id outside the vocabulary (file, sequence, position, id, vocabulary named).
 */
#ifndef CROSSFEED_TOKENS_H
#define CROSSFEED_TOKENS_H

#include <stdint.h>

#include "fingerprint.h"
#include "npy.h"

struct tokens {
    struct npy file;
    uint32_t n_seq;
    uint32_t seq_len; /* as used; the file's may be longer */
    char fingerprint[FINGERPRINT_SIZE];
    struct npy lengths; /* valid tokens of each sequence, if lengths.data; what lies behind is padding */
};

/* seq_len: use the first seq_len tokens of each sequence; 0 = all. vocab_size > 0: ids must be below it. */
int tokens_open(struct tokens *t, const char *path, uint32_t seq_len, uint32_t vocab_size, struct err *e);
/* Reads the lengths [n_seq] (integers) that `xctok --per-document` writes: in sequence s, only the first lengths[s]
 * tokens are text. They become part of the fingerprint. Refuses another number of sequences and a length outside 0..the
 * file's seq_len. */
int tokens_open_lengths(struct tokens *t, const char *path, struct err *e);
uint32_t tokens_length(const struct tokens *t, uint32_t sequence); /* at most seq_len */

void tokens_close(struct tokens *t); /* safe on a zeroed struct */

/* dst: [seq_len]. sequence < n_seq. Safe from several threads. */
void tokens_get(const struct tokens *t, uint32_t sequence, uint32_t *dst);

#endif
