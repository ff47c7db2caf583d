/* fingerprint.h - 128-bit content hashes (XXH3), so that two parties can tell that they hold the same thing. */
#ifndef CROSSFEED_FINGERPRINT_H
#define CROSSFEED_FINGERPRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define FINGERPRINT_SIZE 33 /* 32 hex digits and a NUL */

/* Returns the 64-bit XXH3 of two pieces as if they were one: the checksum of the wire. */
uint64_t fingerprint_checksum(const void *data, size_t size, const void *more, size_t more_size);

/* A fingerprint fed piece by piece; the pieces' boundaries do not matter. */
struct fingerprint {
    void *state; /* XXH3_state_t */
};

/* Begins one; it is to be finished, whatever happens. */
int fingerprint_init(struct fingerprint *f, struct err *e);
/* Adds size bytes. */
void fingerprint_add(struct fingerprint *f, const void *data, size_t size);
/* Adds a text with its NUL, so that "ab", "c" and "a", "bc" differ. */
void fingerprint_add_text(struct fingerprint *f, const char *text);
/* Writes the hex digits and frees the state; also call it to give up. */
void fingerprint_finish(struct fingerprint *f, char hex[FINGERPRINT_SIZE]);

/* Returns whether the text is one: 32 lower-case hex digits. */
bool fingerprint_is(const char *text);

#endif
