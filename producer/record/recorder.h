/* recorder.h - makes recordings: of all sequences of a source without a trainer, or of what is served to one. */
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
    /* The scale is measured, if the source has none, over the rows that a run of this seed and these blocks would measure
     * (plan.h): so that a replay is that run. */
    uint64_t run_seed, scale_rows, window_rows;
    uint32_t block_seqs, eval_blocks;
    bool resume; /* It goes on with what is there, or starts if nothing is. */
    /* Set by a signal handler: the shard at hand is finished and record returns 0; while the scale is measured it returns
     * ERR_STOPPED. */
    volatile sig_atomic_t *stop;
};

/* Records every sequence of the source, shard after shard. Prints the disk budget before the first byte, and refuses if the
 * disk has less free. The source's stream gets the scale. */
int record(struct source *source, const struct record_options *o, struct err *e);

/* Keeps a copy of what a serving producer computes: a shard is a block of the run. Blocks leased raw, while the trainer
 * measures the scale, cannot be kept as they are: recorder_finish computes them again. A run with another scale, dtype or
 * block is an error: one recording holds rows of one kind. */
struct recorder;
/* The source and folder must outlive *t. The folder is opened with the first scaled block, which brings the run's terms. */
int recorder_new(struct recorder **t, struct source *source, const char *folder, bool resume, struct err *e);
/* Keeps one block: serve_options.keep, with the recorder as its context. */
int recorder_keep(void *context, const struct message_lease *lease, uint32_t block_seqs, struct rows *rows,
                  struct err *e);
/* Computes and writes the blocks that were leased raw; called after serve has returned 0. */
int recorder_finish(struct recorder *t, struct err *e);
/* Closes the recording as it is. NULL is fine. */
void recorder_free(struct recorder *t);

#endif
