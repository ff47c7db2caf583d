/* record.h - a whole recording without a trainer: every sequence of a source, shard after shard. */
#ifndef CROSSFEED_RECORDER_H
#define CROSSFEED_RECORDER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "message.h"
#include "source.h"

struct record_options {
    const char *folder;
    enum row_dtype dtype;
    uint32_t shard_seqs;
    size_t scale_rows; /* over which the scale is measured, if the source has none: as many shards as it takes, from the
                          first */
    bool resume;       /* go on with what is there, or start if nothing is */
    volatile sig_atomic_t *stop; /* finish the shard, return 0; while the scale is measured: ERR_STOPPED */
};

/* Prints the disk budget before the first byte and refuses if the disk has less free. The source's stream gets the
 * scale. */
int record(struct source *source, const struct record_options *o, struct err *e);

/* A copy of what a serving producer computes: a shard is a block of the run. Blocks leased raw, while the trainer
 * measures the scale, cannot be kept as they are: recorder_finish computes them again. A run with another scale, dtype or
 * block is an error: one recording holds rows of one kind. */
struct recorder;
int recorder_new(struct recorder **t, struct source *source, const char *folder, bool resume, struct err *e);
/* serve_options.keep; context: the tee. */
int recorder_keep(void *context, const struct message_lease *lease, uint32_t block_seqs, struct rows *rows,
                  struct err *e);
int recorder_finish(struct recorder *t, struct err *e); /* after serve has returned 0 */
void recorder_free(struct recorder *t);

#endif
