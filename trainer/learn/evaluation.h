/* evaluation.h - the losses and FVU over a fixed set of held-out rows, fed in pieces; forward only.
 *
 * FVU's mean is that of ALL evaluation rows. fvu_token needs it before the first row, and the rows are the same at
 * every evaluation, so it is measured once: evaluation_init, evaluation_measure(x, n) for each piece; then any number
 * of times: evaluation_begin, evaluation_add(x, n) for each piece, evaluation_finish. Sums in double, in the order of
 * the pieces; the same bits whatever the number of threads.
 *
 * topk and batchtopk are evaluated twice: as in training, among the rows of a piece (which for batchtopk depend on each other), and by the
 * inference threshold, which is what a single row gets. */
#ifndef CROSSFEED_EVALUATION_H
#define CROSSFEED_EVALUATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "err.h"
#include "fvu.h"

struct evaluation {
    struct backend *b;      /* borrowed; used between its steps */
    double *x_sum, *mean;   /* [n_inputs] */
    double *row_deviation2; /* [batch_size, n_sites] */
    uint64_t measured;      /* rows in x_sum */
    uint64_t rows;          /* rows added since evaluation_begin */
    struct evaluation_sums {
        double term[TERMS_MAX]; /* [n_terms] over rows, */
        double l0;              /* and of active latents */
        struct fvu_sums fvu;
    } sums[2]; /* as the latents are selected in training; and, of topk and batchtopk, by threshold */
};

struct evaluation_report {
    uint64_t rows;
    double loss;                                   /* sum of weight * term */
    double term[TERMS_MAX], weight[TERMS_MAX], l0; /* means over the rows */
    struct fvu fvu;
    bool has_threshold; /* topk, batchtopk, once the threshold is known: by it, */
    double threshold_l0;
    struct fvu threshold_fvu;
};

/* Allocates; b must outlive it. */
int evaluation_init(struct evaluation *v, struct backend *b, struct err *e);
void evaluation_release(struct evaluation *v); /* safe on a zeroed struct */

/* Adds rows to the mean. x: [n, n_inputs], any n. */
void evaluation_measure(struct evaluation *v, const float *x, size_t n);

/* Starts new sums. */
void evaluation_begin(struct evaluation *v);
/* Encodes, decodes and counts rows. x: [n, n_inputs], 1 <= n; taken in pieces of the backend's batch_size. */
int evaluation_add(struct evaluation *v, const float *x, size_t n, struct err *e);
/* Computes the means. weight: [n_terms] as in training. Fails (ERR_INPUT) if other rows were added than measured (by number), or a loss
 * is not finite. */
int evaluation_finish(struct evaluation *v, const double *weight, struct evaluation_report *r, struct err *e);

#endif
