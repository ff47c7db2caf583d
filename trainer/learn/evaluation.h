/* evaluation.h - the losses and FVU over a fixed set of held-out rows, fed in pieces; forward only.
 *
 * FVU's means are those of ALL evaluation rows. They are needed before the first row, and the rows are the same at
 * every evaluation, so they are measured once: evaluation_init, evaluation_measure for each piece; then any number
 * of times: evaluation_begin, evaluation_add for each piece, evaluation_finish. Sums in double, in the order of
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
    struct fvu_means means; /* of the rows measured */
    bool *fired;   /* [d_sae] latents that were active since evaluation_begin, as they are selected in training */
    uint64_t rows; /* rows added since then */
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
    size_t silent;                                 /* latents that were active in none of them */
    struct fvu fvu;
    bool has_threshold; /* topk, batchtopk, once the threshold is known: by it, */
    double threshold_l0;
    struct fvu threshold_fvu;
};

/* Returns the bytes that evaluation_init takes. */
size_t evaluation_memory(const struct backend_setup *s);

/* Allocates; b must outlive it. */
int evaluation_init(struct evaluation *v, struct backend *b, struct err *e);
void evaluation_release(struct evaluation *v); /* safe on a zeroed struct */

/* Adds rows to the means. x: [n, n_inputs], 1 <= n; by: as fvu.h has it, the same in all calls. */
void evaluation_measure(struct evaluation *v, const struct normalisation *by, const float *x, size_t n);

/* Starts new sums. */
void evaluation_begin(struct evaluation *v);
/* Encodes, decodes and counts rows. x: [n, n_inputs], 1 <= n; taken in pieces of the backend's batch_size. */
int evaluation_add(struct evaluation *v, const struct normalisation *by, const float *x, size_t n, struct err *e);
/* Computes the means. weight: [n_terms] as in training. Fails (ERR_INPUT) if other rows were added than measured (by number), or a loss
 * is not finite. */
int evaluation_finish(struct evaluation *v, const double *weight, struct evaluation_report *r, struct err *e);

#endif
