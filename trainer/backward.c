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

/* grad_f [rows, n] of latents first..first+n-1: adds c * dec_norm_sum, masks by f > 0; its column sums are b_enc's. */
static void through_relu(const struct crosscoder *c, const struct forward *w, size_t rows, size_t first, size_t n,
                         double l1_scale, float *grad_f, float *grad_b_enc)
{
#pragma omp parallel for schedule(static)
    for (size_t begin = 0; begin < n; begin += COLUMNS) {
        size_t width = n - begin < COLUMNS ? n - begin : COLUMNS;
        double sum[COLUMNS] = {0};
        float l1[COLUMNS];
        for (size_t j = 0; j < width; j++)
            l1[j] = (float)(l1_scale * w->dec_norm_sum[first + begin + j]);
        for (size_t row = 0; row < rows; row++) {
            const float *restrict f = w->f + row * c->d_sae + first + begin;
            float *restrict g = grad_f + row * n + begin;
            for (size_t j = 0; j < width; j++) {
                float v = g[j] + l1[j];
                v = f[j] > 0 ? v : 0;
                g[j] = v;
                sum[j] += (double)v;
            }
        }
        for (size_t j = 0; j < width; j++)
            grad_b_enc[first + begin + j] = (float)sum[j];
    }
}

static void encoder(const struct crosscoder *c, const struct forward *w, const float *x, size_t rows, double l1_scale,
                    float *grad_w_enc, float *grad_b_enc, float *grad_f)
{
    for (size_t first = 0; first < c->d_sae; first += BACKWARD_STRIP) {
        size_t n = c->d_sae - first < BACKWARD_STRIP ? c->d_sae - first : BACKWARD_STRIP;
        /* grad_f [rows, n] = (2 / B) residual [rows, n_inputs] W_dec[first..]^T [n_inputs, n] */
        gemm(false, true, rows, n, c->n_inputs, 2 / (float)rows, w->residual, c->n_inputs,
             c->w_dec + first * c->n_inputs, c->n_inputs, 0, grad_f, n);
        through_relu(c, w, rows, first, n, l1_scale, grad_f, grad_b_enc);
        /* grad W_enc[first..] [n, n_inputs] = grad_f^T [n, rows] x [rows, n_inputs] */
        gemm(true, false, n, c->n_inputs, rows, 1, grad_f, n, x, c->n_inputs, 0, grad_w_enc + first * c->n_inputs,
             c->n_inputs);
    }
}

static void decoder(const struct crosscoder *c, struct forward *w, size_t rows, double l1_scale, float *grad_w_dec,
                    float *grad_b_dec)
{
    /* grad W_dec [d_sae, n_inputs] = (2 / B) f^T [d_sae, rows] residual [rows, n_inputs] */
    gemm(true, false, c->d_sae, c->n_inputs, rows, 2 / (float)rows, w->f, c->d_sae, w->residual, c->n_inputs, 0,
         grad_w_dec, c->n_inputs);
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < c->d_sae; j++) {
        for (size_t site = 0; site < c->n_sites; site++) {
            double norm = w->dec_norm[j * c->n_sites + site];
            if (!(norm > 0))
                continue; /* the subgradient at the zero vector is 0 */
            float factor = (float)(l1_scale * w->f_sum[j] / norm);
            const float *restrict v = c->w_dec + j * c->n_inputs + site * c->d_model;
            float *restrict g = grad_w_dec + j * c->n_inputs + site * c->d_model;
            for (size_t i = 0; i < c->d_model; i++)
                g[i] += factor * v[i];
        }
    }
    /* grad b_dec [n_inputs] = (2 / B) sum over rows of residual */
    memset(w->columns, 0, c->n_inputs * sizeof *w->columns);
    sum_columns(w->columns, w->residual, rows, c->n_inputs);
    for (size_t i = 0; i < c->n_inputs; i++)
        grad_b_dec[i] = (float)(2 / (double)rows * w->columns[i]);
}

void backward_dense(const struct crosscoder *c, struct forward *w, const float *x, size_t rows, double l1_coeff,
                    float *grad, float *grad_f)
{
    double l1_scale = l1_coeff / (double)rows;
    float *grad_w_enc = grad + (c->w_enc - c->params), *grad_b_enc = grad + (c->b_enc - c->params);
    float *grad_w_dec = grad + (c->w_dec - c->params), *grad_b_dec = grad + (c->b_dec - c->params);
    encoder(c, w, x, rows, l1_scale, grad_w_enc, grad_b_enc, grad_f);
    decoder(c, w, rows, l1_scale, grad_w_dec, grad_b_dec);
}
