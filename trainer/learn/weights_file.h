/* weights_file.h - crosscoder.safetensors: the parameters under the reference's names and shapes.
 *
 *   W_enc [n_sites, d_model, d_sae], W_dec [d_sae, n_sites, d_model], b_enc [d_sae], b_dec [n_sites, d_model],
 *   scale [n_sites], and mean [n_sites, d_model] if rows are centred; of jumprelu log_threshold [d_sae], of topk and batchtopk threshold [1] (in units of the score; negative: not known);
 *   all F32. Metadata: activation, reconstruction and score, unless they are the reference's (relu, squared).
 * A backend keeps W_enc by latent; it is transposed on the way, in strips of a few MB. */
#ifndef CROSSFEED_WEIGHTS_FILE_H
#define CROSSFEED_WEIGHTS_FILE_H

#include "backend.h"
#include "err.h"
#include "file_digest.h"
#include "normalisation.h"
#include "stream.h"

/* Returns the bytes that writing or loading takes, of a setup and of centred rows. */
size_t weights_file_memory(const struct backend_setup *s, bool centred);

/* Writes atomically (file.h), and tells the file's digest. */
int weights_file_write(const char *path, const struct backend *b, const struct normalisation *rows,
                       struct file_digest *digest, struct err *e);

/* Returns the bytes of the tensors in such a file; a header of less than a page comes on top. */
size_t weights_file_bytes(const struct backend_setup *s, bool centred);

/* Reads what a file says of its rows' scale: scale [STREAM_MAX_SITES], *n values, 0 if it has none. Refuses what is no vector
 * of positive numbers. */
int weights_file_scale(const char *path, float *scale, uint32_t *n, struct err *e);

/* Refuses, naming both, a file whose scale, or mean if rows->centred, is not the run's: its weights are for other rows.
 * advice ends the message. */
int weights_file_compare(const char *path, const struct normalisation *rows, const struct stream *s, const char *advice,
                         struct err *e);

/* Does as weights_file_load for b alone: the file's scale and mean are not taken, and it may lack a scale. */
int weights_file_load_weights(const char *path, struct backend *b, bool centred, struct err *e);

/* Fills the weights of b and rows->scale, and if rows->centred also rows->mean unless that is NULL. Refuses another activation than the setup's, a
 * file with a mean unless rows->centred and one without if it is, a missing tensor, another shape (both named), NaN/Inf. F16 and BF16 are
 * converted. After an error the contents of both are undefined. */
int weights_file_load(const char *path, struct backend *b, struct normalisation *rows, struct err *e);

#endif
