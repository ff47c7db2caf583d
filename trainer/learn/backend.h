/* backend.h - where a crosscoder's weights live and its steps are computed: one struct of functions for each kind of device.
 *
 *   p = W_enc x + b_enc;   f = activation(p);   x' = W_dec f + b_dec          x, x': [n_inputs], n_inputs = n_sites * d_model; f: [d_sae]
 *   loss = sum over terms of weight * term;     one step = loss, its gradient, clipping, Adam
 *
 * What is computed is named (an activation, a list of loss terms); how, is the backend's: `cpu` (backend/cpu/) is the first. Whoever is
 * not a backend reaches weights, moments and ages only by name and range, never by a pointer, so that they may lie on a device.
 * A backend belongs to one thread at a time. */
#ifndef CROSSFEED_BACKEND_H
#define CROSSFEED_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "fvu.h"

#define TERMS_MAX 8

/* Which way a step computes: with dense products, or with active entries alone. The two agree up to rounding. */
enum step_path { STEP_AUTO, STEP_DENSE, STEP_SPARSE };

/* What topk and batchtopk select by: max(p, 0) times nothing, |W_dec[latent]| over all sites, or the sum of its norms over the sites. The
 * factor only selects: no gradient passes through it. */
enum score { SCORE_NONE, SCORE_NORM, SCORE_NORM_SUM };

/* Which latents may look where. Sites are paired across two models by their hook points: site i of model 0 and site i + n_sites / 2. */
struct partition {
    size_t shared; /* the first so many latents have one decoder for both models */
    size_t
        exclusive[2]; /* of the last latents, so many see and write model 0 only, and after them so many model 1 only */
};

struct backend_setup {
    size_t n_sites, d_model, d_sae;
    size_t batch_size;            /* rows a step, and the most that encode takes */
    const char *activation;       /* "relu", "topk", "batchtopk", "jumprelu" */
    const char *terms[TERMS_MAX]; /* [n_terms] of the loss; the first has no name for its weight */
    size_t n_terms;
    enum score score;    /* topk, batchtopk */
    size_t most_k;       /* topk, batchtopk: the greatest k of any step, 1 to d_sae */
    size_t aux_k;        /* topk, batchtopk: dead latents a row that the term "aux" takes, if there is that term */
    double bandwidth;    /* jumprelu: of the threshold's gradient */
    bool ste_to_input;   /* jumprelu: that gradient goes to p as well */
    double tanh_scale;   /* of the term "tanh" */
    double shared_coeff; /* what the sparsity terms of shared latents are multiplied by */
    struct partition partition;
    bool two_models; /* the first half of the sites is one model's, the second the other's */
    enum step_path
        path; /* STEP_AUTO: each batch decides by its active entries, so that a resumed run does as it would have */
    bool keep_gradients; /* of dense steps: 4 bytes a parameter more and less work; the same bits */
};

/* Adam as torch.optim.Adam computes it, without weight decay or amsgrad. */
struct adam {
    double beta1, beta2, eps; /* 0.9, 0.999, 1e-8 */
};

struct step_options {
    struct adam adam;
    double max_norm;          /* the global gradient norm is clipped to this, > 0; INFINITY = no clipping */
    double lr;                /* of this step */
    double weight[TERMS_MAX]; /* [n_terms] of this step */
    uint64_t dead_rows;       /* a latent is dead once it was silent for this many rows */
    size_t k;                 /* topk, batchtopk: of this step */
    bool move_threshold;      /* topk, batchtopk: the inference threshold follows this step's least kept score */
    double threshold_beta;    /* as threshold = beta * threshold + (1 - beta) * score; at first it is the score */
    bool want_metrics;        /* fill fvu (costs some passes over x) */
    const struct normalisation *rows; /* by which fvu tells typical rows; NULL: it does not */
};

enum step_phase { STEP_ENCODE, STEP_DECODE, STEP_GRADIENT, STEP_UPDATE, STEP_PHASES };

struct step_report {
    uint64_t step;          /* the one just done, from 0 */
    enum step_path path;    /* STEP_DENSE or STEP_SPARSE */
    double loss;            /* sum of weight * term */
    double term[TERMS_MAX]; /* [n_terms] means over the rows */
    double weight[TERMS_MAX];
    double l0;        /* active latents a row */
    double threshold; /* topk, batchtopk: after the step; negative: not known yet */
    double norm_sum;  /* mean over latents of the sum over sites of |W_dec[latent, site]| */
    double share[2];  /* of f times norm, summed over entries: what each model's sites have; of one model: {1, 0} */
    double grad_norm; /* before clipping */
    double lr;
    bool clipped;
    size_t dead;          /* latents silent for dead_rows, this batch counted, */
    bool dead_measurable; /* which none can be before so many rows are trained on */
    size_t k;
    bool has_metrics;
    double seconds[STEP_PHASES];
    struct fvu fvu; /* of this batch against its own means; if has_metrics */
};

/* What decoding a batch gives beside x'. */
struct pass_report {
    double term[TERMS_MAX]; /* [n_terms] means over the rows */
    double l0;
    const double *row_residual2; /* [rows, n_sites] |x' - x|^2, valid until the backend's next call */
    const uint64_t *fired;       /* [d_sae] rows in which the latent is active, valid as long */
};

/* Whether topk and batchtopk select among a row or the rows given, with the last step's k, or by the threshold, as is done with single rows.
 * Other activations know no difference. */
enum encode_mode { ENCODE_BY_K, ENCODE_BY_THRESHOLD };

