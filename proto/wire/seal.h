/* seal.h - the checksum at the end of every header frame.
 *
 * TCP's own checksum lets one in some ten thousand damaged segments pass, and a flipped bit can leave a message
 * well-formed: another scale in WELCOME would spoil the run without a word, another id in LEASE would hold up its
 * block. It is not against malice: that is what CURVE keys are for. */
#ifndef CROSSFEED_SEAL_H
#define CROSSFEED_SEAL_H

#include <stddef.h>

#include "err.h"

#define SEAL_BYTES ((size_t)8)

/* Puts the seal behind frame [size], where SEAL_BYTES are free; returns the size with it. */
size_t seal_add(unsigned char *frame, size_t size);

/* Checks the seal and takes it off *size; returns ERR_DAMAGED if it is missing or wrong. */
int seal_check(const unsigned char *frame, size_t *size, struct err *e);

#endif
