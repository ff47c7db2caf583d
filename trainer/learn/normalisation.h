/* normalisation.h - what a crosscoder expects of its rows: activations times the scale, less the mean if they are centred. */
#ifndef CROSSFEED_NORMALISATION_H
#define CROSSFEED_NORMALISATION_H

#include <stdbool.h>

#include "stream.h"

struct normalisation {
    float scale[STREAM_MAX_SITES]; /* [n_sites] */
    bool centred;
    float *mean; /* [n_sites, d_model] if centred: of scaled rows */
};

#endif
