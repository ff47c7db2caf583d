/* precision.h - packs a model for bf16 products and measures what that does to its activations. */
#ifndef CROSSFEED_PRECISION_H
#define CROSSFEED_PRECISION_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "model_run.h"
#include "model.h"
#include "sites.h"

/* Runs the model over one sequence, tokens [seq_len], in fp32; packs it (model_pack); runs it again. Sets error
 * [n_sites] to the mean over the positions from `first` on of |x_bf16 - x_fp32| / |x_fp32|, of each site's vectors x
 * before they are scaled and rounded. m stays packed. Grows w, which then has room for one sequence at least. */
int precision_pack(struct model *m, struct workspace *w, const uint32_t *tokens, size_t seq_len, size_t first,
                   const struct site *sites, size_t n_sites, double *error, struct err *e);

#endif
