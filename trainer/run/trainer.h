/* trainer.h - all that a run holds, for its two halves: set_up.c makes it, run.c trains and ends. */
#ifndef CROSSFEED_TRAINER_H
#define CROSSFEED_TRAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "budget.h"
#include "err.h"
#include "feed.h"
#include "ingest.h"
#include "learner.h"
#include "metrics_endpoint.h"
#include "plan.h"
#include "run_options.h"
#include "saving.h"
#include "scale_list.h"
#include "shuffle.h"
#include "status.h"
#include "status_writer.h"
#include "waiting.h"

#define WAIT_MS 200

struct trainer {
    const struct run_options *o;
    struct learner *learners; /* [n_learners]; the first one's configuration is the stream's */
    size_t n_learners;
    struct stream stream;
    struct plan plan;
    struct budget budget;
    struct ingest *ingest;
    struct shuffle *shuffle;
    struct waiting waiting;
    struct status *status;
    struct status_writer *status_writer;
    struct metrics_endpoint *endpoint;
    bool has_scale;                /* known before anything is measured */
    struct scale_list given_scale; /* that flags or a checkpoint give; n 0: they do not */
    struct normalisation normalisation;
    uint32_t *scale_blocks; /* [n_scale_blocks] the first ones, over which is measured what is not known */
    uint32_t n_scale_blocks;
    bool wants_rows; /* of these blocks: for the mean, or for initial weights */
    struct feed *feed;
    struct plan_place next; /* of the row after the batch trained on last */
    struct saving saving;
    FILE *provenance;
    char run_id[FINGERPRINT_SIZE];
};

/* Returns what the first learner's configuration says of the stream. */
static inline const struct config *stream_config(const struct trainer *t)
{
    return &t->learners[0].config;
}

/* Sets up a zeroed trainer with o and learners [n_learners] in place, of which options are those given. ERR_STOPPED: asked to stop
 * meanwhile, or the run is finished already. After a failure, too, the trainer is to be released. */
int set_up(struct trainer *t, const struct learner_options *options, struct err *e);
void tear_down(struct trainer *t); /* frees all but t itself, its learners' metrics and the status */

#endif
