/* precision.h - packs a model for bf16 products and measures what that does to its activations. */
#ifndef CROSSFEED_PRECISION_H
#define CROSSFEED_PRECISION_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "gpt2_forward.h"
#include "gpt2_model.h"
#include "sites.h"

/* Runs the model over one sequence, tokens [seq_len], in fp32; packs it (gpt2_bf16_pack); runs it again. error
 * [n_sites] = mean over the positions from `first` on of |x_bf16 - x_fp32| / |x_fp32|, of each site's vectors x before
 * they are scaled and rounded. m stays packed. f: workspace, with room afterwards for one sequence at least. */
int precision_pack(struct gpt2_model *m, struct gpt2_forward *f, const uint32_t *tokens, size_t seq_len, size_t first,
                   const struct site *sites, size_t n_sites, double *error, struct err *e);

#endif
