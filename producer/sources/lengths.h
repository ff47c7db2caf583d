/* lengths.h - how many positions of each sequence are text: rows behind them are padding, and are masked.
 *
 * They are a .npy [n_seq] of integers, as `xctok --per-document` writes it beside the tokens, under their name with
 * .lengths.npy. */
#ifndef CROSSFEED_LENGTHS_H
#define CROSSFEED_LENGTHS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fingerprint.h"
#include "npy.h"

struct lengths {
    struct npy file; /* data NULL: there are none, and all positions are text */
    uint32_t seq_len;
};

/* The sequences that the lengths are of. */
struct lengths_of {
    const char *path; /* their file's, for messages */
    uint32_t n_seq;
    uint32_t seq_len;  /* as used */
    size_t in_file;    /* positions a sequence in that file: the most that a length may be */
    char *fingerprint; /* [FINGERPRINT_SIZE] the lengths become part of it */
};

/* Opens them. Refuses, naming both: another number of sequences, what are no integers, a length beyond the sequence. After a
 * failure l is closed. */
int lengths_open(struct lengths *l, const char *path, const struct lengths_of *of, struct err *e);
/* Returns how many positions of a sequence are text: at most seq_len. l has been opened. */
uint32_t lengths_get(const struct lengths *l, uint32_t sequence);
void lengths_close(struct lengths *l); /* safe on a zeroed struct */

#endif
