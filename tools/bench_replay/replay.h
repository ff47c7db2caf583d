/* replay.h - how fast actgen --source recording serves a receiver that drops the rows: the trainer's side of the
 * protocol, no more. */
#ifndef CROSSFEED_REPLAY_H
#define CROSSFEED_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct replay_options {
    const char *actgen, *folder; /* the program, the recording */
    uint32_t block_seqs, credit;
    size_t bytes; /* of payload to receive, at least */
    bool verify;  /* the receiver checks the checksums, as the trainer does */
};

struct replay_result {
    double seconds; /* from the first chunk received to the last */
    size_t chunks, bytes;
};

/* Blocks are leased in a shuffled order, all of the recording again and again. */
int replay(const struct replay_options *o, struct replay_result *result, struct err *e);

#endif
