/* term_l1.c - the loss term "l1": sum over latents of f times the norm-sum of its decoder, N = sum over sites of |W_dec[latent, site]|,
 * as the reference has it. f is not negative. */
#include "term.h"

static double value(const struct term_input *in)
{
    double sum = 0;
    for (size_t j = 0; j < in->c->d_sae; j++)
        sum += term_sparsity_factor(in, j) * in->w->f_sum[j] * in->w->dec_norm_sum[j];
    return sum / (double)in->rows;
}

/* d / df = N / B */
static void to_entries(const struct term_input *in, double weight, size_t latent, const struct latent_entries *entries,
                       float *grad)
{
    float slope = (float)(term_sparsity_factor(in, latent) * weight / (double)in->rows * in->w->dec_norm_sum[latent]);
    for (size_t i = 0; i < entries->n; i++)
        grad[i * entries->stride] += slope;
}

/* d / d|W_dec[latent, site]| = (sum over rows of f) / B */
static void to_norms(const struct term_input *in, double weight, size_t latent, double *slope)
{
    double each = term_sparsity_factor(in, latent) * weight / (double)in->rows * in->w->f_sum[latent];
    for (size_t site = 0; site < in->c->n_sites; site++)
        slope[site] += each;
}

const struct term term_l1 = {.name = "l1", .value = value, .to_entries = to_entries, .to_norms = to_norms};
