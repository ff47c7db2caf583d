/* geometric_median.c - see geometric_median.h. */
#include "geometric_median.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "stream.h"

enum { COLUMNS = 256 }; /* of a row that are converted at a time */

size_t geometric_median_memory(size_t n_rows, size_t n_sites, size_t d_model)
{
    return (n_rows * n_sites + 2 * n_sites * d_model) * sizeof(double);
}

/* Fills weight [n_rows, n_sites] with 1 / |row - guess|, or 0 where the row is the guess. */
static void weigh(const struct row_sample *s, const double *guess, double *weight)
{
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < s->n_rows; row++)
        for (size_t site = 0; site < s->n_sites; site++) {
            double squares = 0;
            float x[COLUMNS];
            for (size_t first = 0, n; first < s->d_model; first += n) {
                const double *g = guess + site * s->d_model + first;
                n = s->d_model - first < COLUMNS ? s->d_model - first : COLUMNS;
                row_sample_columns(s, row, site * s->d_model + first, n, x);
                for (size_t i = 0; i < n; i++)
                    squares += ((double)x[i] - g[i]) * ((double)x[i] - g[i]);
            }
            weight[row * s->n_sites + site] = squares > 0 ? 1 / sqrt(squares) : 0;
        }
}

/* Moves one site's guess [d_model] to the weighted mean, of which sum [d_model] is the sum and total the weights'; at_guess rows have weight 0.
 * Returns how far it moved. */
static double move(double *guess, const double *sum, size_t d_model, double total, size_t at_guess)
{
    double squares = 0, share = 1;
    if (!(total > 0))
        return 0; /* all rows are the guess */
    for (size_t i = 0; i < d_model; i++)
        squares += (sum[i] / total - guess[i]) * (sum[i] / total - guess[i]);
    double distance = sqrt(squares), pull = total * distance; /* of the other rows: |sum of unit vectors to them| */
    if (at_guess)
        share = pull > (double)at_guess ? 1 - (double)at_guess / pull : 0;
    for (size_t i = 0; i < d_model; i++)
        guess[i] += share * (sum[i] / total - guess[i]);
    return share * distance;
}

/* Does one iteration. Returns the farthest that a site's guess moved. */
static double iterate(const struct row_sample *s, double *guess, double *sums, double *weight)
{
    double farthest = 0;
    weigh(s, guess, weight);
    row_sample_sum(s, weight, sums);
    for (size_t site = 0; site < s->n_sites; site++) {
        double total = 0;
        size_t at_guess = 0;
        for (size_t row = 0; row < s->n_rows; row++) {
            double w = weight[row * s->n_sites + site];
            total += w;
            at_guess += !(w > 0);
        }
        double moved = move(guess + site * s->d_model, sums + site * s->d_model, s->d_model, total, at_guess);
        farthest = moved > farthest ? moved : farthest;
    }
    return farthest;
}

int geometric_median(const struct row_sample *s, size_t max_iterations, double tolerance, float *median,
                     size_t *iterations, struct err *e)
{
    size_t n_inputs = s->n_sites * s->d_model;
    double *weight = mem_alloc(s->n_rows * s->n_sites, sizeof *weight, "weights of the geometric median", e);
    double *guess = weight ? mem_alloc(2 * n_inputs, sizeof *guess, "geometric median", e) : NULL;
    if (!guess) {
        mem_free(weight);
        return ERR_MEMORY;
    }
    *iterations = 0;
    row_sample_sum(s, NULL, guess);
    for (size_t i = 0; i < n_inputs; i++)
        guess[i] /= (double)s->n_rows;
    while (*iterations < max_iterations) {
        ++*iterations;
        if (iterate(s, guess, guess + n_inputs, weight) < tolerance)
            break;
    }
    for (size_t i = 0; i < n_inputs; i++)
        median[i] = (float)guess[i];
    mem_free(guess);
    mem_free(weight);
    return 0;
}
