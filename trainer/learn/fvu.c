/* fvu.c - see fvu.h. */
#include "fvu.h"

#include <math.h>
#include <string.h>

static void add(struct fvu_sums *s, size_t i, double residual2, double deviation2)
{
    s->residual2[i] += residual2;
    s->deviation2[i] += deviation2;
    if (deviation2 > 0) {
        s->ratio[i] += residual2 / deviation2;
        s->ratios[i]++;
    }
}

void fvu_begin(struct fvu_sums *s, size_t n_sites)
{
    memset(s, 0, sizeof *s);
    s->n_sites = n_sites;
}

void fvu_add(struct fvu_sums *s, const double *row_residual2, const double *row_deviation2, size_t rows)
{
    for (size_t row = 0; row < rows; row++) {
        double residual2 = 0, deviation2 = 0;
        for (size_t site = 0; site < s->n_sites; site++) {
            double r = row_residual2[row * s->n_sites + site], d = row_deviation2[row * s->n_sites + site];
            add(s, site, r, d);
            residual2 += r;
            deviation2 += d;
        }
        add(s, s->n_sites, residual2, deviation2);
    }
}

void fvu_finish(const struct fvu_sums *s, struct fvu *out)
{
    for (size_t i = 0; i <= s->n_sites; i++) {
        double *fvu = i < s->n_sites ? &out->fvu_site[i] : &out->fvu;
        double *token = i < s->n_sites ? &out->fvu_token_site[i] : &out->fvu_token;
        *fvu = s->deviation2[i] > 0 ? s->residual2[i] / s->deviation2[i] : (double)NAN;
        *token = s->ratios[i] > 0 ? s->ratio[i] / (double)s->ratios[i] : (double)NAN;
    }
}
