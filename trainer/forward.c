/* forward.c - see forward.h. */
#include "forward.h"

#include <math.h>
#include <string.h>

#include "gemm.h"
#include "mem.h"
#include "sums.h"

enum { COLUMNS = 256 }; /* latents that one thread takes at a time: their sums stay in the first-level cache */

int forward_memory(size_t n_sites, size_t d_model, size_t d_sae, size_t max_rows, size_t *bytes, struct err *e)
{
    size_t n_params, row_bytes, rows_bytes, latent_bytes, latents_bytes;
    int rc = crosscoder_n_params(n_sites, d_model, d_sae, &n_params, e);
    if (rc)
        return rc;
    /* Below, what is not multiplied by max_rows is less than the parameters' 16 bytes each, which do fit. */
    size_t n_inputs = n_sites * d_model;
    row_bytes = (d_sae + n_inputs) * sizeof(float) + 2 * n_sites * sizeof(double);
    latent_bytes = (n_sites + 2) * sizeof(double) + sizeof(uint64_t);
    if (!size_mul(max_rows, row_bytes, &rows_bytes) || !size_mul(d_sae, latent_bytes, &latents_bytes) ||
        __builtin_add_overflow(rows_bytes, latents_bytes + n_inputs * sizeof(double), bytes))
        return err_set(e, ERR_MEMORY, "workspace: %zu rows of %zu inputs with d_sae %zu do not fit", max_rows, n_inputs,
                       d_sae);
    return 0;
}

int forward_init(struct forward *w, const struct crosscoder *c, size_t max_rows, struct err *e)
{
    size_t bytes;
    memset(w, 0, sizeof *w);
    if (max_rows == 0)
        return err_set(e, ERR_INPUT, "workspace: batches of %zu rows", max_rows);
    int rc = forward_memory(c->n_sites, c->d_model, c->d_sae, max_rows, &bytes, e);
    if (rc)
        return rc;
    w->max_rows = max_rows;
    if ((w->f = mem_alloc(max_rows * c->d_sae, sizeof *w->f, "activations of a batch", e)) &&
        (w->residual = mem_alloc(max_rows * c->n_inputs, sizeof *w->residual, "residual of a batch", e)) &&
        (w->dec_norm = mem_alloc(c->d_sae * c->n_sites, sizeof *w->dec_norm, "decoder norms", e)) &&
        (w->dec_norm_sum = mem_alloc(c->d_sae, sizeof *w->dec_norm_sum, "decoder norms", e)) &&
        (w->f_sum = mem_alloc(c->d_sae, sizeof *w->f_sum, "sums of the latents", e)) &&
        (w->fired = mem_alloc(c->d_sae, sizeof *w->fired, "counts of the latents", e)) &&
        (w->columns = mem_alloc(c->n_inputs, sizeof *w->columns, "sums of the columns", e)) &&
        (w->row_residual2 = mem_alloc(max_rows * c->n_sites, sizeof *w->row_residual2, "sums of the rows", e)) &&
        (w->row_deviation2 = mem_alloc(max_rows * c->n_sites, sizeof *w->row_deviation2, "sums of the rows", e)))
        return 0;
    forward_release(w);
    return ERR_MEMORY;
}

void forward_release(struct forward *w)
{
    mem_free(w->f);
    mem_free(w->residual);
    mem_free(w->dec_norm);
    mem_free(w->dec_norm_sum);
    mem_free(w->f_sum);
    mem_free(w->fired);
    mem_free(w->columns);
    mem_free(w->row_residual2);
    mem_free(w->row_deviation2);
    memset(w, 0, sizeof *w);
}

static void decoder_norms(struct forward *w, const struct crosscoder *c)
{
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < c->d_sae; j++) {
        double sum = 0;
        for (size_t site = 0; site < c->n_sites; site++) {
            double norm = sqrt(sum_squares(c->w_dec + j * c->n_inputs + site * c->d_model, c->d_model));
            w->dec_norm[j * c->n_sites + site] = norm;
            sum += norm;
        }
        w->dec_norm_sum[j] = sum;
    }
}

/* f = ReLU(f + b_enc), and each latent's sum and count over the rows. */
static void bias_relu(struct forward *w, const struct crosscoder *c, size_t rows)
{
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < c->d_sae; first += COLUMNS) {
        size_t width = c->d_sae - first < COLUMNS ? c->d_sae - first : COLUMNS;
        const float *restrict bias = c->b_enc + first;
        double sum[COLUMNS] = {0};
        uint32_t count[COLUMNS] = {0};
        for (size_t row = 0; row < rows; row++) {
            float *restrict f = w->f + row * c->d_sae + first;
            for (size_t j = 0; j < width; j++) {
                float v = f[j] + bias[j];
                v = v <= 0 ? 0 : v; /* NaN stays NaN, as in torch.relu: the loss will show it */
                f[j] = v;
                sum[j] += (double)v;
                count[j] += v > 0;
            }
        }
        for (size_t j = 0; j < width; j++) {
            w->f_sum[first + j] = sum[j];
            w->fired[first + j] = count[j];
        }
    }
}

void forward_encode(struct forward *w, const struct crosscoder *c, const float *x, size_t rows)
{
    decoder_norms(w, c);
    /* f [rows, d_sae] = x [rows, n_inputs] W_enc^T [n_inputs, d_sae] */
    gemm(false, true, rows, c->d_sae, c->n_inputs, 1, x, c->n_inputs, c->w_enc, c->n_inputs, 0, w->f, c->d_sae);
    bias_relu(w, c, rows);
}

void forward_decode(struct forward *w, const struct crosscoder *c, const float *x, size_t rows)
{
    /* residual [rows, n_inputs] = f [rows, d_sae] W_dec [d_sae, n_inputs], then + b_dec - x */
    gemm(false, false, rows, c->n_inputs, c->d_sae, 1, w->f, c->d_sae, c->w_dec, c->n_inputs, 0, w->residual,
         c->n_inputs);
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < rows; row++) {
        const float *restrict xr = x + row * c->n_inputs;
        float *restrict r = w->residual + row * c->n_inputs;
        for (size_t i = 0; i < c->n_inputs; i++)
            r[i] = r[i] + c->b_dec[i] - xr[i];
        for (size_t site = 0; site < c->n_sites; site++)
            w->row_residual2[row * c->n_sites + site] = sum_squares(r + site * c->d_model, c->d_model);
    }
}

struct losses forward_losses(const struct forward *w, const struct crosscoder *c, size_t rows)
{
    double l2 = 0, l1 = 0, n = (double)rows;
    uint64_t active = 0;
    for (size_t i = 0; i < rows * c->n_sites; i++)
        l2 += w->row_residual2[i];
    for (size_t j = 0; j < c->d_sae; j++) {
        l1 += w->f_sum[j] * w->dec_norm_sum[j];
        active += w->fired[j];
    }
    return (struct losses){.l2 = l2 / n, .l1 = l1 / n, .l0 = (double)active / n};
}

void forward_deviations(struct forward *w, const struct crosscoder *c, const float *x, size_t rows, const double *mean)
{
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < rows; row++) {
        for (size_t site = 0; site < c->n_sites; site++) {
            const float *v = x + row * c->n_inputs + site * c->d_model;
            const double *m = mean + site * c->d_model;
            double sum = 0;
            for (size_t i = 0; i < c->d_model; i++) {
                double d = (double)v[i] - m[i];
                sum += d * d;
            }
            w->row_deviation2[row * c->n_sites + site] = sum;
        }
    }
}
