/* fvu.c - see fvu.h. */
#include "fvu.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 256 }; /* that one thread takes at a time: their sums stay in the first-level cache */

void fvu_sum_columns(double *sum, const float *x, size_t rows, size_t n)
{
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < n; first += COLUMNS) {
        double *restrict s = sum + first;
        size_t width = n - first < COLUMNS ? n - first : COLUMNS;
        for (size_t row = 0; row < rows; row++) {
            const float *restrict r = x + row * n + first;
            for (size_t i = 0; i < width; i++)
                s[i] += (double)r[i];
        }
    }
}

void fvu_deviations(double *row_deviation2, const float *x, size_t rows, size_t n_sites, size_t d_model,
                    const double *mean)
{
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < rows; row++) {
        for (size_t site = 0; site < n_sites; site++) {
            const float *v = x + (row * n_sites + site) * d_model;
            const double *m = mean + site * d_model;
            double sum = 0;
            for (size_t i = 0; i < d_model; i++) {
                double d = (double)v[i] - m[i];
                sum += d * d;
            }
            row_deviation2[row * n_sites + site] = sum;
        }
    }
}

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
