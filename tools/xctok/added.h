/* added.h - finds added tokens in text: the leftmost, and of those that begin there the longest. */
#ifndef CROSSFEED_ADDED_H
#define CROSSFEED_ADDED_H

#include "vocabulary.h"

struct added {
    const struct added_token **tokens; /* by first byte, longer ones first */
    size_t n_tokens, longest;          /* bytes of the longest */
    size_t first[257];                 /* tokens[first[b] .. first[b + 1]) begin with byte b */
};

struct added_match {
    size_t at;          /* where the token's own text begins */
    size_t start, stop; /* with the white space that it takes along */
    const struct added_token *token;
};

/* Takes those of v's added tokens that are (not) normalized. v outlives it. */
int added_init(struct added *a, const struct vocabulary *v, bool normalized, struct err *e);
/* Safe on a zeroed struct. */
void added_free(struct added *a);

/* Returns the first in text[from .. end), which is whole characters; start >= from, stop <= end. If there is none:
 * token NULL, at = start = stop = end. */
struct added_match added_find(const struct added *a, const char *text, size_t from, size_t end);

#endif
