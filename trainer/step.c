/* step.c - see step.h. */
#include "step.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "backward.h"
#include "mem.h"
#include "sums.h"

static size_t strip_width(size_t d_sae)
{
    return d_sae < BACKWARD_STRIP ? d_sae : BACKWARD_STRIP;
}

int train_step_memory(size_t n_sites, size_t d_model, size_t d_sae, size_t batch_size, size_t *params_bytes,
                      size_t *workspace_bytes, struct err *e)
{
    size_t n_params, forward, strip;
    int rc = crosscoder_n_params(n_sites, d_model, d_sae, &n_params, e);
    if (rc || (rc = forward_memory(n_sites, d_model, d_sae, batch_size, &forward, e)))
        return rc;
    if (!size_mul(batch_size, strip_width(d_sae) * sizeof(float), &strip) ||
        __builtin_add_overflow(forward, strip, &forward) ||
        __builtin_add_overflow(forward, d_sae * sizeof(uint64_t), workspace_bytes))
        return err_set(e, ERR_MEMORY, "workspace: batches of %zu rows with d_sae %zu do not fit", batch_size, d_sae);
    *params_bytes = 16 * n_params; /* fits: crosscoder_n_params */
    return 0;
}

int train_state_init(struct train_state *t, struct crosscoder *c, size_t batch_size, struct err *e)
{
    size_t params_bytes, workspace_bytes;
    memset(t, 0, sizeof *t);
    int rc = train_step_memory(c->n_sites, c->d_model, c->d_sae, batch_size, &params_bytes, &workspace_bytes, e);
    if (rc || (rc = forward_init(&t->forward, c, batch_size, e)))
        return rc;
    t->c = c;
    t->batch_size = batch_size;
    if ((t->m = mem_alloc(c->n_params, sizeof *t->m, "first moments", e)) &&
        (t->v = mem_alloc(c->n_params, sizeof *t->v, "second moments", e)) &&
        (t->grad = mem_alloc(c->n_params, sizeof *t->grad, "gradients", e)) &&
        (t->rows_since_fired = mem_alloc(c->d_sae, sizeof *t->rows_since_fired, "ages of the latents", e)) &&
        (t->grad_f = mem_alloc(batch_size * strip_width(c->d_sae), sizeof *t->grad_f, "gradient of the latents", e)))
        return 0;
    train_state_release(t);
    return ERR_MEMORY;
}

void train_state_release(struct train_state *t)
{
    forward_release(&t->forward);
    mem_free(t->m);
    mem_free(t->v);
    mem_free(t->grad);
    mem_free(t->rows_since_fired);
    mem_free(t->grad_f);
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
    size_t rows = t->batch_size;
    forward_encode(&t->forward, c, x, rows);
    /* From here to the gradient the products are sparse in f: the place where a sparse path branches off. */
    forward_decode(&t->forward, c, x, rows);
    struct losses mean = forward_losses(&t->forward, c, rows);
    double loss = mean.l2 + o->l1_coeff * mean.l1;
    if (!isfinite(loss))
        return err_set(e, ERR_INPUT, "step %" PRIu64 ": loss %g (l2 %g, l1 %g)", t->step, loss, mean.l2, mean.l1);
    *r = (struct step_report){
        .step = t->step,
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

    backward_dense(c, &t->forward, x, rows, o->l1_coeff, t->grad, t->grad_f);
    r->grad_norm = sqrt(sum_squares_parallel(t->grad, c->n_params));
    if (!isfinite(r->grad_norm))
        return err_set(e, ERR_INPUT, "step %" PRIu64 ": gradient norm %g (loss %g)", t->step, r->grad_norm, loss);
    float clip = (float)fmin(1, o->max_norm / (r->grad_norm + 1e-6));

    adam_update(&o->adam, c->params, t->m, t->v, t->grad, c->n_params, clip, o->lr, t->step + 1);
    r->dead = count_dead(t, o->dead_rows);
    t->step++;
    return 0;
}
