/* tokenizer.h - text to token ids and back, as the Hugging Face tokenizers package does it for byte-level BPE.
 *
 * Text: added tokens are found first; what lies between is cut into words by GPT-2's pattern (openai/gpt-2,
 * src/encoder.py) and each word is encoded by itself. A document is fed in pieces of any size; the ids do not depend on
 * where the pieces were cut. A word, and the white space that a stripping added token might take, is kept until its
 * end is seen; otherwise memory does not grow with the document.
 *
 * The pattern's classes are those of the package's regular expressions (Oniguruma, Unicode 16), whatever PCRE2 knows:
 * checked for every code point with tokenizers 0.23 and PCRE2 10.42 (Unicode 14). Invalid UTF-8 is read as U+FFFD (see
 * utf8.h), as Python's errors="replace" gives it to the package. */
#ifndef CROSSFEED_TOKENIZER_H
#define CROSSFEED_TOKENIZER_H

#include "bpe.h"
#include "vocabulary.h"

struct tokenizer; /* not for use by several threads at once */

/* Returns a new tokenizer, owned by the caller; NULL with e filled on failure. path: as vocabulary_load's. */
struct tokenizer *tokenizer_open(const char *path, struct err *e);
/* Frees it; NULL is fine. */
void tokenizer_close(struct tokenizer *t);

/* Returns its vocabulary, valid until close. */
const struct vocabulary *tokenizer_vocabulary(const struct tokenizer *t);
/* Returns how many invalid UTF-8 sequences became U+FFFD so far. */
uint64_t tokenizer_invalid(const struct tokenizer *t);
/* Finds the id of the token that decodes to this text, an added one first; refuses, naming it, if there is none. */
int tokenizer_find(const struct tokenizer *t, const char *text, uint32_t *id, struct err *e);

/* Feeds a piece of the document; appends the ids that are certain by now. After a failure, only close. */
int tokenizer_feed(struct tokenizer *t, const char *text, size_t n, struct ids *out, struct err *e);
/* Ends the document and appends the rest of its ids; the next feed begins another. */
int tokenizer_end(struct tokenizer *t, struct ids *out, struct err *e);
/* Sets how many bytes of text there must be before it is encoded (256 KiB unless told). Ids do not depend on it; for
 * tests. */
void tokenizer_set_buffer(struct tokenizer *t, size_t n);
/* Forgets the rest of the document. */
void tokenizer_drop(struct tokenizer *t);

#endif
