/* row_sample.c - see row_sample.h. */
#include "row_sample.h"

#include <string.h>

#include "bf16.h"
#include "scale.h"

enum { COLUMNS = 64 }; /* that one thread sums at a time */

void row_sample_columns(const struct row_sample *s, size_t row, size_t column, size_t n, float *x)
{
    const unsigned char *from = s->rows + (row * s->n_sites * s->d_model + column) * row_dtype_size(s->dtype);
    if (s->dtype == ROW_BF16)
        bf16_to_f32_n(x, from, n);
    else
        memcpy(x, from, n * sizeof *x);
    if (s->mean)
        scale_center(x, 1, n, s->mean + column);
}

void row_sample_get(const struct row_sample *s, size_t first, size_t n, float *x)
{
    size_t n_inputs = s->n_sites * s->d_model;
    for (size_t i = 0; i < n; i++)
        row_sample_columns(s, first + i, 0, n_inputs, x + i * n_inputs);
}

void row_sample_sum(const struct row_sample *s, const double *weight, double *sums)
{
    size_t per_site = (s->d_model + COLUMNS - 1) / COLUMNS; /* a piece of columns lies within one site */
#pragma omp parallel for schedule(static)
    for (size_t piece = 0; piece < s->n_sites * per_site; piece++) {
        size_t site = piece / per_site, first = piece % per_site * COLUMNS,
               n = s->d_model - first < COLUMNS ? s->d_model - first : COLUMNS;
        double sum[COLUMNS] = {0};
        float x[COLUMNS];
        for (size_t row = 0; row < s->n_rows; row++) {
            double w = weight ? weight[row * s->n_sites + site] : 1;
            row_sample_columns(s, row, site * s->d_model + first, n, x);
            for (size_t i = 0; i < n; i++)
                sum[i] += w * (double)x[i];
        }
        memcpy(sums + site * s->d_model + first, sum, n * sizeof *sum);
    }
}

void row_sample_mean(const struct row_sample *s, double *sums, float *mean)
{
    row_sample_sum(s, NULL, sums);
    for (size_t i = 0; i < s->n_sites * s->d_model; i++)
        mean[i] = (float)(sums[i] / (double)s->n_rows);
}
