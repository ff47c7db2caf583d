/* schedule.h - learning rate and sparsity coefficient as functions of the step.
 *
 * With T = total_steps, step counted from 0:
 *   lr(step)       = lr * min(1, (step + 1) / (lr_warmup_fraction * T), (T - step) / (lr_decay_fraction * T))
 *   l1_coeff(step) = l1_coeff * min(1, step / (l1_warmup_fraction * T))
 * Both are the reference's (utils.py of neelnanda-io/Crosscoders: lr_lambda, get_l1_coeff) but for the first step: there the
 * learning rate starts at 0 (lr_from_zero: (step) for (step + 1)), here one step further, so that no step is wasted. The warm-up may be
 * given in steps instead. A fraction of 0 leaves its term out. */
#ifndef CROSSFEED_SCHEDULE_H
#define CROSSFEED_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct schedule {
    uint64_t total_steps;
    double lr, l1_coeff;       /* the plateau values */
    double lr_warmup_fraction; /* of total_steps; default 0.05 */
    double lr_decay_fraction;  /* default 0.2 */
    double l1_warmup_fraction; /* default 0.05 */
    uint64_t lr_warmup_steps;  /* instead of lr_warmup_fraction, if not 0 */
    bool lr_from_zero;
};

#define SCHEDULE_LR_WARMUP_FRACTION 0.05
#define SCHEDULE_LR_DECAY_FRACTION 0.2
#define SCHEDULE_L1_WARMUP_FRACTION 0.05

/* Refuses no steps, a negative or non-finite lr or l1_coeff, fractions outside [0, 1], and warm-up + decay of more
 * than 1. */
int schedule_check(const struct schedule *s, struct err *e);

/* Any step is fine; at and after total_steps lr is 0 (with a decay). */
double schedule_lr(const struct schedule *s, uint64_t step);
double schedule_l1_coeff(const struct schedule *s, uint64_t step);

/* Returns the first step at which both have risen to their value. */
uint64_t schedule_warmup(const struct schedule *s);

#endif
