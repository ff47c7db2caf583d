/* step.c - see step.h. */
#include "step.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "backward.h"
#include "clock.h"
#include "mem.h"
#include "sums.h"

static bool dense(const struct train_setup *s)
{
    return s->path != STEP_SPARSE;
}

static bool sparse(const struct train_setup *s)
{
    return s->path != STEP_DENSE;
}

/* Entries that the lists must hold; batch_size * d_sae fits (pool_bytes). */
static size_t capacity(size_t d_sae, const struct train_setup *s)
{
    size_t all = s->batch_size * d_sae;
    return s->path == STEP_SPARSE ? all : s->path == STEP_AUTO ? all / SPARSE_SHARE : 0;
}

static int pool_bytes(size_t d_sae, const struct train_setup *s, size_t *bytes, struct err *e)
{
    size_t all;
    if (!size_mul(s->batch_size, d_sae, &all) || all > SIZE_MAX / 2 / ACTIVE_ENTRY)
        return err_set(e, ERR_MEMORY, "workspace: batches of %zu rows with d_sae %zu do not fit", s->batch_size, d_sae);
    size_t lists = active_entries_bytes(capacity(d_sae, s)), grad_f = dense(s) ? all * sizeof(float) : 0;
    *bytes = lists > grad_f ? lists : grad_f;
    return 0;
}

/* Floats of backward.grad; they fit (crosscoder_n_params). */
static size_t gradient_floats(size_t n_inputs, size_t d_sae, const struct train_setup *s)
{
    if (!dense(s))
        return 0;
    return n_inputs * (s->keep_gradients ? 2 * d_sae : d_sae < BACKWARD_STRIP ? d_sae : BACKWARD_STRIP);
}

int train_step_memory(size_t n_sites, size_t d_model, size_t d_sae, const struct train_setup *setup,
                      size_t *params_bytes, size_t *workspace_bytes, struct err *e)
{
    size_t n_params, part[4] = {0}, total = 0;
    int rc = crosscoder_n_params(n_sites, d_model, d_sae, &n_params, e);
    if (rc || (rc = forward_memory(n_sites, d_model, d_sae, setup->batch_size, &part[0], e)) ||
        (rc = pool_bytes(d_sae, setup, &part[1], e)) ||
        (sparse(setup) && ((rc = active_memory(d_sae, setup->batch_size, &part[2], e)) ||
                           (rc = sparse_memory(n_sites, d_model, d_sae, setup->batch_size, &part[3], e)))))
        return rc;
    size_t n_inputs = n_sites * d_model, gradients = gradient_floats(n_inputs, d_sae, setup) * sizeof(float);
    bool kept = dense(setup) && setup->keep_gradients, fits = true;
    for (size_t i = 0; i < 4; i++)
        fits = fits && !__builtin_add_overflow(total, part[i], &total);
    fits =
        fits && !__builtin_add_overflow(total, d_sae * sizeof(uint64_t) + (d_sae + n_inputs) * sizeof(float), &total);
    fits = fits && !__builtin_add_overflow(total, kept ? 0 : gradients, &total);
    if (!fits)
        return err_set(e, ERR_MEMORY, "workspace: batches of %zu rows with d_sae %zu do not fit", setup->batch_size,
                       d_sae);
    *params_bytes = 12 * n_params + (kept ? gradients : 0); /* fits: crosscoder_n_params */
    *workspace_bytes = total;
    return 0;
}

int train_state_init(struct train_state *t, struct crosscoder *c, const struct train_setup *setup, struct err *e)
{
    size_t params_bytes, workspace_bytes, pool = 0;
    memset(t, 0, sizeof *t);
    int rc = train_step_memory(c->n_sites, c->d_model, c->d_sae, setup, &params_bytes, &workspace_bytes, e);
    if (rc || (rc = pool_bytes(c->d_sae, setup, &pool, e)) || (rc = forward_init(&t->forward, c, setup->batch_size, e)))
        return rc;
    t->c = c;
    t->batch_size = setup->batch_size;
    t->path = setup->path;
    rc = ERR_MEMORY;
    if (!(t->m = mem_alloc(c->n_params, sizeof *t->m, "first moments", e)) ||
        !(t->v = mem_alloc(c->n_params, sizeof *t->v, "second moments", e)) ||
        !(t->rows_since_fired = mem_alloc(c->d_sae, sizeof *t->rows_since_fired, "ages of the latents", e)) ||
        !(t->grad_bias = mem_alloc(c->d_sae + c->n_inputs, sizeof *t->grad_bias, "gradients of the biases", e)) ||
        !(t->pool = mem_alloc(pool, 1, "active lists and gradient of the latents", e)))
        goto out;
    if (dense(setup)) {
        t->backward.grad_f = t->pool;
        t->backward.keep = setup->keep_gradients;
        if (!(t->backward.grad =
                  mem_alloc(gradient_floats(c->n_inputs, c->d_sae, setup), sizeof(float), "gradients", e)))
            goto out;
    }
    if (sparse(setup) && ((rc = active_init(&t->active, c, setup->batch_size, capacity(c->d_sae, setup), t->pool, e)) ||
                          (rc = sparse_init(&t->sparse, c, &t->forward, e))))
        goto out;
    return 0;
out:
    train_state_release(t);
    return rc;
}

