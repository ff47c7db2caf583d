/* normalisation.h - what a crosscoder expects of its rows (activations times the scale, less the mean if they are centred), and which of them
 * are typical. */
#ifndef CROSSFEED_NORMALISATION_H
#define CROSSFEED_NORMALISATION_H

#include <stdbool.h>

#include "stream.h"

struct normalisation {
    float scale[STREAM_MAX_SITES]; /* [n_sites] */
    bool centred;
    float *mean; /* [n_sites, d_model] if centred: of scaled rows */
    bool has_median_norm;
    float median_norm
        [STREAM_MAX_SITES]; /* [n_sites] then: of scaled rows, not centred, over the rows that the scale is measured over */
};

/* A row is typical if at every site its norm, not centred, is under so many times the median; a median of 0 bounds nothing. */
#define NORMALISATION_TYPICAL 3.0

#endif
