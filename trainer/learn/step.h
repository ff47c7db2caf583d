/* step.h - one training step: forward, backward, clipping, Adam; and all the memory that training takes.
 *
 *   loss = l2 + l1_coeff * l1 (forward.h). Global gradient norm clipped as torch.nn.utils.clip_grad_norm_ does:
 * gradients times min(1, max_norm / (norm + 1e-6)), norm in double. Then Adam (adam.h) with t = step + 1. A step
 * allocates nothing and gives the same bits whatever the number of threads. The caller computes lr and l1_coeff
 * (schedule.h) of train_state.step.
 *
 * Two paths, the same up to rounding: dense products (backward.h), or active entries alone (sparse.h). The batch's own
 * number of active entries decides, once they are known, so that a resumed run takes the paths it would have taken. */
#ifndef CROSSFEED_STEP_H
#define CROSSFEED_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "active.h"
#include "adam.h"
#include "backward.h"
#include "crosscoder.h"
#include "err.h"
#include "forward.h"
#include "fvu.h"
#include "sparse.h"

enum step_path { STEP_AUTO, STEP_DENSE, STEP_SPARSE };

/* Said at start, since memory follows from it. */
struct train_setup {
    size_t batch_size;
    enum step_path path; /* STEP_AUTO: sparse where at most one in SPARSE_SHARE of all [batch_size, d_sae] is active */
    bool keep_gradients; /* dense steps: 4 bytes a parameter more, and five products instead of seven; the same bits */
};

#define SPARSE_SHARE ((size_t)6) /* measured: dense wins from one in four or five on */

/* What a checkpoint must hold beside the parameters: step, m, v, rows_since_fired. The rest is workspace. */
struct train_state {
    struct crosscoder *c; /* borrowed; updated by steps */
    size_t batch_size;
    enum step_path path;
    uint64_t step;              /* steps done */
    float *m, *v;               /* [n_params] Adam's moments, in the order of c->params */
    uint64_t *rows_since_fired; /* [d_sae] rows of the batches since the last one in which the latent was active */
    float *grad_bias;           /* [d_sae + n_inputs] gradients of b_enc and b_dec, before clipping */
    struct forward forward;
    void *pool; /* the lists' entries in a sparse step, f's gradient in a dense one */
    struct backward backward;
    struct active active;
    struct sparse sparse;
};

/* params_bytes: 12 a parameter (parameters and both moments), 16 with keep_gradients; workspace_bytes: all else of a
 * train_state. The caller's x [batch_size, n_inputs] is not counted. */
int train_step_memory(size_t n_sites, size_t d_model, size_t d_sae, const struct train_setup *setup,
                      size_t *params_bytes, size_t *workspace_bytes, struct err *e);

/* c must outlive the state. Who changes W_dec between steps clears forward.norms_known. */
int train_state_init(struct train_state *t, struct crosscoder *c, const struct train_setup *setup, struct err *e);
void train_state_release(struct train_state *t); /* safe on a zeroed struct */

struct step_options {
    struct adam adam;
    double max_norm;     /* > 0; INFINITY = no clipping */
    double lr, l1_coeff; /* of this step */
    uint64_t dead_rows;  /* a latent is dead once it was silent for this many rows */
    bool want_metrics;   /* fill fvu (costs two passes over x) */
};

enum step_phase { STEP_ENCODE, STEP_DECODE, STEP_GRADIENT, STEP_UPDATE, STEP_PHASES };

struct step_report {
    uint64_t step;       /* the one just done, from 0 */
    enum step_path path; /* STEP_DENSE or STEP_SPARSE */
    double loss, l2, l1, l0;
    double grad_norm; /* before clipping */
    double lr, l1_coeff;
    size_t dead; /* latents with rows_since_fired >= dead_rows, this batch counted */
    bool has_metrics;
    double seconds[STEP_PHASES];
    struct fvu fvu; /* of this batch against its own mean; if has_metrics */
};

/* x: [batch_size, n_inputs] fp32, already scaled. A loss or gradient norm that is not finite: ERR_INPUT naming step and
 * value; then parameters, moments and step are as they were. */
int train_step(struct train_state *t, const float *x, const struct step_options *o, struct step_report *r,
               struct err *e);

#endif
