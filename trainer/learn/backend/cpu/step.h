/* step.h - one training step on the CPU: encode, select, decode, loss, gradients, clip, Adam; and all the memory that it takes.
 *
 * The global gradient norm is clipped as torch.nn.utils.clip_grad_norm_ does: gradients times min(1, max_norm / (norm + 1e-6)), norm in
 * double. Then Adam (adam.h) with t = step + 1. A step allocates nothing and gives the same bits whatever the number of threads.
 *
 * There are two paths, the same up to rounding: dense products (backward.h), or active entries alone (sparse.h). The batch's own
 * number of active entries decides, once they are known, so that a resumed run takes the paths it would have taken. */
#ifndef CROSSFEED_STEP_H
#define CROSSFEED_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "activation.h"
#include "active.h"
#include "adam.h"
#include "aux.h"
#include "backend.h"
#include "backward.h"
#include "crosscoder.h"
#include "err.h"
#include "forward.h"
#include "sparse.h"
#include "term.h"

/* STEP_AUTO goes dense where more than one in SPARSE_SHARE of all [batch_size, d_sae] is active; measured: dense wins from one in four
 * or five on. */
#define SPARSE_SHARE ((size_t)6)

/* What a checkpoint must hold beside the parameters: step, m, v, rows_since_fired, of topk and batchtopk the selection's threshold. The rest
 * is workspace; k is the step's. */
struct train_state {
    struct crosscoder *c;              /* borrowed; updated by steps */
    const struct backend_setup *setup; /* borrowed */
    uint64_t step;                     /* steps done */
    float *m, *v;                      /* [n_params] Adam's moments, in the order of c->params */
    uint64_t *rows_since_fired; /* [d_sae] rows of the batches since the last one in which the latent was active */
    float *grad_bias;           /* [d_sae + n_inputs] gradients of b_enc and b_dec, before clipping */
    struct selection selection;
    struct objective objective;
    struct forward forward;
    void *pool; /* the lists' entries in a sparse step, f's gradient in a dense one */
    struct backward backward;
    struct active active;
    struct sparse sparse;
    struct aux aux;
    double *row_factor; /* [batch_size, n_sites] of the residual in d loss / d x'; NULL: it is one number */
};

/* Computes the bytes as backend_ops.memory says; sizes come from the setup. */
int train_step_memory(const struct backend_setup *setup, size_t *params_bytes, size_t *workspace_bytes, struct err *e);

/* Allocates for c; both c, whose sizes are the setup's, and setup must outlive the state. Who changes W_dec between steps clears
 * forward.norms_known. */
int train_state_init(struct train_state *t, struct crosscoder *c, const struct backend_setup *setup, struct err *e);
void train_state_release(struct train_state *t); /* safe on a zeroed struct */

/* Does one step, as backend_ops.step says. */
int train_step(struct train_state *t, const float *x, const struct step_options *o, struct step_report *r,
               struct err *e);

#endif
