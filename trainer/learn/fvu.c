/* fvu.c - see fvu.h. */
#include "fvu.h"

#include <math.h>
#include <string.h>

#include "mem.h"

enum { COLUMNS = 256 }; /* that one thread takes at a time: their sums stay in the first-level cache */

void fvu_sum_columns(double *sum, const float *x, size_t rows, size_t n, const bool *which)
{
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < n; first += COLUMNS) {
        double *restrict s = sum + first;
        size_t width = n - first < COLUMNS ? n - first : COLUMNS;
        for (size_t row = 0; row < rows; row++) {
            const float *restrict r = x + row * n + first;
            if (which && !which[row])
                continue;
            for (size_t i = 0; i < width; i++)
                s[i] += (double)r[i];
        }
    }
}

/* ---- means ---- */

static size_t n_inputs(const struct fvu_means *m)
{
    return m->n_sites * m->d_model;
}

void fvu_means_memory(size_t n_sites, size_t d_model, size_t *bytes, size_t *row_bytes)
{
    *bytes = 2 * FVU_ROWS * n_sites * d_model * sizeof(double);
    *row_bytes = FVU_ROWS * n_sites * sizeof(double) + sizeof(bool);
}

int fvu_means_init(struct fvu_means *m, size_t n_sites, size_t d_model, size_t max_rows, struct err *e)
{
    *m = (struct fvu_means){.n_sites = n_sites, .d_model = d_model, .max_rows = max_rows};
    bool all = (m->typical = mem_alloc(max_rows, sizeof *m->typical, "which rows are typical", e));
    for (int i = 0; i < FVU_ROWS && all; i++)
        all = (m->sum[i] = mem_alloc(n_inputs(m), sizeof *m->sum[i], "sums of the rows", e)) &&
              (m->mean[i] = mem_alloc(n_inputs(m), sizeof *m->mean[i], "mean of the rows", e)) &&
              (m->deviation2[i] = mem_alloc(max_rows * n_sites, sizeof *m->deviation2[i], "sums of the rows", e));
    if (all)
        return 0;
    fvu_means_release(m);
    return ERR_MEMORY;
}

void fvu_means_release(struct fvu_means *m)
{
    mem_free(m->typical);
    for (int i = 0; i < FVU_ROWS; i++) {
        mem_free(m->sum[i]);
        mem_free(m->mean[i]);
        mem_free(m->deviation2[i]);
    }
    *m = (struct fvu_means){0};
}

void fvu_means_clear(struct fvu_means *m)
{
    for (int i = 0; i < FVU_ROWS; i++) {
        memset(m->sum[i], 0, n_inputs(m) * sizeof *m->sum[i]);
        m->rows[i] = 0;
    }
}

/* Returns the squared norm of x [n] before the mean [n] was subtracted from it; mean NULL: none was. */
static double squared_norm(const float *x, const float *mean, size_t n)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i] + (mean ? (double)mean[i] : 0);
        squares += v * v;
    }
    return squares;
}

/* Whether row x [n_sites, d_model] is typical. */
static bool is_typical(const struct fvu_means *m, const struct normalisation *by, const float *x)
{
    for (size_t site = 0; site < m->n_sites; site++) {
        double bound = NORMALISATION_TYPICAL * (double)by->median_norm[site];
        const float *mean = by->centred ? by->mean + site * m->d_model : NULL;
        if (bound > 0 && squared_norm(x + site * m->d_model, mean, m->d_model) >= bound * bound)
            return false;
    }
    return true;
}

/* Marks the typical ones of the rows x. Returns whether it is known which they are. */
static bool mark_typical(struct fvu_means *m, const struct normalisation *by, const float *x, size_t rows)
{
    if (!by || !by->has_median_norm)
        return false;
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < rows; row++)
        m->typical[row] = is_typical(m, by, x + row * n_inputs(m));
    return true;
}

void fvu_means_add(struct fvu_means *m, const struct normalisation *by, const float *x, size_t rows)
{
    bool known = mark_typical(m, by, x, rows);
    fvu_sum_columns(m->sum[FVU_ALL], x, rows, n_inputs(m), NULL);
    m->rows[FVU_ALL] += rows;
    if (known)
        fvu_sum_columns(m->sum[FVU_TYPICAL], x, rows, n_inputs(m), m->typical);
    for (size_t row = 0; row < rows && known; row++)
        m->rows[FVU_TYPICAL] += m->typical[row];
    for (int k = 0; k < FVU_ROWS; k++)
        for (size_t i = 0; i < n_inputs(m) && m->rows[k] > 0; i++)
            m->mean[k][i] = m->sum[k][i] / (double)m->rows[k];
}

