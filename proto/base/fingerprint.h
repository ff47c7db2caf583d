/* fingerprint.h - 128-bit content hashes (XXH3), so that two parties can tell that they hold the same thing. */
#ifndef CROSSFEED_FINGERPRINT_H
#define CROSSFEED_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define FINGERPRINT_SIZE 33 /* 32 hex digits and a NUL */

/* 64-bit XXH3 of two pieces as if they were one: the checksum of the wire. */
uint64_t fingerprint_checksum(const void *data, size_t size, const void *more, size_t more_size);

/* A fingerprint fed piece by piece; the pieces' boundaries do not matter. */
struct fingerprint {
    void *state; /* XXH3_state_t */
};

int fingerprint_init(struct fingerprint *f, struct err *e);
void fingerprint_add(struct fingerprint *f, const void *data, size_t size);
void fingerprint_add_text(struct fingerprint *f, const char *text); /* with its NUL, so that "ab","c" != "a","bc" */
/* Writes the hex digits and frees the state; also call it to give up. */
void fingerprint_finish(struct fingerprint *f, char hex[FINGERPRINT_SIZE]);

#endif
