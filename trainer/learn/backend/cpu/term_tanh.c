/* term_tanh.c - the loss term "tanh": sum over latents of tanh(c f N), N the norm-sum of the decoder, which counts active latents and
 * does not shrink large ones (Anthropic, January 2025). c is the setup's tanh_scale. */
#include <math.h>

#include "term.h"

static double of_latent(const struct term_input *in, size_t latent)
{
    const struct latent_entries entries = term_entries(in, latent);
    double scale = in->setup->tanh_scale * in->w->dec_norm_sum[latent], sum = 0;
    for (size_t i = 0; i < entries.n; i++) {
        double f = (double)entries.f[i * entries.stride];
        sum += f > 0 ? tanh(scale * f) : 0;
    }
    return term_sparsity_factor(in, latent) * sum;
}

static double value(const struct term_input *in)
{
    return term_sum_latents(in, of_latent) / (double)in->rows;
}

/* d / df = c N (1 - tanh^2) / B */
static void to_entries(const struct term_input *in, double weight, size_t latent, const struct latent_entries *entries,
                       float *grad)
{
    double scale = in->setup->tanh_scale * in->w->dec_norm_sum[latent],
           each = term_sparsity_factor(in, latent) * weight / (double)in->rows * scale;
    for (size_t i = 0; i < entries->n; i++) {
        double t = tanh(scale * (double)entries->f[i * entries->stride]);
        grad[i * entries->stride] += (float)(each * (1 - t * t));
    }
}

/* d / d|W_dec[latent, site]| = sum over rows of c f (1 - tanh^2) / B */
static void to_norms(const struct term_input *in, double weight, size_t latent, double *slope)
{
    const struct latent_entries entries = term_entries(in, latent);
    double c = in->setup->tanh_scale, scale = c * in->w->dec_norm_sum[latent], sum = 0;
    for (size_t i = 0; i < entries.n; i++) {
        double f = (double)entries.f[i * entries.stride], t = f > 0 ? tanh(scale * f) : 0;
        sum += f > 0 ? c * f * (1 - t * t) : 0;
    }
    for (size_t site = 0; site < in->c->n_sites; site++)
        slope[site] += term_sparsity_factor(in, latent) * weight / (double)in->rows * sum;
}

const struct term term_tanh = {.name = "tanh", .value = value, .to_entries = to_entries, .to_norms = to_norms};
