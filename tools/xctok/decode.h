/* decode.h - token tensors back to text.
 *
 * A token's bytes are those that the ByteLevel decoder of the tokenizers package gives it. Bytes that are no UTF-8
 * become U+FFFD (utf8.h); a character may span two rows.
 *
 * Refused: what is no [n_seq, seq_len] of integers, rows outside it, ids that the vocabulary lacks (with their place).
 */
#ifndef CROSSFEED_DECODE_H
#define CROSSFEED_DECODE_H

#include <stdbool.h>
#include <stdio.h>

#include "err.h"
#include "vocabulary.h"

struct decode_options {
    const char *path;
    size_t first, stop; /* rows [first, stop); stop SIZE_MAX = to the end */
    bool skip_special;  /* leave special tokens out */
    bool separate;      /* a line feed after each row, which then is decoded by itself */
};

/* Writes the rows' text to out. */
int decode(const struct decode_options *o, const struct vocabulary *v, FILE *out, struct err *e);

#endif