enum backend_dtype { BACKEND_F32, BACKEND_U64 };

/* A tensor as a matrix; a vector of n is [n, 1]. */
struct backend_tensor {
    const char *name;
    enum backend_dtype dtype;
    size_t rows, columns;
};

/* A part of a tensor. In memory outside the backend it lies without gaps, [n_rows, n_columns], or [n_columns, n_rows] if transposed. */
struct backend_range {
    size_t row, n_rows, column, n_columns;
    bool transposed;
};

struct backend;

struct backend_ops {
    const char *name; /* "cpu" */

    /* Computes, and allocates nothing, the bytes that open takes: params_bytes for parameters, moments and kept gradients, workspace_bytes
     * for all else (not the caller's x). ERR_INPUT for a setup that cannot be, ERR_MEMORY for one that no memory can hold. */
    int (*memory)(const struct backend_setup *setup, size_t *params_bytes, size_t *workspace_bytes, struct err *e);

    /* Allocates everything; all tensors are zero. *out is NULL after a failure. */
    int (*open)(struct backend **out, const struct backend_setup *setup, struct err *e);
    void (*close)(struct backend *b); /* NULL is fine */

    /* Trains on x [batch_size, n_inputs], fp32 and scaled. A loss or a gradient norm that is not finite: ERR_OVERFLOW naming step and
     * value, and nothing has changed. */
    int (*step)(struct backend *b, const float *x, const struct step_options *o, struct step_report *r, struct err *e);

    /* Encodes x [rows, n_inputs], 1 <= rows <= batch_size, into f, which stays in the backend; decode then gives what x' is like. Of some
     * activations not all rows may fit at once: *taken of them were encoded, at least one, and decode is to be given these. */
    int (*encode)(struct backend *b, const float *x, size_t rows, enum encode_mode mode, size_t *taken, struct err *e);
    int (*decode)(struct backend *b, const float *x, size_t rows, struct pass_report *r, struct err *e);

    /* Computes out [rows, n] = W_enc x + b_enc of latents [first, first + n) and x [rows, n_inputs], any number of rows: what an initial b_enc
     * is measured by. */
    int (*preactivations)(const struct backend *b, const float *x, size_t rows, size_t first, size_t n, float *out,
                          struct err *e);

    /* Describes the i-th tensor; false beyond the last. They are, in this order: W_enc and W_dec [d_sae, n_inputs] (a row a latent),
     * b_enc [d_sae], b_dec [n_inputs], log_threshold [d_sae] of jumprelu; adam_m and adam_v, the moments of all of these one after another;
     * rows_since_fired [d_sae], U64: rows trained on since the latent last was active; threshold [1] of topk and batchtopk. */
    bool (*tensor)(const struct backend *b, size_t i, struct backend_tensor *t);

    /* Copies a range out of or into a tensor, whose name and range must exist. */
    int (*get)(const struct backend *b, const char *name, const struct backend_range *range, void *out, struct err *e);
    int (*put)(struct backend *b, const char *name, const struct backend_range *range, const void *in, struct err *e);
};

/* What every backend begins with. */
struct backend {
    const struct backend_ops *ops;
    struct backend_setup setup;
    uint64_t step; /* steps done; set by whoever loads a checkpoint, as are */
    uint64_t clipped,
        clipped_since; /* steps whose gradient was clipped, counted since that step: 0, but of runs older than the count */
    uint64_t
        skipped; /* batches that were passed over and changed nothing, counted in step too by whoever passes one over */
    size_t
        k; /* topk, batchtopk: of the last step, by which encode selects (most_k before the first); set by that one, too */
};

/* Fills t with the tensor of that name. */
int backend_find(const struct backend *b, const char *name, struct backend_tensor *t, struct err *e);

/* All of a tensor of as many elements, in its own order. */
int backend_get_all(const struct backend *b, const char *name, void *out, struct err *e);
int backend_put_all(struct backend *b, const char *name, const void *in, struct err *e);

/* Returns the sum of weight * term over the setup's terms, in their order. */
double backend_loss(const struct backend_setup *s, const double *term, const double *weight);

/* Returns the share of the steps counted whose gradient was clipped; NaN if none is counted. */
double backend_clipped_share(const struct backend *b);

/* Writes "l2 1.5, l1 0.25" for messages. */
void backend_describe_terms(const struct backend_setup *s, const double *term, char *text, size_t size);

/* Returns whether the setup has that term. */
bool backend_has_term(const struct backend_setup *s, const char *name);

/* Returns whether the activation has thresholds as parameters, log_threshold [d_sae]. */
bool backend_has_thresholds(const struct backend_setup *s);

/* Returns whether the activation selects a given number of entries, k a row. */
bool backend_has_k(const struct backend_setup *s);

/* Returns whether latent j may see and write the site. */
bool backend_may_see(const struct backend_setup *s, size_t j, size_t site);

/* Checks what goes together in a setup besides sizes: k, aux_k, the partition, ranges. ERR_INPUT names both values. */
int backend_check(const struct backend_setup *s, struct err *e);

/* Checks sizes before anything is computed from them. *n_params = 2 * d_sae * n_inputs + d_sae + n_inputs. Refuses sizes of 0 and more
 * sites than STREAM_MAX_SITES (ERR_INPUT), and what overflows, counted in bytes with 16 a parameter (ERR_MEMORY). */
int backend_n_params(size_t n_sites, size_t d_model, size_t d_sae, size_t *n_params, struct err *e);

#endif
