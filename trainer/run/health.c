/* health.c - see health.h. */
#include "health.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

void health_init(struct health *h, const struct schedule *s)
{
    uint64_t warmup = schedule_warmup(s);
    h->warmup = warmup < s->total_steps ? warmup : s->total_steps;
    h->total_steps = s->total_steps;
}

void health_step(struct health *h, const struct step_report *r, bool due, double max_norm)
{
    uint64_t done = r->step + 1;
    bool last = done == h->total_steps;
    if (r->step < h->warmup)
        return;
    h->steps++;
    h->clipped += r->clipped;
    double share = (double)h->clipped / (double)h->steps;
    if (h->said_clipped || !(last || (due && h->steps >= HEALTH_CLIPPED_STEPS)) || !(share > HEALTH_CLIPPED))
        return;
    h->said_clipped = true;
    log_line("step %" PRIu64 ": %.1f %% of the last %" PRIu64
             " steps had their gradient clipped to --max-grad-norm %g: "
             "it is too low, or a few rows of very large norm make the gradient",
             done, 100 * share, h->steps, max_norm);
}

/* Writes the settings that are likely too high. */
static void name_cause(const struct config *c, bool silent, char *text, size_t size)
{
    int n = snprintf(text, size, "--lr %g", c->lr);
    if (silent && c->activation == ACTIVATION_RELU)
        snprintf(text + n, size - (size_t)n, " or --l1-coeff %g", c->l1_coeff);
    else if (silent && c->activation == ACTIVATION_JUMPRELU)
        snprintf(text + n, size - (size_t)n, " or --l0-coeff %g", c->l0_coeff);
}

void health_evaluation(struct health *h, uint64_t steps, const struct evaluation_report *r, const struct config *c)
{
    bool silent = !(r->l0 > 0), before = *h->collapse;
    char cause[80];
    if (steps < h->warmup)
        return;
    *h->collapse = 0;
    if (!silent && !(r->fvu.fvu > 1))
        return;
    name_cause(c, silent, cause, sizeof cause);
    snprintf(h->collapse, sizeof h->collapse,
             "%s on the held-out rows (L0 %.4g, FVU %.4g) at step %" PRIu64 "; likely cause: %s is too high",
             silent ? "no latent is active" : "the reconstruction is worse than the rows' mean", r->l0, r->fvu.fvu,
             steps, cause);
    if (!before)
        log_line("the run has collapsed: %s", h->collapse);
}
