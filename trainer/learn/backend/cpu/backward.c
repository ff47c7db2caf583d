/* backward.c - see backward.h. With r = x' - x and the loss's derivatives as its terms say them (term.h):
 *
 *   d/dx'        = s r                                                s = 2 / B of the squared error
 *   d/df         = d/dx' W_dec^T + what the terms add at the entry    at active entries, else 0; through the activation: d/dp
 *   d/dW_dec     = f^T d/dx' + factor[j, site] * W_dec[j, site]
 *   d/db_dec     = sum over rows of d/dx'
 *   d/dW_enc     = (d/dp)^T x,   d/db_enc = sum over rows of d/dp */
#include "backward.h"

#include "gemm.h"
#include "sums.h"

enum { COLUMNS = 256 };

/* Turns the gradient to f that goes through x' into the one to p: adds what terms have, is 0 where f is not active, and goes through the
 * activation. Its column sums are b_enc's. */
static void to_preactivations(const struct selection *s, const struct objective *o, const struct term_input *in,
                              float *grad_f, float *grad_b_enc)
{
    size_t d_sae = in->c->d_sae;
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < d_sae; first += COLUMNS) {
        size_t width = d_sae - first < COLUMNS ? d_sae - first : COLUMNS;
        double sum[COLUMNS] = {0};
        for (size_t j = first; j < first + width; j++) {
            objective_to_entries(o, in, j, in->w->f + j, grad_f + j, in->rows, d_sae);
            if (s->kind->gradient)
                s->kind->gradient(s, j, in->w->f + j, grad_f + j, in->rows, d_sae);
        }
        for (size_t row = 0; row < in->rows; row++) {
            const float *restrict f = in->w->f + row * d_sae + first;
            float *restrict g = grad_f + row * d_sae + first;
            for (size_t j = 0; j < width; j++) {
                g[j] = f[j] < 0 || f[j] > 0 ? g[j] : 0;
                sum[j] += (double)g[j];
            }
        }
        for (size_t j = 0; j < width; j++)
            grad_b_enc[first + j] = (float)sum[j];
    }
}

/* The gradient of W_enc for latents [first, first + n). */
static void encoder_strip(const struct backward *b, const struct crosscoder *c, const float *x, size_t rows,
                          size_t first, size_t n, float *grad)
{
    /* grad [n, n_inputs] = grad_f[, first..]^T [n, rows] x [rows, n_inputs] */
    gemm(true, false, n, c->n_inputs, rows, 1, b->grad_f + first, c->d_sae, x, c->n_inputs, 0, grad, c->n_inputs);
}

/* The gradient of W_dec for latents [first, first + n). */
static void decoder_strip(const struct crosscoder *c, const struct forward *w, size_t rows, float scale, size_t first,
                          size_t n, float *grad)
{
    /* grad [n, n_inputs] = s f[, first..]^T [n, rows] residual [rows, n_inputs] */
    gemm(true, false, n, c->n_inputs, rows, scale, w->f + first, c->d_sae, w->residual, c->n_inputs, 0, grad,
         c->n_inputs);
#pragma omp parallel for schedule(static)
    for (size_t j = first; j < first + n; j++) {
        for (size_t site = 0; site < c->n_sites; site++) {
            float factor = w->dec_factor[j * c->n_sites + site];
            const float *restrict v = c->w_dec + j * c->n_inputs + site * c->d_model;
            float *restrict g = grad + (j - first) * c->n_inputs + site * c->d_model;
            for (size_t i = 0; i < c->d_model; i++)
                g[i] += factor * v[i];
        }
    }
}

static size_t strip_width(const struct crosscoder *c, size_t first)
{
    return c->d_sae - first < BACKWARD_STRIP ? c->d_sae - first : BACKWARD_STRIP;
}

/* Where the gradients of latents first.. are made: in the place that keeps them, or in the one strip there is. */
static float *strip_of(const struct backward *b, const struct crosscoder *c, bool decoder, size_t first)
{
    return b->keep ? b->grad + (first + (decoder ? c->d_sae : 0)) * c->n_inputs : b->grad;
}

double backward_gradient(struct backward *b, const struct selection *selection, const struct objective *o,
                         const struct crosscoder *c, const struct forward *w, const float *x, size_t rows,
                         float *grad_b_enc)
{
    const struct term_input in = {w, c, rows, NULL};
    float scale = (float)objective_to_output(o, &in);
    double norm2 = 0;
    /* grad_f [rows, d_sae] = s residual [rows, n_inputs] W_dec^T [n_inputs, d_sae] */
    gemm(false, true, rows, c->d_sae, c->n_inputs, scale, w->residual, c->n_inputs, c->w_dec, c->n_inputs, 0, b->grad_f,
         c->d_sae);
    to_preactivations(selection, o, &in, b->grad_f, grad_b_enc);

    for (size_t first = 0; first < c->d_sae; first += BACKWARD_STRIP) {
        size_t n = strip_width(c, first);
        float *grad = strip_of(b, c, false, first);
        encoder_strip(b, c, x, rows, first, n, grad);
        norm2 += sum_squares_parallel(grad, n * c->n_inputs);
        grad = strip_of(b, c, true, first);
        decoder_strip(c, w, rows, scale, first, n, grad);
        norm2 += sum_squares_parallel(grad, n * c->n_inputs);
    }
    return norm2;
}

void backward_update(struct backward *b, const struct objective *o, struct crosscoder *c, struct forward *w,
                     const float *x, size_t rows, const struct adam_factors *k, float *m, float *v)
{
    const struct term_input in = {w, c, rows, NULL};
    float scale = (float)objective_to_output(o, &in);
    for (size_t first = 0; first < c->d_sae; first += BACKWARD_STRIP) {
        size_t n = strip_width(c, first), enc = (size_t)(c->w_enc - c->params) + first * c->n_inputs,
               dec = (size_t)(c->w_dec - c->params) + first * c->n_inputs;
        float *grad = strip_of(b, c, false, first);
        if (!b->keep)
            encoder_strip(b, c, x, rows, first, n, grad);
        adam_update(k, c->params + enc, m + enc, v + enc, grad, n * c->n_inputs);
        grad = strip_of(b, c, true, first);
        if (!b->keep)
            decoder_strip(c, w, rows, scale, first, n, grad);
        adam_update(k, c->params + dec, m + dec, v + dec, grad, n * c->n_inputs);
    }
    w->norms_known = false;
}
