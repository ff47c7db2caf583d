/* backward.c - see backward.h. With r = x' - x and the loss's derivatives as its terms say them (term.h):
 *
 *   d/dx'        = s r                                                s = 2 / B of the squared error
 *   d/df         = d/dx' W_dec^T + what the terms add at the entry    at active entries, else 0; through the activation: d/dp
 *   d/dW_dec     = f^T d/dx' + factor[j, site] * W_dec[j, site]
 *   d/db_dec     = sum over rows of d/dx'
 *   d/dW_enc     = (d/dp)^T x,   d/db_enc = sum over rows of d/dp */
#include "backward.h"

#include <math.h>
#include <string.h>

#include "fvu.h"
#include "gemm.h"
#include "sums.h"

enum { COLUMNS = 256 };

/* Turns the gradient to f that goes through x' into the one to p: adds what terms have, goes through the activation, and gives inactive
 * entries what terms have for these. Its column sums are b_enc's. */
static void to_preactivations(const struct selection *s, const struct objective *o, const struct term_input *in,
                              float *grad_f, float *grad_b_enc, float *grad_threshold)
{
    size_t d_sae = in->c->d_sae;
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < d_sae; first += COLUMNS) {
        size_t width = d_sae - first < COLUMNS ? d_sae - first : COLUMNS;
        double sum[COLUMNS] = {0};
        float base[COLUMNS] = {0};
        for (size_t j = first; j < first + width; j++) {
            const struct latent_entries entries = term_entries(in, j);
            double threshold = 0;
            objective_to_entries(o, in, j, &entries, grad_f + j);
            if (s->kind->gradient)
                s->kind->gradient(s, j, entries.f, grad_f + j, in->rows, d_sae, &threshold);
            base[j - first] = (float)objective_to_inactive(o, in, j);
            if (grad_threshold)
                grad_threshold[j] = (float)(threshold + objective_to_threshold(o, in, j));
        }
        for (size_t row = 0; row < in->rows; row++) {
            const float *restrict f = in->w->f + row * d_sae + first;
            float *restrict g = grad_f + row * d_sae + first;
            for (size_t j = 0; j < width; j++) {
                bool active = f[j] < 0 || f[j] > 0;
                g[j] = active ? g[j] : base[j] + (signbit(f[j]) ? g[j] : 0);
                sum[j] += (double)g[j];
            }
        }
        for (size_t j = 0; j < width; j++)
            grad_b_enc[first + j] = (float)sum[j];
    }
}

/* Clears what a latent may not write, and gives a shared latent's twin sites the sum of their gradients: it counts once for the norm, in
 * the first of them (`once` clears the other). grad: [n, n_inputs] of latents [first, first + n). */
static void mask_strip(const struct backend_setup *setup, size_t first, size_t n, bool decoder, bool once, float *grad)
{
    const struct partition *p = &setup->partition;
    size_t d = setup->d_model, half = setup->n_sites / 2 * d, n_inputs = setup->n_sites * d;
    if (p->shared + p->exclusive[0] + p->exclusive[1] == 0)
        return;
#pragma omp parallel for schedule(static)
    for (size_t j = first; j < first + n; j++) {
        float *g = grad + (j - first) * n_inputs;
        for (size_t site = 0; site < setup->n_sites; site++)
            if (!backend_may_see(setup, j, site))
                memset(g + site * d, 0, d * sizeof *g);
        for (size_t i = 0; decoder && j < p->shared && i < half; i++) {
            g[i] += g[half + i];
            g[half + i] = once ? 0 : g[i];
        }
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
                         const struct term_input *in, const float *x, float scale, float *grad_b_enc,
                         float *grad_threshold)
{
    const struct crosscoder *c = in->c;
    const struct forward *w = in->w;
    size_t rows = in->rows;
    double norm2 = 0;
    /* grad_f [rows, d_sae] = s residual [rows, n_inputs] W_dec^T [n_inputs, d_sae] */
    gemm(false, true, rows, c->d_sae, c->n_inputs, scale, w->residual, c->n_inputs, c->w_dec, c->n_inputs, 0, b->grad_f,
         c->d_sae);
    to_preactivations(selection, o, in, b->grad_f, grad_b_enc, grad_threshold);

    for (size_t first = 0; first < c->d_sae; first += BACKWARD_STRIP) {
        size_t n = strip_width(c, first);
        float *grad = strip_of(b, c, false, first);
        encoder_strip(b, c, x, rows, first, n, grad);
        mask_strip(in->setup, first, n, false, false, grad);
        norm2 += sum_squares_parallel(grad, n * c->n_inputs);
        grad = strip_of(b, c, true, first);
        decoder_strip(c, w, rows, scale, first, n, grad);
        mask_strip(in->setup, first, n, true, true, grad);
        norm2 += sum_squares_parallel(grad, n * c->n_inputs);
    }
    return norm2;
}

void backward_update(struct backward *b, const struct backend_setup *setup, struct crosscoder *c, struct forward *w,
                     const float *x, size_t rows, float scale, const struct adam_factors *k, float *m, float *v)
{
    for (size_t first = 0; first < c->d_sae; first += BACKWARD_STRIP) {
        size_t n = strip_width(c, first), enc = (size_t)(c->w_enc - c->params) + first * c->n_inputs,
               dec = (size_t)(c->w_dec - c->params) + first * c->n_inputs;
        float *grad = strip_of(b, c, false, first);
        if (!b->keep) {
            encoder_strip(b, c, x, rows, first, n, grad);
            mask_strip(setup, first, n, false, false, grad);
        }
        adam_update(k, c->params + enc, m + enc, v + enc, grad, n * c->n_inputs);
        grad = strip_of(b, c, true, first);
        if (!b->keep)
            decoder_strip(c, w, rows, scale, first, n, grad);
        mask_strip(setup, first, n, true, false, grad); /* kept, the twin is 0 and takes the sum: the same bits */
        adam_update(k, c->params + dec, m + dec, v + dec, grad, n * c->n_inputs);
    }
    w->norms_known = false;
}

void backward_scale_residual(struct forward *w, const struct crosscoder *c, size_t rows, const double *factor)
{
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < rows; row++)
        for (size_t site = 0; site < c->n_sites; site++) {
            float by = (float)factor[row * c->n_sites + site], *r = w->residual + row * c->n_inputs + site * c->d_model;
            for (size_t i = 0; i < c->d_model; i++)
                r[i] *= by;
        }
    memset(w->columns, 0, c->n_inputs * sizeof *w->columns);
    fvu_sum_columns(w->columns, w->residual, rows, c->n_inputs, NULL);
}
