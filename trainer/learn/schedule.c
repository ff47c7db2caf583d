/* schedule.c - see schedule.h. */
#include "schedule.h"

#include <inttypes.h>
#include <math.h>

/* part / (fraction * total), at most 1; without a fraction: 1. */
static double ramp(double part, double fraction, double total)
{
    double length = fraction * total;
    return part < length ? part / length : 1;
}

static int is_fraction(double f)
{
    return f >= 0 && f <= 1;
}

int schedule_check(const struct schedule *s, struct err *e)
{
    if (s->total_steps == 0)
        return err_set(e, ERR_INPUT, "schedule: %" PRIu64 " steps in total", s->total_steps);
    if (!isfinite(s->lr) || s->lr < 0 || !isfinite(s->l1_coeff) || s->l1_coeff < 0)
        return err_set(e, ERR_INPUT, "schedule: lr %g and l1_coeff %g must be 0 or more", s->lr, s->l1_coeff);
    if (!is_fraction(s->lr_warmup_fraction) || !is_fraction(s->lr_decay_fraction) ||
        !is_fraction(s->l1_warmup_fraction) || s->lr_warmup_fraction + s->lr_decay_fraction > 1)
        return err_set(e, ERR_INPUT,
                       "schedule: lr warm-up %g, lr decay %g and l1 warm-up %g must be fractions of the run, warm-up "
                       "and decay at most 1 together",
                       s->lr_warmup_fraction, s->lr_decay_fraction, s->l1_warmup_fraction);
    return 0;
}

double schedule_lr(const struct schedule *s, uint64_t step)
{
    double total = (double)s->total_steps, t = (double)step;
    double at = s->lr_from_zero ? t : t + 1;
    double up = s->lr_warmup_steps ? ramp(at, (double)s->lr_warmup_steps, 1) : ramp(at, s->lr_warmup_fraction, total),
           down = ramp(total - t, s->lr_decay_fraction, total);
    return s->lr * fmax(0, fmin(up, down));
}

double schedule_l1_coeff(const struct schedule *s, uint64_t step)
{
    return s->l1_coeff * ramp((double)step, s->l1_warmup_fraction, (double)s->total_steps);
}

uint64_t schedule_warmup(const struct schedule *s)
{
    double total = (double)s->total_steps,
           lr = s->lr_warmup_steps ? (double)s->lr_warmup_steps : s->lr_warmup_fraction * total;
    return (uint64_t)ceil(fmax(lr, s->l1_warmup_fraction * total));
}
