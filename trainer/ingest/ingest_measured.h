/* ingest_measured.h - what the first blocks of a run's order say of all rows, as plain data. */
#ifndef CROSSFEED_INGEST_MEASURED_H
#define CROSSFEED_INGEST_MEASURED_H

#include <stddef.h>

#include "row_norms.h"
#include "stream.h"

struct ingest_measured {
    float scale[STREAM_MAX_SITES];
    const unsigned char *
        rows; /* [n_rows, n_sites, d_model] of the run's dtype: those blocks' rows, scaled as training sees them, in the
                                  order of the blocks and without the masked ones; NULL unless they are kept (row_store_config.keep) */
    size_t n_rows;
    struct row_norms norms; /* of these rows, kept or not; n_rows 0 if nothing was measured, or all are masked */
};

#endif
