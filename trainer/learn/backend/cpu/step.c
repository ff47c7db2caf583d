/* step.c - the training step from top to bottom; see step.h. */
#include "step.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "clock.h"
#include "mem.h"
#include "sums.h"

/* ---- memory ---- */

static bool dense(const struct backend_setup *s)
{
    return s->path != STEP_SPARSE && activation_find(s->activation)->scope == SCOPE_ENTRY;
}

static bool sparse(const struct backend_setup *s)
{
    return s->path != STEP_DENSE;
}

/* Returns the entries that the lists must hold; batch_size * d_sae fits (pool_bytes). */
static size_t capacity(const struct backend_setup *s)
{
    size_t all = s->batch_size * s->d_sae;
    const struct activation *a = activation_find(s->activation);
    if (a->most) { /* what is left of the strips before, and one strip of which nothing is dropped yet; by threshold, one row of all */
        size_t most = a->most(s) + s->batch_size * active_strip(s->d_sae);
        most = most < s->d_sae ? s->d_sae : most;
        return most < all ? most : all;
    }
    return s->path == STEP_SPARSE ? all : s->path == STEP_AUTO ? all / SPARSE_SHARE : 0;
}

static int too_large(const struct backend_setup *s, struct err *e)
{
    return err_set(e, ERR_MEMORY, "workspace: batches of %zu rows with d_sae %zu do not fit", s->batch_size, s->d_sae);
}

/* Checks what the sizes below are computed from. */
static int check(const struct backend_setup *s, struct err *e)
{
    size_t all;
    if (!activation_find(s->activation))
        return err_set(e, ERR_INPUT, "activation '%s' is not known", s->activation);
    int rc = backend_check(s, e);
    if (rc)
        return rc;
    if (!size_mul(s->batch_size, s->d_sae, &all) || all > SIZE_MAX / 64 / ACTIVE_ENTRY)
        return too_large(s, e);
    return 0;
}

static size_t pool_bytes(const struct backend_setup *s)
{
    size_t lists = active_entries_bytes(capacity(s)), grad_f = dense(s) ? s->batch_size * s->d_sae * sizeof(float) : 0;
    return lists > grad_f ? lists : grad_f;
}

/* Returns the floats of backward.grad; they fit (backend_n_params). */
static size_t gradient_floats(const struct backend_setup *s)
{
    if (!dense(s))
        return 0;
    size_t strip = s->d_sae < BACKWARD_STRIP ? s->d_sae : BACKWARD_STRIP;
    return s->n_sites * s->d_model * (s->keep_gradients ? 2 * s->d_sae : strip);
}

static bool has_rows_factor(const struct backend_setup *s)
{
    for (size_t i = 0; i < s->n_terms; i++) {
        const struct term *t = term_find(s->terms[i]);
        if (t && t->to_rows)
            return true;
    }
    return false;
}

/* Returns the elements of the vectors among the parameters: b_enc, b_dec and the thresholds, which lie one after another. */
static size_t vectors(const struct backend_setup *s)
{
    return s->d_sae + s->n_sites * s->d_model + (backend_has_thresholds(s) ? s->d_sae : 0);
}

int train_step_memory(const struct backend_setup *s, size_t *params_bytes, size_t *workspace_bytes, struct err *e)
{
    size_t n_params, part[6] = {0}, total = 0;
    int rc = backend_n_params(s->n_sites, s->d_model, s->d_sae, &n_params, e);
    if (rc || (rc = check(s, e)) || (rc = forward_memory(s, &part[0], e)) ||
        (sparse(s) &&
         ((rc = active_memory(s->d_sae, s->batch_size, &part[2], e)) || (rc = sparse_memory(s, &part[3], e)))))
        return rc;
    const struct activation *a = activation_find(s->activation);
    n_params += backend_has_thresholds(s) ? s->d_sae : 0;
    part[1] = pool_bytes(s);
    part[4] = (a->memory ? a->memory(s) : 0) + (has_rows_factor(s) ? s->batch_size * s->n_sites * sizeof(double) : 0);
    part[5] = aux_memory(s, tiles_measure(s->n_sites, s->d_model, s->batch_size ? s->batch_size : 1).lanes);
    size_t gradients = gradient_floats(s) * sizeof(float);
    bool kept = dense(s) && s->keep_gradients, fits = true;
    for (size_t i = 0; i < 6; i++)
        fits = fits && !__builtin_add_overflow(total, part[i], &total);
    fits = fits && !__builtin_add_overflow(total, s->d_sae * sizeof(uint64_t) + vectors(s) * sizeof(float), &total);
    fits = fits && !__builtin_add_overflow(total, kept ? 0 : gradients, &total);
    if (!fits)
        return too_large(s, e);
    *params_bytes = 12 * n_params + (kept ? gradients : 0); /* fits: backend_n_params */
    *workspace_bytes = total;
    return 0;
}

