/* term_l1_joint.c - the loss term "l1_joint": sum over latents of f times |W_dec[latent]|, one norm over all sites together
 * (`--l1-norm l2-of-norms`). Without a price on each site's norm there is no sparsity across layers. */
#include <math.h>

#include "term.h"

static double joint_norm(const struct term_input *in, size_t latent)
{
    const double *norm = in->w->dec_norm + latent * in->c->n_sites;
    double squares = 0;
    for (size_t site = 0; site < in->c->n_sites; site++)
        squares += norm[site] * norm[site];
    return sqrt(squares);
}

static double value(const struct term_input *in)
{
    double sum = 0;
    for (size_t j = 0; j < in->c->d_sae; j++)
        sum += term_sparsity_factor(in, j) * in->w->f_sum[j] * joint_norm(in, j);
    return sum / (double)in->rows;
}

/* d / df = |W_dec[latent]| / B */
static void to_entries(const struct term_input *in, double weight, size_t latent, const struct latent_entries *entries,
                       float *grad)
{
    float slope = (float)(term_sparsity_factor(in, latent) * weight / (double)in->rows * joint_norm(in, latent));
    for (size_t i = 0; i < entries->n; i++)
        grad[i * entries->stride] += slope;
}

/* d / d|W_dec[latent, site]| = (sum over rows of f) / B * |W_dec[latent, site]| / |W_dec[latent]| */
static void to_norms(const struct term_input *in, double weight, size_t latent, double *slope)
{
    double joint = joint_norm(in, latent);
    double each = term_sparsity_factor(in, latent) * weight / (double)in->rows * in->w->f_sum[latent];
    for (size_t site = 0; joint > 0 && site < in->c->n_sites; site++)
        slope[site] += each * in->w->dec_norm[latent * in->c->n_sites + site] / joint;
}

const struct term term_l1_joint = {.name = "l1_joint", .value = value, .to_entries = to_entries, .to_norms = to_norms};
