/* trainer.h - all that a run holds, for its two halves: set_up.c makes it, run.c trains and ends. */
#ifndef CROSSFEED_TRAINER_H
#define CROSSFEED_TRAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "budget.h"
#include "config.h"
#include "crosscoder.h"
#include "err.h"
#include "evaluation.h"
#include "feed.h"
#include "ingest.h"
#include "metrics.h"
#include "metrics_endpoint.h"
#include "plan.h"
#include "recovery.h"
#include "run.h"
#include "schedule.h"
#include "shuffle.h"
#include "status.h"
#include "step.h"
#include "waiting.h"

#define PATH_SIZE 4096
#define WAIT_MS 200

struct trainer {
    const struct run_options *o;
    struct config config;
    char checkpoint[PATH_SIZE]; /* resumed from; "" = none */
    struct schedule schedule;
    struct stream stream;
    struct plan plan;
    struct budget budget;
    struct ingest *ingest;
    struct shuffle *shuffle;
    struct crosscoder crosscoder;
    struct train_setup setup;
    struct train_state state;
    struct evaluation evaluation;
    bool evaluation_measured;
    struct evaluation_report evaluation_report;
    struct recovery recovery; /* if there is a ground truth */
    struct step_report step;
    struct metrics metrics;
    struct waiting waiting;
    struct status *status;
    struct metrics_endpoint *endpoint;
    bool has_scale;
    float scale[STREAM_MAX_SITES];
    uint32_t *scale_blocks; /* [n_scale_blocks] */
    uint32_t n_scale_blocks;
    struct feed *feed;
    struct plan_place next; /* of the row after the batch trained on last */
    FILE *provenance;
    json_t *cfg;
    char run_id[FINGERPRINT_SIZE];
    int lock;            /* of the folder; -1: none */
    uint64_t saved_step; /* of the newest checkpoint; 0: none */
};

/* Of a zeroed trainer with o, config and lock set. ERR_STOPPED: asked to stop meanwhile. After a failure, too, the
 * trainer is to be released. */
int set_up(struct trainer *t, struct err *e);
void tear_down(struct trainer *t); /* frees all but t itself */

#endif
