/* evaluation.h - the losses and FVU over a fixed set of held-out rows, fed in pieces; forward only.
 *
 * FVU's mean is that of ALL evaluation rows. fvu_token needs it before the first row, and the rows are the same at
 * every evaluation, so it is measured once: evaluation_init, evaluation_measure(x, n) for each piece; then any number
 * of times: evaluation_begin, evaluation_add(x, n) for each piece, evaluation_finish. Sums in double, in the order of
 * the pieces; the same bits whatever the number of threads. */
#ifndef CROSSFEED_EVALUATION_H
#define CROSSFEED_EVALUATION_H

#include <stddef.h>
#include <stdint.h>

#include "crosscoder.h"
#include "err.h"
#include "forward.h"
#include "fvu.h"

struct evaluation {
    const struct crosscoder *c; /* borrowed */
    struct forward
        *forward;         /* borrowed workspace, overwritten by evaluation_add: train_state's will do between steps */
    double *x_sum, *mean; /* [n_inputs] */
    uint64_t measured;    /* rows in x_sum */
    uint64_t rows;        /* rows added since evaluation_begin */
    struct losses sums;
    struct fvu_sums fvu;
};

struct evaluation_report {
    uint64_t rows;
    double loss, l2, l1, l0, l1_coeff; /* means over the rows; loss = l2 + l1_coeff * l1 */
    struct fvu fvu;
};

/* c and forward must outlive it. */
int evaluation_init(struct evaluation *v, const struct crosscoder *c, struct forward *forward, struct err *e);
void evaluation_release(struct evaluation *v); /* safe on a zeroed struct */

/* x: [n, n_inputs], any n. */
void evaluation_measure(struct evaluation *v, const float *x, size_t n);

void evaluation_begin(struct evaluation *v);
/* x: [n, n_inputs], 1 <= n; taken in pieces of forward->max_rows. */
void evaluation_add(struct evaluation *v, const float *x, size_t n);
/* Fails (ERR_INPUT) if other rows were added than measured (by number), or a loss is not finite. */
int evaluation_finish(struct evaluation *v, double l1_coeff, struct evaluation_report *r, struct err *e);

#endif
