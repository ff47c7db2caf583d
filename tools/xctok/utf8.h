/* utf8.h - bytes from outside made valid UTF-8, piece by piece.
 *
 * Each maximal invalid subpart becomes one U+FFFD, as the WHATWG decoder, Python's errors="replace" and Rust's
 * String::from_utf8_lossy (which the tokenizers package's ByteLevel decoder uses) all do. Pieces may cut a character.
 */
#ifndef CROSSFEED_UTF8_H
#define CROSSFEED_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct utf8 { /* zeroed = at a character's start */
    unsigned char pending[4];
    unsigned n_pending, need;   /* bytes of the open character seen, bytes still to come */
    unsigned char lower, upper; /* what the next byte may be */
    uint64_t invalid;           /* U+FFFD written so far */
};

/* The most that utf8_clean can write for n bytes. */
#define UTF8_CLEAN_MAX(n) (3 * (n) + 6)

/* Appends the cleaned bytes to out (room for UTF8_CLEAN_MAX(n)); an open character at the end waits for the next call.
 * Returns the bytes written. */
size_t utf8_clean(struct utf8 *u, const char *in, size_t n, char *out);
/* Ends the text: an open character becomes U+FFFD, written to out. The next text may follow. Returns the bytes written, at most 3. */
size_t utf8_finish(struct utf8 *u, char *out);

/* Returns the bytes of the white-space character (Unicode White_Space) at p, before end, in valid UTF-8; 0 if there is
 * none. */
size_t utf8_space_at(const char *p, const char *end);
/* Returns the same for the character that ends at p and does not begin before begin. */
size_t utf8_space_before(const char *begin, const char *p);

#endif
