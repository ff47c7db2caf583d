/* source_recording.h - activations replayed from a recording, by random access.
 *
 * Rows are sent straight from the map where a block lies in one shard and has the recording's dtype; else they are
 * gathered. The stream is that of the model that was recorded, so live and replaying producers can serve one run.
 * compute of sequences that are not recorded fails with ERR_ABSENT. */
#ifndef CROSSFEED_SOURCE_RECORDING_H
#define CROSSFEED_SOURCE_RECORDING_H

#include "err.h"
#include "source.h"

/* Opens the recording in a folder; with verify, compares all checksums first. Close with s->close(s->self). */
int source_recording_open(struct source *s, const char *folder, bool verify, struct err *e);

#endif
