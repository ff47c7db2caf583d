/* site_stats.c - sums over vectors, and what follows from them; see site_stats.h. */
#include "site_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "finite.h"
#include "mem.h"

int site_stats_init(struct site_stats *s, size_t d_model, struct err *e)
{
    *s = (struct site_stats){.min = INFINITY, .max = -INFINITY};
    s->squares = mem_alloc(d_model, sizeof *s->squares, "sums of squares", e);
    s->sorted = mem_alloc(d_model, sizeof *s->sorted, "sums of squares", e);
    return s->squares && s->sorted ? 0 : ERR_MEMORY;
}

void site_stats_release(struct site_stats *s)
{
    mem_free(s->squares);
    mem_free(s->sorted);
    s->squares = s->sorted = NULL;
}

void site_stats_add(struct site_stats *s, const float *vector, size_t d_model, size_t row)
{
    if (finite_first_bad_f32(vector, d_model) < d_model) {
        if (s->bad_rows++ == 0)
            s->first_bad = row;
        for (size_t k = 0; k < d_model; k++) {
            s->nan += isnan(vector[k]) != 0;
            s->inf += isinf(vector[k]) != 0;
        }
        return;
    }
    double norm2 = 0;
    for (size_t k = 0; k < d_model; k++) {
        double square = (double)vector[k] * (double)vector[k];
        norm2 += square;
        s->squares[k] += square;
        s->min = vector[k] < s->min ? vector[k] : s->min;
        s->max = vector[k] > s->max ? vector[k] : s->max;
    }
    s->norms += sqrt(norm2);
    s->rows++;
}

double site_stats_mean_norm(const struct site_stats *s)
{
    return s->rows ? s->norms / (double)s->rows : NAN;
}

double site_stats_scale(const struct site_stats *s, size_t d_model)
{
    return sqrt((double)d_model) / site_stats_mean_norm(s);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

size_t site_stats_outliers(const struct site_stats *s, size_t d_model, struct site_outlier *top)
{
    double *sorted = s->sorted;
    memcpy(sorted, s->squares, d_model * sizeof *sorted);
    qsort(sorted, d_model, sizeof *sorted, by_size);
    double median = (sorted[(d_model - 1) / 2] + sorted[d_model / 2]) / 2;
    size_t n = 0;
    for (uint32_t k = 0; k < d_model; k++) {
        double factor = s->squares[k] / median;
        if (!(median > 0) || factor <= SITE_OUTLIER_FACTOR)
            continue;
        size_t at = n < SITE_MAX_OUTLIERS ? n : SITE_MAX_OUTLIERS; /* insertion into the list of the largest */
        while (at > 0 && top[at - 1].factor < factor) {
            if (at < SITE_MAX_OUTLIERS)
                top[at] = top[at - 1];
            at--;
        }
        if (at < SITE_MAX_OUTLIERS)
            top[at] = (struct site_outlier){k, factor};
        n++;
    }
    return n;
}
