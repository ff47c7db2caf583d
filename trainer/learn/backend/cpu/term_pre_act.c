/* term_pre_act.c - the loss term "pre_act": sum over latents of max(theta - p, 0) N, N the norm-sum of the decoder, which pulls
 * pre-activations below their threshold up, so that latents do not die (Anthropic, January 2025). Of jumprelu; p is the pre-activation:
 * fed with f instead, as peers have done, it would be a constant. */
#include <math.h>

#include "term.h"

static double below(const struct term_input *in, size_t latent)
{
    return (double)in->rows - (double)in->w->fired[latent];
}

static double value(const struct term_input *in)
{
    double sum = 0;
    for (size_t j = 0; j < in->c->d_sae; j++)
        sum += in->w->below_sum[j] * in->w->dec_norm_sum[j];
    return sum / (double)in->rows;
}

/* d / d|W_dec[latent, site]| = (sum over rows of max(theta - p, 0)) / B */
static void to_norms(const struct term_input *in, double weight, size_t latent, double *slope)
{
    for (size_t site = 0; site < in->c->n_sites; site++)
        slope[site] += weight / (double)in->rows * in->w->below_sum[latent];
}

/* d / dp = -N / B where p is below theta */
static double to_inactive(const struct term_input *in, double weight, size_t latent)
{
    return -weight / (double)in->rows * in->w->dec_norm_sum[latent];
}

/* d / d log_threshold = theta N / B for each row in which p is below theta */
static double to_threshold(const struct term_input *in, double weight, size_t latent)
{
    return weight / (double)in->rows * in->w->dec_norm_sum[latent] * below(in, latent) *
           exp((double)in->c->log_threshold[latent]);
}

const struct term term_pre_act = {
    .name = "pre_act", .value = value, .to_norms = to_norms, .to_inactive = to_inactive, .to_threshold = to_threshold};
