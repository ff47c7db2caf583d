/* term_l1.c - the loss term "l1": sum over latents of f times the norm-sum of its decoder, N = sum over sites of |W_dec[latent, site]|,
 * as the reference has it. f is not negative. */
#include "term.h"

static double value(const struct term_input *in)
{
    double sum = 0;
    for (size_t j = 0; j < in->c->d_sae; j++)
        sum += in->w->f_sum[j] * in->w->dec_norm_sum[j];
    return sum / (double)in->rows;
}

/* d / df = N / B */
static void to_entries(const struct term_input *in, double weight, size_t latent, const float *f, float *grad, size_t n,
                       size_t stride)
{
    (void)f;
    float slope = (float)(weight / (double)in->rows * in->w->dec_norm_sum[latent]);
    for (size_t i = 0; i < n; i++)
        grad[i * stride] += slope;
}

/* d / d|W_dec[latent, site]| = (sum over rows of f) / B */
static double to_norm(const struct term_input *in, double weight, size_t latent, size_t site)
{
    (void)site;
    return weight / (double)in->rows * in->w->f_sum[latent];
}

const struct term term_l1 = {.name = "l1", .value = value, .to_entries = to_entries, .to_norm = to_norm};
