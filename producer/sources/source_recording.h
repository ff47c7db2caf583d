/* source_recording.h - activations replayed from a recording, by random access.
 *
 * Rows are sent straight from the map where a block lies in one shard and has the recording's dtype; else they are
 * gathered. The stream is that of the model that was recorded, so live and replaying producers can serve one run.
 * Sequences that are not recorded are an error of that lease. */
#ifndef CROSSFEED_SOURCE_RECORDING_H
#define CROSSFEED_SOURCE_RECORDING_H

#include "err.h"
#include "source.h"

/* verify: compare all checksums first. */
int source_recording_open(struct source *s, const char *folder, bool verify, struct err *e);

#endif