/* Fills deviation2 of the rows x [rows, n_sites, d_model] from a mean. */
static void deviations(struct fvu_means *m, enum fvu_rows from, const float *x, size_t rows)
{
    const double *mean = m->mean[from];
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < rows; row++) {
        for (size_t site = 0; site < m->n_sites; site++) {
            const float *v = x + (row * m->n_sites + site) * m->d_model;
            const double *c = mean + site * m->d_model;
            double sum = 0;
            for (size_t i = 0; i < m->d_model; i++) {
                double d = (double)v[i] - c[i];
                sum += d * d;
            }
            m->deviation2[from][row * m->n_sites + site] = sum;
        }
    }
}

/* ---- sums ---- */

void fvu_begin(struct fvu_sums *s, size_t n_sites)
{
    memset(s, 0, sizeof *s);
    s->n_sites = n_sites;
}

/* Adds the sites' values of a row, and their total, to sums [n_sites + 1]. Returns the total. */
static double add(double *sums, const double *values, size_t n_sites)
{
    double total = 0;
    for (size_t site = 0; site < n_sites; site++) {
        sums[site] += values[site];
        total += values[site];
    }
    sums[n_sites] += total;
    return total;
}

static void add_ratio(struct fvu_sums *s, size_t i, double residual2, double deviation2)
{
    if (deviation2 > 0) {
        s->ratio[i] += residual2 / deviation2;
        s->ratios[i]++;
    }
}

void fvu_add(struct fvu_sums *s, struct fvu_means *m, const struct normalisation *by, const float *x,
             const double *row_residual2, size_t rows)
{
    bool known = mark_typical(m, by, x, rows);
    enum fvu_rows token = known ? FVU_TYPICAL : FVU_ALL;
    deviations(m, FVU_ALL, x, rows);
    if (known)
        deviations(m, FVU_TYPICAL, x, rows);
    for (size_t row = 0; row < rows; row++) {
        const double *r = row_residual2 + row * s->n_sites, *d = m->deviation2[token] + row * s->n_sites;
        double residual2 = add(s->residual2[FVU_ALL], r, s->n_sites), deviation2 = 0;
        add(s->deviation2[FVU_ALL], m->deviation2[FVU_ALL] + row * s->n_sites, s->n_sites);
        if (known && m->typical[row]) {
            add(s->residual2[FVU_TYPICAL], r, s->n_sites);
            add(s->deviation2[FVU_TYPICAL], d, s->n_sites);
        }
        for (size_t site = 0; site < s->n_sites && m->rows[token] > 0; site++) {
            add_ratio(s, site, r[site], d[site]);
            deviation2 += d[site];
        }
        add_ratio(s, s->n_sites, residual2, deviation2);
    }
}

static double quotient(double a, double b)
{
    return b > 0 ? a / b : (double)NAN;
}

void fvu_finish(const struct fvu_sums *s, struct fvu *out)
{
    for (size_t i = 0; i <= s->n_sites; i++) {
        bool total = i == s->n_sites;
        *(total ? &out->fvu : &out->fvu_site[i]) = quotient(s->residual2[FVU_ALL][i], s->deviation2[FVU_ALL][i]);
        *(total ? &out->fvu_typical : &out->fvu_typical_site[i]) =
            quotient(s->residual2[FVU_TYPICAL][i], s->deviation2[FVU_TYPICAL][i]);
        *(total ? &out->fvu_token : &out->fvu_token_site[i]) = quotient(s->ratio[i], (double)s->ratios[i]);
    }
}

void fvu_unknown(struct fvu *out)
{
    *out = (struct fvu){.fvu = NAN, .fvu_typical = NAN, .fvu_token = NAN};
    for (size_t i = 0; i < STREAM_MAX_SITES; i++)
        out->fvu_site[i] = out->fvu_typical_site[i] = out->fvu_token_site[i] = NAN;
}