int train_state_init(struct train_state *t, struct crosscoder *c, const struct backend_setup *setup, struct err *e)
{
    size_t params_bytes, workspace_bytes;
    memset(t, 0, sizeof *t);
    int rc = train_step_memory(setup, &params_bytes, &workspace_bytes, e);
    if (rc || (rc = objective_init(&t->objective, setup, e)) || (rc = selection_open(&t->selection, setup, e)) ||
        (rc = forward_init(&t->forward, c, setup, e)) || (rc = aux_init(&t->aux, c, setup, &t->forward, e))) {
        train_state_release(t);
        return rc;
    }
    t->c = c;
    t->setup = setup;
    rc = ERR_MEMORY;
    if (!(t->m = mem_alloc(c->n_params, sizeof *t->m, "first moments", e)) ||
        !(t->v = mem_alloc(c->n_params, sizeof *t->v, "second moments", e)) ||
        !(t->rows_since_fired = mem_alloc(c->d_sae, sizeof *t->rows_since_fired, "ages of the latents", e)) ||
        !(t->grad_bias = mem_alloc(vectors(setup), sizeof *t->grad_bias, "gradients of the biases", e)) ||
        !(t->pool = mem_alloc(pool_bytes(setup), 1, "active lists and gradient of the latents", e)) ||
        (has_rows_factor(setup) && !(t->row_factor = mem_alloc(setup->batch_size * setup->n_sites,
                                                               sizeof *t->row_factor, "gradients of the errors", e))))
        goto out;
    if (dense(setup)) {
        t->backward.grad_f = t->pool;
        t->backward.keep = setup->keep_gradients;
        if (!(t->backward.grad = mem_alloc(gradient_floats(setup), sizeof(float), "gradients", e)))
            goto out;
    }
    if (sparse(setup) && ((rc = active_init(&t->active, c, setup->batch_size, capacity(setup), t->pool, e)) ||
                          (rc = sparse_init(&t->sparse, c, setup, &t->forward, e))))
        goto out;
    return 0;
out:
    train_state_release(t);
    return rc;
}

void train_state_release(struct train_state *t)
{
    selection_close(&t->selection);
    forward_release(&t->forward);
    active_release(&t->active);
    sparse_release(&t->sparse);
    aux_release(&t->aux);
    mem_free(t->row_factor);
    mem_free(t->backward.grad);
    mem_free(t->pool);
    mem_free(t->m);
    mem_free(t->v);
    mem_free(t->grad_bias);
    mem_free(t->rows_since_fired);
    memset(t, 0, sizeof *t);
}

/* ---- the step ---- */

/* Encodes and selects: p = W_enc x + b_enc, f = activation(p). Returns the path that the batch takes: active entries in lists, if they fit
 * there, or all of f. */
static enum step_path encode(struct train_state *t, const float *x)
{
    size_t rows = t->setup->batch_size;
    if (t->setup->path != STEP_DENSE && active_encode(&t->active, &t->forward, t->c, &t->selection, x, rows))
        return STEP_SPARSE;
    if (t->setup->path == STEP_DENSE)
        forward_encode(&t->forward, t->c, &t->selection, x, rows);
    return STEP_DENSE;
}

/* Decodes: x' - x = W_dec f + b_dec - x. */
static void decode(struct train_state *t, enum step_path path, const float *x)
{
    if (path == STEP_SPARSE)
        sparse_decode(&t->sparse, &t->active, &t->forward, t->c, x, t->setup->batch_size);
    else
        forward_decode(&t->forward, t->c, x, t->setup->batch_size);
}

