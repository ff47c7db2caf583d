/* outliers.c - see outliers.h. */
#include "outliers.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

/* The greatest value of a row, in size. */
struct peak {
    size_t row, at;
    double size;
};

static struct peak peak_of(const float *x, size_t row, size_t width)
{
    struct peak p = {.row = row, .size = -1};
    for (size_t at = 0; at < width; at++) {
        double size = fabs((double)x[row * width + at]);
        if (size > p.size) {
            p.at = at;
            p.size = size;
        }
    }
    return p;
}

/* Puts p among the greatest, [n] in descending order of which as many are kept as there is room for. Returns how many there are. */
static size_t insert(struct peak *greatest, size_t n, struct peak p)
{
    size_t i = n < OUTLIERS_NAMED ? n : OUTLIERS_NAMED - 1;
    if (n == OUTLIERS_NAMED && !(p.size > greatest[i].size))
        return n;
    for (; i > 0 && p.size > greatest[i - 1].size; i--)
        greatest[i] = greatest[i - 1];
    greatest[i] = p;
    return n < OUTLIERS_NAMED ? n + 1 : n;
}

void outliers_describe(const float *x, const struct row_origin *origins, size_t rows, const struct stream *s,
                       char *text, size_t size)
{
    struct peak greatest[OUTLIERS_NAMED] = {0};
    size_t width = (size_t)s->n_sites * s->d_model, n = 0, more = 0;
    double logs = 0;
    for (size_t row = 0; row < rows; row++) {
        struct peak p = peak_of(x, row, width);
        logs += log(fmin(fmax(p.size, FLT_MIN), FLT_MAX));
        n = insert(greatest, n, p);
    }
    double bound = OUTLIER_FACTOR * exp(logs / (double)rows);
    for (size_t row = 0; row < rows; row++)
        more += peak_of(x, row, width).size > bound;
    bool none = more == 0;
    size_t named = none ? 1 : more < n ? more : n;
    int used =
        snprintf(text, size, "%s",
                 none ? "no row stands out, the weights have diverged; greatest value: " : "rows that stand out: ");
    for (size_t i = 0; i < named && (size_t)used < size; i++) {
        const struct row_origin *o = &origins[greatest[i].row];
        used += snprintf(text + used, size - (size_t)used, "%ssequence %u, position %u, site %s: %g", i ? "; " : "",
                         o->sequence, o->position, s->sites[greatest[i].at / s->d_model],
                         (double)x[greatest[i].row * width + greatest[i].at]);
    }
    if (more > named && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, "; and %zu more", more - named);
}
