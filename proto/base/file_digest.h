/* file_digest.h - what a whole file holds, in one number: its size and the XXH3-128 of its bytes.
 *
 * Who writes a file gets its digest from the writer (file.h), so that nothing is read for it. Who verifies one reads it once, in pieces, and
 * never maps it: a file that is cut meanwhile is just shorter. */
#ifndef CROSSFEED_FILE_DIGEST_H
#define CROSSFEED_FILE_DIGEST_H

#include <stddef.h>

#include "err.h"
#include "fingerprint.h"

struct file_digest {
    size_t bytes;
    char fingerprint[FINGERPRINT_SIZE];
};

/* Reads a regular file for its digest. ERR_ABSENT if there is none, ERR_DAMAGED if its disk cannot read it. */
int file_digest_read(const char *path, struct file_digest *d, struct err *e);

/* Reads a file and compares: ERR_DAMAGED, naming it and both values, if it is not what is expected, or not there. */
int file_digest_verify(const char *path, const struct file_digest *expected, struct err *e);

#endif
