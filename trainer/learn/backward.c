/* backward.c - see backward.h. With B = rows, r = x' - x and c = l1_coeff / B:
 *
 *   d/dx'        = (2 / B) r
 *   d/df         = d/dx' W_dec^T + c * dec_norm_sum             through ReLU: where f > 0, else 0
 *   d/dW_dec     = f^T d/dx' + c * f_sum[j] * W_dec[j, site] / dec_norm[j, site]
 *   d/db_dec     = sum over rows of d/dx'
 *   d/dW_enc     = (d/df)^T x,   d/db_enc = sum over rows of d/df */
#include "backward.h"

#include <string.h>

#include "gemm.h"
#include "sums.h"

enum { COLUMNS = 256 };

/* grad_f: adds c * dec_norm_sum, masks by f > 0; its column sums are b_enc's. */
static void through_relu(const struct crosscoder *c, const struct forward *w, size_t rows, double l1_scale,
                         float *grad_f, float *grad_b_enc)
{
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < c->d_sae; first += COLUMNS) {
        size_t width = c->d_sae - first < COLUMNS ? c->d_sae - first : COLUMNS;
        double sum[COLUMNS] = {0};
        float l1[COLUMNS];
        for (size_t j = 0; j < width; j++)
            l1[j] = (float)(l1_scale * w->dec_norm_sum[first + j]);
        for (size_t row = 0; row < rows; row++) {
            const float *restrict f = w->f + row * c->d_sae + first;
            float *restrict g = grad_f + row * c->d_sae + first;
            for (size_t j = 0; j < width; j++) {
                float v = g[j] + l1[j];
                v = f[j] > 0 ? v : 0;
                g[j] = v;
                sum[j] += (double)v;
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
static void decoder_strip(const struct crosscoder *c, const struct forward *w, size_t rows, double l1_scale,
                          size_t first, size_t n, float *grad)
{
    /* grad [n, n_inputs] = (2 / B) f[, first..]^T [n, rows] residual [rows, n_inputs] */
    gemm(true, false, n, c->n_inputs, rows, 2 / (float)rows, w->f + first, c->d_sae, w->residual, c->n_inputs, 0, grad,
         c->n_inputs);
#pragma omp parallel for schedule(static)
    for (size_t j = first; j < first + n; j++) {
        for (size_t site = 0; site < c->n_sites; site++) {
            double norm = w->dec_norm[j * c->n_sites + site];
            if (!(norm > 0))
                continue; /* the subgradient at the zero vector is 0 */
            float factor = (float)(l1_scale * w->f_sum[j] / norm);
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

double backward_gradient(struct backward *b, const struct crosscoder *c, struct forward *w, const float *x, size_t rows,
                         double l1_coeff, float *grad_b_enc, float *grad_b_dec)
{
    double l1_scale = l1_coeff / (double)rows, norm2 = 0;
    /* grad_f [rows, d_sae] = (2 / B) residual [rows, n_inputs] W_dec^T [n_inputs, d_sae] */
    gemm(false, true, rows, c->d_sae, c->n_inputs, 2 / (float)rows, w->residual, c->n_inputs, c->w_dec, c->n_inputs, 0,
         b->grad_f, c->d_sae);
    through_relu(c, w, rows, l1_scale, b->grad_f, grad_b_enc);
    /* grad b_dec [n_inputs] = (2 / B) sum over rows of residual */
    memset(w->columns, 0, c->n_inputs * sizeof *w->columns);
    sum_columns(w->columns, w->residual, rows, c->n_inputs);
    for (size_t i = 0; i < c->n_inputs; i++)
        grad_b_dec[i] = (float)(2 / (double)rows * w->columns[i]);

    for (size_t first = 0; first < c->d_sae; first += BACKWARD_STRIP) {
        size_t n = strip_width(c, first);
        float *grad = strip_of(b, c, false, first);
        encoder_strip(b, c, x, rows, first, n, grad);
        norm2 += sum_squares_parallel(grad, n * c->n_inputs);
        grad = strip_of(b, c, true, first);
        decoder_strip(c, w, rows, l1_scale, first, n, grad);
        norm2 += sum_squares_parallel(grad, n * c->n_inputs);
    }
    return norm2;
}

void backward_update(struct backward *b, struct crosscoder *c, struct forward *w, const float *x, size_t rows,
                     double l1_coeff, const struct adam_factors *k, float *m, float *v)
{
    for (size_t first = 0; first < c->d_sae; first += BACKWARD_STRIP) {
        size_t n = strip_width(c, first), enc = (size_t)(c->w_enc - c->params) + first * c->n_inputs,
               dec = (size_t)(c->w_dec - c->params) + first * c->n_inputs;
        float *grad = strip_of(b, c, false, first);
        if (!b->keep)
            encoder_strip(b, c, x, rows, first, n, grad);
        adam_update(k, c->params + enc, m + enc, v + enc, grad, n * c->n_inputs);
        grad = strip_of(b, c, true, first);
        if (!b->keep)
            decoder_strip(c, w, rows, l1_coeff / (double)rows, first, n, grad);
        adam_update(k, c->params + dec, m + dec, v + dec, grad, n * c->n_inputs);
    }
    w->norms_known = false;
}
