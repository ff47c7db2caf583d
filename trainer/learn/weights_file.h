/* weights_file.h - crosscoder.safetensors: the parameters under the reference's names and shapes.
 *
 *   W_enc [n_sites, d_model, d_sae], W_dec [d_sae, n_sites, d_model], b_enc [d_sae], b_dec [n_sites, d_model],
 *   scale [n_sites]; all F32.
 * In memory W_enc is stored by latent (crosscoder.h); it is transposed in strips of a few MB on the way. */
#ifndef CROSSFEED_WEIGHTS_FILE_H
#define CROSSFEED_WEIGHTS_FILE_H

#include "crosscoder.h"
#include "err.h"

/* Writes atomically (file.h). scale: [n_sites]. */
int weights_file_write(const char *path, const struct crosscoder *c, const float *scale, struct err *e);

/* Fills the initialised c and scale [n_sites]. Refuses a missing tensor, another shape (both named), NaN/Inf. F16 and
 * BF16 are converted. After an error the contents of c and scale are undefined. */
int weights_file_load(const char *path, struct crosscoder *c, float *scale, struct err *e);

#endif
