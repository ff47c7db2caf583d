/* metrics.h - what a run says while it trains: metrics.jsonl for machines, progress lines for people.
 *
 * A line of metrics.jsonl is one JSON object. A training line has step (steps done), rows, loss, the loss's terms (l2, l1), l0, lr, the
 * weights of all terms but the first (l1_coeff), grad_norm, clipped (the share of all steps up to here whose gradient was clipped), dead (null
 * until dead_rows rows are trained on: none can be dead before), of topk and batchtopk k and threshold, norm_sum (mean over latents of the
 * sum of the decoder's norms), of two models model_share (of f times norm, what each one's sites have), fvu, fvu_typical and fvu_token
 * (fvu.h), the same by site (fvu_site and so on), rows_per_s, waiting (the share of time in which training waited for activations since
 * the last line), and batches_skipped, if any was passed over so far. An evaluation line has step, rows, and eval_loss, eval_l2 and so on over
 * the held-out rows, and eval_silent, the latents that are active in none of them. A value that does not exist is null. A resumed run cuts off
 * the lines after its checkpoint. */
#ifndef CROSSFEED_METRICS_H
#define CROSSFEED_METRICS_H

#include <stdint.h>
#include <stdio.h>

#include "backend.h"
#include "err.h"
#include "evaluation.h"
#include "status.h"

struct metrics {
    FILE *f;         /* open at its end; what it holds ends with a whole line */
    char *unwritten; /* lines for which there was no room on the disk yet; NULL: none */
    size_t unwritten_size;
    struct status *status;       /* borrowed; is told of steps and waits. NULL: nobody is */
    const struct metrics *waits; /* whose waits are told: those of the run's first learner; NULL: its own */
    char path[4096];
    uint64_t total_steps, batch_size;
    double started, last_line, last_progress; /* clock_s */
    double wait_began;
    double waited, waited_at_line,
        waited_at_progress; /* seconds of waiting in all, and when those lines were written */
    uint64_t first_step, step_at_line, step_at_progress;
    double fvu;          /* of the last training line: it is not computed at every step */
    double threshold_l0; /* of the last evaluation; NaN: none, or not by threshold */
};

/* Opens OUT/metrics.jsonl and cuts off the lines of steps beyond first_step. */
int metrics_open(struct metrics *m, const char *out, uint64_t first_step, uint64_t total_steps, uint64_t batch_size,
                 struct status *status, struct err *e);

/* Writes what is left and closes the file; of a run that has not begun it removes it. A zeroed struct is fine. */
int metrics_close(struct metrics *m, bool begun, struct err *e);

/* Time a wait for activations: one is called before it, one after it, and metrics_waiting now and then while it lasts, with what is being
 * waited for. */
void metrics_wait_begins(struct metrics *m);
void metrics_waiting(struct metrics *m, uint64_t steps, const char *what);
void metrics_wait_ends(struct metrics *m);

/* Writes a training line of a step of b that has metrics. */
int metrics_step(struct metrics *m, const struct backend *b, const struct step_report *r, struct err *e);

/* Writes an evaluation line, but for the step that the session began with: the line of the session before stands there. */
int metrics_evaluation(struct metrics *m, uint64_t steps, const struct backend_setup *setup,
                       const struct evaluation_report *r, struct err *e);

/* Tells the status of a step, and shows progress if it is time: each second on a terminal, else every ten seconds. metrics_waiting does
 * that too. */
void metrics_progress(struct metrics *m, const struct step_report *r);

/* Return what holds for this session: rows a second, and the share of time in which training waited. NaN if there was no step in it. */
double metrics_rows_per_s(const struct metrics *m, uint64_t steps);
double metrics_waiting_share(const struct metrics *m, uint64_t steps);

#endif
