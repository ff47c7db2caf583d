/* site_stats.h - what one looks at first in activations: norms, range, NaN, outlier dimensions; one pass, memory of
 * twice n_sites * d_model doubles. Sums in double, in the order of the rows. */
#ifndef CROSSFEED_SITE_STATS_H
#define CROSSFEED_SITE_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define SITE_OUTLIER_FACTOR 20 /* a dimension whose mean square is so many times the median of them all */
#define SITE_MAX_OUTLIERS 5    /* listed; all are counted */

struct site_stats {
    size_t rows;      /* finite ones */
    size_t bad_rows;  /* with a NaN or Inf; in nothing below */
    size_t nan, inf;  /* values */
    size_t first_bad; /* row */
    double norms;
    float min, max;
    double *squares; /* [d_model] sums */
    double *sorted;  /* [d_model] scratch for their median */
};

struct site_outlier {
    uint32_t dim;
    double factor; /* its mean square over the median */
};

int site_stats_init(struct site_stats *s, size_t d_model, struct err *e);
/* Safe on a zeroed struct. */
void site_stats_release(struct site_stats *s);
/* Adds the site's vector [d_model] of a row. */
void site_stats_add(struct site_stats *s, const float *vector, size_t d_model, size_t row);

/* Returns the mean norm of its vectors; NaN if there are no rows. */
double site_stats_mean_norm(const struct site_stats *s);
/* Returns sqrt(d_model) / mean norm (proto/wire/scale.h); NaN if there are no rows, Inf if all are zero. */
double site_stats_scale(const struct site_stats *s, size_t d_model);
/* Finds the largest dimensions beyond the factor, largest first: top [SITE_MAX_OUTLIERS]. Returns how many there are in
 * all. A median of 0 gives none. */
size_t site_stats_outliers(const struct site_stats *s, size_t d_model, struct site_outlier *top);

#endif
