/* outliers.h - which rows of a batch stand out, for the message about a batch whose loss or gradient is not finite.
 *
 * A row stands out if its greatest value is OUTLIER_FACTOR times the batch's, in the geometric mean over rows, which a few rows of any size
 * hardly move. If none does, the rows are not to blame: the weights have diverged. */
#ifndef CROSSFEED_OUTLIERS_H
#define CROSSFEED_OUTLIERS_H

#include <stddef.h>

#include "stream.h"

#define OUTLIER_FACTOR 1000
#define OUTLIERS_NAMED 3

/* Writes what stands out of x [rows, n_sites, d_model], scaled and perhaps centred as training sees them, with origins [rows]:
 * "rows that stand out: sequence 3, position 7, site blocks.1.hook_resid_post: 1e+30; and 2 more". At most OUTLIERS_NAMED are named, the greatest
 * first. Allocates nothing. */
void outliers_describe(const float *x, const struct row_origin *origins, size_t rows, const struct stream *s,
                       char *text, size_t size);

#endif
