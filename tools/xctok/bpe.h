/* bpe.h - byte-pair encoding of one pre-token: its bytes' tokens, then the adjacent pair of lowest rank joined, the
 * leftmost of equals first, until no pair has a merge (Sennrich et al. 2016; GPT-2's encoder.py).
 *
 * A heap of (rank, position) over a linked list, so a pre-token of n bytes takes O(n log n). What short pre-tokens
 * became is kept in a cache of fixed size. */
#ifndef CROSSFEED_BPE_H
#define CROSSFEED_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define BPE_NO_TOKEN \
    UINT32_MAX /* of a byte that the vocabulary lacks: it is left out, as the tokenizers package does */

struct bpe_merge { /* its rank is its place in the list */
    uint32_t left, right, result;
};

/* A growing list of token ids. */
struct ids {
    uint32_t *data; /* owned; mem_free */
    size_t n, capacity;
};

/* Makes room for so many more. */
int ids_reserve(struct ids *ids, size_t more, struct err *e);

struct bpe {
    uint32_t byte_token[256];
    const struct bpe_merge *merges; /* by rank; owned by caller, outlives this */
    struct bpe_slot *slots;         /* (left, right) -> rank; open addressing, a power of two of them */
    size_t n_slots;
    struct bpe_cached *cache;
    struct bpe_symbol *symbols; /* scratch, for the longest pre-token so far */
    uint64_t *heap;             /* rank << 32 | position */
    size_t capacity;            /* bytes of a pre-token that the scratch holds */
};

/* Makes the table of merges; of two merges of one pair the later counts. n_merges < 2^32. */
int bpe_init(struct bpe *b, const uint32_t byte_token[256], const struct bpe_merge *merges, size_t n_merges,
             struct err *e);
/* Safe on a zeroed struct. */
void bpe_free(struct bpe *b);

/* Appends the tokens of one pre-token to out. Refuses one of 2^31 bytes or more. */
int bpe_encode(struct bpe *b, const char *word, size_t n, struct ids *out, struct err *e);

#endif