void train_state_release(struct train_state *t)
{
    forward_release(&t->forward);
    active_release(&t->active);
    sparse_release(&t->sparse);
    mem_free(t->backward.grad);
    mem_free(t->pool);
    mem_free(t->m);
    mem_free(t->v);
    mem_free(t->grad_bias);
    mem_free(t->rows_since_fired);
    memset(t, 0, sizeof *t);
}

static void batch_fvu(struct train_state *t, const float *x, struct fvu *out)
{
    struct forward *w = &t->forward;
    size_t n_inputs = t->c->n_inputs;
    memset(w->columns, 0, n_inputs * sizeof *w->columns);
    sum_columns(w->columns, x, t->batch_size, n_inputs);
    for (size_t i = 0; i < n_inputs; i++)
        w->columns[i] /= (double)t->batch_size;
    forward_deviations(w, t->c, x, t->batch_size, w->columns);
    struct fvu_sums sums;
    fvu_begin(&sums, t->c->n_sites);
    fvu_add(&sums, w->row_residual2, w->row_deviation2, t->batch_size);
    fvu_finish(&sums, out);
}

static size_t count_dead(struct train_state *t, uint64_t dead_rows)
{
    size_t dead = 0;
    for (size_t j = 0; j < t->c->d_sae; j++) {
        t->rows_since_fired[j] = t->forward.fired[j] ? 0 : t->rows_since_fired[j] + t->batch_size;
        dead += t->rows_since_fired[j] >= dead_rows;
    }
    return dead;
}

int train_step(struct train_state *t, const float *x, const struct step_options *o, struct step_report *r,
               struct err *e)
{
    struct crosscoder *c = t->c;
    struct forward *w = &t->forward;
    size_t rows = t->batch_size, biases = c->d_sae + c->n_inputs;
    float *grad_b_enc = t->grad_bias, *grad_b_dec = t->grad_bias + c->d_sae;
    double clock[STEP_PHASES + 2] = {clock_s()};
    bool is_sparse = t->path != STEP_DENSE && active_encode(&t->active, w, c, x, rows);
    if (t->path == STEP_DENSE)
        forward_encode(w, c, x, rows);
    clock[1] = clock_s();
    if (is_sparse)
        sparse_decode(&t->sparse, &t->active, w, c, x, rows, grad_b_dec);
    else
        forward_decode(w, c, x, rows);
    clock[2] = clock_s();
    struct losses mean = forward_losses(w, c, rows);
    double loss = mean.l2 + o->l1_coeff * mean.l1;
    if (!isfinite(loss))
        return err_set(e, ERR_INPUT, "step %" PRIu64 ": loss %g (l2 %g, l1 %g)", t->step, loss, mean.l2, mean.l1);
    *r = (struct step_report){
        .step = t->step,
        .path = is_sparse ? STEP_SPARSE : STEP_DENSE,
        .loss = loss,
        .l2 = mean.l2,
        .l1 = mean.l1,
        .l0 = mean.l0,
        .lr = o->lr,
        .l1_coeff = o->l1_coeff,
        .has_metrics = o->want_metrics,
    };
    if (o->want_metrics)
        batch_fvu(t, x, &r->fvu);

    clock[3] = clock_s();
    double norm2 = is_sparse ? sparse_gradient(&t->sparse, &t->active, w, c, rows, o->l1_coeff, grad_b_enc)
                             : backward_gradient(&t->backward, c, w, x, rows, o->l1_coeff, grad_b_enc, grad_b_dec);
    r->grad_norm = sqrt(norm2 + sum_squares(t->grad_bias, biases));
    if (!isfinite(r->grad_norm))
        return err_set(e, ERR_INPUT, "step %" PRIu64 ": gradient norm %g (loss %g)", t->step, r->grad_norm, loss);
    clock[4] = clock_s();
    float clip = (float)fmin(1, o->max_norm / (r->grad_norm + 1e-6));

    struct adam_factors k = adam_factors(&o->adam, clip, o->lr, t->step + 1);
    size_t bias = (size_t)(c->b_enc - c->params);
    if (is_sparse)
        sparse_update(&t->sparse, &t->active, w, c, rows, o->l1_coeff, &k, t->m, t->v);
    else
        backward_update(&t->backward, c, w, x, rows, o->l1_coeff, &k, t->m, t->v);
    adam_update(&k, c->b_enc, t->m + bias, t->v + bias, t->grad_bias, biases);
    r->dead = count_dead(t, o->dead_rows);
    clock[5] = clock_s();
    r->seconds[STEP_ENCODE] = clock[1] - clock[0];
    r->seconds[STEP_DECODE] = clock[2] - clock[1];
    r->seconds[STEP_GRADIENT] = clock[4] - clock[3];
    r->seconds[STEP_UPDATE] = clock[5] - clock[4];
    t->step++;
    return 0;
}