/* Returns what loss terms see. */
static struct term_input input_of(const struct train_state *t, enum step_path path)
{
    return (struct term_input){.setup = t->setup,
                               .w = &t->forward,
                               .c = t->c,
                               .rows = t->setup->batch_size,
                               .lists = path == STEP_SPARSE ? &t->active : NULL,
                               .aux_loss = t->aux.loss};
}

/* Computes d loss / d x' as a factor of the residual, which is scaled row by row where that is not one number. */
static double output_factor(struct train_state *t, enum step_path path, const struct term_input *in)
{
    double uniform;
    if (!objective_to_output(&t->objective, in, &uniform, t->row_factor))
        return uniform;
    if (path == STEP_SPARSE)
        sparse_scale_residual(&t->forward, t->c, in->rows, t->row_factor);
    else
        backward_scale_residual(&t->forward, t->c, in->rows, t->row_factor);
    return 1;
}

/* Where the gradients of latents come from in a sparse step: active entries, and those of AuxK. */
static struct gradient_sources sources_of(struct train_state *t, double scale)
{
    struct gradient_sources from = {.main = {&t->active, t->forward.residual, (float)scale}};
    double weight = objective_weight(&t->objective, "aux");
    if (t->aux.variance > 0 && (weight < 0 || weight > 0))
        from.aux = (struct gradient_source){&t->aux.lists, t->aux.residual,
                                            (float)(weight * 2 / ((double)t->setup->batch_size * t->aux.variance))};
    return from;
}

/* Computes the loss's gradients: those of the vectors, and the squared norm of the matrices'. Returns the global norm. scale: of the
 * residual in d loss / d x'. */
static double gradients(struct train_state *t, enum step_path path, const float *x, double scale)
{
    const struct crosscoder *c = t->c;
    const struct term_input in = input_of(t, path);
    float *grad_b_enc = t->grad_bias, *grad_b_dec = grad_b_enc + c->d_sae,
          *grad_threshold = c->log_threshold ? grad_b_dec + c->n_inputs : NULL;
    objective_to_decoder(&t->objective, &in, t->forward.dec_factor);
    for (size_t i = 0; i < c->n_inputs; i++) /* d/db_dec = sum over rows of d/dx' */
        grad_b_dec[i] = (float)(scale * t->forward.columns[i]);
    double norm2;
    if (path == STEP_SPARSE) {
        const struct gradient_sources from = sources_of(t, scale);
        norm2 = sparse_gradient(&t->sparse, &from, &t->selection, &t->objective, &in, grad_b_enc, grad_threshold);
    } else {
        norm2 = backward_gradient(&t->backward, &t->selection, &t->objective, &in, x, (float)scale, grad_b_enc,
                                  grad_threshold);
    }
    return sqrt(norm2 + sum_squares(t->grad_bias, vectors(t->setup)));
}

/* Moves every parameter by Adam, with the gradient times the clipping coefficient in k. */
static void update(struct train_state *t, enum step_path path, const float *x, double scale,
                   const struct adam_factors *k)
{
    struct crosscoder *c = t->c;
    size_t rows = t->setup->batch_size, bias = (size_t)(c->b_enc - c->params);
    if (path == STEP_SPARSE) {
        const struct gradient_sources from = sources_of(t, scale);
        sparse_update(&t->sparse, &from, t->setup, &t->forward, c, rows, k, t->m, t->v);
    } else {
        backward_update(&t->backward, t->setup, c, &t->forward, x, rows, (float)scale, k, t->m, t->v);
    }
    adam_update(k, c->b_enc, t->m + bias, t->v + bias, t->grad_bias, vectors(t->setup));
}

/* Lets the inference threshold follow the batch's least kept score. */
static void move_threshold(struct selection *s, double beta)
{
    s->threshold = s->threshold < 0 ? s->least : (float)(beta * (double)s->threshold + (1 - beta) * (double)s->least);
}

/* Computes what the decoder's norms say: their mean sum, and each model's share of f times them. */
static void norm_shares(const struct train_state *t, struct step_report *r)
{
    const struct forward *w = &t->forward;
    size_t n_sites = t->setup->n_sites, half = n_sites / 2;
    double sum = 0, share[2] = {0};
    for (size_t j = 0; j < t->setup->d_sae; j++) {
        sum += w->dec_norm_sum[j];
        for (size_t site = 0; site < n_sites; site++)
            share[t->setup->two_models && site >= half] += w->f_sum[j] * w->dec_norm[j * n_sites + site];
    }
    r->norm_sum = sum / (double)t->setup->d_sae;
    for (int i = 0; i < 2; i++)
        r->share[i] = share[0] + share[1] > 0 ? share[i] / (share[0] + share[1]) : 0;
}

