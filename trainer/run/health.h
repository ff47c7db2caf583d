/* health.h - whether a learner goes well, judged once the warm-up is over, and said in a line each when it does not:
 *
 *   clipped    more than nine in ten steps had their gradient clipped, so that Adam sees little but its direction
 *   collapsed  no latent is active on the held-out rows, or FVU there is above 1: the mean of the rows would reconstruct them better
 *
 * A collapse stands until an evaluation finds that it is over. It only tells: whether the run ends for it is the caller's (fail_on_collapse). */
#ifndef CROSSFEED_HEALTH_H
#define CROSSFEED_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "config.h"
#include "evaluation.h"
#include "schedule.h"

#define HEALTH_CLIPPED 0.9       /* share of the steps */
#define HEALTH_CLIPPED_STEPS 100 /* over at least so many, or all that there are after the warm-up */
#define HEALTH_TEXT_SIZE 256

struct health {
    uint64_t warmup, total_steps;
    uint64_t steps, clipped; /* after the warm-up, since this start; */
    bool said_clipped;
    char collapse[HEALTH_TEXT_SIZE]; /* what is wrong and the likely cause; "": nothing is */
};

/* Starts one that is zeroed, but for a collapse that an earlier session of the run ended with. The warm-up is that of lr and of l1_coeff. */
void health_init(struct health *h, const struct schedule *s);

/* Counts a step. At the last one, and where `due`, says if they are nearly all clipped. */
void health_step(struct health *h, const struct step_report *r, bool due, double max_norm);

/* Judges an evaluation after so many steps. c: to name what is likely too high. */
void health_evaluation(struct health *h, uint64_t steps, const struct evaluation_report *r, const struct config *c);

#endif