/* Computes the batch's FVU against its own means. */
static void batch_fvu(struct train_state *t, const float *x, const struct normalisation *by, struct fvu *out)
{
    struct forward *w = &t->forward;
    size_t rows = t->setup->batch_size;
    struct fvu_sums sums;
    fvu_means_clear(&w->means);
    fvu_means_add(&w->means, by, x, rows);
    fvu_begin(&sums, t->c->n_sites);
    fvu_add(&sums, &w->means, by, x, w->row_residual2, rows);
    fvu_finish(&sums, out);
}

/* Counts the ages of the latents on by this batch; returns how many are dead. */
static size_t count_dead(struct train_state *t, uint64_t dead_rows)
{
    size_t dead = 0;
    for (size_t j = 0; j < t->c->d_sae; j++) {
        t->rows_since_fired[j] = t->forward.fired[j] ? 0 : t->rows_since_fired[j] + t->setup->batch_size;
        dead += t->rows_since_fired[j] >= dead_rows;
    }
    return dead;
}

int train_step(struct train_state *t, const float *x, const struct step_options *o, struct step_report *r,
               struct err *e)
{
    const struct backend_setup *setup = t->setup;
    double term[TERMS_MAX], clock[5];
    memcpy(t->objective.weight, o->weight, sizeof t->objective.weight);
    t->selection.mode = ENCODE_BY_K;
    t->selection.k = o->k;

    clock[0] = clock_s();
    enum step_path path = encode(t, x);
    clock[1] = clock_s();
    decode(t, path, x);
    if (t->aux.k)
        aux_compute(&t->aux, t->c, &t->forward, &t->selection, t->rows_since_fired, o->dead_rows, x, setup->batch_size,
                    t->active.strip);
    clock[2] = clock_s();

    const struct term_input in = input_of(t, path);
    objective_values(&t->objective, &in, term);
    double loss = backend_loss(setup, term, o->weight);
    if (!isfinite(loss)) {
        char values[256];
        backend_describe_terms(setup, term, values, sizeof values);
        return err_set(e, ERR_OVERFLOW, "step %" PRIu64 ": loss %g (%s)", t->step, loss, values);
    }
    *r = (struct step_report){.step = t->step,
                              .path = path,
                              .loss = loss,
                              .l0 = forward_l0(&t->forward, t->c, setup->batch_size),
                              .k = o->k,
                              .lr = o->lr,
                              .has_metrics = o->want_metrics};
    memcpy(r->term, term, sizeof r->term);
    memcpy(r->weight, o->weight, sizeof r->weight);
    if (o->want_metrics) {
        batch_fvu(t, x, o->rows, &r->fvu);
        norm_shares(t, r);
    }

    clock[3] = clock_s();
    double scale = output_factor(t, path, &in);
    r->grad_norm = gradients(t, path, x, scale);
    if (!isfinite(r->grad_norm))
        return err_set(e, ERR_OVERFLOW, "step %" PRIu64 ": gradient norm %g (loss %g)", t->step, r->grad_norm, loss);
    clock[4] = clock_s();

    float clip = (float)fmin(1, o->max_norm / (r->grad_norm + 1e-6));
    r->clipped = clip < 1;
    struct adam_factors k = adam_factors(&o->adam, clip, o->lr, t->step + 1);
    update(t, path, x, scale, &k);
    r->dead = count_dead(t, o->dead_rows);
    r->dead_measurable = (t->step + 1) * setup->batch_size >= o->dead_rows;
    if (o->move_threshold)
        move_threshold(&t->selection, o->threshold_beta);
    r->threshold = t->selection.threshold;
    r->seconds[STEP_ENCODE] = clock[1] - clock[0];
    r->seconds[STEP_DECODE] = clock[2] - clock[1];
    r->seconds[STEP_GRADIENT] = clock[4] - clock[3];
    r->seconds[STEP_UPDATE] = clock_s() - clock[4];
    t->step++;
    return 0;
}
